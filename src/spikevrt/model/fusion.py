"""Fusion of the spike pyramid into the encoder: at each pixel, cross-attention over time.

Dimension key: B samples, T frames, H rows, W columns, C channels; S pixels, G heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevrt.kernels.frame_attention import TemporalWeights, temporal_triton
from spikevrt.model.frame_attention_plain import attend_over_time
from spikevrt.model.linear import Linear
from spikevrt.model.spike_encoder import FeedForward

if TYPE_CHECKING:
    from jaxtyping import Float


MAX_TIME_DIFFERENCE = 8  # frames; larger differences share one bias
INITIAL_DECAY = 2.0  # of the time bias, in logits per frame of difference


class TemporalCrossAttnFuse(nn.Module):
    """RGB features ask, spike features answer: out = y + FFN(LN y), y = rgb + attention(LN rgb, LN spikes).

    The residual carries the RGB feature itself, not its normalised copy, and both output projections start at zero: a
    new fusion is exactly the identity, whatever the spikes. With `time_bias` each head learns how much a difference in
    time between the two frames counts; at first it prefers the spikes of its own frame.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, time_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_rgb = nn.LayerNorm(dim)
        self.norm_spikes = nn.LayerNorm(dim)
        self.q = Linear(dim, dim)
        self.kv = Linear(dim, 2 * dim)
        self.proj = Linear(dim, dim)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim, mlp_ratio)
        for layer in (self.proj, self.mlp[2]):
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.time_bias: nn.Parameter | None = None
        if time_bias:
            difference = torch.arange(-MAX_TIME_DIFFERENCE, MAX_TIME_DIFFERENCE + 1, dtype=torch.float32)
            self.time_bias = nn.Parameter((-INITIAL_DECAY * difference.abs()).repeat(num_heads, 1))

    def forward(self, rgb: Float[Tensor, "T S C"], spikes: Float[Tensor, "T S C"]) -> Float[Tensor, "T S C"]:
        q = self.q(self.norm_rgb(rgb))
        k, v = self.kv(self.norm_spikes(spikes)).chunk(2, -1)
        y = rgb + self.proj(attend_over_time(q, k, v, self.num_heads, self._bias(rgb.shape[0], q.dtype)))
        return y + self.mlp(self.norm_mlp(y))

    def fused(self, rgb: Float[Tensor, "B T S C"], spikes: Float[Tensor, "B T S C"]) -> Float[Tensor, "B T S C"]:
        """`forward` as one kernel."""
        layers = (self.norm_rgb, self.norm_spikes, self.q, self.kv, self.proj, self.norm_mlp, self.mlp)
        weights = TemporalWeights(*(p for layer in layers for p in layer.parameters()))
        return temporal_triton(rgb, spikes, self._bias(rgb.shape[1], torch.float32), weights, self.num_heads)

    def _bias(self, num_frames: int, dtype: torch.dtype) -> Float[Tensor, "G T T"] | None:
        if self.time_bias is None:
            return None
        time = torch.arange(num_frames, device=self.time_bias.device)
        difference = (time - time[:, None]).clamp(-MAX_TIME_DIFFERENCE, MAX_TIME_DIFFERENCE)
        return self.time_bias[:, difference + MAX_TIME_DIFFERENCE].to(dtype)


def resize_features(x: Float[Tensor, "B T h w C"], height: int, width: int) -> Float[Tensor, "B T H W C"]:
    """Bilinear resize (align_corners=False) of every frame; nothing is touched where the size is right."""
    if not torch.compiler.is_exporting() and x.shape[2:4] == (height, width):
        return x
    pictures = x.flatten(0, 1).permute(0, 3, 1, 2)
    pictures = F.interpolate(pictures, (height, width), mode="bilinear", align_corners=False)
    return pictures.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])
