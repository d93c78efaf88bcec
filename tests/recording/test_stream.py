"""Streams: bits are counted as their unpacked twin counts them, and only what is asked for is read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikevrt.recording.sidecar import StreamFormat
from spikevrt.recording.spike_file import LONG_SLICE, SpikeGeometry, count_packed, pack, unpack
from spikevrt.recording.spike_formats import open_stream
from spikevrt.recording.stream import JoinedStream, PackedStream, count_slices, hold, live_ticks

ROOT = Path(__file__).resolve().parents[2]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    width=st.integers(1, 19),
    height=st.integers(1, 7),
    bottom_up=st.booleans(),
    tag_bits=st.sampled_from([0, 0, 3, 16]),
    lengths=st.lists(
        st.sampled_from([0, 1, 2, 7, LONG_SLICE - 1, LONG_SLICE, 101, 255, 256, 300]), min_size=1, max_size=5
    ),
    first=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_counting_bits_equals_unpacking_and_adding(
    width: int, height: int, bottom_up: bool, tag_bits: int, lengths: list[int], first: int, seed: int
) -> None:
    geometry = SpikeGeometry(width, height, bottom_up, tag_bits)
    data = np.random.default_rng(seed).integers(0, 256, (sum(lengths), geometry.bytes_per_tick), dtype=np.uint8)
    before = data.copy()
    edges = [first, *(first + int(end) for end in np.cumsum(lengths))]
    counts = count_packed(data, geometry, edges)
    np.testing.assert_array_equal(counts, count_slices(unpack(data.ravel(), geometry), edges))
    assert counts.dtype == np.uint16 and counts.shape == (len(lengths), height, width)
    np.testing.assert_array_equal(data, before)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(width=st.integers(1, 19), height=st.integers(1, 7), num_ticks=st.integers(1, 301), seed=st.integers(0, 99))
def test_a_long_window_read_in_runs_and_held_as_bits_is_the_window(
    width: int, height: int, num_ticks: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    random = np.random.default_rng(seed)
    spikes = (random.random((num_ticks, height, width)) < 0.3).astype(np.uint8)
    path = tmp_path_factory.mktemp("held") / "a.npy"
    np.save(path, spikes)
    first, top, edge = random.integers(0, num_ticks), random.integers(0, height), random.integers(0, num_ticks + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spikevrt.recording.stream.READ_BITS", 53 * height * width)  # so many ticks at a time
        counts = open_stream(path, StreamFormat("npy", width, height)).count([0, edge, edge, num_ticks])
        held = hold(open_stream(path, StreamFormat("npy", width, height)), 0, num_ticks)
    np.testing.assert_array_equal(counts, count_slices(spikes, [0, edge, edge, num_ticks]))
    np.testing.assert_array_equal(held.count([0, edge, edge, num_ticks]), counts)
    np.testing.assert_array_equal(held[first:].rows(top, height), spikes[first:, top:])
    np.testing.assert_array_equal(held.live(), spikes.any(axis=(1, 2)))
    assert held[first:].shape == spikes[first:].shape and len(held) == num_ticks


def test_a_slice_may_hold_65535_spikes_of_one_pixel(tmp_path: Path) -> None:
    geometry = SpikeGeometry(8, 1)
    (tmp_path / "a.dat").write_bytes(b"\x81" * 65535)
    stream = PackedStream(tmp_path / "a.dat", geometry)
    assert stream.count([0, 65535]).ravel().tolist() == [65535, 0, 0, 0, 0, 0, 0, 65535]


def test_a_range_may_be_longer_than_65535_ticks_and_so_may_a_slice(tmp_path: Path) -> None:
    geometry = SpikeGeometry(8, 1)
    (tmp_path / "a.dat").write_bytes(b"\x81" * 140_000)
    np.save(tmp_path / "a.npy", PackedStream(tmp_path / "a.dat", geometry).read(0, 140_000))
    for stream in (
        PackedStream(tmp_path / "a.dat", geometry),
        JoinedStream((PackedStream(tmp_path / "a.dat", geometry), PackedStream(tmp_path / "a.dat", geometry))),
        open_stream(tmp_path / "a.npy"),
    ):
        short = stream.count([0, 65_535, 131_070])
        assert short.dtype == np.uint16 and short[:, 0, 0].tolist() == [65_535, 65_535]
        long = stream.count([1, 70_001, 140_000])
        assert long.dtype == np.uint32 and long[:, 0].tolist() == [
            [70_000, 0, 0, 0, 0, 0, 0, 70_000],
            [69_999, 0, 0, 0, 0, 0, 0, 69_999],
        ]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    width=st.integers(1, 25), height=st.integers(1, 5), bottom_up=st.booleans(),
    tag_bits=st.sampled_from([0, 1, 8, 16]), seed=st.integers(0, 99),
)  # fmt: skip
def test_unpacking_equals_the_definition_bit_by_bit(
    width: int, height: int, bottom_up: bool, tag_bits: int, seed: int
) -> None:
    geometry = SpikeGeometry(width, height, bottom_up, tag_bits)
    data = np.random.default_rng(seed).bytes(3 * geometry.bytes_per_tick)
    spikes = unpack(data, geometry)
    for tick in range(3):
        for row in range(height):
            for column in range(width):
                stored = height - 1 - row if bottom_up else row
                bit = stored * (width + tag_bits) + column
                byte = data[tick * geometry.bytes_per_tick + bit // 8]
                assert spikes[tick, row, column] == byte >> bit % 8 & 1
    np.testing.assert_array_equal(unpack(pack(spikes, geometry), geometry), spikes)


def test_a_window_outside_the_stream_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(bytes(7))
    stream = PackedStream(tmp_path / "a.dat", SpikeGeometry(8, 1))
    with pytest.raises(ValueError, match=r"a\.dat: ticks \[5, 8\) asked for; allowed: inside \[0, 7\)"):
        stream.count([5, 8])


def test_parts_in_a_row_read_as_one(tmp_path: Path) -> None:
    geometry = SpikeGeometry(13, 7)
    data = np.random.default_rng(3).bytes(11 * geometry.bytes_per_tick)
    whole, parts = unpack(data, geometry), []
    for name, start, stop in (("a", 0, 5), ("b", 5, 6), ("c", 6, 11)):
        (tmp_path / name).write_bytes(data[start * geometry.bytes_per_tick : stop * geometry.bytes_per_tick])
        parts.append(PackedStream(tmp_path / name, geometry))
    joined = JoinedStream(tuple(parts))
    assert (joined.num_ticks, joined.height, joined.width) == (11, 7, 13)
    np.testing.assert_array_equal(joined.read(2, 9), whole[2:9])
    for edges in ([1, 4, 10], [7, 9, 11], [0, 5, 5, 6, 11], [2, 8], [5, 6], [3, 3]):
        expected = count_slices(whole[edges[0] : edges[-1]], edges)
        np.testing.assert_array_equal(joined.count(edges), expected)
    with pytest.raises(ValueError, match=r"asked for; allowed: inside \[0, 11\)"):
        joined.count([5, 12])


WINDOW_OF_TEN_GIGABYTES = """
import sys
from pathlib import Path
from spikevrt.recording.sidecar import StreamFormat
from spikevrt.recording.spike_formats import open_stream

def peak_bytes():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024

packed = open_stream(Path(sys.argv[1]), StreamFormat("packed", 400, 250))
array = open_stream(Path(sys.argv[2]))
before = peak_bytes()
spikes = packed.read(400_000, 400_064)
counts = packed.count([400_000, 400_032, 400_064])
mapped = array.read(50_000, 50_064)
print(packed.num_ticks, array.num_ticks, int(spikes.sum()), int(counts.sum()), int(mapped.sum()), peak_bytes() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak is read from /proc")
def test_64_ticks_of_ten_gigabytes_touch_little_more_than_their_own_bytes(tmp_path: Path) -> None:
    """Each window is 6.4 MB unpacked; three of them at once, and pages around them."""
    packed, array = tmp_path / "a.dat", tmp_path / "a.npy"
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (100000, 250, 400), }".ljust(117) + b"\n"
    with open(packed, "wb") as file:
        file.seek(400_003 * 12_500)
        file.write(b"\xff")
        file.truncate(10_000_000_000)
    with open(array, "wb") as file:
        file.write(b"\x93NUMPY" + bytes([1, 0, 118, 0]) + header)
        file.seek(128 + 50_063 * 100_000)
        file.write(b"\x01")
        file.truncate(10_000_000_128)
    script = [sys.executable, "-c", WINDOW_OF_TEN_GIGABYTES, str(packed), str(array)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    answer = subprocess.run(script, capture_output=True, text=True, env=environment, timeout=120)
    assert answer.returncode == 0, answer.stderr
    *values, growth_bytes = (int(word) for word in answer.stdout.split())
    assert values == [800_000, 100_000, 8, 8, 1]
    assert growth_bytes < 60e6, f"{growth_bytes / 1e6:.1f} MB"


@pytest.mark.parametrize(("width", "tag_bits"), [(16, 0), (16, 8), (16, 5), (13, 0), (13, 3)])
def test_live_ticks_are_those_in_which_any_pixel_fires_whatever_the_tags_say(
    tmp_path: Path, width: int, tag_bits: int
) -> None:
    geometry = SpikeGeometry(width, 5, tag_bits=tag_bits)
    spikes = np.zeros((11, 5, width), np.uint8)
    spikes[2, 0, 0] = spikes[3, 4, width - 1] = spikes[9, 2, 7] = 1
    data = np.frombuffer(pack(spikes, geometry), np.uint8).reshape(11, -1).copy()
    bits = np.unpackbits(data, axis=1, bitorder="little")
    rows = bits[:, : 5 * geometry.row_bits].reshape(11, 5, geometry.row_bits)
    rows[:, :, width:] = 1
    bits[:, : 5 * geometry.row_bits] = rows.reshape(11, -1)
    (tmp_path / "a.dat").write_bytes(np.packbits(bits, axis=1, bitorder="little").tobytes())
    stream = PackedStream(tmp_path / "a.dat", geometry)
    np.testing.assert_array_equal(np.flatnonzero(live_ticks(stream, 0, 11)), [2, 3, 9])
    np.testing.assert_array_equal(np.flatnonzero(live_ticks(stream, 3, 9)), [0])
    joined = JoinedStream((stream, stream))
    np.testing.assert_array_equal(np.flatnonzero(live_ticks(joined, 3, 21)), [0, 6, 10, 11, 17])
    assert live_ticks(joined, 4, 4).shape == (0,)
    with pytest.raises(ValueError, match=r"a\.dat: ticks \[3, 12\) asked for; allowed: inside \[0, 11\)"):
        live_ticks(stream, 3, 12)


def test_live_ticks_of_an_array_are_those_of_its_spikes(tmp_path: Path) -> None:
    spikes = np.zeros((7, 3, 5), np.uint8)
    spikes[4, 1, 2] = 1
    np.save(tmp_path / "a.npy", spikes)
    np.testing.assert_array_equal(np.flatnonzero(live_ticks(open_stream(tmp_path / "a.npy"), 1, 7)), [3])
