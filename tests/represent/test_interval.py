"""Texture from interval."""

from __future__ import annotations

import pytest
import torch

from spikevrt.represent.interval import tfi


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
