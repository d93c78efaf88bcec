"""How much faster is attention than its plain twin? `python benchmarks/bench_attention.py [--device cuda]`

Both run in turn in one process, the same inputs, outputs (and gradients) compared; medians over the rounds. The sizes
are stage 1 of the reference network on a 6x64x64 clip: 64 windows of 6x8x8 tokens, 192 of 2x8x8 (one frame to the
other: 64). Then attention over time against nn.MultiheadAttention; MB are the most bytes of tensors alive at once.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import platform
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from spikevrt.model.blocks import shift_mask
from spikevrt.model.layers import WindowMask, attend, attend_plain, linear
from spikevrt.model.spike_vrt import attend_over_time, over_pixels
from spikevrt.runtime import pick_device, synchronise, tune_allocator
from spikevrt.train.forecast import LiveBytes

DIM, HEADS = 96, 4  # of attention over time
CASES = {
    "self, 64 windows of 384 tokens": (64, 6, 384, ((6, 64, 64), (6, 8, 8), (0, 4, 4))),
    "self, tiny, 256 windows of 80 tokens": (256, 2, 80, ((5, 64, 64), (5, 4, 4), (0, 2, 2))),
    "mutual, 192 windows of 2x64 tokens": (384, 6, 64, None),
}


def measure(device: torch.device, rounds: int) -> None:
    print("| case | mask | gradients | plain ms | ours ms | ratio | max difference |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for name, (windows, heads, tokens, shifted) in CASES.items():
        for masked in (False, True) if shifted is not None else (False,):
            mask = shift_mask(*shifted, device=device) if masked and shifted is not None else None
            for gradients in (False, True):
                run_case(device, rounds, name, windows, heads, tokens, mask, gradients)


def attend_unpacked(qkv: Tensor, bias: Tensor, mask: WindowMask | None) -> Tensor:
    q, k, v = qkv
    return attend_plain(q, k, v, bias, mask)


def run_case(
    device: torch.device, rounds: int, name: str, windows: int, heads: int, tokens: int, mask: WindowMask | None,
    gradients: bool,
) -> None:  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(3, windows, heads, tokens, 16, generator=generator).to(device)]
    inputs.append(torch.randn(heads, tokens, tokens, generator=generator).to(device))
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    functions: dict[str, Callable[[Tensor, Tensor, WindowMask | None], Tensor]]
    functions = {"plain": attend_unpacked, "ours": attend}
    results = {}
    for _ in range(rounds + 1):
        for which, function in functions.items():
            leaves = [t.clone().requires_grad_(gradients) for t in inputs]
            synchronise(device)
            began = time.perf_counter()
            with torch.set_grad_enabled(gradients):
                out = function(leaves[0], leaves[1], mask)
            if gradients:
                out.sum().backward()
            synchronise(device)
            seconds[which].append(time.perf_counter() - began)
            results[which] = [out.detach(), *(t.grad for t in leaves if t.grad is not None)]
    difference = max(float((a - b).abs().max()) for a, b in zip(*results.values(), strict=True))
    plain, ours = (1e3 * statistics.median(s[1:]) for s in seconds.values())  # the first round warms up
    yes = {True: "yes", False: "no"}
    print(
        f"| {name} | {yes[mask is not None]} | {yes[gradients]} | {plain:.1f} | {ours:.1f} | {plain / ours:.2f}x "
        f"| {difference:.1e} |"
    )


class Ours(torch.nn.Module):
    """The four projections of a `MultiheadAttention` around attention over time."""

    def __init__(self, reference: torch.nn.MultiheadAttention) -> None:
        super().__init__()
        self.reference = reference

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        weight, bias = self.reference.in_proj_weight, self.reference.in_proj_bias
        q = linear(x, weight[:DIM], bias[:DIM])
        k, v = linear(memory, weight[DIM:], bias[DIM:]).chunk(2, -1)
        out = self.reference.out_proj
        return linear(attend_over_time(q, k, v, HEADS, None), out.weight, out.bias)


def as_reference(attention: torch.nn.MultiheadAttention, x: Tensor, memory: Tensor) -> Tensor:
    """As the reference design uses it, on features (B, C, T, H, W): all pixels are sequences of one batch."""
    b, c, t, h, w = x.shape
    tokens, others = (f.permute(0, 3, 4, 2, 1).reshape(-1, t, c) for f in (x, memory))
    result, _ = attention(tokens, others, others)
    return result.view(b, h, w, t, c).permute(0, 4, 3, 1, 2).contiguous()


def over_time(rounds: int, side: int) -> None:
    """Cross-attention over the 6 frames of every pixel: nn.MultiheadAttention and ours, the same four projections."""
    generator = torch.Generator().manual_seed(1)
    x, memory = torch.randn(2, 1, DIM, 6, side, side, generator=generator)
    ours_inputs = [f.permute(0, 2, 3, 4, 1).contiguous() for f in (x, memory)]  # where our features lie
    torch.manual_seed(1)
    reference = torch.nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    ours = functools.partial(over_pixels, Ours(reference), max_tokens=1 << 19)
    pair = ((functools.partial(as_reference, reference), (x, memory)), (ours, ours_inputs))
    for gradients in (False, True):
        reference.train(gradients)
        seconds: tuple[list[float], list[float]] = ([], [])
        peaks = []
        for round_number in range(rounds + 2):
            for (function, inputs), times in zip(pair, seconds, strict=True):
                leaves = [t.clone().requires_grad_(gradients) for t in inputs]
                live = LiveBytes()
                live.ignore(leaves)
                began = time.perf_counter()
                with torch.set_grad_enabled(gradients), live if round_number == 0 else contextlib.nullcontext():
                    result = function(*leaves)
                    if gradients:
                        result.sum().backward()
                times.append(time.perf_counter() - began)
                if round_number == 0:  # which is slow, and only counted
                    peaks.append(live.peak / 1e6)
        slow, fast = (1e3 * statistics.median(times[2:]) for times in seconds)
        print(
            f"| {side}x{side} | {'yes' if gradients else 'no'} | {slow:.1f} | {fast:.1f} | {slow / fast:.2f}x "
            f"| {peaks[0]:.0f} | {peaks[1]:.0f} | {peaks[0] / peaks[1]:.1f}x |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--default-allocator", action="store_true", help="leave the C allocator as it is")
    options = parser.parse_args()
    try:
        device = pick_device(options.device)
    except ValueError as error:
        sys.exit(str(error))
    tuned = not options.default_allocator and tune_allocator()
    malloc = "allocator tuned, as train and restore do" if tuned else "default allocator"
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads, {malloc}\n")
    measure(device, options.rounds)
    if options.device == "cpu":
        print("\n| over time, pixels | gradients | reference ms | ours ms | ratio | reference MB | ours MB | ratio |")
        print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        for side in (64, 128):
            over_time(options.rounds, side)
