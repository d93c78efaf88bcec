"""The Triton kernels of the deformable convolution in `operators.py`.

Imported inside functions only, because Triton reads TRITON_INTERPRET when it is.

A block is (pixels, deformable groups, channels of a group): positions are worked out once a group, corners are read
with channels next to each other, and the block, its last two axes joined, is the left matrix of a product with the
weights. Groups and channels are padded on the chip: six channels of a group take eight places.

Dimension key: M = N*H*W pixels, G deformable groups of D channels, k convolution groups of C input and Q output
channels; MB, GB, DB, QB sizes of blocks.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from spikevrt.kernels import dot_precision, interpreted

PIXELS, CHANNELS, MOST_OUTPUTS, SPLITS = 64, 32, 128, 64


@triton.jit
def place(offset, mask, pixel, tap, group, live, H, W, o_n, o_g, o_t, o_d, o_p, m_n, m_g, m_t, m_p):
    """Where (pixel, group) reads: picture, row, column, its mask, and both fractions of a pixel."""
    picture = pixel // (H * W)
    local = pixel % (H * W)
    group = group.to(tl.int64)
    at = offset + (picture * o_n + local * o_p)[:, None] + group[None, :] * o_g + tap * o_t
    row = (local // W).to(tl.float32) + (tap // 3 - 1)
    column = (local % W).to(tl.float32) + (tap % 3 - 1)
    y = row[:, None] + tl.load(at, mask=live, other=0.0).to(tl.float32)
    z = column[:, None] + tl.load(at + o_d, mask=live, other=0.0).to(tl.float32)
    y = tl.minimum(tl.maximum(y, -2.0), H + 1.0)  # further out all corners are outside as well
    z = tl.minimum(tl.maximum(z, -2.0), W + 1.0)
    at_mask = mask + (picture * m_n + local * m_p)[:, None] + group[None, :] * m_g + tap * m_t
    m = tl.load(at_mask, mask=live, other=0.0).to(tl.float32)
    return picture, tl.floor(y).to(tl.int32), tl.floor(z).to(tl.int32), m, y - tl.floor(y), z - tl.floor(z)


@triton.jit
def corner(picture, row, column, live, channel, live_channel, H, W, num_channels):
    """Places of (pixel, group, channel) in a picture with channels fastest, and which of them exist."""
    inside = live & (row >= 0) & (row < H) & (column >= 0) & (column < W)
    at = (picture[:, None] * H + row) * W + column
    return at[:, :, None] * num_channels + channel[None, :, :], inside[:, :, None] & live_channel[None, :, :]


@triton.jit
def channels_of(group, first, conv_group, G, D, C, GB: tl.constexpr, DB: tl.constexpr):
    """Channels of a block (group, channel): in the picture, in the convolution group, and which belong to both."""
    inner = first + tl.arange(0, DB)
    channel = group[:, None] * D + inner[None, :]
    own = channel - conv_group * C
    return channel, own, (inner[None, :] < D) & (group[:, None] < G) & (own >= 0) & (own < C)


@triton.jit
def blend(x, picture, row, column, fy, fz, live, channel, live_channel, H, W, num_channels):
    """The four corners, float32."""
    at, there = corner(picture, row, column, live, channel, live_channel, H, W, num_channels)
    v00 = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    at, there = corner(picture, row, column + 1, live, channel, live_channel, H, W, num_channels)
    v01 = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    at, there = corner(picture, row + 1, column, live, channel, live_channel, H, W, num_channels)
    v10 = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    at, there = corner(picture, row + 1, column + 1, live, channel, live_channel, H, W, num_channels)
    v11 = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    top = v00 + fz[:, :, None] * (v01 - v00)
    bottom = v10 + fz[:, :, None] * (v11 - v10)
    return top + fy[:, :, None] * (bottom - top), bottom - top, v00, v01, v10, v11


@triton.jit
def forward_kernel(
    x, offset, mask, weight, bias, out,
    M, H, W, o_n, o_g, o_t, o_d, o_p, m_n, m_g, m_t, m_p,
    G: tl.constexpr, D: tl.constexpr, C: tl.constexpr, Q: tl.constexpr, K: tl.constexpr,
    MB: tl.constexpr, GB: tl.constexpr, DB: tl.constexpr, QB: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0).to(tl.int64) * MB + tl.arange(0, MB)
    conv_group = tl.program_id(1)
    output = tl.program_id(2) * QB + tl.arange(0, QB)
    column_of_weight = conv_group * Q + output
    total = tl.zeros((MB, QB), tl.float32)
    first_group = conv_group * C // D
    last_group = (conv_group * C + C - 1) // D
    for block in range(first_group, last_group + 1, GB):
        group = block + tl.arange(0, GB)
        live = (pixel < M)[:, None] & (group < G)[None, :]
        for first in range(0, D, DB):
            channel, own, live_channel = channels_of(group, first, conv_group, G, D, C, GB, DB)
            row_of_weight = tl.reshape(own, (GB * DB,))
            live_own = tl.reshape(live_channel.to(tl.int32), (GB * DB,)) > 0
            for tap in range(9):
                picture, row, column, m, fy, fz = place(
                    offset, mask, pixel, tap, group, live, H, W, o_n, o_g, o_t, o_d, o_p, m_n, m_g, m_t, m_p
                )
                value, _, _, _, _, _ = blend(x, picture, row, column, fy, fz, live, channel, live_channel, H, W, K * C)
                value = tl.reshape(value * m[:, :, None], (MB, GB * DB)).to(DOT)
                at_weight = weight + (tap * C + row_of_weight)[:, None] * (K * Q) + column_of_weight[None, :]
                w = tl.load(at_weight, mask=live_own[:, None] & (output < Q)[None, :], other=0.0)
                total += tl.dot(value, w.to(DOT), input_precision=PRECISION)
    total += tl.load(bias + column_of_weight, mask=output < Q, other=0.0).to(tl.float32)[None, :]
    at_out = out + pixel[:, None] * (K * Q) + column_of_weight[None, :]
    tl.store(at_out, total.to(out.dtype.element_ty), mask=(pixel < M)[:, None] & (output < Q)[None, :])


@triton.jit
def backward_input_kernel(
    grad, x, offset, mask, weight, grad_x, grad_offset, grad_mask,
    M, H, W, o_n, o_g, o_t, o_d, o_p, m_n, m_g, m_t, m_p,
    G: tl.constexpr, D: tl.constexpr, C: tl.constexpr, Q: tl.constexpr, K: tl.constexpr,
    MB: tl.constexpr, GB: tl.constexpr, DB: tl.constexpr, QB: tl.constexpr,
    SHARED: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0).to(tl.int64) * MB + tl.arange(0, MB)
    conv_group = tl.program_id(1)
    output = tl.arange(0, QB)
    column_of_weight = conv_group * Q + output
    live_output = (output < Q)[None, :]
    at_grad = grad + pixel[:, None] * (K * Q) + column_of_weight[None, :]
    g_out = tl.load(at_grad, mask=(pixel < M)[:, None] & live_output, other=0.0).to(DOT)
    first_group = conv_group * C // D
    last_group = (conv_group * C + C - 1) // D
    for block in range(first_group, last_group + 1, GB):
        group = block + tl.arange(0, GB)
        live = (pixel < M)[:, None] & (group <= last_group)[None, :]
        for tap in range(9):
            picture, row, column, m, fy, fz = place(
                offset, mask, pixel, tap, group, live, H, W, o_n, o_g, o_t, o_d, o_p, m_n, m_g, m_t, m_p
            )
            of_y = tl.zeros((MB, GB), tl.float32)
            of_z = tl.zeros((MB, GB), tl.float32)
            of_m = tl.zeros((MB, GB), tl.float32)
            for first in range(0, D, DB):
                channel, own, live_channel = channels_of(group, first, conv_group, G, D, C, GB, DB)
                row_of_weight = tl.reshape(own, (GB * DB,))
                live_own = tl.reshape(live_channel.to(tl.int32), (GB * DB,)) > 0
                at_weight = weight + (tap * C + row_of_weight)[:, None] * (K * Q) + column_of_weight[None, :]
                w = tl.load(at_weight, mask=live_own[:, None] & live_output, other=0.0).to(DOT)
                product = tl.dot(g_out, tl.trans(w), input_precision=PRECISION)
                g = tl.reshape(product, (MB, GB, DB))
                value, down, v00, v01, v10, v11 = blend(
                    x, picture, row, column, fy, fz, live, channel, live_channel, H, W, K * C
                )
                right = (v01 - v00) + fy[:, :, None] * ((v11 - v10) - (v01 - v00))
                of_m += tl.sum(g * value, 2)
                of_y += tl.sum(g * down, 2)
                of_z += tl.sum(g * right, 2)
                g = g * m[:, :, None]
                at, there = corner(picture, row, column, live, channel, live_channel, H, W, K * C)
                tl.atomic_add(grad_x + at, g * ((1 - fy) * (1 - fz))[:, :, None], mask=there, sem="relaxed")
                at, there = corner(picture, row, column + 1, live, channel, live_channel, H, W, K * C)
                tl.atomic_add(grad_x + at, g * ((1 - fy) * fz)[:, :, None], mask=there, sem="relaxed")
                at, there = corner(picture, row + 1, column, live, channel, live_channel, H, W, K * C)
                tl.atomic_add(grad_x + at, g * (fy * (1 - fz))[:, :, None], mask=there, sem="relaxed")
                at, there = corner(picture, row + 1, column + 1, live, channel, live_channel, H, W, K * C)
                tl.atomic_add(grad_x + at, g * (fy * fz)[:, :, None], mask=there, sem="relaxed")
            pixels = (pixel % (H * W))[:, None]
            plane = ((picture[:, None] * G + group[None, :]) * 9 + tap) * (H * W)
            if SHARED:  # a deformable group that two convolution groups read
                tl.atomic_add(grad_mask + plane + pixels, of_m, mask=live, sem="relaxed")
                tl.atomic_add(grad_offset + 2 * plane + pixels, of_y * m, mask=live, sem="relaxed")
                tl.atomic_add(grad_offset + 2 * plane + H * W + pixels, of_z * m, mask=live, sem="relaxed")
            else:
                tl.store(grad_mask + plane + pixels, of_m, mask=live)
                tl.store(grad_offset + 2 * plane + pixels, of_y * m, mask=live)
                tl.store(grad_offset + 2 * plane + H * W + pixels, of_z * m, mask=live)


@triton.jit
def backward_weight_kernel(
    grad, x, offset, mask, grad_weight,
    M, H, W, o_n, o_g, o_t, o_d, o_p, m_n, m_g, m_t, m_p, splits,
    G: tl.constexpr, D: tl.constexpr, C: tl.constexpr, Q: tl.constexpr, K: tl.constexpr,
    MB: tl.constexpr, GB: tl.constexpr, DB: tl.constexpr, QB: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    blocks_of_channels = (D + DB - 1) // DB
    tap = tl.program_id(0) % 9
    first = tl.program_id(0) // 9 % blocks_of_channels * DB
    block = tl.program_id(0) // 9 // blocks_of_channels
    blocks_of_outputs = (Q + QB - 1) // QB
    conv_group = tl.program_id(1) // blocks_of_outputs
    output = tl.program_id(1) % blocks_of_outputs * QB + tl.arange(0, QB)
    column_of_weight = conv_group * Q + output
    group = conv_group * C // D + block * GB + tl.arange(0, GB)
    channel, own, live_channel = channels_of(group, first, conv_group, G, D, C, GB, DB)
    total = tl.zeros((GB * DB, QB), tl.float32)
    for start in range(tl.program_id(2), (M + MB - 1) // MB, splits):
        pixel = tl.full((), start, tl.int64) * MB + tl.arange(0, MB)
        live = (pixel < M)[:, None] & (group < G)[None, :]
        picture, row, column, m, fy, fz = place(
            offset, mask, pixel, tap, group, live, H, W, o_n, o_g, o_t, o_d, o_p, m_n, m_g, m_t, m_p
        )
        value, _, _, _, _, _ = blend(x, picture, row, column, fy, fz, live, channel, live_channel, H, W, K * C)
        value = tl.reshape(value * m[:, :, None], (MB, GB * DB)).to(DOT)
        at_grad = grad + pixel[:, None] * (K * Q) + column_of_weight[None, :]
        g_out = tl.load(at_grad, mask=(pixel < M)[:, None] & (output < Q)[None, :], other=0.0)
        total += tl.dot(tl.trans(value), g_out.to(DOT), input_precision=PRECISION)
    row_of_weight = tl.reshape(own, (GB * DB,))
    live_own = tl.reshape(live_channel.to(tl.int32), (GB * DB,)) > 0
    at_weight = grad_weight + (tap * C + row_of_weight)[:, None] * (K * Q) + column_of_weight[None, :]
    tl.atomic_add(at_weight, total, mask=live_own[:, None] & (output < Q)[None, :], sem="relaxed")


class Sizes:
    """What the three kernels are told alike: tensors as they read them, sizes, strides, blocks."""

    def __init__(self, x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> None:
        n, channels, self.height, self.width = x.shape
        self.pixels, self.groups = n * self.height * self.width, offset.shape[1]
        self.per_group = channels // self.groups
        self.inputs = weight.shape[1]
        self.conv_groups = channels // self.inputs
        self.outputs = weight.shape[0] // self.conv_groups
        self.x = x.permute(0, 2, 3, 1).contiguous()
        self.offset, self.mask = rows_joined(offset), rows_joined(mask)
        # (tap, input, output): output channels of all convolution groups next to each other
        self.weight = weight.permute(2, 3, 1, 0).to(x.dtype).contiguous()
        self.channel_block = min(CHANNELS, triton.next_power_of_2(self.per_group))
        self.group_block = CHANNELS // self.channel_block
        self.output_block = max(16, triton.next_power_of_2(self.outputs))
        # groups that a convolution group touches, at most; the last block may reach beyond them
        touched = max(
            ((j + 1) * self.inputs - 1) // self.per_group - j * self.inputs // self.per_group + 1
            for j in range(self.conv_groups)
        )
        self.blocks = triton.cdiv(touched, self.group_block) * triton.cdiv(self.per_group, self.channel_block)

    def numbers(self) -> tuple[int, ...]:
        o, m = self.offset.stride(), self.mask.stride()
        return (self.pixels, self.height, self.width, *o[:4], o[5], *m[:3], m[4])

    def constants(self, output_block: int) -> dict[str, Any]:
        half = self.x.dtype != torch.float32 and not interpreted()  # the interpreter has no products of bf16
        return {
            "G": self.groups,
            "D": self.per_group,
            "C": self.inputs,
            "Q": self.outputs,
            "K": self.conv_groups,
            "MB": PIXELS,
            "GB": self.group_block,
            "DB": self.channel_block,
            "QB": output_block,
            "DOT": {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}[self.x.dtype] if half else tl.float32,
            "PRECISION": dot_precision(),
            "num_warps": 8,
            "num_stages": 2,
        }


def rows_joined(t: Tensor) -> Tensor:
    """`t` with rows that follow each other, so that one stride leads from pixel to pixel."""
    return t if t.stride(-2) == t.shape[-1] * t.stride(-1) else t.contiguous()


def forward(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    s = Sizes(x, offset, mask, weight)
    block = min(s.output_block, MOST_OUTPUTS)
    out = x.new_empty(x.shape[0], s.height, s.width, weight.shape[0])
    grid = (triton.cdiv(s.pixels, PIXELS), s.conv_groups, triton.cdiv(s.outputs, block))
    forward_kernel[grid](s.x, s.offset, s.mask, s.weight, bias, out, *s.numbers(), **s.constants(block))
    return out.permute(0, 3, 1, 2)


def backward_input(
    grad: Tensor, x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    s = Sizes(x, offset, mask, weight)
    grad = grad.permute(0, 2, 3, 1).contiguous()
    shared = s.groups % s.conv_groups != 0
    grad_x = torch.zeros(s.x.shape, dtype=torch.float32, device=x.device)
    make = torch.zeros if shared else torch.empty
    grad_offset = make(offset.shape, dtype=torch.float32, device=x.device)
    grad_mask = make(mask.shape, dtype=torch.float32, device=x.device)
    backward_input_kernel[(triton.cdiv(s.pixels, PIXELS), s.conv_groups)](
        grad, s.x, s.offset, s.mask, s.weight, grad_x, grad_offset, grad_mask,
        *s.numbers(), SHARED=shared, **s.constants(s.output_block),
    )  # fmt: skip
    return grad_x.permute(0, 3, 1, 2).to(x.dtype), grad_offset.to(offset.dtype), grad_mask.to(mask.dtype)


def backward_weight(grad: Tensor, x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    s = Sizes(x, offset, mask, weight)
    grad = grad.permute(0, 2, 3, 1).contiguous()
    block = min(s.output_block, MOST_OUTPUTS)
    total = torch.zeros(s.weight.shape, dtype=torch.float32, device=x.device)
    splits = min(SPLITS, triton.cdiv(s.pixels, PIXELS))
    grid = (9 * s.blocks, s.conv_groups * triton.cdiv(s.outputs, block), splits)
    backward_weight_kernel[grid](grad, s.x, s.offset, s.mask, total, *s.numbers(), splits, **s.constants(block))
    return total.permute(3, 2, 0, 1).to(weight.dtype).contiguous()
