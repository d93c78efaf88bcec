"""The layers of VRT's blocks: attention inside space-time windows, linear layers, and the feed-forward layer (GEGLU).

Attention is self attention with a relative position bias, or mutual attention between the two frames of a window.
Linear layers go to the faster of torch's two libraries. Every fast path has its plain twin here: `attend_plain`, and
layers with `plain` set, which work as the published design is written.

Dimension key: M windows (samples outermost), N tokens of a window (frame, row, column; column fastest), n tokens of one
of its two frames, C channels, G heads, E channels of a head, K patterns of a mask. Of the linear layers: ... any
leading axes, N tokens, C channels in, F hidden channels, O channels out.
Sources: Liang et al., VRT: A Video Restoration Transformer, 2022, sections 3.2 and 3.3; Shazeer, GLU Variants Improve
Transformer, 2020.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from spikevrt.kernels import chosen
from spikevrt.kernels.operators import MASKED, MaskPatterns, attend_windows

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


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


LOGITS_PER_PIECE = 1 << 21  # 8 MB in float32: what a CPU's cache holds while it is written, normalised and read


def relative_position_index(window: tuple[int, int, int]) -> Int[Tensor, "N N"]:
    """For every (query, key) pair of a window, the row of the relative position bias table."""
    depth, height, width = window
    coordinates = torch.stack(
        torch.meshgrid(torch.arange(depth), torch.arange(height), torch.arange(width), indexing="ij")
    ).flatten(1)
    dd, dh, dw = coordinates[:, :, None] - coordinates[:, None, :]
    return ((dd + depth - 1) * (2 * height - 1) + dh + height - 1) * (2 * width - 1) + dw + width - 1


def sine_position_code(height: int, width: int, channels: int) -> Float[Tensor, "1 N C"]:
    """Sine code of a `height` x `width` frame: the first half of the channels codes the row, the second the column."""
    half = channels // 2
    period = 10000 ** (2 * torch.div(torch.arange(half), 2, rounding_mode="floor") / half)

    def code(size: int) -> Tensor:
        angle = torch.arange(1, size + 1, dtype=torch.float32) / (size + 1e-6) * 2 * math.pi
        angle = angle[:, None] / period
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)

    rows = code(height)[:, None].expand(height, width, half)
    columns = code(width)[None].expand(height, width, half)
    return torch.cat((rows, columns), dim=-1).reshape(1, height * width, channels)


FRAME_BIT = 4  # of the kind of a window: see `blocks.shift_mask`


@dataclass(frozen=True, eq=False)
class WindowMask:
    """Which pairs of tokens must not see each other: window m has the pattern kinds[m % W]; pattern 0 masks nothing.

    A cyclic shift gives at most eight patterns, one for every set of axes at whose end a window lies, so that a mask
    costs the same for a picture of any size. Without `kinds` window m has the pattern m % K.
    """

    patterns: Bool[Tensor, "K N N"]
    kinds: tuple[int, ...] | None = None

    def pairs(self, num_windows: int) -> Bool[Tensor, "M N N"]:
        """The pattern of every window."""
        patterns = self.patterns
        if self.kinds is not None:
            patterns = patterns[torch.tensor(self.kinds, device=patterns.device)]
        return patterns.repeat(num_windows // patterns.shape[0], 1, 1)

    @functools.cached_property
    def of_one_frame(self) -> WindowMask:
        """The mask between tokens at the places of the first of a window's two frames."""
        half = self.patterns.shape[1] // 2
        kinds = None if self.kinds is None else tuple(kind & ~FRAME_BIT for kind in self.kinds)
        return WindowMask(self.patterns[:, :half, :half], kinds)

    def runs(self, start: int, stop: int) -> Iterator[tuple[slice, int]]:
        """Neighbouring windows of one kind in [start, stop), counted from `start`; those that mask nothing left out."""
        kind_of = self.kinds.__getitem__ if self.kinds is not None else int
        period = len(self.kinds) if self.kinds is not None else self.patterns.shape[0]
        for kind, run in itertools.groupby(range(start, stop), lambda m: kind_of(m % period)):
            if kind or self.kinds is None:
                first, *others = run
                yield slice(first - start, (others[-1] if others else first) + 1 - start), kind


@functools.lru_cache(maxsize=128)
def sorted_by_mask(mask: WindowMask) -> MaskPatterns:
    """`mask` as the GPU's kernels need it."""
    return MaskPatterns.of(mask.patterns, mask.kinds or range(len(mask.patterns)))


def attend_plain(
    q: Float[Tensor, "M G N E"],
    k: Float[Tensor, "M G N E"],
    v: Float[Tensor, "M G N E"],
    bias: Float[Tensor, "G N N"] | None,
    mask: WindowMask | None,
) -> Float[Tensor, "M G N E"]:
    """softmax(q k^T / sqrt(E) + bias + mask) v, written out."""
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if bias is not None:
        logits = logits + bias
    if mask is not None:
        logits = logits + (mask.pairs(q.shape[0]).to(logits.dtype) * MASKED)[:, None]
    return logits.softmax(-1) @ v


def attend(
    qkv: Float[Tensor, "3 M G N E"], bias: Float[Tensor, "G N N"] | None, mask: WindowMask | None, swap: bool = False
) -> Float[Tensor, "M G N E"]:
    """Equal to `attend_plain`. With `swap`, window m is asked by the queries of window m + M/2 (modulo M)."""
    if on_cpu(qkv):
        out: Tensor = AttendInPieces.apply(qkv, bias, mask, swap)
        return out
    q, k, v = qkv
    if swap:
        q = q.unflatten(0, (2, -1)).flip(0).flatten(0, 1)  # no roll: how far would be a symbol in an exported program
    if q.is_cuda and not torch.compiler.is_compiling() and chosen() != "torch":
        return attend_windows(q * q.shape[-1] ** -0.5, k, v, bias, None if mask is None else sorted_by_mask(mask))
    extra = None if bias is None else bias[None].to(q.dtype)
    if mask is not None:
        # an exported program is for one sample, whose number of windows is not known when it is traced
        pairs = mask.patterns.repeat(1 + swap, 1, 1) if torch.compiler.is_exporting() else mask.pairs(q.shape[0])
        masked = (pairs.to(q.dtype) * MASKED)[:, None]
        extra = masked if extra is None else extra + masked
    return F.scaled_dot_product_attention(q, k, v, attn_mask=extra)


class AttendInPieces(torch.autograd.Function):
    """`attend` some windows at a time: their logits stay in the cache, and none is kept for the backward pass, which
    computes them again."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor | None, mask: WindowMask | None, swap: bool) -> Tensor:
        ctx.save_for_backward(qkv, bias)
        ctx.mask, ctx.swap = mask, swap
        out = torch.empty_like(qkv[0])
        for windows, _, weights in _softmax_in_pieces(qkv, bias, mask, swap):
            torch.bmm(weights, qkv[2, windows].flatten(0, 1), out=out[windows].flatten(0, 1))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        qkv, bias = ctx.saved_tensors
        num_heads, num_tokens, scale = qkv.shape[2], qkv.shape[3], qkv.shape[-1] ** -0.5
        d_out, d_qkv = d_out.contiguous(), torch.empty_like(qkv)
        d_bias = None if bias is None else torch.zeros_like(bias)
        for windows, asking, weights in _softmax_in_pieces(qkv, bias, ctx.mask, ctx.swap):
            q, d_q = (t[asking].flatten(0, 1) for t in (qkv[0], d_qkv[0]))
            k, v, d_k, d_v, d_o = (t[windows].flatten(0, 1) for t in (*qkv[1:], *d_qkv[1:], d_out))
            torch.bmm(weights.transpose(1, 2), d_o, out=d_v)
            d_logits = torch._softmax_backward_data(d_o @ v.transpose(1, 2), weights, -1, weights.dtype)
            if d_bias is not None:
                d_bias += d_logits.view(-1, num_heads, num_tokens, num_tokens).sum(0)
            torch.baddbmm(d_q, d_logits, k, beta=0, alpha=scale, out=d_q)
            torch.baddbmm(d_k, d_logits.transpose(1, 2), q, beta=0, alpha=scale, out=d_k)
        return d_qkv, d_bias, None, None


def _softmax_in_pieces(
    qkv: Float[Tensor, "3 M G N E"], bias: Float[Tensor, "G N N"] | None, mask: WindowMask | None, swap: bool
) -> Iterator[tuple[slice, slice, Float[Tensor, "mG N N"]]]:
    """(windows, the windows whose queries ask them, softmax of the logits) piece by piece, all in the same memory."""
    _, num_windows, num_heads, num_tokens, size = qkv.shape
    sections = ((0, num_windows // 2), (num_windows // 2, num_windows)) if swap else ((0, num_windows),)
    step = max(1, min(sections[0][1], LOGITS_PER_PIECE // (num_heads * num_tokens**2)))
    memory = qkv.new_empty(step * num_heads, num_tokens, num_tokens)
    repeated = None if bias is None else bias.repeat(step, 1, 1)
    for first, last in sections:
        away = num_windows // 2 - 2 * first if swap else 0
        for start in range(first, last, step):
            stop = min(start + step, last)
            windows, asking = slice(start, stop), slice(start + away, stop + away)
            q, k = qkv[0, asking].flatten(0, 1), qkv[1, windows].flatten(0, 1).transpose(1, 2)
            logits = memory[: len(q)]
            if repeated is None:
                torch.baddbmm(logits, q, k, beta=0, alpha=size**-0.5, out=logits)
            else:
                torch.baddbmm(repeated[: len(q)], q, k, alpha=size**-0.5, out=logits)
            if mask is not None:
                by_window = logits.view(-1, num_heads, num_tokens, num_tokens)
                for run, kind in mask.runs(start, stop):
                    by_window[run] += mask.patterns[kind].to(logits.dtype) * MASKED
            torch.softmax(logits, -1, out=logits)
            yield windows, asking, logits


class WindowAttention(nn.Module):
    """Self attention over a window and, if `mutual`, attention of each of its two frames to the other one.

    Mutual attention has no relative bias; its position code is added to its input alone. Both results are joined on
    channels, mutual first, and projected.
    """

    relative_position_index: Tensor
    position_bias: Tensor
    plain = False  # compute as the published design is written

    def __init__(self, dim: int, window: tuple[int, int, int], num_heads: int, mutual: bool) -> None:
        super().__init__()
        self.window, self.num_heads, self.mutual = window, num_heads, mutual
        depth, height, width = window
        table = torch.zeros((2 * depth - 1) * (2 * height - 1) * (2 * width - 1), num_heads)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        self.register_buffer("relative_position_index", relative_position_index(window))
        self.qkv_self = Linear(dim, 3 * dim)
        self.proj = Linear(2 * dim if mutual else dim, dim)
        if mutual:
            assert depth == 2, "mutual attention joins exactly two frames"
            self.register_buffer("position_bias", sine_position_code(height, width, dim))
            self.qkv_mut = Linear(dim, 3 * dim)
        self._last_bias: tuple[Tensor, Tensor] | None = None  # (table, the bias made from it), without gradients

    def forward(self, x_MNC: Float[Tensor, "M N C"], mask: WindowMask | None) -> Float[Tensor, "M N C"]:
        """Attend inside each window."""
        if self.plain:
            return self._forward_plain(x_MNC, mask)
        num_windows, num_tokens, dim = x_MNC.shape
        weight: Tensor = self.qkv_self.weight
        bias: Tensor = self.qkv_self.bias
        if self.mutual:  # one product for both attentions
            weight, bias = torch.cat((weight, self.qkv_mut.weight)), torch.cat((bias, self.qkv_mut.bias))
        qkv = linear(x_MNC, weight, bias)
        heads = (3, self.num_heads, dim // self.num_heads)
        own = qkv[..., : 3 * dim].unflatten(-1, heads).permute(2, 0, 3, 1, 4).contiguous()
        out = attend(own, self.bias(num_tokens).to(qkv.dtype), mask).transpose(1, 2)
        if self.mutual:
            half = num_tokens // 2
            pair = qkv[..., 3 * dim :].unflatten(-1, heads).unflatten(1, (2, half)).permute(3, 1, 0, 4, 2, 5)
            # the position code is the same in every window: it is projected once and added behind the projection
            code = F.linear(self.position_bias[0], self.qkv_mut.weight).to(qkv.dtype)
            pair = pair + code.unflatten(-1, heads).permute(1, 2, 0, 3)[:, None, None]
            joined = attend(pair.contiguous().flatten(1, 2), None, mask and mask.of_one_frame, swap=True)
            joined = joined.unflatten(0, (2, num_windows)).permute(1, 0, 3, 2, 4)
            out = torch.cat((joined, out.unflatten(1, (2, half))), 3)
        return linear(out.reshape(num_windows, num_tokens, -1), self.proj.weight, self.proj.bias)

    def bias(self, num_tokens: int) -> Float[Tensor, "G N N"]:
        """The relative position bias of the first `num_tokens` tokens; without gradients made once per table."""
        table = self.relative_position_bias_table
        keep = on_cpu(table) and not torch.is_grad_enabled()
        if keep and self._last_bias is not None:
            last_table, last = self._last_bias
            if last.shape[-1] == num_tokens and torch.equal(last_table, table):
                return last
        index = self.relative_position_index[:num_tokens, :num_tokens].reshape(-1)
        bias = table[index].view(num_tokens, num_tokens, -1).permute(2, 0, 1).contiguous()
        if keep:
            self._last_bias = table.detach().clone(), bias
        return bias

    def _forward_plain(self, x_MNC: Tensor, mask: WindowMask | None) -> Tensor:
        num_windows, num_tokens, dim = x_MNC.shape
        index = self.relative_position_index[:num_tokens, :num_tokens].reshape(-1)
        bias = self.relative_position_bias_table[index].view(num_tokens, num_tokens, -1).permute(2, 0, 1)
        out = attend_plain(*self._heads(self.qkv_self(x_MNC)), bias, mask).transpose(1, 2).reshape(x_MNC.shape)
        if self.mutual:
            q, k, v = self._heads(self.qkv_mut(x_MNC + self.position_bias.repeat(1, 2, 1)))
            (q1, q2), (k1, k2), (v1, v2) = (t.chunk(2, 2) for t in (q, k, v))
            half_mask = mask and mask.of_one_frame
            pair = (attend_plain(q2, k1, v1, None, half_mask), attend_plain(q1, k2, v2, None, half_mask))
            out = torch.cat((torch.cat(pair, 2).transpose(1, 2).reshape(x_MNC.shape), out), -1)
        return self.proj(out)

    def _heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v
