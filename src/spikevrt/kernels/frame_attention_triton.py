"""The Triton kernel of attention over time in `operators.py`.

Imported inside functions only, because Triton reads TRITON_INTERPRET when it is.

One program takes R // T pixels with all their frames as the rows of its matrices. Attention is one product over all
rows with every pair of different pixels masked: at R 64 and T 12 that is 13 % more products than the whole needs, and
every product has a size that the matrix units take. Channels, heads and hidden channels are padded with zeros on
the chip.

Dimension key: B samples, T frames, P pixels, C channels, G heads of E channels, F hidden channels; R rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from spikevrt.kernels import dot_precision, interpreted

if TYPE_CHECKING:
    from spikevrt.kernels.operators import TemporalWeights

HALF_ROWS, FULL_ROWS, HIDDEN_BLOCK = 64, 32, 64  # rows of bf16 or fp16, and of float32, which fill the chip's memory


@triton.jit
def layer_norm(x, weight, bias, columns, C):
    """Rows of x are zero beyond C, and so is the result."""
    mean = tl.sum(x, 1) / C
    centred = tl.where(columns[None, :] < C, x - mean[:, None], 0.0)
    inverse = tl.rsqrt(tl.sum(centred * centred, 1) / C + 1e-5)
    scale = tl.load(weight + columns, mask=columns < C, other=0.0)
    shift = tl.load(bias + columns, mask=columns < C, other=0.0)
    return centred * inverse[:, None] * scale[None, :] + shift[None, :]


@triton.jit
def project(x, weight, bias, ins, outs, num_ins, num_outs, DOT: tl.constexpr, PRECISION: tl.constexpr):
    """x W^T + b for the rows `outs` of W, (num_outs, num_ins) row by row; zero beyond."""
    live = (ins[:, None] < num_ins) & (outs[None, :] < num_outs)
    w = tl.load(weight + outs[None, :] * num_ins + ins[:, None], mask=live, other=0.0)
    b = tl.load(bias + outs, mask=outs < num_outs, other=0.0).to(tl.float32)
    return tl.dot(x, w.to(DOT), input_precision=PRECISION) + b[None, :]


@triton.jit
def temporal_kernel(
    x, memory, out, time_bias,
    norm_x, norm_x_bias, norm_memory, norm_memory_bias, q, q_bias, kv, kv_bias, proj, proj_bias,
    norm_mlp, norm_mlp_bias, up, up_bias, down, down_bias,
    P, T, scale,
    x_b, x_t, x_p, memory_b, memory_t, memory_p,
    C: tl.constexpr, G: tl.constexpr, E: tl.constexpr, F: tl.constexpr,
    CP: tl.constexpr, EP: tl.constexpr, FB: tl.constexpr, R: tl.constexpr,
    SELF: tl.constexpr, BIAS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    rows = tl.arange(0, R)
    columns = tl.arange(0, CP)
    per_program = R // T
    local = rows // T
    frame = rows % T
    pixel = tl.program_id(0) * per_program + local
    sample = tl.program_id(1).to(tl.int64)
    live = (local < per_program) & (pixel < P)
    both = live[:, None] & (columns[None, :] < C)
    pixel64 = pixel.to(tl.int64)
    at_x = x + (sample * x_b + frame.to(tl.int64) * x_t + pixel64 * x_p)[:, None] + columns[None, :]

    own = tl.load(at_x, mask=both, other=0.0).to(tl.float32)
    asks = layer_norm(own, norm_x, norm_x_bias, columns, C).to(DOT)
    if SELF:
        answers = asks
    else:
        token = sample * memory_b + frame.to(tl.int64) * memory_t + pixel64 * memory_p
        at_memory = memory + token[:, None] + columns[None, :]
        other = tl.load(at_memory, mask=both, other=0.0).to(tl.float32)
        answers = layer_norm(other, norm_memory, norm_memory_bias, columns, C).to(DOT)

    visible = (local[:, None] == local[None, :]) & live[None, :]
    visible = visible | (rows[:, None] == rows[None, :])  # idle rows see themselves, so that no row is empty
    within = tl.arange(0, EP)
    y = tl.zeros((R, CP), tl.float32)
    for g in range(G):
        channels = tl.where(within < E, g * E + within, C)
        queries = project(asks, q, q_bias, columns, channels, C, C, DOT, PRECISION).to(DOT)
        keys = project(answers, kv, kv_bias, columns, channels, C, C, DOT, PRECISION).to(DOT)
        values = project(answers, kv + C * C, kv_bias + C, columns, channels, C, C, DOT, PRECISION).to(DOT)
        logits = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale
        if BIAS:
            logits += tl.load(time_bias + g * T * T + frame[:, None] * T + frame[None, :])
        logits = tl.where(visible, logits, float("-inf"))
        weights = tl.exp(logits - tl.max(logits, 1)[:, None])
        weights = weights / tl.sum(weights, 1)[:, None]
        attended = tl.dot(weights.to(DOT), values, input_precision=PRECISION).to(DOT)
        w_proj = tl.load(
            proj + columns[None, :] * C + channels[:, None],
            mask=(channels[:, None] < C) & (columns[None, :] < C),
            other=0.0,
        )
        y += tl.dot(attended, w_proj.to(DOT), input_precision=PRECISION)

    y += tl.load(proj_bias + columns, mask=columns < C, other=0.0).to(tl.float32)[None, :]
    y += tl.load(at_x, mask=both, other=0.0).to(tl.float32)  # again, rather than kept in registers all the way
    normed = layer_norm(y, norm_mlp, norm_mlp_bias, columns, C).to(DOT)
    for first in range(0, F, FB):
        hidden = first + tl.arange(0, FB)
        u = project(normed, up, up_bias, columns, hidden, C, F, DOT, PRECISION)
        u = 0.5 * u * (1.0 + tl.erf(u * 0.7071067811865476))
        w_down = tl.load(
            down + columns[None, :] * F + hidden[:, None],
            mask=(hidden[:, None] < F) & (columns[None, :] < C),
            other=0.0,
        )
        y += tl.dot(u.to(DOT), w_down.to(DOT), input_precision=PRECISION)
    y += tl.load(down_bias + columns, mask=columns < C, other=0.0).to(tl.float32)[None, :]
    at_out = out + ((sample * T + frame) * P + pixel64)[:, None] * C + columns[None, :]
    tl.store(at_out, y.to(out.dtype.element_ty), mask=both)


def forward(
    x: Tensor, memory: Tensor | None, time_bias: Tensor | None, weights: TemporalWeights, num_heads: int
) -> Tensor:
    """Run the kernel. Features are read by their strides; only channels must lie next to each other."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    self_attention = memory is None
    source = x if memory is None else memory if memory.stride(-1) == 1 else memory.contiguous()
    samples, frames, pixels, channels = x.shape
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    head = channels // num_heads
    # the interpreter computes with NumPy, which has no bf16: there products are of float32
    half = weights.q.dtype != torch.float32 and not interpreted()
    rows = HALF_ROWS if weights.q.dtype != torch.float32 else FULL_ROWS
    dot = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}[weights.q.dtype] if half else tl.float32
    grid = (triton.cdiv(pixels, rows // frames), samples)
    temporal_kernel[grid](
        x, source, out, x if time_bias is None else time_bias.contiguous(), *(w.contiguous() for w in weights),
        pixels, frames, head**-0.5, *x.stride()[:3], *source.stride()[:3],
        C=channels, G=num_heads, E=head, F=weights.up.shape[0],
        CP=max(16, triton.next_power_of_2(channels)), EP=max(16, triton.next_power_of_2(head)), FB=HIDDEN_BLOCK, R=rows,
        SELF=self_attention, BIAS=time_bias is not None, DOT=dot, PRECISION=dot_precision(),
        num_warps=8, num_stages=2,
    )  # fmt: skip
    return out
