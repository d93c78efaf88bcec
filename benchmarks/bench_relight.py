"""What can the analytic answer reach, if spikes had no noise? `python benchmarks/bench_relight.py`

The blurry frame times light(middle) / light(whole exposure), with the light itself (from the simulator, medium suite of
spikebench-v1, the third frame of every scene) in the place of rates: at the frame's size, at 1/2 and at 1/4, of the
middle tick and of 13 ticks around it. psnr_rgb in dB, mean over the scenes. Nothing is written.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch.nn import functional as F

from spikevrt.bench.benchmark import CONDITIONS, MARGIN_PX, SCENES, SIZE_PX, film, open_scene
from spikevrt.evaluate.metrics import psnr_rgb
from spikevrt.light import linear_to_srgb, srgb_to_linear
from spikevrt.recording.frames import to_float
from spikevrt.recording.recording import open_recording
from spikevrt.simulate.exact import grey_light

INNER = slice(MARGIN_PX, MARGIN_PX + SIZE_PX)
FRAME = 2


def main() -> None:
    medium = next(condition for condition in CONDITIONS if condition.name == "medium")
    found: dict[tuple[int, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for scene in SCENES:
            film(scene, "medium", [medium], Path(folder))
            recording = open_recording(Path(folder) / "medium" / scene.name)
            exposure, light = recording.exposures[FRAME], open_scene(scene, "medium")
            ticks = torch.arange(exposure.start_tick, exposure.stop_tick).split(16)
            seen = torch.cat([light.light(part)[..., INNER, INNER] for part in ticks])
            blur, sharp = to_float(recording.read_blur(FRAME)), to_float(recording.read_sharp(FRAME))
            middle = exposure.num_ticks // 2
            for ratio in (1, 2, 4):
                grey = grey_light(seen, ratio)
                for name, short in (("tick", grey[middle]), ("13 ticks", grey[middle - 6 : middle + 7].mean(0))):
                    gain = ((short + 1e-3) / (grey.mean(0) + 1e-3))[None, None]
                    gain = F.interpolate(gain, blur.shape[-2:], mode="bilinear", align_corners=False)[0]
                    lit = linear_to_srgb((srgb_to_linear(blur) * gain).clamp(0, 1))
                    found.setdefault((ratio, name), []).append(psnr_rgb(lit[None], sharp[None]).item())
    print("| light known at | of | psnr_rgb dB |")
    print("| --- | --- | ---: |")
    for (ratio, name), values in found.items():
        print(f"| 1/{ratio} | the middle {name} | {sum(values) / len(values):.2f} |")


if __name__ == "__main__":
    main()
