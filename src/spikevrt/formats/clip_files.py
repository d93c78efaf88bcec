"""The spike files of one clip of a dataset folder: which there are, of what size, and what is wrong with them.

Words: split ("train", "val"), clip (a folder of consecutive frames), stem (a file's name without its suffix).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spikevrt.config import SpikeSource
from spikevrt.formats.dataset_trees import Layout, LayoutOptions, averaged_ticks
from spikevrt.formats.voxel_files import VoxelStream, open_voxels, voxel_shape
from spikevrt.recording.sidecar import ROWS, SPIKECV_CONFIG, StreamFormat, read_spikecv_config
from spikevrt.recording.spike_file import SpikeGeometry
from spikevrt.recording.spike_formats import open_stream
from spikevrt.recording.stream import PackedStream, SpikeStream

RATIOS = (1, 2, 4, 8)  # frame pixels per spike pixel that are tried
FEW_ONES = 16  # bytes of value 1 from which a file of nothing else holds no packed bits, of which each is one in eight


@dataclass(frozen=True)
class SpikeFiles:
    """The files of a clip, in the order of their names: spikes, and precomputed voxels."""

    raw: tuple[Path, ...]
    voxels: tuple[Path, ...]


def by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Files of a folder by name without suffix; hidden ones (.DS_Store) and other kinds are skipped."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file():
            if path.stem in found:
                raise ValueError(f"{path}: {found[path.stem].name} is the same frame; allowed: one of the two")
            found[path.stem] = path
    return found


def clip_format(
    root: Path,
    layout: Layout,
    options: LayoutOptions,
    folder: Path,
    frame: tuple[int, int],
    files: SpikeFiles,
    source: SpikeSource | None,
) -> StreamFormat:
    """What the spike files hold; the sensor's size is the layout's, checked against frames and what else tells it."""
    stated = None
    if options.spike_width is not None and options.spike_height is not None:
        stated = options.spike_width, options.spike_height
    if layout.name == "s-vrt" and stated is None:
        config = root / "GOPRO_Large_spike_seq" / SPIKECV_CONFIG
        stated = read_spikecv_config(config) if config.is_file() else None
    if layout.ratio is None:
        averaged = _averaged_size(folder.parent.name, frame, files.raw) if source == "raw" else None
        size = stated or averaged or _voxel_size(files.voxels)
        if size is None:
            raise ValueError(
                f"{folder.parent}: does not tell the size of its spikes; pass --spike-width, --spike-height"
            )
        if stated is None and not _has_one_ratio(frame, size):
            raise ValueError(_misread(folder, frame, size, files))
    else:
        size = layout.size or (frame[0] // layout.ratio, frame[1] // layout.ratio)
        if stated not in (None, size):
            raise ValueError(
                f"{folder}: spikes of {stated[0]}x{stated[1]} stated; {layout.name} has {size[0]}x{size[1]}"
            )
        if frame != (size[0] * layout.ratio, size[1] * layout.ratio):
            raise ValueError(
                f"{folder}: frames of {frame[0]}x{frame[1]} and spikes of {size[0]}x{size[1]}; "
                f"allowed: frames {layout.ratio} times as wide and high"
            )
    kind = "bytes" if files.raw and _is_one_byte_a_pixel(files.raw[0], size) else "packed"
    return StreamFormat(kind, *size, rows=options.spike_rows or ROWS[True])


def _averaged_size(clip: str, frame: tuple[int, int], files: Sequence[Path]) -> tuple[int, int] | None:
    """The size at which a file has as many ticks as the name of a GoPro clip tells; None: there is none."""
    ticks = averaged_ticks(clip)
    if ticks is None or not files:
        return None
    for ratio in RATIOS:
        size = frame[0] // ratio, frame[1] // ratio
        if frame == (size[0] * ratio, size[1] * ratio):
            if files[0].stat().st_size == ticks * SpikeGeometry(*size).bytes_per_tick:
                return size
    return None


def _has_one_ratio(frame: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether frames are as many times as wide as they are high, to the pixel of the sensor that may be cut off."""
    least = max(side / (cells + 1) for side, cells in zip(frame, size, strict=True))
    most = min(side / max(cells - 1, 0.5) for side, cells in zip(frame, size, strict=True))
    return least < most


def _misread(folder: Path, frame: tuple[int, int], size: tuple[int, int], files: SpikeFiles) -> str:
    """Why a size that voxels tell is not believed, and what the spike files would hold at others."""
    told = f"{folder}: frames of {frame[0]}x{frame[1]}, and by spike_vox spikes of {size[0]}x{size[1]}: no one ratio, "
    told += (
        "and such sizes come of packed bits that are read as bytes; state the sensor's: --spike-width, --spike-height"
    )
    num_bits = 8 * files.raw[0].stat().st_size if files.raw else 0
    fitting = [(frame[0] // r, frame[1] // r) for r in RATIOS if not frame[0] % r and not frame[1] % r]
    ticks = [f"{num_bits // (w * h)} ticks of {w}x{h}" for w, h in fitting if num_bits and num_bits % (w * h) == 0]
    return told + (f" ({files.raw[0].name} would be {', '.join(ticks)})" if ticks else "")


def _voxel_size(files: Sequence[Path]) -> tuple[int, int] | None:
    """Width and height of the first precomputed voxels (K, h, w); None when there are none. Raises ValueError."""
    return None if not files else (voxel_shape(files[0])[2], voxel_shape(files[0])[1])


def spike_streams(
    options: LayoutOptions, source: SpikeSource | None, files: list[Path], form: StreamFormat
) -> tuple[SpikeStream, ...]:
    """The streams of the frames, one for each file. Raises ValueError for options that they cannot obey."""
    if source != "precomputed":
        if (options.voxel_mean, options.voxel_std) != (0, 1):
            raise ValueError("voxel_mean, voxel_std: no precomputed voxels are read; allowed: with voxels precomputed")
        return tuple(open_stream(path, form) for path in files)
    if options.exposure_ticks is not None:
        raise ValueError(
            f"exposure_ticks: {options.exposure_ticks}; allowed with precomputed voxels: none, they are it"
        )
    bottom_up = options.spike_rows == ROWS[True]
    return open_voxels(files, mean=options.voxel_mean, std=options.voxel_std, bottom_up=bottom_up)


def _is_one_byte_a_pixel(path: Path, size: tuple[int, int]) -> bool:
    """Whether a file holds zeros and at least a few ones, as many as pixels in some ticks: so unpacked bits."""
    num_bytes = path.stat().st_size
    if num_bytes == 0 or num_bytes % (size[0] * size[1]):
        return False
    values = np.memmap(path, np.uint8, "r")
    return bool(values.max() == 1 and np.count_nonzero(values) >= FEW_ONES)


def source_notes(there: SpikeFiles, streams: Sequence[SpikeStream]) -> dict[str, str]:
    """What the folder does not tell of the spikes that are read (`Recording.notes`)."""
    notes = {}
    if streams and isinstance(first := streams[0], VoxelStream):
        notes["voxels"] = (
            f"spike_vox/*.npy is read, {first.shape[0]} bins of {first.values}: when within its bin a spike fell is "
            "not known, so they are spread evenly; spike/*.dat would tell (--voxels raw)"
        )
        return notes
    if streams and there.voxels:
        notes["voxels"] = "spike/*.dat is counted, spike_vox/*.npy not read (--voxels precomputed reads it)"
    if streams and not isinstance(streams[0], PackedStream):
        notes["spikes"] = "spike/*.dat holds one byte a pixel, zeros and ones, and is read so"
    return notes


def wrong_ticks(path: Path, form: StreamFormat, allowed: tuple[int, ...]) -> str | None:
    """What is wrong with a spike file, of which `allowed` ticks are (none: any number); None: nothing."""
    try:
        ticks = open_stream(path, form).num_ticks
    except ValueError as error:
        return str(error)
    if allowed and ticks not in allowed:
        return f"{path}: {ticks} ticks of {form.width}x{form.height}; allowed: {', '.join(map(str, allowed))}"
    return None


def wrong_voxels(path: Path, form: StreamFormat) -> str | None:
    """What the head of a file of voxels has wrong; None: nothing."""
    try:
        height, width = voxel_shape(path)[1:]
    except ValueError as error:
        return str(error)
    if (width, height) != (form.width, form.height):
        return f"{path}: voxels of {width}x{height}; allowed: {form.width}x{form.height}"
    return None
