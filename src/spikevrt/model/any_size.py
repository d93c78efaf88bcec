"""Shifted windows for a picture whose size is a symbol: what `torch.export` traces in place of `blocks.shift_mask`.

Eager code looks at numbers: is an axis longer than the window, does it need padding, which windows have a masked pair.
An exported program runs at sizes that nobody has named yet, so here the same follows by arithmetic alone: whole numbers
that may be symbols, no branch, nothing cached. With plain numbers the results are equal.

Dimension key: B samples, D frames, H rows, W columns, C channels; M windows, N tokens of a window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

Window = tuple[int, int, int]


def symbolic_windows(size: Window, window: Window, shift: Window) -> tuple[Window, Window, Window]:
    """The window, the shift and the number of windows of every axis; an axis no longer than the window is one window,
    and nothing is shifted along it."""
    axes = []
    for length, w, s in zip(size, window, shift, strict=True):
        own = min(length, w) if isinstance(length, int) else w
        axes.append((own, s * is_longer(length, w), (length + own - 1) // own))
    windows, shifts, counts = zip(*axes, strict=True)
    return windows, shifts, counts


def is_longer(length: int, w: int) -> int:
    """1 where the axis is longer than the window, else 0."""
    return torch.sym_min((length - 1) // w, 1)


def pad_and_roll(x: Float[Tensor, "B D H W C"], size: Window, shift: Window) -> Float[Tensor, "B d h w C"]:
    """Zeros at the end of the axes D, H, W up to `size`, then a cyclic shift towards their start."""
    for axis, (length, padded, s) in enumerate(zip(x.shape[1:4], size, shift, strict=True), start=1):
        if moves(length, padded, s):
            position = wrapped(torch.arange(padded, device=x.device) + s, padded)
            inside = position < length
            x = x.index_select(axis, torch.where(inside, position, 0))
            x = x * inside.to(x.dtype).view(-1, *(1,) * (x.ndim - axis - 1))
    return x


def crop_and_roll_back(x: Float[Tensor, "B d h w C"], size: Window, shift: Window) -> Float[Tensor, "B D H W C"]:
    """The inverse of `pad_and_roll`; `size` is that of the result."""
    for axis, (padded, length, s) in enumerate(zip(x.shape[1:4], size, shift, strict=True), start=1):
        if moves(length, padded, s):
            x = x.index_select(axis, wrapped(torch.arange(length, device=x.device) + (padded - s), padded))
    return x


def moves(length: int, padded: int, s: int) -> bool:
    """Whether an axis is padded or shifted, or may be."""
    return not all(isinstance(n, int) for n in (length, padded, s)) or length != padded or s != 0


def wrapped(position: Int[Tensor, " L"], length: int) -> Int[Tensor, " L"]:
    """Positions below twice the length, brought below it."""
    return torch.where(position >= length, position - length, position)


def masked_pairs(
    size: Window, counts: Window, window: Window, shift: Window, device: torch.device
) -> Bool[Tensor, "M N N"]:
    """Which pairs of tokens of a window are no neighbours in the picture: the cyclic shift brought them together from
    its opposite ends, or one of them is padding on an axis that is shorter than the window."""
    region = torch.zeros((), dtype=torch.long, device=device)
    for axis, (length, count, w, s) in enumerate(zip(size, counts, window, shift, strict=True)):
        position = torch.arange(count * w, device=device)
        edges = (count * w - w, count * w - s, length + count * w * is_longer(length, w))
        label = torch.stack([position >= edge for edge in edges]).sum(0)
        shape = [1, 1, 1, 1, 1, 1]
        shape[axis], shape[axis + 3] = count, w
        region = region * 4 + label.view(shape)
    region_MN = region.reshape(counts[0] * counts[1] * counts[2], window[0] * window[1] * window[2])
    return region_MN[:, :, None] != region_MN[:, None, :]
