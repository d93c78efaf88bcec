"""Smooth motion for cameras and cut-outs.

Dimension key: N ticks, C path components, S sinusoids.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class SmoothPath:
    """Sums of sinusoids: smooth for ever, bounded, and different for every seed."""

    amplitude_CS: Tensor
    cycles_per_tick_CS: Tensor
    phase_CS: Tensor

    def at(self, ticks: Tensor) -> Float[Tensor, "N C"]:
        """The C components at each tick, in float64."""
        angle_NCS = 2 * math.pi * self.cycles_per_tick_CS * ticks.double()[:, None, None] + self.phase_CS
        return (self.amplitude_CS * angle_NCS.sin()).sum(-1)


def smooth_path(
    steps: Sequence[float], *, exposure_ticks: int, num_ticks: int, generator: torch.Generator
) -> SmoothPath:
    """A path whose component c moves by `steps[c]` in the time of one exposure.

    That is the RMS over the recording, or over its first six exposures if it is shorter.
    """
    num = len(steps)

    def draw_CS(low: Sequence[float], high: Sequence[float]) -> Tensor:
        bounds_S2 = torch.tensor([low, high], dtype=torch.float64)
        draw = torch.rand((num, len(low)), generator=generator, dtype=torch.float64)
        return bounds_S2[0] + draw * (bounds_S2[1] - bounds_S2[0])

    period_CS = draw_CS((4.0, 1.8, 0.7), (9.0, 4.0, 1.8)) * exposure_ticks  # slow sweep, sway, tremor
    speed_CS = draw_CS((1.0, 0.0, 0.0), (1.0, 0.6, 0.3))
    path = SmoothPath(speed_CS * period_CS, 1 / period_CS, draw_CS((0.0,) * 3, (2 * math.pi,) * 3))
    start_ticks = torch.linspace(0, max(num_ticks, 6 * exposure_ticks) - exposure_ticks, 64)
    moved_NC = path.at(start_ticks + exposure_ticks) - path.at(start_ticks)
    scale_C = torch.tensor(steps, dtype=torch.float64) / moved_NC.square().mean(0).sqrt()
    return SmoothPath(path.amplitude_CS * scale_C[:, None], path.cycles_per_tick_CS, path.phase_CS)
