"""Write a stream as a spike file of any variant, and beside it the sidecar that tells what it is.

The stream goes through in pieces of bounded size; nothing half-written gets the file's name.

Dimension key: T ticks, h sensor rows, w sensor columns.
"""

from __future__ import annotations

import errno
import io
import math
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikevrt.atomic import complete_or_absent, refuse_existing_file, refuse_own_input
from spikevrt.recording.arrays import load_h5py
from spikevrt.recording.sidecar import (
    KEY_AXES,
    LENGTH_KEY,
    ROWS,
    SPIKE_KINDS,
    SUFFIX_KINDS,
    TARGETS,
    Rows,
    StreamFormat,
    check_sps100_size,
    kind_of,
)
from spikevrt.recording.spike_file import SpikeGeometry, check_window, pack, sha256_file
from spikevrt.recording.spike_formats import (
    find_format,
    find_stated,
    open_stream,
    refuse_named_by_recording,
    stream_sidecar_path,
    write_stream_sidecar,
)
from spikevrt.recording.stream import SpikeStream, pack_sps100
from spikevrt.restore.options import names_a_file

if TYPE_CHECKING:
    from jaxtyping import UInt8

CHUNK_BYTES = 1 << 25  # pixels times ticks that are unpacked at once
H5_CHUNK_BYTES = 1 << 20  # what reading one tick of an HDF5 file unpacks
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NPZ_TIME = (1980, 1, 1, 0, 0, 0)  # equal spikes, equal bytes


@dataclass(frozen=True)
class Written:
    """What a spike file holds after writing."""

    path: Path
    format: StreamFormat
    num_ticks: int
    sha256: str


def write_stream(
    path: Path,
    stream: SpikeStream,
    format: StreamFormat,
    *,
    ticks: tuple[int, int | None] = (0, None),
    tick_rate_hz: float | None = None,
    source_sha256: str | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Write `ticks` [start, stop) of a stream (None: to its end) in another format, and its sidecar.

    `progress` is called with (ticks done, ticks in all). The width and height of `format` are those of the stream;
    stated, they must be equal. `source_sha256` is what the stream's one file had when it was written; it is compared
    where all ticks are asked for.

    Raises:
        FileExistsError: the file exists, and `overwrite` is not set; or a recording.json beside it names it.
        ValueError: a window outside the stream or without a tick, a size that the format cannot hold, damaged spikes.
        OSError: no space for it.
    """
    path = Path(path)
    if tick_rate_hz is not None and not 0 < tick_rate_hz < math.inf:
        raise ValueError(f"tick_rate_hz: {tick_rate_hz}; allowed: above 0")
    start_tick, stop_tick = ticks[0], stream.num_ticks if ticks[1] is None else ticks[1]
    check_window(str(stream.files[0]), start_tick, stop_tick, stream.num_ticks)
    if start_tick == stop_tick:
        raise ValueError(f"{stream.files[0]}: ticks [{start_tick}, {stop_tick}) are none; allowed: one or more")
    size = (format.width or stream.width, format.height or stream.height)
    if size != (stream.width, stream.height):
        raise ValueError(f"{path}: {size[0]}x{size[1]} is stated, but the spikes have {stream.width}x{stream.height}")
    if format.kind == "sps100":
        check_sps100_size(*size)
    refuse_existing_file(path, overwrite=overwrite, other="name")
    refuse_own_input(path, stream.files, other="name")
    refuse_named_by_recording(path)
    known = _complete(replace(format, width=size[0], height=size[1], rows=ROWS[format.is_bottom_up]))
    num_ticks = stop_tick - start_tick
    if source_sha256 is not None and num_ticks == stream.num_ticks:
        _check_sha256(stream, source_sha256)
    with complete_or_absent(path) as partial:
        try:
            _write(partial, _pieces(stream, start_tick, stop_tick, known, progress), known, num_ticks)
        except OSError as error:
            if error.errno not in _DISK_FULL:
                raise
            raise OSError(error.errno, error.strerror, str(path)) from None
        sha256 = sha256_file(partial)
        stream_sidecar_path(path).unlink(missing_ok=True)  # from here on it would tell of another file
    write_stream_sidecar(path, known, num_ticks=num_ticks, tick_rate_hz=tick_rate_hz, sha256=sha256)
    return Written(path, known, num_ticks, sha256)


def open_source(path: Path, stated: dict[str, Any]) -> tuple[SpikeStream, float | None, str | None]:
    """The spikes of a recording folder or a spike file, of which the caller states these fields of a `StreamFormat`.

    Returns the stream, and its tick rate and checksum where they are known.

    Raises:
        FileNotFoundError, ValueError: as `find_stated` and `open_recording`; or a format stated for a recording.
    """
    if path.is_dir():
        for name in stated:
            raise ValueError(f"{name}: {path} is a recording, which tells what its spikes are")
        from spikevrt.recording.recording import open_recording  # with torch, which a spike file does not need

        recording = open_recording(path)
        assert recording.spikes is not None, "a recording folder always has spikes"
        return recording.spikes, recording.tick_rate_hz, recording.stored_sha256
    found = find_stated(path, stated) if stated else find_format(path)
    return open_stream(path, found.format if stated else None), found.tick_rate_hz, found.sha256


def target_format(path: Path, width: int, target: str | None = None, rows: Rows | None = None) -> StreamFormat:
    """How a file of this name is written: as `target`, one of `TARGETS`, or without one as its suffix says.

    Raises:
        ValueError: a suffix that belongs to another kind, or spikes of a width that the target has not.
    """
    suffix = path.suffix.lower()
    if suffix not in (".dat", *SUFFIX_KINDS) and names_a_file(path):
        raise ValueError(f"{path}: not the name of a spike file; allowed: {', '.join(SUFFIX_KINDS)}, .dat, .bin, .raw")
    kind, tag_bits, axes = TARGETS[target or kind_of(suffix)]
    if target == "packed-416" and width != 400:
        raise ValueError(f"--to: packed-416 for spikes {width} wide; allowed: 400 pixels and 16 tag bits a row")
    suffixes = SPIKE_KINDS[kind].suffixes
    if (suffix not in suffixes) if suffixes else (suffix in SUFFIX_KINDS):
        raise ValueError(f"--to: {target} in a file {path.name}; allowed: the suffix that belongs to it")
    return StreamFormat(kind=kind, rows=rows, tag_bits=tag_bits, axes=axes)


def _check_sha256(stream: SpikeStream, stated: str) -> None:
    (source,) = stream.files
    measured = sha256_file(source)
    if measured != stated:
        raise ValueError(
            f"{source}: sha256 {measured[:12]}..., but {stated[:12]}... is written beside it: damaged, or changed "
            f"since; allowed: the file as it was"
        )


def _complete(format: StreamFormat) -> StreamFormat:
    """With the names and axes that its readers expect where none were stated."""
    keys = SPIKE_KINDS[format.kind].keys
    if format.kind == "h5" and format.axes == "HWT":
        raise ValueError("axes: 'HWT'; allowed for writing h5: 'THW'")
    axes = format.axes or KEY_AXES.get(format.key or "", "THW") if format.kind != "h5" else "THW"
    return replace(
        format,
        key=(format.key or keys[axes]) if keys else None,
        axes=axes if SPIKE_KINDS[format.kind].axes else None,
    )


def _pieces(
    stream: SpikeStream,
    start_tick: int,
    stop_tick: int,
    format: StreamFormat,
    progress: Callable[[int, int], None] | None,
) -> Iterator[UInt8[np.ndarray, "T h w"]]:
    """The ticks in the order of time, whole bytes of eight at a time; arrays get the row order of the file."""
    step = max(8, CHUNK_BYTES // (stream.height * stream.width) // 8 * 8)
    for start in range(start_tick, stop_tick, step):
        stop = min(start + step, stop_tick)
        spikes = stream.read(start, stop)
        yield spikes[:, ::-1] if format.is_bottom_up and format.kind != "packed" else spikes
        if progress is not None:
            progress(stop - start_tick, stop_tick - start_tick)


def _write(out: Path, pieces: Iterator[UInt8[np.ndarray, "T h w"]], format: StreamFormat, num_ticks: int) -> None:
    assert format.width is not None and format.height is not None
    height, width = format.height, format.width
    if format.kind == "h5":
        assert format.key is not None
        _write_h5(out, pieces, (num_ticks, height, width), format.key)
        return
    if format.kind in ("npz", "packed-time"):
        _write_npz(out, pieces, format, num_ticks)
        return
    if format.kind == "npy":
        _write_npy(out, pieces, (num_ticks, height, width), format.axes or "THW")
        return
    geometry = SpikeGeometry(width, height, format.is_bottom_up, format.tag_bits)
    with open(out, "wb") as file:
        for spikes in pieces:
            if format.kind == "packed":
                file.write(pack(spikes, geometry))
            else:
                file.write(pack_sps100(spikes) if format.kind == "sps100" else spikes.tobytes())


def _write_npy(out: Path, pieces: Iterator[UInt8[np.ndarray, "T h w"]], shape: tuple[int, int, int], axes: str) -> None:
    stored = shape if axes == "THW" else (shape[1], shape[2], shape[0])
    with open(out, "w+b") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": stored}
        np.lib.format.write_array_header_1_0(file, header)
        if axes == "THW":
            for spikes in pieces:
                file.write(spikes.tobytes())
            return
        file.flush()
        offset, num_bytes = file.tell(), math.prod(stored)
        os.posix_fallocate(file.fileno(), offset, num_bytes)  # a full disk under a mapped file ends the process
        array = np.memmap(file, np.uint8, "r+", offset, stored)
        first = 0
        for spikes in pieces:
            array[:, :, first : first + len(spikes)] = np.moveaxis(spikes, 0, -1)
            first += len(spikes)
        array.flush()


def _write_npz(out: Path, pieces: Iterator[UInt8[np.ndarray, "T h w"]], format: StreamFormat, num_ticks: int) -> None:
    """Through an .npy beside it, for time may be the last axis; compressed, as people publish them."""
    assert format.width is not None and format.height is not None and format.key is not None
    is_packed = format.kind == "packed-time"
    if is_packed:
        pieces = (np.packbits(spikes, axis=0, bitorder="little") for spikes in pieces)
    shape = (-(-num_ticks // 8) if is_packed else num_ticks, format.height, format.width)
    array = out.with_name(f"{out.name}.npy")
    try:
        _write_npy(array, pieces, shape, format.axes or "THW")
        with zipfile.ZipFile(out, "w") as archive:
            with open(array, "rb") as source, archive.open(_member(format.key), "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 1 << 20)
            if is_packed:
                length = io.BytesIO()
                np.save(length, np.int64(num_ticks))
                archive.writestr(_member(LENGTH_KEY), length.getvalue())
    finally:
        array.unlink(missing_ok=True)


def _member(key: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(f"{key}.npy", _NPZ_TIME)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def _write_h5(out: Path, pieces: Iterator[UInt8[np.ndarray, "T h w"]], shape: tuple[int, int, int], key: str) -> None:
    """One dataset (T, h, w) in compressed chunks of a few ticks."""
    chunks = (min(shape[0], max(1, H5_CHUNK_BYTES // (shape[1] * shape[2]))), shape[1], shape[2])
    h5py = load_h5py(out)
    with _WriteErrorsKept(out, "w+") as disk:
        try:
            with h5py.File(disk, "w") as file:
                data = file.create_dataset(key, shape, np.uint8, chunks=chunks, compression="gzip", track_times=False)
                first = 0
                for spikes in pieces:
                    data[first : first + len(spikes)] = spikes
                    first += len(spikes)
                    if disk.error is not None:
                        break
        finally:
            if disk.error is not None:
                raise disk.error


class _WriteErrorsKept(io.FileIO):
    """A file that keeps its first write error and goes on: HDF5 ends the process when it meets one while it closes."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        view, done = memoryview(data).cast("B"), 0
        try:
            while self.error is None and done < len(view):
                done += super().write(view[done:])
        except OSError as error:
            self.error = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return self.tell() if size is None else size
