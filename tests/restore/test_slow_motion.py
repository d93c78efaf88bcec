"""More sharp frames than blurry ones: their times, the frames that they are made of, what is refused."""

from __future__ import annotations

import dataclasses

import pytest

from spikevrt.config import ModelConfig, SpikeConfig, UnetConfig
from spikevrt.restore.slow_motion import check_slow_motion, slow_motion
from tests.restore.conftest import NUM_BINS, info

PROFILE = SpikeConfig(num_bins=NUM_BINS, representation="profile")


def test_every_nth_frame_is_the_one_without_and_those_between_are_evenly_spread(make_recording):
    recording = make_recording(3, ticks=12)
    slow = slow_motion(recording, 4)
    middles = [(first + last) // 2 for first, last in (exposure.window for exposure in slow.exposures)]
    assert middles == [6, 9, 12, 15, 18, 21, 24, 27, 30]
    assert [exposure.frame_idx for exposure in slow.exposures] == [0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert slow.exposures[::4] == recording.exposures
    assert (slow.num_frames, slow.fps) == (9, 100.0)
    assert [int(slow.read_blur(index)[0, 0, 0]) for index in range(9)] == [0, 0, 0, 1, 1, 1, 1, 2, 2]


def test_a_factor_of_one_changes_nothing(make_recording):
    recording = make_recording(2)
    assert slow_motion(recording, 1) is recording


def test_nothing_is_put_where_a_frame_was_dropped(make_recording):
    recording = make_recording(3, ticks=12)
    later = dataclasses.replace(recording.exposures[2], frame_idx=3)
    gap = dataclasses.replace(recording, exposures=(*recording.exposures[:2], later))
    assert [exposure.frame_idx for exposure in slow_motion(gap, 2).exposures] == [0, 0, 1, 3]


@pytest.mark.parametrize(
    ("factor", "message"),
    [(0, "fps_factor: 0; allowed: 1 to 64"), (65, "fps_factor: 65"), (7, "frame 0 has 6 ticks; allowed: at most")],
)
def test_factors_that_cannot_be_are_refused(make_recording, factor: int, message: str):
    with pytest.raises(ValueError, match=message):
        slow_motion(make_recording(2, ticks=6), factor)


def test_without_spikes_nothing_can_be_put_between(make_recording):
    with pytest.raises(ValueError, match="has no spikes, which tell what moved when"):
        slow_motion(dataclasses.replace(make_recording(2), spikes=None), 2)


def test_only_networks_that_read_profiles_of_one_frame_may_see_times_off_the_middle(make_recording):
    slow = slow_motion(make_recording(2), 2)
    allowed = info(ModelConfig(spikes=PROFILE, unet=UnetConfig(neighbours=0)))
    assert "never saw a time off" in check_slow_motion(allowed, slow, without_spikes=False)
    trained = dataclasses.replace(allowed, provenance={"max_shift_ticks": 80})
    assert check_slow_motion(trained, slow, without_spikes=False) is None
    for config in (
        ModelConfig(spikes=PROFILE, unet=UnetConfig(neighbours=1)),
        ModelConfig(spikes=PROFILE),
        ModelConfig(spikes=SpikeConfig(num_bins=NUM_BINS), unet=UnetConfig(neighbours=0)),
        ModelConfig(spikes=None, unet=UnetConfig(neighbours=0)),
    ):
        with pytest.raises(ValueError, match="sharp frames off the middle .* as spikefold_tiny"):
            check_slow_motion(info(config), slow, without_spikes=False)
    with pytest.raises(ValueError, match="sharp frames off the middle"):
        check_slow_motion(trained, slow, without_spikes=True)
    assert check_slow_motion(info(ModelConfig()), make_recording(3), without_spikes=False) is None
