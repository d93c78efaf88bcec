"""What needs no network: a score that a network has to beat.

Dimension key: T ticks of one exposure, h, w sensor rows and columns, H, W picture rows and columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from spikevrt.represent.rate import tfp
from spikevrt.simulate.exposure import linear_to_srgb, srgb_to_linear

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8

SPIKE_RATIO = "spike_ratio"  # the method's name in tables
DARK_RATE = 0.02  # spikes per tick, added to both rates: where there is no light the ratio means nothing


def spike_ratio(blur: Float[Tensor, "3 H W"], spikes: UInt8[Tensor, "T h w"]) -> Float[Tensor, "3 H W"]:
    """The blurry frame, lit as the spikes say: light(centre) = light(blur) * rate(short) / rate(all).

    The short window is an eighth of the exposure around its centre, the long one the whole exposure; their ratio is
    resized bilinearly and applied to linear light, the same for all colours. The gain of the sensor cancels.

    Source: the identity on which Chen et al., SpikeReveal (S-SDM), NeurIPS 2024, build.
    """
    num_ticks = len(spikes)
    half = (num_ticks - 1) // 2
    short = tfp(spikes, num_ticks // 2, min(num_ticks // 16, half))
    long = spikes.float().mean(0)
    ratio = (short + DARK_RATE) / (long + DARK_RATE)
    ratio = F.interpolate(ratio[None, None], blur.shape[-2:], mode="bilinear", align_corners=False)[0]
    return linear_to_srgb((srgb_to_linear(blur) * ratio).clamp(0, 1))
