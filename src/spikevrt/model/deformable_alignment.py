"""Modulated deformable convolution and the flow-guided alignment that VRT builds on it (parallel warping).

Dimension key: N pictures, C channels, G deformable groups, P = 9 taps of a 3x3 kernel, H rows, W columns, k neighbours;
kC, CP and HW are products.
Sources: Zhu et al., Deformable ConvNets v2, CVPR 2019; Liang et al., VRT, 2022, section 3.4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from spikevrt.kernels import use_triton
from spikevrt.kernels.operators import deform_triton
from spikevrt.model.flow import at_least_float32, full_precision, sample, sample_by_index

if TYPE_CHECKING:
    from jaxtyping import Float

TAPS = 9
CPU_SAMPLES, GPU_SAMPLES = 1 << 22, 1 << 26  # sampled values held at a time


def deform_conv(
    x: Float[Tensor, "N kC H W"],
    offset: Float[Tensor, "N G P 2 H W"],
    mask: Float[Tensor, "N G P H W"],
    weight: Float[Tensor, "O C 3 3"],
    bias: Float[Tensor, " O"],
    *,
    plain: bool = False,
) -> Float[Tensor, "N O H W"]:
    """3x3 convolution (stride 1, padding 1) that reads each tap at its own offset (dy, dx), times its mask.

    Bilinear, zero outside the picture. Group g of the offsets serves input channels [g*kC/G, (g+1)*kC/G). The weight's
    C divides the input's channels into k convolution groups. `plain` reads with `sample_by_index`: slower, and at exact
    positions, which matters within 1e-6 pixels of an integer, where the derivative jumps.
    """
    values = read_taps(x, offset, mask, weight.shape[1], plain)
    return (kernels(weight, values) @ values).view(x.shape[0], -1, *x.shape[2:]) + bias.view(1, -1, 1, 1)


def read_taps(
    x: Float[Tensor, "N kC H W"],
    offset: Float[Tensor, "N G P 2 H W"],
    mask: Float[Tensor, "N G P H W"],
    conv_channels: int,
    plain: bool = False,
) -> Float[Tensor, "N k CP HW"]:
    """What the taps read, times the mask; C is `conv_channels`."""
    n, channels, h, w = x.shape
    groups = offset.shape[1]
    tap_rows = torch.arange(3, device=x.device, dtype=offset.dtype).repeat_interleave(3) - 1
    tap_columns = torch.arange(3, device=x.device, dtype=offset.dtype).repeat(3) - 1
    rows = torch.arange(h, device=x.device, dtype=offset.dtype)[:, None] + tap_rows[:, None, None]
    columns = torch.arange(w, device=x.device, dtype=offset.dtype) + tap_columns[:, None, None]
    at_rows = (rows + offset[:, :, :, 0]).flatten(0, 1).flatten(1, 2)
    at_columns = (columns + offset[:, :, :, 1]).flatten(0, 1).flatten(1, 2)
    grouped = x.reshape(-1, channels // groups, h, w)
    values = (sample_by_index if plain else sample)(grouped, at_columns, at_rows)
    values = values.view(n, groups, channels // groups, TAPS, h, w) * mask[:, :, None]
    return values.view(n, -1, conv_channels * TAPS, h * w)


def kernels(weight: Float[Tensor, "O C 3 3"], values: Float[Tensor, "N k CP HW"]) -> Float[Tensor, "k O/k CP"]:
    """The weight as a matrix for every convolution group, in the type of `values`."""
    return weight.reshape(values.shape[1], -1, values.shape[2]).to(values.dtype)


@dataclass(frozen=True)
class Offsets:
    """How the offset net's output becomes offsets and masks: k neighbours, G groups, a bound on what is learned."""

    neighbours: int
    groups: int
    max_residue_px: float

    def split(
        self, raw: Float[Tensor, "N 3*G*P H W"], flows: Float[Tensor, "N k 2 H W"]
    ) -> tuple[Float[Tensor, "N G P 2 H W"], Float[Tensor, "N G P H W"]]:
        """(offset, mask): the flow (x, y) plus the learned residue (dy, dx), and a weight from 0 to 1."""
        n, _, h, w = raw.shape
        residue, mask = at_least_float32(raw).split((2 * TAPS * self.groups, TAPS * self.groups), 1)
        offset = self.max_residue_px * residue.tanh()
        offset = offset.view(n, self.neighbours, -1, 2, h, w) + flows.flip(2)[:, :, None]
        return offset.view(n, self.groups, TAPS, 2, h, w), mask.sigmoid().view(n, self.groups, TAPS, h, w)


class AlignInPieces(torch.autograd.Function):
    """`deform_conv` at the offsets that `offsets` reads from `raw`, some pictures at a time: nine values for every one
    of `x` are sampled, and none is kept for the backward pass, which samples them again."""

    @staticmethod
    def forward(
        ctx: Any, raw: Tensor, flows: Tensor, x: Tensor, weight: Tensor, bias: Tensor, offsets: Offsets
    ) -> Tensor:
        ctx.save_for_backward(raw, flows, x, weight)
        ctx.offsets = offsets
        n, _, h, w = x.shape
        out = torch.empty(n, weight.shape[0], h, w, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        for part in _pieces(x):
            offset, mask = offsets.split(raw[part], flows[part])
            values = read_taps(at_least_float32(x[part]), offset, mask, weight.shape[1])
            torch.add((kernels(weight, values) @ values).view(out[part].shape), bias.view(-1, 1, 1), out=out[part])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        *given, weight = ctx.saved_tensors
        d_given = [torch.empty_like(t) for t in given]
        d_weight = torch.zeros_like(weight, dtype=d_out.dtype)
        for part in _pieces(given[2]):
            with torch.enable_grad():
                raw, flows, x = leaves = [t[part].detach().requires_grad_() for t in given]
                offset, mask = ctx.offsets.split(raw, flows)
                values = read_taps(at_least_float32(x), offset, mask, weight.shape[1])
            kernel = kernels(weight, values)
            d_piece = d_out[part].reshape(values.shape[0], kernel.shape[0], kernel.shape[1], -1)
            d_weight += (d_piece @ values.detach().transpose(2, 3)).sum(0).view(weight.shape)
            d_values = kernel.transpose(1, 2) @ d_piece
            for total, piece in zip(d_given, torch.autograd.grad(values, leaves, d_values), strict=True):
                total[part] = piece
        return *d_given, d_weight.to(weight.dtype), d_out.sum((0, 2, 3)), None


def _pieces(x: Float[Tensor, "N C H W"]) -> list[slice]:
    n, channels, h, w = x.shape
    step = max(1, (CPU_SAMPLES if x.device.type == "cpu" else GPU_SAMPLES) // (channels * TAPS * h * w))
    return [slice(start, start + step) for start in range(0, n, step)]


class DeformAlign(nn.Module):
    """Aligns the features of k neighbours to a frame; offsets are the flow plus a bounded learned residue."""

    plain = False  # sample at exact positions, all at once: slower, and what the golden comparison needs

    def __init__(self, dim: int, pa_frames: int, groups: int, max_residue_px: float) -> None:
        super().__init__()
        self.offsets = Offsets(pa_frames // 2, groups, max_residue_px)
        bound = 1 / math.sqrt(dim * TAPS)
        self.weight = nn.Parameter(torch.empty(dim, dim, 3, 3).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(dim))
        layers: list[nn.Module] = [nn.Conv2d((1 + pa_frames // 2) * dim + pa_frames, dim, 3, padding=1)]
        for _ in range(2):
            layers += [nn.LeakyReLU(0.1), nn.Conv2d(dim, dim, 3, padding=1)]
        last = nn.Conv2d(dim, 3 * TAPS * groups, 3, padding=1)
        nn.init.zeros_(last.weight)
        assert last.bias is not None
        nn.init.zeros_(last.bias)
        self.conv_offset = nn.Sequential(*layers, nn.LeakyReLU(0.1), last)

    def forward(
        self,
        neighbours: list[Float[Tensor, "N C H W"]],
        warped: list[Float[Tensor, "N C H W"]],
        current: Float[Tensor, "N C H W"],
        flows: list[Float[Tensor, "N 2 H W"]],
    ) -> Float[Tensor, "N C H W"]:
        """Neighbours' features as they are, warped by the flow, this frame's features, and the flows in pixels."""
        raw = self.conv_offset(torch.cat((*warped, current, *flows), 1))
        x, stacked = torch.cat(neighbours, 1), torch.stack(flows, 1)
        with full_precision(raw.device):
            kernel = not self.plain and use_triton(x, repeatable=not torch.is_grad_enabled())
            if self.plain or kernel or torch.compiler.is_compiling():
                offset, mask = self.offsets.split(raw, stacked)
                if kernel:
                    return deform_triton(x.to(raw.dtype), offset, mask, self.weight, self.bias)
                return deform_conv(at_least_float32(x), offset, mask, self.weight, self.bias, plain=self.plain)
            out: Tensor = AlignInPieces.apply(raw, stacked, x, self.weight, self.bias, self.offsets)
            return out
