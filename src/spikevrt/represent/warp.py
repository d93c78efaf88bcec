"""Read spikes' tensors where a registration says: bilinear reading at continuous sensor coordinates.

Dimension key: C channels, h sensor rows, w sensor columns, H2 x W2 positions; `...` any leading axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def warp(values: Float[Tensor, "... C h w"], positions: Float[Tensor, "H2 W2 2"]) -> Float[Tensor, "... C H2 W2"]:
    """The values at `positions`, each (x, y) in sensor pixels with pixel centres at +0.5: between four pixels a
    weighted mean, beyond the outermost centres the nearest pixel of the border.

    Positions at centres return the pixel itself, bit for bit: the corners are read at exact positions. (`grid_sample`
    rounds positions to the picture's width: 2e-5 of a pixel at 400 columns, for 0.6 of the time.)

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
    flat = values.reshape(-1, height * width)
    upper = torch.lerp(flat.index_select(1, top * width + left), flat.index_select(1, top * width + right), across)
    lower = torch.lerp(
        flat.index_select(1, bottom * width + left), flat.index_select(1, bottom * width + right), across
    )
    return torch.lerp(upper, lower, down).view(*values.shape[:-2], *positions.shape[:2])
