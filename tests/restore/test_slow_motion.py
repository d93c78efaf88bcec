"""More sharp frames than blurry ones: their times, the frames that they are made of, what is refused."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from spikevrt.config import ModelConfig, SpikeConfig, UnetConfig
from spikevrt.recording.recording import Recording
from spikevrt.represent.voxel import VoxelStats
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.segments import ReadSpec, Seen, read_clips
from spikevrt.restore.slow_motion import between_exposures, check_slow_motion
from tests.restore.conftest import NUM_BINS, info, mark_cuts

PROFILE = SpikeConfig(num_bins=NUM_BINS, representation="profile")


def moments(recording: Recording, factor: int) -> list[tuple[int, int]]:
    """(frame_idx, middle of the window) of every sharp frame that comes out, as it is read."""
    seen: list[tuple[int, int]] = []

    def read(first: int, last: int) -> np.ndarray:
        seen.append((first, last))
        return np.ones((last - first, 11, 17), np.uint8)

    assert recording.spikes is not None
    stream = SimpleNamespace(read=read, height=11, width=17, num_ticks=recording.num_ticks, files=())
    found = Seen()
    spec = ReadSpec(RestoreOptions(), PROFILE, VoxelStats(0.5, 1.0), factor)
    list(read_clips(dataclasses.replace(recording, spikes=stream), spec, found))
    return found.places


def test_every_nth_frame_is_the_one_without_and_those_between_are_evenly_spread(make_recording):
    recording = make_recording(3, ticks=12)
    one, two = recording.exposures[:2]
    between = [(nearer, sum(moved.window) // 2) for nearer, moved in between_exposures(one, two, 4)]
    assert between == [(0, 9), (0, 12), (1, 15)]
    assert moments(recording, 4) == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0)]


def test_a_factor_of_one_puts_nothing_between(make_recording):
    assert moments(make_recording(2), 1) == [(0, 0), (1, 0)]


def test_nothing_is_put_where_a_frame_was_dropped(make_recording):
    recording = make_recording(3, ticks=12)
    later = dataclasses.replace(recording.exposures[2], frame_idx=3)
    gap = dataclasses.replace(recording, exposures=(*recording.exposures[:2], later))
    assert moments(gap, 2) == [(0, 0), (0, 1), (1, 0), (2, 0)]


def test_nothing_is_put_between_two_scenes_nor_beside_lost_spikes(make_recording, monkeypatch):
    mark_cuts(monkeypatch, [1])
    assert moments(make_recording(3, ticks=12), 2) == [(0, 0), (1, 0), (1, 1), (2, 0)]
    spec, found = ReadSpec(RestoreOptions(), PROFILE, VoxelStats(0.5, 1.0), 2), Seen()
    mark_cuts(monkeypatch, [])
    list(read_clips(make_recording(4, ticks=12, dead=(1,)), spec, found))
    assert found.places == [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0)]


@pytest.mark.parametrize("factor", [3, 6])
@pytest.mark.parametrize("clip_frames", [3, 5])
def test_whichever_frame_is_begun_with_the_clips_are_those_of_a_whole_run(
    make_recording, factor: int, clip_frames: int
):
    """Beginning at frame 32 with factor 8 had left out a blurry frame that its first clip needs."""
    recording, options = make_recording(3, ticks=24), RestoreOptions(clip_frames=clip_frames)

    def spans(first: int) -> list[tuple[int, int]]:
        spec = ReadSpec(options, PROFILE, VoxelStats(0.5, 1.0), factor, first)
        return [(clip.start, clip.stop) for clip in read_clips(recording, spec, Seen())]

    every = spans(0)
    for first in range(2 * factor + 1):
        assert spans(first) == [span for span in every if span[1] > first]


@pytest.mark.parametrize(
    ("factor", "message"),
    [(0, "fps_factor: 0; allowed: 1 to 64"), (65, "fps_factor: 65"), (7, "frame 0 has 6 ticks; allowed: at most")],
)
def test_factors_that_cannot_be_are_refused(make_recording, factor: int, message: str):
    with pytest.raises(ValueError, match=message):
        check_slow_motion(info(ModelConfig()), make_recording(2, ticks=6), factor, without_spikes=False)


def test_without_spikes_nothing_can_be_put_between(make_recording):
    with pytest.raises(ValueError, match="has no spikes, which tell what moved when"):
        frames_only = dataclasses.replace(make_recording(2), spikes=None)
        check_slow_motion(info(ModelConfig()), frames_only, 2, without_spikes=False)


def test_only_networks_that_read_profiles_of_one_frame_may_see_times_off_the_middle(make_recording):
    recording = make_recording(2)
    allowed = info(ModelConfig(spikes=PROFILE, unet=UnetConfig(neighbours=0)))
    assert "never saw a time off" in check_slow_motion(allowed, recording, 2, without_spikes=False)
    trained = dataclasses.replace(allowed, provenance={"max_shift_ticks": 80})
    assert check_slow_motion(trained, recording, 2, without_spikes=False) is None
    for config in (
        ModelConfig(spikes=PROFILE, unet=UnetConfig(neighbours=1)),
        ModelConfig(spikes=PROFILE),
        ModelConfig(spikes=SpikeConfig(num_bins=NUM_BINS), unet=UnetConfig(neighbours=0)),
        ModelConfig(spikes=None, unet=UnetConfig(neighbours=0)),
    ):
        with pytest.raises(ValueError, match="sharp frames off the middle .* as spikefold_tiny"):
            check_slow_motion(info(config), recording, 2, without_spikes=False)
    with pytest.raises(ValueError, match="sharp frames off the middle"):
        check_slow_motion(trained, recording, 2, without_spikes=True)
    assert check_slow_motion(info(ModelConfig()), make_recording(3), 1, without_spikes=False) is None
