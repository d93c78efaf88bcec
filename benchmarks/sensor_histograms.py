"""Does the simulated sensor fire as real ones do? `python benchmarks/sensor_histograms.py DATA [--out PICTURE]`

DATA is the folder with real_static, real_car, real_lowlight, real_calib and synthetic_reds. Each recording at rest is
simulated pixel by pixel: the light is the rate that the pixel was measured to have, so that the real sensor's pattern
is in the light, and the preset gives only what varies with time. Prints the tables of docs/sensor.md and draws their
histograms: of all intervals, and of the pixels' phase residuals.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from spike_statistics import (
    flat_field_cv,
    interval_outside_fraction,
    phase_residual,
    phase_residuals,
    spike_intervals,
)
from torch import Tensor
from torch.nn import functional as F

from spikevrt.light import srgb_to_linear
from spikevrt.recording.frames import read_image
from spikevrt.recording.spike_file import SpikeGeometry, read_spikes
from spikevrt.simulate.sensor import SpikeSensor
from spikevrt.simulate.setup import SENSOR_PRESETS, SensorConfig, sensor_preset

SEED = 1
COLOURS = {"real": (60, 60, 60), "preset": (214, 96, 20), "ideal": (40, 110, 200)}
RATE_EDGES = (0.04, 0.08, 0.12, 0.16, 0.20, 0.30, 0.50, 1.0)


def measured_light(spikes_THW: Tensor) -> Tensor:
    """Light that makes each pixel fire at the rate it was measured to have; no firing pixel is darker than one spike.

    First and last spike are rounded to whole ticks; a rounding of the same size is drawn, or every short recording
    would have pixels at exactly three ticks a spike.
    """
    num_ticks = len(spikes_THW)
    count_HW = spikes_THW.sum(0).float()
    span_HW = num_ticks - 1.0 - spikes_THW.flip(0).argmax(0) - spikes_THW.argmax(0)
    generator = torch.Generator().manual_seed(SEED)
    rounding_HW = torch.rand(span_HW.shape, generator=generator) - torch.rand(span_HW.shape, generator=generator)
    return torch.where(count_HW >= 2, (count_HW - 1) / (span_HW + rounding_HW).clamp_min(1), count_HW / num_ticks)


def local_cv(map_HW: Tensor) -> float:
    """Spread between pixels after dividing by the mean of 31 x 31 around each: without slow shading."""
    around_HW = F.avg_pool2d(map_HW[None, None], 31, 1, 15, count_include_pad=False)[0, 0]
    return float((map_HW / around_HW).std() / (map_HW / around_HW).mean())


def shift_px(spikes_THW: Tensor) -> float:
    """How far the picture moves from the first to the third quarter of a stream, by phase correlation."""
    import cv2

    quarter = len(spikes_THW) // 4
    parts = [spikes_THW[start : start + quarter].float().mean(0).numpy() for start in (0, 2 * quarter)]
    (x_px, y_px), _ = cv2.phaseCorrelate(*[cv2.GaussianBlur(part, (0, 0), 2) for part in parts])
    return float(np.hypot(x_px, y_px))


def again(spikes_THW: Tensor, sensor: SensorConfig) -> Tensor:
    """The recording simulated: the sensor's noise in time, with the real pixels' rates."""
    config = replace(sensor, light_gain=1.0, gain_cv=0.0, dark_current=0.0, hot_fraction=0.0)
    light_HW = measured_light(spikes_THW)
    height, width = light_HW.shape
    return SpikeSensor(height, width, config, seed=SEED).expose(light_HW.expand(len(spikes_THW), -1, -1))


def gap_variance(spikes_THW: Tensor, gaps: int) -> float:
    """The median pixel's variance of the time that `gaps` intervals take, ticks squared."""
    pixel_S, tick_S = spikes_THW.flatten(1).T.nonzero(as_tuple=True)
    same = pixel_S[gaps:] == pixel_S[:-gaps]
    pixel_K, time_K = pixel_S[gaps:][same], (tick_S[gaps:] - tick_S[:-gaps])[same].double()
    count = torch.bincount(pixel_K)
    mean = torch.bincount(pixel_K, weights=time_K) / count.clamp_min(1)
    variance = torch.bincount(pixel_K, weights=(time_K - mean[pixel_K]) ** 2) / count.clamp_min(1)
    return float(variance[count >= 3].median()) if bool((count >= 3).any()) else float("nan")


def table(streams: dict[str, dict[str, Tensor]]) -> None:
    print("| recording | of | mean rate | outside % | phase residual | its 90th percentile | var 1 | 8 | 32 |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, versions in streams.items():
        for version, spikes in versions.items():
            residual = phase_residuals(spikes)
            variances = " | ".join(f"{gap_variance(spikes, gaps):.3f}" for gaps in (1, 8, 32)).replace("nan", "-")
            print(
                f"| {name} | {version} | {float(spikes.float().mean()):.4f} | "
                f"{100 * interval_outside_fraction(spikes):.3f} | {phase_residual(spikes):.3f} | "
                f"{float(residual[~residual.isnan()].quantile(0.9)):.3f} | {variances} |"
            )


def table_by_rate(real: Tensor, simulated: Tensor) -> None:
    """Intervals outside, and phase residual, for dark to bright pixels of one recording."""
    rate = real.float().mean(0).flatten()
    print("\n| rate | pixels | outside %, real | simulated | residual, real | simulated |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for low, high in zip(RATE_EDGES[:-1], RATE_EDGES[1:], strict=True):
        chosen = (rate >= low) & (rate < high)
        parts = [spikes.flatten(1)[:, None, chosen] for spikes in (real, simulated)]
        outside = " | ".join(f"{100 * interval_outside_fraction(part):.3f}" for part in parts)
        residual = " | ".join(f"{phase_residual(part):.3f}" for part in parts)
        print(f"| {low:.2f} to {high:.2f} | {int(chosen.sum()):,} | {outside} | {residual} |")


def table_of_fit(recordings: list[Tensor]) -> None:
    """Why the presets have this shot noise and no jitter: the recordings at rest under other settings."""
    print("\n| photons_per_tick | threshold_jitter | static: outside %, residual | car | UHSR, still corner |")
    print("| ---: | ---: | ---: | ---: | ---: |")

    def figures(spikes: Tensor) -> str:
        return f"{100 * interval_outside_fraction(spikes):.3f}, {phase_residual(spikes):.3f}"

    print(f"| real | | {' | '.join(figures(spikes) for spikes in recordings)} |")
    for photons, jitter in ((0, 0.0), (7500, 0.0), (15000, 0.0), (30000, 0.0), (15000, 0.003), (0, 0.02)):
        config = SensorConfig(photons_per_tick=photons, threshold_jitter=jitter)
        print(f"| {photons} | {jitter} | {' | '.join(figures(again(spikes, config)) for spikes in recordings)} |")


def table_of_levels(data: Path, uhsr: Tensor) -> None:
    """What the rates in time cannot tell: response, dark current, low light."""
    with np.load(data / "real_calib" / "vidar_calibration_maps.npz") as file:
        dark_lux, response, interval = (file[key].astype(np.float64) for key in ("Nd", "Nl", "D_light"))
    dark_rate = dark_lux / 335 * (1 / interval).mean()
    median = np.median(dark_lux)
    robust = 1.4826 * np.median(np.abs(dark_lux - median)) / median
    is_hot = dark_lux > 5 * median
    bright, low = sensor_preset("bright"), sensor_preset("lowlight")
    flat = SpikeSensor(250, 400, bright, seed=SEED).expose(torch.full((1000, 1, 1), 0.5).expand(-1, 250, 400))
    dark = SpikeSensor(250, 400, bright, seed=SEED).expose(torch.zeros(4000, 1, 1).expand(-1, 250, 400))
    dark_simulated = dark.sum(0).double() / 4000
    median_simulated = float(dark_simulated.median())
    robust_simulated = 1.4826 * float((dark_simulated - median_simulated).abs().median()) / median_simulated
    picture = torch.from_numpy(read_image(data / "synthetic_reds" / "reds_400x250_gt_id151.png")[..., 1])
    light_HW = srgb_to_linear(picture.float() / 255)
    height, width = light_HW.shape
    scene = SpikeSensor(height, width, low, seed=SEED).expose(light_HW.expand(200, -1, -1)).float().mean(0)
    grey_light = torch.full((500, 1, 1), 0.18).expand(-1, 250, 400)
    grey = SpikeSensor(250, 400, low, seed=SEED).expose(grey_light).float().mean(0)
    night = uhsr.float().mean(0)
    print("\n| figure | real | simulated |\n| --- | ---: | ---: |")
    print(f"| response, spread between pixels % | {100 * response.std() / response.mean():.2f} | "
          f"{100 * flat_field_cv(flat):.2f} |")  # fmt: skip
    print(f"| the same without slow shading (31 x 31) % | {100 * local_cv(torch.from_numpy(response)):.2f} | "
          f"{100 * local_cv(flat.double().mean(0)):.2f} |")  # fmt: skip
    print(f"| dark rate, mean without hot pixels, per tick | {dark_rate[~is_hot].mean():.5f} | "
          f"{float(dark_simulated[dark_simulated < 0.025].mean()):.5f} |")  # fmt: skip
    print(f"| dark rate, robust spread between pixels % | {100 * robust:.1f} | {100 * robust_simulated:.1f} |")
    print(f"| pixels above five median dark rates, of 100,000 | {int(is_hot.sum())} | "
          f"{int((dark_simulated > 5 * median_simulated).sum())} |")  # fmt: skip
    print(f"| dark rate of those, median | {np.median(dark_rate[is_hot]):.4f} | "
          f"{float(dark_simulated[dark_simulated > 5 * median_simulated].median()):.4f} |")  # fmt: skip
    print(f"| UHSR: motion from the first to the third quarter, px | {shift_px(uhsr):.2f} | - |")
    for name, rate in (("a photograph", scene), ("18 % grey", grey)):
        print(f"| low light, {name}: median, mean, 99th percentile of the rate | "
              f"{night.median():.3f}, {night.mean():.3f}, {night.quantile(0.99):.3f} | "
              f"{rate.median():.3f}, {rate.mean():.3f}, {rate.flatten().quantile(0.99):.3f} |")  # fmt: skip


def table_of_seconds() -> None:
    """336 ticks of 640x360 pixels, on one thread."""
    light_Nhw = torch.rand((16, 360, 640), generator=torch.Generator().manual_seed(SEED))
    print("\n| 336 ticks of 640x360 | seconds |\n| --- | ---: |")
    for preset in SENSOR_PRESETS:
        sensor = SpikeSensor(360, 640, sensor_preset(preset), seed=SEED)
        sensor.expose(light_Nhw)
        began_s = time.perf_counter()
        for _ in range(21):
            sensor.expose(light_Nhw)
        print(f"| {preset} | {time.perf_counter() - began_s:.2f} |")


def histograms(versions: dict[str, Tensor], edges: Tensor, *, of_residuals: bool) -> dict[str, Tensor]:
    """Share in each bin, for each version of a recording: of its intervals, or of its pixels' phase residuals."""
    shares = {}
    for version, spikes in versions.items():
        residual = phase_residuals(spikes).flatten() if of_residuals else torch.zeros(0)
        values = residual[~residual.isnan()] if of_residuals else spike_intervals(spikes)[1]
        shares[version] = torch.histogram(values.double(), edges).hist / len(values)
    return shares


def draw(panels: list[tuple[str, Tensor, dict[str, Tensor]]], path: Path) -> None:
    """Two panels a row; filled grey: real, lines: simulated. The height is the logarithm of the share, 1 to 1e-5."""
    width, height, left, top = 560, 250, 52, 36
    sheet = Image.new("RGB", (2 * width, (len(panels) + 1) // 2 * height), "white")
    pen = ImageDraw.Draw(sheet)
    small, large = ImageFont.load_default(11), ImageFont.load_default(13)
    for index, (title, edges, shares) in enumerate(panels):
        x0, y0 = index % 2 * width + left, index // 2 * height + top
        wide, high = width - left - 16, height - top - 40
        pen.text((x0, y0 - 26), title, fill="black", font=large)
        for decade in range(6):
            y = y0 + high * decade / 5
            pen.line([(x0, y), (x0 + wide, y)], fill=(225, 225, 225))
            pen.text((x0 - 8, y), "1" if decade == 0 else f"1e-{decade}", fill="black", font=small, anchor="rm")
        first, last = float(edges[0]), float(edges[-1])
        step = next(step for step in (0.05, 0.1, 0.2, 1, 2, 5, 10) if (last - first) / step <= 13)
        for number in range(int(np.ceil(first / step)), int(last / step + 1e-6) + 1):
            x = x0 + wide * (number * step - first) / (last - first)
            pen.line([(x, y0 + high), (x, y0 + high + 4)], fill="black")
            pen.text((x, y0 + high + 6), f"{number * step:.4g}", fill="black", font=small, anchor="mt")
        pen.text((x0 + wide, y0 + high + 20), "ticks", fill="black", font=small, anchor="rt")
        for version, share in shares.items():
            line = []
            for low, high_edge, value in zip(edges[:-1], edges[1:], share, strict=True):
                drop = min(5.0, -float(torch.log10(value.clamp_min(1e-9))))
                xs = [x0 + wide * (float(edge) - first) / (last - first) for edge in (low, high_edge)]
                line += [(x, y0 + high * drop / 5) for x in xs]
            if version == "real":
                pen.polygon([(line[0][0], y0 + high), *line, (line[-1][0], y0 + high)], fill=(205, 205, 205))
            else:
                pen.line(line, fill=COLOURS[version], width=2 if version == "preset" else 1)
        pen.line([(x0, y0), (x0, y0 + high), (x0 + wide, y0 + high)], fill="black")
        for place, version in enumerate(shares):
            x, y = x0 + wide - 150, y0 + 6 + 14 * place
            pen.rectangle([x, y + 2, x + 12, y + 9], fill=(205, 205, 205) if version == "real" else COLOURS[version])
            label = {"real": "real", "preset": "simulated, preset", "ideal": "simulated, ideal"}[version]
            pen.text((x + 18, y - 1), label, fill="black", font=small)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(64).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images/sensor_intervals.png"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(args.data / "real_static" / "real_spike_250x400x500_HWT.npz") as file:
        static = torch.from_numpy(np.ascontiguousarray(file["arr_0"].transpose(2, 0, 1)))
    with np.load(args.data / "real_lowlight" / "uhsr_200x250x250.npz") as file:
        uhsr = torch.from_numpy(file["spk"])
    car = read_spikes(args.data / "real_car" / "car_400x250_200f.dat", SpikeGeometry(width=400, height=250))
    real = {  # name: (spikes, preset)
        "static, bright": (static, "bright"),
        "car, rows 0 to 29": (torch.from_numpy(np.ascontiguousarray(car[:, :30])), "bright"),
        "UHSR, low light, still corner": (uhsr[:, 60:200, 2:12].contiguous(), "lowlight"),
        "UHSR, low light, all (moves 1.3 px)": (uhsr, "lowlight"),
    }
    streams = {
        name: {"real": spikes, "preset": again(spikes, sensor_preset(preset)), "ideal": again(spikes, SensorConfig())}
        for name, (spikes, preset) in real.items()
    }
    wall = {version: spikes[:, 110:200, 20:350] for version, spikes in streams["static, bright"].items()}
    table(streams | {"static, its wall": wall})
    table_by_rate(streams["static, bright"]["real"], streams["static, bright"]["preset"])
    table_of_fit([versions["real"] for versions in list(streams.values())[:3]])
    table_of_levels(args.data, uhsr)
    table_of_seconds()
    panels = []
    for name, versions in streams.items():
        longest, largest, step = (100, 1.5, 0.025) if "UHSR" in name else (21, 0.6, 0.01)
        ticks = torch.arange(0.5, longest, dtype=torch.float64)
        residuals = torch.arange(0, largest + step / 2, step, dtype=torch.float64)
        panels.append((f"{name}: intervals", ticks, histograms(versions, ticks, of_residuals=False)))
        panels.append((f"{name}: phase residuals", residuals, histograms(versions, residuals, of_residuals=True)))
    draw(panels, args.out)


if __name__ == "__main__":
    main()
