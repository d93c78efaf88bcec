"""The pictures and figures of docs/representations.md.

    python examples/representations.py DATA/real_car --out docs/images

DATA/real_car holds car_400x250_200f.dat, a real spike camera (400x250 pixels, packed, rows bottom-up, 200 ticks) beside
a road: a slice of recVidarReal2019, class A. The recording is not part of this repository. Without a folder only the
table of thresholds is printed, which comes from a simulated scene.

Dimension key: T ticks, K bins, H sensor rows, W sensor columns.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from spikevrt.recording.alignment import read_at
from spikevrt.recording.spike_file import SpikeGeometry, read_spikes
from spikevrt.represent.counts import repair
from spikevrt.represent.interval import interval_voxels, intervals, tfi, tfp
from spikevrt.represent.voxel import VoxelStats, bin_edges, density, normalise, voxelise
from spikevrt.simulate.sensor import SensorConfig, SpikeSensor

FILE = "car_400x250_200f.dat"
CENTRE, EXPOSURE = 100, slice(72, 128)  # 56 ticks around the middle
CAR = (slice(100, 225), slice(150, 350))  # rows and columns of the panels that are cut out


def grey(values_HW: Tensor, black: float, white: float, gamma: float = 2.2) -> Tensor:
    """uint8, linear light `black` to `white` shown with a display's gamma (1: as it is)."""
    return (255 * ((values_HW - black) / (white - black)).clamp(0, 1) ** (1 / gamma)).round().to(torch.uint8)


def enlarge(picture_HW: Tensor, times: int) -> Tensor:
    return picture_HW.repeat_interleave(times, 0).repeat_interleave(times, 1)


def save(path: Path, panels: Sequence[Tensor], columns: int) -> None:
    """Panels of one size in rows of `columns`, 4 white pixels between them, as a small grey PNG of 64 levels."""
    from PIL import Image

    height, width = panels[0].shape
    rows = math.ceil(len(panels) / columns)
    sheet = torch.full((rows * (height + 4) - 4, columns * (width + 4) - 4), 255, dtype=torch.uint8)
    for i, panel in enumerate(panels):
        top, left = i // columns * (height + 4), i % columns * (width + 4)
        sheet[top : top + height, left : left + width] = panel & 0xFC
    Image.fromarray(sheet.numpy()).save(path, optimize=True)
    print(f"{path}: {sheet.shape[1]}x{sheet.shape[0]}, {path.stat().st_size / 1000:.0f} kB")


def draw(spikes: Tensor, out: Path) -> None:
    """One picture for each representation."""
    rate = tfp(spikes, CENTRE, 28)
    white = torch.quantile(rate, 0.995).item()
    cut = spikes[:, *CAR]

    save(
        out / "represent_tfp.png",
        [enlarge(grey(tfp(cut, CENTRE, half), 0, white), 2) for half in (5, 20, 99)],
        columns=3,
    )
    save(out / "represent_tfi.png", [enlarge(grey(tfi(cut, CENTRE), 0, white), 2)], columns=1)
    lengths = intervals(cut)
    save(out / "represent_intervals.png", [enlarge(grey(lengths[CENTRE].float(), 1, 13, 1), 2)], columns=1)
    save(
        out / "represent_window.png",
        [enlarge(255 * tick.to(torch.uint8), 2) for tick in raw_window(cut, CENTRE, 1)],
        columns=3,
    )

    window = cut[EXPOSURE]
    counts, shares, masses = (
        voxelise(window, num_bins=32),
        voxelise(window, num_bins=32, binning="fractional"),
        interval_voxels(window, num_bins=32, binning="fractional"),
    )
    save(out / "represent_voxel.png", [grey(counts[k], 0, 2, 1) for k in (0, 15, 16, 31)], columns=2)
    save(out / "represent_fractional.png", [grey(shares[k], 0, 2, 1) for k in (0, 15, 16, 31)], columns=2)
    save(out / "represent_interval_voxel.png", [grey(masses[k], 0, 2 * white, 1) for k in (0, 15, 16, 31)], columns=2)

    halved = every_second_spike(window)
    panels = []
    for represent in (voxelise, interval_voxels):
        full = represent(window, num_bins=32)
        logs = torch.log1p(full)
        stats = VoxelStats(logs.mean().item(), logs.std().item())
        for spikes_seen, is_matched in ((window, False), (halved, False), (halved, True)):
            seen = represent(spikes_seen, num_bins=32)
            values = normalise(seen, stats, density=density(seen) if is_matched else None)
            panels.append(grey(values[16], -2.5, 2.5, 1))
    save(out / "represent_density.png", panels, columns=3)

    angle, centre_x, centre_y = math.radians(5), 250.0, 162.0
    y, x = torch.meshgrid(torch.arange(250) + 0.5, torch.arange(400) + 0.5, indexing="ij")
    dx, dy = x[CAR] - centre_x, y[CAR] - centre_y
    turned = torch.stack(
        (
            centre_x + math.cos(angle) * dx - math.sin(angle) * dy,
            centre_y + math.sin(angle) * dx + math.cos(angle) * dy,
        ),
        dim=-1,
    )
    short = tfp(spikes, CENTRE, 20)
    save(
        out / "represent_warp.png",
        [enlarge(grey(short[CAR], 0, white), 2), enlarge(grey(read_at(short[None], turned)[0], 0, white), 2)],
        columns=2,
    )

    generator = torch.Generator().manual_seed(0)
    bad = torch.rand(short.shape, generator=generator) < 0.01
    bad[140:144, 240:246] = True
    broken = short.masked_fill(bad, 0.0)
    save(
        out / "represent_repair.png",
        [enlarge(grey(picture[CAR], 0, white), 2) for picture in (broken, repair(broken, bad))],
        columns=2,
    )


def raw_window(spikes_THW: Tensor, centre: int, half_window: int) -> Tensor:
    """Raw ticks as channels: ticks centre - half_window to centre + half_window, both included, as 0.0 and 1.0.

    For networks that read spikes without counting them; leading axes are kept.

    Raises:
        ValueError: half_window is negative, or the window leaves the stream (it is never cut short).

    Source: the input of Spk2ImgNet (41 ticks), Zhao et al., CVPR 2021.
    """
    num_ticks = spikes_THW.shape[-3]
    start, stop = centre - half_window, centre + half_window + 1
    if half_window < 0 or start < 0 or stop > num_ticks:
        raise ValueError(
            f"centre {centre}, half_window {half_window}: ticks [{start}, {stop}); allowed: inside [0, {num_ticks})"
        )
    return spikes_THW[..., start:stop, :, :].to(torch.float32)


def every_second_spike(spikes_THW: Tensor) -> Tensor:
    """What a sensor of twice the threshold would have fired, but for its phase: every second spike of each pixel."""
    return spikes_THW * (spikes_THW.cumsum(0) % 2 == 0).to(torch.uint8)


def moving_light(num_ticks: int, height: int, width: int) -> Tensor:
    """Linear light 0.05 to 0.95: a texture of patches four pixels wide that moves a quarter pixel a tick."""
    coarse = torch.rand(1, 1, height // 4 + 3, (width + num_ticks) // 4 + 3, generator=torch.Generator().manual_seed(3))
    size = (height, width + num_ticks)
    texture = 0.05 + 0.9 * torch.nn.functional.interpolate(coarse, size=size, mode="bicubic")[0, 0].clamp(0, 1)
    positions = torch.arange(num_ticks)[:, None] / 4 + torch.arange(width)
    left = positions.long()
    pairs = zip(left, positions, strict=True)
    return torch.stack([torch.lerp(texture[:, i], texture[:, i + 1], f - i) for i, f in pairs])


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1])


def print_thresholds(num_ticks: int) -> None:
    """How voxels of one scene compare over thresholds, in units of mean and std of log1p at threshold 1."""
    light = moving_light(num_ticks + 100, 61, 83)
    bins = bin_edges(num_ticks, 32)
    inside = light[50 : 50 + num_ticks]
    truth = torch.log1p(torch.stack([inside[a:b].sum(0) for a, b in zip(bins, bins[1:], strict=False)]))
    print(f"\n{num_ticks} ticks, 32 bins: of log1p, without -> with matched density")
    print("| voxels | threshold | mean | std | correlation with threshold 1 | with the light |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, represent in (("counts", voxelise), ("interval_voxels", interval_voxels)):
        logs = {}
        for threshold in (1, 2, 4):
            stream = SpikeSensor(61, 83, SensorConfig(threshold=threshold), seed=threshold).expose(light)
            logs[threshold] = torch.log1p(represent(stream[50 : 50 + num_ticks], num_bins=32))
        mean, std = logs[1].mean(), logs[1].std()
        for threshold, raw in logs.items():
            matched = raw * (mean / raw.mean())
            print(
                f"| {name} | {threshold} | {raw.mean() / mean:.2f} -> {matched.mean() / mean:.2f} "
                f"| {raw.std() / std:.2f} -> {matched.std() / std:.2f} "
                f"| {correlation(matched, logs[1]):.2f} | {correlation(matched, truth):.2f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help=f"folder that holds {FILE}")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the pictures")
    args = parser.parse_args()
    if args.folder is not None:
        spikes = read_spikes(args.folder / FILE, SpikeGeometry(width=400, height=250, bottom_up=True))
        args.out.mkdir(parents=True, exist_ok=True)
        draw(torch.from_numpy(spikes), args.out)
    for num_ticks in (56, 97):
        print_thresholds(num_ticks)


if __name__ == "__main__":
    main()
