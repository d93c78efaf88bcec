"""Fill broken pixels from their neighbours.

Dimension key: h sensor rows, w sensor columns, M broken pixels, N leading axes as one; `...` any leading axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


def repair(values: Float[Tensor, "... h w"], bad: Bool[Tensor, "h w"]) -> Float[Tensor, "... h w"]:
    """Each bad pixel becomes the mean of those of its eight neighbours that are good; good pixels keep their bits.

    A bad pixel without a good neighbour waits until its neighbours are repaired and takes the mean of those, so that a
    hole is filled from its rim inwards. The mean and not the median: counts are small whole numbers, whose median is
    coarse and, where most are zero, zero. What a bad pixel holds is never read (it may be NaN).

    Raises:
        ValueError: every pixel is bad.
    """
    assert values.is_floating_point() and bad.dtype == torch.bool and values.shape[-2:] == bad.shape, (
        values.dtype,
        tuple(values.shape),
        tuple(bad.shape),
    )
    height, width = bad.shape
    if bool(bad.all()):
        raise ValueError(f"bad: all {height}x{width} pixels; allowed: at least one good pixel")
    repaired = values.clone(memory_format=torch.contiguous_format)
    flat_Np = repaired.view(-1, height * width)
    bad = bad.to(values.device)
    known = torch.nn.functional.pad(~bad, (1, 1, 1, 1), value=False)
    steps_82 = torch.tensor([(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if r or c], device=values.device)
    waiting_M2 = bad.nonzero()
    while len(waiting_M2):
        rows_M8, columns_M8 = (waiting_M2[:, None] + steps_82).unbind(-1)
        usable_M8 = known[rows_M8 + 1, columns_M8 + 1]
        ready_M = usable_M8.any(dim=1)
        usable = usable_M8[ready_M]
        near = flat_Np[:, torch.where(usable, (rows_M8 * width + columns_M8)[ready_M], 0)]
        rows, columns = waiting_M2[ready_M].unbind(-1)
        flat_Np[:, rows * width + columns] = near.masked_fill(~usable, 0).sum(dim=-1) / usable.sum(dim=-1)
        known[rows + 1, columns + 1] = True
        waiting_M2 = waiting_M2[~ready_M]
    return repaired
