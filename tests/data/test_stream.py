from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from spikevrt.data.dataset import ClipStream, StreamedDataset, permutation


def stream(start: int = 0, stop: int = 35, rank: int = 0, world: int = 1) -> list[tuple[int, int]]:
    return list(ClipStream(5, seed=3, start=start, stop=stop, rank=rank, world=world))


def test_each_epoch_shows_every_item_once_in_an_order_of_its_own():
    keys = stream()
    assert [epoch for epoch, _ in keys] == [e for e in range(7) for _ in range(5)]
    orders = {tuple(item for e, item in keys if e == epoch) for epoch in range(7)}
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders) and len(orders) > 1


def test_entering_the_stream_in_the_middle_continues_it():
    assert stream(start=13) == stream()[13:]


def test_the_ranks_together_take_what_one_rank_takes():
    parts = [stream(stop=33, rank=rank, world=3) for rank in range(3)]
    assert [key for group in zip(*parts, strict=True) for key in group] == stream(stop=33)


def test_another_seed_gives_another_order():
    assert permutation(101, seed=1, epoch=0) != permutation(101, seed=2, epoch=0)


class EpochItems:
    """Each item is (epoch, item), read from a tensor that processes share, as the real dataset's epoch is."""

    def __init__(self) -> None:
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return 5

    def set_epoch(self, epoch: int) -> None:
        self.epoch.fill_(epoch)

    def __getitem__(self, item: int) -> dict:
        return {"key": (int(self.epoch), item)}


@pytest.mark.parametrize("workers", [0, 2])
def test_the_epoch_reaches_the_item_whatever_the_number_of_workers(workers: int):
    dataset = EpochItems()
    loader = DataLoader(
        StreamedDataset(dataset),
        batch_size=3,
        sampler=ClipStream(5, seed=3, start=0, stop=33, rank=0, world=1),
        num_workers=workers,
        collate_fn=lambda samples: [sample["key"] for sample in samples],
    )
    assert [key for batch in loader for key in batch] == stream(stop=33)
    assert int(dataset.epoch) == 0  # the dataset that was given is untouched
