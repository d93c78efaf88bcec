"""Attention over time: every pixel is a short sequence of its own, and pixels know nothing of each other.

Features stay as they lie in memory, (frames, pixels, channels): nothing is transposed. For T <= 16 the products of all
pixels at once are few, long elementwise operations; as matrices they would be millions of tiny ones.

Dimension key: B samples, T frames that ask, U frames that are asked, S pixels, H rows, W columns, C channels, G heads,
E channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevrt.kernels.choice import use_triton
from spikevrt.model.linear import on_cpu

if TYPE_CHECKING:
    from jaxtyping import Float

BYTES_PER_PIECE = 1 << 23  # of one tensor of features, on a CPU: a few of them fit its cache
MAX_SEQUENCES = 65_535  # CUDA's fused attention kernels take no larger batch


def attend_over_time_plain(
    q: Float[Tensor, "T S C"],
    k: Float[Tensor, "U S C"],
    v: Float[Tensor, "U S C"],
    num_heads: int,
    bias: Float[Tensor, "G T U"] | None,
) -> Float[Tensor, "T S C"]:
    """softmax(q k^T / sqrt(E) + bias) v over the frames of every pixel, as batches of small matrices."""
    q, k, v = (t.unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3) for t in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return out.permute(2, 0, 1, 3).flatten(2)


def attend_over_time(
    q: Float[Tensor, "T S C"],
    k: Float[Tensor, "U S C"],
    v: Float[Tensor, "U S C"],
    num_heads: int,
    bias: Float[Tensor, "G T U"] | None,
) -> Float[Tensor, "T S C"]:
    """Equal to `attend_over_time_plain`. On a CPU frame by frame, all pixels together."""
    if not on_cpu(q):
        return attend_over_time_plain(q, k, v, num_heads, bias)
    q, k, v = (t.unflatten(-1, (num_heads, -1)) for t in (q * (q.shape[-1] // num_heads) ** -0.5, k, v))
    frames = []
    for t, query in enumerate(q):
        logits = (query * k).sum(-1)  # (U, S, G)
        if bias is not None:
            logits = logits + bias[:, t].t()[:, None]
        frames.append((logits.softmax(0)[..., None] * v).sum(0))
    return torch.stack(frames).flatten(2)


def over_pixels(
    function: nn.Module, *features: Float[Tensor, "B T H W C"], max_tokens: int
) -> Float[Tensor, "B T H W C"]:
    """Apply `function` to the sequence over time of every pixel, a bounded number of them at a time.

    `function` maps (T, S, C), ... to (T, S, C) for any number S of pixels. Pieces are whole rows of one sample, so that
    each lies in memory in T blocks: on a CPU `BYTES_PER_PIECE`, and nowhere more than about `max_tokens` tokens. The
    result does not depend on the pieces. Where a kernel of ours runs, `function.fused` maps (B, T, S, C), ... at once.
    """
    b, t, h, w, c = features[0].shape
    if use_triton(features[0]):
        fused: Callable[..., Tensor] = function.fused  # type: ignore[assignment]
        return fused(*(f.flatten(2, 3) for f in features)).unflatten(2, (h, w))
    if torch.compiler.is_compiling():
        rows = h
    else:
        if on_cpu(features[0]):
            max_tokens = min(max_tokens, BYTES_PER_PIECE // (c * features[0].element_size()))
        rows = max(1, min(max_tokens // (t * w), MAX_SEQUENCES // w))
    per_sample = []
    for sample in range(b):
        parts = []
        for top in range(0, h, rows):
            sequences = [f[sample, :, top : top + rows].flatten(1, 2) for f in features]
            parts.append(function(*sequences).unflatten(1, (-1, w)))
        per_sample.append(parts[0] if len(parts) == 1 else torch.cat(parts, 1))
    return torch.stack(per_sample)
