"""Frames and a spike file that are no recording yet."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikevrt.mux.encode import VideoTags, write_segment
from spikevrt.mux.join import write_video
from spikevrt.recording.frames import write_image
from spikevrt.recording.loose import loose_recording
from spikevrt.recording.sidecar import Stated
from spikevrt.recording.spike_file import SpikeGeometry
from spikevrt.recording.stream import PackedStream
from spikevrt.recording.video import VideoFormat
from tests.recording.conftest import SPIKES


def packed(root: Path, *, bottom_up: bool = True) -> PackedStream:
    return PackedStream(root / "spikes.dat", SpikeGeometry(7, 5, bottom_up))


def test_by_default_the_stream_is_split_equally(root: Path) -> None:
    recording = loose_recording(root / "blur", packed(root), Stated(first_tick=1))
    assert [(e.start_tick, e.stop_tick) for e in recording.exposures] == [(1, 13), (13, 25), (25, 37)]
    assert recording.fps == pytest.approx(20000 / 12)
    assert recording.exposures[1].t0_s == 13 / 20000
    np.testing.assert_array_equal(recording.read_exposure_spikes(2), SPIKES[25:])


def test_stated_exposures_are_obeyed(root: Path) -> None:
    recording = loose_recording(root / "blur", packed(root), Stated(exposure_ticks=11, period_ticks=13))
    assert [(e.start_tick, e.stop_tick) for e in recording.exposures] == [(0, 11), (13, 24), (26, 37)]


def test_one_frame_has_the_rate_of_its_period_wherever_it_begins(root: Path) -> None:
    for number in (1, 2):
        (root / "blur" / f"{number:06d}.png").unlink()
    recording = loose_recording(root / "blur", packed(root), Stated(first_tick=13, exposure_ticks=8, period_ticks=20))
    assert [(e.start_tick, e.stop_tick) for e in recording.exposures] == [(13, 21)]
    assert recording.fps == 20000 / 20


def test_rows_stored_top_down_are_obeyed(root: Path) -> None:
    recording = loose_recording(root / "blur", packed(root, bottom_up=False), Stated(first_tick=1))
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
        loose_recording(root / "blur", packed(root), Stated(**options))


def test_a_video_keeps_its_own_rate_and_frames_are_read_in_any_order(root: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", [np.full((16, 16, 3), 50 * i, dtype=np.uint8) for i in range(4)], fps=50)
    recording = loose_recording(tmp_path / "clip.mp4", packed(root), Stated(first_tick=1))
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


def clip(path: Path, pts: Sequence[int], time_base: Fraction = Fraction(1, 1000)) -> Path:
    frames = ((stamp, np.full((10, 14, 3), 20 * i, dtype=np.uint8)) for i, stamp in enumerate(pts))
    write_segment(path, frames, time_base=time_base, fps=25, format=VideoFormat(), tags=VideoTags())
    return path


UNEVEN = (50, 60, 75, 79)  # of 1/1000 s


def test_a_video_of_uneven_rate_meets_the_spikes_by_its_clock(root: Path, tmp_path: Path) -> None:
    video = clip(tmp_path / "a.mp4", UNEVEN)
    recording = loose_recording(video, packed(root), Stated(tick_rate_hz=1000.0, first_tick=2))
    # 0, 10, 25 and 29 ms after the first frame; open for as long as the closest two are apart
    assert [(e.start_tick, e.stop_tick) for e in recording.exposures] == [(2, 6), (12, 16), (27, 31), (31, 35)]
    assert [(e.frame_idx, e.t0_s) for e in recording.exposures] == [(0, 0.002), (1, 0.012), (2, 0.027), (3, 0.031)]
    np.testing.assert_array_equal(recording.read_exposure_spikes(2), SPIKES[27:31])
    assert recording.fps == pytest.approx(3 / 0.029)


def test_ticks_are_the_nearest_to_the_timestamps_and_do_not_drift(root: Path, tmp_path: Path) -> None:
    pts = [1001 * i + (100 if i == 9 else 0) for i in range(10)]  # of 1/30000 s
    video = clip(tmp_path / "a.mp4", pts, Fraction(1, 30000))
    recording = loose_recording(video, packed(root), Stated(tick_rate_hz=100.0))
    assert [e.start_tick for e in recording.exposures] == [round(stamp * 100 / 30000) for stamp in pts]
    assert {e.num_ticks for e in recording.exposures} == {3}


def test_an_even_video_meets_the_spikes_by_its_clock_when_asked(root: Path, tmp_path: Path) -> None:
    video = clip(tmp_path / "a.mp4", (0, 10, 20))
    recording = loose_recording(video, packed(root), Stated(tick_rate_hz=1000.0, by_timestamps=True, exposure_ticks=7))
    assert [(e.start_tick, e.stop_tick) for e in recording.exposures] == [(0, 7), (10, 17), (20, 27)]


def test_a_stated_period_is_obeyed_for_uneven_video_too(root: Path, tmp_path: Path) -> None:
    recording = loose_recording(clip(tmp_path / "a.mp4", UNEVEN), packed(root), Stated(period_ticks=9))
    assert [e.start_tick for e in recording.exposures] == [0, 9, 18, 27]


def test_uneven_video_without_spikes_has_its_own_times(tmp_path: Path) -> None:
    exposures = loose_recording(clip(tmp_path / "a.mp4", UNEVEN), None).exposures
    np.testing.assert_allclose([e.t0_s for e in exposures], [0.0, 0.010, 0.025, 0.029], atol=1e-12)
    np.testing.assert_allclose([e.t1_s for e in exposures], [0.010, 0.025, 0.029, 0.033], atol=1e-12)
    even = loose_recording(clip(tmp_path / "b.mp4", (0, 40, 80)), None).exposures
    assert [(e.t0_s, e.t1_s) for e in even] == [(0.0, 0.04), (0.04, 0.08), (0.08, 0.12)]


@pytest.mark.parametrize(
    ("pts", "options", "message"),
    [
        (UNEVEN, {"first_tick": 9}, r"37 ticks, but by its timestamps the video needs 42 at 1000 Hz from tick 9"),
        (UNEVEN, {"first_tick": 40}, "first_tick: 40; allowed: 0 to 36"),
        (UNEVEN, {"exposure_ticks": 5}, "exposure_ticks: 5; allowed: 1 to 4, the least from frame to frame"),
        (UNEVEN, {"tick_rate_hz": 50.0}, "tick_rate_hz: 50.0; by their timestamps frames 0 and 1 share a tick"),
        (UNEVEN, {"by_timestamps": True, "period_ticks": 3}, "period_ticks: 3, but the timestamps tell it"),
        (UNEVEN, {"linear": True}, r"linear: .*a\.mp4 is a video, of display values; allowed: a folder of images"),
    ],
)
def test_timestamps_that_do_not_fit_are_refused(
    root: Path, tmp_path: Path, pts: Sequence[int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        loose_recording(clip(tmp_path / "a.mp4", pts), packed(root), Stated(**{"tick_rate_hz": 1000.0, **options}))


def test_a_folder_of_images_has_no_timestamps(root: Path) -> None:
    with pytest.raises(ValueError, match="by_timestamps: .*blur is a folder of images, without timestamps"):
        loose_recording(root / "blur", packed(root), Stated(by_timestamps=True))
