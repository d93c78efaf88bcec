"""Reading at continuous positions, against a loop over pixels and against grid_sample."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from spikevrt.recording.alignment import read_at


def _values(*leading: int, height: int = 11, width: int = 13) -> torch.Tensor:
    return torch.rand(*leading, height, width, generator=torch.Generator().manual_seed(0)) - 0.3


def _centres(height: int, width: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack((x, y), dim=-1)


def _anywhere(num_rows: int, num_columns: int) -> torch.Tensor:
    """Positions inside and outside a picture of 11x13."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(num_rows, num_columns, 2, generator=generator, dtype=torch.float64) * 19 - 3


def _four_corners(values: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """The plain twin: pixel by pixel, in float64."""
    channels, height, width = values.shape
    out = torch.zeros(channels, *positions.shape[:2], dtype=torch.float64)
    for row in range(positions.shape[0]):
        for column in range(positions.shape[1]):
            x, y = (float(v) - 0.5 for v in positions[row, column])
            for corner_y in (math.floor(y), math.floor(y) + 1):
                for corner_x in (math.floor(x), math.floor(x) + 1):
                    weight = (1 - abs(x - corner_x)) * (1 - abs(y - corner_y))
                    pixel = values[:, min(max(corner_y, 0), height - 1), min(max(corner_x, 0), width - 1)]
                    out[:, row, column] += weight * pixel.double()
    return out


@pytest.mark.parametrize(("height", "width"), [(250, 400), (11, 13), (1, 7), (1, 1)])
def test_the_centres_of_the_pixels_return_the_picture_bit_for_bit(
    height: int, width: int, device: torch.device
) -> None:
    values = _values(3, height=height, width=width).to(device)
    before = values.clone()
    assert torch.equal(read_at(values, _centres(height, width)), values)
    assert torch.equal(values, before)


def test_half_a_pixel_to_the_right_is_the_mean_of_two_and_the_border_repeats() -> None:
    values = torch.tensor([[[0.0, 2.0, 6.0]]])
    positions = torch.tensor([[[1.0, 0.5], [2.0, 0.5], [3.0, 0.5], [-40.0, 9.0], [1.25, 0.5]]])
    assert read_at(values, positions).flatten().tolist() == [1.0, 4.0, 6.0, 0.0, 1.5]


def test_every_position_is_read_as_the_loop_over_corners_reads_it() -> None:
    values, positions = _values(3), _anywhere(17, 19)
    torch.testing.assert_close(
        read_at(values, positions).double(), _four_corners(values, positions), rtol=0, atol=2e-7
    )  # a few roundings of numbers below 1


def test_grid_sample_reads_the_same_to_within_its_rounding_of_positions(device: torch.device) -> None:
    values, positions = _values(3).to(device), _anywhere(17, 19).to(device)
    grid = (2 * positions / torch.tensor([13, 11], device=device) - 1).float()[None]
    expected = F.grid_sample(values[None], grid, padding_mode="border", align_corners=False)[0]
    torch.testing.assert_close(read_at(values, positions), expected, rtol=0, atol=1e-5)


def test_leading_axes_are_read_alike() -> None:
    values, positions = _values(2, 5, 3), _anywhere(17, 19)
    warped = read_at(values, positions)
    assert warped.shape == (2, 5, 3, 17, 19)
    assert torch.equal(warped[1, 4], read_at(values[1, 4], positions))


def test_a_crop_of_the_positions_reads_the_crop_of_the_result() -> None:
    values, positions = _values(3), _anywhere(17, 19)
    assert torch.equal(read_at(values, positions[2:9, 4:15]), read_at(values, positions)[:, 2:9, 4:15])


def test_a_constant_stays_constant_everywhere() -> None:
    assert torch.equal(read_at(torch.full((1, 11, 13), 0.7), _anywhere(17, 19)), torch.full((1, 17, 19), 0.7))


def test_gradients_reach_the_values_and_sum_to_the_number_of_readings() -> None:
    values = _values(1).double().requires_grad_()
    read_at(values, _anywhere(17, 19)).sum().backward()
    assert values.grad is not None and values.grad.sum().item() == pytest.approx(17 * 19)


def test_positions_that_are_no_numbers_are_refused() -> None:
    positions = _centres(11, 13)
    positions[3, 4, 1] = math.nan
    with pytest.raises(ValueError, match="positions: holds NaN; allowed: numbers"):
        read_at(_values(1), positions)
