"""Any source of upright spikes, and the two that everything else is made of: one packed file, several parts in a row.

Dimension key: T ticks, K slices of time, h sensor rows, w sensor columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from spikevrt.recording.spike_file import (
    SpikeGeometry,
    count_packed,
    count_ticks,
    counts_dtype,
    map_ticks,
    read_spikes,
)

if TYPE_CHECKING:
    from jaxtyping import Bool, UInt, UInt8

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
        """Equal to `count_slices` of what `read` gives, and faster: the bits are counted where they lie."""
        check_edges(edges)
        return count_packed(map_ticks(self.path, self.geometry, edges[0], edges[-1]), self.geometry, edges)


@dataclass(frozen=True)
class JoinedStream:
    """Streams of one size, one after the other: the files of a dataset that has one for each frame."""

    parts: tuple[SpikeStream, ...]

    def __post_init__(self) -> None:
        first = self.parts[0]
        for part in self.parts:
            if (part.height, part.width) != (first.height, first.width):
                raise ValueError(
                    f"{part.files[0]}: {part.width}x{part.height} spikes; the parts before it have "
                    f"{first.width}x{first.height}"
                )

    @property
    def height(self) -> int:
        return self.parts[0].height

    @property
    def width(self) -> int:
        return self.parts[0].width

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(file for part in self.parts for file in part.files)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The tick at which each part begins, and behind them the end."""
        return tuple(int(start) for start in np.cumsum([0, *(part.num_ticks for part in self.parts)]))

    @property
    def num_ticks(self) -> int:
        return self.starts[-1]

    def read(self, start_tick: int, stop_tick: int) -> UInt8[np.ndarray, "T h w"]:
        check_window(str(self.files[0].parent), start_tick, stop_tick, self.num_ticks)
        pieces = [
            part.read(max(start_tick - start, 0), min(stop_tick - start, part.num_ticks))
            for part, start in zip(self.parts, self.starts, strict=False)
            if start < stop_tick and start + part.num_ticks > start_tick
        ]
        if not pieces:
            return np.zeros((0, self.height, self.width), dtype=np.uint8)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def count(self, edges: Sequence[int]) -> UInt[np.ndarray, "K h w"]:
        """Every part counts what falls into it; nothing is unpacked here."""
        check_edges(edges)
        check_window(str(self.files[0].parent), edges[0], edges[-1], self.num_ticks)
        counts = np.zeros((len(edges) - 1, self.height, self.width), dtype=counts_dtype(edges))
        for part, start in zip(self.parts, self.starts, strict=False):
            inside = [min(max(edge - start, 0), part.num_ticks) for edge in edges]
            if inside[0] < inside[-1]:
                counts += part.count(inside)
        return counts


def live_ticks(stream: SpikeStream, start_tick: int, stop_tick: int) -> Bool[np.ndarray, " T"]:
    """Whether any pixel fires, for each of the ticks [start_tick, stop_tick). Packed files are looked at as they lie.

    Raises:
        ValueError: the window is not inside the stream.
    """
    check_window(str(stream.files[0]), start_tick, stop_tick, stream.num_ticks)
    if isinstance(stream, JoinedStream):
        pieces = [
            live_ticks(part, max(start_tick - start, 0), min(stop_tick - start, part.num_ticks))
            for part, start in zip(stream.parts, stream.starts, strict=False)
            if start < stop_tick and start + part.num_ticks > start_tick
        ]
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=bool)
    if isinstance(stream, PackedStream) and stream.geometry.width % 8 == stream.geometry.tag_bits % 8 == 0:
        geometry = stream.geometry
        packed = map_ticks(stream.path, geometry, start_tick, stop_tick)
        if geometry.tag_bits:  # which are no spikes
            rows = packed.reshape(len(packed), geometry.height, geometry.row_bits // 8)
            packed = rows[:, :, : geometry.width // 8].reshape(len(packed), geometry.height * geometry.width // 8)
        return packed.max(axis=1, initial=0) > 0
    step = max(1, READ_BITS // (stream.height * stream.width))
    live = np.zeros(stop_tick - start_tick, dtype=bool)
    for first in range(start_tick, stop_tick, step):
        spikes = stream.read(first, min(first + step, stop_tick))
        live[first - start_tick : first - start_tick + len(spikes)] = spikes.any(axis=(1, 2))
    return live


def count_slices(spikes: UInt8[np.ndarray, "T h w"], edges: Sequence[int]) -> UInt[np.ndarray, "K h w"]:
    """Sums of unpacked spikes between the edges; edges[0] is the first tick of `spikes`. The plain way to count."""
    check_edges(edges)
    assert edges[-1] - edges[0] == len(spikes), (edges[0], edges[-1], len(spikes))
    slices = [spikes[a - edges[0] : b - edges[0]] for a, b in itertools.pairwise(edges)]
    return np.stack([piece.sum(axis=0, dtype=counts_dtype(edges)) for piece in slices])


def check_edges(edges: Sequence[int]) -> None:
    assert len(edges) > 1 and all(a <= b for a, b in itertools.pairwise(edges)), edges


def check_window(name: str, start_tick: int, stop_tick: int, num_ticks: int) -> None:
    """Raises ValueError unless the window lies inside a stream of `num_ticks` ticks."""
    if not 0 <= start_tick <= stop_tick <= num_ticks:
        raise ValueError(f"{name}: ticks [{start_tick}, {stop_tick}) asked for; allowed: inside [0, {num_ticks})")
