"""Texture from playback."""

from __future__ import annotations

import pytest
import torch

from spikevrt.represent.interval import tfp


def test_a_pixel_firing_every_second_tick_reads_one_half() -> None:
    spikes = torch.tensor([0, 1, 0, 1, 0, 1, 1], dtype=torch.uint8).view(7, 1, 1)
    assert tfp(spikes, centre=2, half_window=2).item() == pytest.approx(2 / 5)
    assert tfp(spikes, centre=5, half_window=1).item() == pytest.approx(2 / 3)


def test_a_window_of_one_tick_is_that_tick_and_the_input_is_untouched() -> None:
    spikes = torch.randint(0, 2, (5, 3, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = spikes.clone()
    assert torch.equal(tfp(spikes, centre=4, half_window=0), spikes[4].float())
    assert torch.equal(spikes, before)


@pytest.mark.parametrize(("centre", "half_window"), [(1, 2), (4, 1), (2, -1)])
def test_a_window_is_never_cut_short(centre: int, half_window: int) -> None:
    with pytest.raises(ValueError, match=r"allowed: inside \[0, 5\)"):
        tfp(torch.zeros(5, 1, 1, dtype=torch.uint8), centre, half_window)


def test_a_batch_is_the_stack_of_its_streams(device: torch.device) -> None:
    spikes = torch.randint(0, 2, (2, 3, 11, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    got = tfp(spikes.to(device), centre=4, half_window=3)
    assert got.shape == (2, 3, 5, 7) and got.device.type == device.type
    assert torch.equal(got[1, 2].cpu(), tfp(spikes[1, 2], centre=4, half_window=3))
    reversed_time = tfp(spikes.flip(-3).to(device), centre=11 - 1 - 4, half_window=3)
    assert torch.equal(reversed_time, got)
