"""Voxels: every tick counted once, or shared without loss; the same bits from every source."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikevrt.represent.voxel import Binning, VoxelSpec, bin_edges, count_bins, voxelise

SIZES = [(1, 1), (23, 1), (23, 2), (23, 11), (23, 22), (23, 23), (7, 3), (64, 32)]
FEWER = [(1, 2), (2, 3), (10, 32), (13, 17), (31, 32)]


def _spikes(num_ticks: int = 23, *leading: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(num_ticks)
    return torch.randint(0, 2, (*leading, num_ticks, 5, 7), dtype=torch.uint8, generator=generator)


def _shares(num_ticks: int, num_bins: int) -> torch.Tensor:
    """(K, T) in float64: the part of each tick that lies in each bin, written down as the definition says."""
    bin_start = torch.arange(num_bins, dtype=torch.float64)[:, None] * num_ticks / num_bins
    tick = torch.arange(num_ticks, dtype=torch.float64)
    end = torch.minimum(bin_start + num_ticks / num_bins, tick + 1)
    return (end - torch.maximum(bin_start, tick)).clamp_min(0)


def _counter(spikes: torch.Tensor, calls: list[list[int]] | None = None, dtype: type = np.uint8):  # type: ignore[no-untyped-def]
    def count(edges: Sequence[int]) -> np.ndarray:
        if calls is not None:
            calls.append(list(edges))
        pairs = zip(edges, list(edges)[1:], strict=False)
        return np.stack([spikes[a:b].numpy().sum(axis=0, dtype=dtype) for a, b in pairs])

    return count


def test_four_ticks_in_two_bins_are_counted_by_pairs() -> None:
    spikes = torch.tensor([1, 1, 0, 1], dtype=torch.uint8).view(4, 1, 1)
    torch.testing.assert_close(voxelise(spikes, num_bins=2).flatten(), torch.tensor([2.0, 1.0]), rtol=0, atol=0)


def test_bins_follow_the_floor_rule_when_ticks_do_not_divide() -> None:
    ones = torch.ones(7, 1, 1, dtype=torch.uint8)
    assert bin_edges(7, 3) == [0, 2, 4, 7]
    assert voxelise(ones, num_bins=3).flatten().tolist() == [2.0, 2.0, 3.0]


@pytest.mark.parametrize("binning", ["whole", "start"])
@pytest.mark.parametrize(("num_ticks", "num_bins"), SIZES)
def test_every_tick_is_counted_exactly_once(
    num_ticks: int, num_bins: int, binning: Binning, device: torch.device
) -> None:
    spikes = _spikes(num_ticks).to(device)
    before = spikes.clone()
    counts = voxelise(spikes, num_bins=num_bins, binning=binning)
    assert counts.shape == (num_bins, 5, 7) and counts.dtype == torch.float32 and counts.device == spikes.device
    torch.testing.assert_close(counts.sum(0), spikes.sum(0, dtype=torch.float32), rtol=0, atol=0)
    assert torch.equal(spikes, before)


@pytest.mark.parametrize("num_ticks", [255, 256, 600, 601])
def test_more_than_255_spikes_in_a_bin_do_not_wrap(num_ticks: int) -> None:
    ones = torch.ones(num_ticks, 1, 1, dtype=torch.uint8)
    assert voxelise(ones, num_bins=1).item() == num_ticks
    assert voxelise(ones, num_bins=1, binning="fractional").item() == num_ticks


def test_more_than_32767_spikes_in_a_bin_do_not_wrap() -> None:
    for num_ticks in (32767, 32768, 70001):
        assert voxelise(torch.ones(num_ticks, 1, 1, dtype=torch.uint8), num_bins=1).item() == num_ticks


def test_two_ticks_over_three_bins_are_shared_by_overlap() -> None:
    spikes = torch.tensor([1, 0], dtype=torch.uint8).view(2, 1, 1)  # tick 0 covers bin 0 and half of bin 1
    shares = voxelise(spikes, num_bins=3, binning="fractional").flatten()
    torch.testing.assert_close(shares, torch.tensor([2 / 3, 1 / 3, 0.0]), rtol=0, atol=0)


@pytest.mark.parametrize(("num_ticks", "num_bins"), SIZES + FEWER)
def test_shares_are_the_overlaps_in_time_to_the_last_bit(num_ticks: int, num_bins: int, device: torch.device) -> None:
    spikes = _spikes(num_ticks).to(device)
    before = spikes.clone()
    expected = torch.einsum("kt,thw->khw", _shares(num_ticks, num_bins), spikes.cpu().double())
    exact = (expected * num_bins).round() / num_bins  # whole multiples of 1 / K
    got = voxelise(spikes, num_bins=num_bins, binning="fractional")
    assert got.dtype == torch.float32 and torch.equal(got.cpu(), exact.float())
    assert torch.equal(spikes, before)


@pytest.mark.parametrize(("num_ticks", "num_bins"), SIZES + FEWER)
def test_no_part_of_a_spike_is_lost_by_sharing(num_ticks: int, num_bins: int) -> None:
    spikes = _spikes(num_ticks)
    shares = voxelise(spikes, num_bins=num_bins, binning="fractional")
    parts = (shares.double() * num_bins).round()  # K-ths of a spike
    torch.testing.assert_close(parts / num_bins, shares.double(), rtol=1e-7, atol=0)  # float32
    assert torch.equal(parts.sum(0), spikes.double().sum(0) * num_bins)


@pytest.mark.parametrize(("num_ticks", "num_bins"), [(6, 3), (64, 32), (23, 23), (5, 1)])
def test_where_the_bins_divide_the_ticks_all_binnings_agree(num_ticks: int, num_bins: int) -> None:
    spikes = _spikes(num_ticks)
    whole = voxelise(spikes, num_bins=num_bins)
    for binning in ("start", "fractional"):
        assert torch.equal(voxelise(spikes, num_bins=num_bins, binning=binning), whole)


@given(st.integers(1, 400), st.integers(1, 70))
@settings(max_examples=60, deadline=None)
def test_binning_start_puts_tick_t_into_bin_int_t_K_over_T(num_ticks: int, num_bins: int) -> None:
    num_bins = min(num_bins, num_ticks)
    edges = bin_edges(num_ticks, num_bins, "start")
    assert [bisect_right(edges, t) - 1 for t in range(num_ticks)] == [
        int(t * num_bins / num_ticks) for t in range(num_ticks)
    ]


@pytest.mark.parametrize("num_ticks", [23, 56, 88, 104, 137])
def test_start_is_whole_with_time_reversed(num_ticks: int) -> None:
    spikes = _spikes(num_ticks)
    reversed_ = voxelise(spikes.flip(0), num_bins=11, binning="start").flip(0)
    assert torch.equal(reversed_, voxelise(spikes, num_bins=11))


@pytest.mark.parametrize("num_ticks", [56, 88, 104, 137])
def test_start_and_whole_differ_in_three_to_four_of_ten_values_at_a_rate_of_a_quarter(num_ticks: int) -> None:
    """docs/representations.md says so."""
    spikes = (torch.rand(num_ticks, 61, 83, generator=torch.Generator().manual_seed(1)) < 0.25).to(torch.uint8)
    whole, start = (voxelise(spikes, num_bins=32, binning=binning) for binning in ("whole", "start"))
    assert 0.3 < (whole != start).float().mean() < 0.38


@pytest.mark.parametrize("binning", ["whole", "start", "fractional"])
def test_a_batch_is_the_stack_of_its_exposures(binning: Binning, device: torch.device) -> None:
    batch = _spikes(23, 2, 3).to(device)
    got = voxelise(batch, num_bins=11, binning=binning)
    assert got.shape == (2, 3, 11, 5, 7)
    for i in range(2):
        for j in range(3):
            assert torch.equal(got[i, j], voxelise(batch[i, j], num_bins=11, binning=binning))


@pytest.mark.parametrize("binning", ["whole", "start", "fractional"])
def test_cropping_before_or_after_is_the_same(binning: Binning) -> None:
    spikes = _spikes()
    crop = voxelise(spikes[:, 1:4, 2:7], num_bins=11, binning=binning)
    assert torch.equal(crop, voxelise(spikes, num_bins=11, binning=binning)[:, 1:4, 2:7])


@pytest.mark.parametrize(("num_ticks", "num_bins"), SIZES + FEWER)
def test_reversing_time_reverses_shares(num_ticks: int, num_bins: int) -> None:
    spikes = _spikes(num_ticks)
    forward = voxelise(spikes, num_bins=num_bins, binning="fractional")
    assert torch.equal(voxelise(spikes.flip(0), num_bins=num_bins, binning="fractional"), forward.flip(0))


@pytest.mark.parametrize(("num_ticks", "num_bins"), [(6, 3), (64, 32), (23, 23)])
def test_reversing_time_reverses_equal_bins(num_ticks: int, num_bins: int) -> None:
    spikes = _spikes(num_ticks)
    assert torch.equal(voxelise(spikes.flip(0), num_bins=num_bins), voxelise(spikes, num_bins=num_bins).flip(0))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
@pytest.mark.parametrize(("num_ticks", "num_bins"), SIZES)
def test_counting_at_the_source_gives_the_same_bits(num_ticks: int, num_bins: int, dtype: type) -> None:
    spikes = _spikes(num_ticks)
    for binning in ("whole", "start", "fractional"):
        got = count_bins(_counter(spikes, dtype=dtype), num_ticks, num_bins=num_bins, binning=binning)
        assert got.dtype == torch.float32 and torch.equal(got, voxelise(spikes, num_bins=num_bins, binning=binning))


@given(st.integers(1, 70), st.integers(1, 70))
@settings(max_examples=60, deadline=None)
def test_for_any_numbers_of_ticks_and_bins_shares_from_the_source_are_the_same_bits(ticks: int, bins: int) -> None:
    spikes, calls = _spikes(ticks), list[list[int]]()
    got = count_bins(_counter(spikes, calls), ticks, num_bins=bins, binning="fractional")
    assert torch.equal(got, voxelise(spikes, num_bins=bins, binning="fractional"))
    assert len(calls) == 1 and calls[0][0] == 0 and calls[0][-1] == ticks and len(calls[0]) <= 2 * bins + 1
    assert calls[0] == sorted(set(calls[0]))


def test_fewer_ticks_than_bins_are_refused_and_both_ways_out_are_named() -> None:
    message = (
        "^num_bins: 32 bins for 10 ticks; allowed: at most one bin per tick, "
        "or binning: fractional, which shares ticks among bins$"
    )
    with pytest.raises(ValueError, match=message):
        voxelise(_spikes(10), num_bins=32)
    with pytest.raises(ValueError, match=message):
        count_bins(_counter(_spikes(10)), 10, num_bins=32)
    for binning in ("whole", "start"):
        with pytest.raises(ValueError, match=message):
            bin_edges(10, 32, binning)


def test_ten_ticks_shared_among_32_bins_leave_no_bin_empty() -> None:
    shares = voxelise(torch.ones(10, 1, 1, dtype=torch.uint8), num_bins=32, binning="fractional")
    assert torch.equal(shares, torch.full((32, 1, 1), 10 / 32))


@pytest.mark.parametrize("binning", ["whole", "start", "fractional"])
def test_no_bins_are_refused(binning: Binning) -> None:
    with pytest.raises(ValueError, match="num_bins: 0; allowed: 1 or more"):
        voxelise(_spikes(), num_bins=0, binning=binning)


def test_no_ticks_are_refused() -> None:
    with pytest.raises(ValueError, match="num_ticks: 0; allowed: 1 or more"):
        voxelise(_spikes(0), num_bins=3, binning="fractional")


def test_an_unknown_binning_is_refused() -> None:
    with pytest.raises(ValueError, match="binning: 'half'; allowed: whole, start, fractional"):
        voxelise(_spikes(), num_bins=3, binning="half")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_bins": 0}, "num_bins: 0; allowed: 1 or more"),
        ({"binning": "half"}, "binning: 'half'; allowed: whole, start, fractional"),
    ],
)
def test_a_spec_that_says_nothing_possible_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VoxelSpec(**values)  # type: ignore[arg-type]
