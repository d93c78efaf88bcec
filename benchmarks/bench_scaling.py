"""How do time and memory grow with pixels, frames and bins? `python benchmarks/bench_scaling.py`

One forward pass (`--step`: forward and backward) of configs/tiny.yaml and of the reference network at half its width
and a quarter of its depth, which runs in minutes (every block costs the same, so depth changes no exponent).
From 64x64 pixels, 6 frames and 32 bins (spikes at half the size) one quantity grows at a time. Every point is a process
of its own: its peak is what the first pass adds to the resident memory, its time the median of the passes after it.
The exponent is the slope of the line fitted to the logarithms: 1 is linear.

Windows are 6 frames long and a clip is padded to whole windows inside the attention, so frames are multiples of 6 here:
between them the cost goes up in steps (7 frames cost about as much attention as 12).

Writes the table to benchmarks/scaling_size_cpu_DATE.md and the plot to docs/images/scaling_size.png.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from spikevrt.config import ModelConfig, load_config
from spikevrt.model.spike_vrt import SpikeVRT
from spikevrt.runtime import peak_memory_bytes, reset_peak_memory, tune_allocator

ROOT = Path(__file__).parents[1]
NETWORKS = ("tiny", "reference, half width")
START = {"height": 64, "width": 64, "frames": 6, "bins": 32}
AXES = {  # what grows -> its four points
    "pixels": [{"height": 64, "width": 64}, {"height": 64, "width": 128}, {"height": 128, "width": 128},
               {"height": 128, "width": 256}],
    "frames": [{"frames": frames} for frames in (6, 12, 18, 24)],
    "bins": [{"bins": bins} for bins in (16, 32, 64, 128)],
}  # fmt: skip


def model(network: str, num_bins: int) -> ModelConfig:
    """Without random depth, so that a pass is the same every time."""
    config = load_config(ROOT / "configs" / ("tiny.yaml" if network == "tiny" else "vrt_spike_baseline.yaml")).model
    assert config.spikes is not None
    vrt, spikes = replace(config.vrt, drop_path=0.0), replace(config.spikes, num_bins=num_bins)
    if network != "tiny":
        dims, depths = tuple(dim // 2 for dim in vrt.dims), tuple(depth // 4 for depth in vrt.depths)
        vrt = replace(vrt, dims=dims, depths=depths)
        spikes = replace(spikes, dims=(dims[0], dims[1], dims[2], dims[3]))
    return replace(config, vrt=vrt, spikes=spikes, checkpoint=())


def measure(network: str, point: dict[str, int], rounds: int, *, step: bool) -> dict[str, float]:
    """Seconds and bytes of one point; called in a process of its own."""
    tune_allocator()
    torch.manual_seed(3)
    net = SpikeVRT(model(network, point["bins"])).train(step)
    height, width = point["height"], point["width"]
    blur = torch.rand(1, point["frames"], 3, height, width)
    spikes = torch.randn(1, point["frames"], point["bins"], height // 2, width // 2)
    torch.rand(1 << 20).sin_().sum()  # the library's threads are there before the memory is looked at
    device = torch.device("cpu")
    reset_peak_memory(device)
    before_bytes = peak_memory_bytes(device)
    seconds = []
    peak_bytes = 0
    for index in range(rounds + 1):
        began_s = time.perf_counter()
        with torch.set_grad_enabled(step):
            out = net(blur, spikes)
        if step:
            out.square().mean().backward()
            net.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - began_s)
        if index == 0:
            peak_bytes = peak_memory_bytes(device) - before_bytes
    return {"seconds": statistics.median(seconds[1:]), "bytes": peak_bytes}


def size(axis: str, point: dict[str, int]) -> int:
    return point["height"] * point["width"] if axis == "pixels" else point[axis]


def fit(sizes: list[int], values: list[float]) -> tuple[float, float]:
    """Exponent and factor of values = factor * sizes ** exponent."""
    exponent, log_factor = np.polyfit(np.log(sizes), np.log(values), 1)
    return float(exponent), float(np.exp(log_factor))


def run(rounds: int, *, step: bool) -> dict[tuple[str, str], list[dict[str, float]]]:
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for network in NETWORKS:
        for axis, points in AXES.items():
            found[network, axis] = []
            for grown in points:
                point = START | grown
                command = [sys.executable, __file__, "--point", json.dumps([network, point]), "--rounds", str(rounds)]
                answer = subprocess.run(
                    command + ["--step"] * step, stdout=subprocess.PIPE, text=True, check=True
                ).stdout
                found[network, axis].append({"size": size(axis, point), **json.loads(answer)})
                print(network, axis, found[network, axis][-1], file=sys.stderr)
    return found


def table(found: dict[tuple[str, str], list[dict[str, float]]]) -> list[str]:
    lines = ["| network | what grows | 1 | 2 | 3 | 4 | exponent |", "| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    for (network, axis), points in found.items():
        sizes = [int(point["size"]) for point in points]
        lines.append(f"| {network} | {axis} | {' | '.join(f'{size:,}' for size in sizes)} | |")
        for what, unit, scale in (("seconds", "s", 1.0), ("bytes", "MB", 1e-6)):
            values = [point[what] * scale for point in points]
            shown = " | ".join(f"{value:.2f}" if unit == "s" else f"{value:.0f}" for value in values)
            lines.append(f"| | {unit} | {shown} | {fit(sizes, values)[0]:.2f} |")
    return lines


def draw(found: dict[tuple[str, str], list[dict[str, float]]], path: Path, what_ran: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    figure, axes = pyplot.subplots(2, len(AXES), figsize=(9.6, 5.6), sharex="col")
    for column, axis in enumerate(AXES):
        for row, (what, label, scale) in enumerate((("seconds", "seconds", 1.0), ("bytes", "peak memory, MB", 1e-6))):
            plot = axes[row][column]
            for network, colour in zip(NETWORKS, ("tab:blue", "tab:orange"), strict=True):
                points = found[network, axis]
                sizes, values = [int(p["size"]) for p in points], [p[what] * scale for p in points]
                exponent, factor = fit(sizes, values)
                plot.plot(sizes, values, "o", color=colour, markersize=4)
                fitted = [factor * size**exponent for size in sizes]
                plot.plot(sizes, fitted, color=colour, linewidth=1, label=f"{network}: {exponent:.2f}")
            plot.set_xscale("log")
            plot.set_yscale("log")
            low, high = plot.get_ylim()
            plot.set_ylim(low / 1.3, high * 2.5)  # room for the legend
            plot.legend(fontsize=7, loc="upper left", frameon=False)
            plot.grid(True, which="major", linewidth=0.3)
            plot.xaxis.set_major_locator(FixedLocator(sizes))
            plot.xaxis.set_minor_locator(NullLocator())
            plot.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            plot.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            plot.yaxis.set_minor_formatter(NullFormatter())
            plot.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            plot.tick_params(labelsize=7)
            if column == 0:
                plot.set_ylabel(label, fontsize=8)
            if row == 1:
                plot.set_xlabel(f"{axis} (number in the legend: exponent)" if column == 1 else axis, fontsize=8)
    figure.suptitle(f"{what_ran}: 64x64 pixels, 6 frames, 32 bins, one of them growing", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--step", action="store_true", help="forward and backward")
    parser.add_argument("--out", type=Path, help="the table (benchmarks/scaling_size_cpu_DATE.md; _step with --step)")
    parser.add_argument("--plot", type=Path, help="the picture (docs/images/scaling_size.png; none with --step)")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.point is not None:
        network, point = json.loads(parsed.point)
        print(json.dumps(measure(network, point, parsed.rounds, step=parsed.step)))
        return
    date = datetime.date.today().isoformat()
    suffix = "_step" if parsed.step else ""
    out = parsed.out or ROOT / "benchmarks" / f"scaling_size{suffix}_cpu_{date}.md"
    plot = parsed.plot or (None if parsed.step else ROOT / "docs" / "images" / "scaling_size.png")
    found = run(parsed.rounds, step=parsed.step)
    what_ran = "Forward and backward" if parsed.step else "Forward pass"
    lines = [
        "# How do time and memory grow with pixels, frames and bins?\n",
        f"`python benchmarks/bench_scaling.py{' --step' * parsed.step} --rounds {parsed.rounds}`; {date}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), allocator tuned.",
        f"{what_ran} in fp32, from 64x64 pixels, 6 frames, 32 bins, one of them growing. Memory is what a pass adds to "
        "a process. The reference network is at half its width and a quarter of its depth. Frames are whole windows of "
        "6: between them the cost goes up in steps.\n",
        *table(found),
    ]
    if plot is not None:
        draw(found, plot, what_ran)
        lines.append("\n![time and memory against pixels, frames and bins](../docs/images/scaling_size.png)")
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
