"""What needs no network: a score that a network has to beat.

Dimension key: h, w rows and columns of the spikes on the frame, H, W picture rows and columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from spikevrt.light import linear_to_srgb, srgb_to_linear

if TYPE_CHECKING:
    from jaxtyping import Float

SPIKE_RATIO = "spike_ratio"  # the method's name in tables
DARK_RATE = 0.02  # spikes per tick, added to both rates: where there is no light the ratio means nothing


def short_window(num_ticks: int) -> tuple[int, int]:
    """The eighth of an exposure's ticks around its centre, as [start, stop)."""
    half = min(num_ticks // 16, (num_ticks - 1) // 2)
    return num_ticks // 2 - half, num_ticks // 2 + half + 1


def spike_ratio(
    blur: Float[Tensor, "3 H W"], short: Float[Tensor, "h w"], long: Float[Tensor, "h w"]
) -> Float[Tensor, "3 H W"]:
    """The blurry frame, lit as the spikes say: light(centre) = light(blur) * rate(short) / rate(all).

    `short` is the firing rate (spikes per tick) over `short_window`, `long` that over the whole exposure; their ratio
    is resized bilinearly and applied to linear light, the same for all colours. The gain of the sensor cancels.

    Source: the identity on which Chen et al., SpikeReveal (S-SDM), NeurIPS 2024, build.
    """
    ratio = (short + DARK_RATE) / (long + DARK_RATE)
    ratio = F.interpolate(ratio[None, None], blur.shape[-2:], mode="bilinear", align_corners=False)[0]
    return linear_to_srgb((srgb_to_linear(blur) * ratio).clamp(0, 1))
