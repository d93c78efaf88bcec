"""The spike branch: voxels to a feature pyramid, and self-attention over time at each of its pixels.

Dimension key: B samples, T frames, K temporal bins of an exposure, C channels, H rows, W columns of the spike camera;
S pixels; scale i has C_i channels at 1/2^i of its resolution. Pyramid features are (B, T, H, W, C).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from spikevrt.kernels.frame_attention import TemporalWeights, temporal_triton
from spikevrt.model.blocks import recompute
from spikevrt.model.frame_attention_plain import attend_over_time
from spikevrt.model.linear import Linear

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


class FeedForward(nn.Sequential):
    """Linear, GELU, linear."""

    def __init__(self, dim: int, ratio: float) -> None:
        hidden = int(dim * ratio)
        super().__init__(Linear(dim, hidden), nn.GELU(), Linear(hidden, dim))


class SpikeTemporalSA(nn.Module):
    """One pre-LayerNorm transformer block over the T time steps of a pixel; no dropout, no position code."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim, mlp_ratio)

    def forward(self, x: Float[Tensor, "T S C"]) -> Float[Tensor, "T S C"]:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.proj(attend_over_time(q, k, v, self.num_heads, None))
        return x + self.mlp(self.norm2(x))

    def fused(self, x: Float[Tensor, "B T S C"]) -> Float[Tensor, "B T S C"]:
        """`forward` as one kernel."""
        c, norm = x.shape[-1], (self.norm1.weight, self.norm1.bias)
        weight, bias = self.qkv.weight, self.qkv.bias
        w = TemporalWeights(
            *norm, *norm, weight[:c], bias[:c], weight[c:], bias[c:],
            *self.proj.parameters(), *self.norm2.parameters(), *self.mlp.parameters(),
        )  # fmt: skip
        return temporal_triton(x, None, None, w, self.num_heads)
