"""The operators around the Triton kernels, with their gradients: attention over time, and deformable convolution; and
window attention with a relative bias and a shift mask by torch's fused kernels, which needs no Triton.

Attention over the T frames of each pixel comes with its norms, projections and feed-forward layer in one kernel, which
reads features where they lie, C fastest, writes the result, and keeps everything between on the chip: 4 C bytes of bf16
a token for self-attention, 6 C for cross-attention, where operations one by one move some twenty times as much
(benchmarks/bench_kernels.py counts). Its backward pass recomputes with its plain twin, `temporal_plain`.

Modulated deformable convolution, 3x3, is a gather fused with its matrix product, forward and backward. No sampled value
(9 x channels a pixel) is ever stored: both read the picture at the offsets anew, and the backward pass keeps input,
offset, mask and weight alone. Its plain twin is `model/deformable_alignment.py` `deform_conv`.

Windows: torch's scaled_dot_product_attention takes one bias for many windows only if it is the same for all of them, so
windows are sorted by their mask: a cyclic shift leaves at most eight different ones, most windows having none. Its
kernels want head sizes and rows of the bias in multiples of eight; both are padded with zeros. The plain twin is
`model/layers.py` `attend_plain`.

Dimension key: B samples, T frames, P pixels of a frame, C channels, G heads, F hidden channels; of the convolution: N
pictures, k convolution groups of C channels, G deformable groups, P = 9 taps, H rows, W columns, O output channels; of
windows: M windows (samples outermost), W windows of a sample, N tokens of a window, G heads of E channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


MAX_FRAMES = 32  # a block of rows of the kernel holds all frames of a pixel
BACKWARD_TOKENS = 1 << 18  # recomputed at a time, which bounds the memory of the backward pass


class TemporalWeights(NamedTuple):
    """Of one block, as nn.LayerNorm and nn.Linear hold them. For self-attention the norm of the memory is that of x."""

    norm_x: Float[Tensor, " C"]
    norm_x_bias: Float[Tensor, " C"]
    norm_memory: Float[Tensor, " C"]
    norm_memory_bias: Float[Tensor, " C"]
    q: Float[Tensor, "C C"]
    q_bias: Float[Tensor, " C"]
    kv: Float[Tensor, "2*C C"]
    kv_bias: Float[Tensor, " 2*C"]
    proj: Float[Tensor, "C C"]
    proj_bias: Float[Tensor, " C"]
    norm_mlp: Float[Tensor, " C"]
    norm_mlp_bias: Float[Tensor, " C"]
    up: Float[Tensor, "F C"]
    up_bias: Float[Tensor, " F"]
    down: Float[Tensor, "C F"]
    down_bias: Float[Tensor, " C"]


NORMS = {name for name in TemporalWeights._fields if name.startswith("norm")}


def temporal_plain(
    x: Float[Tensor, "B T P C"],
    memory: Float[Tensor, "B T P C"] | None,
    time_bias: Float[Tensor, "G T T"] | None,
    weights: TemporalWeights,
    num_heads: int,
) -> Float[Tensor, "B T P C"]:
    """y = x + attention(LN x, LN memory); y + FFN(LN y). Queries: a pixel's frames of `x`; keys, values: of `memory`.

    Self-attention where `memory` is None. Norms and sums are float32, products are of the matrices' dtype.
    """
    w = weights
    channels, dtype = x.shape[-1:], w.q.dtype

    def heads(tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (num_heads, -1)).permute(0, 2, 3, 1, 4)

    asks = F.layer_norm(x.float(), channels, w.norm_x, w.norm_x_bias).to(dtype)
    source = x if memory is None else memory
    answers = F.layer_norm(source.float(), channels, w.norm_memory, w.norm_memory_bias).to(dtype)
    q = heads(F.linear(asks, w.q, w.q_bias))
    k, v = (heads(part) for part in F.linear(answers, w.kv, w.kv_bias).chunk(2, -1))
    logits = (q @ k.transpose(-2, -1)).float() * q.shape[-1] ** -0.5
    if time_bias is not None:
        logits = logits + time_bias
    attended = (logits.softmax(-1).to(dtype) @ v).permute(0, 3, 1, 2, 4).flatten(3)
    y = x.float() + F.linear(attended, w.proj, w.proj_bias)
    hidden = F.gelu(F.linear(F.layer_norm(y, channels, w.norm_mlp, w.norm_mlp_bias).to(dtype), w.up, w.up_bias))
    return (y + F.linear(hidden, w.down, w.down_bias)).to(x.dtype)


def temporal_triton(
    x: Float[Tensor, "B T P C"],
    memory: Float[Tensor, "B T P C"] | None,
    time_bias: Float[Tensor, "G T T"] | None,
    weights: TemporalWeights,
    num_heads: int,
) -> Float[Tensor, "B T P C"]:
    """Equal to `temporal_plain`, by the kernel. Under autocast the matrices are taken in its dtype; x keeps its own.

    Raises:
        ValueError: more frames than the kernel holds.
    """
    if x.shape[1] > MAX_FRAMES:
        raise ValueError(f"a clip of {x.shape[1]} frames: the Triton kernel takes at most {MAX_FRAMES}")
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    cast = [
        tensor.float() if name in NORMS else tensor.to(dtype)
        for name, tensor in zip(TemporalWeights._fields, weights, strict=True)
    ]
    bias = None if time_bias is None else time_bias.float()
    result: Tensor = temporal_op(x, memory, bias, cast, num_heads)
    return result


@torch.library.custom_op(
    "spikevrt::temporal",
    mutates_args=(),
    schema="(Tensor x, Tensor? memory, Tensor? time_bias, Tensor[] weights, int num_heads) -> Tensor",
)
def temporal_op(
    x: Tensor, memory: Tensor | None, time_bias: Tensor | None, weights: list[Tensor], num_heads: int
) -> Tensor:
    from spikevrt.kernels import frame_attention_triton as kernel

    return kernel.forward(x, memory, time_bias, TemporalWeights(*weights), num_heads)


@temporal_op.register_fake
def _(x, memory, time_bias, weights, num_heads):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape)


@torch.library.custom_op(
    "spikevrt::temporal_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor x, Tensor? memory, Tensor? time_bias, Tensor[] weights, int num_heads) -> Tensor[]",
)
def temporal_backward(
    grad: Tensor,
    x: Tensor,
    memory: Tensor | None,
    time_bias: Tensor | None,
    weights: list[Tensor],
    num_heads: int,
) -> list[Tensor]:
    """Gradients of x, memory and time_bias (where given) and of the weights, a bounded number of pixels at a time."""
    per_pixel = [t for t in (x, memory) if t is not None]
    shared = [*([] if time_bias is None else [time_bias]), *weights]
    totals = [torch.zeros_like(t, dtype=torch.float32) for t in shared]
    parts: list[list[Tensor]] = [[] for _ in per_pixel]

    def forward(*tensors: Tensor) -> Tensor:
        rest = list(tensors)
        own = rest.pop(0)
        other = None if memory is None else rest.pop(0)
        bias = None if time_bias is None else rest.pop(0)
        return temporal_plain(own, other, bias, TemporalWeights(*rest), num_heads)

    step = max(1, BACKWARD_TOKENS // (x.shape[0] * x.shape[1]))
    with torch.autocast(x.device.type, enabled=False):
        for start in range(0, x.shape[2], step):
            cut = [t[:, :, start : start + step] for t in per_pixel]
            pull_back = torch.func.vjp(forward, *cut, *shared)[1]
            gradients = pull_back(grad[:, :, start : start + step])
            for part, gradient in zip(parts, gradients, strict=False):
                part.append(gradient)
            for total, gradient in zip(totals, gradients[len(per_pixel) :], strict=True):
                total += gradient
    joined = [torch.cat(part, 2) for part in parts]
    return [*joined, *(total.to(t.dtype) for total, t in zip(totals, shared, strict=True))]


@temporal_backward.register_fake
def _(grad, x, memory, time_bias, weights, num_heads):  # type: ignore[no-untyped-def]
    return [t.new_empty(t.shape) for t in (x, memory, time_bias, *weights) if t is not None]


def _temporal_save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, memory, time_bias, weights, ctx.num_heads = inputs
    ctx.save_for_backward(x, memory, time_bias, *weights)


def _temporal_backward(ctx, grad):  # type: ignore[no-untyped-def]
    x, memory, time_bias, *weights = ctx.saved_tensors
    gradients = list(temporal_backward(grad, x, memory, time_bias, weights, ctx.num_heads))
    of_x = gradients.pop(0)
    of_memory = None if memory is None else gradients.pop(0)
    of_bias = None if time_bias is None else gradients.pop(0)
    return of_x, of_memory, of_bias, gradients, None


temporal_op.register_autograd(_temporal_backward, setup_context=_temporal_save)


MAX_OUTPUTS = 256  # of one convolution group; a block of the kernel holds them all


def deform_triton(
    x: Float[Tensor, "N kC H W"],
    offset: Float[Tensor, "N G P 2 H W"],
    mask: Float[Tensor, "N G P H W"],
    weight: Float[Tensor, "O C 3 3"],
    bias: Float[Tensor, " O"],
) -> Float[Tensor, "N O H W"]:
    """3x3 convolution whose tap (i, j) of pixel (y, z) reads at (y + i - 1 + dy, z + j - 1 + dz), times its mask.

    Bilinear, zero outside the picture. Group g of the offsets serves input channels [g*kC/G, (g+1)*kC/G).
    Input and result lie in channels_last memory (another input is copied).

    Products are of x's dtype, positions and sums float32. Its gradient of x is added in any order.

    Raises:
        ValueError: a convolution group with more output channels than the kernel holds.
    """
    per_group = weight.shape[0] * weight.shape[1] // x.shape[1]
    if per_group > MAX_OUTPUTS:
        raise ValueError(f"{per_group} output channels of a group: the Triton kernel takes at most {MAX_OUTPUTS}")
    result: Tensor = deform_op(x, offset, mask, weight, bias)
    return result


@torch.library.custom_op(
    "spikevrt::deform",
    mutates_args=(),
    schema="(Tensor x, Tensor offset, Tensor mask, Tensor weight, Tensor bias) -> Tensor",
)
def deform_op(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    from spikevrt.kernels import deform_conv_triton as kernel

    return kernel.forward(x, offset, mask, weight, bias)


@deform_op.register_fake
def _(x, offset, mask, weight, bias):  # type: ignore[no-untyped-def]
    n, _, height, width = x.shape
    return x.new_empty(n, height, width, weight.shape[0]).permute(0, 3, 1, 2)


@torch.library.custom_op(
    "spikevrt::deform_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor x, Tensor offset, Tensor mask, Tensor weight) -> (Tensor, Tensor, Tensor, Tensor)",
)
def deform_backward(
    grad: Tensor, x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, offset, mask and weight."""
    from spikevrt.kernels import deform_conv_triton as kernel

    return (
        *kernel.backward_input(grad, x, offset, mask, weight),
        kernel.backward_weight(grad, x, offset, mask, weight),
    )


@deform_backward.register_fake
def _(grad, x, offset, mask, weight):  # type: ignore[no-untyped-def]
    n, channels, height, width = x.shape
    of_x = x.new_empty(n, height, width, channels).permute(0, 3, 1, 2)
    return of_x, offset.new_empty(offset.shape), mask.new_empty(mask.shape), weight.new_empty(weight.shape)


def _deform_save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *saved, bias = inputs
    ctx.bias_dtype = bias.dtype
    ctx.save_for_backward(*saved)


def _deform_backward(ctx, grad):  # type: ignore[no-untyped-def]
    return *deform_backward(grad, *ctx.saved_tensors), grad.sum((0, 2, 3), dtype=torch.float32).to(ctx.bias_dtype)


deform_op.register_autograd(_deform_backward, setup_context=_deform_save)


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
