"""Attention over time: every pixel is a short sequence of its own, and pixels know nothing of each other.

Features stay as they lie in memory, (frames, pixels, channels), for all layers around the attention.

Dimension key: B samples, T frames that ask, U frames that are asked, S pixels, H rows, W columns, C channels, G heads,
E channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevrt.kernels.choice import chosen, use_triton
from spikevrt.kernels.frame_attention import MAX_FRAMES
from spikevrt.model.blocks import recompute
from spikevrt.model.linear import on_cpu

if TYPE_CHECKING:
    from jaxtyping import Float

BYTES_PER_PIECE = 1 << 22  # of one tensor of features, on a CPU: a few of them fit its cache
MAX_SEQUENCES = 65_535  # CUDA's fused attention kernels take no larger batch


def attend_over_time(
    q: Float[Tensor, "T S C"],
    k: Float[Tensor, "U S C"],
    v: Float[Tensor, "U S C"],
    num_heads: int,
    bias: Float[Tensor, "G T U"] | None,
) -> Float[Tensor, "T S C"]:
    """softmax(q k^T / sqrt(E) + bias) v over the frames of every pixel."""
    q, k, v = (t.unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3) for t in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return out.permute(2, 0, 1, 3).flatten(2)


def over_pixels(
    function: nn.Module, *features: Float[Tensor, "B T H W C"], max_tokens: int, recomputed: bool = False
) -> Float[Tensor, "B T H W C"]:
    """Apply `function` to the sequence over time of every pixel, a bounded number of them at a time.

    `function` maps (T, S, C), ... to (T, S, C) for any number S of pixels. Pieces are whole rows of one sample, so that
    each lies in memory in T blocks: on a CPU `BYTES_PER_PIECE`, and nowhere more than about `max_tokens` tokens. The
    result does not depend on the pieces. With `recomputed` the backward pass computes each again from its input.
    Where a kernel of ours runs, `function.fused` maps (B, T, S, C), ... at once, and recomputes in any case.
    """
    b, t, h, w, c = features[0].shape
    if use_triton(features[0]) and (t <= MAX_FRAMES or chosen() == "triton"):  # which then refuses more
        fused: Callable[..., Tensor] = function.fused  # type: ignore[assignment]
        return fused(*(f.flatten(2, 3) for f in features)).unflatten(2, (h, w))
    if torch.compiler.is_compiling():  # one piece, whatever the sizes
        sequences = [f.transpose(0, 1).reshape(t, b * h * w, c) for f in features]
        return recompute(function, *sequences, when=recomputed).view(t, b, h, w, c).transpose(0, 1)
    if on_cpu(features[0]):
        max_tokens = min(max_tokens, BYTES_PER_PIECE // (c * features[0].element_size()))
    rows = max(1, min(max_tokens // (t * w), MAX_SEQUENCES // w))
    cuts = [(sample, slice(top, top + rows)) for sample in range(b) for top in range(0, h, rows)]

    def piece(sample: int, cut: slice) -> Tensor:
        sequences = [f[sample, :, cut].flatten(1, 2) for f in features]
        return recompute(function, *sequences, when=recomputed).unflatten(1, (-1, w))

    if torch.is_grad_enabled():
        parts = [piece(*cut) for cut in cuts]
        count = len(cuts) // b
        return torch.stack([torch.cat(parts[i : i + count], 1) for i in range(0, len(parts), count)])
    out = torch.empty_like(features[0])
    for sample, cut in cuts:
        out[sample, :, cut] = piece(sample, cut)
    return out
