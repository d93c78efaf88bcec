"""Frames and a spike file that are no recording yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikevrt.mux.encode import VideoTags, write_segment
from spikevrt.mux.join import write_video
from spikevrt.recording.frames import write_image
from spikevrt.recording.loose import loose_recording, open_beside
from spikevrt.recording.sidecar import Stated
from spikevrt.recording.spike_file import SpikeGeometry
from spikevrt.recording.stream import PackedStream
from spikevrt.restore.options import VideoFormat
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


def test_a_stream_that_does_not_divide_is_split_by_a_rational_period_and_told(root: Path) -> None:
    recording = loose_recording(root / "blur", packed(root))
    assert [e.start_tick for e in recording.exposures] == [0, 12, 25]  # every 37/3 ticks
    assert "37 ticks, split equally over 3 frames, one every 12.3333 ticks" in recording.notes["period"]
    assert set(recording.notes) == {"period", "first tick", "exposure", "tick rate"}


def test_what_is_stated_is_no_note(root: Path) -> None:
    stated = Stated(fps=Fraction(1000, 13), tick_rate_hz=1000.0, first_tick=0, exposure="11ms")
    recording = loose_recording(root / "blur", packed(root), stated)
    assert [(e.start_tick, e.stop_tick) for e in recording.exposures] == [(0, 11), (13, 24), (26, 37)]
    assert not recording.notes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first_tick": 37}, "first_tick: 37; allowed: 0 to 36"),
        ({"period_ticks": -5}, "period_ticks: -5; allowed: above 0"),
        ({"period_ticks": Fraction(1, 2)}, "period_ticks: 1/2; allowed: 1 or more"),
        ({"period_ticks": 30}, r"lie at ticks 0 to 90 \(0.0045 s\): 2 of 3 frames lie outside; allowed: the times of"),
        (
            {"period_ticks": 10, "exposure_ticks": 11},
            "exposure_ticks: 11; allowed: 1 to 10 ticks; the frames are at least 10 ticks apart$",
        ),
        ({"period_ticks": 10, "exposure": "0.55ms"}, r"exposure: 0.55ms \(11 ticks\); allowed: 1 to 10 ticks"),
        ({"exposure_ticks": 3, "exposure": "3ticks"}, "exposure: 3ticks, but it is told elsewhere, too; allowed: once"),
        ({"period_ticks": 10, "fps": 30}, "fps: 30, and period_ticks 10; allowed: one of the two"),
        ({"by_counting": True}, "by_counting: needs `period_ticks` or `fps`"),
        ({"tick_rate_hz": 0.0}, "tick_rate_hz: 0.0; allowed: above 0"),
        ({"tick_rate_hz": float("nan")}, "tick_rate_hz: nan; allowed: above 0"),
        ({"readout": "37ticks"}, "readout: 37ticks; allowed: less than the 37 ticks of the stream"),
    ],
)
def test_exposures_that_do_not_fit_are_refused(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loose_recording(root / "blur", packed(root), Stated(**options))


def test_a_missing_image_leaves_the_others_where_they_were(root: Path) -> None:
    (root / "blur" / "000002.png").rename(root / "blur" / "000003.png")
    recording = loose_recording(root / "blur", packed(root), Stated(period_ticks=Fraction(8), exposure_ticks=7))
    assert [(e.frame_idx, e.start_tick) for e in recording.exposures] == [(0, 0), (1, 8), (3, 24)]
    assert recording.notes["numbers"].startswith("1 number is missing among the images (2); the frames behind keep")
    split = loose_recording(root / "blur", packed(root))  # over the frames that there were
    assert [(e.start_tick, e.stop_tick) for e in split.exposures] == [(0, 9), (9, 18), (28, 37)]


def test_a_stream_that_ends_early_is_told_and_its_frames_stay(root: Path) -> None:
    recording = loose_recording(root / "blur", packed(root), Stated(period_ticks=Fraction(14)))
    assert [recording.is_inside(index) for index in range(3)] == [True, True, False]
    assert "the frames lie at ticks 0 to 42 (0.0021 s): 1 of 3 frames lies outside" in recording.notes["stream"]


def test_ticks_that_a_rolling_shutter_takes_are_told_and_not_missing_in_the_file(root: Path) -> None:
    stated = Stated(period_ticks=Fraction(13), exposure_ticks=7, readout="9ticks")
    told = loose_recording(root / "blur", packed(root), stated).notes["stream"]
    assert "dat, without 9 of 37 ticks for `readout`, has 28 ticks (0.0014 s at 20000 a second), the frames lie" in told
    assert told.endswith("1 of 3 frames lies outside, without spikes")


def test_axes_that_may_be_exchanged_are_told_where_no_time_contradicts_them(root: Path) -> None:
    np.save(root / "HWT.npy", np.zeros((5, 7, 60), np.uint8))
    np.save(root / "THW.npy", np.zeros((60, 5, 7), np.uint8))
    told = open_beside(root / "blur", root / "HWT.npy").notes["axes"]
    assert told == "5 ticks of 60x7; or `spike_axes` HWT, which makes it 60 ticks of 7x5"
    assert "axes" not in open_beside(root / "blur", root / "THW.npy").notes
    assert "axes" not in open_beside(root / "blur", root / "HWT.npy", Stated(spike_axes="HWT")).notes


def test_a_stream_that_goes_on_for_longer_is_told(root: Path) -> None:
    recording = loose_recording(root / "blur", packed(root), Stated(period_ticks=Fraction(7)))
    assert recording.notes["stream"].endswith("not used: 16 ticks behind the last frame")


def test_a_rolling_shutter_reads_every_row_at_its_own_time(root: Path) -> None:
    stated = Stated(period_ticks=Fraction(13), exposure="7ticks", readout="9ticks")
    recording = loose_recording(root / "blur", packed(root), stated)
    # rows 0 to 4 of the sensor see rows 0.5, 2.5, 4.5, 6.5, 8.5 of the frame's 0 to 9, which open a tick apart
    assert (recording.num_ticks, recording.readout_ticks) == (28, 9)
    delays = [0, 2, 4, 6, 8]
    spikes = recording.read_exposure_spikes(1)
    for row, delay in enumerate(delays):
        np.testing.assert_array_equal(spikes[:, row], SPIKES[13 + delay : 20 + delay, row])
    counts = recording.count_exposure(1, [0, 3, 7])
    np.testing.assert_array_equal(counts, [spikes[:3].sum(0), spikes[3:].sum(0)])


def test_a_video_keeps_its_own_rate_and_frames_are_read_in_any_order(root: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", [np.full((16, 16, 3), 50 * i, dtype=np.uint8) for i in range(4)], fps=50)
    recording = loose_recording(tmp_path / "clip.mp4", packed(root), Stated(first_tick=1, tick_rate_hz=500.0))
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


def test_the_length_of_the_stream_does_not_overrule_the_clock_of_a_video(root: Path, tmp_path: Path) -> None:
    video = clip(tmp_path / "a.mp4", (0, 10, 20))  # 37 ticks: a third would be 12
    recording = loose_recording(video, packed(root), Stated(tick_rate_hz=1000.0, exposure_ticks=7))
    assert [(e.start_tick, e.stop_tick) for e in recording.exposures] == [(0, 7), (10, 17), (20, 27)]


def test_a_stated_period_must_be_that_of_the_timestamps_or_counting_is_asked_for(root: Path, tmp_path: Path) -> None:
    video, stream = clip(tmp_path / "a.mp4", (0, 10, 21)), packed(root)  # rounded from 10.4
    exact = Stated(period_ticks=Fraction("10.4"), tick_rate_hz=1000.0)
    assert [e.start_tick for e in loose_recording(video, stream, exact).exposures] == [0, 10, 21]
    wrong = Stated(period_ticks=Fraction(9), tick_rate_hz=1000.0)
    told = "period_ticks: 9, but the timestamps of .*a.mp4 put its frames 10.50 ticks apart"
    with pytest.raises(ValueError, match=told):
        loose_recording(video, stream, wrong)
    with pytest.raises(ValueError, match=r"fps: 30, but .* \(93.75 a second, at 1000 Hz\); allowed: with"):
        loose_recording(video, stream, Stated(fps=Fraction(30), tick_rate_hz=1000.0))
    counted = loose_recording(video, stream, replace(wrong, by_counting=True))
    assert [e.start_tick for e in counted.exposures] == [0, 9, 18]


def test_uneven_video_without_spikes_has_its_own_times(tmp_path: Path) -> None:
    exposures = loose_recording(clip(tmp_path / "a.mp4", UNEVEN), None).exposures
    np.testing.assert_allclose([e.t0_s for e in exposures], [0.0, 0.010, 0.025, 0.029], atol=1e-12)
    np.testing.assert_allclose([e.t1_s for e in exposures], [0.010, 0.025, 0.029, 0.033], atol=1e-12)
    even = loose_recording(clip(tmp_path / "b.mp4", (0, 40, 80)), None).exposures
    assert [(e.t0_s, e.t1_s) for e in even] == [(0.0, 0.04), (0.04, 0.08), (0.08, 0.12)]


@pytest.mark.parametrize(
    ("pts", "options", "message"),
    [
        (UNEVEN, {"first_tick": 25}, r"37 ticks .* lie at ticks 25 to 58 .* 3 of 4 frames lie outside; "),
        (UNEVEN, {"first_tick": 40}, "first_tick: 40; allowed: 0 to 36"),
        (
            UNEVEN,
            {"exposure_ticks": 5},
            "exposure_ticks: 5; allowed: 1 to 4 ticks; the frames are at least 4 ticks apart",
        ),
        (UNEVEN, {"tick_rate_hz": 50.0}, "tick_rate_hz: 50; frames 0 and 1 would start at the same tick"),
        (UNEVEN, {"linear": True}, r"linear: .*a\.mp4 is a video, of display values; allowed: a folder of images"),
    ],
)
def test_timestamps_that_do_not_fit_are_refused(
    root: Path, tmp_path: Path, pts: Sequence[int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        loose_recording(clip(tmp_path / "a.mp4", pts), packed(root), Stated(**{"tick_rate_hz": 1000.0, **options}))
