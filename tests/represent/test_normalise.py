"""One normalisation on every path; the density of an exposure, and what matching it does and does not do."""

from __future__ import annotations

import math

import pytest
import torch

from spikevrt.represent.interval import interval_voxels
from spikevrt.represent.voxel import VoxelStats, density, normalise, voxelise

STATS = VoxelStats(mean=0.9, std=0.4)


def _spikes(*leading: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 2, (*leading, 23, 5, 7), dtype=torch.uint8, generator=generator)


def _correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1])


def test_normalise_is_log1p_then_standardise() -> None:
    counts = torch.tensor([0.0, math.e - 1])
    torch.testing.assert_close(normalise(counts, VoxelStats(mean=0.5, std=0.25)), torch.tensor([-2.0, 2.0]))


def test_without_density_the_bits_are_those_of_the_plain_formula(device: torch.device) -> None:
    counts = voxelise(_spikes(3).to(device), num_bins=4)
    before = counts.clone()
    plain = (torch.log1p(counts) - STATS.mean) / STATS.std
    assert torch.equal(normalise(counts, STATS), plain)
    assert torch.equal(counts, before)


@pytest.mark.parametrize("measured", [None, 0.0, 0.37])
def test_every_byte_at_every_place_of_a_vector_normalises_to_the_bits_of_its_float(
    measured: float | None, device: torch.device
) -> None:
    for size in (1, 2, 3, 7, 8, 15, 16, 17, 31, 33):  # vectors, and what is left over behind them
        stored = torch.arange(256, dtype=torch.uint8, device=device)[:, None].expand(256, size).contiguous()
        plain = normalise(stored.to(torch.float32), STATS, density=measured)
        assert torch.equal(normalise(stored, STATS, density=measured), plain)
        assert torch.equal(plain, plain[:, :1].expand_as(plain))


def test_counts_stored_as_bytes_and_cut_out_normalise_to_the_same_bits() -> None:
    counts = voxelise(_spikes(2), num_bins=4)
    stored = counts.to(torch.uint8)
    measured = density(counts)
    assert torch.equal(density(stored), measured)
    whole = normalise(counts, STATS, density=measured)
    assert torch.equal(normalise(stored[..., 1:4, 2:6], STATS, density=measured), whole[..., 1:4, 2:6])


def test_a_crop_of_the_normalised_frame_is_the_normalised_crop() -> None:
    counts = voxelise(_spikes(), num_bins=4)
    measured = density(counts).item()
    assert torch.equal(
        normalise(counts[:, 1:4, 2:6], STATS, density=measured), normalise(counts, STATS, density=measured)[:, 1:4, 2:6]
    )


def test_density_is_the_mean_of_log1p_and_one_value_an_exposure() -> None:
    counts = torch.zeros(2, 3, 2, 1, 2)
    counts[1, 2] = math.e - 1
    measured = density(counts)
    assert measured.shape == (2, 3) and measured.dtype == torch.float64
    assert measured[0, 0] == 0 and measured[1, 2].item() == pytest.approx(1.0, abs=1e-7)  # float32 of e


def test_a_number_and_a_tensor_of_the_density_give_the_same_bits() -> None:
    counts = voxelise(_spikes(3), num_bins=4)
    measured = density(counts)
    singles = [normalise(c, STATS, density=d.item()) for c, d in zip(counts, measured, strict=True)]
    assert torch.equal(normalise(counts, STATS, density=measured), torch.stack(singles))
    assert torch.equal(normalise(counts.to(torch.uint8), STATS, density=measured), torch.stack(singles))


def test_a_frame_without_spikes_stays_as_it_is() -> None:
    silent = torch.zeros(4, 5, 7)
    assert torch.equal(normalise(silent, STATS, density=density(silent)), normalise(silent, STATS))


@pytest.mark.parametrize("measured", [-0.1, math.nan, math.inf])
def test_a_density_that_cannot_be_is_refused(measured: float) -> None:
    with pytest.raises(ValueError, match=r"density: .*; allowed: 0 or more, finite"):
        normalise(torch.zeros(4, 5, 7), STATS, density=measured)


def test_each_exposure_of_a_batch_is_measured_on_its_own() -> None:
    spikes = _spikes(2)
    spikes[1, ::2] = 0
    counts = voxelise(spikes, num_bins=32, binning="fractional")
    got = normalise(counts, STATS, density=density(counts))
    assert got.shape == (2, 32, 5, 7)
    logs = got.double() * STATS.std + STATS.mean
    torch.testing.assert_close(logs.mean(dim=(1, 2, 3)), torch.full((2,), STATS.mean, dtype=torch.float64))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.0), (0.0, -1.0), (math.nan, 1.0), (0.0, math.inf)])
def test_stats_that_cannot_standardise_are_refused(mean: float, std: float) -> None:
    with pytest.raises(ValueError, match="allowed: finite, std above 0"):
        VoxelStats(mean=mean, std=std)


def test_with_density_the_mean_is_the_same_at_thresholds_1_2_and_4_and_differs_without(
    spikes_by_threshold: dict[int, torch.Tensor],
) -> None:
    reference = torch.log1p(voxelise(spikes_by_threshold[1], num_bins=32))
    stats = VoxelStats(reference.mean().item(), reference.std().item())

    def mean(threshold: int, *, by_density: bool) -> float:
        """Of log1p, in units of the mean at threshold 1."""
        counts = voxelise(spikes_by_threshold[threshold], num_bins=32)
        voxels = normalise(counts, stats, density=density(counts) if by_density else None)
        return (voxels * stats.std + stats.mean).mean().item() / stats.mean

    for threshold in (1, 2, 4):
        assert mean(threshold, by_density=True) == pytest.approx(1.0, abs=0.03)
    assert mean(1, by_density=False) == pytest.approx(1.0, abs=1e-4)  # float32
    assert mean(2, by_density=False) < 0.7
    assert mean(4, by_density=False) < 0.7 * mean(2, by_density=False)


def test_matching_the_mean_of_counts_does_not_match_their_distribution_but_that_of_interval_voxels(
    spikes_by_threshold: dict[int, torch.Tensor],
) -> None:
    spread, alike = {}, {}
    for name, represent in (("counts", voxelise), ("intervals", interval_voxels)):
        logs = {q: torch.log1p(represent(spikes_by_threshold[q], num_bins=32)) for q in (1, 4)}
        matched = logs[4] * (logs[1].mean() / logs[4].mean())
        spread[name] = (matched.std() / logs[1].std()).item()
        alike[name] = _correlation(matched, logs[1])
    assert spread["counts"] > 2 and alike["counts"] < 0.3
    assert 0.9 < spread["intervals"] < 1.2 and alike["intervals"] > 0.8
