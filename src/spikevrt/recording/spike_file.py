"""Packed spike streams: the one place that knows the order of bits and rows.

A packed stream has no header. One tick is `ceil(width * height / 8)` bytes; pixels are row-major; bit 0 (the least
significant) of a byte is the left-most pixel of its group of eight; the last bits of a tick that fill no pixel are 0.
Most spike cameras store the bottom row first (`bottom_up`); what this module returns is always upright.

Dimension key: T ticks, H sensor rows, W sensor columns, N bytes.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import UInt8

UNPACKED_SUFFIXES = (".npz", ".npy")


@dataclass(frozen=True)
class SpikeGeometry:
    """The shape of one tick and the order of its rows on disk."""

    width: int
    height: int
    bottom_up: bool = True

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"spike geometry: {self.width}x{self.height}; allowed: width and height of 1 or more")

    @property
    def bytes_per_tick(self) -> int:
        return -(-self.width * self.height // 8)


def pack(spikes: UInt8[np.ndarray, "T H W"], geometry: SpikeGeometry) -> bytes:
    """Upright 0/1 spikes to the bytes on disk.

    Raises:
        ValueError: the spikes have another size than the geometry, or values other than 0 and 1.
    """
    if spikes.ndim != 3 or spikes.shape[1:] != (geometry.height, geometry.width):
        raise ValueError(f"spikes: shape {tuple(spikes.shape)}; allowed: (ticks, {geometry.height}, {geometry.width})")
    if spikes.dtype not in (np.uint8, np.bool_) or (spikes.size and spikes.max() > 1):
        raise ValueError(f"spikes: {spikes.dtype} values other than 0 and 1; allowed: uint8 or bool, 0 or 1")
    rows = spikes[:, ::-1] if geometry.bottom_up else spikes
    return np.packbits(rows.reshape(len(spikes), geometry.width * geometry.height), axis=1, bitorder="little").tobytes()


def unpack(data: UInt8[np.ndarray, " N"] | bytes, geometry: SpikeGeometry) -> UInt8[np.ndarray, "T H W"]:
    """The bytes on disk to upright spikes, uint8 0 or 1.

    Raises:
        ValueError: the bytes are no whole number of ticks.
    """
    flat = np.frombuffer(data, dtype=np.uint8)
    num_ticks = _whole_ticks("spikes", flat.size, geometry)
    packed = flat.reshape(num_ticks, geometry.bytes_per_tick)
    bits = np.unpackbits(packed, axis=1, count=geometry.width * geometry.height, bitorder="little")
    rows = bits.reshape(num_ticks, geometry.height, geometry.width)
    return rows[:, ::-1].copy() if geometry.bottom_up else rows


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
    return _whole_ticks(str(path), num_bytes, geometry)


def read_spikes(
    path: Path, geometry: SpikeGeometry, start_tick: int = 0, stop_tick: int | None = None
) -> UInt8[np.ndarray, "T H W"]:
    """The upright spikes of ticks [start_tick, stop_tick); only those bytes are read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the window is not inside the stream, or the file is no whole number of ticks.
    """
    num_ticks = count_ticks(path, geometry)
    stop_tick = num_ticks if stop_tick is None else stop_tick
    if not 0 <= start_tick <= stop_tick <= num_ticks:
        raise ValueError(f"{path}: ticks [{start_tick}, {stop_tick}) asked for; allowed: inside [0, {num_ticks})")
    stream = np.memmap(path, dtype=np.uint8, mode="r", shape=(num_ticks, geometry.bytes_per_tick))
    return unpack(stream[start_tick:stop_tick].reshape(-1), geometry)


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
        self._partial = self.path.with_name(f".{self.path.name}.partial-{os.getpid()}")
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self._complete = False

    def __enter__(self) -> Self:
        self._file = open(self._partial, "wb")
        return self

    def append(self, spikes: UInt8[np.ndarray, "T H W"]) -> None:
        """Add upright ticks at the end. Raises ValueError as `pack` does."""
        assert self._file is not None, "append is for inside the with block"
        data = pack(spikes, self.geometry)
        self._file.write(data)
        self._digest.update(data)
        self.num_ticks += len(spikes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()
        self._file = None
        if kind is None:
            os.replace(self._partial, self.path)
            self._complete = True
        else:
            self._partial.unlink(missing_ok=True)

    @property
    def sha256(self) -> str:
        assert self._complete, "the checksum is known when the with block has ended"
        return self._digest.hexdigest()


def read_unpacked(path: Path) -> UInt8[np.ndarray, "T H W"]:
    """Upright spikes from an array file: .npy (T, H, W), or .npz with key `spk` (T, H, W) or `arr_0` (H, W, T).

    Raises:
        FileNotFoundError: no such file.
        ValueError: another suffix, a damaged file, no such key, or values other than 0 and 1.
    """
    path = Path(path)
    if path.suffix.lower() not in UNPACKED_SUFFIXES:
        raise ValueError(f"{path}: not an array file; allowed: {', '.join(UNPACKED_SUFFIXES)}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such spike file")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            spikes = loaded
        else:
            with loaded:
                if "spk" in loaded.files:
                    spikes = loaded["spk"]
                elif "arr_0" in loaded.files:
                    spikes = np.moveaxis(loaded["arr_0"], -1, 0)
                else:
                    raise ValueError(
                        f"holds {', '.join(loaded.files) or 'nothing'}; allowed keys: spk (T,H,W), arr_0 (H,W,T)"
                    )
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
    if spikes.ndim != 3 or spikes.dtype not in (np.uint8, np.bool_) or (spikes.size and spikes.max() > 1):
        raise ValueError(f"{path}: {spikes.dtype} {spikes.shape}; allowed: three axes of uint8 or bool, 0 or 1")
    return np.ascontiguousarray(spikes, dtype=np.uint8)


def sha256_file(path: Path) -> str:
    """Checksum of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _whole_ticks(name: str, num_bytes: int, geometry: SpikeGeometry) -> int:
    num_ticks, remainder = divmod(num_bytes, geometry.bytes_per_tick)
    if remainder:
        raise ValueError(
            f"{name}: {num_bytes} bytes are no whole number of ticks of {geometry.width}x{geometry.height} "
            f"({geometry.bytes_per_tick} bytes each): {remainder} bytes remain"
        )
    return num_ticks
