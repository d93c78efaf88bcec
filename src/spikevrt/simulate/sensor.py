"""The spike camera: every pixel integrates light and fires one bit when the integral reaches the threshold.

Unit of light: one tick at full scale (linear light 1) is 1; a pixel with linear light g and threshold q fires g / q
times a tick. The sensor here is ideal: no noise, no spread between pixels.

Dimension key: N ticks, h sensor rows, w sensor columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor


@dataclass(frozen=True)
class SensorConfig:
    """The spike camera beside the colour camera.

    threshold: light per spike, in full-scale ticks; the firing rate is light / threshold, at most one spike a tick.
    tick_rate_hz: read-outs per second.
    dead_ticks: light that a pixel loses after each spike, in ticks (0.002 = 100 ns of a 50 us tick).
    ratio: colour pixels per sensor pixel, along each side.
    """

    threshold: float = 1.0
    tick_rate_hz: float = 20000.0
    dead_ticks: float = 0.0
    ratio: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.threshold < float("inf"):
            raise ValueError(f"sensor.threshold: {self.threshold}; must be above 0")
        if not 0 < self.tick_rate_hz < float("inf"):
            raise ValueError(f"sensor.tick_rate_hz: {self.tick_rate_hz}; must be above 0")
        if not 0 <= self.dead_ticks < float("inf"):
            raise ValueError(f"sensor.dead_ticks: {self.dead_ticks}; must be 0 or more")
        if self.ratio < 1:
            raise ValueError(f"sensor.ratio: {self.ratio}; must be 1 or more")


class SpikeSensor:
    """One sensor with its state: the light that each pixel holds, in thresholds, from a random phase on.

    `expose` is called with consecutive slices of time; how the time is cut does not change the spikes.
    """

    def __init__(self, height: int, width: int, config: SensorConfig, *, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.config = config
        self._charge_hw = torch.rand((height, width), generator=generator)  # [0, 1) thresholds
        self._dead_hw = torch.zeros(height, width)  # ticks of light still to be lost

    def expose(self, light_Nhw: Float[Tensor, "N h w"]) -> UInt8[Tensor, "N h w"]:
        """Integrate N ticks of linear light in [0, 1] and return the spikes, 0 or 1.

        A spike takes one threshold from the integral and leaves the rest. Light beyond one threshold a tick cannot be
        told (the pixel saturates): what exceeds one threshold after a spike is lost.
        """
        spikes_Nhw = torch.empty(light_Nhw.shape, dtype=torch.uint8)
        charge_hw, dead_hw = self._charge_hw, self._dead_hw
        arriving_Nhw = light_Nhw / self.config.threshold
        for tick in range(len(light_Nhw)):
            if self.config.dead_ticks > 0:
                lost_hw = dead_hw.clamp_max(1.0)
                charge_hw += arriving_Nhw[tick] * (1 - lost_hw)
                dead_hw -= lost_hw
            else:
                charge_hw += arriving_Nhw[tick]
            fired_hw = charge_hw >= 1
            charge_hw -= fired_hw.to(charge_hw.dtype)
            charge_hw.clamp_max_(1.0)
            if self.config.dead_ticks > 0:
                dead_hw[fired_hw] = self.config.dead_ticks
            spikes_Nhw[tick] = fired_hw
        return spikes_Nhw
