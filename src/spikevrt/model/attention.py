"""Attention inside space-time windows, as VRT does it: self attention with a relative position bias, and mutual
attention between the two frames of a window.

Dimension key: M windows (samples outermost), N tokens of a window (frame, row, column; column fastest), C channels,
G heads, E channels of a head.
Source: Liang et al., VRT: A Video Restoration Transformer, 2022, sections 3.2 and 3.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

MASKED = -100.0  # added to a logit between tokens that are not neighbours in the picture
CPU_LOGITS_PER_CHUNK = 1 << 23  # 32 MB of fp32 logits
GPU_LOGITS_PER_CHUNK = 1 << 27
MAX_WINDOWS = 65_535  # CUDA's fused attention kernels take no larger batch


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


@dataclass(frozen=True)
class WindowMask:
    """Which pairs of tokens of window m % W must not see each other, and which windows have any such pair."""

    pairs: Bool[Tensor, "W N N"]
    windows: tuple[bool, ...]

    @classmethod
    def of(cls, pairs: Bool[Tensor, "W N N"]) -> WindowMask:
        return cls(pairs, tuple(pairs.flatten(1).any(1).tolist()))


def attend_plain(
    q: Float[Tensor, "M G N E"],
    k: Float[Tensor, "M G N E"],
    v: Float[Tensor, "M G N E"],
    bias: Float[Tensor, "G N N"] | None,
    mask: WindowMask | None,
) -> Float[Tensor, "M G N E"]:
    """softmax(q k^T + bias + mask) v, written out; `q` is already scaled. Window m uses mask[m % W]."""
    logits = q @ k.transpose(-2, -1)
    if bias is not None:
        logits = logits + bias
    if mask is not None:
        windows = torch.arange(q.shape[0], device=q.device) % len(mask.windows)
        logits = logits + (mask.pairs[windows].to(logits.dtype) * MASKED)[:, None]
    return logits.softmax(-1) @ v


def attend(
    q: Float[Tensor, "M G N E"],
    k: Float[Tensor, "M G N E"],
    v: Float[Tensor, "M G N E"],
    bias: Float[Tensor, "G N N"] | None,
    mask: WindowMask | None,
) -> Float[Tensor, "M G N E"]:
    """Equal to `attend_plain`, a bounded number of windows at a time.

    Windows inside the picture have no masked pair and skip the mask. Without gradients the fused kernel of torch is
    used; with them it would fall back to a slow path, because the bias is learned.
    """
    if torch.compiler.is_exporting():  # sizes are symbols, one sample: no chunks, no look into the mask
        logits = q @ k.transpose(-2, -1)
        if bias is not None:
            logits = logits + bias
        if mask is not None:
            logits = logits + (mask.pairs.to(logits.dtype) * MASKED)[:, None]
        return logits.softmax(-1) @ v
    num_windows, num_heads, num_tokens, _ = q.shape
    budget = GPU_LOGITS_PER_CHUNK if q.is_cuda else CPU_LOGITS_PER_CHUNK
    chunk = min(max(1, budget // (num_heads * num_tokens * num_tokens)), MAX_WINDOWS)
    fused = not torch.is_grad_enabled()
    results = []
    for start in range(0, num_windows, chunk):
        part = slice(start, min(start + chunk, num_windows))
        extra = None if bias is None else bias[None].to(q.dtype)
        if mask is not None:
            period = len(mask.windows)
            if any(mask.windows[m % period] for m in range(part.start, part.stop)):
                windows = torch.arange(part.start, part.stop, device=q.device) % period
                masked = (mask.pairs[windows].to(q.dtype) * MASKED)[:, None]
                extra = masked if extra is None else extra + masked
        if fused:
            results.append(F.scaled_dot_product_attention(q[part], k[part], v[part], attn_mask=extra, scale=1.0))
        else:
            logits = q[part] @ k[part].transpose(-2, -1)
            results.append((logits if extra is None else logits + extra).softmax(-1).to(v.dtype) @ v[part])
    return results[0] if len(results) == 1 else torch.cat(results)


class WindowAttention(nn.Module):
    """Self attention over a window and, if `mutual`, attention of each of its two frames to the other one.

    Mutual attention has no relative bias; its position code is added to its input alone. Both results are joined on
    channels, mutual first, and projected.
    """

    relative_position_index: Tensor
    position_bias: Tensor

    def __init__(self, dim: int, window: tuple[int, int, int], num_heads: int, mutual: bool) -> None:
        super().__init__()
        self.window, self.num_heads, self.mutual = window, num_heads, mutual
        depth, height, width = window
        table = torch.zeros((2 * depth - 1) * (2 * height - 1) * (2 * width - 1), num_heads)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        self.register_buffer("relative_position_index", relative_position_index(window))
        self.qkv_self = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(2 * dim if mutual else dim, dim)
        if mutual:
            assert depth == 2, "mutual attention joins exactly two frames"
            self.register_buffer("position_bias", sine_position_code(height, width, dim))
            self.qkv_mut = nn.Linear(dim, 3 * dim)

    def forward(self, x_MNC: Float[Tensor, "M N C"], mask: WindowMask | None) -> Float[Tensor, "M N C"]:
        """Attend inside each window."""
        num_windows, num_tokens, dim = x_MNC.shape
        index = self.relative_position_index[:num_tokens, :num_tokens].reshape(-1)
        bias = self.relative_position_bias_table[index].view(num_tokens, num_tokens, -1).permute(2, 0, 1)
        q, k, v = self._heads(self.qkv_self(x_MNC))
        out = attend(q, k, v, bias, mask).transpose(1, 2).reshape(num_windows, num_tokens, dim)
        if self.mutual:
            half = num_tokens // 2
            q, k, v = self._heads(self.qkv_mut(x_MNC + self.position_bias.repeat(1, 2, 1)))
            # the frame pair joins the heads; the queries' frames are swapped, so that frame 1 answers frame 2
            q = torch.cat((q[:, :, half:], q[:, :, :half]), 1)
            k, v = (torch.cat((t[:, :, :half], t[:, :, half:]), 1) for t in (k, v))
            half_mask = None if mask is None else WindowMask(mask.pairs[:, :half, :half], mask.windows)
            pair = attend(q, k, v, None, half_mask)
            pair = pair.view(num_windows, 2, self.num_heads, half, -1).permute(0, 1, 3, 2, 4)
            out = torch.cat((pair.reshape(num_windows, num_tokens, dim), out), -1)
        return self.proj(out)

    def _heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        num_windows, num_tokens, _ = qkv.shape
        q, k, v = qkv.view(num_windows, num_tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        return q * q.shape[-1] ** -0.5, k, v
