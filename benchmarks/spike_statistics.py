"""What a spike stream of a scene at rest tells about its sensor: intervals, phase, differences between pixels.

A noise-free sensor under constant light fires at the ticks ceil(a + k * period): its intervals are the two whole
numbers around the period, and its spikes lie 1 / sqrt(12) = 0.289 ticks (rms) from a straight line. Noise shows as
more than that. docs/sensor.md gives the figures of real and of simulated sensors.

Dimension key: T ticks, H rows, W columns, K intervals, S spikes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float, Int, UInt8
    from torch import Tensor


def spike_intervals(spikes_THW: UInt8[Tensor, "T H W"]) -> tuple[Int[Tensor, " K"], Int[Tensor, " K"]]:
    """Every interval between neighbouring spikes of a pixel: (the pixel's index row by row, ticks)."""
    pixel_S, tick_S = _spikes(spikes_THW)
    same_K = pixel_S[1:] == pixel_S[:-1]
    return pixel_S[1:][same_K], (tick_S[1:] - tick_S[:-1])[same_K]


def interval_outside_fraction(spikes_THW: UInt8[Tensor, "T H W"]) -> float:
    """Share of all intervals that are neither the floor nor the ceiling of their pixel's mean interval, in [0, 1].

    0 for a noise-free sensor under constant light.

    Raises:
        ValueError: no pixel has two spikes.
    """
    pixel_K, interval_K = spike_intervals(spikes_THW)
    if len(interval_K) == 0:
        raise ValueError("spikes: no pixel has two spikes; allowed: a stream with intervals")
    count = torch.bincount(pixel_K).clamp_min(1)
    total = torch.bincount(pixel_K, weights=interval_K.double()).long()
    floor_K, ceil_K = (total // count)[pixel_K], (-(-total // count))[pixel_K]
    return float(((interval_K < floor_K) | (interval_K > ceil_K)).double().mean())


def phase_residuals(spikes_THW: UInt8[Tensor, "T H W"], *, min_spikes: int = 3) -> Float[Tensor, "H W"]:
    """Each pixel's rms distance of its spikes from the straight line tick = a + period * k fitted to them, in ticks.

    NaN where a pixel has fewer than `min_spikes` spikes.

    Raises:
        ValueError: `min_spikes` is below 3 (a line meets two spikes exactly).
    """
    if min_spikes < 3:
        raise ValueError(f"min_spikes: {min_spikes}; must be 3 or more")
    height, width = spikes_THW.shape[1:]
    num_pixels = height * width
    pixel_S, tick_S = _spikes(spikes_THW)
    count = torch.bincount(pixel_S, minlength=num_pixels)
    number_S = torch.arange(len(pixel_S)) - (count.cumsum(0) - count)[pixel_S]

    def pixel_sum(value_S: Tensor) -> Tensor:
        return torch.bincount(pixel_S, weights=value_S, minlength=num_pixels)

    some = count.clamp_min(1)
    number_S = number_S - ((count - 1) / 2)[pixel_S].double()
    distance_S = tick_S - (pixel_sum(tick_S.double()) / some)[pixel_S]
    period = pixel_sum(number_S * distance_S) / pixel_sum(number_S**2).clamp_min(1e-9)
    residual = (pixel_sum((distance_S - period[pixel_S] * number_S) ** 2) / some).sqrt()
    return torch.where(count >= min_spikes, residual, torch.nan).view(height, width)


def phase_residual(spikes_THW: UInt8[Tensor, "T H W"], *, min_spikes: int = 3) -> float:
    """The median pixel's `phase_residuals`, in ticks.

    Raises:
        ValueError: `min_spikes` is below 3, or no pixel has as many spikes.
    """
    residual_HW = phase_residuals(spikes_THW, min_spikes=min_spikes)
    if bool(residual_HW.isnan().all()):
        raise ValueError(f"spikes: no pixel has {min_spikes} spikes; allowed: a stream that some pixel fires in")
    return float(residual_HW.nanquantile(0.5))


def flat_field_cv(spikes_THW: UInt8[Tensor, "T H W"]) -> float:
    """Spread of the firing rate between pixels, standard deviation / mean, under even light.

    It contains the counting error of a spike, which falls with the number of ticks.

    Raises:
        ValueError: there is no spike.
    """
    rate_HW = spikes_THW.double().mean(0)
    if float(rate_HW.max()) == 0:
        raise ValueError("spikes: none; allowed: a stream with spikes")
    return float(rate_HW.std(correction=0) / rate_HW.mean())


def _spikes(spikes_THW: UInt8[Tensor, "T H W"]) -> tuple[Int[Tensor, " S"], Int[Tensor, " S"]]:
    """(pixel, tick) of every spike, pixel by pixel, in order of time."""
    pixel_S, tick_S = spikes_THW.flatten(1).T.nonzero(as_tuple=True)
    return pixel_S, tick_S
