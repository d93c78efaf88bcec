"""Windows of a size that is a symbol: the same as the ones that eager code finds by looking at numbers."""

from __future__ import annotations

import pytest
import torch
from torch.export import Dim

from spikevrt.model.blocks import (
    TMSA,
    BlockSettings,
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


@pytest.mark.slow
@pytest.mark.parametrize("mutual", [False, True])
def test_a_block_exported_at_one_size_is_the_block_at_every_other(mutual: bool):
    window = (2, 4, 4) if mutual else WINDOW
    torch.manual_seed(3)
    block = TMSA(BlockSettings(8, window, 2, 2.0, mutual=mutual), (1, 2, 2), 0.0).eval()
    torch.nn.init.normal_(block.attn.relative_position_bias_table)
    # a size that may be one window only, and may not, is refused by torch.export: rows and columns begin above it
    free = {axis: Dim(name, min=lowest, max=64) for axis, name, lowest in ((1, "d", 2), (2, "h", 5), (3, "w", 5))}
    with torch.no_grad(), torch.fx.experimental._config.patch(backed_size_oblivious=True):
        program = torch.export.export(block, (torch.randn(1, 5, 8, 12, 8),), dynamic_shapes=(free,)).module()
        for size in ((5, 7, 11), (2, 5, 8), (3, 16, 5), (6, 5, 13), (7, 9, 8)):
            x = torch.randn(1, *size, 8)
            torch.testing.assert_close(program(x), block(x), rtol=0, atol=2e-6)  # sums in another order
