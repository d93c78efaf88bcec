"""Frames and a spike file that are no recording yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikevrt.recording.frames import write_image
from spikevrt.recording.loose import loose_recording
from spikevrt.recording.spike_file import SpikeGeometry
from spikevrt.recording.stream import PackedStream
from spikevrt.recording.video import write_video

from .conftest import SPIKES


def packed(root: Path, *, bottom_up: bool = True) -> PackedStream:
    return PackedStream(root / "spikes.dat", SpikeGeometry(7, 5, bottom_up))


def test_by_default_the_stream_is_split_equally(root: Path) -> None:
    recording = loose_recording(root / "blur", packed(root), first_tick=1)
    assert [(e.start_tick, e.stop_tick) for e in recording.exposures] == [(1, 13), (13, 25), (25, 37)]
    assert recording.fps == pytest.approx(20000 / 12)
    assert recording.exposures[1].t0_s == 13 / 20000
    np.testing.assert_array_equal(recording.read_exposure_spikes(2), SPIKES[25:])


def test_stated_exposures_are_obeyed(root: Path) -> None:
    recording = loose_recording(root / "blur", packed(root), exposure_ticks=11, period_ticks=13)
    assert [(e.start_tick, e.stop_tick) for e in recording.exposures] == [(0, 11), (13, 24), (26, 37)]


def test_one_frame_has_the_rate_of_its_period_wherever_it_begins(root: Path) -> None:
    for number in (1, 2):
        (root / "blur" / f"{number:06d}.png").unlink()
    recording = loose_recording(root / "blur", packed(root), first_tick=13, exposure_ticks=8, period_ticks=20)
    assert [(e.start_tick, e.stop_tick) for e in recording.exposures] == [(13, 21)]
    assert recording.fps == 20000 / 20


def test_rows_stored_top_down_are_obeyed(root: Path) -> None:
    recording = loose_recording(root / "blur", packed(root, bottom_up=False), first_tick=1)
    packed_flipped = recording.read_exposure_spikes(0)
    assert packed_flipped.shape == (12, 5, 7)
    np.testing.assert_array_equal(packed_flipped, SPIKES[1:13, ::-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "37 ticks do not split equally over 3 frames; pass period_ticks"),
        ({"first_tick": 37}, "first_tick: 37; allowed: 0 to 36"),
        ({"period_ticks": -5}, "period_ticks: -5; allowed: 1 or more"),
        ({"period_ticks": 13}, "37 ticks, but 3 exposures need 39"),
        ({"period_ticks": 10, "exposure_ticks": 11}, "exposure_ticks: 11; allowed: 1 to period_ticks = 10"),
        ({"tick_rate_hz": 0.0}, "tick_rate_hz: 0.0; allowed: above 0"),
        ({"tick_rate_hz": float("nan")}, "tick_rate_hz: nan; allowed: above 0"),
    ],
)
def test_exposures_that_do_not_fit_are_refused(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loose_recording(root / "blur", packed(root), **options)


def test_a_video_keeps_its_own_rate_and_frames_are_read_in_any_order(root: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", [np.full((16, 16, 3), 50 * i, dtype=np.uint8) for i in range(4)], fps=50)
    recording = loose_recording(tmp_path / "clip.mp4", packed(root), first_tick=1)
    assert (recording.name, recording.num_frames, recording.fps) == ("clip", 4, 50.0)
    assert [round(recording.read_blur(index).mean() / 50) for index in (2, 0, 3)] == [2, 0, 3]


def test_frames_alone_make_a_recording_without_spikes(root: Path) -> None:
    recording = loose_recording(root / "blur", None)
    assert (recording.num_frames, recording.num_ticks, recording.spikes) == (3, 0, None)
    with pytest.raises(ValueError, match="no spikes in this recording"):
        recording.read_exposure_spikes(0)


def test_loose_frames_of_different_sizes_are_refused(root: Path) -> None:
    write_image(root / "blur" / "000001.png", np.zeros((10, 15, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="000001.png: 15x10 pixels; the recording has 14x10"):
        loose_recording(root / "blur", None)


def test_frames_before_and_behind_the_stream_are_kept_on_demand(root: Path) -> None:
    recording = loose_recording(
        root / "blur", packed(root), first_tick=-6, period_ticks=20, exposure_ticks=19, keep_outside=True
    )
    assert [(e.start_tick, e.stop_tick) for e in recording.exposures] == [(-6, 13), (14, 33), (34, 53)]
    np.testing.assert_array_equal(recording.read_exposure_spikes(1), SPIKES[14:33])
    for index in (0, 2):
        with pytest.raises(ValueError, match=r"ticks \[.*\) asked for; allowed: inside \[0, 37\)"):
            recording.read_exposure_spikes(index)
    with pytest.raises(ValueError, match=r"no exposure of 19 ticks from 30 on lies in its 37$"):
        loose_recording(root / "blur", packed(root), first_tick=30, period_ticks=19, keep_outside=True)
