"""Arrays of a number per value on disk: raw bytes, .npy, .npz members, HDF5 datasets; windows of them, and streams.

Nothing is trusted: what a header declares is held against the file's size before anything is read, and nothing in a
file is executed (no pickles, no links to other files).

Dimension key: T ticks, K slices of time, P planes of 8 ticks, h sensor rows, w sensor columns, a b c three axes in any
order.
"""

from __future__ import annotations

import contextlib
import math
import re
import struct
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from spikevrt.recording.spike_file import check_window
from spikevrt.recording.stream import count_read

if TYPE_CHECKING:
    from jaxtyping import Shaped, UInt, UInt8

MAX_INFLATED_BYTES = 1 << 32  # of a compressed array, which takes as much of the temporary folder
MAX_RATIO = 1040  # deflate cannot shrink further (zlib's technical details: 1032 to 1)
MAX_CHUNK_BYTES = 1 << 28  # of an HDF5 dataset: what one read unpacks at least
BYTES, NUMBERS = "[ub]1", "b1|[iu][1248]|f[248]"  # types of values, behind the byte order
_NPY_MAGIC, _NPY_HEADER_BYTES = b"\x93NUMPY", 4096
_ZIP_LOCAL_HEADER = struct.Struct("<4s22xHH")


class StoredArray(Protocol):
    """Three axes of bytes on disk, or of wider numbers that are all 0 or 1."""

    @property
    def path(self) -> Path: ...

    @property
    def shape(self) -> tuple[int, int, int]: ...

    def along(self, axis: int, start: int, stop: int) -> UInt8[np.ndarray, "a b c"]:
        """Entries [start, stop) of one axis, all of the others."""
        ...


@dataclass(frozen=True)
class MappedArray:
    """Values that lie in a file as they are; only what is used is read."""

    path: Path
    shape: tuple[int, int, int]
    offset: int = 0
    column_major: bool = False
    dtype: str = "|u1"
    member: str = ""  # of an .npz that it lies in

    def __post_init__(self) -> None:
        num_bytes, end = self.path.stat().st_size, self.offset + _num_bytes(self.dtype, self.shape)
        if end > num_bytes:
            raise ValueError(f"{self.path}: {num_bytes} bytes, but an array {self.shape} needs {end}")

    def along(self, axis: int, start: int, stop: int) -> UInt8[np.ndarray, "a b c"]:
        _ = not self.member or self.is_whole
        order = "F" if self.column_major else "C"
        mapped = np.memmap(self.path, self.dtype, "r", self.offset, self.shape, order)  # type: ignore[call-overload]
        return _as_bytes(self.path, np.asarray(mapped)[_window(axis, start, stop)])

    @cached_property
    def is_whole(self) -> bool:
        """True, or ValueError where the checksum of a member does not hold, for which it is read once."""
        with _one_line(self.path), zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
            while file.read(1 << 20):
                pass
        return True


@dataclass(frozen=True)
class InflatedArray:
    """A compressed member of an .npz; unpacked whole at the first read, into a temporary file that is then mapped."""

    path: Path
    shape: tuple[int, int, int]
    member: str
    offset: int
    column_major: bool = False
    dtype: str = "|u1"

    def __post_init__(self) -> None:
        if (size := _num_bytes(self.dtype, self.shape)) > MAX_INFLATED_BYTES:
            raise ValueError(
                f"{self.path}: {self.member} declares {size} bytes; allowed: {MAX_INFLATED_BYTES} in "
                f"a compressed member (one that is stored without compression has no limit)"
            )

    @cached_property
    def values(self) -> Shaped[np.ndarray, "a b c"]:
        size = _num_bytes(self.dtype, self.shape)
        with tempfile.TemporaryFile() as unpacked:  # without a name: it is deleted when the last handle is closed
            with _one_line(self.path), zipfile.ZipFile(self.path) as archive:
                with archive.open(self.member) as file:
                    file.read(self.offset)
                    filled = 0
                    while filled < size:
                        piece = file.read(min(1 << 20, size - filled))
                        if not piece:
                            raise ValueError(f"{self.member} ends after {filled} of {size} bytes")
                        unpacked.write(piece)
                        filled += len(piece)
                    file.read(1)  # the end: here the checksum is compared
                    unpacked.flush()
            order = "F" if self.column_major else "C"
            return np.asarray(np.memmap(unpacked, self.dtype, "r", 0, self.shape, order))  # type: ignore[call-overload]

    def along(self, axis: int, start: int, stop: int) -> UInt8[np.ndarray, "a b c"]:
        return _as_bytes(self.path, self.values[_window(axis, start, stop)])


@dataclass(frozen=True)
class H5Array:
    """A dataset of an HDF5 file; each read opens the file and unpacks the chunks that it touches."""

    path: Path
    shape: tuple[int, int, int]
    key: str

    def along(self, axis: int, start: int, stop: int) -> UInt8[np.ndarray, "a b c"]:
        with _one_line(self.path), _open_h5(self.path) as file:
            return _as_bytes(self.path, np.asarray(file[self.key][_window(axis, start, stop)]))


@dataclass(frozen=True)
class ArrayStream:
    """A number per pixel and tick, 0 or 1; axes "THW" or "HWT" (time last)."""

    array: StoredArray
    axes: str = "THW"
    bottom_up: bool = False

    @property
    def num_ticks(self) -> int:
        return self.array.shape[self.axes.index("T")]

    @property
    def height(self) -> int:
        return self.array.shape[self.axes.index("H")]

    @property
    def width(self) -> int:
        return self.array.shape[self.axes.index("W")]

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.array.path,)

    def read(self, start_tick: int, stop_tick: int) -> UInt8[np.ndarray, "T h w"]:
        """Raises ValueError outside the stream, and where a value is neither 0 nor 1."""
        check_window(str(self.array.path), start_tick, stop_tick, self.num_ticks)
        window = self.array.along(self.axes.index("T"), start_tick, stop_tick)
        if window.size and window.max() > 1:
            raise ValueError(f"{self.array.path}: holds {window.max()}; allowed: spikes, 0 or 1")
        upright = np.moveaxis(window, self.axes.index("T"), 0)
        return (upright[:, ::-1] if self.bottom_up else upright).copy()

    def count(self, edges: Sequence[int]) -> UInt[np.ndarray, "K h w"]:
        return count_read(self, edges)


@dataclass(frozen=True)
class TimePackedStream:
    """Bytes (P, h, w): bit i of plane k is tick 8 k + i."""

    array: StoredArray
    num_ticks: int
    bottom_up: bool = False

    @property
    def height(self) -> int:
        return self.array.shape[1]

    @property
    def width(self) -> int:
        return self.array.shape[2]

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.array.path,)

    def read(self, start_tick: int, stop_tick: int) -> UInt8[np.ndarray, "T h w"]:
        check_window(str(self.array.path), start_tick, stop_tick, self.num_ticks)
        first = start_tick // 8
        planes = self.array.along(0, first, -(-stop_tick // 8))
        ticks = np.unpackbits(planes, axis=0, bitorder="little")[start_tick - 8 * first : stop_tick - 8 * first]
        return (ticks[:, ::-1] if self.bottom_up else ticks).copy()

    def count(self, edges: Sequence[int]) -> UInt[np.ndarray, "K h w"]:
        return count_read(self, edges)


def open_npy(path: Path) -> MappedArray:
    """The array of an .npy file. Raises ValueError unless it has three axes of numbers."""
    shape, column_major, offset, dtype = _spikes_header(str(path), _head(path), NUMBERS)
    if (num_bytes := path.stat().st_size) > (end := offset + _num_bytes(dtype, shape)):
        raise ValueError(f"{path}: {num_bytes} bytes, but an array {shape} has {end}")
    return MappedArray(path, shape, offset, column_major, dtype)


def load_npy(path: Path) -> np.ndarray:
    """An .npy file of any plain type, mapped. Raises ValueError when it is none, or a damaged one."""
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except FileNotFoundError:
        raise
    except Exception as error:  # NumPy raises many types of error for a damaged header
        raise ValueError(f"{path}: damaged array ({' '.join(str(error).split()) or type(error).__name__})") from None


def npz_keys(path: Path) -> list[str]:
    """The names of the arrays in an .npz file. Raises ValueError when it is none."""
    with _one_line(path), zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        return [name for name in names if name.isprintable()]


def open_npz(path: Path, key: str, types: str = NUMBERS) -> MappedArray | InflatedArray:
    """One array of an .npz file: mapped where it is stored as it is, else unpacked at the first read. Raises
    ValueError: a damaged or encrypted archive, one that declares more than it can hold, or other than three axes of
    these `types`."""
    with _one_line(path), zipfile.ZipFile(path) as archive:
        info = _member(archive, f"{key}.npy")
        with archive.open(info) as file:
            head = file.read(_NPY_HEADER_BYTES)
    shape, column_major, offset, dtype = _spikes_header(f"{path}: {key}", head, types)
    if (end := offset + _num_bytes(dtype, shape)) != info.file_size:
        raise ValueError(f"{path}: {key} has {info.file_size} bytes, but an array {shape} needs {end}")
    if info.compress_type != zipfile.ZIP_STORED:
        return InflatedArray(path, shape, info.filename, offset, column_major, dtype)
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        _, name_bytes, extra_bytes = _ZIP_LOCAL_HEADER.unpack(file.read(_ZIP_LOCAL_HEADER.size))
    begin = info.header_offset + _ZIP_LOCAL_HEADER.size + name_bytes + extra_bytes
    return MappedArray(path, shape, begin + offset, column_major, dtype, info.filename)


def npz_number(path: Path, key: str) -> int | None:
    """A single whole number in an .npz file; None when there is no such key. Raises ValueError when it is another."""
    with _one_line(path), zipfile.ZipFile(path) as archive:
        if f"{key}.npy" not in archive.namelist():
            for info in archive.infolist():
                archive.open(info).close()  # a zip holds names twice: one of them may have been this
            return None
        with archive.open(_member(archive, f"{key}.npy")) as file:
            head = file.read(_NPY_HEADER_BYTES)
    descr, _, shape, offset = _npy_header(f"{path}: {key}", head)
    if math.prod(shape) != 1 or not re.fullmatch(r"[|<>=]?[iu][1248]", descr):
        raise ValueError(f"{path}: {key} is {descr} {shape}; allowed: one whole number")
    dtype = np.dtype(descr)
    if len(head) < offset + dtype.itemsize:
        raise ValueError(f"{path}: {key} is cut off")
    return int(np.frombuffer(head, dtype, 1, offset)[0])


def h5_keys(path: Path) -> list[str]:
    """The paths of the datasets of three axes of numbers in an HDF5 file. Raises ValueError when it is none."""
    found: list[str] = []

    def look(name: str, item: Any) -> None:
        if name.isprintable() and hasattr(item, "shape") and len(item.shape or ()) == 3 and item.dtype.kind in "buif":
            found.append(name)

    with _one_line(path), _open_h5(path) as file:
        file.visititems(look)
    return found


def open_h5(path: Path, key: str) -> H5Array:
    """One dataset of an HDF5 file. Raises ValueError: no such dataset, other than three axes of numbers, data in
    other files (external, virtual, or behind links), or fewer bytes in the file than the shape declares."""
    h5py = load_h5py(path)
    with _one_line(path), _open_h5(path) as file:
        parts = [part for part in key.split("/") if part]
        for depth in range(len(parts)):
            if not isinstance(file.get("/".join(parts[: depth + 1]), getlink=True), h5py.HardLink):
                raise ValueError(f"no dataset {key!r} in this file")
        data = file[key]
        if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
            raise ValueError(f"{key!r} is no dataset of this file's own")
        if len(data.shape or ()) != 3 or data.dtype.kind not in "buif":
            raise ValueError(f"{key}: {str(data.dtype)[:80]} {data.shape}; allowed: three axes of numbers")
        shape, held = tuple(int(size) for size in data.shape), int(data.id.get_storage_size())
        declared, chunk = (data.dtype.itemsize * math.prod(sizes) for sizes in (shape, data.chunks or (0,)))
    _check_ratio(f"{path}: {key}", declared, min(held, path.stat().st_size))
    if chunk > min(MAX_CHUNK_BYTES, MAX_RATIO * held):
        raise ValueError(f"{path}: {key}: chunks of {chunk} bytes; allowed: {MAX_CHUNK_BYTES}")
    return H5Array(path, _three(f"{path}: {key}", shape), key)


def load_h5py(path: Path) -> Any:
    """The library. Raises ValueError, naming the file that needs it, where it is not installed."""
    try:
        import h5py
    except ImportError:
        raise ValueError(f"{path}: needs h5py; pip install 'spikevrt[formats]'") from None
    return h5py


@contextlib.contextmanager
def _open_h5(path: Path) -> Iterator[Any]:
    with load_h5py(path).File(path, "r") as file:
        yield file


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """What zipfile or h5py say of a damaged file, in errors of many types, as one line that names the file."""
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(text if text.startswith(str(path)) else f"{path}: {text}") from None


def _member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    if name not in archive.namelist():
        raise ValueError(f"no array {name.removesuffix('.npy')!r} in it")
    info = archive.getinfo(name)
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is encrypted or packed otherwise than by deflate")
    _check_ratio(name, info.file_size, info.compress_size)
    return info


def _check_ratio(name: str, declared: int, held: int) -> None:
    if declared > MAX_RATIO * held + _NPY_HEADER_BYTES:
        raise ValueError(f"{name} declares {declared} bytes, which {held} bytes on disk cannot hold")


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(_NPY_HEADER_BYTES)


def _npy_header(name: str, head: bytes) -> tuple[str, bool, tuple[int, ...], int]:
    """(type, whether the first axis runs fastest, shape, where the values begin) of the first bytes of an .npy."""
    if head[:6] != _NPY_MAGIC or head[6:7] not in (b"\x01", b"\x02", b"\x03"):
        raise ValueError(f"{name}: not an .npy array")
    size_bytes = 2 if head[6] == 1 else 4
    begin = 8 + size_bytes
    end = begin + int.from_bytes(head[8:begin], "little")
    text = head[begin:end].decode("latin-1")
    found = re.search(r"'descr': *'([|<>=?A-Za-z0-9]{1,16})'", text)
    order = re.search(r"'fortran_order': *(True|False)", text)
    shape = re.search(r"'shape': *\(((?:\d{1,18}, *)*(?:\d{1,18})?)\)", text)
    if end > len(head) or found is None or order is None or shape is None:
        raise ValueError(f"{name}: a header that describes no plain array (objects are never loaded)")
    return found[1], order[1] == "True", tuple(int(size) for size in re.findall(r"\d+", shape[1])), end


def _spikes_header(name: str, head: bytes, types: str) -> tuple[tuple[int, int, int], bool, int, str]:
    descr, column_major, shape, offset = _npy_header(name, head)
    if not re.fullmatch(rf"[|<>=]?({types})", descr):
        raise ValueError(
            f"{name}: {descr} {shape}; allowed: three axes of {'numbers' if types == NUMBERS else 'bytes'}"
        )
    return _three(name, shape), column_major, offset, descr


def _num_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    return np.dtype(dtype).itemsize * math.prod(shape)


def _as_bytes(path: Path, values: Shaped[np.ndarray, "a b c"]) -> UInt8[np.ndarray, "a b c"]:
    """Unsigned bytes as they are, other numbers as bytes. Raises ValueError where one of these is neither 0 nor 1."""
    if values.dtype in (np.uint8, np.bool_):
        return values.view(np.uint8)
    fired = values == 1
    if (others := values[(values != 0) & ~fired]).size:
        raise ValueError(f"{path}: holds {others[0]}; allowed: spikes, 0 or 1")
    return fired.view(np.uint8)


def _three(name: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"{name}: shape {shape}; allowed: three axes of numbers, none empty")
    return (shape[0], shape[1], shape[2])


def _window(axis: int, start: int, stop: int) -> tuple[slice, ...]:
    return (slice(None),) * axis + (slice(start, stop),)
