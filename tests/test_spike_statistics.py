from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.spike_statistics import (
    flat_field_cv,
    interval_outside_fraction,
    phase_residual,
    phase_residuals,
    spike_intervals,
)

from spikevrt.recording.spike_file import SpikeGeometry, read_spikes


def stream(*spike_ticks: list[int], num_ticks: int = 31) -> torch.Tensor:
    """One row of pixels that fire at the given ticks."""
    spikes = torch.zeros((num_ticks, 1, len(spike_ticks)), dtype=torch.uint8)
    for pixel, ticks in enumerate(spike_ticks):
        spikes[ticks, 0, pixel] = 1
    return spikes


def test_intervals_are_listed_pixel_by_pixel():
    pixel, interval = spike_intervals(stream([0, 3, 4], [7], [], [5, 10]))
    assert pixel.tolist() == [0, 0, 3]
    assert interval.tolist() == [3, 1, 5]


def test_an_interval_off_the_two_around_the_mean_is_outside():
    # means 3.25 (3, 3, 3, 4: none outside) and 3.5 (2, 4, 4, 4: one of four)
    assert interval_outside_fraction(stream([0, 3, 6, 9, 13])) == 0
    assert interval_outside_fraction(stream([0, 3, 6, 9, 13], [0, 2, 6, 10, 14])) == 1 / 8


def test_where_the_mean_is_a_whole_number_only_that_is_inside():
    assert interval_outside_fraction(stream([0, 3, 5, 9])) == 2 / 3  # 3, 2, 4 around 3


def test_spikes_on_a_line_have_no_residual_whatever_the_period():
    residuals = phase_residuals(stream([0, 3, 6, 9], [2, 9, 16, 23, 30]))
    torch.testing.assert_close(residuals, torch.zeros(1, 2, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_residual_is_the_distance_from_the_fitted_line():
    # spikes at 0, 1, 3: the line is -1/6 + 1.5 k, the distances 1/6, -1/3, 1/6
    assert abs(phase_residual(stream([10, 11, 13])) - (1 / 18) ** 0.5) < 1e-12


def test_a_pixel_with_few_spikes_has_no_residual():
    residuals = phase_residuals(stream([0, 3, 6, 9], [5, 9], []), min_spikes=4)
    assert residuals.isnan().tolist() == [[False, True, True]]


def test_a_noise_free_sensor_has_the_residual_of_rounding():
    period = torch.linspace(3.1, 4.9, 101, dtype=torch.float64)
    spikes = torch.zeros((401, 1, 101), dtype=torch.uint8)
    for number in range(80):
        spikes[(number * period).ceil().long(), 0, torch.arange(101)] = 1
    assert interval_outside_fraction(spikes) == 0
    assert abs(phase_residual(spikes) - 12**-0.5) < 0.003


def test_the_spread_of_a_flat_field_is_relative_to_its_mean():
    assert abs(flat_field_cv(stream([0, 1], [0, 1, 2, 3])) - 1 / 3) < 1e-12


def test_a_stream_without_intervals_is_refused():
    with pytest.raises(ValueError, match=r"^spikes: no pixel has two spikes; allowed: a stream with intervals$"):
        interval_outside_fraction(stream([3], [7]))


def test_a_stream_of_few_spikes_has_no_phase():
    with pytest.raises(ValueError, match=r"^spikes: no pixel has 3 spikes; allowed:"):
        phase_residual(stream([3, 4]))


def test_a_line_through_two_spikes_is_refused():
    with pytest.raises(ValueError, match=r"^min_spikes: 2; must be 3 or more$"):
        phase_residual(stream([3, 4]), min_spikes=2)


def test_an_empty_stream_has_no_spread():
    with pytest.raises(ValueError, match=r"^spikes: none; allowed: a stream with spikes$"):
        flat_field_cv(stream([], []))


def test_the_spikes_are_left_as_they_were():
    spikes = stream([0, 3, 4], [1, 2, 9])
    before = spikes.clone()
    for statistic in (interval_outside_fraction, phase_residual, flat_field_cv):
        statistic(spikes)
    assert torch.equal(spikes, before)


def test_the_static_recording_has_the_figures_of_the_sensor_page(shared: Path):
    with np.load(shared / "data/real_static/real_spike_250x400x500_HWT.npz") as file:
        spikes = torch.from_numpy(file["arr_0"].transpose(2, 0, 1))[:, ::2, ::2].contiguous()
    assert round(interval_outside_fraction(spikes), 5) == 0.00127
    assert round(phase_residual(spikes), 3) == 0.302


def test_the_background_of_the_car_has_the_figures_of_the_sensor_page(shared: Path):
    spikes = read_spikes(shared / "data/real_car/car_400x250_200f.dat", SpikeGeometry(width=400, height=250))
    background = torch.from_numpy(np.ascontiguousarray(spikes[:, :30]))  # above the road
    assert round(interval_outside_fraction(background), 5) == 0.00002
    assert round(phase_residual(background), 3) == 0.292
