"""The spike branch: voxels to a feature pyramid, and self-attention over time at each of its pixels.

Dimension key: B samples, T frames, K temporal bins of an exposure, C channels, H rows, W columns of the spike camera;
scale i has C_i channels at 1/2^i of its resolution. Pyramid features are (B, T, H, W, C).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevrt.model.blocks import recompute

if TYPE_CHECKING:
    from jaxtyping import Float


class ResidualBlock3D(nn.Module):
    """x + conv(LeakyReLU(conv(x))), with 3x3x3 convolutions over frames, rows and columns."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(dim, dim, 3, padding=1)
        self.conv2 = nn.Conv3d(dim, dim, 3, padding=1)

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C T H W"]:
        return x + self.conv2(F.leaky_relu(self.conv1(x), 0.1))


class SpikeEncoder3D(nn.Module):
    """A pyramid of 3-D convolutions and residual 3-D blocks; the K bins of a frame enter as channels, T is kept.

    The first scale has the sensor's own resolution; each further one halves rows and columns.
    """

    def __init__(self, num_bins: int, dims: tuple[int, ...], num_blocks: int, recomputed: tuple[bool, ...]) -> None:
        super().__init__()
        self.recomputed = recomputed  # scales whose intermediate values are recomputed in the backward pass
        widths = (num_bins, *dims)
        self.scales = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(widths[i], widths[i + 1], 3, stride=(1, 1, 1) if i == 0 else (1, 2, 2), padding=1),
                nn.LeakyReLU(0.1),
                *(ResidualBlock3D(widths[i + 1]) for _ in range(num_blocks)),
            )
            for i in range(len(dims))
        )

    def forward(self, voxels: Float[Tensor, "B T K H W"]) -> list[Float[Tensor, "B T h w C"]]:
        x = voxels.transpose(1, 2)
        pyramid = []
        for scale, recomputed in zip(self.scales, self.recomputed, strict=True):
            x = recompute(scale, x, when=recomputed)
            pyramid.append(x.permute(0, 2, 3, 4, 1))
        return pyramid


MAX_SEQUENCES = 65_535  # CUDA's fused attention kernels take no larger batch


def over_pixels(
    function: nn.Module, *features: Float[Tensor, "B T H W C"], max_tokens: int
) -> Float[Tensor, "B T H W C"]:
    """Apply `function` to the sequence over time of every pixel, about `max_tokens` tokens (at least a row) at a time.

    `function` maps (S, T, C), ... to (S, T, C) for any number S of sequences. Chunks are whole samples cut along rows,
    so that each is read and written once; the result does not depend on `max_tokens`.
    """
    b, t, h, w, c = features[0].shape
    if torch.compiler.is_exporting():  # sizes are symbols: no chunks
        sequences = [f.permute(0, 2, 3, 1, 4).reshape(b * h * w, t, c) for f in features]
        return function(*sequences).view(b, h, w, t, c).permute(0, 3, 1, 2, 4)
    rows = max(1, min(max_tokens // (t * w), MAX_SEQUENCES // w))
    per_sample = []
    for sample in range(b):
        parts = []
        for top in range(0, h, rows):
            cut = [f[sample, :, top : top + rows] for f in features]
            sequences = [f.flatten(1, 2).transpose(0, 1) for f in cut]
            parts.append(function(*sequences).transpose(0, 1).reshape(t, -1, w, c))
        per_sample.append(parts[0] if len(parts) == 1 else torch.cat(parts, 1))
    return torch.stack(per_sample)


def split_heads(x: Float[Tensor, "S T C"], num_heads: int) -> Float[Tensor, "S G T E"]:
    """Cut channels into heads."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


class FeedForward(nn.Sequential):
    """Linear, GELU, linear."""

    def __init__(self, dim: int, ratio: float) -> None:
        hidden = int(dim * ratio)
        super().__init__(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class SpikeTemporalSA(nn.Module):
    """One pre-LayerNorm transformer block over the T time steps of a pixel; no dropout, no position code."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim, mlp_ratio)

    def forward(self, x: Float[Tensor, "S T C"]) -> Float[Tensor, "S T C"]:
        q, k, v = (split_heads(part, self.num_heads) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))
