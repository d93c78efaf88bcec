"""Modulated deformable convolution and the flow-guided alignment that VRT builds on it (parallel warping).

Dimension key: N pictures, C channels, G deformable groups, P = 9 taps of a 3x3 kernel, H rows, W columns, k neighbours.
Sources: Zhu et al., Deformable ConvNets v2, CVPR 2019; Liang et al., VRT, 2022, section 3.4.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spikevrt.model.blocks import recompute
from spikevrt.model.flow import at_least_float32, full_precision, sample, sample_by_index

if TYPE_CHECKING:
    from jaxtyping import Float

TAPS = 9
SAMPLES_PER_CHUNK = 1 << 26  # sampled values held at a time, without gradients or when they are recomputed


def deform_conv(
    x: Float[Tensor, "N k*C H W"],
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
    n, channels, h, w = x.shape
    groups, out_channels = offset.shape[1], weight.shape[0]
    conv_groups = channels // weight.shape[1]
    in_chunks = not (torch.is_grad_enabled() or torch.compiler.is_exporting())
    step = max(1, SAMPLES_PER_CHUNK // (channels * TAPS * h * w)) if in_chunks else n
    kernel = weight.reshape(conv_groups, out_channels // conv_groups, -1)
    tap_rows = torch.arange(3, device=x.device, dtype=offset.dtype).repeat_interleave(3) - 1
    tap_columns = torch.arange(3, device=x.device, dtype=offset.dtype).repeat(3) - 1
    rows = torch.arange(h, device=x.device, dtype=offset.dtype)[:, None] + tap_rows[:, None, None]
    columns = torch.arange(w, device=x.device, dtype=offset.dtype) + tap_columns[:, None, None]
    results = []
    for start in range(0, n, step) if in_chunks else (0,):
        part = slice(start, start + step)
        at_rows = (rows + offset[part, :, :, 0]).flatten(0, 1).flatten(1, 2)
        at_columns = (columns + offset[part, :, :, 1]).flatten(0, 1).flatten(1, 2)
        grouped = x[part].reshape(-1, channels // groups, h, w)
        read = sample_by_index if plain else sample
        values = read(grouped, at_columns, at_rows).view(-1, groups, channels // groups, TAPS, h, w)
        values = (values * mask[part, :, None]).view(-1, conv_groups, weight.shape[1] * TAPS, h * w)
        results.append((kernel.to(values.dtype) @ values).view(-1, out_channels, h, w))
    return torch.cat(results) + bias.view(1, -1, 1, 1)


class DeformAlign(nn.Module):
    """Aligns the features of k neighbours to a frame; offsets are the flow plus a bounded learned residue."""

    def __init__(self, dim: int, pa_frames: int, groups: int, max_residue_px: float, checkpoint: bool) -> None:
        super().__init__()
        self.neighbours, self.groups, self.max_residue_px = pa_frames // 2, groups, max_residue_px
        self.checkpoint = checkpoint
        self.plain = False  # the golden comparison sets it: exact positions, slower
        bound = 1 / math.sqrt(dim * TAPS)
        self.weight = nn.Parameter(torch.empty(dim, dim, 3, 3).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(dim))
        layers: list[nn.Module] = [nn.Conv2d((1 + self.neighbours) * dim + pa_frames, dim, 3, padding=1)]
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
        x = torch.cat(neighbours, 1)
        if torch.compiler.is_exporting():  # sizes are symbols: no parts
            return self._sample(raw, x, *flows)
        n, channels, h, w = x.shape
        pictures = max(1, SAMPLES_PER_CHUNK // (channels * TAPS * h * w)) if self.checkpoint else n
        with full_precision(raw.device):
            parts = zip(*(t.split(pictures) for t in (raw, x, *flows)), strict=True)
            return torch.cat([recompute(self._sample, *part, when=self.checkpoint) for part in parts])

    def _sample(self, raw: Tensor, x: Tensor, *flows: Tensor) -> Tensor:
        n, _, h, w = raw.shape
        raw, x = at_least_float32(raw), at_least_float32(x)
        offset, mask = raw.split((2 * TAPS * self.groups, TAPS * self.groups), 1)
        offset = self.max_residue_px * offset.tanh()
        offset = offset.view(n, self.neighbours, -1, 2, h, w) + torch.stack(flows, 1).flip(2)[:, :, None]
        offset = offset.view(n, self.groups, TAPS, 2, h, w)
        mask = mask.sigmoid().view(n, self.groups, TAPS, h, w)
        return deform_conv(x, offset, mask, self.weight, self.bias, plain=self.plain)
