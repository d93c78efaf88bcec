"""What do fast sampling and channels-last convolutions save? `python benchmarks/bench_deform.py [--rounds N]`

Each pair runs in turn in one process on the same inputs, forward and backward; medians over the rounds. The deformable
convolution has the sizes of stage 1 of the tiny network (two clips of 5x64x64: 16 pictures, 16 channels, 2 groups) and
of half a clip of the reference one (4 pictures, 96 channels, 16 groups); the convolutions are those of its offset net.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from spikevrt.model.deformable_alignment import TAPS, deform_conv
from spikevrt.runtime import tune_allocator


def median_ms(pair: tuple[Callable[[], Tensor], Callable[[], Tensor]], rounds: int) -> tuple[float, float, float]:
    """Milliseconds of each, and the largest difference of their outputs; the first round warms up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    outputs: list[Tensor] = []
    for _ in range(rounds + 1):
        outputs = []
        for function, times in zip(pair, seconds, strict=True):
            began = time.perf_counter()
            out = function()
            out.sum().backward()
            times.append(time.perf_counter() - began)
            outputs.append(out.detach())
    first, second = (1e3 * statistics.median(times[1:]) for times in seconds)
    return first, second, float((outputs[0] - outputs[1]).abs().max())


def deform_pair(pictures: int, dim: int, groups: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """(plain, fast) deformable convolution of pictures of 64x64."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(pictures, dim, 64, 64, generator=generator, requires_grad=True)
    offset = (3 * torch.randn(pictures, groups, TAPS, 2, 64, 64, generator=generator)).requires_grad_()
    mask = torch.rand(pictures, groups, TAPS, 64, 64, generator=generator, requires_grad=True)
    weight = torch.randn(dim, dim, 3, 3, generator=generator, requires_grad=True)
    bias = torch.zeros(dim, requires_grad=True)
    convolve = partial(deform_conv, x, offset, mask, weight, bias)
    return partial(convolve, plain=True), partial(convolve, plain=False)


def conv_pair(dim_in: int, dim_out: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """(contiguous, channels_last) 3x3 convolution of 16 pictures of 64x64."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(dim_out, dim_in, 3, 3, generator=generator, requires_grad=True)
    x = torch.randn(16, dim_in, 64, 64, generator=generator)
    contiguous, last = x.clone().requires_grad_(), x.to(memory_format=torch.channels_last).requires_grad_()
    return partial(F.conv2d, contiguous, weight, padding=1), partial(F.conv2d, last, weight, padding=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    tune_allocator()
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads, allocator tuned\n")
    print("| case | slow ms | ours ms | ratio | max difference |\n| --- | ---: | ---: | ---: | ---: |")
    for name, pair in {
        "deformable convolution, tiny: exact positions / grid_sample": deform_pair(16, 16, 2),
        "deformable convolution, reference: exact positions / grid_sample": deform_pair(4, 96, 16),
        "convolution 34 to 16: contiguous / channels_last": conv_pair(34, 16),
        "convolution 16 to 54: contiguous / channels_last": conv_pair(16, 54),
        "convolution 24 to 24: contiguous / channels_last": conv_pair(24, 24),
    }.items():
        slow, ours, difference = median_ms(pair, rounds)
        print(f"| {name} | {slow:.1f} | {ours:.1f} | {slow / ours:.2f}x | {difference:.1e} |")
