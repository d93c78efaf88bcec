"""How often does the health gate cry wolf, and what does it miss? `python benchmarks/health_gate.py PHOTOS`

PHOTOS is a folder of photographs. Each becomes a recording of five 128 x 96 frames and 64 x 48 spikes, 64 ticks an
exposure, under every condition of CLEAN: nothing is wrong with those, so every refusal is a false alarm. Then each
fault of FAULTS is put into each of them. Prints two tables in Markdown: false alarms, and faults that were found.
`python benchmarks/health_gate.py --cost` prints instead what a check of large recordings costs.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from spikevrt.align.health import HealthReport, check_health
from spikevrt.recording.frames import list_images, write_image
from spikevrt.recording.loose import loose_recording
from spikevrt.recording.recording import Recording
from spikevrt.recording.spike_file import SpikeGeometry, SpikeWriter
from spikevrt.recording.stream import PackedStream, count_slices
from spikevrt.simulate.setup import SimulateOptions, sensor_preset
from spikevrt.simulate.synthesise import simulate_recording

Image = Callable[[np.ndarray], np.ndarray]
CLEAN = (  # name, motion in pixels over an exposure, sensor preset, shift in sensor pixels, frames
    ("ideal sensor, motion 6 px", 6.0, "ideal", 0, "colour"),
    ("ideal sensor, motion 24 px", 24.0, "ideal", 0, "colour"),
    ("bright sensor, motion 12 px", 12.0, "bright", 0, "colour"),
    ("low light, motion 12 px", 12.0, "lowlight", 0, "colour"),
    ("not registered: 2 of 64 px off along both axes", 12.0, "ideal", 2, "colour"),
    ("grey frames with noise", 12.0, "ideal", 0, "grey"),
)


@dataclass(frozen=True)
class ArrayStream:
    """Spikes in memory."""

    spikes: np.ndarray

    @property
    def height(self) -> int:
        return self.spikes.shape[1]

    @property
    def width(self) -> int:
        return self.spikes.shape[2]

    @property
    def num_ticks(self) -> int:
        return len(self.spikes)

    @property
    def files(self) -> tuple[Path, ...]:
        return ()

    def read(self, start_tick: int, stop_tick: int) -> np.ndarray:
        return self.spikes[start_tick:stop_tick]

    def count(self, edges: Sequence[int]) -> np.ndarray:
        return count_slices(self.spikes[edges[0] : edges[-1]], edges)


@dataclass(frozen=True)
class Altered(Recording):
    """A recording whose frames are changed as they are read."""

    change: Image = np.copy

    def read_blur(self, index: int) -> np.ndarray:
        return self.change(super().read_blur(index))


def altered(recording: Recording, spikes: np.ndarray, change: Image) -> Altered:
    known = {field.name: getattr(recording, field.name) for field in dataclasses.fields(Recording)}
    return Altered(**known | {"spikes": ArrayStream(np.ascontiguousarray(spikes))}, change=change)


def all_spikes(recording: Recording) -> np.ndarray:
    assert recording.spikes is not None
    return recording.spikes.read(0, recording.num_ticks)


def colour(image: np.ndarray) -> np.ndarray:
    return image


def swapped(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[:, :, ::-1])


def grey(image: np.ndarray) -> np.ndarray:
    level = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    noise = np.random.default_rng(3).normal(0, 2, image.shape)
    return (level + noise).round().clip(0, 255).astype(np.uint8)


def _after(first: Image, second: Image, image: np.ndarray) -> np.ndarray:
    return second(first(image))


def block(spikes: np.ndarray) -> None:
    spikes[:, 10:16, 20:26] = 0


def hot(spikes: np.ndarray) -> None:
    spikes[:, 30, 40] |= (np.random.default_rng(1).random(len(spikes)) < 0.7).astype(np.uint8)


def stuck_on(spikes: np.ndarray) -> None:
    spikes[:, 30, 40] = 1


def stuck_beat(spikes: np.ndarray) -> None:
    spikes[:, 30, 40] = np.arange(len(spikes)) % 4 == 0


def half_empty(spikes: np.ndarray) -> None:
    spikes[::2] = 0


def tenth_empty(spikes: np.ndarray) -> None:
    spikes[np.random.default_rng(2).random(len(spikes)) < 0.1] = 0


GAP_TICK = 150


def gap(spikes: np.ndarray) -> None:
    spikes[GAP_TICK:-17] = spikes[GAP_TICK + 17 :].copy()


def late(spikes: np.ndarray) -> None:
    spikes[:-20] = spikes[20:].copy()


OTHER_SCENE = "spikes of another photograph"
RIGHT_TICK = "the same, told at the right tick"

# name, finding, what is done in place, or how the picture is turned; a change of frames where the fault is theirs
FAULTS: tuple[tuple[str, str, Callable[[np.ndarray], None] | None, tuple[slice, slice], Image | None], ...] = (
    ("rows flipped", "orientation", None, (slice(None, None, -1), slice(None)), None),
    ("columns flipped", "orientation", None, (slice(None), slice(None, None, -1)), None),
    ("turned by 180 degrees", "orientation", None, (slice(None, None, -1), slice(None, None, -1)), None),
    (OTHER_SCENE, "orientation", None, (slice(None), slice(None)), None),
    ("BGR frames", "channel order", None, (slice(None), slice(None)), swapped),
    ("a dead block of 6 x 6", "dead pixels", block, (slice(None), slice(None)), None),
    ("a hot pixel, rate 0.7", "hot pixels", hot, (slice(None), slice(None)), None),
    ("a pixel stuck at 1", "stuck pixels", stuck_on, (slice(None), slice(None)), None),
    ("a pixel that fires every 4th tick", "stuck pixels", stuck_beat, (slice(None), slice(None)), None),
    ("every other tick empty", "empty ticks", half_empty, (slice(None), slice(None)), None),
    ("a tenth of the ticks empty", "empty ticks", tenth_empty, (slice(None), slice(None)), None),
    ("17 ticks missing in the middle", "gaps", gap, (slice(None), slice(None)), None),
    ("20 ticks of offset", "time offset", late, (slice(None), slice(None)), None),
)
EXPECTED = {"orientation": ("refused",), "channel order": ("refused",), "empty ticks": ("warning", "refused")}


def cost(width: int, height: int, num_ticks: int) -> None:
    """Time and peak memory of a check: spikes that fire evenly, five frames of twice the size."""
    rows, columns = np.mgrid[:height, :width]
    light = 0.3 + 0.2 * np.sin(columns / 9) * np.cos(rows / 7)
    phase = np.random.default_rng(0).random((height, width))
    frame = np.repeat((255 * light ** (1 / 2.2)).astype(np.uint8)[:, :, None], 3, axis=2).repeat(2, 0).repeat(2, 1)
    geometry = SpikeGeometry(width, height)
    with tempfile.TemporaryDirectory() as folder:
        with SpikeWriter(Path(folder) / "a.dat", geometry) as writer:
            for tick in range(num_ticks):
                fired = np.floor(phase + light * (tick + 1)) > np.floor(phase + light * tick)
                writer.append(fired.astype(np.uint8)[None])
        (Path(folder) / "blur").mkdir()
        for index in range(5):
            write_image(Path(folder) / "blur" / f"{index}.png", frame)
        recording = loose_recording(Path(folder) / "blur", PackedStream(Path(folder) / "a.dat", geometry))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        scanned = check_health(recording).evidence.scan.num_ticks
        took_s = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{width} x {height} spikes: {scanned} of {num_ticks} ticks scanned, {took_s:.1f} s, ", end="")
    print(f"peak {peak / 1e6:.2f} GB, {before / 1e6:.2f} GB before")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, nargs="?")
    parser.add_argument("--cost", action="store_true", help="time and memory of large recordings instead")
    parser.add_argument("--limit", type=int, help="so many photographs (all)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.cost:
        cost(640, 360, 700)
        cost(1000, 1000, 1000)
        return
    if arguments.photos is None:
        parser.error("PHOTOS: a folder of photographs")
    photos = list_images(arguments.photos)[: arguments.limit]
    clean_rows, fault_rows, seconds = [], [], []
    for name, motion_px, sensor, shift, frames in CLEAN:
        reports: list[HealthReport] = []
        found: dict[str, int] = {}
        change = {"colour": colour, "grey": grey}[frames]
        with tempfile.TemporaryDirectory() as folder:
            options = SimulateOptions(
                frames=5, width=128, height=96, exposure_ticks=64, period_ticks=80, motion_px=motion_px,
                sensor=sensor_preset(sensor),
            )  # fmt: skip
            recordings = [simulate_recording(photo, Path(folder) / photo.stem, options) for photo in photos]
            streams = [np.roll(all_spikes(one), (shift, shift), (1, 2)) for one in recordings]
            for index, recording in enumerate(recordings):
                began = time.perf_counter()
                reports.append(check_health(altered(recording, streams[index], change)))
                seconds.append(time.perf_counter() - began)
                for fault, finding, inject, turn, exchange in FAULTS:
                    is_other = fault == OTHER_SCENE
                    broken = streams[index - 1 if is_other else index][:, *turn].copy()
                    if inject is not None:
                        inject(broken)
                    both = change if exchange is None else functools.partial(_after, change, exchange)
                    report = check_health(altered(recording, broken, both))
                    expected = ("warning",) if is_other else EXPECTED.get(finding, ("repaired", "warning"))
                    found[fault] = found.get(fault, 0) + (report.finding(finding).verdict in expected)
                    if inject is gap:
                        found[RIGHT_TICK] = found.get(RIGHT_TICK, 0) + (GAP_TICK in report.evidence.scan.breaks)
        clean_rows.append((name, reports))
        fault_rows.append((name, found))
    print(f"{len(photos)} photographs, {platform.machine()}, torch {torch.__version__}, one thread, ", end="")
    print(f"{1e3 * float(np.median(seconds)):.0f} ms a check (median)\n")
    names = [finding.name for finding in clean_rows[0][1][0].findings if finding.name not in ("gain", "spikes")]
    print("| nothing is wrong | refused | " + " | ".join(names) + " |")
    print("| --- |" + " ---: |" * (len(names) + 1))
    for name, reports in clean_rows:
        refused = sum(report.verdict == "refused" for report in reports)
        others = [sum(report.finding(one).verdict != "ok" for report in reports) for one in names]
        print(f"| {name} | {refused} | " + " | ".join(map(str, others)) + " |")
    print(f"\n| found, of {len(photos)} | " + " | ".join(name for name, _ in fault_rows) + " |")
    print("| --- |" + " ---: |" * len(fault_rows))
    for fault, _, inject, *_ in FAULTS:
        for row in (fault, RIGHT_TICK) if inject is gap else (fault,):
            print(f"| {row} | " + " | ".join(str(found[row]) for _, found in fault_rows) + " |")


if __name__ == "__main__":
    main()
