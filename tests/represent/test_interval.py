"""Texture from interval."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from spikevrt.represent.interval import MAX_INT16_TICKS, interval_voxels, intervals, tfi
from spikevrt.represent.voxel import bin_edges, voxelise


def _pixel(*ticks: int) -> torch.Tensor:
    return torch.tensor(ticks, dtype=torch.uint8).view(-1, 1, 1)


def test_the_gap_between_the_two_spikes_around_the_tick_is_inverted() -> None:
    spikes = _pixel(1, 0, 0, 1, 0, 1, 0)
    assert [tfi(spikes, centre).item() for centre in (0, 1, 2)] == pytest.approx([1 / 3] * 3)
    assert [tfi(spikes, centre).item() for centre in (3, 4)] == pytest.approx([1 / 2] * 2)


def test_a_spike_at_tick_zero_counts() -> None:
    assert tfi(_pixel(1, 1, 0), 0).item() == 1.0


def test_behind_the_last_spike_the_edge_of_the_stream_stands_for_the_next() -> None:
    assert tfi(_pixel(0, 1, 0, 0), 3).item() == pytest.approx(1 / 3)
    assert tfi(_pixel(0, 0, 1, 0), 0).item() == pytest.approx(1 / 3)


def test_a_pixel_that_never_fires_reads_zero() -> None:
    assert tfi(_pixel(0, 0, 0), 1).item() == 0.0


def test_a_steady_rate_is_read_exactly_and_the_input_is_untouched() -> None:
    spikes = torch.zeros(29, 3, 5, dtype=torch.uint8)
    spikes[::4] = 1
    before = spikes.clone()
    assert torch.equal(tfi(spikes, 13), torch.full((3, 5), 0.25))
    assert torch.equal(spikes, before)


def test_a_tick_outside_the_stream_is_refused() -> None:
    with pytest.raises(ValueError, match="centre: 3; allowed: 0 to 2"):
        tfi(_pixel(0, 1, 0), 3)


def _spikes(*leading: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(*leading, 29, 5, 7, generator=generator) < 0.2).to(torch.uint8)


def test_a_batch_is_the_stack_of_its_streams(device: torch.device) -> None:
    spikes = _spikes(2, 3)
    for function in (lambda s: tfi(s, 13), intervals, lambda s: interval_voxels(s, num_bins=11)):
        got = function(spikes.to(device))
        assert got.device.type == device.type
        torch.testing.assert_close(got[1, 2].cpu(), function(spikes[1, 2]), rtol=1e-6, atol=0)  # reciprocals of a GPU
        assert torch.equal(got[1, 2], function(spikes[1, 2].to(device)))


def test_the_last_spike_counts_as_before_and_the_next_as_after() -> None:
    assert intervals(_pixel(1, 0, 0, 1, 1, 0, 1)).flatten().tolist() == [3, 3, 3, 1, 2, 2, 1]


def test_at_the_edges_the_interval_is_the_shortest_that_the_silence_allows() -> None:
    assert intervals(_pixel(0, 0, 1, 0, 0)).flatten().tolist() == [3, 3, 3, 3, 3]
    assert intervals(_pixel(0, 0, 0)).flatten().tolist() == [4, 4, 4]


def test_tfi_is_one_over_the_interval_where_a_pixel_fires() -> None:
    spikes = _spikes()
    spikes[:, 2, 3] = 0
    before = spikes.clone()
    lengths = intervals(spikes)
    assert lengths.dtype == torch.int32 and torch.equal(spikes, before)
    assert torch.equal(lengths[:, 2, 3], torch.full((29,), 30, dtype=torch.int32))
    inverse = lengths.float().reciprocal()
    inverse[:, 2, 3] = 0
    assert torch.equal(inverse, torch.stack([tfi(spikes, t) for t in range(29)]))


def test_reversed_in_time_a_tick_reads_what_its_mirror_image_read() -> None:
    spikes = _spikes()
    assert torch.equal(intervals(spikes.flip(0))[:28], intervals(spikes)[:28].flip(0))


def test_each_spikes_unit_is_spread_over_the_interval_that_it_ends() -> None:
    spikes = _pixel(0, 1, 0, 0, 0, 1, 0, 1)  # intervals end at ticks 1, 5, 7; the first has no start
    assert interval_voxels(spikes, num_bins=8).flatten().tolist() == [0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.5, 0.5]
    assert interval_voxels(spikes, num_bins=3).flatten().tolist() == [0.5, 0.75, 1.25]  # edges 0, 2, 5, 8
    shared = interval_voxels(spikes, num_bins=16, binning="fractional").flatten().tolist()
    assert shared == [0.125] * 12 + [0.25] * 4  # half a tick each


def test_behind_the_last_spike_the_rate_is_that_of_the_interval_before_until_the_silence_is_longer() -> None:
    bins = interval_voxels(_pixel(0, 0, 1, 0, 1, 0, 0, 0, 0), num_bins=9).flatten()
    torch.testing.assert_close(bins, torch.tensor([1 / 3] * 3 + [1 / 2] * 2 + [1 / 5] * 4), rtol=0, atol=0)
    bins = interval_voxels(_pixel(1, 0, 0, 0, 1, 0), num_bins=6).flatten()
    torch.testing.assert_close(bins, torch.full((6,), 1 / 4), rtol=0, atol=0)


def test_a_single_spike_has_the_rate_of_the_longer_silence_and_a_silent_pixel_none() -> None:
    bins = interval_voxels(_pixel(0, 1, 0, 0, 0), num_bins=5).flatten()
    torch.testing.assert_close(bins, torch.full((5,), 1 / 4), rtol=0, atol=0)
    assert interval_voxels(_pixel(0, 0, 0), num_bins=1).item() == 0.0


def test_a_steady_rate_reads_alike_in_every_bin_whatever_the_phase_and_the_input_is_untouched() -> None:
    for phase in range(4):
        spikes = torch.zeros(28, 3, 5, dtype=torch.uint8)
        spikes[phase::4] = 1
        before = spikes.clone()
        assert torch.equal(interval_voxels(spikes, num_bins=7), torch.ones(7, 3, 5))
        assert torch.equal(spikes, before)


def test_shared_or_whole_the_sum_over_the_bins_is_the_same() -> None:
    spikes = _spikes()
    whole = interval_voxels(spikes, num_bins=11).sum(0)
    for num_bins in (11, 29, 64):
        shared = interval_voxels(spikes, num_bins=num_bins, binning="fractional").sum(0)
        torch.testing.assert_close(shared, whole, rtol=1e-5, atol=0)  # sums of float32


def _interval_rates(fired: list[int]) -> list[float]:
    """The plain twin, one pixel: the rate of each tick, from the ticks of the spikes as the docstring says."""
    spikes = [t for t, value in enumerate(fired) if value]
    if not spikes:
        return [0.0] * len(fired)
    lengths = [b - a for a, b in pairwise([-1, *spikes, len(fired)])]
    if len(spikes) > 1:
        lengths[0], lengths[-1] = max(lengths[0], lengths[1]), max(lengths[-1], lengths[-2])
    else:
        lengths = [max(lengths)] * 2
    return [1 / lengths[sum(spike < t for spike in spikes)] for t in range(len(fired))]


@pytest.mark.parametrize("rate", [0.02, 0.06, 0.3, 0.9])
def test_pixel_by_pixel_interval_voxels_are_the_plain_twins(rate: float) -> None:
    spikes = (torch.rand(29, 13, 17, generator=torch.Generator().manual_seed(0)) < rate).to(torch.uint8)
    got = interval_voxels(spikes, num_bins=29)  # a bin a tick
    expected = [_interval_rates(pixel.tolist()) for pixel in spikes.flatten(1).t()]
    torch.testing.assert_close(got, torch.tensor(expected).t().view(29, 13, 17), rtol=1e-6, atol=0)  # reciprocals


def test_streams_too_long_for_16_bits_are_read_in_32_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch.iinfo(torch.int16).max == MAX_INT16_TICKS + 1  # the interval of a silent pixel
    narrow = interval_voxels(_spikes(), num_bins=11)
    monkeypatch.setattr("spikevrt.represent.interval.MAX_INT16_TICKS", 28)
    assert torch.equal(interval_voxels(_spikes(), num_bins=11), narrow)


def test_cropping_interval_voxels_before_or_after_is_the_same() -> None:
    spikes = _spikes()
    crop = interval_voxels(spikes[:, 1:4, 2:7], num_bins=11)
    assert torch.equal(crop, interval_voxels(spikes, num_bins=11)[:, 1:4, 2:7])


def test_interval_voxels_of_a_moving_scene_lie_nearer_to_its_light_than_counts(
    moving_light: torch.Tensor, spikes_by_threshold: dict[int, torch.Tensor]
) -> None:
    light = torch.stack([moving_light[20:76][a:b].sum(0) for a, b in pairwise(bin_edges(56, 32))])
    for threshold, spikes in spikes_by_threshold.items():
        off_counts = (voxelise(spikes, num_bins=32) - light / threshold).pow(2).mean()
        off_intervals = (interval_voxels(spikes, num_bins=32) - light / threshold).pow(2).mean()
        assert off_intervals < off_counts / 4


def test_fewer_ticks_than_bins_have_no_interval_voxels() -> None:
    with pytest.raises(ValueError, match="num_bins: 4 bins for 3 ticks; allowed: at most one bin per tick"):
        interval_voxels(_pixel(0, 1, 0), num_bins=4)
