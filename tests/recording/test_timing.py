"""Times as people have them: units, the numbers of images, tables, triggers."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikevrt.recording.loose import loose_recording
from spikevrt.recording.sidecar import Stated
from spikevrt.recording.time_tables import table_times, trigger_times
from spikevrt.recording.timing import frame_numbers, read_time
from tests.recording.test_loose import UNEVEN, clip, packed

RATE_HZ = Fraction(20000)


@pytest.mark.parametrize(
    ("text", "ticks"),
    [
        ("128ticks", 128),
        ("1 tick", 1),
        ("6.4ms", 128),
        ("6.4 ms", 128),
        ("6400us", 128),
        ("6400µs", 128),
        ("6400000ns", 128),
        ("0.0064s", 128),
        ("1/125s", 160),
        ("1/125", 160),
        ("180deg", 300),
        ("172.8°", 288),
        ("50%", 300),
        ("1/3ms", Fraction(20, 3)),
    ],
)
def test_an_exposure_is_read_in_the_units_that_people_have(text: str, ticks: float | Fraction) -> None:
    assert read_time("exposure", text, RATE_HZ, Fraction(600)) == ticks


@pytest.mark.parametrize(
    "text", ["128", "6.4", "", "ms", "-3ms", "0ms", "1/0s", "1..2ms", "3 furlongs", "nan s", "1e3ms"]
)
def test_a_time_without_a_unit_or_a_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="allowed: a time with its unit: 6.4ms, 1/125s, 180deg, 50%, 128ticks"):
        read_time("exposure", text, RATE_HZ, Fraction(600))


def test_the_shutter_angle_of_a_single_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="exposure: '180deg' of a period that a single frame does not tell"):
        read_time("exposure", "180deg", RATE_HZ, None)


def numbers_of(*names: str) -> tuple[int, ...]:
    return frame_numbers([Path(name) for name in names])[0]


def test_images_are_placed_by_their_numbers() -> None:
    assert numbers_of("000000.png", "000001.png", "000003.png") == (0, 1, 3)
    assert numbers_of("im9.png", "im10.png", "im13.png") == (0, 1, 4)
    assert numbers_of("a_010.png", "a_020.png", "a_040.png") == (0, 1, 3)  # every tenth, one left out
    assert numbers_of("5.png") == (0,)


def test_names_without_common_numbers_follow_each_other_and_that_is_told() -> None:
    for names in (("a.png", "b.png"), ("a1.png", "b7.png"), ("1a.png", "x.png"), ("01.png", "1.png")):
        numbers, notes = frame_numbers([Path(name) for name in names])
        assert numbers == (0, 1) and "carry no common numbers" in notes["numbers"], names


def test_names_that_are_times_are_no_numbers_of_frames(root: Path) -> None:
    for index, name in enumerate(("1403636579763555584", "1403636579813555584", "1403636579863555589")):
        (root / "blur" / f"{index:06d}.png").rename(root / "blur" / f"{name}.png")
    with pytest.raises(ValueError, match=r"span 20000002 frames, the stream 37 ticks; allowed: .* or `timestamps`"):
        loose_recording(root / "blur", packed(root))


def test_an_exposure_a_tick_longer_than_the_stream_is_refused_for_a_single_frame(root: Path) -> None:
    for number in (1, 2):
        (root / "blur" / f"{number:06d}.png").unlink()
    with pytest.raises(ValueError, match=r"exposure: 38ticks \(38 ticks\); allowed: 1 to 37 ticks$"):
        loose_recording(root / "blur", packed(root), Stated(exposure="38ticks"))
    whole = loose_recording(root / "blur", packed(root), Stated(exposure="37ticks"))
    assert [(e.start_tick, e.stop_tick) for e in whole.exposures] == [(0, 37)]


def test_a_video_of_29_97_frames_a_second_does_not_drift_from_a_stream(root: Path, tmp_path: Path) -> None:
    video = clip(tmp_path / "a.mp4", [1001 * i for i in range(3)], Fraction(1, 30000))
    stated = Stated(tick_rate_hz=300.0, exposure="180deg")
    starts = [e.start_tick for e in loose_recording(video, packed(root), stated).exposures]
    assert starts == [0, 10, 20]  # 10.01 ticks apart
    lengths = {e.num_ticks for e in loose_recording(video, packed(root), stated).exposures}
    assert lengths == {5}


def table(tmp_path: Path, text: str) -> Path:
    (tmp_path / "t.csv").write_text(text)
    return tmp_path / "t.csv"


@pytest.mark.parametrize(
    ("text", "starts", "lengths"),
    [
        ("start_s,exposure_ms\n1.0,2\n1.0105,3\n1.02,2.5\n", [0, 210, 400], [40, 60, 50]),
        ("frame;start_ms;stop_ms\n2;20;21\n0;0;2\n1;10;11\n", [0, 200, 400], [40, 20, 20]),
        ("\ufeffstart_ns\n1403636579763555584\n1403636579773555584\n1403636579783555584\n", [0, 200, 400], None),
        ("start_tick\tgain\n7\t1\n207\t1\n407\t2\n", [7, 207, 407], None),
    ],
)
def test_a_table_tells_when_frames_were_exposed(
    tmp_path: Path, text: str, starts: list[int], lengths: list[int] | None
) -> None:
    times = table_times(table(tmp_path, text), (0, 1, 2), RATE_HZ)
    assert list(times.starts) == starts
    assert (None if times.lengths is None else list(times.lengths)) == lengths
    assert times.is_absolute == text.startswith("start_tick")


def test_rows_of_images_that_were_not_kept_are_passed_over(tmp_path: Path) -> None:
    times = table_times(table(tmp_path, "frame,start_ms\n0,0\n1,10\n2,20\n3,30\n"), (0, 3), RATE_HZ)
    assert times.starts == (0, 600) and times.period == 200


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a table without rows; allowed: a header with start_s"),
        ("time,exposure\n1,2\n", "columns 'time, exposure'; allowed: a header with start_s"),
        ("start_s,start_ms\n1,2\n", "two columns for start; allowed: one"),
        ("start_s\n0\n0.01\n", "2 rows for 3 frames; allowed: a row each, or a column frame"),
        ("start_s\n0\nx\n0.01\n", "t.csv, line 3: 'x'; allowed: a number"),
        ("start_s\n0\n0.02\n0.01\n", "frame 2 does not start after the one before; allowed: rising times"),
        ("frame,start_s\n0,0\n0,1\n1,2\n", "t.csv, line 3: frame 0; allowed: each whole number once"),
        ("frame,start_s\n0,0\n1,1\n3,2\n", "no row for frame 2; allowed: a row for each frame"),
    ],
)
def test_a_table_that_tells_something_else_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table_times(table(tmp_path, text), (0, 1, 2), RATE_HZ)


def test_a_trigger_is_a_list_of_ticks_or_a_channel(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("3\n13\n26\n")
    times = trigger_times(tmp_path / "t.txt", (0, 2), 37)  # of the second pulse there is no image
    assert times.starts == (3, 26) and times.lengths is None and times.is_absolute
    channel = np.zeros(37, dtype=np.uint8)
    channel[[3, 4, 13, 14, 15, 36]] = 1
    np.save(tmp_path / "t.npy", channel)
    times = trigger_times(tmp_path / "t.npy", (0, 1, 2), 37)
    assert times.starts == (3, 13, 36) and times.lengths == (2, 3, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3\n13\n", "2 ticks for 3 frames; allowed: one each; or a channel of 37 values of 0 and 1"),
        ("3\n13\n13\n", "ticks that do not rise"),
        ("3\nx\n", "not a list of ticks; allowed: whole numbers, one a line, or .npy"),
        ("0 " * 36 + "1", "1 pulses for 3 frames"),
    ],
)
def test_a_trigger_that_does_not_fit_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        trigger_times(tmp_path / "t.txt", (0, 1, 2), 37)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timestamps": "t.csv", "fps": 30}, "fps: not with timestamps, which tells when each frame was exposed"),
        ({"timestamps": "t.csv", "triggers": "x"}, "triggers: not with timestamps"),
        ({"timestamps": "t.csv", "first_tick": 3}, "first_tick: 3, but the frames' times are ticks of the stream"),
        ({"timestamps": "t.csv", "exposure": "3ms"}, "exposure: 3ms, but it is told elsewhere, too"),
        ({"timestamps": "absent.csv"}, "absent.csv: no such table of times"),
        ({"triggers": "absent.txt"}, "absent.txt: no such file of triggers"),
    ],
)
def test_times_that_are_told_twice_are_refused(
    root: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    table(tmp_path, "start_tick,exposure_ticks\n0,9\n9,9\n18,9\n27,9\n")
    paths = {name: tmp_path / value for name, value in options.items() if name in ("timestamps", "triggers")}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        loose_recording(clip(tmp_path / "a.mp4", UNEVEN), packed(root), Stated(**{**options, **paths}))
    good = loose_recording(clip(tmp_path / "b.mp4", UNEVEN), packed(root), Stated(timestamps=tmp_path / "t.csv"))
    assert [(e.start_tick, e.stop_tick) for e in good.exposures] == [(0, 9), (9, 18), (18, 27), (27, 36)]
