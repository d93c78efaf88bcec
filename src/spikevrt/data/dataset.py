"""Read clips from a prepared dataset: what the training loop and validation see.

Item i of epoch e is drawn from (seed, e, i) and nothing else: any number of workers, in any order, gives the same clip.

Dimension key: T frames, K bins, H x W colour pixels, h x w spike pixels.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from spikevrt.config import DegradeConfig
from spikevrt.data.augment import augment as apply_augmentation
from spikevrt.data.augment import degrade, degrade_ticks, draw_augmentation, draw_degradation
from spikevrt.data.sample import Crop, Representation, Sample, collate, read_sample
from spikevrt.data.sequence import PREPARE_AGAIN, PREPARED_VERSION, PreparedSequence, open_sequence
from spikevrt.recording.exposure import Exposure
from spikevrt.represent.voxel import Normalize, VoxelSpec, VoxelStats
from spikevrt.represent.voxel import Split as BinSplit
from spikevrt.typed import convert, load_json, naming, require

__all__ = ["ClipDataset", "DatasetInfo", "Split", "collate", "open_dataset"]

DATASET_FILE = "dataset.json"
DATASET_FORMAT = "spikevrt-dataset"
NOT_DEGRADED = DegradeConfig()
Split = Literal["train", "val"]


@dataclass(frozen=True)
class DatasetInfo:
    """A prepared dataset: bins per exposure, voxel statistics of the training set, a hash of all files, sequences."""

    root: Path
    num_bins: int
    stats: VoxelStats
    data_hash: str
    train: tuple[PreparedSequence, ...]
    val: tuple[PreparedSequence, ...]
    num_dropped: int = 0  # frames of the recordings that could not be used
    bin_split: BinSplit = "whole"  # how ticks fall into bins

    @property
    def num_frames(self) -> int:
        return sum(len(sequence.exposures) for sequence in self.train + self.val)

    @property
    def max_shift_ticks(self) -> int:
        """How far sharp frames of the training set lie from the middle of their exposures, at most."""
        return max((abs(one.shift_ticks) for sequence in self.train for one in sequence.exposures), default=0)

    def sequences(self, split: Split) -> tuple[PreparedSequence, ...]:
        return self.train if split == "train" else self.val


def open_dataset(root: str | Path) -> DatasetInfo:
    """Read `ROOT/dataset.json` and every sequence that it names.

    Raises:
        FileNotFoundError: no dataset there, or a sequence is missing.
        ValueError: not a dataset of this version, or damaged.
    """
    root = Path(root)
    path = root / DATASET_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{root}: no such dataset ({DATASET_FILE} is missing; `spikevrt prepare` makes one)")
    with naming(path):
        read = convert(load_json(path, DATASET_FORMAT, PREPARED_VERSION, PREPARE_AGAIN), _DatasetFile)
        spec, stats = VoxelSpec(read.num_bins, read.bin_split), VoxelStats(mean=read.mean, std=read.std)
        for split, names in (("train", read.train), ("val", read.val)):
            require(all(map(is_sequence_name, names)), split, list(names), "names of sequences")
    return DatasetInfo(
        root=root,
        num_bins=spec.num_bins,
        bin_split=spec.split,
        stats=stats,
        data_hash=read.data_hash,
        train=tuple(open_sequence(root / "train" / name) for name in read.train),
        val=tuple(open_sequence(root / "val" / name) for name in read.val),
        num_dropped=read.num_dropped,
    )


@dataclass(frozen=True)
class _DatasetFile:
    """dataset.json."""

    num_bins: int
    bin_split: BinSplit
    mean: float
    std: float
    train: tuple[str, ...]
    val: tuple[str, ...]
    data_hash: str
    num_dropped: int


def is_sequence_name(name: str) -> bool:
    """Whether a sequence can be called so: a file's name without control characters."""
    try:
        return min(os.fsencode(name), default=0) >= 32 and Path(name).name == name  # below are control characters
    except UnicodeEncodeError:
        return False


class ClipDataset(torch.utils.data.Dataset[Sample]):
    """Clips of a prepared dataset. `has_sharp`: the samples of this split have sharp frames.

    The training split offers every stretch of `clip_frames` consecutive frames. The validation split holds every frame
    exactly once, in clips of at most `clip_frames` frames of nearly equal length.

    Args:
        root: folder made by `spikevrt prepare`.
        clip_frames: frames a clip (T).
        crop_px: side of the random square crop in colour pixels, a multiple of the spike ratio; None: whole frames.
        voxels: "precomputed" reads `spike_vox/*.npy`, "raw" counts `spike/*.dat`; both give the same bits.
        num_bins: bins that the network expects (K); None: as many as were prepared.
        bin_split: how ticks fall into bins for the network (its `split`); None: as they were prepared.
        normalize: "density" brings each exposure's mean of log1p(counts), as measured on the whole frame when the
            dataset was prepared, to that of the training set.
        spikes: without, samples have no `spike_vox` and no spike file is opened.
        augment: random mirrors, transposition and time reversal; needs `crop_px`, which makes clips square.
        spike_dropout: share of the clips whose spikes are absent (`spikes_present` False, no spike file opened).
        degradation: how the spikes of the others may be worse than recorded.
        representation: of the spikes: "counts" (log1p, normalised), or "profile" (`represent.profile`), which needs
            voxels "raw".
        relight: samples also have `lit`, their frames lit as the spikes say (where there are none: as they are).
        stats: mean and std that normalise, of the data that a network was trained on; None: this dataset's.
        seed: together with epoch and item it decides crop and augmentation.

    Raises:
        FileNotFoundError: no dataset at `root`.
        ValueError: a setting that this dataset cannot obey; the message names it.
    """

    def __init__(
        self,
        root: str | Path,
        split: Split,
        *,
        clip_frames: int,
        crop_px: int | None = None,
        voxels: Literal["precomputed", "raw"] = "precomputed",
        num_bins: int | None = None,
        bin_split: BinSplit | None = None,
        normalize: Normalize = "none",
        spikes: bool = True,
        augment: bool = False,
        spike_dropout: float = 0.0,
        degradation: DegradeConfig = NOT_DEGRADED,
        representation: Representation = "counts",
        relight: bool = False,
        stats: VoxelStats | None = None,
        seed: int = 123,
    ) -> None:
        self.info = open_dataset(root)
        if stats is not None:
            self.info = dataclasses.replace(self.info, stats=stats)
        if split not in get_args(Split):
            raise ValueError(f"split: {split!r}; allowed: train, val")
        if voxels not in ("precomputed", "raw"):
            raise ValueError(f"voxels: {voxels!r}; allowed: precomputed, raw")
        if clip_frames < 1:
            raise ValueError(f"clip_frames: {clip_frames}; allowed: 1 or more")
        if num_bins is not None and num_bins != self.info.num_bins:
            raise ValueError(
                f"num_bins: {num_bins}, but {root} was prepared with {self.info.num_bins}; "
                f"allowed: {self.info.num_bins}, or prepare again with --num-bins {num_bins}"
            )
        if bin_split is not None and bin_split != self.info.bin_split:
            raise ValueError(
                f"bin_split: {bin_split!r}, but {root} was prepared with {self.info.bin_split!r}; "
                f"allowed: {self.info.bin_split!r}, or prepare again with --split {bin_split}"
            )
        if normalize not in get_args(Normalize):
            raise ValueError(f"normalize: {normalize!r}; allowed: {', '.join(get_args(Normalize))}")
        if representation == "profile" and spikes and voxels != "raw":
            raise ValueError(f"voxels: {voxels!r}; allowed for representation profile: 'raw', which reads the ticks")
        if augment and crop_px is None:
            raise ValueError("augment: true needs crop_px; allowed: a crop, or augment: false")
        self.split = split
        self.crop_px, self.voxels, self.spikes, self.augment, self.seed = crop_px, voxels, spikes, augment, seed
        self.normalize: Normalize = normalize
        self.representation: Representation = representation
        self.spike_dropout, self.degradation, self.relight = spike_dropout, degradation, relight
        self.sequences = self.info.sequences(split)
        if not (spikes and representation == "profile"):
            self._check_shifts()
        self.has_sharp = all(sequence.has_sharp for sequence in self.sequences)
        if not self.has_sharp and any(sequence.has_sharp for sequence in self.sequences):
            raise ValueError(f"{Path(root) / split}: only some sequences have sharp frames; allowed: all, or none")
        if crop_px is not None:
            self._check_crop(crop_px)
        self.clips = [
            (index, clip)
            for index, sequence in enumerate(self.sequences)
            for run in sequence.runs()
            for clip in (_windows(run, clip_frames) if split == "train" else _parts(run, clip_frames))
        ]
        if not self.clips:
            longest = max((len(run) for sequence in self.sequences for run in sequence.runs()), default=0)
            raise ValueError(
                f"clip_frames: {clip_frames}, but the longest run of frames in {Path(root) / split} is {longest}; "
                f"allowed: 1 to {longest}"
                if longest
                else f"{Path(root) / split}: holds no sequence"
            )
        self.epoch = 0

    def _check_shifts(self) -> None:
        """Only profiles are read in windows that lie elsewhere than the exposure; nothing else could tell the time."""
        for sequence in self.sequences:
            shifts = [exposure.shift_ticks for exposure in sequence.exposures if exposure.shift_ticks]
            if shifts and sequence.has_sharp:
                raise ValueError(
                    f"{sequence.folder}: sharp frames {shifts[0]} ticks off the middle of their exposures; "
                    "allowed: representation profile, for a network with spikes"
                )

    def _check_crop(self, crop_px: int) -> None:
        for sequence in self.sequences:
            if not 0 < crop_px <= min(sequence.width, sequence.height):
                raise ValueError(
                    f"crop_px: {crop_px} does not fit {sequence.name} of {sequence.width}x{sequence.height}; "
                    f"allowed: 1 to {min(sequence.width, sequence.height)}"
                )
            if crop_px % sequence.ratio:
                raise ValueError(
                    f"crop_px: {crop_px} cuts through spike pixels of {sequence.name}; "
                    f"allowed: a multiple of {sequence.ratio}"
                )
        ratios = sorted({sequence.ratio for sequence in self.sequences})
        if self.spikes and len(ratios) > 1:
            raise ValueError(f"crop_px: {crop_px} over sequences of spike ratios {ratios}; allowed: one ratio")

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose crops and augmentations are drawn (in this process: workers hold their own copy)."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, item: int) -> Sample:
        index, positions = self.clips[item]
        sequence = self.sequences[index]
        item %= len(self.clips)
        state = np.random.SeedSequence([self.seed, self.epoch, item]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]))
        crop = None if self.crop_px is None else draw_crop(sequence, self.crop_px, generator)
        augmentation = draw_augmentation(generator) if self.augment else None
        present, worsen = self._draw_spikes(sequence, generator)
        sample = read_sample(
            sequence,
            positions,
            crop,
            spikes=present,
            num_bins=self.info.num_bins,
            bin_split=self.info.bin_split,
            stats=self.info.stats,
            normalize=self.normalize,
            voxels=self.voxels,
            worsen=worsen,
            representation=self.representation,
            relight=self.relight,
        )
        if self.spikes and self.spike_dropout > 0:
            sample["spikes_present"] = torch.tensor(present)
            if not present:
                height, width = sample["blur"].shape[-2:]
                cells = (-(-height // sequence.ratio), -(-width // sequence.ratio))
                sample["spike_vox"] = torch.zeros(len(positions), self.info.num_bins, *cells)
                if self.relight:
                    sample["lit"] = sample["blur"]
        return sample if augmentation is None else apply_augmentation(sample, augmentation)

    def _draw_spikes(
        self, sequence: PreparedSequence, generator: torch.Generator
    ) -> tuple[bool, Callable[[Tensor, Exposure], Tensor] | None]:
        """Whether this clip has spikes, and what makes them worse. Draws nothing where both settings are off."""
        if not self.spikes:
            return False, None
        if self.spike_dropout > 0 and float(torch.rand((), generator=generator)) < self.spike_dropout:
            return False, None
        if self.degradation.probability == 0:
            return True, None
        how = draw_degradation(self.degradation, sequence.ratio, generator)
        if how is None:
            return True, None

        def worsen(counts: Tensor, exposure: Exposure) -> Tensor:
            if self.representation == "profile":
                return degrade_ticks(counts, how, generator=generator)
            return degrade(counts, how, num_ticks=exposure.num_ticks, split=self.info.bin_split, generator=generator)

        return True, worsen


def draw_crop(sequence: PreparedSequence, crop_px: int, generator: torch.Generator) -> Crop:
    """A square crop, uniform over the places where its corners fall between spike pixels."""
    r = sequence.ratio
    top = int(torch.randint((sequence.height - crop_px) // r + 1, (), generator=generator))
    left = int(torch.randint((sequence.width - crop_px) // r + 1, (), generator=generator))
    return Crop(top * r, left * r, crop_px, crop_px)


def _windows(run: range, length: int) -> list[range]:
    """Every stretch of `length` consecutive positions."""
    return [range(start, start + length) for start in range(run.start, run.stop - length + 1)]


def _parts(run: range, length: int) -> list[range]:
    """The run cut into the fewest parts of at most `length`, sizes differing by at most one."""
    num_parts = -(-len(run) // length)
    edges = [run.start + k * len(run) // num_parts for k in range(num_parts + 1)]
    return [range(a, b) for a, b in zip(edges, edges[1:], strict=False)]
