"""The raw stream of 1000 x 1000 spike cameras on PCIe (SPS100): every half-row carries its own address.

A row is 128 bytes, two half-rows of 64: 500 pixels (bit 0 of a byte is the left-most), then 12 tag bits. The last two
bytes, little-endian, hold the channel (bits 15 and 14) and the line (bits 13 to 4, 1 to half the number of rows; 500).
A tick begins with the half-row of the last line, channel 0. A file may begin in the middle of a tick and at any
multiple of 16 bytes, and end anywhere. Rows are stored top-down. Where the lines stand between a tick's first half-row
and its end is the camera's affair: every tick must have the tags of the first one.

Dimension key: T ticks, h sensor rows, w sensor columns, B bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spikevrt.recording.spike_kinds import SPIKE_KINDS
from spikevrt.recording.stream import check_window, count_slices

if TYPE_CHECKING:
    from jaxtyping import UInt, UInt8, UInt16

_SIZE = SPIKE_KINDS["sps100"].size
assert _SIZE is not None
WIDTH, HEIGHT = _SIZE
HALF_ROW_BYTES, HALF_ROW_PIXELS = 64, 500
STEP_BYTES = 16  # the camera's unit: a file begins at a multiple of it
_TAG_MASK = 0xFFF0


@dataclass(frozen=True)
class Sps100Stream:
    """One raw file; whole ticks only, see `notes`."""

    path: Path
    width: int = WIDTH
    height: int = HEIGHT

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
        return bits.reshape(num_ticks, self.height, WIDTH)

    def count(self, edges: Sequence[int]) -> UInt[np.ndarray, "K h w"]:
        return count_slices(self.read(edges[0], edges[-1]), edges)

    def _mapped(self, begin: int, num_bytes: int) -> UInt8[np.ndarray, " B"]:
        if num_bytes == 0:  # which cannot be mapped
            return np.zeros(0, dtype=np.uint8)
        return np.asarray(np.memmap(self.path, np.uint8, "r", begin, (num_bytes,)))

    def _tick_tags(self, begin: int) -> UInt16[np.ndarray, " n"]:
        return _tags(self._mapped(begin, self.bytes_per_tick).reshape(-1, HALF_ROW_BYTES))


def check_sps100_size(width: int, height: int) -> None:
    """Raises ValueError for a size that the half-rows cannot carry."""
    highest = 2 * 0x3FF
    if width != WIDTH or height % 2 or not 2 <= height <= highest:
        raise ValueError(f"sps100: {width}x{height}; allowed: {WIDTH} columns, and 2 to {highest} rows, an even number")


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
