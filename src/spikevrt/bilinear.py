"""Reading an array at fractional positions, bilinear: the one place outside the networks.

(The networks and the losses read through torch's `grid_sample`, which has gradients and is twice as fast, but rounds
positions: at 400 columns that moves values between 0 and 1 by up to 2e-5. So does what films scenes.)

Dimension key: C channels, h rows, w columns; `...` any leading axes, `*n` the axes of the positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

CHANNELS_AT_ONCE = 4  # what lies between stays in a core's cache


def read_at(values: Float[Tensor, "... C h w"], positions: Float[Tensor, "*n 2"]) -> Float[Tensor, " ..."]:
    """The values (..., C, *n) at `positions`, each (x, y) in pixels with pixel centres at +0.5: between four pixels a
    weighted mean, beyond the outermost centres the nearest pixel of the border. Positions at centres return the pixel
    itself, bit for bit.

    Raises:
        ValueError: a position is not a number.
    """
    assert values.ndim >= 3 and values.is_floating_point() and positions.shape[-1] == 2, (
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
    return torch.cat(read).view(*values.shape[:-2], *positions.shape[:-1])
