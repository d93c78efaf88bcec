"""How far is an estimated alignment from the true one? `python benchmarks/alignment.py PHOTOS... [--pairs FOLDER]`

Every photograph is filmed with a rig drawn from a seed (up to 20 px along each axis, 2 degrees, 5 %, tilts of 0.02, one
exposure), for each sensor preset in turn, and aligned from its footage. --pairs takes real pairs: NAME.rgb.jpg and
NAME.intensity.npy (a spike camera's brightness), registered one by one, with a homography and with flow on top.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from spikevrt.align.compare import linear_luminance
from spikevrt.align.estimate import AlignOptions, estimate_alignment, estimate_registration
from spikevrt.align.registration import Cameras
from spikevrt.recording.frames import read_image
from spikevrt.simulate.setup import SENSOR_PRESETS, RigConfig, SimulateOptions, sensor_preset
from spikevrt.simulate.synthesise import simulate_recording


def simulated(photo: Path, preset: str, seed: int) -> str:
    """One line of the table: the truth, the errors, and what the estimate says of itself."""
    options = SimulateOptions(
        frames=5, width=480, height=272, exposure_ticks=56, period_ticks=64, seed=seed,
        sensor=sensor_preset(preset), rig=RigConfig(random=True),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        recording = simulate_recording(photo, Path(folder) / "recording", options)
        assert recording.spikes is not None
        cameras = Cameras(recording.width, recording.height, recording.spikes.width, recording.spikes.height)
        truth = recording.provenance["rig"]
        true_matrix = np.array(truth["homography"])
        moved = cameras.corner_gap_px(true_matrix, cameras.homography(np.zeros(8)))
        head = f"| {photo.stem.split('_by_')[0]} | {preset} | {seed} | {moved:.1f} | {truth['offset_ticks']} |"
        began = time.perf_counter()
        try:
            found = estimate_alignment(recording, AlignOptions()).alignment
        except ValueError as error:
            return f"{head} refused: {str(error).split(': ')[-1]} | | | | | |"
        seconds = time.perf_counter() - began
        matrix = cameras.homography(np.zeros(8)) if found.homography is None else np.array(found.homography)
        quality = found.quality
        return (
            f"{head} {cameras.corner_gap_px(matrix, true_matrix):.3f} | "
            f"{found.offset_ticks - truth['offset_ticks']:+.2f} | {quality['offset_sigma_ticks']} | "
            f"{quality['sharpness']} | {quality['residual_before_px']:.2f} -> {quality['residual_after_px']:.2f} | "
            f"{seconds:.1f} |"
        )


def real(frame: Path) -> str:
    light = linear_luminance(read_image(frame))[None]
    brightness = np.load(frame.with_name(frame.name.replace(".rgb.jpg", ".intensity.npy")))[None]
    plain, bent = (estimate_registration(light, brightness, flow=flow) for flow in (False, True))
    flow_px = f"{bent.residual_after.median_px:.2f}" if bent.flow is not None else "not kept"
    return (
        f"| {frame.name.split('.')[0]} | {plain.correlation_before:.3f} | {plain.correlation_after:.3f} | "
        f"{plain.residual_before.median_px:.2f} | {plain.residual_after.median_px:.2f} | {flow_px} | "
        f"{plain.residual_after.num_recognised} | {plain.corner_shift_px:.1f} |"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="*")
    parser.add_argument("--seeds", type=int, default=1, help="rigs a photograph and preset")
    parser.add_argument("--pairs", type=Path)
    parsed = parser.parse_args()
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    if parsed.photos:
        print(
            "| photograph | sensor | seed | corners moved px | offset ticks | corner error px | offset error ticks | "
            "said +- ticks | sharpness | residual px | s |\n"
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |"
        )
    for number, photo in enumerate(parsed.photos):
        for preset in SENSOR_PRESETS:
            for repeat in range(parsed.seeds):
                print(simulated(photo, preset, 100 * number + 10 * SENSOR_PRESETS.index(preset) + repeat), flush=True)
    if parsed.pairs is not None:
        print(
            "\n| pair | correlation before | after | residual before px | homography px | with flow px | patches | "
            "corners moved px |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
        )
        for frame in sorted(parsed.pairs.glob("*.rgb.jpg")):
            print(real(frame), flush=True)
