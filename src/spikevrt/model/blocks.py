"""Transformer blocks over space-time windows: TMSA, groups of them (TMSAG), and the residual group (RTMSA).

Dimension key: B samples, D frames, H rows, W columns, C channels; M windows, N tokens of a window.
Features are channels-last, (B, D, H, W, C): linear layers, norms and windows then need no transposition.
Source: Liang et al., VRT, 2022, section 3.2.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from spikevrt.model.any_size import crop_and_roll_back, masked_pairs, pad_and_roll, symbolic_windows
from spikevrt.model.attention import WindowAttention, WindowMask
from spikevrt.model.feed_forward import Geglu
from spikevrt.model.linear import Linear

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped

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


class TMSA(nn.Module):
    """One transformer block: window attention and feed-forward, each behind a norm and with a residual."""

    plain = False  # draw the mask on the whole picture, at every call

    def __init__(
        self,
        dim: int,
        window: Window,
        shift: Window,
        num_heads: int,
        mlp_ratio: float,
        mutual: bool,
        drop_path_rate: float,
        checkpoint: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.drop_path_rate = drop_path_rate
        self.recompute_attention, self.recompute_mlp = "attention" in checkpoint, "mlp" in checkpoint
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window, num_heads, mutual)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Geglu(dim, int(dim * mlp_ratio), dim)

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
    """A group of blocks; every second one works on windows shifted by half their size."""

    def __init__(
        self,
        dim: int,
        depth: int,
        window: Window,
        num_heads: int,
        mlp_ratio: float,
        mutual: bool,
        drop_path_rates: list[float],
        checkpoint: tuple[str, ...],
    ) -> None:
        super().__init__()
        half = (window[0] // 2, window[1] // 2, window[2] // 2)
        self.blocks = nn.ModuleList(
            TMSA(
                dim, window, half if i % 2 else (0, 0, 0), num_heads, mlp_ratio, mutual, drop_path_rates[i], checkpoint
            )
            for i in range(depth)
        )

    def forward(self, x: Float[Tensor, "B D H W C"]) -> Float[Tensor, "B D H W C"]:
        for block in self.blocks:
            x = block(x)
        return x


class RTMSA(nn.Module):
    """A self-attention group with a linear layer and a residual; stage 8 is a list of these."""

    def __init__(
        self,
        dim: int,
        depth: int,
        window: Window,
        num_heads: int,
        mlp_ratio: float,
        drop_path_rates: list[float],
        checkpoint: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.residual_group = TMSAG(dim, depth, window, num_heads, mlp_ratio, False, drop_path_rates, checkpoint)
        self.linear = Linear(dim, dim)

    def forward(self, x: Float[Tensor, "B D H W C"]) -> Float[Tensor, "B D H W C"]:
        return x + self.linear(self.residual_group(x))
