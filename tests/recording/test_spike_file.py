"""Packed spikes: bit and row order, windows, checks; nothing guessed in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikevrt.recording.spike_file import (
    SpikeGeometry,
    SpikeWriter,
    count_ticks,
    pack,
    read_spikes,
    sha256_file,
    unpack,
)

GEOMETRY = SpikeGeometry(13, 7)


def _spikes(num_ticks: int = 11, geometry: SpikeGeometry = GEOMETRY, seed: int = 0) -> np.ndarray:
    shape = (num_ticks, geometry.height, geometry.width)
    return np.random.default_rng(seed).integers(0, 2, shape, dtype=np.uint8)


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    with SpikeWriter(tmp_path / "spikes.dat", GEOMETRY) as writer:
        writer.append(_spikes())
    return tmp_path / "spikes.dat"


def test_the_lowest_bit_is_the_leftmost_pixel_and_the_first_byte_the_bottom_row() -> None:
    spikes = np.zeros((1, 2, 8), dtype=np.uint8)
    spikes[0, 1, 0] = 1  # bottom left
    spikes[0, 0, 7] = 1  # top right
    assert pack(spikes, SpikeGeometry(8, 2, bottom_up=True)) == bytes([0b00000001, 0b10000000])
    assert pack(spikes, SpikeGeometry(8, 2, bottom_up=False)) == bytes([0b10000000, 0b00000001])


@settings(max_examples=40, deadline=None)
@given(
    num_ticks=st.integers(0, 5),
    width=st.integers(1, 19),
    height=st.integers(1, 11),
    bottom_up=st.booleans(),
    seed=st.integers(0, 99),
)
def test_pack_then_unpack_is_identity_for_any_size(
    num_ticks: int, width: int, height: int, bottom_up: bool, seed: int
) -> None:
    geometry = SpikeGeometry(width, height, bottom_up)
    spikes = _spikes(num_ticks, geometry, seed)
    before = spikes.copy()
    data = pack(spikes, geometry)
    assert len(data) == num_ticks * geometry.bytes_per_tick
    unpacked = unpack(data, geometry)
    np.testing.assert_array_equal(unpacked, spikes)
    np.testing.assert_array_equal(spikes, before)
    assert unpacked.dtype == np.uint8 and all(stride >= 0 for stride in unpacked.strides)


def test_a_tick_of_odd_size_is_padded_to_whole_bytes() -> None:
    assert GEOMETRY.bytes_per_tick == 12  # 91 bits
    assert SpikeGeometry(400, 250).bytes_per_tick == 12500


def test_a_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="0x5; allowed: width and height of 1 or more"):
        SpikeGeometry(0, 5)


def test_reading_a_window_equals_reading_all_and_slicing(stream: Path) -> None:
    spikes = _spikes()
    np.testing.assert_array_equal(read_spikes(stream, GEOMETRY), spikes)
    np.testing.assert_array_equal(read_spikes(stream, GEOMETRY, 3, 8), spikes[3:8])
    assert read_spikes(stream, GEOMETRY, 4, 4).shape == (0, 7, 13)


@pytest.mark.parametrize("window", [(-1, 3), (5, 4), (0, 12)])
def test_a_window_outside_the_stream_is_refused(stream: Path, window: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"asked for; allowed: inside \[0, 11\)"):
        read_spikes(stream, GEOMETRY, *window)


def test_a_file_that_is_no_whole_number_of_ticks_is_refused_with_the_numbers(stream: Path) -> None:
    stream.write_bytes(stream.read_bytes() + b"\0\0\0")
    with pytest.raises(ValueError, match=r"135 bytes .* \(12 bytes each\): 3 .* head -c 132 keeps its 11 whole"):
        count_ticks(stream, GEOMETRY)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.dat").touch()
    with pytest.raises(ValueError, match=r"a\.dat: an empty spike file"):
        count_ticks(tmp_path / "a.dat", GEOMETRY)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.dat: no such spike file"):
        read_spikes(tmp_path / "a.dat", GEOMETRY)


def test_spikes_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(11, 7, 13\); allowed: \(ticks, 13, 7\)"):
        pack(_spikes(), SpikeGeometry(7, 13))


def test_values_other_than_zero_and_one_are_refused() -> None:
    with pytest.raises(ValueError, match="allowed: uint8 or bool, 0 or 1"):
        pack(_spikes() * 2, GEOMETRY)


def test_a_stream_written_in_pieces_equals_one_written_at_once(tmp_path: Path, stream: Path) -> None:
    spikes = _spikes()
    with SpikeWriter(tmp_path / "pieces.dat", GEOMETRY) as writer:
        writer.append(spikes[:4])
        writer.append(spikes[4:].astype(bool))
    assert (tmp_path / "pieces.dat").read_bytes() == stream.read_bytes()
    assert writer.num_ticks == 11
    assert writer.sha256 == sha256_file(stream)


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        with SpikeWriter(tmp_path / "a.dat", GEOMETRY) as writer:
            writer.append(_spikes())
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
