"""Read clips from a prepared dataset: what the training loop and validation see, and which clip comes when.

Item i of epoch e is drawn from (seed, e, i) and nothing else: any number of workers, in any order, gives the same clip.
Training sees an endless stream of seeded permutations of the items, which can be entered at any point.

Dimension key: T frames, K bins, H x W colour pixels, h x w spike pixels.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from spikevrt.config import Binning, DataConfig, SpikeInputs, Split
from spikevrt.data.augment import augment as apply_augmentation
from spikevrt.data.augment import degrade, degrade_ticks, draw_augmentation, draw_degradation
from spikevrt.data.sample import Crop, Sample, SampleSpec, collate, read_sample
from spikevrt.data.sequence import PREPARE_AGAIN, PreparedSequence, open_sequence
from spikevrt.recording.sidecar import Exposure
from spikevrt.represent.voxel import VoxelSpec, VoxelStats
from spikevrt.typed import convert, load_json, naming, require

__all__ = ["ClipDataset", "DatasetInfo", "collate", "open_dataset"]

DATASET_FILE = "dataset.json"
DATASET_FORMAT = "spikevrt-dataset"
DATASET_VERSION = 3


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
    binning: Binning = "whole"  # how ticks fall into bins

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
        read = convert(load_json(path, DATASET_FORMAT, DATASET_VERSION, PREPARE_AGAIN), _DatasetFile)
        spec, stats = VoxelSpec(read.num_bins, read.binning), VoxelStats(mean=read.mean, std=read.std)
        for split, names in (("train", read.train), ("val", read.val)):
            require(all(map(is_sequence_name, names)), split, list(names), "names of sequences")
    return DatasetInfo(
        root=root,
        num_bins=spec.num_bins,
        binning=spec.binning,
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
    binning: Binning
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
    """Clips of the training split of a prepared dataset: every stretch of `data.clip_frames` consecutive frames.

    `has_sharp`: the samples have sharp frames. Samples of a dataset with spike dropout have `spikes_present`.

    Args:
        data: the folder made by `spikevrt prepare` and how its clips are cut and varied; `crop_px` 0: whole frames.
        spikes: what enters the network; None: samples have no `spike_vox` and no spike file is opened.
        stats: mean and std that normalise, of the data that a network was trained on; None: this dataset's.
        seed: together with epoch and item it decides crop, augmentation and degradation.

    Raises:
        FileNotFoundError: no dataset at `data.root`.
        ValueError: a setting that this dataset cannot obey; the message names it.
    """

    def __init__(
        self, data: DataConfig, spikes: SpikeInputs | None, *, stats: VoxelStats | None = None, seed: int = 123
    ) -> None:
        self.data, self.spikes, self.seed, self.epoch = data, spikes, seed, 0
        self.info = open_dataset(data.root)
        if stats is not None:
            self.info = dataclasses.replace(self.info, stats=stats)
        if data.clip_frames < 1:
            raise ValueError(f"data.clip_frames: {data.clip_frames}; allowed: 1 or more")
        check_inputs(self.info, spikes)
        if spikes is not None and spikes.representation == "profile" and data.voxels != "raw":
            allowed = "'raw', which reads the ticks"
            raise ValueError(f"data.voxels: {data.voxels!r}; allowed for representation profile: {allowed}")
        if data.augment and not data.crop_px:
            raise ValueError("data.augment: true needs data.crop_px; allowed: a crop, or data.augment: false")
        self.sequences = self.info.train
        self.has_sharp = check_sequences(self.info, "train", spikes)
        if data.crop_px:
            self._check_crop(data.crop_px)
        length = data.clip_frames
        self.clips = [
            (index, range(start, start + length))
            for index, sequence in enumerate(self.sequences)
            for run in sequence.runs()
            for start in range(run.start, run.stop - length + 1)
        ]
        if not self.clips:
            longest = max((len(run) for sequence in self.sequences for run in sequence.runs()), default=0)
            raise ValueError(
                f"data.clip_frames: {length}, but the longest run of frames in {self.info.root / 'train'} is "
                f"{longest}; allowed: 1 to {longest}"
            )

    def _check_crop(self, crop_px: int) -> None:
        for sequence in self.sequences:
            if not 0 < crop_px <= min(sequence.width, sequence.height):
                raise ValueError(
                    f"data.crop_px: {crop_px} does not fit {sequence.name} of {sequence.width}x{sequence.height}; "
                    f"allowed: 1 to {min(sequence.width, sequence.height)}"
                )
            if crop_px % sequence.ratio:
                raise ValueError(
                    f"data.crop_px: {crop_px} cuts through spike pixels of {sequence.name}; "
                    f"allowed: a multiple of {sequence.ratio}"
                )
        ratios = sorted({sequence.ratio for sequence in self.sequences})
        if self.spikes is not None and len(ratios) > 1:
            raise ValueError(f"data.crop_px: {crop_px} over sequences of spike ratios {ratios}; allowed: one ratio")

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
        crop = draw_crop(sequence, self.data.crop_px, generator) if self.data.crop_px else None
        augmentation = draw_augmentation(generator) if self.data.augment else None
        present, worsen = self._draw_spikes(sequence, generator)
        spec = SampleSpec(self.spikes if present else None, self.info.stats, self.data.voxels, worsen)
        sample = read_sample(sequence, positions, crop, spec)
        if self.spikes is not None and self.data.spike_dropout > 0:
            sample["spikes_present"] = torch.tensor(present)
            if not present:
                height, width = sample["blur"].shape[-2:]
                cells = (-(-height // sequence.ratio), -(-width // sequence.ratio))
                sample["spike_vox"] = torch.zeros(len(positions), self.spikes.num_bins, *cells)
        return sample if augmentation is None else apply_augmentation(sample, augmentation)

    def _draw_spikes(
        self, sequence: PreparedSequence, generator: torch.Generator
    ) -> tuple[bool, Callable[[Tensor, Exposure], Tensor] | None]:
        """Whether this clip has spikes, and what makes them worse. Draws nothing where both settings are off."""
        data, spikes = self.data, self.spikes
        if spikes is None:
            return False, None
        if data.spike_dropout > 0 and float(torch.rand((), generator=generator)) < data.spike_dropout:
            return False, None
        if data.degrade.probability == 0:
            return True, None
        how = draw_degradation(data.degrade, sequence.ratio, generator)
        if how is None:
            return True, None

        def worsen(recorded: Tensor, exposure: Exposure) -> Tensor:
            if spikes.representation == "profile":
                return degrade_ticks(recorded, how, generator=generator)
            return degrade(recorded, how, num_ticks=exposure.num_ticks, binning=spikes.binning, generator=generator)

        return True, worsen


def check_inputs(info: DatasetInfo, spikes: SpikeInputs | None) -> None:
    """Raises ValueError where a network reads other bins than were prepared."""
    if spikes is not None and spikes.num_bins != info.num_bins:
        raise ValueError(
            f"model.spikes.num_bins: {spikes.num_bins}, but {info.root} was prepared with {info.num_bins}; "
            f"allowed: {info.num_bins}, or prepare again with --num-bins {spikes.num_bins}"
        )
    if spikes is not None and spikes.binning != info.binning:
        raise ValueError(
            f"model.spikes.binning: {spikes.binning!r}, but {info.root} was prepared with {info.binning!r}; "
            f"allowed: {info.binning!r}, or prepare again with --binning {spikes.binning}"
        )


def check_sequences(info: DatasetInfo, split: Split, spikes: SpikeInputs | None) -> bool:
    """Whether the sequences of a split have sharp frames.

    Only profiles are read in windows that lie elsewhere than the exposure; nothing else could tell the time of a sharp
    frame off the middle.

    Raises:
        ValueError: there is no sequence, only some have sharp frames, or those lie off the middle of their exposures
            for a network that does not read profiles.
    """
    sequences = info.sequences(split)
    if not sequences:
        raise ValueError(f"{info.root / split}: holds no sequence")
    for sequence in sequences if spikes is None or spikes.representation != "profile" else ():
        shifts = [exposure.shift_ticks for exposure in sequence.exposures if exposure.shift_ticks]
        if shifts and sequence.has_sharp:
            raise ValueError(
                f"{sequence.folder}: sharp frames {shifts[0]} ticks off the middle of their exposures; "
                "allowed: representation profile, for a network with spikes"
            )
    has_sharp = {sequence.has_sharp for sequence in sequences}
    if len(has_sharp) > 1:
        raise ValueError(f"{info.root / split}: only some sequences have sharp frames; allowed: all, or none")
    return has_sharp.pop()


def draw_crop(sequence: PreparedSequence, crop_px: int, generator: torch.Generator) -> Crop:
    """A square crop, uniform over the places where its corners fall between spike pixels."""
    r = sequence.ratio
    top = int(torch.randint((sequence.height - crop_px) // r + 1, (), generator=generator))
    left = int(torch.randint((sequence.width - crop_px) // r + 1, (), generator=generator))
    return Crop(top * r, left * r, crop_px, crop_px)


class EpochDataset(Protocol):
    """A dataset whose item i depends on nothing but (seed, epoch, i)."""

    def __len__(self) -> int: ...
    def __getitem__(self, item: int) -> Sample: ...
    def set_epoch(self, epoch: int) -> None: ...


class ClipStream(Sampler[tuple[int, int]]):
    """Positions `start, start + 1, ...` of the stream as pairs (epoch, item); of several ranks each takes every n-th.

    Position p lies in epoch p // num_items, at place p % num_items of that epoch's permutation. The whole state is the
    number of samples consumed by all ranks together, so a stopped run goes on exactly where it was.
    """

    def __init__(self, num_items: int, *, seed: int, start: int, stop: int, rank: int, world: int) -> None:
        assert num_items > 0 and 0 <= rank < world and start % world == 0
        self.num_items, self.seed = num_items, seed
        self.positions = range(start + rank, stop, world)

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        current, order = -1, []
        for position in self.positions:
            epoch, place = divmod(position, self.num_items)
            if epoch != current:
                current, order = epoch, permutation(self.num_items, seed=self.seed, epoch=epoch)
            yield epoch, order[place]


def permutation(num_items: int, *, seed: int, epoch: int) -> list[int]:
    """The order of one epoch, a function of (seed, epoch)."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(num_items, generator=generator).tolist()


def step_seed(seed: int, step: int, rank: int) -> int:
    """What the random numbers of one step on one rank are drawn from."""
    return ((seed * 1_000_003 + step) * 1_009 + rank) % 2**63


class StreamedDataset(Dataset["Sample"]):
    """Looks up (epoch, item) pairs, so that the epoch reaches every loader worker with the item itself.

    Around the end of an epoch two workers may be in different ones, so each process has a copy of its own.
    """

    def __init__(self, dataset: EpochDataset) -> None:
        self.dataset = dataset
        self._own: EpochDataset | None = None
        self._pid = -1

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, item = key
        if self._own is None or self._pid != os.getpid():
            self._own, self._pid = copy.deepcopy(self.dataset), os.getpid()
        self._own.set_epoch(epoch)
        return self._own[item]
