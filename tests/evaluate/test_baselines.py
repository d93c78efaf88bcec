"""The baseline without a network, on cases that can be done in the head."""

from __future__ import annotations

import torch

from spikevrt.evaluate.baselines import spike_ratio


def test_a_constant_spike_rate_leaves_the_frame_as_it_is():
    spikes = torch.zeros(64, 3, 5, dtype=torch.uint8)
    spikes[::3] = 1  # 3 of the 9 ticks around the centre, 22 of 64 in all: the same rate within a tick
    blur = torch.rand(3, 6, 10)
    torch.testing.assert_close(spike_ratio(blur, spikes), blur, rtol=0.03, atol=1e-6)


def test_light_that_was_on_only_around_the_centre_is_made_brighter_and_one_that_was_off_darker():
    spikes = torch.zeros(64, 1, 2, dtype=torch.uint8)
    spikes[28:37, 0, 0] = 1
    spikes[:28, 0, 1] = spikes[37:, 0, 1] = 1
    left, right = spike_ratio(torch.full((3, 1, 2), 0.3), spikes)[0, 0].tolist()
    assert left > 0.6 and right < 0.1


def test_no_light_at_all_changes_nothing():
    blur = torch.rand(3, 4, 4)
    torch.testing.assert_close(spike_ratio(blur, torch.zeros(7, 2, 2, dtype=torch.uint8)), blur, rtol=0, atol=1e-6)
