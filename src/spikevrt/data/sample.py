"""One prepared sequence on disk, and the sample that is cut from it.

A sequence folder is `ROOT/{train,val}/SEQ/{blur,sharp,spike,spike_vox}/NNNNNN.*` plus `sequence.json`; without sharp
frames there is no `sharp`. NNNNNN is the frame's index in its recording, so a dropped frame leaves a gap and no clip
runs across it. Arrays (.npy) are mapped: only the pages under the crop are read, nothing is kept, and loader workers
share what the system caches.

Dimension key: B samples, T frames, K bins, H x W colour pixels, h x w spike cells (H = ratio * h, W = ratio * w): the
pixels of the sensor or, where the recording was registered, of the grid that lies on the frame.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from spikevrt.recording.frames import read_image, to_float
from spikevrt.recording.recording import Exposure, check_size, read_bad_pixels, read_exposure
from spikevrt.recording.sidecar import ROWS, Fields
from spikevrt.recording.spike_file import SpikeGeometry
from spikevrt.recording.stream import PackedStream
from spikevrt.represent.exposure import exposure_counts, exposure_intervals
from spikevrt.represent.profile import PROFILE_DARK_RATE, profile
from spikevrt.represent.relight import DARK_RATE
from spikevrt.represent.relight import relight as relit
from spikevrt.represent.voxel import Normalize, VoxelStats, normalise
from spikevrt.represent.voxel import Split as BinSplit
from spikevrt.represent.voxel import density as crop_density

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float32, UInt8

SEQUENCE_FILE, POSITIONS_FILE = "sequence.json", "positions.npy"
SEQUENCE_FORMAT = "spikevrt-sequence"
PREPARED_VERSION = 2  # of sequences and datasets alike
NO_SHARP = "none"  # frames.sharp of a sequence without sharp frames; the others have no such key
CELLS = {True: "registered", False: "sensor"}  # what a cell of the counts is
FrameKind = Literal["npy", "png"]
Representation = Literal["counts", "profile"]
COUNT_TYPES = (np.uint8, np.uint16, np.float16, np.float32)  # the smallest that holds an exposure's counts exactly


class Meta(TypedDict):
    """Where a sample comes from: sequence, frame indices, exposure start and end in seconds."""

    seq: str
    frame_idx: list[int]
    t0: list[float]
    t1: list[float]


class Sample(TypedDict):
    """One clip. Frames are RGB in [0, 1]; voxels are log1p bin counts, standardised by the training set.

    `spikes_present` stands in samples of a training set with spike dropout: where it is False, the voxels are zeros
    that nothing was read for, and the network must not look at them. `sharp` is absent where none was recorded.
    `lit` are the frames lit as the spikes say; where they stand, the network starts from them and not from `blur`.
    """

    blur: Float[Tensor, "T 3 H W"]
    sharp: NotRequired[Float[Tensor, "T 3 H W"]]
    lit: NotRequired[Float[Tensor, "T 3 H W"]]
    spike_vox: NotRequired[Float[Tensor, "T K h w"]]
    spikes_present: NotRequired[Bool[Tensor, ""]]
    meta: Meta


class Batch(TypedDict):
    """Several samples of one size; `meta` stays a list, one entry a sample."""

    blur: Float[Tensor, "B T 3 H W"]
    sharp: NotRequired[Float[Tensor, "B T 3 H W"]]
    lit: NotRequired[Float[Tensor, "B T 3 H W"]]
    spike_vox: NotRequired[Float[Tensor, "B T K h w"]]
    spikes_present: NotRequired[Bool[Tensor, " B"]]
    meta: list[Meta]


@dataclass(frozen=True)
class Crop:
    """A field of view in colour pixels. Every number is a multiple of the sequence's ratio, unless it is all of it."""

    top_px: int
    left_px: int
    height_px: int
    width_px: int


@dataclass(frozen=True)
class PreparedSequence:
    """A prepared sequence: its folder, its sizes and the exposures that were kept, in time order.

    `geometry` is the sensor's, of the packed ticks. `densities`: mean log1p(count) of each exposure, whole frame.
    `registered`: positions.npy says where on the sensor each cell looks; without, cells are the sensor's pixels.
    """

    folder: Path
    width: int
    height: int
    ratio: int  # colour pixels per spike cell, the same in both directions
    geometry: SpikeGeometry
    tick_rate_hz: float
    exposures: tuple[Exposure, ...]
    densities: tuple[float, ...]
    frames: FrameKind = "npy"
    bad_pixels: tuple[tuple[int, int], ...] = ()
    registered: bool = False
    has_sharp: bool = True

    @property
    def name(self) -> str:
        return self.folder.name

    def path(self, kind: Literal["blur", "sharp", "spike", "spike_vox"], frame_idx: int) -> Path:
        suffix = {"blur": self.frames, "sharp": self.frames, "spike": "dat", "spike_vox": "npy"}[kind]
        return self.folder / kind / f"{frame_idx:06d}.{suffix}"

    def runs(self) -> list[range]:
        """Positions in `exposures` grouped into stretches without a dropped frame between them."""
        indices = [exposure.frame_idx for exposure in self.exposures]
        starts = [i for i in range(len(indices)) if i == 0 or indices[i] != indices[i - 1] + 1]
        return [range(a, b) for a, b in zip(starts, [*starts[1:], len(indices)], strict=True)]

    @cached_property
    def bad_mask(self) -> Bool[np.ndarray, "sensor_h sensor_w"] | None:
        """True where a sensor pixel is bad; None when none is known."""
        if not self.bad_pixels:
            return None
        mask = np.zeros((self.geometry.height, self.geometry.width), dtype=bool)
        mask[tuple(np.array(self.bad_pixels).T)] = True
        return mask

    def positions(self) -> Float32[np.ndarray, "h w 2"] | None:
        """Where on the sensor each cell of the registered grid looks; None when nothing was registered."""
        if not self.registered:
            return None
        path = self.folder / POSITIONS_FILE
        shape = (-(-self.height // self.ratio), -(-self.width // self.ratio), 2)
        return np.array(map_array(path, shape, (np.float32,)))


def write_sequence(sequence: PreparedSequence, recording: dict[str, Any]) -> None:
    """Write `sequence.json` into the sequence's folder; `recording` says where the frames come from."""
    exposures = zip(sequence.exposures, sequence.densities, strict=True)
    values = {
        "format": SEQUENCE_FORMAT,
        "version": PREPARED_VERSION,
        "frames": {
            "width": sequence.width,
            "height": sequence.height,
            "count": len(sequence.exposures),
            "format": sequence.frames,
            **({} if sequence.has_sharp else {"sharp": NO_SHARP}),
        },
        "spikes": {
            "width": sequence.geometry.width,
            "height": sequence.geometry.height,
            "rows": ROWS[sequence.geometry.bottom_up],
            "tick_rate_hz": sequence.tick_rate_hz,
            "ratio": sequence.ratio,
            "cells": CELLS[sequence.registered],
            "bad_pixels": [list(pixel) for pixel in sequence.bad_pixels],
        },
        "exposures": [vars(exposure) | {"density": density} for exposure, density in exposures],
        "recording": recording,
    }
    (sequence.folder / SEQUENCE_FILE).write_text(json.dumps(values, indent=1, allow_nan=False) + "\n")


def open_sequence(folder: Path) -> PreparedSequence:
    """Read `sequence.json`.

    Raises:
        FileNotFoundError: the folder holds none.
        ValueError: it is not a sequence of this version, or an entry is missing or wrong.
    """
    path = folder / SEQUENCE_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no such sequence ({SEQUENCE_FILE} is missing)")
    fields = read_prepared(path, SEQUENCE_FORMAT)
    exposures = fields.each("exposures")
    frames = fields.get("frames.format", str)
    if frames not in ("npy", "png"):
        raise ValueError(f"{path}: frames.format: {frames!r}; allowed: npy, png")
    if fields.has("frames.sharp") and fields.get("frames.sharp", str) != NO_SHARP:
        found = fields.get("frames.sharp", str)
        raise ValueError(f"{path}: frames.sharp: {found[:40]!r}; allowed: {NO_SHARP}, or no such key")
    cells = fields.get("spikes.cells", str)
    if cells not in CELLS.values():
        raise ValueError(f"{path}: spikes.cells: {cells!r}; allowed: {', '.join(CELLS.values())}")
    for key in ("spikes.width", "spikes.height", "spikes.ratio", "frames.width", "frames.height"):
        if fields.get(key, int) < 1:
            raise ValueError(f"{path}: {key}: {fields.get(key, int)}; allowed: 1 or more")
    rows = fields.get("spikes.rows", str)
    if rows not in ROWS.values():
        raise ValueError(f"{path}: spikes.rows: {rows[:40]!r}; allowed: {', '.join(ROWS.values())}")
    geometry = SpikeGeometry(fields.get("spikes.width", int), fields.get("spikes.height", int), rows == ROWS[True])
    if not exposures:
        raise ValueError(f"{path}: exposures: none; allowed: one or more")
    return PreparedSequence(
        folder=folder,
        width=fields.get("frames.width", int),
        height=fields.get("frames.height", int),
        ratio=fields.get("spikes.ratio", int),
        geometry=geometry,
        tick_rate_hz=fields.positive("spikes.tick_rate_hz"),
        exposures=tuple(read_exposure(entry) for entry in exposures),
        densities=tuple(entry.get("density", float) for entry in exposures),
        frames=frames,
        bad_pixels=read_bad_pixels(fields, geometry.height, geometry.width),
        registered=cells == CELLS[True],
        has_sharp=not fields.has("frames.sharp"),
    )


def read_prepared(path: Path, expected_format: str) -> Fields:
    """A JSON file of that format and of the version that this program writes. Raises ValueError otherwise."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: not JSON; run `spikevrt prepare` again") from None
    found = (values.get("format"), values.get("version")) if isinstance(values, dict) else (None, None)
    if found != (expected_format, PREPARED_VERSION):
        raise ValueError(
            f"{path}: format {str(found[0])[:40]!r} version {str(found[1])[:40]}; "
            f"allowed: {expected_format!r} version {PREPARED_VERSION}; run `spikevrt prepare` again"
        )
    return Fields(path, values)


def map_array(path: Path, shape: tuple[int, ...], dtypes: tuple[type, ...]) -> np.ndarray:
    """An array file, mapped and not read: only what is then indexed is.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: it is damaged, cut short, or holds another shape or type.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; run `spikevrt prepare` again") from None
    except Exception as error:  # NumPy has no end of ways to say that a header is damaged
        told = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: damaged array ({told})") from None
    if array.shape != shape or array.dtype not in dtypes or not array.flags.c_contiguous:
        names = " or ".join(np.dtype(dtype).name for dtype in dtypes)
        raise ValueError(f"{path}: {array.dtype} of shape {array.shape}; allowed: {names} of shape {shape}")
    return array


def read_counts(
    sequence: PreparedSequence,
    exposure: Exposure,
    crop: Crop,
    *,
    num_bins: int,
    bin_split: BinSplit,
    voxels: Literal["precomputed", "raw"],
) -> Tensor:
    """Spikes per bin and cell of one exposure, (K, h, w), before log1p: bytes where the file holds bytes, else float32.

    From the file of counts, or counted now from the packed ticks; the values are the same.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: the file is damaged, or holds another number of ticks, bins or cells than it should.
    """
    r = sequence.ratio
    rows = slice(crop.top_px // r, -(-(crop.top_px + crop.height_px) // r))
    columns = slice(crop.left_px // r, -(-(crop.left_px + crop.width_px) // r))
    if voxels == "precomputed":
        cells = (-(-sequence.height // r), -(-sequence.width // r))
        counts = map_array(sequence.path("spike_vox", exposure.frame_idx), (num_bins, *cells), COUNT_TYPES)
        cut = counts[:, rows, columns]
        return torch.from_numpy(np.array(cut) if cut.dtype == np.uint8 else cut.astype(np.float32))
    stream = PackedStream(sequence.path("spike", exposure.frame_idx), sequence.geometry)
    if stream.num_ticks != exposure.num_ticks:
        raise ValueError(f"{stream.path}: {stream.num_ticks} ticks; allowed: {exposure.num_ticks}")
    if sequence.bad_mask is None and not sequence.registered:  # a cell is a pixel, and depends on no other
        return exposure_counts(
            lambda edges: stream.count(edges)[:, rows, columns], exposure.num_ticks, num_bins=num_bins, split=bin_split
        )
    whole = exposure_counts(
        stream.count,
        exposure.num_ticks,
        num_bins=num_bins,
        split=bin_split,
        bad=sequence.bad_mask,
        positions=sequence.positions(),
    )
    return whole[:, rows, columns].contiguous()


def read_ticks(sequence: PreparedSequence, exposure: Exposure, crop: Crop) -> UInt8[Tensor, "T h w"]:
    """The spikes of one exposure, 0 or 1, of the crop; of a sequence whose cells are its pixels.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: it holds another number of ticks; the sequence is registered or has bad pixels.
    """
    if sequence.bad_mask is not None or sequence.registered:
        raise ValueError(
            f"{sequence.folder}: is registered or has bad pixels; allowed for representation profile: neither"
        )
    r = sequence.ratio
    stream = PackedStream(sequence.path("spike", exposure.frame_idx), sequence.geometry)
    if stream.num_ticks != exposure.num_ticks:
        raise ValueError(f"{stream.path}: {stream.num_ticks} ticks; allowed: {exposure.num_ticks}")
    rows = slice(crop.top_px // r, -(-(crop.top_px + crop.height_px) // r))
    columns = slice(crop.left_px // r, -(-(crop.left_px + crop.width_px) // r))
    return torch.from_numpy(np.ascontiguousarray(stream.read(0, stream.num_ticks)[:, rows, columns]))


def read_frame(path: Path, sequence: PreparedSequence) -> UInt8[np.ndarray, "H W 3"]:
    """A picture of the sequence: mapped (.npy), or decoded (.png). Raises as `map_array` and `read_image` do."""
    if sequence.frames == "npy":
        return map_array(path, (sequence.height, sequence.width, 3), (np.uint8,))
    image = read_image(path)
    check_size(path, (image.shape[0], image.shape[1]), (sequence.height, sequence.width))
    return image


def read_sample(
    sequence: PreparedSequence,
    positions: range,
    crop: Crop | None,
    *,
    spikes: bool,
    num_bins: int,
    bin_split: BinSplit,
    stats: VoxelStats,
    normalize: Normalize,
    voxels: Literal["precomputed", "raw"],
    worsen: Callable[[Tensor, Exposure], Tensor] | None = None,
    representation: Representation = "counts",
    relight: bool = False,
) -> Sample:
    """Read the exposures at `positions` and cut one field of view from frames and spikes alike (None: all of it).

    `worsen` (counts of an exposure -> worse counts) stands before log1p. The density that normalises an exposure then
    changes by as much as that of the crop did. For representation profile it takes ticks and gives worse ticks.
    `relight`: also `lit`, from the counts that the voxels are made of.
    """
    r = sequence.ratio
    if crop is None:
        crop = Crop(0, 0, sequence.height, sequence.width)
    else:
        assert all(value % r == 0 for value in vars(crop).values()), (crop, r)
    exposures = [sequence.exposures[position] for position in positions]
    rows = slice(crop.top_px, crop.top_px + crop.height_px)
    columns = slice(crop.left_px, crop.left_px + crop.width_px)

    def pictures(kind: Literal["blur", "sharp"]) -> Tensor:
        paths = [sequence.path(kind, exposure.frame_idx) for exposure in exposures]
        return to_float(np.stack([read_frame(path, sequence)[rows, columns] for path in paths]))

    sample: Sample = {
        "blur": pictures("blur"),
        "meta": {
            "seq": sequence.name,
            "frame_idx": [exposure.frame_idx for exposure in exposures],
            "t0": [exposure.t0_s for exposure in exposures],
            "t1": [exposure.t1_s for exposure in exposures],
        },
    }
    if sequence.has_sharp:
        sample["sharp"] = pictures("sharp")
    if spikes:
        # One frame at a time through the one normalisation, on either path: so that both give the same bits.
        frames, lit = [], []
        for blur, position, exposure in zip(sample["blur"], positions, exposures, strict=True):
            if representation == "profile":
                ticks = read_ticks(sequence, exposure, crop)
                if worsen is not None:
                    ticks = worsen(ticks, exposure)
                counts = exposure_intervals(ticks, num_bins=num_bins, split=bin_split)
                frames.append(profile(counts, exposure.num_ticks, split=bin_split))
                if relight:
                    lit.append(relit(blur, counts, exposure.num_ticks, split=bin_split, dark=PROFILE_DARK_RATE))
                continue
            counts = read_counts(sequence, exposure, crop, num_bins=num_bins, bin_split=bin_split, voxels=voxels)
            density = sequence.densities[position] if normalize == "density" else None
            if worsen is not None:
                before, counts = crop_density(counts), worsen(counts, exposure)
                if density is not None and before > 0:
                    density *= float(crop_density(counts) / before)
            frames.append(normalise(counts, stats, density=density))
            if relight:
                lit.append(relit(blur, counts, exposure.num_ticks, split=bin_split, dark=DARK_RATE))
        sample["spike_vox"] = torch.stack(frames)
        if relight:
            sample["lit"] = torch.stack(lit)
    return sample


def collate(samples: list[Sample]) -> Batch:
    """Stack samples of one size into a batch; in a loader worker straight into the memory that it shares."""
    batch: Batch = {
        "blur": default_collate([sample["blur"] for sample in samples]),
        "meta": [sample["meta"] for sample in samples],
    }
    if "sharp" in samples[0]:
        batch["sharp"] = default_collate([sample["sharp"] for sample in samples])
    if "lit" in samples[0]:
        batch["lit"] = default_collate([sample["lit"] for sample in samples])
    if "spike_vox" in samples[0]:
        batch["spike_vox"] = default_collate([sample["spike_vox"] for sample in samples])
    if "spikes_present" in samples[0]:
        batch["spikes_present"] = default_collate([sample["spikes_present"] for sample in samples])
    return batch
