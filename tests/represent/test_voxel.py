"""Voxels: every tick counted once, one normalisation."""

from __future__ import annotations

import math

import pytest
import torch

from spikevrt.represent.voxel import VoxelStats, normalise, spike_voxels, voxelise


def _spikes(num_ticks: int = 23) -> torch.Tensor:
    return torch.randint(0, 2, (num_ticks, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_four_ticks_in_two_bins_are_counted_by_pairs() -> None:
    spikes = torch.tensor([1, 1, 0, 1], dtype=torch.uint8).view(4, 1, 1)
    torch.testing.assert_close(voxelise(spikes, num_bins=2).flatten(), torch.tensor([2.0, 1.0]), rtol=0, atol=0)


def test_bins_follow_the_floor_rule_when_ticks_do_not_divide() -> None:
    ones = torch.ones(7, 1, 1, dtype=torch.uint8)  # edges 0, 2, 4, 7
    assert voxelise(ones, num_bins=3).flatten().tolist() == [2.0, 2.0, 3.0]


@pytest.mark.parametrize("num_bins", [1, 2, 3, 11, 22, 23])
def test_every_tick_is_counted_exactly_once(num_bins: int) -> None:
    spikes = _spikes()
    before = spikes.clone()
    counts = voxelise(spikes, num_bins=num_bins)
    assert counts.shape == (num_bins, 5, 7) and counts.dtype == torch.float32
    torch.testing.assert_close(counts.sum(0), spikes.sum(0, dtype=torch.float32), rtol=0, atol=0)
    assert torch.equal(spikes, before)


def test_more_than_255_spikes_in_a_bin_do_not_wrap() -> None:
    assert voxelise(torch.ones(601, 1, 1, dtype=torch.uint8), num_bins=2).flatten().tolist() == [300.0, 301.0]


def test_more_than_32767_spikes_in_a_bin_do_not_wrap() -> None:
    for num_ticks in (32767, 32768, 70001):
        assert voxelise(torch.ones(num_ticks, 1, 1, dtype=torch.uint8), num_bins=1).item() == num_ticks


def test_fewer_ticks_than_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="num_bins: 32 bins for 10 ticks; allowed: at most one bin per tick"):
        voxelise(_spikes(10), num_bins=32)


def test_no_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="num_bins: 0; allowed: 1 or more"):
        voxelise(_spikes(), num_bins=0)


def test_normalise_is_log1p_then_standardise() -> None:
    counts = torch.tensor([0.0, math.e - 1])
    torch.testing.assert_close(normalise(counts, VoxelStats(mean=0.5, std=0.25)), torch.tensor([-2.0, 2.0]))


def test_counts_stored_as_bytes_normalise_to_the_same_bits() -> None:
    stats = VoxelStats(mean=0.9, std=0.4)
    spikes = _spikes()
    stored = voxelise(spikes, num_bins=4).to(torch.uint8)
    assert torch.equal(normalise(stored, stats), spike_voxels(spikes, num_bins=4, stats=stats))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.0), (0.0, -1.0), (math.nan, 1.0), (0.0, math.inf)])
def test_stats_that_cannot_standardise_are_refused(mean: float, std: float) -> None:
    with pytest.raises(ValueError, match="allowed: finite, std above 0"):
        VoxelStats(mean=mean, std=std)
