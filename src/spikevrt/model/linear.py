"""Linear layers by the faster of torch's two libraries, VRT's feed-forward layer (GEGLU), and who takes a fast path.

Dimension key: ... any leading axes, N tokens, C channels in, F hidden channels, O channels out.
Sources: Liang et al., VRT, 2022, section 3.2; Shazeer, GLU Variants Improve Transformer, 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from jaxtyping import Float

TOKENS_PER_PIECE = 8192  # 6 MB of hidden values at the reference width


def on_cpu(x: Tensor) -> bool:
    """Whether `x` is computed on a CPU, operation by operation: there the paths of this package that work in pieces of
    the cache's size are the fast ones. Not on a GPU, and not under torch.compile or torch.export, which want the whole.
    """
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def linear(x: Float[Tensor, "... C"], weight: Float[Tensor, "O C"], bias: Float[Tensor, " O"] | None) -> Tensor:
    """x weight^T + bias. On a CPU as a convolution with a kernel of one pixel: that goes to oneDNN, F.linear to MKL."""
    if not on_cpu(x) or x.dtype == torch.float64:
        return F.linear(x, weight, bias)
    if not x.is_contiguous():
        x = x.contiguous()
    pixels = x.view(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)  # one row of pixels in channels_last memory
    out = F.conv2d(pixels, weight[:, :, None, None], bias)
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], weight.shape[0])


class Linear(nn.Linear):
    """`nn.Linear` by `linear`."""

    plain = False  # as `nn.Linear` does it

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.plain else linear(x, self.weight, self.bias)


class Geglu(nn.Module):
    """fc2(GELU(fc11 x) * fc12 x), of x or of its norm."""

    plain = False  # compute as the published design is written

    def __init__(self, dim: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc11 = Linear(dim, hidden)
        self.fc12 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, out)

    def in_pieces(self, x: Tensor) -> bool:
        """Whether `forward` takes the fast path, which keeps nothing but its input for the backward pass."""
        return on_cpu(x) and not self.plain

    def forward(self, x: Float[Tensor, "... C"], norm: nn.LayerNorm | None = None) -> Float[Tensor, "... O"]:
        if not self.in_pieces(x):
            x = x if norm is None else norm(x)
            return self.fc2(F.gelu(self.fc11(x)) * self.fc12(x))
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        weights = [p.to(dtype) for layer in (self.fc11, self.fc12, self.fc2) for p in (layer.weight, layer.bias)]
        scale, shift = (None, None) if norm is None else (norm.weight, norm.bias)
        out: Tensor = GegluInPieces.apply(x.reshape(-1, x.shape[-1]), scale, shift, *weights)
        return out.view(*x.shape[:-1], -1)


def hidden_values(x: Float[Tensor, "N C"], parameters: Sequence[Tensor | None]) -> Float[Tensor, "N F"]:
    """GELU(fc11 y) * fc12 y, y = norm(x). `parameters`: the norm's two (None: no norm), fc11's two, fc12's two."""
    norm_weight, norm_bias, w1, b1, w2, b2 = parameters
    assert w1 is not None and w2 is not None
    y = x if norm_weight is None else F.layer_norm(x, x.shape[-1:], norm_weight, norm_bias)
    y = y.to(w1.dtype)
    if torch.is_grad_enabled():
        return F.gelu(linear(y, w1, b1)) * linear(y, w2, b2)
    gate = torch.ops.aten.gelu_(linear(y, w1, b1))
    return gate.mul_(linear(y, w2, b2))


class GegluInPieces(torch.autograd.Function):
    """Some tokens at a time: the hidden values stay in the cache, and none is kept for the backward pass, which
    computes them again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, norm_weight, norm_bias, *weights)
        *first, w3, b3 = weights
        out = torch.empty(x.shape[0], w3.shape[0], dtype=w3.dtype)
        with torch.autocast("cpu", enabled=False):
            for tokens, kept in zip(x.split(TOKENS_PER_PIECE), out.split(TOKENS_PER_PIECE), strict=True):
                kept.copy_(linear(hidden_values(tokens, (norm_weight, norm_bias, *first)), w3, b3))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters, w3, _ = ctx.saved_tensors
        leaves = [None if p is None else p.detach().requires_grad_() for p in parameters]
        given = [leaf for leaf in leaves if leaf is not None]
        d_x = torch.empty_like(x)
        d_given = [torch.zeros_like(leaf, dtype=torch.promote_types(leaf.dtype, torch.float32)) for leaf in given]
        d_w3 = torch.zeros_like(w3, dtype=d_given[0].dtype)
        for tokens, d_tokens, d_piece in zip(*(t.split(TOKENS_PER_PIECE) for t in (x, d_x, d_out)), strict=True):
            with torch.enable_grad():
                tokens = tokens.detach().requires_grad_()
                hidden = hidden_values(tokens, leaves)
            d_w3 += d_piece.t() @ hidden.detach()
            d_hidden = linear(d_piece, w3.t().contiguous(), None)
            d_first, *d_rest = torch.autograd.grad(hidden, [tokens, *given], d_hidden)
            d_tokens.copy_(d_first)
            for total, piece in zip(d_given, d_rest, strict=True):
                total += piece
        found = iter(d.to(leaf.dtype) for d, leaf in zip(d_given, given, strict=True))
        d_parameters = [None if leaf is None else next(found) for leaf in leaves]
        return d_x, *d_parameters, d_w3.to(w3.dtype), d_out.sum(0)
