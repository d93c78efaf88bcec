"""Packed spike streams: the one place that knows the order of bits and rows.

A packed stream has no header. One tick is `ceil((width + tag_bits) * height / 8)` bytes; pixels are row-major; bit 0
(the least significant) of a byte is the left-most pixel of its group of eight; the last bits of a tick that fill no
pixel are 0. Some cameras end every row with bits that are no pixels (`tag_bits`). Most store the bottom row first
(`bottom_up`); what this module returns is always upright.

Dimension key: T ticks, K slices of time, H sensor rows, W sensor columns, N bytes, B bytes of one tick.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

import numpy as np

from spikevrt.atomic import complete_or_absent
from spikevrt.typed import amount

if TYPE_CHECKING:
    from jaxtyping import Bool, UInt, UInt8

MAX_ADDED = 255  # ticks whose sum fits a byte
HASH_BYTES = 1 << 22  # read at once for a checksum
LONG_SLICE = 64  # ticks from which adding packed bits is the faster way (benchmarks/bench_unpack.py)


@dataclass(frozen=True)
class SpikeGeometry:
    """The shape of one tick and the order of its rows on disk."""

    width: int
    height: int
    bottom_up: bool = True
    tag_bits: int = 0  # at the end of each row, behind its `width` pixels

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"spike geometry: {self.width}x{self.height}; allowed: width and height of 1 or more")
        if self.tag_bits < 0:
            raise ValueError(f"tag_bits: {self.tag_bits}; allowed: 0 or more")

    @property
    def row_bits(self) -> int:
        return self.width + self.tag_bits

    @property
    def bytes_per_tick(self) -> int:
        return -(-self.row_bits * self.height // 8)

    def __str__(self) -> str:
        tags = f" with {self.tag_bits} tag bits a row" if self.tag_bits else ""
        return f"{self.width}x{self.height}{tags}"


def pack(spikes: UInt8[np.ndarray, "T H W"] | Bool[np.ndarray, "T H W"], geometry: SpikeGeometry) -> bytes:
    """Upright 0/1 spikes to the bytes on disk. Raises ValueError: the spikes have another size than the geometry, or
    values other than 0 and 1."""
    if spikes.ndim != 3 or spikes.shape[1:] != (geometry.height, geometry.width):
        raise ValueError(f"spikes: shape {tuple(spikes.shape)}; allowed: (ticks, {geometry.height}, {geometry.width})")
    if spikes.dtype not in (np.uint8, np.bool_) or (spikes.size and spikes.max() > 1):
        raise ValueError(f"spikes: {spikes.dtype} values other than 0 and 1; allowed: uint8 or bool, 0 or 1")
    rows = spikes[:, ::-1] if geometry.bottom_up else spikes
    if geometry.tag_bits:
        rows = np.pad(rows, ((0, 0), (0, 0), (0, geometry.tag_bits)))
    return np.packbits(
        rows.reshape(len(spikes), geometry.row_bits * geometry.height), axis=1, bitorder="little"
    ).tobytes()


def unpack(data: UInt8[np.ndarray, " N"] | bytes, geometry: SpikeGeometry) -> UInt8[np.ndarray, "T H W"]:
    """The bytes on disk to upright spikes, uint8 0 or 1. Rows of whole bytes are put in order before they are unpacked.
    Raises ValueError: the bytes are no whole number of ticks."""
    flat = np.frombuffer(data, dtype=np.uint8)
    num_ticks = whole_ticks("spikes", flat.size, geometry, geometry.bytes_per_tick)
    height, width = geometry.height, geometry.width
    if width % 8 == 0 and geometry.row_bits % 8 == 0:
        rows = flat.reshape(num_ticks, height, geometry.row_bits // 8)[:, :, : width // 8]
        rows = np.ascontiguousarray(rows[:, ::-1] if geometry.bottom_up else rows)
        return np.unpackbits(rows.reshape(num_ticks, height * width // 8), axis=1, bitorder="little").reshape(
            num_ticks, height, width
        )
    packed = flat.reshape(num_ticks, geometry.bytes_per_tick)
    bits = np.unpackbits(packed, axis=1, count=geometry.row_bits * height, bitorder="little")
    rows = bits.reshape(num_ticks, height, geometry.row_bits)[:, :, :width]
    return rows[:, ::-1].copy() if geometry.bottom_up else np.ascontiguousarray(rows)


def count_packed(
    packed: UInt8[np.ndarray, "T B"], geometry: SpikeGeometry, edges: Sequence[int]
) -> UInt[np.ndarray, "K H W"]:
    """Upright spikes per pixel between the edges; edges[0] is the first tick of `packed`. `unpack` and `count_slices`
    in one, without the unpacked stream: short slices add one unpacked tick after the other while it is in the cache,
    long ones are added as packed bits (`_add_bits`) and only the sums are unpacked.
    """
    num_bits = geometry.row_bits * geometry.height
    dtype = counts_dtype(edges)
    counts = np.empty((len(edges) - 1, geometry.height, geometry.width), dtype=dtype)
    for k, (start, stop) in enumerate(itertools.pairwise(edges)):
        total: np.ndarray | None = None
        for first in range(start - edges[0], stop - edges[0], MAX_ADDED):
            ticks = packed[first : min(first + MAX_ADDED, stop - edges[0])]
            part = _sum_of_planes(_add_bits(ticks), num_bits) if len(ticks) >= LONG_SLICE else _sum(ticks, num_bits)
            total = part if total is None else np.add(total, part, dtype=dtype)
        if total is None:
            counts[k] = 0
            continue
        rows = total.reshape(geometry.height, geometry.row_bits)[:, : geometry.width]
        counts[k] = rows[::-1] if geometry.bottom_up else rows
    return counts


@dataclass(frozen=True)
class HeldSpikes:
    """The ticks of a window, held as bits, of which only some rows are unpacked at a time; a slice is one of ticks.
    Rows are upright and of whole bytes. `stream.hold` reads them."""

    packed: UInt8[np.ndarray, "T B"]
    geometry: SpikeGeometry

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.packed), self.geometry.height, self.geometry.width

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, ticks: slice) -> HeldSpikes:
        return HeldSpikes(self.packed[ticks], self.geometry)

    def rows(self, top: int, stop: int) -> UInt8[np.ndarray, "T rows w"]:
        """The spikes, 0 or 1, of rows [top, stop)."""
        bits = self.packed.reshape(len(self), self.geometry.height, self.geometry.row_bits // 8)[:, top:stop]
        return np.unpackbits(bits, axis=2, count=self.geometry.width, bitorder="little")

    def count(self, edges: Sequence[int]) -> UInt[np.ndarray, "K h w"]:
        """Spikes per pixel between the edges, which are ticks of the window, from the first to the last."""
        return count_packed(self.packed[edges[0] : edges[-1]], self.geometry, edges)

    def live(self) -> Bool[np.ndarray, " T"]:
        """Whether any pixel fires, for each tick."""
        return self.packed.max(axis=1, initial=0) > 0


def counts_dtype(edges: Sequence[int]) -> type[np.uint16] | type[np.uint32]:
    """The type that holds a spike in every tick of the longest slice."""
    return np.uint16 if max(b - a for a, b in itertools.pairwise(edges)) < 1 << 16 else np.uint32


def _sum(ticks: UInt8[np.ndarray, "T B"], num_bits: int) -> UInt8[np.ndarray, " N"]:
    """Sum of at most 255 ticks, bit by bit."""
    total = np.unpackbits(ticks[0], count=num_bits, bitorder="little")
    for tick in ticks[1:]:
        total += np.unpackbits(tick, count=num_bits, bitorder="little")
    return total


def _add_bits(ticks: UInt8[np.ndarray, "T B"]) -> list[UInt8[np.ndarray, " B"]]:
    """Sum of the ticks as packed binary digits, the lowest first. Three rows of one weight become one of that weight
    and a carry of the next (a full adder in bitwise operations) until one row of each weight is left.
    """
    digits: list[np.ndarray] = []
    rows = ticks
    while len(rows):
        carries = []
        while len(rows) > 2:
            third = len(rows) // 3
            a, b, c = rows[:third], rows[third : 2 * third], rows[2 * third : 3 * third]
            a_xor_b = a ^ b
            carries.append((a & b) | (a_xor_b & c))
            rows = np.concatenate([a_xor_b ^ c, rows[3 * third :]])
        if len(rows) == 2:
            carries.append(rows[:1] & rows[1:])
            rows = rows[:1] ^ rows[1:]
        digits.append(rows[0])
        rows = np.concatenate(carries) if carries else rows[:0]
    return digits


def _sum_of_planes(digits: list[UInt8[np.ndarray, " B"]], num_bits: int) -> UInt8[np.ndarray, " N"]:
    total = np.unpackbits(digits[-1], count=num_bits, bitorder="little")
    for digit in reversed(digits[:-1]):
        total <<= 1
        total |= np.unpackbits(digit, count=num_bits, bitorder="little")
    return total


def count_ticks(path: Path, geometry: SpikeGeometry) -> int:
    """Number of ticks of a packed file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is empty or no whole number of ticks.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such spike file")
    num_bytes = path.stat().st_size
    if num_bytes == 0:
        raise ValueError(f"{path}: an empty spike file")
    return whole_ticks(str(path), num_bytes, geometry, geometry.bytes_per_tick)


def read_spikes(
    path: Path, geometry: SpikeGeometry, start_tick: int = 0, stop_tick: int | None = None
) -> UInt8[np.ndarray, "T H W"]:
    """The upright spikes of ticks [start_tick, stop_tick); only those bytes are read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the window is not inside the stream, or the file is no whole number of ticks.
    """
    return unpack(map_ticks(path, geometry, start_tick, stop_tick).reshape(-1), geometry)


def map_ticks(path: Path, geometry: SpikeGeometry, start_tick: int, stop_tick: int | None) -> UInt8[np.ndarray, "T B"]:
    """The packed bytes of ticks [start_tick, stop_tick), mapped: none is read before it is used. Raises as above."""
    num_ticks = count_ticks(path, geometry)
    stop_tick = num_ticks if stop_tick is None else stop_tick
    check_window(str(path), start_tick, stop_tick, num_ticks)
    stream = np.memmap(path, dtype=np.uint8, mode="r", shape=(num_ticks, geometry.bytes_per_tick))
    return np.asarray(stream[start_tick:stop_tick])


def check_window(name: str, start_tick: int, stop_tick: int, num_ticks: int) -> None:
    """Raises ValueError unless the window lies inside a stream of `num_ticks` ticks."""
    if not 0 <= start_tick <= stop_tick <= num_ticks:
        raise ValueError(f"{name}: ticks [{start_tick}, {stop_tick}) asked for; allowed: inside [0, {num_ticks})")


class SpikeWriter:
    """Write a packed stream piece by piece; the file gets its name only when the block ends without an error.

    with SpikeWriter(path, geometry) as writer:
        writer.append(spikes)          # uint8 (T, H, W), as often as needed
    writer.num_ticks, writer.sha256    # what was written
    """

    def __init__(self, path: Path, geometry: SpikeGeometry) -> None:
        self.path = Path(path)
        self.geometry = geometry
        self.num_ticks = 0
        self._stack = contextlib.ExitStack()
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self._complete = False

    def __enter__(self) -> Self:
        partial = self._stack.enter_context(complete_or_absent(self.path))
        self._file = self._stack.enter_context(open(partial, "wb"))
        return self

    def append(self, spikes: UInt8[np.ndarray, "T H W"] | Bool[np.ndarray, "T H W"]) -> None:
        """Add upright ticks at the end. Raises ValueError as `pack` does."""
        assert self._file is not None, "append is for inside the with block"
        data = pack(spikes, self.geometry)
        self._file.write(data)
        self._digest.update(data)
        self.num_ticks += len(spikes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file = None
        self._stack.__exit__(kind, error, trace)
        self._complete = kind is None

    @property
    def sha256(self) -> str:
        assert self._complete, "the checksum is known when the with block has ended"
        return self._digest.hexdigest()


def sha256_file(path: Path) -> str:
    """Checksum of a file's bytes, in hexadecimal."""
    return sha256_files([path])


def sha256_files(paths: Iterable[Path], tell: Callable[[int], None] | None = None) -> str:
    """Checksum of the bytes of files, one after the other, in hexadecimal; `tell(bytes)` as they are read."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(HASH_BYTES):
                digest.update(block)
                if tell is not None:
                    tell(len(block))
    return digest.hexdigest()


def whole_ticks(name: str, num_bytes: int, geometry: SpikeGeometry, tick_bytes: int) -> int:
    """How many ticks these bytes are. Raises ValueError where the last one is not whole, with what keeps the others."""
    num_ticks, remainder = divmod(num_bytes, tick_bytes)
    if remainder:
        told = f"{num_bytes} bytes are no whole number of ticks of {geometry} ({tick_bytes} bytes each)"
        kept = f"; if it was cut short, head -c {num_bytes - remainder} keeps its {amount(num_ticks, 'whole tick')}"
        raise ValueError(f"{name}: {told}: {amount(remainder, 'byte')} too many{kept if num_ticks else ''}")
    return num_ticks
