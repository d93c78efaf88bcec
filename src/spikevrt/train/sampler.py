"""Which clip comes when: an endless stream of seeded permutations that can be entered at any point."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from spikevrt.data.dataset import collate
from spikevrt.train.distributed import Ranks, reset_worker_signals

if TYPE_CHECKING:
    from spikevrt.config import Config
    from spikevrt.data.sample import Sample


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


def clip_loader(
    clips: EpochDataset, config: Config, ranks: Ranks, device: torch.device, *, samples: int, steps_left: int
) -> DataLoader[Any]:
    """Micro-batches of this rank for `steps_left` steps, from the place after `samples` clips of all ranks together."""
    start = samples - samples % ranks.world  # only another number of ranks than before leaves a rest
    clips_per_step = config.data.batch * config.train.accumulate * ranks.world
    stream = ClipStream(
        len(clips),
        seed=config.train.seed,
        start=start,
        stop=start + steps_left * clips_per_step,
        rank=ranks.rank,
        world=ranks.world,
    )
    return DataLoader(
        StreamedDataset(clips),
        batch_size=config.data.batch,
        sampler=stream,
        num_workers=config.data.workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        worker_init_fn=reset_worker_signals,
    )
