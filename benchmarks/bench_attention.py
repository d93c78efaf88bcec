"""How much faster is window attention than its plain twin? `python benchmarks/bench_attention.py [--device cuda]`

Both run in turn in one process, the same inputs, outputs (and gradients) compared; medians over the rounds. The sizes
are stage 1 of the reference network on a 6x64x64 clip: 64 windows of 6x8x8 tokens, 192 of 2x8x8 (one frame to the
other: 64).
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

import torch

from spikevrt.model.attention import attend, attend_plain
from spikevrt.model.blocks import shift_mask
from spikevrt.runtime import pick_device, synchronise, tune_allocator

CASES = {
    "self, 64 windows of 384 tokens": (64, 6, 384, shift_mask((6, 64, 64), (6, 8, 8), (0, 4, 4))),
    "self, tiny, 256 windows of 80 tokens": (256, 2, 80, shift_mask((5, 64, 64), (5, 4, 4), (0, 2, 2))),
    "mutual, 192 windows of 2x64 tokens": (192, 12, 64, None),
}


def measure(device: torch.device, rounds: int) -> None:
    print("| case | mask | gradients | plain ms | ours ms | ratio | max difference |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for name, (windows, heads, tokens, mask) in CASES.items():
        for masked in (False, True) if mask is not None else (False,):
            for gradients in (False, True):
                run_case(device, rounds, name, windows, heads, tokens, mask if masked else None, gradients)


def run_case(device, rounds, name, windows, heads, tokens, mask, gradients) -> None:  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(windows, heads, tokens, 16, generator=generator).to(device) for _ in range(3)]
    inputs.append(torch.randn(heads, tokens, tokens, generator=generator).to(device))
    if mask is not None:
        mask = type(mask)(mask.pairs.to(device), mask.windows)
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    results = {}
    for _ in range(rounds + 1):
        for which, function in (("plain", attend_plain), ("ours", attend)):
            leaves = [t.clone().requires_grad_(gradients) for t in inputs]
            synchronise(device)
            began = time.perf_counter()
            with torch.set_grad_enabled(gradients):
                out = function(*leaves, mask)
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--default-allocator", action="store_true", help="leave the C allocator as it is")
    options = parser.parse_args()
    tuned = not options.default_allocator and tune_allocator()
    malloc = "allocator tuned, as train and restore do" if tuned else "default allocator"
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads, {malloc}\n")
    measure(pick_device(options.device), options.rounds)
