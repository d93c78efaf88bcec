"""Counting and repairing one exposure, in this order and in one place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spikevrt.data.prepare import narrow
from spikevrt.represent.counts import exposure_counts, exposure_intervals, filled, repair, window_intervals

SPIKES = np.random.default_rng(5).integers(0, 2, (13, 5, 7), dtype=np.uint8)


def count(edges):
    return np.stack([SPIKES[a:b].sum(0, dtype=np.uint16) for a, b in zip(edges, edges[1:], strict=False)])


def test_without_bad_pixels_the_counts_are_the_sums_of_the_ticks():
    counts = exposure_counts(count, 13, num_bins=2)
    assert torch.equal(counts, torch.from_numpy(np.stack([SPIKES[:6].sum(0), SPIKES[6:].sum(0)])).float())


def test_what_is_filled_survives_float16_and_the_counts_given_stay_as_they_are():
    counts, bad = torch.rand(2, 5, 7), np.eye(5, 7, dtype=bool)
    before = counts.clone()
    got = filled(counts, bad)
    whole = repair(counts, torch.from_numpy(bad))
    assert torch.equal(got[:, bad], whole[:, bad].half().float()) and torch.equal(counts, before)
    assert torch.equal(
        exposure_counts(count, 13, num_bins=1, bad=bad), filled(exposure_counts(count, 13, num_bins=1), bad)
    )


@pytest.mark.parametrize("height", [1, 2])
@pytest.mark.parametrize("most", [2049, 65504, 65521, 100_003])
def test_good_pixels_keep_counts_that_float16_does_not_hold_and_filled_ones_stay_finite(most: int, height: int):
    counts = torch.full((3, height, 5), float(most))
    counts[:, 0, 2] = 0
    bad = np.zeros((height, 5), dtype=bool)
    bad[0, 2] = True
    got = filled(counts, bad)
    assert torch.equal(got[:, ~bad], counts[:, ~bad])
    torch.testing.assert_close(got[:, 0, 2], counts[:, 0, 0], rtol=2**-11, atol=0)  # what float16 rounds at most
    assert np.array_equal(narrow(got), got.numpy())


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
