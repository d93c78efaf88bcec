"""How often does the health gate cry wolf, and what does it miss? `python benchmarks/health_gate.py PHOTOS`

PHOTOS is a folder of photographs. Each becomes a recording of five 128 x 96 frames and 64 x 48 spikes, 64 ticks an
exposure, under every condition of CLEAN: nothing is wrong with those, so every refusal is a false alarm, but of the
ones that are not registered. Then each fault of FAULTS is put into each of them. Prints two tables in Markdown: false
alarms, and faults that were found.

`--rigs SENSOR` prints instead how rigs are judged (RIGS; 128 ticks an exposure): registered ones, shifted and turned
ones, late and drifting clocks, other scenes, transposed streams. `--tolerance` prints what shifts and offsets cost the
weights that ship, which is what the gate's limits are made of; `--cost` what a check of large recordings costs.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from spikevrt.align.health import HealthReport, check_health
from spikevrt.evaluate.metrics import psnr_rgb
from spikevrt.recording.frames import list_images, to_float, write_image
from spikevrt.recording.loose import loose_recording
from spikevrt.recording.recording import Recording, open_recording
from spikevrt.recording.spike_file import SpikeGeometry, SpikeWriter
from spikevrt.recording.stream import PackedStream, count_slices
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.restorer import Restorer
from spikevrt.shipped import DEFAULT, REFERENCE, find
from spikevrt.simulate.setup import RigConfig, SimulateOptions, sensor_preset
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
FOUND_BY_NAME = ("dead pixels", "hot pixels", "stuck pixels")  # they are filled, and ok then; empty ticks are told


def is_found(report: HealthReport, name: str) -> bool:
    """Whether the finding says that something is wrong: it refuses, asks, or counts pixels or ticks."""
    finding = report.finding(name)
    counted = finding.numbers.get("num_pixels" if name in FOUND_BY_NAME else "num_empty", 0.0)
    return finding.verdict == "bad" or counted > 0 or (name == "gaps" and bool(finding.numbers["num_gaps"]))


MARGIN_TICKS = 64  # of spikes around the exposures
# name, folder, how the spike camera stands, of which the recording says nothing
RIGS = (
    ("as it should be", "zero", RigConfig(margin_ticks=MARGIN_TICKS)),
    ("0.5 px beside", "half", RigConfig(margin_ticks=MARGIN_TICKS, shift_x_px=-0.3, shift_y_px=0.4)),
    ("1 px beside", "one", RigConfig(margin_ticks=MARGIN_TICKS, shift_x_px=1.0)),
    ("turned by 1.2 degrees, 2 % larger, shifted: 2.2 px", "rot",
     RigConfig(margin_ticks=MARGIN_TICKS, rotate_deg=-1.2, scale=1.02, shift_x_px=1.5, shift_y_px=-1.0)),
    ("drawn: up to 20 px, 2 degrees, 5 %, tilts, an exposure late", "random", RigConfig(margin_ticks=160, random=True)),
)  # fmt: skip


def delayed(recording: Recording, first: float, last: float) -> Recording:
    """The exposures told to begin so many ticks too early: the first frame by `first`, the last by `last`."""
    num = recording.num_frames
    return told_earlier(recording, [round(first + (last - first) * index / (num - 1)) for index in range(num)])


def told_earlier(recording: Recording, ticks: Sequence[int]) -> Recording:
    exposures = [
        dataclasses.replace(one, start_tick=one.start_tick - by, stop_tick=one.stop_tick - by)
        for one, by in zip(recording.exposures, ticks, strict=True)
    ]
    return dataclasses.replace(recording, exposures=tuple(exposures))


def rig_cases(recording: Recording, other: np.ndarray | None) -> Iterator[tuple[str, str, Recording]]:
    """Name, the finding that is asked, and what the recording then is; `other`: spikes of another one."""
    spikes = all_spikes(recording)
    for columns, rows in ((1, 0), (-4, 3)):
        moved = altered(recording, np.roll(spikes, (rows, columns), (1, 2)), colour)
        yield f"{np.hypot(2 * columns, 2 * rows):.0f} px beside", "registration", moved
    for ticks in (8, 37):
        yield f"clock {ticks} ticks late", "time offset", delayed(recording, ticks, ticks)
    yield "offset grows by 32 ticks", "time offset", delayed(recording, -16, 16)
    yield "from the third frame on 48 ticks late", "time offset", told_earlier(recording, (0, 0, 48, 48, 48))
    yield "every other frame 40 ticks late", "time offset", told_earlier(recording, (0, 40, 0, 40, 0))
    yield "transposed", "orientation", altered(recording, spikes.transpose(0, 2, 1), colour)
    size = (len(spikes), spikes.shape[2], spikes.shape[1])
    yield "width and height exchanged", "orientation", altered(recording, spikes.reshape(size), colour)
    if other is not None:
        yield OTHER_SCENE, "orientation", altered(recording, other, colour)


def rigs(photos: Sequence[Path], sensor: str, root: Path, chosen: Sequence[str]) -> None:
    """Verdicts on recordings of the chosen rigs, which are kept in `root`, and on those that are as they should be with
    each other fault put into them."""
    counts: dict[str, list[tuple[str, str]]] = {}
    last: np.ndarray | None = None
    for number, photo in enumerate(photos):
        for name, folder, rig in RIGS:
            path = root / f"{sensor}_{folder}" / photo.stem
            if folder not in chosen:
                continue
            options = SimulateOptions(
                frames=5, width=128, height=96, motion_px=(4.0, 8.0, 12.0, 16.0, 24.0)[number % 5], seed=100 + number,
                sensor=sensor_preset(sensor), rig=rig,
            )  # fmt: skip
            if not (path / "recording.json").is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                simulate_recording(photo, path, options)
            recording = open_recording(path)
            cases = [(name, "registration", recording)]
            if rig.is_perfect:
                cases += rig_cases(recording, last)
                last = all_spikes(recording)
            for case, finding, one in cases:
                report = check_health(one)
                counts.setdefault(case, []).append((report.verdict, report.finding(finding).verdict))
    print(f"{len(photos)} pictures, {sensor} sensor\n\n| | bad | cannot tell | ok | bad by the finding asked |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for case, both in counts.items():
        told = [sum(one == verdict for one, _ in both) for verdict in ("bad", "cannot tell", "ok")]
        print(f"| {case} | " + " | ".join(map(str, [*told, sum(one == "bad" for _, one in both)])) + " |")


def tolerance(photos: Sequence[Path]) -> None:
    """PSNR (RGB) of what ships, beside shifts of the spikes and offsets of their clock; bright light, two motions."""
    shifts, ticks, motions = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0), (0, 1, 2, 4, 8, 16, 32), (8.0, 16.0)
    restorers = {name: Restorer(find(name), RestoreOptions(device="cpu")) for name in (DEFAULT, REFERENCE)}
    scores: dict[tuple[str, float, str], list[np.ndarray]] = {}
    for photo in photos:
        for motion_px in motions:
            with tempfile.TemporaryDirectory() as folder:
                cases: list[tuple[str, float, Recording]] = []
                for shift in shifts:
                    options = SimulateOptions(
                        frames=5, width=128, height=96, motion_px=motion_px,
                        sensor=sensor_preset("bright"),
                        rig=RigConfig(shift_x_px=shift, margin_ticks=MARGIN_TICKS),
                    )  # fmt: skip
                    cases.append(("px", shift, simulate_recording(photo, Path(folder) / str(shift), options)))
                cases += [("ticks", by, delayed(cases[0][2], -by, -by)) for by in ticks]
                for name, restorer in restorers.items():
                    whole = _psnr(cases[0][2], list(restorer.stream(cases[0][2])))
                    blur = _psnr(cases[0][2], [cases[0][2].read_blur(index) for index in range(5)])
                    for unit, by, recording in cases:
                        restored = _psnr(recording, list(restorer.stream(recording)))
                        scores.setdefault((unit, by, name), []).append(np.array([restored - whole, restored - blur]))
    print("| | " + " | ".join(f"{name}: against 0 | over the blur" for name in restorers) + " |")
    print("| --- |" + " ---: |" * 2 * len(restorers))
    for unit, sizes in (("px", shifts), ("ticks", ticks)):
        for by in sizes:
            means = [np.mean(scores[unit, by, name], axis=0) for name in restorers]
            print(f"| {by:g} {unit} | " + " | ".join(f"{change:+.2f} | {over:+.2f}" for change, over in means) + " |")


def _psnr(recording: Recording, frames: Sequence[np.ndarray]) -> float:
    sharp = torch.stack([to_float(recording.read_sharp(index)) for index in range(recording.num_frames)])
    return float(psnr_rgb(torch.stack([to_float(frame) for frame in frames]), sharp).mean())


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
    parser.add_argument("--rigs", metavar="SENSOR", help="how rigs are judged instead: bright, lowlight, ideal")
    parser.add_argument("--keep", type=Path, help="with --rigs: where recordings are kept, and found again")
    parser.add_argument(
        "--only", nargs="+", default=[folder for _, folder, _ in RIGS], help="with --rigs: of these alone"
    )
    parser.add_argument("--tolerance", action="store_true", help="what shifts and offsets cost instead")
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
    if arguments.tolerance:
        tolerance(photos)
        return
    if arguments.rigs:
        with tempfile.TemporaryDirectory() as root:
            rigs(photos, arguments.rigs, arguments.keep or Path(root), arguments.only)
        return
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
                    found[fault] = found.get(fault, 0) + is_found(report, finding)
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
        refused = sum(report.verdict == "bad" for report in reports)
        others = [sum(is_found(report, one) for report in reports) for one in names]
        print(f"| {name} | {refused} | " + " | ".join(map(str, others)) + " |")
    print(f"\n| found, of {len(photos)} | " + " | ".join(name for name, _ in fault_rows) + " |")
    print("| --- |" + " ---: |" * len(fault_rows))
    for fault, _, inject, *_ in FAULTS:
        for row in (fault, RIGHT_TICK) if inject is gap else (fault,):
            print(f"| {row} | " + " | ".join(str(found[row]) for _, found in fault_rows) + " |")


if __name__ == "__main__":
    main()
