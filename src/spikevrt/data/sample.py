"""The sample that is cut from a prepared sequence: frames, sharp frames, voxels of one field of view.

Dimension key: B samples, T frames, K bins, H x W colour pixels, h x w spike cells (`data.sequence`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from spikevrt.data.sequence import PreparedSequence, map_array
from spikevrt.recording.exposure import Exposure
from spikevrt.recording.frames import check_size, read_image, to_float
from spikevrt.recording.stream import PackedStream
from spikevrt.represent.counts import exposure_counts, window_intervals
from spikevrt.represent.profile import PROFILE_DARK_RATE, profile
from spikevrt.represent.relight import DARK_RATE
from spikevrt.represent.relight import relight as relit
from spikevrt.represent.voxel import Normalize, VoxelStats, normalise
from spikevrt.represent.voxel import Split as BinSplit
from spikevrt.represent.voxel import density as crop_density

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, UInt8

Representation = Literal["counts", "profile"]
COUNT_TYPES = (np.uint8, np.uint16, np.float16, np.float32)  # the smallest that holds an exposure's counts exactly


class Meta(TypedDict):
    """Where a sample comes from: sequence, frame indices, exposure start and end in seconds."""

    seq: str
    frame_idx: list[int]
    t0: list[float]
    t1: list[float]


class Sample(TypedDict):
    """One clip. Frames are RGB in [0, 1]; voxels are log1p bin counts, standardised by the training set, or profiles.

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


def read_intervals(
    sequence: PreparedSequence,
    exposure: Exposure,
    crop: Crop,
    *,
    num_bins: int,
    bin_split: BinSplit,
    worsen: Callable[[Tensor, Exposure], Tensor] | None,
) -> tuple[Float[Tensor, "K h w"], Float[Tensor, "h w"] | None]:
    """`window_intervals` of one exposure and the window that it is read in, from its (worsened) spikes.

    A cell that is a pixel depends on no other; where pixels are broken or the sequence is registered, the whole sensor
    is read.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: it holds another number of ticks.
    """
    r = sequence.ratio
    stream = PackedStream(sequence.path("spike", exposure.frame_idx), sequence.geometry)
    num_ticks = exposure.num_ticks + abs(exposure.shift_ticks)
    if stream.num_ticks != num_ticks:
        raise ValueError(f"{stream.path}: {stream.num_ticks} ticks; allowed: {num_ticks}")
    cells = (
        slice(None),
        slice(crop.top_px // r, -(-(crop.top_px + crop.height_px) // r)),
        slice(crop.left_px // r, -(-(crop.left_px + crop.width_px) // r)),
    )
    is_plain = sequence.bad_mask is None and not sequence.registered
    spikes = stream.read(0, stream.num_ticks)
    ticks = torch.from_numpy(np.ascontiguousarray(spikes[cells] if is_plain else spikes))
    if worsen is not None:
        ticks = worsen(ticks, exposure)
    if is_plain:
        return window_intervals(ticks, exposure.shift_ticks, num_bins=num_bins, split=bin_split)
    counts, mean_rate = window_intervals(
        ticks, exposure.shift_ticks, num_bins=num_bins, split=bin_split,
        bad=sequence.bad_mask, positions=sequence.positions(),
    )  # fmt: skip
    return counts[cells].contiguous(), None if mean_rate is None else mean_rate[cells[1:]].contiguous()


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
                counts, mean_rate = read_intervals(
                    sequence, exposure, crop, num_bins=num_bins, bin_split=bin_split, worsen=worsen
                )
                num_ticks = exposure.num_ticks
                frames.append(profile(counts, num_ticks, split=bin_split, mean_rate=mean_rate))
                if relight:
                    dark = PROFILE_DARK_RATE
                    lit.append(relit(blur, counts, num_ticks, split=bin_split, dark=dark, mean_rate=mean_rate))
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
