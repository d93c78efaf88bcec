"""Read spikes' tensors where a registration says: bilinear reading at continuous sensor coordinates.

Dimension key: C channels, h sensor rows, w sensor columns, H2 x W2 positions; `...` any leading axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

CHANNELS_AT_ONCE = 4  # what lies between stays in a core's cache


def warp(values: Float[Tensor, "... C h w"], positions: Float[Tensor, "H2 W2 2"]) -> Float[Tensor, "... C H2 W2"]:
    """The values at `positions`, each (x, y) in sensor pixels with pixel centres at +0.5: between four pixels a
    weighted mean, beyond the outermost centres the nearest pixel of the border.

    Positions at centres return the pixel itself, bit for bit: the corners are read at exact positions. (`grid_sample`
    rounds positions, which at 400 columns moves values between 0 and 1 by up to 2e-5; it takes half the time.)

    Raises:
        ValueError: a position is not a number.
    """
    assert values.ndim >= 3 and values.is_floating_point() and positions.shape[2:] == (2,), (
        values.dtype,
        tuple(values.shape),
        tuple(positions.shape),
    )
    if bool(positions.isnan().any()):
        raise ValueError("positions: holds NaN; allowed: numbers")
    height, width = values.shape[-2:]
    x, y = (positions.to(values.device, torch.float64) - 0.5).unbind(-1)
    x, y = x.clamp(0, width - 1).reshape(-1), y.clamp(0, height - 1).reshape(-1)
    left, top = x.to(torch.int64), y.to(torch.int64)
    right, bottom = (left + 1).clamp_max(width - 1), (top + 1).clamp_max(height - 1)
    across, down = (x - left).to(values.dtype), (y - top).to(values.dtype)
    at = [row * width + column for row in (top, bottom) for column in (left, right)]
    read = []
    for part in values.reshape(-1, height * width).split(CHANNELS_AT_ONCE):
        upper = torch.lerp(part.index_select(1, at[0]), part.index_select(1, at[1]), across)
        lower = torch.lerp(part.index_select(1, at[2]), part.index_select(1, at[3]), across)
        read.append(torch.lerp(upper, lower, down))
    return torch.cat(read).view(*values.shape[:-2], *positions.shape[:2])
