"""The sample that is cut from a prepared sequence: frames, sharp frames, voxels of one field of view.

Dimension key: B samples, T frames, K bins, H x W colour pixels, h x w spike cells (`data.sequence`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from spikevrt.config import SpikeInputs, SpikeSource
from spikevrt.data.sequence import PreparedSequence, check_ticks, map_array
from spikevrt.recording.frames import check_size, read_image, to_float
from spikevrt.recording.sidecar import Exposure
from spikevrt.recording.stream import PackedStream
from spikevrt.represent.counts import exposure_counts
from spikevrt.represent.inputs import BinnedSpikes, bin_spikes, network_inputs
from spikevrt.represent.voxel import VoxelStats
from spikevrt.represent.voxel import density as crop_density

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, UInt8

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
    `frames` are what enters the network: `blur` itself, or the relit frames.
    """

    blur: Float[Tensor, "T 3 H W"]
    frames: Float[Tensor, "T 3 H W"]
    sharp: NotRequired[Float[Tensor, "T 3 H W"]]
    spike_vox: NotRequired[Float[Tensor, "T K h w"]]
    spikes_present: NotRequired[Bool[Tensor, ""]]
    meta: Meta


class Batch(TypedDict):
    """Several samples of one size; `meta` stays a list, one entry a sample."""

    blur: Float[Tensor, "B T 3 H W"]
    frames: Float[Tensor, "B T 3 H W"]
    sharp: NotRequired[Float[Tensor, "B T 3 H W"]]
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

    def cells(self, ratio: int) -> tuple[slice, slice]:
        """Rows and columns of the spike cells that see it."""
        rows = slice(self.top_px // ratio, -(-(self.top_px + self.height_px) // ratio))
        return rows, slice(self.left_px // ratio, -(-(self.left_px + self.width_px) // ratio))


@dataclass(frozen=True)
class SampleSpec:
    """How samples are read: what enters the network (None: frames alone), what normalises it, and from which files.

    `worsen` (counts of an exposure, or its ticks for representation profile -> worse ones) stands before all else.
    """

    spikes: SpikeInputs | None
    stats: VoxelStats
    voxels: SpikeSource = "raw"
    worsen: Callable[[Tensor, Exposure], Tensor] | None = None


def read_binned(sequence: PreparedSequence, exposure: Exposure, crop: Crop, spec: SampleSpec) -> BinnedSpikes:
    """The spikes of one exposure and the window that it is read in, binned; counts as bytes where a file has bytes.

    From the file of counts, or made now from the packed ticks; the values are the same. Where pixels are broken the
    whole sensor is read; else a cell depends on no other.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: the file is damaged, or holds another number of ticks, bins or cells than it should.
    """
    assert spec.spikes is not None
    cells = (slice(None), *crop.cells(sequence.ratio))
    is_profile = spec.spikes.representation == "profile"
    if spec.voxels == "precomputed" and not is_profile:
        shape = (spec.spikes.num_bins, -(-sequence.height // sequence.ratio), -(-sequence.width // sequence.ratio))
        cut = map_array(sequence.path("spike_vox", exposure.frame_idx), shape, COUNT_TYPES)[cells]
        counts = torch.from_numpy(np.array(cut) if cut.dtype == np.uint8 else cut.astype(np.float32))
        return BinnedSpikes(counts, exposure.num_ticks)
    stream = PackedStream(sequence.path("spike", exposure.frame_idx), sequence.geometry)
    check_ticks(stream, exposure)
    bad = sequence.bad_mask
    if not is_profile:
        counts = exposure_counts(
            (lambda edges: stream.count(edges)[cells]) if bad is None else stream.count, exposure.num_ticks,
            num_bins=spec.spikes.num_bins, binning=spec.spikes.binning, bad=bad,
        )  # fmt: skip
        return BinnedSpikes(counts if bad is None else counts[cells].contiguous(), exposure.num_ticks)
    spikes = stream.read(0, stream.num_ticks)
    ticks = torch.from_numpy(np.ascontiguousarray(spikes[cells] if bad is None else spikes))
    if spec.worsen is not None:
        ticks = spec.worsen(ticks, exposure)
    binned = bin_spikes(spec.spikes, ticks, exposure.shift_ticks, bad)
    if bad is None:
        return binned
    mean_rate = None if binned.mean_rate is None else binned.mean_rate[cells[1:]].contiguous()
    return BinnedSpikes(binned.counts[cells].contiguous(), binned.num_ticks, mean_rate)


def read_frame(path: Path, sequence: PreparedSequence) -> UInt8[np.ndarray, "H W 3"]:
    """A picture of the sequence: mapped (.npy), or decoded (.png). Raises as `map_array` and `read_image` do."""
    if sequence.frames == "npy":
        return map_array(path, (sequence.height, sequence.width, 3), (np.uint8,))
    image = read_image(path)
    check_size(path, (image.shape[0], image.shape[1]), (sequence.height, sequence.width))
    return image


def read_sample(sequence: PreparedSequence, positions: range, crop: Crop | None, spec: SampleSpec) -> Sample:
    """Read the exposures at `positions` and cut one field of view from frames and spikes alike (None: all of it).

    Where counts were made worse, the density that normalises an exposure changes by as much as that of the crop did.
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

    blur = pictures("blur")
    sample: Sample = {
        "blur": blur,
        "frames": blur,
        "meta": {
            "seq": sequence.name,
            "frame_idx": [exposure.frame_idx for exposure in exposures],
            "t0": [exposure.t0_s for exposure in exposures],
            "t1": [exposure.t1_s for exposure in exposures],
        },
    }
    if sequence.has_sharp:
        sample["sharp"] = pictures("sharp")
    if spec.spikes is None:
        return sample
    entering = []  # one frame at a time through the one normalisation, on either path, so that both give the same bits
    for picture, position, exposure in zip(blur, positions, exposures, strict=True):
        binned, density = read_binned(sequence, exposure, crop, spec), sequence.densities[position]
        if spec.worsen is not None and spec.spikes.representation == "counts":
            before, worse = crop_density(binned.counts), spec.worsen(binned.counts, exposure)
            if before > 0:
                density *= float(crop_density(worse) / before)
            binned = BinnedSpikes(worse, exposure.num_ticks)
        entering.append(network_inputs(spec.spikes, spec.stats, picture, binned, density=density))
    frames, voxels = zip(*entering, strict=True)
    sample["spike_vox"] = torch.stack(voxels)
    if spec.spikes.relight:
        sample["frames"] = torch.stack(frames)
    return sample


def collate(samples: list[Sample]) -> Batch:
    """Stack samples of one size into a batch; in a loader worker straight into the memory that it shares."""
    batch: dict[str, Any] = {"meta": [sample["meta"] for sample in samples]}
    for name in samples[0]:
        if name == "frames" and all(sample["frames"] is sample["blur"] for sample in samples):
            batch["frames"] = batch["blur"]  # which stands before it
        elif name != "meta":
            batch[name] = default_collate([sample[name] for sample in samples])  # type: ignore[literal-required]
    return cast("Batch", batch)
