"""How sharp are the frames between? PSNR by the time of the sharp frame, for weights that were trained for it.

    python benchmarks/slow_motion.py OUT [WEIGHTS...]

Films each shipped photograph (none was trained on) once for every time: the blurry frames and the spikes are the same
to the bit, the sharp frames are those of another tick. Eight times to a period, as `--fps-factor 8` restores them; the
first is the middle of the exposure. Prints a table; OUT/PHOTO_SHIFT are the recordings.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import torch

from spikevrt import shipped
from spikevrt.bench.demo import ASSETS, PHOTOS
from spikevrt.evaluate.methods import Method, blur_method, interval_ratio_method, network_method
from spikevrt.evaluate.metrics import psnr_rgb
from spikevrt.recording.frames import to_float
from spikevrt.recording.recording import Recording, open_recording
from spikevrt.restore.options import RestoreOptions
from spikevrt.simulate.setup import RigConfig, SimulateOptions
from spikevrt.simulate.synthesise import simulate_recording

FACTOR = 8
PERIOD_TICKS = 160
OPTIONS = SimulateOptions(
    frames=5, exposure_ticks=128, period_ticks=PERIOD_TICKS, width=192, height=192, motion_px=16.0,
    rig=RigConfig(margin_ticks=PERIOD_TICKS // 2),
)  # fmt: skip


def film(out: Path, shift_ticks: int) -> list[Recording]:
    recordings = []
    for number, name in enumerate(PHOTOS):
        path = out / f"{Path(name).stem}_{shift_ticks}"
        if not path.exists():
            simulate_recording(
                ASSETS / name, path, replace(OPTIONS, sharp_shift_ticks=shift_ticks, seed=500 + number),
                layer_photos=[ASSETS / other for other in PHOTOS if other != name],
            )  # fmt: skip
        recordings.append(open_recording(path))
    return recordings


def score(method: Method, recordings: list[Recording]) -> float:
    restorer, scores = method.ready(), list[float]()
    for recording in recordings:
        frames = [
            float(psnr_rgb(frame.clamp(0, 1)[None], to_float(recording.read_sharp(index))[None]))
            for index, frame in enumerate(restorer.restore(recording))
        ]
        scores.append(sum(frames) / len(frames))
    return sum(scores) / len(scores)


def main(out: Path, weights: list[Path]) -> None:
    torch.set_num_threads(1)
    options = RestoreOptions(device="cpu")
    methods = [blur_method(), interval_ratio_method()]
    methods += [network_method(path.stem, path, options, gate=None) for path in weights]
    steps = [j * PERIOD_TICKS // FACTOR for j in range(FACTOR)]
    shifts = [ticks if 2 * ticks <= PERIOD_TICKS else ticks - PERIOD_TICKS for ticks in steps]
    digest = hashlib.sha256()
    print("| time, in periods | from the exposure's middle, ticks |", " | ".join(f"{m.name} dB" for m in methods), "|")
    print("| ---: | ---: |" + " ---: |" * len(methods))
    for step, shift in zip(steps, shifts, strict=True):
        recordings = film(out, shift)
        for recording in recordings:
            digest.update((recording.root / "spikes.dat").read_bytes())
            digest.update(recording.read_sharp(2).tobytes())
        row = " | ".join(f"{score(method, recordings):.2f}" for method in methods)
        print(f"| {step}/{PERIOD_TICKS} | {shift:+d} | {row} |", flush=True)
    print(f"\ndata sha256 {digest.hexdigest()[:16]}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), [Path(p) for p in sys.argv[2:]] or [shipped.find()])
