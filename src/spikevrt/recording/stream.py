"""Any source of upright spikes, and three that lie in files: packed bits, several parts in a row, and SPS100.

SPS100 is the raw stream of 1000 x 1000 spike cameras on PCIe; every half-row carries its own address. A row is 128
bytes, two half-rows of 64: 500 pixels (bit 0 of a byte is the left-most), then 12 tag bits. The last two bytes,
little-endian, hold the channel (bits 15 and 14) and the line (bits 13 to 4, 1 to half the number of rows; 500). A tick
begins with the half-row of the last line, channel 0. A file may begin in the middle of a tick and at any multiple of 16
bytes, and end anywhere. Rows are stored top-down. Where the lines stand between a tick's first half-row and its end is
the camera's affair: every tick must have the tags of the first one.

Dimension key: T ticks, K slices of time, h sensor rows, w sensor columns, B bytes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from spikevrt.recording.sidecar import SPS100_HEIGHT, SPS100_WIDTH, check_sps100_size
from spikevrt.recording.spike_file import (
    HeldSpikes,
    SpikeGeometry,
    check_window,
    count_packed,
    count_ticks,
    counts_dtype,
    map_ticks,
    read_spikes,
)

if TYPE_CHECKING:
    from jaxtyping import Bool, Int64, UInt, UInt8, UInt16

READ_BITS = 1 << 24  # pixels times ticks that are unpacked at once


class SpikeStream(Protocol):
    """Spikes of `height` x `width` pixels over `num_ticks` ticks; only what is asked for is read."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def num_ticks(self) -> int: ...

    @property
    def files(self) -> tuple[Path, ...]:
        """Where the bytes lie, in the order of time."""
        ...

    def read(self, start_tick: int, stop_tick: int) -> UInt8[np.ndarray, "T h w"]:
        """The upright spikes, 0 or 1, of ticks [start_tick, stop_tick). Raises ValueError outside the stream."""
        ...

    def count(self, edges: Sequence[int]) -> UInt[np.ndarray, "K h w"]:
        """Spikes per pixel in ticks [edges[k], edges[k + 1]), for rising edges inside the stream.

        uint16, but uint32 when one of the slices has more than 65535 ticks.
        """
        ...


@dataclass(frozen=True)
class PackedStream:
    """One packed file of known geometry."""

    path: Path
    geometry: SpikeGeometry

    @property
    def height(self) -> int:
        return self.geometry.height

    @property
    def width(self) -> int:
        return self.geometry.width

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    @cached_property
    def num_ticks(self) -> int:
        return count_ticks(self.path, self.geometry)

    def read(self, start_tick: int, stop_tick: int) -> UInt8[np.ndarray, "T h w"]:
        return read_spikes(self.path, self.geometry, start_tick, stop_tick)

    def count(self, edges: Sequence[int]) -> UInt[np.ndarray, "K h w"]:
        """Equal to `count_slices` of what `read` gives, and faster: the bits are counted without unpacking them."""
        check_edges(edges)
        return count_packed(map_ticks(self.path, self.geometry, edges[0], edges[-1]), self.geometry, edges)


@dataclass(frozen=True)
class JoinedStream:
    """Streams of one size, one after the other: the files of a dataset that has one for each frame."""

    streams: tuple[SpikeStream, ...]

    def __post_init__(self) -> None:
        first = self.streams[0]
        for stream in self.streams:
            if (stream.height, stream.width) != (first.height, first.width):
                raise ValueError(
                    f"{stream.files[0]}: {stream.width}x{stream.height} spikes; those before it have "
                    f"{first.width}x{first.height}"
                )

    @property
    def height(self) -> int:
        return self.streams[0].height

    @property
    def width(self) -> int:
        return self.streams[0].width

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(file for stream in self.streams for file in stream.files)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The tick at which each stream begins, and behind them the end."""
        return tuple(int(start) for start in np.cumsum([0, *(stream.num_ticks for stream in self.streams)]))

    @property
    def num_ticks(self) -> int:
        return self.starts[-1]

    def read(self, start_tick: int, stop_tick: int) -> UInt8[np.ndarray, "T h w"]:
        check_window(str(self.files[0].parent), start_tick, stop_tick, self.num_ticks)
        pieces = [
            stream.read(max(start_tick - start, 0), min(stop_tick - start, stream.num_ticks))
            for stream, start in zip(self.streams, self.starts, strict=False)
            if start < stop_tick and start + stream.num_ticks > start_tick
        ]
        if not pieces:
            return np.zeros((0, self.height, self.width), dtype=np.uint8)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def count(self, edges: Sequence[int]) -> UInt[np.ndarray, "K h w"]:
        """Every stream counts what falls into it; nothing is unpacked here."""
        check_edges(edges)
        check_window(str(self.files[0].parent), edges[0], edges[-1], self.num_ticks)
        counts = np.zeros((len(edges) - 1, self.height, self.width), dtype=counts_dtype(edges))
        for stream, start in zip(self.streams, self.starts, strict=False):
            inside = [min(max(edge - start, 0), stream.num_ticks) for edge in edges]
            if inside[0] < inside[-1]:
                counts += stream.count(inside)
        return counts


@dataclass(frozen=True)
class RolledStream:
    """A stream of which each pixel is read `delays` ticks later (0 to `readout_ticks`): what a rolling shutter makes of
    its rows. The last `readout_ticks` ticks are not there."""

    stream: SpikeStream
    delays: Int64[np.ndarray, "h w"]
    readout_ticks: int

    @property
    def height(self) -> int:
        return self.stream.height

    @property
    def width(self) -> int:
        return self.stream.width

    @property
    def files(self) -> tuple[Path, ...]:
        return self.stream.files

    @property
    def num_ticks(self) -> int:
        return max(0, self.stream.num_ticks - self.readout_ticks)

    def read(self, start_tick: int, stop_tick: int) -> UInt8[np.ndarray, "T h w"]:
        check_window(str(self.files[0]), start_tick, stop_tick, self.num_ticks)
        ticks = self.stream.read(start_tick, stop_tick + self.readout_ticks)
        at = self.delays[None] + np.arange(stop_tick - start_tick)[:, None, None]
        return np.take_along_axis(ticks, at, axis=0)

    def count(self, edges: Sequence[int]) -> UInt[np.ndarray, "K h w"]:
        """In runs of ticks, so that a long slice is never unpacked at once."""
        check_edges(edges)
        step = max(1, READ_BITS // (self.height * self.width))
        counts = np.zeros((len(edges) - 1, self.height, self.width), dtype=counts_dtype(edges))
        for k, (first, last) in enumerate(itertools.pairwise(edges)):
            for low in range(first, last, step):
                counts[k] += self.read(low, min(low + step, last)).sum(axis=0, dtype=counts.dtype)
        return counts


def live_ticks(stream: SpikeStream, start_tick: int, stop_tick: int) -> Bool[np.ndarray, " T"]:
    """Whether any pixel fires, for each of the ticks [start_tick, stop_tick). Packed files are not unpacked.

    Raises:
        ValueError: the window is not inside the stream.
    """
    check_window(str(stream.files[0]), start_tick, stop_tick, stream.num_ticks)
    if isinstance(stream, JoinedStream):
        pieces = [
            live_ticks(one, max(start_tick - start, 0), min(stop_tick - start, one.num_ticks))
            for one, start in zip(stream.streams, stream.starts, strict=False)
            if start < stop_tick and start + one.num_ticks > start_tick
        ]
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=bool)
    if isinstance(stream, PackedStream) and stream.geometry.width % 8 == stream.geometry.tag_bits % 8 == 0:
        geometry = stream.geometry
        packed = map_ticks(stream.path, geometry, start_tick, stop_tick)
        if geometry.tag_bits:  # which are no spikes
            rows = packed.reshape(len(packed), geometry.height, geometry.row_bits // 8)
            packed = rows[:, :, : geometry.width // 8].reshape(len(packed), geometry.height * geometry.width // 8)
        return packed.max(axis=1, initial=0) > 0
    live = np.zeros(stop_tick - start_tick, dtype=bool)
    for first, last in _runs(stream, start_tick, stop_tick):
        live[first - start_tick : last - start_tick] = stream.read(first, last).any(axis=(1, 2))
    return live


def count_slices(spikes: UInt8[np.ndarray, "T h w"], edges: Sequence[int]) -> UInt[np.ndarray, "K h w"]:
    """Sums of unpacked spikes between the edges; edges[0] is the first tick of `spikes`. The plain way to count."""
    check_edges(edges)
    assert edges[-1] - edges[0] == len(spikes), (edges[0], edges[-1], len(spikes))
    slices = [spikes[a - edges[0] : b - edges[0]] for a, b in itertools.pairwise(edges)]
    return np.stack([piece.sum(axis=0, dtype=counts_dtype(edges)) for piece in slices])


def count_read(stream: SpikeStream, edges: Sequence[int]) -> UInt[np.ndarray, "K h w"]:
    """`count_slices` of what `stream` reads, some ticks at a time: a long window is never unpacked whole."""
    check_edges(edges)
    counts = np.zeros((len(edges) - 1, stream.height, stream.width), dtype=counts_dtype(edges))
    for first, last in _runs(stream, edges[0], edges[-1]):
        run = stream.read(first, last)
        for k, (a, b) in enumerate(itertools.pairwise(edges)):
            if max(a, first) < min(b, last):
                counts[k] += run[max(a, first) - first : min(b, last) - first].sum(axis=0, dtype=counts.dtype)
    return counts


def _runs(stream: SpikeStream, start_tick: int, stop_tick: int) -> list[tuple[int, int]]:
    """The ticks [start_tick, stop_tick) as runs of at most `READ_BITS` values, and of a tick at least."""
    step = max(1, READ_BITS // (stream.height * stream.width))
    return [(first, min(first + step, stop_tick)) for first in range(start_tick, stop_tick, step)]


def hold(stream: SpikeStream, start_tick: int, stop_tick: int) -> HeldSpikes:
    """The ticks [start_tick, stop_tick) as bits. Raises ValueError as the stream's own `read` does."""
    geometry = SpikeGeometry(stream.width, stream.height, bottom_up=False, tag_bits=-stream.width % 8)
    packed = np.empty((stop_tick - start_tick, geometry.bytes_per_tick), dtype=np.uint8)
    for first, last in _runs(stream, start_tick, stop_tick):
        bits = np.packbits(stream.read(first, last), axis=2, bitorder="little")
        packed[first - start_tick : last - start_tick] = bits.reshape(last - first, -1)
    return HeldSpikes(packed, geometry)


def check_edges(edges: Sequence[int]) -> None:
    assert len(edges) > 1 and all(a <= b for a, b in itertools.pairwise(edges)), edges


HALF_ROW_BYTES, HALF_ROW_PIXELS = 64, 500
STEP_BYTES = 16  # the camera's unit: a file begins at a multiple of it
_TAG_MASK = 0xFFF0


@dataclass(frozen=True)
class Sps100Stream:
    """One raw file; whole ticks only, see `notes`."""

    path: Path
    width: int = SPS100_WIDTH
    height: int = SPS100_HEIGHT

    def __post_init__(self) -> None:
        check_sps100_size(self.width, self.height)

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    @property
    def bytes_per_tick(self) -> int:
        return 2 * self.height * HALF_ROW_BYTES

    @cached_property
    def start_byte(self) -> int:
        """Where the first whole tick begins.

        Raises:
            FileNotFoundError: no such file.
            ValueError: there is none.
        """
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such spike file")
        num_bytes = self.path.stat().st_size
        last = self.height // 2
        searched = min(num_bytes, self.bytes_per_tick + HALF_ROW_BYTES)
        units = self._mapped(0, searched // STEP_BYTES * STEP_BYTES).reshape(-1, STEP_BYTES)
        first_tags = np.flatnonzero(_tags(units) == last << 4)
        for unit in first_tags:
            start = (int(unit) + 1) * STEP_BYTES - HALF_ROW_BYTES
            if start < 0 or start + self.bytes_per_tick > num_bytes:
                continue
            tags = self._tick_tags(start)
            lines = tags >> 4 & 0x3FF
            whole = lines.min() >= 1 and lines.max() <= last and (tags == tags[0]).sum() == 1
            if whole:
                return start
        raise ValueError(
            f"{self.path}: no whole tick of SPS100 half-rows in {num_bytes} bytes (a tick is {self.bytes_per_tick} "
            f"bytes, begins with line {last} of channel 0, and all its half-rows carry lines 1 to {last})"
        )

    @cached_property
    def num_ticks(self) -> int:
        return (self.path.stat().st_size - self.start_byte) // self.bytes_per_tick

    @property
    def notes(self) -> list[str]:
        """What of the file belongs to no whole tick, one line each."""
        tail = (self.path.stat().st_size - self.start_byte) % self.bytes_per_tick
        notes = [f"the first {self.start_byte} bytes are the end of a tick, left out"] if self.start_byte else []
        return notes + ([f"the last {tail} bytes are the beginning of a tick, left out"] if tail else [])

    def read(self, start_tick: int, stop_tick: int) -> UInt8[np.ndarray, "T h w"]:
        """Raises ValueError outside the stream, and at the tick whose tags differ from the first one's."""
        check_window(str(self.path), start_tick, stop_tick, self.num_ticks)
        num_ticks = stop_tick - start_tick
        begin = self.start_byte + start_tick * self.bytes_per_tick
        halves = self._mapped(begin, num_ticks * self.bytes_per_tick).reshape(-1, 2 * self.height, HALF_ROW_BYTES)
        wrong = (_tags(halves) != self._tick_tags(self.start_byte)).any(axis=1)
        if wrong.any():
            tick = start_tick + int(np.argmax(wrong))
            raise ValueError(
                f"{self.path}: the line tags of tick {tick} do not repeat those of tick 0: bytes were lost"
            )
        bits = np.unpackbits(halves, axis=2, count=HALF_ROW_PIXELS, bitorder="little")
        return bits.reshape(num_ticks, self.height, SPS100_WIDTH)

    def count(self, edges: Sequence[int]) -> UInt[np.ndarray, "K h w"]:
        return count_read(self, edges)

    def _mapped(self, begin: int, num_bytes: int) -> UInt8[np.ndarray, " B"]:
        if num_bytes == 0:  # which cannot be mapped
            return np.zeros(0, dtype=np.uint8)
        return np.asarray(np.memmap(self.path, np.uint8, "r", begin, (num_bytes,)))

    def _tick_tags(self, begin: int) -> UInt16[np.ndarray, " n"]:
        return _tags(self._mapped(begin, self.bytes_per_tick).reshape(-1, HALF_ROW_BYTES))


def pack_sps100(spikes: UInt8[np.ndarray, "T h w"]) -> bytes:
    """Upright spikes, 0 or 1, to whole ticks. The lines count down from the first half-row on, four channels each."""
    num_ticks, height, width = spikes.shape
    check_sps100_size(width, height)
    index = np.arange(2 * height)
    tags = ((index % 4) << 14 | (height // 2 - index // 4) << 4).astype("<u2")
    bits = np.zeros((num_ticks, 2 * height, 8 * HALF_ROW_BYTES), dtype=np.uint8)
    bits[:, :, :HALF_ROW_PIXELS] = spikes.reshape(num_ticks, 2 * height, HALF_ROW_PIXELS)
    packed = np.packbits(bits, axis=2, bitorder="little")
    packed[:, :, -2:] |= tags.view(np.uint8).reshape(-1, 2)
    return packed.tobytes()


def _tags(units: UInt8[np.ndarray, "*n B"]) -> UInt16[np.ndarray, "*n"]:
    """The last two bytes of each unit without the four pixels in them."""
    assert math.prod(units.shape) % STEP_BYTES == 0, units.shape
    low, high = units[..., -2].astype(np.uint16), units[..., -1].astype(np.uint16)
    return (low | high << 8) & np.uint16(_TAG_MASK)
