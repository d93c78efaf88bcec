"""How near do the GPU's kernels come to its limits? `python benchmarks/bench_kernels.py [--device cuda]`

On a GPU: every kernel of spikevrt/kernels and its plain twin in turn, forward and with gradients, medians over the
rounds; operations and bytes counted; the time that they would take at the peaks of this machine, which are measured in
the same run (a large copy, a large bf16 product), and the share of it that is reached.

Without a GPU: the operations and bytes of one 720p clip of 12 frames through the reference network, part by part,
counted on shapes alone, and the time that an H200 is EXPECTED to take. Nothing is measured then.

Dimension key: T frames, P pixels of a frame, C channels, N tokens of a window, G heads or groups, E channels of a head.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.module_tracker import ModuleTracker

from spikevrt.config import load_config
from spikevrt.kernels.operators import (
    MASKED,
    MaskPatterns,
    TemporalWeights,
    attend_windows,
    deform_triton,
    temporal_plain,
    temporal_triton,
)
from spikevrt.model.blocks import shift_mask
from spikevrt.model.deformable_alignment import deform_conv
from spikevrt.model.layers import attend_plain
from spikevrt.model.spike_vrt import SpikeVRT
from spikevrt.runtime import pick_device, synchronise

CONFIG = Path(__file__).parents[1] / "configs" / "vrt_spike_baseline.yaml"
CHANNELS, BF16 = 96, 2

# NVIDIA's data sheet of the H200 SXM: 4.8 TB/s, 989 TFLOP/s of dense bf16. Exponentials: 132 multiprocessors x 16 a
# clock x 1.83 GHz. The shares are assumptions, not measurements: large products are commonly seen at 0.6 to 0.75 of
# nominal; with 96 channels and lone gathers in between less is assumed.
BYTES_PER_S, FLOPS_PER_S, EXPONENTIALS_PER_S = 4.8e12, 989e12, 3.9e12
SHARE_OF_BANDWIDTH, SHARE_OF_PRODUCTS, SHARE_OF_EXPONENTIALS = 0.8, 0.4, 0.5
FRAMES, COUNTED_PX, RATIO = 12, 256, 2
CLIP_PX = 1280 * 720


@dataclass(frozen=True)
class Case:
    """A kernel with inputs, what it computes, and what it must read and write."""

    name: str
    plain: Callable[..., Tensor]
    ours: Callable[..., Tensor]
    inputs: list[Tensor]  # those that have gradients
    flops: float
    bytes: float


def temporal_case(device: torch.device, dtype: torch.dtype, frames: int, pixels: int, heads: int = 4) -> Case:
    c, hidden = CHANNELS, 2 * CHANNELS
    shapes = [(c,)] * 4 + [(c, c), (c,), (2 * c, c), (2 * c,), (c, c), (c,), (c,), (c,)]
    shapes += [(hidden, c), (hidden,), (c, hidden), (c,)]
    weights = [torch.randn(shape, device=device) * shape[-1] ** -0.5 for shape in shapes]
    x, memory = (torch.randn(1, frames, pixels, c, device=device).to(dtype) for _ in range(2))

    def run(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(x: Tensor, memory: Tensor, *weights: Tensor) -> Tensor:
            cast = [w if name.startswith("norm") else w.to(dtype) for name, w in zip(names, weights, strict=True)]
            return function(x, memory, None, TemporalWeights(*cast), heads)

        return call

    names = TemporalWeights._fields
    tokens = frames * pixels
    flops = tokens * (2 * (4 * c * c + 2 * c * hidden) + 4 * frames * c)
    return Case(
        f"temporal cross-attention, {frames} frames of {pixels} pixels",
        run(temporal_plain), run(temporal_triton), [x, memory, *weights], flops, 3 * tokens * c * x.element_size(),
    )  # fmt: skip


def deform_case(device: torch.device, dtype: torch.dtype, pictures: int, side: int, groups: int = 16) -> Case:
    c = CHANNELS
    x = torch.randn(pictures, c, side, side, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    offset = 3 * torch.randn(pictures, groups, 9, 2, side, side, device=device)
    mask = torch.rand(pictures, groups, 9, side, side, device=device)
    weight, bias = torch.randn(c, c, 3, 3, device=device) * (9 * c) ** -0.5, torch.zeros(c, device=device)
    pixels = pictures * side * side
    return Case(
        f"deformable convolution, {pictures} pictures of {side}x{side}, {groups} groups",
        deform_conv, deform_triton, [x, offset, mask, weight, bias],
        pixels * 2 * 9 * c * c, pixels * (2 * c * x.element_size() + 27 * groups * 4),
    )  # fmt: skip


def window_cases(device: torch.device, dtype: torch.dtype, side: int, heads: int = 6) -> list[Case]:
    size, window = (FRAMES, side, side), (6, 8, 8)
    tokens = window[0] * window[1] * window[2]
    mask = shift_mask(size, window, (3, 4, 4), device)
    assert mask.kinds is not None
    windows = len(mask.kinds)
    patterns = MaskPatterns.of(mask.patterns, mask.kinds)
    q, k, v = (
        torch.randn(windows, heads, tokens, CHANNELS // heads, device=device).to(dtype) / CHANNELS**0.5
        for _ in range(3)
    )
    bias = torch.randn(heads, tokens, tokens, device=device)
    flops = windows * 4 * tokens * tokens * CHANNELS
    num_bytes = 4 * windows * tokens * CHANNELS * q.element_size()

    def plain(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        return attend_plain(q * q.shape[-1] ** 0.5, k, v, bias.to(dtype), mask)

    def sdpa(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        return attend_windows(q, k, v, bias, patterns)

    labels = (~mask.patterns).int().argmax(-1)[torch.tensor(mask.kinds, device=device)]
    padding = (0, -q.shape[-1] % 8)  # FlexAttention wants head sizes in multiples of eight
    compiled: Callable[..., Any] = flex_attention
    if device.type == "cuda":
        compiled = torch.compile(flex_attention)

    def flex(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        """FlexAttention: a kernel compiled for this bias and mask, in which no mask is stored."""
        own_bias = bias.to(q.dtype)

        def score(logit: Tensor, window: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            logit = logit + own_bias[head, query, key]
            own = window % labels.shape[0]
            return torch.where(labels[own, query] == labels[own, key], logit, logit + MASKED)

        out: Tensor = compiled(*(F.pad(t, padding) for t in (q, k, v)), score_mod=score, scale=1.0)
        return out[..., : q.shape[-1]]

    name = f"window attention, {windows} shifted windows of {tokens} tokens"
    return [
        Case(f"{name}, {form}", plain, function, [q, k, v, bias], flops, num_bytes)
        for form, function in (("sdpa", sdpa), ("flex", flex))
    ]


def seconds_of(function: Callable[[], Any], device: torch.device) -> float:
    synchronise(device)
    began = time.perf_counter()
    function()
    synchronise(device)
    return time.perf_counter() - began


def peaks(device: torch.device, side: int = 8192) -> tuple[float, float]:
    """(bytes a second of a copy, operations a second of a bf16 product)."""
    a, b = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    source = torch.zeros(8 * side * side, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copies = [seconds_of(lambda: target.copy_(source), device) for _ in range(11)][1:]
    products = [seconds_of(lambda: a @ b, device) for _ in range(11)][1:]
    return 2 * source.numel() / statistics.median(copies), 2 * side**3 / statistics.median(products)


def measure(device: torch.device, cases: list[Case], rounds: int, bandwidth: float, products: float) -> None:
    print(f"measured peaks: {bandwidth / 1e12:.3f} TB/s, {products / 1e12:.1f} TFLOP/s bf16\n")
    print("| kernel | gradients | plain ms | ours ms | ratio | GFLOP | MB | roofline ms | share | largest error |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for case in cases:
        for gradients in (False, True):
            print(row_of(case, device, rounds, gradients, bandwidth, products))


def row_of(case: Case, device: torch.device, rounds: int, gradients: bool, bandwidth: float, products: float) -> str:
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    results = {}
    for _ in range(rounds + 2):
        for which, function in (("plain", case.plain), ("ours", case.ours)):
            leaves = [t.clone().requires_grad_(gradients) for t in case.inputs]

            def once(
                function: Callable[..., Tensor] = function, leaves: list[Tensor] = leaves, which: str = which
            ) -> None:
                with torch.set_grad_enabled(gradients):
                    results[which] = function(*leaves)
                if gradients:
                    results[which].float().sum().backward()

            seconds[which].append(seconds_of(once, device))
    plain, ours = (1e3 * statistics.median(s[2:]) for s in seconds.values())  # two rounds warm up and compile
    expected, got = (results[which].detach().float() for which in ("plain", "ours"))
    error = (got - expected).abs().max() / expected.abs().max()
    times = 3 if gradients else 1  # a backward pass has twice the products, and reads and writes about twice as much
    roof = 1e3 * times * max(case.bytes / bandwidth, case.flops / products)
    return (
        f"| {case.name} | {'yes' if gradients else 'no'} | {plain:.3f} | {ours:.3f} | {plain / ours:.2f}x "
        f"| {times * case.flops / 1e9:.1f} | {times * case.bytes / 1e6:.0f} | {roof:.3f} | {roof / ours:.0%} "
        f"| {float(error):.1e} |"
    )


PARTS = {  # the first whose words all stand in a module's path
    "spike encoder": ("spike_encoder",),
    "spike temporal attention": ("spike_attention",),
    "fusion": (".fusion",),
    "optical flow": ("spynet",),
    "offset convolutions": ("conv_offset",),
    "deformable convolutions": ("pa_deform",),
    "window attention": (".attn",),
    "feed-forward": (".mlp",),
}
ATTENTION_LINEAR = "window attention: linear layers"
REST = "the rest: norms, windows, residuals, warps, first and last layers"


class CountWork(TorchDispatchMode):
    """Operations, and bytes that each operation of torch reads and writes if it runs alone, by part."""

    def __init__(self) -> None:
        super().__init__()
        self.flops: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.attention_bytes, self.logits = 0, 0  # of window attention: q, k, v and its result; exponentials
        self.modules = ModuleTracker()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        path = max(self.modules.parents, key=len)
        part = next((name for name, words in PARTS.items() if all(word in path for word in words)), REST)
        packet = func._overloadpacket
        flops = flop_registry[packet](*args, **(kwargs or {}), out_val=out) if packet in flop_registry else 0
        if part == "window attention" and packet in (torch.ops.aten.addmm, torch.ops.aten.mm):
            part = ATTENTION_LINEAR
        self.flops[part] += flops
        if part == "window attention" and packet is torch.ops.aten.bmm:  # q by k, or weights by v
            sizes = sorted(t.numel() for t in (*args, out))
            self.attention_bytes += BF16 * sum(sizes[:2])
            self.logits += sizes[2] // 2  # each is in both products
        if not func.is_view and packet not in (torch.ops.aten.empty, torch.ops.aten._reshape_alias):
            tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
            self.bytes[part] += sum(t.numel() * t.element_size() for t in tensors)
        return out


def counted() -> CountWork:
    """One clip of FRAMES x COUNTED_PX^2 through the reference network on the meta device, in float32."""
    config = load_config(CONFIG).model
    network = SpikeVRT(config).to("meta").eval()
    assert config.spikes is not None
    half = COUNTED_PX // RATIO
    blur = torch.empty(1, FRAMES, 3, COUNTED_PX, COUNTED_PX, device="meta")
    spikes = torch.empty(1, FRAMES, config.spikes.num_bins, half, half, device="meta")
    work = CountWork()
    with torch.no_grad(), work.modules, work:
        network(blur, spikes)
    return work


def expect() -> None:
    work = counted()
    scale = CLIP_PX / COUNTED_PX**2
    # what the kernels read and write instead, for the whole clip
    pyramid = sum(4.0**-i for i in range(4))  # pixels of the four encoder stages, in frames of 720p
    stages = 2 * sum(4.0**-i for i in range(3)) + 4.0**-3  # of the seven that align
    tokens = FRAMES * CLIP_PX
    width = CHANNELS * BF16
    kernel_bytes = {
        "spike temporal attention": 2 * width * tokens * pyramid / RATIO**2,
        "fusion": 3 * width * tokens * pyramid,
        "deformable convolutions": (2 * width + 27 * 16 * 4) * 2 * (FRAMES - 1) * CLIP_PX * stages,
    }
    kernel_bytes["window attention"] = work.attention_bytes * scale
    exponentials = work.logits * scale
    print("| part | TFLOP | GB, operation by operation | GB, with kernels | bound by | at the limit, ms a frame "
          "| EXPECTED, ms a frame |\n| --- | ---: | ---: | ---: | --- | ---: | ---: |")  # fmt: skip
    totals: Counter[str] = Counter()
    for part in [*list(PARTS)[:6], ATTENTION_LINEAR, *list(PARTS)[6:], REST]:
        flops = work.flops[part] * scale
        eager = work.bytes[part] * scale * BF16 / 4
        own = kernel_bytes.get(part, eager)
        kinds = {
            "products": (flops / FLOPS_PER_S, SHARE_OF_PRODUCTS),
            "memory": (own / BYTES_PER_S, SHARE_OF_BANDWIDTH),
        }
        if part == "window attention":
            kinds["exponentials"] = (exponentials / EXPONENTIALS_PER_S, SHARE_OF_EXPONENTIALS)
        limit = 1e3 / FRAMES * max(s for s, _ in kinds.values())
        bound = max(kinds, key=lambda kind: kinds[kind][0] / kinds[kind][1])
        expected = 1e3 / FRAMES * kinds[bound][0] / kinds[bound][1]
        print(f"| {part} | {flops / 1e12:.2f} | {eager / 1e9:.1f} | {own / 1e9:.1f} | {bound} | {limit:.2f} "
              f"| {expected:.2f} |")  # fmt: skip
        totals.update({"flops": flops, "eager": eager, "own": own, "limit": limit, "expected": expected})
    print(f"| whole | {totals['flops'] / 1e12:.1f} | {totals['eager'] / 1e9:.0f} | {totals['own'] / 1e9:.0f} | "
          f"| {totals['limit']:.1f} | {totals['expected']:.1f} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args()
    if options.device == "cpu":
        expect()
        return
    try:
        device, dtype = pick_device("cuda"), torch.bfloat16
    except ValueError as error:
        sys.exit(str(error))
    torch.manual_seed(1)
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}\n")
    cases = [
        temporal_case(device, dtype, 5, 256 * 256),
        temporal_case(device, dtype, 12, 256 * 256),
        deform_case(device, dtype, 8, 256),
        *window_cases(device, dtype, 256),
    ]
    measure(device, cases, options.rounds, *peaks(device))


if __name__ == "__main__":
    main()
