"""The colour camera: light summed over an exposure, then noise, the tone curve and 8-bit levels.

The default camera is the ideal one: the mean of the linear light, the sRGB curve, 8 bits. docs/sensor.md has the model.

Dimension key: N ticks, H rows, W columns, 3 colours (RGB).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

from spikevrt.light import linear_to_srgb
from spikevrt.recording.frames import to_uint8
from spikevrt.simulate.setup import CameraConfig

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, Int, UInt8
    from torch import Tensor


def camera_seed(seed: int) -> int:
    """The seed of the camera's noise in the recording with this seed, unlike any that the sensor draws from."""
    return int.from_bytes(hashlib.sha256(f"camera noise:{seed}".encode()).digest()[:7], "big")


def develop(
    light_3HW: Float[Tensor, "3 H W"], config: CameraConfig, generator: torch.Generator | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Mean linear light -> the picture: gain, shot noise, saturation, read noise, curve, levels.

    Without a generator there is no noise: the sharp truth. The shot noise is a normal of the Poisson's mean and
    variance; a camera's pixel holds thousands of electrons.

    Raises:
        ValueError: the light is NaN or infinite.
    """
    if config.exposure_gain != 1:
        light_3HW = light_3HW * config.exposure_gain
    if generator is not None and config.full_well_electrons > 0:
        spread_3HW = (light_3HW.clamp_min(0) / config.full_well_electrons).sqrt()
        light_3HW = light_3HW + spread_3HW * torch.randn(light_3HW.shape, generator=generator)
    light_3HW = light_3HW.clamp(0, 1)
    if generator is not None and config.read_noise > 0:
        noise_3HW = config.read_noise * torch.randn(light_3HW.shape, generator=generator)
        light_3HW = (light_3HW + noise_3HW).clamp(0, 1)
    if config.curve == "srgb":
        level_3HW = linear_to_srgb(light_3HW)
    elif config.curve == "2.2":
        level_3HW = light_3HW ** (1 / 2.2)
    else:
        level_3HW = light_3HW
    if config.bits < 8:
        highest = 2**config.bits - 1
        level_3HW = (level_3HW * highest).round() / highest
    return to_uint8(level_3HW)


def row_delays(height: int, config: CameraConfig) -> Int[Tensor, " H"]:
    """Ticks by which each row's exposure begins later than the first row's: evenly from 0 to rolling_shutter_ticks."""
    rows_H = torch.arange(height)
    return (rows_H * config.rolling_shutter_ticks + (height - 1) // 2) // max(1, height - 1)


class FrameExposure:
    """One exposure of the camera: row i sums the light of ticks start + delay_i to stop + delay_i, the last excluded.

    The light of consecutive ticks is added in chunks of any length; ticks outside the exposure are ignored.
    """

    def __init__(self, height: int, width: int, config: CameraConfig, *, start: int, stop: int) -> None:
        if stop <= start:
            raise ValueError(f"stop: {stop}; must be above start = {start}")
        self.start, self.stop = start, stop
        self.last_tick = stop + config.rolling_shutter_ticks  # the exposure is complete when ticks up to here are added
        self._opens_H = start + row_delays(height, config)
        self._closes_H = stop + row_delays(height, config)
        self._sum_3HW = torch.zeros(3, height, width)

    def add(self, first: int, light_N3HW: Float[Tensor, "N 3 H W"]) -> None:
        """Add the light of ticks first to first + N, the last excluded."""
        low, high = max(first, self.start), min(first + len(light_N3HW), self.last_tick)
        if low >= high:
            return
        light_N3HW = light_N3HW[low - first : high - first]
        if low >= int(self._opens_H[-1]) and high <= int(self._closes_H[0]):  # every row is open all the time
            self._sum_3HW += light_N3HW.sum(0)
            return
        tick_N1 = torch.arange(low, high)[:, None]
        is_open_NH = (self._opens_H <= tick_N1) & (tick_N1 < self._closes_H)
        self._sum_3HW += (light_N3HW * is_open_NH[:, None, :, None]).sum(0)

    def mean(self) -> Float[Tensor, "3 H W"]:
        """The mean linear light of each row's own exposure."""
        return self._sum_3HW / (self.stop - self.start)
