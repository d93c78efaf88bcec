"""Windows of a size that is a symbol: the same as the ones that eager code finds by looking at numbers."""

from __future__ import annotations

import pytest
import torch

from spikevrt.model.blocks import (
    crop_and_roll_back,
    effective_window,
    masked_pairs,
    pad_and_roll,
    shift_mask,
    symbolic_windows,
)

SIZES = [(5, 7, 11), (2, 4, 4), (3, 8, 4), (6, 4, 13), (7, 9, 8)]  # shorter and longer than windows, equal, odd
WINDOW, SHIFT = (3, 4, 4), (1, 2, 2)


@pytest.mark.parametrize("size", SIZES)
def test_windows_and_shifts_are_those_of_eager_code(size: tuple[int, int, int]):
    window, shift, counts = symbolic_windows(size, WINDOW, SHIFT)
    assert (window, shift) == effective_window(size, WINDOW, SHIFT)
    assert counts == tuple(-(-length // w) for length, w in zip(size, window, strict=True))


@pytest.mark.parametrize("size", SIZES)
def test_the_masked_pairs_are_those_of_the_cached_mask(size: tuple[int, int, int]):
    window, shift, counts = symbolic_windows(size, WINDOW, SHIFT)
    padded = tuple(count * w for count, w in zip(counts, window, strict=True))
    mask = shift_mask(padded, window, shift)
    assert torch.equal(masked_pairs(size, counts, window, shift, torch.device("cpu")), mask.pairs(len(mask.kinds)))


def test_padding_of_an_axis_shorter_than_the_window_is_seen_by_nothing_else():
    pairs = masked_pairs((2, 1, 1), (1, 1, 1), (3, 1, 1), (0, 0, 0), torch.device("cpu"))
    assert pairs.int().tolist() == [[[0, 0, 1], [0, 0, 1], [1, 1, 0]]]  # two frames, and one of padding


def test_a_row_is_padded_shifted_and_brought_back():
    x = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 3, 1)
    rolled = pad_and_roll(x, (1, 1, 4), (0, 0, 2))
    assert rolled.flatten().tolist() == [3, 0, 1, 2]
    assert torch.equal(crop_and_roll_back(rolled, (1, 1, 3), (0, 0, 2)), x)
