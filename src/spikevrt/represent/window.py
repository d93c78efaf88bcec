"""Raw ticks as channels: the stream itself around one tick, for networks that read spikes without counting them.

Dimension key: T ticks, D = 2 * half_window + 1 channels, H sensor rows, W sensor columns; `...` any leading axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8


def raw_window(spikes_THW: UInt8[Tensor, "... T H W"], centre: int, half_window: int) -> Float[Tensor, "... D H W"]:
    """Ticks centre - half_window .. centre + half_window, both included, as 0.0 and 1.0: channel i is tick
    centre - half_window + i.

    Raises:
        ValueError: half_window is negative, or the window leaves the stream (it is never cut short).

    Source: the input of Spk2ImgNet (41 ticks), Zhao et al., CVPR 2021.
    """
    num_ticks = spikes_THW.shape[-3]
    start, stop = centre - half_window, centre + half_window + 1
    if half_window < 0 or start < 0 or stop > num_ticks:
        raise ValueError(
            f"centre {centre}, half_window {half_window}: ticks [{start}, {stop}); allowed: inside [0, {num_ticks})"
        )
    return spikes_THW[..., start:stop, :, :].to(torch.float32)
