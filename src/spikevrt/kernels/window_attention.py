"""Window attention with a relative bias and a shift mask by torch's fused kernels. The plain twin is
`model/attention.py` `attend_plain`.

torch's scaled_dot_product_attention takes one bias for many windows only if it is the same for all of them, so windows
are sorted by their mask: a cyclic shift leaves at most eight different ones, most windows having none. Its kernels want
head sizes and rows of the bias in multiples of eight; both are padded with zeros.

Dimension key: M windows (samples outermost), W windows of a sample, N tokens of a window, G heads of E channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

MASKED = -100.0  # added to a logit between tokens that are not neighbours in the picture
ALIGNMENT = 8  # elements of bf16 that are 16 bytes
MAX_WINDOWS = 65_535  # the fused kernels take no larger batch
LOGITS_PER_CHUNK = 1 << 27  # with a gradient of the bias, which torch writes for every window before it adds them up


@dataclass(frozen=True)
class MaskPatterns:
    """The masks of W windows, sorted. Made once per size (it looks at values, which a compiled network cannot)."""

    pairs: tuple[Bool[Tensor, "N N"] | None, ...]  # each different mask; None: all pairs see each other
    windows: tuple[Int[Tensor, " w"], ...]  # those that have it
    places: Int[Tensor, " W"]  # where each window is, once they are sorted by mask

    @classmethod
    def of(cls, patterns: Bool[Tensor, "K N N"], kinds: Sequence[int]) -> MaskPatterns:
        """`patterns` are pairs that must not see each other; window w has the one that kinds[w] counts."""
        kind_of = torch.tensor(kinds, device=patterns.device)
        present = sorted(set(kinds))
        windows = tuple((kind_of == kind).nonzero()[:, 0] for kind in present)
        return cls(
            tuple(patterns[kind] if patterns[kind].any() else None for kind in present),
            windows,
            torch.cat(windows).argsort(),
        )


def attend_windows(
    q: Float[Tensor, "M G N E"],
    k: Float[Tensor, "M G N E"],
    v: Float[Tensor, "M G N E"],
    bias: Float[Tensor, "G N N"] | None,
    mask: MaskPatterns | None,
) -> Float[Tensor, "M G N E"]:
    """softmax(q k^T + bias + mask) v; `q` is already scaled. Window m has the mask of window m % W."""
    size = q.shape[-1]
    q, k, v = (F.pad(t, (0, -size % ALIGNMENT)) for t in (q, k, v))
    bias = None if bias is None else bias.to(q.dtype)
    return sorted_by_mask(q, k, v, bias, mask)[..., :size]


def sorted_by_mask(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: MaskPatterns | None) -> Tensor:
    """Windows of one mask at a time. The result is put back into the order of the windows."""
    if mask is None:
        return attend_alike(bias, q, k, v)
    per_sample = [t.unflatten(0, (-1, len(mask.places))) for t in (q, k, v)]
    results = []
    for apart, windows in zip(mask.pairs, mask.windows, strict=True):
        extra = bias
        if apart is not None:
            masked = apart.to(q.dtype) * MASKED
            extra = masked[None] if bias is None else bias + masked
        alike = (t.index_select(1, windows).flatten(0, 1) for t in per_sample)
        results.append(attend_alike(extra, *alike).unflatten(0, (-1, len(windows))))
    return torch.cat(results, 1).index_select(1, mask.places).flatten(0, 1)


def attend_alike(bias: Float[Tensor, "g N N"] | None, *qkv: Float[Tensor, "m G N E"]) -> Float[Tensor, "m G N E"]:
    """Attention of windows that all have the same bias, which is therefore never repeated."""
    chunk = MAX_WINDOWS
    if bias is not None:
        bias = aligned(bias)[None]
        if bias.requires_grad:
            chunk = min(chunk, max(1, LOGITS_PER_CHUNK // (qkv[0].shape[1] * bias[0, 0].numel())))
    parts = zip(*(t.split(chunk) for t in qkv), strict=True)
    results = [F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0) for q, k, v in parts]
    return results[0] if len(results) == 1 else torch.cat(results)


def aligned(bias: Float[Tensor, "g N N"]) -> Float[Tensor, "g N N"]:
    """The same numbers in rows that begin at multiples of eight elements."""
    tokens = bias.shape[-1]
    padded = F.pad(bias, (0, -tokens % ALIGNMENT))
    return padded.contiguous()[..., :tokens]
