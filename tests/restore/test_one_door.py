"""The law of the one door: whoever restores a recording gets the same frames, bit for bit.

The command's files, the stream from Python, the evaluated and the validated frames, on a sound recording and on damaged
ones, from pictures and from a video, at the recording's frame rate and at several times of it. And every frame is
decoded once and every exposure's spikes are read once.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import spikevrt
from spikevrt import cli, shipped
from spikevrt.align.health import NAMES, admit
from spikevrt.bench.run import lenient_gate
from spikevrt.checkpoint import load_weights, save_weights
from spikevrt.config import PrepareOptions
from spikevrt.data.dataset import open_dataset
from spikevrt.data.prepare import Sources, prepare
from spikevrt.evaluate.methods import network_method
from spikevrt.evaluate.metrics import psnr_rgb
from spikevrt.evaluate.pictures import frame_path
from spikevrt.mux.encode import VideoTags, write_segment
from spikevrt.mux.join import join_segments
from spikevrt.recording.alignment import Alignment, write_alignment
from spikevrt.recording.frames import list_images, read_image, to_float, to_uint8
from spikevrt.recording.recording import Recording, open_recording
from spikevrt.recording.spike_file import sha256_file
from spikevrt.recording.stream import PackedStream
from spikevrt.restore.options import RestoreOptions, VideoFormat
from spikevrt.restore.restorer import Restorer
from spikevrt.simulate.setup import SimulateOptions
from spikevrt.simulate.synthesise import simulate_recording
from spikevrt.train.distributed import Ranks
from spikevrt.train.validation import validate

ASSETS = Path(__file__).resolve().parents[2] / "src" / "spikevrt" / "assets"
NUM, TICKS, PERIOD = 5, 128, 160
OPTIONS = RestoreOptions(device="cpu", ignore_health=NAMES, clip_frames=3, overlap_frames=1)
ARGUMENTS = ["--device", "cpu", "--ignore-health", *NAMES, "--clip-frames", "3", "--overlap-frames", "1"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five frames of 96x64 of a photograph."""
    options = SimulateOptions(
        frames=NUM, width=96, height=64, exposure_ticks=TICKS, period_ticks=PERIOD, motion_px=3.0, num_layers=0
    )
    return simulate_recording(ASSETS / "coffee.jpg", tmp_path_factory.mktemp("law") / "sound", options).root


@pytest.fixture(scope="module")
def other_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = SimulateOptions(
        frames=NUM, width=96, height=64, exposure_ticks=TICKS, period_ticks=PERIOD, motion_px=3.0, num_layers=0
    )
    return simulate_recording(ASSETS / "chelsea.jpg", tmp_path_factory.mktemp("law") / "other", options).root


def lose(root: Path, first: int, last: int) -> None:
    """No spike arrives in ticks [first, last)."""
    stream = open_recording(root).spikes
    assert isinstance(stream, PackedStream)
    row_bytes = stream.geometry.height * stream.geometry.row_bits // 8
    packed = np.fromfile(stream.path, np.uint8).reshape(-1, row_bytes)
    packed[first:last] = 0
    packed.tofile(stream.path)
    sidecar = root / "recording.json"
    values = json.loads(sidecar.read_text())
    values["spikes"]["sha256"] = sha256_file(stream.path)
    sidecar.write_text(json.dumps(values))


def ninety_ticks_of_frame_2(root: Path, other: Path) -> None:
    lose(root, 2 * PERIOD + 20, 2 * PERIOD + 110)


def exposure(index: int) -> Callable[[Path, Path], None]:
    def lose_it(root: Path, other: Path) -> None:
        start = open_recording(root).exposures[index].start_tick
        lose(root, start, start + TICKS)

    return lose_it


def a_cut(root: Path, other: Path) -> None:
    """From frame 3 on the frames and the spikes are those of another scene."""
    for index in range(3, NUM):
        for folder in ("blur", "sharp"):
            shutil.copy(other / folder / f"{index:06d}.png", root / folder / f"{index:06d}.png")
    one, two = (np.fromfile(path / "spikes.dat", np.uint8) for path in (root, other))
    start = open_recording(root).exposures[3].start_tick * 48 * 32 // 8
    one[start:] = two[start:]
    one.tofile(root / "spikes.dat")


def outside(root: Path, other: Path) -> None:
    """The clock is so late that the first exposure begins before the stream."""
    write_alignment(root, Alignment(offset_ticks=-open_recording(root).exposures[0].start_tick - 10.0))


CASES: dict[str, Callable[[Path, Path], None]] = {
    "sound": lambda root, other: None,
    "lost ticks": ninety_ticks_of_frame_2,
    "the first exposure lost": exposure(0),
    "one in the middle lost": exposure(2),
    "the last exposure lost": exposure(NUM - 1),
    "a scene cut": a_cut,
    "a frame outside the stream": outside,
}


@pytest.fixture
def make(sound: Path, other_scene: Path, tmp_path: Path) -> Callable[[str], Path]:
    """make(case): a recording that is as the case says."""

    def make(case: str) -> Path:
        root = tmp_path / "recordings" / "street"
        shutil.copytree(sound, root)
        CASES[case](root, other_scene)
        return root

    return make


def delivered(root: Path, out: Path, *more: str) -> list[np.ndarray]:
    """What the command writes."""
    assert cli.main(["restore", str(root), "--out", str(out), *ARGUMENTS, *more]) == 0
    return [read_image(path) for path in list_images(out)]


def streamed(recording: Recording, weights: str = shipped.DEFAULT, **how: Any) -> list[np.ndarray]:
    return list(spikevrt.load(weights, options=OPTIONS).stream(recording, **how))


def evaluated(recording: Recording, gate: Any, weights: str = shipped.DEFAULT) -> list[np.ndarray]:
    running = network_method("network", shipped.find(weights), OPTIONS, gate).ready()
    return [to_uint8(frame) for frame in running.restore(recording)]


def same(one: list[np.ndarray], two: list[np.ndarray]) -> bool:
    return len(one) == len(two) and all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


class Recorded(Restorer):
    """Keeps the frames that it gives, by their number in the recording."""

    kept: dict[int, np.ndarray]

    def frames(self, recording: Recording, **how: Any) -> Iterator[torch.Tensor]:
        self.kept = {}
        for exposure, frame in zip(recording.exposures, super().frames(recording, **how), strict=True):
            self.kept[exposure.frame_idx] = to_uint8(frame)
            yield frame


def validated(root: Path, train: Path, out: Path, weights: str) -> dict[int, np.ndarray]:
    """What validation in training restores of the prepared recording; frames without any spike are not prepared."""
    sources = Sources([open_recording(train)], [open_recording(root)])
    dataset = open_dataset(prepare(sources, out, PrepareOptions(num_bins=16)))
    restorer = Recorded(weights, dataclasses.replace(OPTIONS, ignore_health=()))
    validate(restorer, dataset.val, Ranks())
    return restorer.kept


GAPS = {
    "lost ticks": [2],
    "the first exposure lost": [0],
    "one in the middle lost": [2],
    "the last exposure lost": [NUM - 1],
    "a frame outside the stream": [0],
}


@pytest.fixture
def relating(micro_weights: Path) -> str:
    """Weights of a network in which a frame depends on the others of its clip, and on where its clip begins."""
    state, info = load_weights(micro_weights)
    generator = torch.Generator().manual_seed(3)
    noisy = {name: v + 0.05 * torch.randn(v.shape, generator=generator) for name, v in state.items()}
    save_weights(micro_weights, {name: noisy[name] if v.is_floating_point() else v for name, v in state.items()}, info)
    return str(micro_weights)


ALONE, RELATED = "a network that sees one frame", "one that relates frames"


@pytest.mark.parametrize(
    ("case", "network"),
    [
        *((case, ALONE) for case in CASES),
        *(pytest.param(case, RELATED, marks=[] if case == "a scene cut" else pytest.mark.slow) for case in CASES),
    ],
)
def test_what_is_delivered_is_what_is_streamed_evaluated_and_validated(
    make: Callable[[str], Path], sound: Path, tmp_path: Path, relating: str, case: str, network: str
):
    weights = relating if network == RELATED else shipped.DEFAULT
    root = make(case)
    files = delivered(root, tmp_path / "out", "--weights", weights)
    recording = spikevrt.open_recording(root)
    assert len(files) == NUM
    assert same(streamed(recording, weights), files)
    assert same(evaluated(recording, admit, weights), files)
    assert same(evaluated(recording, lenient_gate, weights), files)
    for frame_idx, frame in validated(root, sound, tmp_path / "set", weights).items():
        assert np.array_equal(frame, files[frame_idx]), frame_idx
    told = json.loads((tmp_path / "out" / "restored.json").read_text())
    assert told["cuts"] == ([3] if case == "a scene cut" else [])
    assert told["without_spikes"] == GAPS.get(case, [])


def test_a_frame_that_lost_most_of_its_ticks_scores_as_it_is_delivered(make: Callable[[str], Path], tmp_path: Path):
    """24.6 dB were delivered and 7.5 dB printed."""
    root = make("lost ticks")
    files = delivered(root, tmp_path / "out")
    arguments = [
        "evaluate",
        str(root),
        "--weights",
        shipped.DEFAULT,
        "--keep-frames",
        "--out",
        str(tmp_path / "scores"),
    ]
    assert cli.main([*arguments, *ARGUMENTS]) == 0
    results = json.loads((tmp_path / "scores" / "results.json").read_text())
    (method,) = [one for one in results["methods"] if one["name"] == shipped.DEFAULT]
    sharp = [to_float(open_recording(root).read_sharp(index)) for index in range(NUM)]
    for index, scored in enumerate(method["sequences"][0]["frames"]):
        kept = read_image(frame_path(tmp_path / "scores", shipped.DEFAULT, "street", index))
        assert np.array_equal(kept, files[index])
        rounded = float(psnr_rgb(to_float(files[index])[None], sharp[index][None]))
        assert scored["psnr_rgb"] == pytest.approx(rounded, abs=0.05)  # scored before the rounding to 8 bits
        assert scored["psnr_rgb"] > 20


@pytest.mark.parametrize("case", ["sound", "lost ticks", "a scene cut"])
def test_slow_motion_is_the_same_by_every_way(make: Callable[[str], Path], tmp_path: Path, case: str):
    root = make(case)
    files = delivered(root, tmp_path / "out", "--fps-factor", "3")
    recording = open_recording(root, keep_outside=True)
    assert same(streamed(recording, fps_factor=3), files)
    assert same(streamed(recording, fps_factor=3, first=4), files[4:])
    assert len(files) == {"sound": 13, "lost ticks": 9, "a scene cut": 11}[case]


def test_a_video_is_the_same_by_every_way(sound: Path, tmp_path: Path):
    recording, format = open_recording(sound), VideoFormat("ffv1")
    blurry = ((index, recording.read_blur(index)) for index in range(NUM))
    segment, video = tmp_path / "segment.mp4", tmp_path / "blurry.mkv"
    write_segment(segment, blurry, time_base=Fraction(1, 125), fps=125.0, format=format, tags=VideoTags())
    join_segments([segment], video, fps=125.0, format=format, tags=VideoTags())
    shutil.copy(sound / "spikes.dat", tmp_path)
    first = recording.exposures[0].start_tick
    stated = ["--spikes", str(tmp_path / "spikes.dat"), "--spike-width", "48", "--spike-height", "32"]
    stated += ["--first-tick", str(first), "--exposure-ticks", str(TICKS), "--period-ticks", str(PERIOD)]
    files = delivered(video, tmp_path / "out", *stated)
    about = {"width": 48, "height": 32, "first_tick": first, "exposure_ticks": TICKS, "period_ticks": PERIOD}
    loose = spikevrt.open_recording(video, tmp_path / "spikes.dat", **about)
    assert same(streamed(loose), files) and same(evaluated(loose, admit), files)
    assert same(streamed(recording), files)  # the pictures hold what the video holds


class CountingStream:
    """The recording's stream, which counts how often each tick is read."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.height, self.width = stream, stream.height, stream.width
        self.num_ticks, self.files = stream.num_ticks, stream.files
        self.times = np.zeros(stream.num_ticks, int)

    def read(self, first: int, last: int) -> np.ndarray:
        self.times[first:last] += 1
        return self.stream.read(first, last)

    def count(self, edges: list[int]) -> np.ndarray:
        self.times[edges[0] : edges[-1]] += 1
        return self.stream.count(edges)


@pytest.mark.parametrize("weights", [shipped.DEFAULT, shipped.REFERENCE])
def test_every_frame_is_decoded_once_and_every_exposure_is_read_once(
    make: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, weights: str
):
    """Behind the gate, and but for the few exposures by which weights that read counts judge the density."""
    recording = open_recording(make("sound"))
    stream, decoded = CountingStream(recording.spikes), Counter[int]()
    read = Recording.read_blur_deep

    def read_blur_deep(self: Recording, index: int) -> torch.Tensor:
        decoded[index] += 1
        return read(self, index)

    monkeypatch.setattr(Recording, "read_blur_deep", read_blur_deep)
    monkeypatch.setattr(Recording, "read_blur", None)
    counted: Any = dataclasses.replace(recording, spikes=stream)  # type: ignore[arg-type]
    plan = Restorer(weights, RestoreOptions(device="cpu", clip_frames=3, overlap_frames=1)).plan(counted)
    stream.times[:] = 0
    assert len(list(plan.run())) == NUM
    assert decoded == dict.fromkeys(range(NUM), 1)
    once = np.zeros(recording.num_ticks, int)
    for exposure in recording.exposures:
        once[exposure.start_tick : exposure.stop_tick] = 1
    assert np.array_equal(stream.times, once)
