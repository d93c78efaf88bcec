"""Texture from interval (TFI): one over the gap between the two spikes around a tick; sharp, but coarse in level.

Dimension key: T ticks, H sensor rows, W sensor columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8


def tfi(spikes_THW: UInt8[Tensor, "T H W"], centre: int) -> Float[Tensor, "H W"]:
    """1 / (t_next - t_prev) per pixel: t_prev the last spike at or before `centre`, t_next the first one after it.

    Where one of the two is missing, the stream's edge stands for it (tick -1 or T): the value is the highest rate
    that the silence allows. A pixel that never fires reads 0. Values are in [0, 1].

    Raises:
        ValueError: `centre` is not a tick of the stream.

    Source: texture from interval, Zhu et al., ICME 2019.
    """
    num_ticks = len(spikes_THW)
    if not 0 <= centre < num_ticks:
        raise ValueError(f"centre: {centre}; allowed: 0 to {num_ticks - 1}")
    fired = spikes_THW.to(torch.bool)
    ticks = torch.arange(num_ticks, device=spikes_THW.device, dtype=torch.int32).view(-1, 1, 1)
    previous = torch.where(fired[: centre + 1], ticks[: centre + 1], -1).amax(dim=0)
    if centre + 1 < num_ticks:
        following = torch.where(fired[centre + 1 :], ticks[centre + 1 :], num_ticks).amin(dim=0)
    else:
        following = torch.full_like(previous, num_ticks)
    rate = (following - previous).to(torch.float32).reciprocal()
    silent = (previous < 0) & (following == num_ticks)
    return rate.masked_fill(silent, 0.0)
