"""Broken pixels are filled from good neighbours, and only they change."""

from __future__ import annotations

import math

import pytest
import torch

from spikevrt.represent.counts import repair


def _bad(*pixels: tuple[int, int], height: int = 5, width: int = 7) -> torch.Tensor:
    bad = torch.zeros(height, width, dtype=torch.bool)
    for pixel in pixels:
        bad[pixel] = True
    return bad


def _values(*leading: int) -> torch.Tensor:
    return torch.rand(*leading, 5, 7, generator=torch.Generator().manual_seed(0))


def test_a_bad_pixel_becomes_the_mean_of_its_eight_neighbours(device: torch.device) -> None:
    values = torch.arange(35, dtype=torch.float32, device=device).view(5, 7)
    values[2, 3] = 1000
    assert repair(values, _bad((2, 3)))[2, 3].item() == 17.0  # a plane: the mean is the value at the middle


def test_in_a_corner_three_neighbours_are_left() -> None:
    values = torch.tensor([[9.0, 1.0], [2.0, 6.0]])
    assert repair(values, _bad((0, 0), height=2, width=2))[0, 0].item() == 3.0


def test_a_bad_neighbour_is_not_read_even_when_it_is_no_number() -> None:
    values = torch.ones(5, 7)
    values[0, 0] = values[2, 3] = values[2, 4] = math.nan
    assert torch.equal(repair(values, _bad((0, 0), (2, 3), (2, 4))), torch.ones(5, 7))


def test_good_pixels_keep_their_bits_and_the_input_is_untouched(device: torch.device) -> None:
    values, bad = _values(2, 3).to(device), _bad((0, 0), (2, 3), (2, 4), (4, 6)).to(device)
    before = values.clone()
    repaired = repair(values, bad)
    assert torch.equal(repaired[..., ~bad], values[..., ~bad])
    assert not (repaired[..., bad] == values[..., bad]).any()
    assert torch.equal(values, before)


def test_a_hole_is_filled_from_its_rim_inwards() -> None:
    values = torch.zeros(5, 7)
    values[0] = values[-1] = 4.0
    values[:, 0] = values[:, -1] = 4.0
    hole = _bad(*[(row, column) for row in range(1, 4) for column in range(1, 6)])
    assert torch.equal(repair(values, hole), torch.full((5, 7), 4.0))


def test_from_one_good_pixel_all_others_are_filled() -> None:
    bad = torch.ones(5, 7, dtype=torch.bool)
    bad[4, 2] = False
    values = _values()
    assert torch.allclose(repair(values, bad), values[4, 2], rtol=1e-6)  # means of equal numbers, rounded


def test_leading_axes_are_repaired_alike() -> None:
    values, bad = _values(2, 3), _bad((0, 0), (2, 3), (2, 4))
    assert torch.equal(repair(values, bad)[1, 2], repair(values[1, 2], bad))


def test_without_bad_pixels_nothing_changes() -> None:
    values = _values(3)
    assert torch.equal(repair(values, _bad()), values)


def test_a_view_is_repaired_as_its_copy() -> None:
    values, bad = _values(2, 3).transpose(-1, -2), _bad((2, 3)).t()
    assert torch.equal(repair(values, bad), repair(values.contiguous(), bad))


def test_a_picture_without_a_good_pixel_is_refused() -> None:
    with pytest.raises(ValueError, match="bad: all 5x7 pixels; allowed: at least one good pixel"):
        repair(_values(), torch.ones(5, 7, dtype=torch.bool))
