"""Lost stretches and frames outside the stream go without spikes; dropped ticks and dark scenes do not.

Clips: every frame at full weight, none across a cut, the same whatever frame is begun with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from spikevrt.recording.alignment import Alignment
from spikevrt.recording.recording import Exposure, Recording, open_recording, with_alignment
from spikevrt.recording.spike_file import SpikeGeometry, SpikeWriter
from spikevrt.recording.stream import PackedStream, live_ticks
from spikevrt.represent.voxel import VoxelStats
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.segments import Clip, ReadSpec, Seen, is_usable, lost_ticks, read_clips
from spikevrt.simulate.setup import SimulateOptions, sensor_preset
from spikevrt.simulate.synthesise import simulate_recording
from tests.restore.conftest import SPIKES, mark_cuts

PHOTO = Path(__file__).resolve().parents[2] / "src" / "spikevrt" / "assets" / "chelsea.jpg"
TICKS, PERIOD, NUM = 128, 160, 4
HEIGHT, WIDTH = 10, 16


def spike_gaps(recording: Recording) -> list[bool]:
    def is_gap(exposure: Exposure) -> bool:
        if recording.spikes is None or not exposure.is_inside(recording.num_ticks):
            return True
        return not is_usable(recording, exposure, live_ticks(recording.spikes, exposure.start_tick, exposure.stop_tick))

    return [is_gap(exposure) for exposure in recording.exposures]


@pytest.fixture
def make(tmp_path: Path) -> Callable[[np.ndarray], Recording]:
    """make(live) is a recording of NUM exposures in whose stream one pixel fires at each tick that is live."""

    def make(live: np.ndarray) -> Recording:
        spikes = np.zeros((len(live), HEIGHT, WIDTH), np.uint8)
        spikes[np.arange(len(live)), np.arange(len(live)) % HEIGHT, 3] = live
        geometry = SpikeGeometry(WIDTH, HEIGHT)
        with SpikeWriter(tmp_path / "spikes.dat", geometry) as writer:
            writer.append(spikes)
        exposures = tuple(Exposure(i, i * PERIOD, i * PERIOD + TICKS, float(i), i + 0.8) for i in range(NUM))
        blur = tuple(Path(f"{i}.png") for i in range(NUM))
        stream = PackedStream(tmp_path / "spikes.dat", geometry)
        return Recording(tmp_path, 32, 20, 2e4, exposures, stream, blur, (), 125.0)

    return make


def bright() -> np.ndarray:
    return np.ones(NUM * PERIOD, bool)


def dark(spikes_per_tick: float, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).random(NUM * PERIOD) < 1 - np.exp(-spikes_per_tick)


def test_a_full_stream_has_no_gap(make: Callable[[np.ndarray], Recording]):
    assert spike_gaps(make(bright())) == [False] * NUM


def test_a_lost_stretch_makes_a_gap_of_its_exposure_alone(make: Callable[[np.ndarray], Recording]):
    live = bright()
    live[PERIOD + 30 : PERIOD + 90] = False
    assert spike_gaps(make(live)) == [False, True, False, False]


@pytest.mark.parametrize("length, gap", [(6, False), (7, True)])  # of 128 ticks 5 % are 6.4
def test_up_to_a_twentieth_of_the_exposure_may_be_lost(make: Callable[[np.ndarray], Recording], length: int, gap: bool):
    live = bright()
    live[40 : 40 + length] = False
    assert spike_gaps(make(live)) == [gap, False, False, False]


def test_a_stretch_between_two_exposures_is_no_gap(make: Callable[[np.ndarray], Recording]):
    live = bright()
    live[TICKS - 3 : PERIOD + 2] = False  # 37 ticks, 3 and 2 of them in exposures
    assert spike_gaps(make(live)) == [False] * NUM


@pytest.mark.parametrize("share", [0.02, 0.1, 0.25])
def test_ticks_dropped_one_by_one_are_no_gap(make: Callable[[np.ndarray], Recording], share: float):
    live = bright()
    live[np.random.default_rng(2).random(len(live)) < share] = False
    assert spike_gaps(make(live)) == [False] * NUM


@pytest.mark.parametrize("spikes_per_tick", [0.2, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_dark_scene_that_still_fires_is_no_gap(
    make: Callable[[np.ndarray], Recording], spikes_per_tick: float, seed: int
):
    assert spike_gaps(make(dark(spikes_per_tick, seed))) == [False] * NUM


@pytest.mark.parametrize("spikes_per_tick", [0.7, 1.0, 3.0])
def test_in_a_dark_scene_a_lost_stretch_is_told_from_the_dark(
    make: Callable[[np.ndarray], Recording], spikes_per_tick: float
):
    live = dark(spikes_per_tick)
    live[2 * PERIOD + 40 : 2 * PERIOD + 100] = False
    assert spike_gaps(make(live)) == [False, False, True, False]


def test_an_exposure_without_any_spike_is_a_gap_and_so_is_a_dead_stream(make: Callable[[np.ndarray], Recording]):
    live = dark(0.2)
    live[PERIOD : PERIOD + TICKS] = False
    assert spike_gaps(make(live)) == [False, True, False, False]
    assert spike_gaps(make(np.zeros(NUM * PERIOD, bool))) == [True] * NUM


def test_several_lost_stretches_do_not_make_each_other_usual():
    live = np.ones(256, bool)
    for start in (20, 90, 170):
        live[start : start + 50] = False
    assert lost_ticks(live).sum() == 150


def test_a_simulated_sensor_in_low_light_has_no_gap(tmp_path: Path):
    options = SimulateOptions(
        frames=3, width=96, height=64, exposure_ticks=64, period_ticks=64, num_layers=0,
        sensor=dataclasses.replace(sensor_preset("lowlight"), light_gain=0.002, dark_current=0.0, hot_fraction=0.0),
    )  # fmt: skip
    recording = simulate_recording(PHOTO, tmp_path / "cat", options)
    assert recording.spikes is not None
    spikes = recording.spikes.read(0, recording.num_ticks)
    num_empty = int((spikes.reshape(len(spikes), -1).sum(axis=1) == 0).sum())
    assert 0.2 * recording.num_ticks < num_empty  # dark indeed
    assert spike_gaps(recording) == [False] * 3


def test_frames_whose_ticks_lie_outside_the_stream_are_gaps(recording_folder: Path):
    moved = with_alignment(open_recording(recording_folder), Alignment(offset_ticks=-3.0), keep_outside=True)
    assert spike_gaps(moved) == [True, False, False]


def test_a_recording_without_spikes_is_all_gaps(make: Callable[[np.ndarray], Recording]):
    assert spike_gaps(dataclasses.replace(make(bright()), spikes=None)) == [True] * NUM


# --- clips ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def spans(make_recording, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[int, int, bool]]]:
    """spans(num_frames, cuts, without_spikes, first, ...): (start, stop, has_spikes) of the clips that are read."""

    def spans(num_frames: int, **changes) -> list[tuple[int, int, bool]]:
        return [(clip.start, clip.stop, clip.has_spikes) for clip in clips_of(num_frames, **changes)]

    def clips_of(
        num_frames: int, *, cuts=(), without_spikes=(), first: int = 0, clip_frames: int = 5, overlap_frames: int = 1
    ) -> list[Clip]:
        key = (num_frames, tuple(without_spikes))
        if key not in made:
            made[key] = make_recording(num_frames, dead=without_spikes)
        mark_cuts(monkeypatch, cuts)
        options = RestoreOptions(clip_frames=clip_frames, overlap_frames=overlap_frames)
        return list(read_clips(made[key], ReadSpec(options, SPIKES.spikes, VoxelStats(0.5, 1.0), 1, first), Seen()))

    made: dict[tuple, Recording] = {}
    spans.clips = clips_of
    return spans


def test_without_cuts_clips_are_spread_as_tiles_are(spans):
    assert spans(13) == [(0, 5, True), (4, 9, True), (8, 13, True)]
    assert spans(13, clip_frames=0) == [(0, 13, True)]
    assert spans(10) == [(0, 5, True), (2, 7, True), (5, 10, True)]


def test_no_clip_reaches_across_a_cut_and_short_scenes_are_short_clips(spans):
    assert spans(12, cuts=[7, 8]) == [(0, 5, True), (2, 7, True), (7, 8, True), (8, 12, True)]
    assert spans(12, cuts=[7, 8], clip_frames=0) == [(0, 7, True), (7, 8, True), (8, 12, True)]


def test_frames_without_spikes_are_clips_of_their_own(spans):
    assert spans(9, without_spikes=(0, 4, 5)) == [(0, 1, False), (1, 4, True), (4, 6, False), (6, 9, True)]


@pytest.mark.parametrize("overlap", [0, 1, 3])
def test_every_frame_has_full_weight_and_is_settled_once_and_in_order(spans, overlap: int):
    total, settled = torch.zeros(23), 0
    for clip in spans.clips(23, overlap_frames=overlap, cuts=[6, 17], without_spikes=(9,)):
        total[clip.start : clip.stop] += clip.weights
        assert clip.start == settled < clip.settled <= clip.stop
        settled = clip.settled
    assert settled == 23
    torch.testing.assert_close(total, torch.ones(23))


def test_beginning_later_leaves_out_exactly_the_clips_that_are_not_needed(spans):
    changes = {"cuts": [6, 17], "without_spikes": (9,), "overlap_frames": 2}
    every = spans(23, **changes)
    for first in range(23):
        assert spans(23, first=first, **changes) == [span for span in every if span[1] > first]
