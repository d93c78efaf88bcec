"""Raw streams of half-rows with line tags: bytes spelled out, files cut anywhere, lost bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spikevrt.recording.sidecar import StreamFormat
from spikevrt.recording.spike_formats import open_stream
from spikevrt.recording.stream import Sps100Stream, pack_sps100

# Four rows, so lines 1 and 2. The last two bytes of a half-row, little-endian: channel << 14 | line << 4 | the pixels
# 496 to 499 (bits 0 to 3).
LINE_2 = ("2000", "2040", "2080", "20c0")
LINE_1 = ("1000", "1040", "1080", "10c0")
DARK = bytes.fromhex("".join("00" * 62 + tag for tag in (*LINE_2, *LINE_1)))
TICK_BYTES = 512


def lit(**half_rows: str) -> bytes:
    """A dark tick in which some half-rows are replaced: h0="01" gives its first bytes."""
    tick = bytearray(DARK)
    for name, start in half_rows.items():
        place = 64 * int(name[1:])
        tick[place : place + len(bytes.fromhex(start))] = bytes.fromhex(start)
    return bytes(tick)


def stream(path: Path, data: bytes) -> Sps100Stream:
    path.write_bytes(data)
    opened = open_stream(path, StreamFormat("sps100", 1000, 4))
    assert isinstance(opened, Sps100Stream)
    return opened


def test_each_row_is_two_half_rows_of_500_pixels_and_is_not_flipped(tmp_path: Path) -> None:
    tick = lit(h0="01", h1="80", h7="00" * 62 + "18")  # 0x18: line 1 and the last pixel
    opened = stream(tmp_path / "a.dat", tick)
    assert (opened.num_ticks, opened.height, opened.width, opened.notes) == (1, 4, 1000, [])
    assert np.argwhere(opened.read(0, 1)).tolist() == [[0, 0, 0], [0, 0, 507], [0, 3, 999]]
    np.testing.assert_array_equal(opened.count([0, 1])[0], opened.read(0, 1)[0])


@pytest.mark.parametrize("cut", [0, 16, 64, 208, 496])
def test_a_file_may_begin_in_the_middle_of_a_tick_and_end_in_another(tmp_path: Path, cut: int) -> None:
    ticks = lit(h2="04"), lit(h3="08"), lit(h4="10")
    opened = stream(tmp_path / "a.dat", b"".join(ticks)[cut:-32])
    first = 1 if cut else 0
    assert opened.num_ticks == 2 - first
    expected = [[0, 1, 2], [0, 1, 503]][first]
    assert np.argwhere(opened.read(0, 1)).tolist() == [expected]
    begin = [f"the first {TICK_BYTES - cut} bytes are the end of a tick, left out"] if cut else []
    assert opened.notes == [*begin, "the last 480 bytes are the beginning of a tick, left out"]


def test_pixels_that_look_like_the_first_tag_do_not_start_a_tick(tmp_path: Path) -> None:
    tick = lit(h5="00" * 14 + "2000" + "00" * 14 + "2000")
    opened = stream(tmp_path / "a.dat", tick[320:] + tick)
    assert (opened.start_byte, opened.num_ticks) == (192, 1)


def test_pixels_that_all_look_like_the_first_tag_do_not_start_a_tick(tmp_path: Path) -> None:
    looks = "00" * 14 + "2000"  # line 2 of channel 0 in the pixels of every half-row, which only one may carry
    tick = lit(h0=looks, h1=looks, h2=looks, h3=looks, h4=looks, h5=looks, h6=looks, h7=looks)
    opened = stream(tmp_path / "a.dat", tick[64:] + 2 * tick)
    assert (opened.start_byte, opened.num_ticks) == (448, 2)


def test_the_tick_at_which_bytes_were_lost_is_named(tmp_path: Path) -> None:
    opened = stream(tmp_path / "a.dat", 2 * DARK + DARK[:64] + DARK[80:] + 2 * DARK)
    assert opened.read(0, 2).max() == 0
    with pytest.raises(ValueError, match=r"a\.dat: the line tags of tick 2 do not repeat those of tick 0"):
        opened.read(0, 4)
    with pytest.raises(ValueError, match="the line tags of tick 3"):
        opened.read(3, 4)


@pytest.mark.parametrize("data", [bytes(2048), DARK[:-16], DARK[64:] + DARK[:64], b"", b"x"], ids=range(5))
def test_a_file_without_a_whole_tick_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(
        ValueError, match=rf"a\.dat: no whole tick of SPS100 half-rows in {len(data)} bytes \(a tick is 512 "
    ):
        stream(tmp_path / "a.dat", data)


def test_the_default_is_the_cameras_own_size() -> None:
    assert Sps100Stream(Path("a")).bytes_per_tick == 128000


def test_what_is_packed_is_what_reads(tmp_path: Path) -> None:
    spikes = np.random.default_rng(0).integers(0, 2, (3, 4, 1000), dtype=np.uint8)
    before = spikes.copy()
    opened = stream(tmp_path / "a.dat", pack_sps100(spikes))
    np.testing.assert_array_equal(opened.read(0, 3), spikes)
    np.testing.assert_array_equal(spikes, before)
    assert pack_sps100(np.zeros((1, 4, 1000), dtype=np.uint8)) == DARK
