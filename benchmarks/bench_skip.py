"""What does `--skip-sharp` save, and what does it cost? `python benchmarks/bench_skip.py`

Four simulated recordings: a photograph that stands still with a cut-out that moves over it, 16 pixels in an exposure;
the same seen by a noisy sensor (`bright`); a photograph under a moving camera, fast and slow. Each is restored by the
shipped spikevrt_tiny at every threshold, in turn in one process, medians over the rounds. PSNR is the mean over the
frames; "where blurred" over the pixels whose blurry value is more than two levels from the sharp one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from spikevrt.evaluate.metrics import psnr_rgb
from spikevrt.recording.frames import to_float, write_image
from spikevrt.recording.recording import Recording
from spikevrt.represent.inputs import spike_activity
from spikevrt.represent.voxel import voxelise
from spikevrt.restore import restorer
from spikevrt.restore.clip import tiles_in_all
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.restorer import Restorer
from spikevrt.simulate.sensor import SpikeSensor
from spikevrt.simulate.setup import SimulateOptions, sensor_preset
from spikevrt.simulate.synthesise import simulate_recording

PACKAGE = Path(restorer.__file__).parents[1]
ASSETS = PACKAGE / "assets"
HEIGHT, WIDTH, FRAMES, CUT_OUT_PX = 256, 384, 3, 72
THRESHOLDS = (None, 1.5, 2.0, 4.0, 8.0, 16.0)


def still_with_a_cut_out(folder: Path) -> Path:
    """Sharp frames, 8 ticks apart: the cut-out goes one pixel a frame to the right."""
    with Image.open(ASSETS / "coffee.jpg") as photo, Image.open(ASSETS / "astronaut.jpg") as other:
        background = np.asarray(photo.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))
        cut_out = np.asarray(other.convert("RGB").resize((192, 192), Image.Resampling.LANCZOS))[:CUT_OUT_PX, 48:120]
    folder.mkdir()
    options = SimulateOptions(frames=FRAMES)
    for index in range(options.source_frames_needed):
        frame = background.copy()
        frame[30 : 30 + CUT_OUT_PX, 20 + index : 20 + index + CUT_OUT_PX] = cut_out
        write_image(folder / f"{index:06d}.png", frame)
    return folder


def recordings(folder: Path) -> dict[str, Recording]:
    frames = still_with_a_cut_out(folder / "frames")
    options = SimulateOptions(frames=FRAMES, width=WIDTH, height=HEIGHT)
    bright = sensor_preset("bright")
    return {
        "cut-out": simulate_recording(frames, folder / "ideal", options),
        "cut-out, bright": simulate_recording(frames, folder / "bright", replace(options, sensor=bright)),
        **{
            name: simulate_recording(
                ASSETS / "chelsea.jpg", folder / name, replace(options, motion_px=motion_px, num_layers=0)
            )
            for name, motion_px in (("all moves", 16.0), ("all moves slowly", 2.0))
        },
    }


def score(recording: Recording, restored: list[torch.Tensor]) -> tuple[float, float]:
    """PSNR over the frames, and over the blurred pixels, in dB."""
    sharp = torch.stack([to_float(recording.read_sharp(i)) for i in range(FRAMES)])
    blur = torch.stack([to_float(recording.read_blur(i)) for i in range(FRAMES)])
    frames = torch.stack(restored).clamp(0, 1)
    moved = (blur - sharp).abs() > 2.5 / 255
    error = ((255 * frames).round() / 255 - sharp)[moved].square().mean()
    return float(psnr_rgb(frames, sharp).mean()), float(-10 * torch.log10(error))


def print_still_scenes() -> None:
    """What is measured where nothing moves: textures of random pixels, and a real recording that hardly moves."""
    print("| 128 ticks of | least | median | 9 of 10 below | largest |\n| --- | ---: | ---: | ---: | ---: |")
    height, width = 128, 128
    texture = torch.rand(height, width, generator=torch.Generator().manual_seed(7))
    streams = {}
    for preset in ("ideal", "bright", "lowlight"):
        for brightness in (0.05, 0.3, 0.9):
            sensor = SpikeSensor(height, width, sensor_preset(preset), seed=5)
            streams[f"{preset}, up to {brightness} of full scale"] = sensor.expose(
                (brightness * texture).expand(128, -1, -1)
            )
    with np.load(ASSETS / "uhsr_200x250x250.npz") as arrays:
        streams["the shipped real recording"] = torch.from_numpy(arrays["spk"][:128]).to(torch.uint8)
    for name, stream in streams.items():
        activity = spike_activity(voxelise(stream, num_bins=32), 128).flatten()
        shown = " | ".join(f"{v:.2f}" for v in activity.quantile(torch.tensor([0.0, 0.5, 0.9, 1.0])).tolist())
        print(f"| {name} | {shown} |")
    print()


def main(rounds: int) -> None:
    print_still_scenes()
    restorer = Restorer("spikevrt_tiny", RestoreOptions(device="cpu", tile_px=128, clip_frames=FRAMES))
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; {FRAMES} frames of {WIDTH}x{HEIGHT}, ", end=""
    )
    print("tiles of 128 px\n")
    print("| recording | threshold | tiles skipped | seconds | PSNR dB | where blurred dB | activity of tiles |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name, recording in recordings(Path(folder)).items():
            blurry = [to_float(recording.read_blur(i)) for i in range(FRAMES)]
            psnr_db, moved_db = score(recording, blurry)
            print(f"| {name} | (input) | | | {psnr_db:.2f} | {moved_db:.2f} | |")
            seconds: dict[float | None, list[float]] = {threshold: [] for threshold in THRESHOLDS}
            rows = {}
            list(restorer.frames(recording))  # warms up
            for _ in range(rounds):
                for threshold in THRESHOLDS:
                    options = replace(restorer.options, overlap_px=32, skip_sharp=threshold)
                    began_s = time.perf_counter()
                    restoration = restorer.with_options(options).plan(recording)
                    frames = [restored.frame for restored in restoration.run()]
                    seconds[threshold].append(time.perf_counter() - began_s)
                    rows[threshold] = (*score(recording, frames), tiles_in_all(restoration.work))
            for threshold, (psnr_db, moved_db, tiles) in rows.items():
                middle_s = statistics.median(seconds[threshold])
                activity = " ".join(f"{value:.1f}" for value in activity_of(tiles))
                print(
                    f"| {name} | {'off' if threshold is None else threshold} | {tiles['skipped']} of {tiles['num']} "
                    f"| {middle_s:.2f} | {psnr_db:.2f} | {moved_db:.2f} | {activity} |"
                )


def activity_of(tiles: dict[str, object]) -> list[float]:
    """The least, the median and the largest activity."""
    found = tiles.get("activity", [])
    assert isinstance(found, list)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    main(parser.parse_args().rounds)
