"""What does each representation cost, what do fast paths save? `python benchmarks/bench_represent.py [--rounds N]`

One exposure of 56 ticks of 250x400 pixels with a firing rate of 0.3, 32 bins; medians over the rounds, after one that
warms up. A fast path and its plain twin run in turn on the same input, and their results are compared.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spikevrt.recording.alignment import read_at
from spikevrt.represent.counts import repair
from spikevrt.represent.interval import interval_voxels, intervals, tfi, tfp
from spikevrt.represent.voxel import VoxelStats, density, normalise, voxelise
from spikevrt.runtime import tune_allocator


def median_ms(functions: Sequence[Callable[[], Tensor]], rounds: int) -> list[float]:
    """Milliseconds of each function, run in turn; the first round warms up."""
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds + 1):
        for function, times in zip(functions, seconds, strict=True):
            began = time.perf_counter()
            function()
            times.append(time.perf_counter() - began)
    return [1e3 * statistics.median(times[1:]) for times in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    tune_allocator()
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(56, 250, 400, generator=generator) < 0.3).to(torch.uint8)
    counts = voxelise(spikes, num_bins=32)
    stored = counts.to(torch.uint8)
    stats = VoxelStats(0.4, 0.35)
    measured = density(counts).item()
    bad = torch.rand(250, 400, generator=generator) < 0.001
    y, x = torch.meshgrid(torch.arange(250) + 0.5, torch.arange(400) + 0.5, indexing="ij")
    positions = torch.stack((1.02 * x - 0.01 * y - 3, 0.01 * x + 1.02 * y - 2), dim=-1)
    grid = (2 * positions / torch.tensor([400, 250]) - 1)[None]

    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads, allocator tuned\n")
    print("| one exposure, 56 x 250 x 400 | ms |\n| --- | ---: |")
    singles: dict[str, Callable[[], Tensor]] = {
        "voxelise, whole": lambda: voxelise(spikes, num_bins=32),
        "voxelise, fractional": lambda: voxelise(spikes, num_bins=32, binning="fractional"),
        "interval_voxels": lambda: interval_voxels(spikes, num_bins=32),
        "normalise, float32 counts": lambda: normalise(counts, stats),
        "normalise, uint8 counts": lambda: normalise(stored, stats),
        "density": lambda: density(counts),
        "tfp, 41 ticks": lambda: tfp(spikes, 28, 20),
        "tfi": lambda: tfi(spikes, 28),
        "intervals": lambda: intervals(spikes),
        "raw_window, 41 ticks": lambda: spikes[..., 8:49, :, :].to(torch.float32),
        "warp, 32 channels": lambda: read_at(counts, positions),
        "repair, 32 channels, 0.1 % bad": lambda: repair(counts, bad),
    }
    for name, ms in zip(singles, median_ms(list(singles.values()), args.rounds), strict=True):
        print(f"| {name} | {ms:.2f} |")

    def grid_sampled() -> Tensor:
        return F.grid_sample(counts[None], grid, padding_mode="border", align_corners=False)[0]

    print("\n| plain / ours | plain ms | ours ms | ratio | max difference |\n| --- | ---: | ---: | ---: | ---: |")
    pairs: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
        "normalise stored counts: as float32 / by table": (
            lambda: normalise(stored.to(torch.float32), stats, density=measured),
            lambda: normalise(stored, stats, density=measured),
        ),
        "warp: grid_sample / exact positions": (grid_sampled, lambda: read_at(counts, positions)),
    }
    for name, pair in pairs.items():
        plain_ms, ours_ms = median_ms(pair, args.rounds)
        difference = (pair[0]() - pair[1]()).abs().max().item()
        print(f"| {name} | {plain_ms:.2f} | {ours_ms:.2f} | {plain_ms / ours_ms:.2f}x | {difference:.1e} |")


if __name__ == "__main__":
    main()
