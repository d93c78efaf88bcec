"""Does a still scene stay as it is, and does the dark keep its colour? The whole path, from photographs that ship.

    python benchmarks/still_scene.py OUT [WEIGHTS]

Simulates recordings into OUT (kept for the next call), restores them by the default weights or by WEIGHTS, and prints
two tables. Errors are in levels of 255, against the sharp frames.

- Still: nothing moves, so the blurry frame is the sharp one. Exposures of 20 to 100 % of the frame's period. The worst
  photograph's PSNR, mean absolute error, and largest mean error of 8 x 8 pixels and one colour; PSNR in slow motion,
  four frames in the place of one.
- Dark: pixels below `DARK` levels of luma, where scenes move. Mean errors of Cb and Cr with their sign (brown is less
  Cb, more Cr) and the mean of their absolute values. `grey` are the same photographs without colour: whatever colour
  comes out of them was put in. `stripes`: dark ones on grey, no colour either.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spikevrt import shipped
from spikevrt.align.health import admit
from spikevrt.bench.demo import ASSETS, OPTIONS, SCENES, simulate_scene
from spikevrt.evaluate.methods import Method, blur_method, interval_ratio_method, network_method
from spikevrt.light import image_to_linear, linear_to_srgb, luminance
from spikevrt.recording.frames import read_image, to_float, to_uint8, write_image
from spikevrt.recording.recording import Recording, open_recording
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.restorer import Restorer
from spikevrt.simulate.setup import RigConfig, SimulateOptions, sensor_preset
from spikevrt.simulate.synthesise import simulate_recording

PHOTOS = ("astronaut", "bridge", "chelsea", "clock", "coffee")
PERIOD_TICKS = 160
DUTIES = (20, 50, 80, 100)
SENSORS = ("ideal", "bright")
STILL = SimulateOptions(
    frames=2, period_ticks=PERIOD_TICKS, width=192, height=144, motion_px=0, num_layers=0,
    rig=RigConfig(margin_ticks=PERIOD_TICKS // 2),
)  # fmt: skip
MOVING = replace(OPTIONS, frames=3, width=192, height=144)  # of the demo
FPS_FACTOR = 4
DARK = 40
LUMA = torch.tensor([0.299, 0.587, 0.114])[:, None, None]  # of BT.601, as Cb and Cr


def still(out: Path, photo: str, duty: int, sensor: str) -> Recording:
    path = out / f"still_{photo}_{duty}_{sensor}"
    if not path.exists():
        options = replace(STILL, exposure_ticks=PERIOD_TICKS * duty // 100, sensor=sensor_preset(sensor))
        simulate_recording(ASSETS / f"{photo}.jpg", path, options)
    return open_recording(path)


def moving(out: Path, kind: str) -> list[Recording]:
    """The demo's scenes; the same photographs without colour, with cut-outs of each other; dark stripes on grey."""
    if kind == "demo":
        for name in SCENES:
            if not (out / f"demo_{name}").exists():
                simulate_scene(name, out / f"demo_{name}", MOVING)
        return [open_recording(out / f"demo_{name}") for name in SCENES]
    pictures = grey_pictures(out) if kind == "grey" else [stripes(out)]
    for seed, picture in enumerate(pictures):
        if not (out / picture.stem).exists():
            layers = [other for other in pictures if other != picture]
            simulate_recording(picture, out / picture.stem, replace(MOVING, seed=seed), layer_photos=layers)
    return [open_recording(out / picture.stem) for picture in pictures]


def grey_pictures(out: Path) -> list[Path]:
    paths = []
    for photo in PHOTOS:
        light = luminance(image_to_linear(read_image(ASSETS / f"{photo}.jpg"))[None])
        paths.append(out / f"grey_{photo}.png")
        write_image(paths[-1], to_uint8(linear_to_srgb(light).expand(3, -1, -1)))
    return paths


def stripes(out: Path) -> Path:
    picture = np.full((600, 800, 3), 170, dtype=np.uint8)
    for left in range(20, 800, 60):
        picture[:, left : left + left // 40 + 4] = 15 + left // 40
    write_image(out / "stripes.png", picture)
    return out / "stripes.png"


def levels(frame: Tensor) -> Tensor:
    """A frame in levels, rounded as it is written."""
    return to_float(to_uint8(frame)) * 255


def still_row(restored: Iterable[tuple[Recording, Iterable[Tensor]]]) -> list[float]:
    """The least PSNR of the recordings, and the largest of the two errors."""
    rows = []
    for recording, frames in restored:
        sharp = levels(to_float(recording.read_sharp(0)))
        errors = torch.stack([levels(frame) - sharp for frame in frames])
        psnr = 20 * torch.log10(255 / errors.square().mean().sqrt().clamp_min(1e-3))
        rows.append([-float(psnr), float(errors.abs().mean()), float(F.avg_pool2d(errors, 8).abs().max())])
    return [abs(max(column)) for column in zip(*rows, strict=True)]


def dark_row(method: Method, recordings: list[Recording]) -> list[float]:
    """Mean errors of Cb and Cr, and of their absolute values, over the dark pixels of all recordings alike."""
    rows = []
    for recording in recordings:
        for index, frame in enumerate(method.ready().restore(recording)):
            frame, sharp = levels(frame), levels(to_float(recording.read_sharp(index)))
            is_dark = (LUMA * sharp).sum(0) < DARK
            if is_dark.any():
                cb, cr = (colour[is_dark] for colour in (chroma(frame) - chroma(sharp)))
                rows.append([float(cb.mean()), float(cr.mean()), float((cb.abs() + cr.abs()).mean() / 2)])
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def chroma(rgb: Tensor) -> Tensor:
    luma = (LUMA * rgb).sum(0)
    return torch.stack(((rgb[2] - luma) / 1.772, (rgb[0] - luma) / 1.402))


def main() -> None:
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    path = shipped.find(*sys.argv[2:])
    network = network_method(path.stem, path, RestoreOptions(), admit)
    restorer = Restorer(path, gate=admit)
    print("| exposure % | sensor | interval_ratio dB | dB | mean error | worst 8 x 8 | slow motion dB |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for duty in DUTIES:
        for sensor in SENSORS:
            recordings = [still(out, photo, duty, sensor) for photo in PHOTOS]
            analytic = still_row((one, interval_ratio_method().ready().restore(one)) for one in recordings)[0]
            psnr, mean, worst = still_row((one, restorer.frames(one)) for one in recordings)
            slow = still_row((one, restorer.frames(one, fps_factor=FPS_FACTOR)) for one in recordings)[0]
            print(
                f"| {duty} | {sensor} | {analytic:.2f} | {psnr:.2f} | {mean:.2f} | {worst:.1f} | {slow:.2f} |",
                flush=True,
            )
    print("\n| dark pixels of | method | Cb | Cr | absolute |\n| --- | --- | ---: | ---: | ---: |")
    for kind in ("demo", "grey", "stripes"):
        for method in (blur_method(), interval_ratio_method(), network):
            cb, cr, size = dark_row(method, moving(out, kind))
            print(f"| {kind} | {method.name} | {cb:+.2f} | {cr:+.2f} | {size:.2f} |", flush=True)


if __name__ == "__main__":
    main()
