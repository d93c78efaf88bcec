"""Texture from playback (TFP): the firing rate around one tick, a picture of the light.

Dimension key: T ticks, H sensor rows, W sensor columns; `...` any leading axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8


def tfp(spikes_THW: UInt8[Tensor, "... T H W"], centre: int, half_window: int) -> Float[Tensor, "... H W"]:
    """Mean spikes per tick over ticks centre - half_window .. centre + half_window, both included; in [0, 1].

    Unbiased; the quantisation error is about 1 / window; motion within the window is blurred.

    Raises:
        ValueError: half_window is negative, or the window leaves the stream (it is never cut short).

    Source: texture from playback, Zhu et al., ICME 2019.
    """
    num_ticks = spikes_THW.shape[-3]
    start, stop = centre - half_window, centre + half_window + 1
    if half_window < 0 or start < 0 or stop > num_ticks:
        raise ValueError(
            f"centre {centre}, half_window {half_window}: ticks [{start}, {stop}); allowed: inside [0, {num_ticks})"
        )
    return spikes_THW[..., start:stop, :, :].sum(dim=-3, dtype=torch.int32).to(torch.float32) / (stop - start)
