"""Raw ticks as channels."""

from __future__ import annotations

import pytest
import torch
from examples.representations import raw_window

from spikevrt.represent.interval import tfp


def _spikes(*leading: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 2, (*leading, 11, 5, 7), dtype=torch.uint8, generator=generator)


def test_channels_are_the_ticks_in_order_and_the_input_is_untouched(device: torch.device) -> None:
    spikes = _spikes().to(device)
    before = spikes.clone()
    window = raw_window(spikes, centre=4, half_window=3)
    assert window.dtype == torch.float32 and torch.equal(window, spikes[1:8].float())
    window.fill_(7)
    assert torch.equal(spikes, before)


def test_the_mean_of_the_channels_is_tfp() -> None:
    spikes = _spikes()
    torch.testing.assert_close(raw_window(spikes, 4, 3).mean(0), tfp(spikes, 4, 3), rtol=1e-6, atol=0)  # float32


def test_a_batch_is_the_stack_of_its_windows() -> None:
    spikes = _spikes(2, 3)
    window = raw_window(spikes, 4, 3)
    assert window.shape == (2, 3, 7, 5, 7) and torch.equal(window[1, 2], raw_window(spikes[1, 2], 4, 3))


@pytest.mark.parametrize(("centre", "half_window"), [(1, 2), (10, 1), (2, -1)])
def test_a_window_is_never_cut_short(centre: int, half_window: int) -> None:
    with pytest.raises(ValueError, match=r"allowed: inside \[0, 11\)"):
        raw_window(_spikes(), centre, half_window)
