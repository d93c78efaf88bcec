"""Which scene cuts are found, and what is taken for one? `python benchmarks/bench_cuts.py VIDEO... [--photos PHOTO...]`

Whole videos: their cuts were found by eye (TRUTH; a video that is not in it has none). Made from them, reduced to 640
pixels a side, by a seeded generator: stretches of two or more videos, one after the other (every place where they meet
is a cut; in between none of less than four frames, which would be a flash where both sides are alike); flashes of one
to three frames, bright or dark, in the whole frame or its lower part; a light that changes and stays; flashes beside a
cut; photographs under a camera that starts to pan at once, with the blur of an open shutter.
For each the cuts, those found at the exact frame, and false alarms, by PySceneDetect's AdaptiveDetector as it comes
(but with scenes of any length) and by ours. Then milliseconds a frame of 1280 x 720, without decoding.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from scenedetect.common import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from spikevrt.recording.frames import read_image
from spikevrt.recording.video import iter_video
from spikevrt.restore.cuts import CutFinder, small_copy, stream_cuts

TRUTH = {"cityCC0": [116], "moviepy_trailer_bbb": [593, 864, 900, 988, 1049]}
FADES = {"moviepy_trailer_bbb": [240, 241, 336, 337, 768, 769]}  # through black: found or not, it counts for nothing
LONGER_PX, NUM_CASES = 640, 200
Case = tuple[np.ndarray, list[int]]  # frames, cuts


def our_cuts(frames: np.ndarray) -> list[int]:
    """Numbers of the frames with which a new scene begins."""
    stream = stream_cuts(frames)
    assert stream is not None
    return [index for index, (_, is_cut) in enumerate(stream) if is_cut]


def plain_cuts(frames: np.ndarray) -> list[int]:
    detector, cuts = AdaptiveDetector(min_scene_len=1), []
    for index, frame in enumerate(frames):
        time_ = FrameTimecode(index, fps=25.0)
        cuts += [cut.frame_num for cut in detector.process_frame(time_, np.ascontiguousarray(frame[..., ::-1]))]
    return cuts


def stretch(
    videos: dict[str, np.ndarray], rng: np.random.Generator, length: int, name: str | None = None
) -> np.ndarray:
    """`length` frames in a row of a video, without a cut."""
    name = name or str(rng.choice(list(videos)))
    frames = videos[name]
    never = np.array(TRUTH.get(name, []) + FADES.get(name, []))
    while True:
        start = int(rng.integers(0, len(frames) - length + 1))
        if not ((never > start - 3) & (never < start + length + 3)).any():
            return frames[start : start + length]


def joined(videos: dict[str, np.ndarray], rng: np.random.Generator, lengths: list[int]) -> Case:
    """Stretches of different videos, all brought to the size of the first."""
    groups = {name: name.rstrip("0123456789") for name in videos}  # the cameras of one rig show one scene
    parts: list[np.ndarray] = []
    before = ""
    for length in lengths:
        name = str(rng.choice([name for name in videos if groups[name] != before]))
        before = groups[name]
        part = stretch(videos, rng, length, name)
        size = (parts[0] if parts else part).shape[2:0:-1]
        parts.append(np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in part]))
    return np.concatenate(parts), np.cumsum(lengths)[:-1].tolist()


def lit(frame: np.ndarray, gain: float, share: float = 1.0) -> np.ndarray:
    """A frame whose lower `share` was exposed to `gain` times the light."""
    first, changed = round(len(frame) * (1 - share)), frame.copy()
    changed[first:] = np.clip(frame[first:].astype(np.float32) * gain, 0, 255).astype(np.uint8)
    return changed


def flashed(frames: np.ndarray, rng: np.random.Generator, at: int, gains: tuple[float, ...], parts: bool) -> np.ndarray:
    gain, frames = float(rng.choice(gains)), frames.copy()
    for index in range(at, at + int(rng.integers(1, 4))):
        frames[index] = lit(frames[index], gain, float(rng.uniform(0.3, 1.0)) if parts else 1.0)
    return frames


def pan(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """24 frames of 640 x 360: still for 8, then at once in steps of 10 to 60 pixels, half of each as blur."""
    step, shutter = int(rng.integers(10, 61)), 0.5
    photo = cv2.resize(photo, (640 + 16 * step + 64, 400), interpolation=cv2.INTER_AREA)
    starts = [0] * 8 + [step * k for k in range(16)]
    blur = range(0, max(1, round(step * shutter)), max(1, step // 8))
    moved = [np.mean([photo[20:380, x + b : x + b + 640] for b in (blur if x else [0])], axis=0) for x in starts]
    return np.stack(moved).astype(np.uint8)


def made_cases(videos: dict[str, np.ndarray], photos: list[np.ndarray]) -> dict[str, Callable[..., Case]]:
    bright, dark = (1.6, 2.5, 4.0, 20.0), (0.5, 0.2, 0.05)
    cases: dict[str, Callable[..., Case]] = {
        "two stretches of 12": lambda rng: joined(videos, rng, [12, 12]),
        "five stretches of 4 to 9": lambda rng: joined(videos, rng, rng.integers(4, 10, 5).tolist()),
        "a scene of 1 or 2 frames at the start": lambda rng: joined(videos, rng, [int(rng.integers(1, 3)), 12]),
        "a scene of 1 or 2 frames at the end": lambda rng: joined(videos, rng, [12, int(rng.integers(1, 3))]),
        "bright flash": lambda rng: (flashed(stretch(videos, rng, 24), rng, 10, bright, False), []),
        "bright flash, in part of the frame": lambda rng: (
            flashed(stretch(videos, rng, 24), rng, 10, bright, True),
            [],
        ),
        "dark flash": lambda rng: (flashed(stretch(videos, rng, 24), rng, 10, dark, False), []),
    }

    def lasting(rng: np.random.Generator) -> Case:
        frames, gain = stretch(videos, rng, 24).copy(), float(rng.choice((0.3, 0.5, 0.7, 1.4, 2.0)))
        frames[12:] = [lit(frame, gain) for frame in frames[12:]]
        return frames, []

    def beside(rng: np.random.Generator) -> Case:
        frames, cuts = joined(videos, rng, [12, 12])
        at = int(rng.choice([5, 6, 7, 8, 13, 14, 15]))  # ends one frame before the cut, or begins one frame after it
        return flashed(frames, rng, at, bright, False), cuts

    cases |= {"a light that changes and stays": lasting, "a flash up to a frame from a cut": beside}
    if photos:
        cases["whip pan from rest"] = lambda rng: (pan(photos[int(rng.integers(len(photos)))], rng), [])
    return cases


def row(name: str, cases: Iterator[Case], ignored: list[int]) -> str:
    num_frames = num_cuts = 0
    hits, alarms = [0, 0], [0, 0]
    for frames, cuts in cases:
        num_frames, num_cuts = num_frames + len(frames), num_cuts + len(cuts)
        small = np.stack([small_copy(frame, 256) for frame in frames])
        for k, found in enumerate((plain_cuts(small), our_cuts(frames))):
            hits[k] += len(set(cuts) & set(found))
            alarms[k] += len(set(found) - set(cuts) - set(ignored))
    numbers = f"{hits[0]} | {alarms[0]} | {hits[1]} | {alarms[1]}"
    return f"| {name} | {num_frames} | {num_cuts} | {numbers} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--photos", nargs="*", type=Path, default=[])
    parsed = parser.parse_args()
    print("| | frames | cuts | plain: found | false | ours: found | false |\n| --- " + "| ---: " * 6 + "|", flush=True)
    videos = {}
    for path in parsed.videos:
        frames = np.stack([small_copy(frame, LONGER_PX) for frame in iter_video(path)])
        videos[path.stem] = frames
        print(row(path.stem, iter([(frames, TRUTH.get(path.stem, []))]), FADES.get(path.stem, [])), flush=True)
    photos = [read_image(path) for path in parsed.photos]
    for name, make in made_cases(videos, photos).items():
        rng = np.random.default_rng(41)
        print(row(f"{NUM_CASES} x {name}", (make(rng) for _ in range(NUM_CASES)), []), flush=True)

    frame, finder, took_s = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8), CutFinder(), []
    for _ in range(60):
        start_s = time.process_time()
        finder.add(frame)
        took_s.append(time.process_time() - start_s)
    print(f"\n{1e3 * float(np.median(took_s)):.1f} ms of one core a frame of 1280 x 720")


if __name__ == "__main__":
    main()
