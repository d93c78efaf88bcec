"""Readings of a headerless file: all that fit are listed with evidence, none is taken in silence, one is confirmed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikevrt.align.geometry import Reading, list_readings, read_frame
from spikevrt.align.inspect import Inspection, inspect
from spikevrt.align.settings import InspectOptions
from spikevrt.mux.join import write_video
from spikevrt.recording.frames import image_size, write_image
from spikevrt.recording.sidecar import ROWS, StreamFormat
from spikevrt.recording.spike_file import SpikeGeometry, SpikeWriter, sha256_file
from spikevrt.recording.spike_formats import open_stream
from spikevrt.recording.stream import pack_sps100


def _light(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth random picture in [0.1, 0.5] that no flip maps onto itself."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = sum(
        np.sin(x / width * rng.uniform(3, 25) + y / height * rng.uniform(-25, 25) + rng.uniform(0, 6)) for _ in range(7)
    )
    return 0.1 + 0.4 * (waves - waves.min()) / (waves.max() - waves.min())


def _fire(light: np.ndarray, num_ticks: int) -> np.ndarray:
    phase = np.random.default_rng(1).random(light.shape)
    fired = [np.floor(phase + light * (t + 1)) > np.floor(phase + light * t) for t in range(num_ticks)]
    return np.stack(fired).astype(np.uint8)


def _write(path: Path, spikes: np.ndarray, *, bottom_up: bool = True) -> None:
    with SpikeWriter(path, SpikeGeometry(spikes.shape[2], spikes.shape[1], bottom_up)) as writer:
        writer.append(spikes)


def _told(readings: list[Reading]) -> list[str]:
    return [reading.format.describe() for reading in readings]


def _numbered(lines: list[str]) -> list[str]:
    return [line for line in lines if line[:3].strip().isdigit()]


def test_the_file_that_was_once_read_as_bytes_is_listed_as_bits_and_never_opened_unasked(tmp_path: Path) -> None:
    """2,534,400 bytes are 88 ticks of 640 x 360 bits; an earlier attempt read them as 10 x 396 x 640 bytes."""
    path = tmp_path / "a.dat"
    _write(path, _fire(_light(360, 640), 88))
    assert path.stat().st_size == 2_534_400
    inspection = inspect(path, InspectOptions(sizes=((640, 396),)))
    assert inspection.refusal is not None and "2534400 bytes" in inspection.refusal
    listed = _numbered(inspection.lines)
    assert "packed, 640 x 360, rows bottom-up: 88 ticks" in listed[0]
    assert "packed, 640 x 360, rows top-down: 88 ticks" in listed[1]
    for other in ("packed, 320 x 180", "packed, 640 x 396, rows bottom-up: 80 ticks"):
        assert any(other in line for line in listed[2:]), other
    assert not any("bytes, 640 x 396" in line for line in listed)  # its bytes are not all 0 or 1
    with pytest.raises(ValueError, match="allowed: .*0 or 1"):
        open_stream(path, StreamFormat("bytes", 640, 396)).read(0, 1)


def test_even_a_single_reading_is_not_taken_in_silence(tmp_path: Path) -> None:
    _write(tmp_path / "a.dat", _fire(_light(5, 7), 11), bottom_up=False)
    inspection = inspect(tmp_path / "a.dat", InspectOptions(sizes=((7, 5),)))
    assert inspection.refusal is not None and "2 readings fit 55 bytes" in inspection.refusal


def test_the_right_size_is_listed_first_and_its_double_is_told_to_be_copies(tmp_path: Path) -> None:
    chance = np.random.default_rng(3).random((1024, 128, 128), dtype=np.float32)
    _write(tmp_path / "a.dat", (chance < _light(128, 128)).astype(np.uint8))
    first, second, *others = list_readings(tmp_path / "a.dat")
    assert _told([first, second]) == ["packed, 128 x 128, rows bottom-up", "packed, 128 x 128, rows top-down"]
    double = next(one for one in others if (one.format.width, one.format.height) == (256, 256))
    assert "its halves are copies of each other" in double.line() and "copies" not in first.line()


@pytest.mark.parametrize("bottom_up", [True, False])
def test_a_colour_frame_tells_the_order_of_rows(tmp_path: Path, bottom_up: bool) -> None:
    light = _light(250, 400)
    _write(tmp_path / "a.dat", _fire(light, 40), bottom_up=bottom_up)
    frame = np.repeat(np.round(255 * light ** (1 / 2.2)).astype(np.uint8)[:, :, None], 3, axis=2)
    first = list_readings(tmp_path / "a.dat", frame=frame)[0]
    assert first.format == StreamFormat("packed", 400, 250, ROWS[bottom_up])
    wrong = next(one for one in list_readings(tmp_path / "a.dat", frame=frame) if one.format.is_bottom_up != bottom_up)
    assert "rows flipped)" in wrong.line() and "flipped" not in first.line()


def test_rows_of_416_with_constant_or_counting_tags_are_told_from_pixels(tmp_path: Path) -> None:
    path, light = tmp_path / "a.dat", _light(250, 400)
    spikes = _fire(light, 25)

    def write(tags: np.ndarray) -> dict[int, Reading]:
        _write(path, np.concatenate([spikes, tags.astype(np.uint8)], axis=2))
        return {one.format.tag_bits: one for one in reversed(list_readings(path)) if one.format.height == 250}

    constant = np.broadcast_to(np.arange(16) % 2, (25, 250, 16))
    found = write(constant)
    assert found[16].tags == "never change" and found[16].likelihood > found[0].likelihood
    line = (np.arange(250)[::-1, None] + np.arange(25)[:, None, None]) >> np.arange(16) & 1
    found = write(line)
    assert found[16].tags == "count" and found[16].likelihood > found[0].likelihood
    found = write(_fire(_light(250, 416), 25)[:, :, 400:])
    assert found[16].tags == "look like pixels" and found[16].likelihood < found[0].likelihood


def test_sps100_is_recognised_by_its_line_tags_even_when_the_file_begins_inside_a_tick(tmp_path: Path) -> None:
    data = pack_sps100(_fire(_light(1000, 1000), 4))
    (tmp_path / "a.dat").write_bytes(data[48 * 16 :])
    first = list_readings(tmp_path / "a.dat")[0]
    assert first.format.kind == "sps100" and first.num_ticks == 3 and "line tags right" in first.line()


def test_one_byte_a_pixel_is_listed_only_when_all_bytes_are_0_or_1(tmp_path: Path) -> None:
    spikes = _fire(_light(96, 128), 40)[:, :96, :96]
    (tmp_path / "a.dat").write_bytes(spikes.tobytes())
    first = list_readings(tmp_path / "a.dat")[0]
    assert first.format.kind == "bytes" and "all probed bytes are 0 or 1" in first.line()
    assert (first.format.width, first.format.height, first.num_ticks) == (96, 96, 40)
    (tmp_path / "b.dat").write_bytes((2 * spikes).tobytes())
    assert not any(one.format.kind == "bytes" for one in list_readings(tmp_path / "b.dat"))


def test_a_confirmed_reading_is_written_down_and_never_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "a.dat"
    spikes = _fire(_light(250, 400), 20)
    _write(path, spikes, bottom_up=False)
    before = path.read_bytes()
    asked = inspect(path)
    number = next(int(line[:3]) for line in _numbered(asked.lines) if "400 x 250, rows top-down" in line)
    done = inspect(path, InspectOptions(confirm=number))
    assert done.refusal is None
    assert done.lines == [
        f"{path}: packed, 400 x 250, rows top-down, 20 ticks at 20000 Hz (assumed; another with --tick-rate-hz) -> "
        f"{path}.json"
    ]
    written = json.loads((tmp_path / "a.dat.json").read_text())
    assert written["sha256"] == sha256_file(path) and written["tick_rate_hz"] == 20000.0
    assert path.read_bytes() == before
    known = inspect(path)
    assert known.refusal is None and "(says a.dat.json)" in known.lines[0]
    np.testing.assert_array_equal(open_stream(path).read(0, 20), spikes)
    with pytest.raises(FileExistsError, match="a.dat.json: exists; pass --overwrite to replace it"):
        inspect(path, InspectOptions(confirm=number))
    inspect(path, InspectOptions(confirm=number, overwrite=True, tick_rate_hz=40000.0))
    assert json.loads((tmp_path / "a.dat.json").read_text())["tick_rate_hz"] == 40000.0


def test_numbers_stay_when_sizes_and_frames_are_added(tmp_path: Path) -> None:
    path = tmp_path / "a.dat"
    _write(path, _fire(_light(250, 400), 8))
    plain = {one.number: one.format for one in list_readings(path)}
    frame = np.random.default_rng(2).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    more = {one.number: one.format for one in list_readings(path, sizes=((200, 250), (400, 250)), frame=frame)}
    assert len(more) == len(plain) + 2
    assert {number: more[number] for number in plain} == plain


def test_a_number_that_was_not_listed_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    _write(tmp_path / "a.dat", _fire(_light(5, 7), 11))
    with pytest.raises(ValueError, match="^confirm: 3; allowed: 1, 2$"):
        inspect(tmp_path / "a.dat", InspectOptions(sizes=((7, 5),), confirm=3))
    assert [file.name for file in tmp_path.iterdir()] == ["a.dat"]


def test_a_size_that_nobody_knows_is_told_to_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(bytes(55))
    with pytest.raises(ValueError, match="a.dat: 55 bytes fit none of the known sizes and formats; name another with"):
        inspect(tmp_path / "a.dat")
    (tmp_path / "b.dat").write_bytes(b"")
    with pytest.raises(ValueError, match="b.dat: an empty spike file"):
        inspect(tmp_path / "b.dat")


@pytest.mark.parametrize("value", [0x00, 0xFF, 0x01])
def test_a_file_of_one_value_is_listed_without_a_crash(tmp_path: Path, value: int) -> None:
    (tmp_path / "a.dat").write_bytes(bytes([value]) * 12_500)
    inspection: Inspection = inspect(tmp_path / "a.dat", InspectOptions(out=tmp_path / "a.png"))
    assert inspection.refusal is not None and _numbered(inspection.lines)


def test_the_sheet_shows_a_cell_for_each_reading(tmp_path: Path) -> None:
    _write(tmp_path / "a.dat", _fire(_light(250, 400), 8))
    inspection = inspect(tmp_path / "a.dat", InspectOptions(out=tmp_path / "a.png"))
    num_rows = -(-len(_numbered(inspection.lines)) // 4)
    assert image_size(tmp_path / "a.png") == (num_rows * 256, 4 * 240)
    with pytest.raises(ValueError, match="centre: is for spikes of known geometry; allowed: without it"):
        inspect(tmp_path / "a.dat", InspectOptions(out=tmp_path / "b.png", centre=3))


def test_the_frame_comes_from_an_image_a_folder_or_a_video(tmp_path: Path) -> None:
    frames = [np.full((16, 32, 3), 80 * index, dtype=np.uint8) for index in range(3)]
    for index, frame in enumerate(frames):
        write_image(tmp_path / f"{index}.png", frame)
    write_video(tmp_path / "a.mp4", frames, fps=25)
    assert int(read_frame(tmp_path / "2.png").mean()) == 160
    assert int(read_frame(tmp_path).mean()) == 80
    assert abs(float(read_frame(tmp_path / "a.mp4").mean()) - 80) < 3  # lossy


def test_the_real_car_is_400_by_250(shared: Path) -> None:
    car = shared / "data" / "real_car" / "car_400x250_200f.dat"
    assert _told(list_readings(car)[:2]) == ["packed, 400 x 250, rows bottom-up", "packed, 400 x 250, rows top-down"]
    assert inspect(car).refusal is not None


def test_the_synthetic_stream_is_bottom_up_against_its_truth(shared: Path) -> None:
    folder = shared / "data" / "synthetic_reds"
    first = list_readings(folder / "reds_400x250_301f.dat", frame=read_frame(folder / "reds_400x250_gt_id151.png"))[0]
    assert first.format == StreamFormat("packed", 400, 250, "bottom-up")
    assert first.fit is not None and first.fit[0] > 0.8


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=700), size=st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_any_bytes_give_a_list_or_one_line(tmp_path: Path, data: bytes, size: tuple[int, int]) -> None:
    path = tmp_path / "a.dat"
    path.write_bytes(data)
    try:
        inspection = inspect(path, InspectOptions(sizes=(size,)))
    except ValueError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        return
    assert inspection.refusal is not None
    readings = list_readings(path, sizes=(size,))
    assert len(_numbered(inspection.lines)) == len(readings) == len({one.number for one in readings})
    assert all(np.isfinite(one.likelihood) for one in readings)
