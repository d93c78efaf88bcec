"""Transformer blocks over space-time windows: TMSA, groups of them (TMSAG), and the residual group (RTMSA).

Dimension key: B samples, D frames, H rows, W columns, C channels; M windows, N tokens of a window.
Features are channels-last, (B, D, H, W, C): linear layers, norms and windows then need no transposition.
Source: Liang et al., VRT, 2022, section 3.2.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from spikevrt.model.layers import Geglu, Linear, WindowAttention, WindowMask

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Shaped

Window = tuple[int, int, int]


def recompute(function: Callable[..., Tensor], *arguments: Any, when: bool) -> Tensor:
    """Call `function`; if `when` and gradients are on, forget its intermediate values and recompute them backwards."""
    if when and torch.is_grad_enabled():
        result: Tensor = torch_checkpoint(function, *arguments, use_reentrant=False)
        return result
    return function(*arguments)


def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    """Stochastic depth: in training, zero the whole branch of a sample with probability `rate`, and rescale."""
    if rate == 0.0 or not training:
        return x
    keep = torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), device=x.device) >= rate
    return x * keep.to(x.dtype) / (1.0 - rate)


def effective_window(size: Window, window: Window, shift: Window) -> tuple[Window, Window]:
    """Along an axis no longer than the window, the window is the axis and nothing is shifted."""
    pairs = [(s, 0) if s <= w else (w, h) for s, w, h in zip(size, window, shift, strict=True)]
    return (pairs[0][0], pairs[1][0], pairs[2][0]), (pairs[0][1], pairs[1][1], pairs[2][1])


def partition(x: Shaped[Tensor, "B D H W C"], window: Window) -> Shaped[Tensor, "M N C"]:
    """Cut into windows; the size is a multiple of the window."""
    b, d, h, w, c = x.shape
    wd, wh, ww = window
    x = x.view(b, d // wd, wd, h // wh, wh, w // ww, ww, c)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, wd * wh * ww, c)


def merge(x: Float[Tensor, "M N C"], window: Window, shape: tuple[int, ...]) -> Float[Tensor, "B D H W C"]:
    """The inverse of `partition`."""
    b, d, h, w, c = shape
    wd, wh, ww = window
    x = x.view(b, d // wd, h // wh, w // ww, wd, wh, ww, c)
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(shape)


def shift_mask_plain(size: Window, window: Window, shift: Window, device: torch.device | str = "cpu") -> WindowMask:
    """Masks pairs of tokens that the cyclic shift put into one window though they are not neighbours in the picture.

    Drawn on the whole picture, as the published design is written: every window has a pattern of its own.
    """
    labels = []
    for length, w, s in zip(size, window, shift, strict=True):
        place = torch.arange(length, device=device)
        labels.append((place >= length - w).long() + (place >= length - s).long() if s > 0 else 0 * place)
    region = labels[0][:, None, None] * 9 + labels[1][:, None] * 3 + labels[2]
    region_WN = partition(region[None, ..., None], window)[..., 0]
    return WindowMask(region_WN[:, :, None] != region_WN[:, None, :])


def shift_mask(size: Window, window: Window, shift: Window, device: torch.device | str = "cpu") -> WindowMask:
    """Equal to `shift_mask_plain`, with the eight patterns that there are: a shift divides only the windows at an end.

    Along each axis a window lies at the end or not; the answers for frames, rows and columns are the bits 4, 2 and 1
    of its kind.
    """
    at_end = [
        [bit * (s > 0 and i == n // w - 1) for i in range(n // w)]
        for n, w, s, bit in zip(size, window, shift, (4, 2, 1), strict=True)
    ]
    kinds = tuple(sum(bits) for bits in itertools.product(*at_end))
    inside = [torch.arange(w, device=device) >= w - s for w, s in zip(window, shift, strict=True)]  # of the cut
    place = torch.cartesian_prod(*(torch.arange(w, device=device) for w in window)).unbind(1)
    apart = [side[at][:, None] != side[at] for side, at in zip(inside, place, strict=True)]
    nowhere = torch.zeros_like(apart[0])
    patterns = [
        (apart[0] if kind & 4 else nowhere) | (apart[1] if kind & 2 else nowhere) | (apart[2] if kind & 1 else nowhere)
        for kind in range(8)
    ]
    return WindowMask(torch.stack(patterns), kinds)


kept_shift_mask = functools.lru_cache(maxsize=64)(shift_mask)


# --- Shifted windows for a picture whose size is a symbol: what `torch.export` traces in place of `shift_mask`.
#
# Eager code looks at numbers: is an axis longer than the window, is it to be padded, which windows have a masked pair.
# An exported program runs at sizes that are not known here, so below the same follows by arithmetic alone: whole
# numbers that may be symbols, no branch, nothing cached. With plain numbers the results are equal.


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


# --- The blocks.


@dataclass(frozen=True)
class BlockSettings:
    """What the blocks of a group have in common."""

    dim: int
    window: Window
    num_heads: int
    mlp_ratio: float
    checkpoint: tuple[str, ...] = ()  # parts recomputed in the backward pass: attention, mlp
    mutual: bool = False  # attention of each of the window's two frames to the other one, too


class TMSA(nn.Module):
    """One transformer block: window attention and feed-forward, each behind a norm and with a residual."""

    plain = False  # draw the mask on the whole picture, at every call

    def __init__(self, settings: BlockSettings, shift: Window, drop_path_rate: float) -> None:
        super().__init__()
        dim, self.window, self.shift = settings.dim, settings.window, shift
        self.drop_path_rate = drop_path_rate
        self.recompute_attention, self.recompute_mlp = "attention" in settings.checkpoint, "mlp" in settings.checkpoint
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, self.window, settings.num_heads, settings.mutual)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Geglu(dim, int(dim * settings.mlp_ratio), dim)

    def forward(self, x: Float[Tensor, "B D H W C"]) -> Float[Tensor, "B D H W C"]:
        x = x + drop_path(
            recompute(self._attention, x, when=self.recompute_attention), self.drop_path_rate, self.training
        )
        mlp = recompute(self._mlp, x, when=self.recompute_mlp and not self.mlp.in_pieces(x))  # those keep nothing
        return x + drop_path(mlp, self.drop_path_rate, self.training)

    def _mlp(self, x: Tensor) -> Tensor:
        return self.mlp(x, self.norm2)

    def _attention(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return self._attention_of_any_size(x)
        _, d, h, w, _ = x.shape
        window, shift = effective_window((d, h, w), self.window, self.shift)
        if window[1:] != self.window[1:] or (self.attn.mutual and window[0] != 2):
            raise ValueError(
                f"features of {d}x{h}x{w} (frames, rows, columns) are smaller than the window {self.window}"
            )
        x = self.norm1(x)
        pad = [-size % step for size, step in zip((d, h, w), window, strict=True)]
        if torch.compiler.is_compiling() or any(pad):  # one graph, whatever is missing
            x = F.pad(x, (0, 0, 0, pad[2], 0, pad[1], 0, pad[0]))
        mask = None
        if any(shift):
            x = torch.roll(x, (-shift[0], -shift[1], -shift[2]), (1, 2, 3))
            size = (d + pad[0], h + pad[1], w + pad[2])
            make = shift_mask_plain if self.plain or torch.compiler.is_compiling() else kept_shift_mask
            mask = make(size, window, shift, x.device)
        shape = x.shape
        x = merge(self.attn(partition(x, window), mask), window, shape)
        if any(shift):
            x = torch.roll(x, shift, (1, 2, 3))
        return x[:, :d, :h, :w]

    def _attention_of_any_size(self, x: Tensor) -> Tensor:
        """The same for sizes that are symbols, which an exported program has."""
        _, d, h, w, _ = x.shape
        window, shift, counts = symbolic_windows((d, h, w), self.window, self.shift)
        size = (counts[0] * window[0], counts[1] * window[1], counts[2] * window[2])
        x = pad_and_roll(self.norm1(x), size, shift)
        mask = None
        if any(self.shift) or (window[0] > 2 and not isinstance(d, int)):  # the second: a clip shorter than the window
            mask = WindowMask(masked_pairs((d, h, w), counts, window, shift, x.device))
        shape = x.shape
        x = merge(self.attn(partition(x, window), mask), window, shape)
        return crop_and_roll_back(x, (d, h, w), shift)


class TMSAG(nn.Module):
    """A group of blocks, one for each drop rate; every second one works on windows shifted by half their size."""

    def __init__(self, settings: BlockSettings, drop_path_rates: Sequence[float]) -> None:
        super().__init__()
        depth, height, width = settings.window
        shifts = ((0, 0, 0), (depth // 2, height // 2, width // 2))
        self.blocks = nn.ModuleList(TMSA(settings, shifts[i % 2], rate) for i, rate in enumerate(drop_path_rates))

    def forward(self, x: Float[Tensor, "B D H W C"]) -> Float[Tensor, "B D H W C"]:
        for block in self.blocks:
            x = block(x)
        return x


class RTMSA(nn.Module):
    """A self-attention group with a linear layer and a residual; stage 8 is a list of these."""

    def __init__(self, settings: BlockSettings, drop_path_rates: Sequence[float]) -> None:
        super().__init__()
        self.residual_group = TMSAG(settings, drop_path_rates)
        self.linear = Linear(settings.dim, settings.dim)

    def forward(self, x: Float[Tensor, "B D H W C"]) -> Float[Tensor, "B D H W C"]:
        return x + self.linear(self.residual_group(x))
