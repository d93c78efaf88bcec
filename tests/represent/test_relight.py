"""The baseline without a network, on cases that can be done in the head."""

from __future__ import annotations

import torch

from spikevrt.light import linear_to_srgb, srgb_to_linear
from spikevrt.represent.inputs import relight, short_bins, short_window, spike_ratio
from spikevrt.represent.voxel import voxelise


def restored(blur: torch.Tensor, spikes: torch.Tensor) -> torch.Tensor:
    start, stop = short_window(len(spikes))
    return spike_ratio(blur, spikes[start:stop].float().mean(0), spikes.float().mean(0))


def test_the_short_window_is_an_eighth_around_the_centre_and_never_leaves_the_exposure():
    assert short_window(128) == (56, 73)
    assert [short_window(n) for n in (1, 2, 3)] == [(0, 1), (1, 2), (1, 2)]
    assert all(0 <= start < stop <= n for n in range(1, 99) for start, stop in [short_window(n)])


def test_a_constant_spike_rate_leaves_the_frame_as_it_is():
    spikes = torch.zeros(64, 3, 5, dtype=torch.uint8)
    spikes[::3] = 1  # 3 of the 9 ticks around the centre, 22 of 64 in all: the same rate within a tick
    blur = torch.rand(3, 6, 10)
    torch.testing.assert_close(restored(blur, spikes), blur, rtol=0.03, atol=1e-6)


def test_light_that_was_on_only_around_the_centre_is_made_brighter_and_one_that_was_off_darker():
    spikes = torch.zeros(64, 1, 2, dtype=torch.uint8)
    spikes[28:37, 0, 0] = 1
    spikes[:28, 0, 1] = spikes[37:, 0, 1] = 1
    left, right = restored(torch.full((3, 1, 2), 0.3), spikes)[0, 0].tolist()
    assert left > 0.6 and right < 0.1


def test_no_light_at_all_changes_nothing():
    blur = torch.rand(3, 4, 4)
    torch.testing.assert_close(restored(blur, torch.zeros(7, 2, 2, dtype=torch.uint8)), blur, rtol=0, atol=1e-6)


def test_the_short_bins_are_an_eighth_around_the_centre_and_never_leave_the_exposure():
    assert short_bins(32) == (14, 18)
    assert [short_bins(n) for n in (1, 2, 3, 4)] == [(0, 1), (0, 2), (1, 2), (1, 3)]
    assert all(0 <= first < stop <= n and first == n - stop for n in range(1, 99) for first, stop in [short_bins(n)])


def test_relighting_from_bins_is_the_spike_ratio_of_the_ticks_in_the_middle_bins():
    generator = torch.Generator().manual_seed(5)
    spikes = torch.randint(0, 2, (64, 3, 5), generator=generator, dtype=torch.uint8)
    blur = torch.rand(3, 6, 10, generator=generator)
    before = blur.clone()
    lit = relight(blur, voxelise(spikes, num_bins=32), 64, binning="whole")
    expected = spike_ratio(blur, spikes[28:36].float().mean(0), spikes.float().mean(0))
    torch.testing.assert_close(lit, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(blur, before, rtol=0, atol=0)


def test_bins_that_share_ticks_are_as_long_as_their_share():
    spikes = torch.zeros(40, 1, 1, dtype=torch.uint8)
    spikes[::2] = 1  # one half everywhere, so nothing changes, however 40 ticks fall into 32 bins
    lit = relight(
        torch.full((3, 1, 1), 0.4), voxelise(spikes, num_bins=32, binning="fractional"), 40, binning="fractional"
    )
    torch.testing.assert_close(lit, torch.full((3, 1, 1), 0.4), rtol=0, atol=0.02)


def test_a_frame_lit_from_another_window_is_as_bright_as_that_window_to_the_exposure():
    blur = linear_to_srgb(torch.full((3, 2, 2), 0.25))
    counts = torch.full((2, 1, 1), 4.0)
    lit = relight(blur, counts, 8, binning="whole", dark=0.0, mean_rate=torch.full((1, 1), 0.5))
    torch.testing.assert_close(srgb_to_linear(lit), torch.full((3, 2, 2), 0.5))
