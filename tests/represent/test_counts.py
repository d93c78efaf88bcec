"""Counting, repairing and registering one exposure, in this order and in one place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spikevrt.recording.alignment import read_at
from spikevrt.represent.counts import exposure_counts, exposure_intervals, place_counts, repair, window_intervals

SPIKES = np.random.default_rng(5).integers(0, 2, (13, 5, 7), dtype=np.uint8)


def count(edges):
    return np.stack([SPIKES[a:b].sum(0, dtype=np.uint16) for a, b in zip(edges, edges[1:], strict=False)])


def centres(rows: int, columns: int) -> np.ndarray:
    """The positions of the sensor's own pixels."""
    return np.stack(np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5), axis=-1).astype(np.float32)


def test_without_bad_pixels_and_registration_the_counts_are_the_sums_of_the_ticks():
    counts = exposure_counts(count, 13, num_bins=2)
    assert torch.equal(counts, torch.from_numpy(np.stack([SPIKES[:6].sum(0), SPIKES[6:].sum(0)])).float())


def test_a_registration_onto_the_sensor_itself_changes_nothing():
    plain = exposure_counts(count, 13, num_bins=3)
    assert torch.equal(exposure_counts(count, 13, num_bins=3, positions=centres(5, 7)), plain)


def test_bad_pixels_are_filled_before_the_registration_reads_them():
    bad = np.zeros((5, 7), dtype=bool)
    bad[2, 3] = True
    positions = centres(4, 6) + 0.5  # between four pixels each
    counts = torch.from_numpy(count([0, 13]).astype(np.float32))
    expected = read_at(repair(counts, torch.from_numpy(bad)), torch.from_numpy(positions)).half().float()
    assert torch.equal(place_counts(counts, bad=bad, positions=positions), expected)
    assert not torch.equal(place_counts(counts, positions=positions), expected)


def test_what_is_placed_survives_float16():
    placed = place_counts(torch.rand(2, 5, 7), positions=centres(5, 7) + 0.31)
    assert torch.equal(placed.half().float(), placed)


def test_the_counts_given_stay_as_they_are():
    counts = torch.rand(2, 5, 7)
    before = counts.clone()
    place_counts(counts, bad=np.eye(5, 7, dtype=bool), positions=centres(5, 7) + 0.25)
    assert torch.equal(counts, before)


def test_fewer_ticks_than_bins_are_refused_unless_they_may_be_shared():
    with pytest.raises(ValueError, match="num_bins: 32 bins for 13 ticks"):
        exposure_counts(count, 13, num_bins=32)
    assert exposure_counts(count, 13, num_bins=32, binning="fractional").sum() == pytest.approx(SPIKES.sum(), rel=1e-6)


def test_a_window_elsewhere_than_the_exposure_tells_the_light_there_and_the_exposures_mean():
    spikes = torch.zeros(12, 1, 1, dtype=torch.uint8)
    spikes[:6:2] = 1  # every second tick, then every third
    spikes[6::3] = 1
    counts, mean_rate = window_intervals(spikes, 6, num_bins=2)
    assert torch.equal(counts, exposure_intervals(spikes[6:], num_bins=2))
    torch.testing.assert_close(mean_rate, torch.full((1, 1), 0.5), rtol=0, atol=0)
    counts, mean_rate = window_intervals(spikes, -6, num_bins=2)
    assert torch.equal(counts, exposure_intervals(spikes[:6], num_bins=2))
    torch.testing.assert_close(mean_rate, torch.full((1, 1), 1 / 3))


def test_a_window_that_is_the_exposure_needs_no_other_mean():
    spikes = (torch.rand(7, 2, 3, generator=torch.Generator().manual_seed(1)) < 0.4).to(torch.uint8)
    counts, mean_rate = window_intervals(spikes, 0, num_bins=3)
    assert mean_rate is None and torch.equal(counts, exposure_intervals(spikes, num_bins=3))
