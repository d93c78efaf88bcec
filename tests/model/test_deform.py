"""Deformable convolution and warping against cases that can be computed by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from spikevrt.model import deformable_alignment
from spikevrt.model.deformable_alignment import DeformAlign, deform_conv
from spikevrt.model.flow import SpyNet, flow_warp


def case(conv_groups=1, groups=2):
    generator = torch.Generator().manual_seed(13)
    x = torch.randn(3, 4 * conv_groups, 7, 11, generator=generator)
    weight = torch.randn(4, 4, 3, 3, generator=generator)
    bias = torch.randn(4, generator=generator)
    offset = 3 * torch.randn(3, groups, 9, 2, 7, 11, generator=generator)
    mask = torch.rand(3, groups, 9, 7, 11, generator=generator)
    return x, offset, mask, weight, bias


def naive(x, offset, mask, weight, bias):
    """Loops over everything; each corner outside the picture counts as zero."""
    n, channels, h, w = x.shape
    groups, conv_groups = offset.shape[1], channels // weight.shape[1]
    out = bias.view(1, -1, 1, 1).repeat(n, 1, h, w).double()
    for i, c, tap, row, column in torch.cartesian_prod(*map(torch.arange, (n, channels, 9, h, w))).tolist():
        g = c * groups // channels
        dy, dx = offset[i, g, tap, :, row, column].tolist()
        y, z = row - 1 + tap // 3 + dy, column - 1 + tap % 3 + dx
        value = 0.0
        for yy in (int(y // 1), int(y // 1) + 1):
            for zz in (int(z // 1), int(z // 1) + 1):
                if 0 <= yy < h and 0 <= zz < w:
                    value += x[i, c, yy, zz].item() * (1 - abs(y - yy)) * (1 - abs(z - zz))
        first = c // weight.shape[1] * (weight.shape[0] // conv_groups)
        outputs = slice(first, first + weight.shape[0] // conv_groups)
        kernel = weight[outputs, c % weight.shape[1], tap // 3, tap % 3].double()
        out[i, outputs, row, column] += kernel * value * mask[i, g, tap, row, column].item()
    return out


@pytest.mark.parametrize(("conv_groups", "groups"), [(1, 1), (1, 2), (2, 2)])
def test_deformable_convolution_equals_loops_over_every_tap(conv_groups, groups):
    x, offset, mask, weight, bias = case(conv_groups, groups)
    small = x[:1], offset[:1], mask[:1], weight, bias
    torch.testing.assert_close(deform_conv(*small).double(), naive(*small), rtol=0, atol=1e-4)


def test_fast_and_plain_sampling_agree_in_value_and_gradient():
    results = []
    for plain in (False, True):
        leaves = [t.requires_grad_() for t in case(conv_groups=2, groups=2)]
        out = deform_conv(*leaves, plain=plain)
        out.square().sum().backward()
        results.append([out, *(t.grad for t in leaves)])
    for fast, exact in zip(*results, strict=True):
        torch.testing.assert_close(fast, exact, rtol=1e-4, atol=1e-3)  # positions rounded by 1e-6 of 11 pixels


def test_zero_offsets_and_full_masks_are_an_ordinary_convolution():
    x, offset, mask, weight, bias = case()
    out = deform_conv(x, torch.zeros_like(offset), torch.ones_like(mask), weight, bias)
    torch.testing.assert_close(out, F.conv2d(x, weight, bias, padding=1), rtol=0, atol=1e-5)


def align(pa_frames, plain):
    torch.manual_seed(4)
    module = DeformAlign(8, pa_frames, 2 * (pa_frames // 2), 10.0)
    torch.nn.init.normal_(module.conv_offset[-1].weight, std=0.1)
    module.plain = plain
    return module


@pytest.mark.parametrize("samples", [1, 1 << 22])
@pytest.mark.parametrize("pa_frames", [2, 4])
def test_alignment_in_pieces_equals_its_plain_twin_in_value_and_gradient(monkeypatch, pa_frames, samples):
    monkeypatch.setattr(deformable_alignment, "CPU_SAMPLES", samples)
    results = []
    for plain in (False, True):
        generator = torch.Generator().manual_seed(3)
        features = [torch.randn(3, 8, 7, 11, generator=generator).requires_grad_() for _ in range(pa_frames + 1)]
        flows = [torch.randn(3, 2, 7, 11, generator=generator).requires_grad_() for _ in range(pa_frames // 2)]
        neighbours, warped, current = features[: pa_frames // 2], features[pa_frames // 2 : pa_frames], features[-1]
        module = align(pa_frames, plain)
        out = module(neighbours, warped, current, flows)
        out.square().sum().backward()
        results.append([out, *(t.grad for t in (*features, *flows, *module.parameters()))])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-3)  # positions rounded by 1e-6 of 11 pixels


def test_zero_flow_warps_a_picture_to_itself():
    x = torch.rand(2, 3, 7, 11)
    torch.testing.assert_close(flow_warp(x, torch.zeros(2, 2, 7, 11)), x, rtol=0, atol=1e-6)


def test_a_flow_of_one_column_reads_from_the_right_neighbour_and_zero_beyond():
    x = torch.rand(1, 1, 5, 7)
    flow = torch.zeros(1, 2, 5, 7)
    flow[:, 0] = 1
    warped = flow_warp(x, flow)
    torch.testing.assert_close(warped[..., :-1], x[..., 1:], rtol=0, atol=1e-6)
    assert warped[..., -1].abs().max() < 1e-5


def test_pictures_of_32_pixels_are_too_small_for_flow():
    with pytest.raises(ValueError, match="optical flow needs more than 32"):
        SpyNet((4, 4, 4, 4))(torch.rand(1, 3, 32, 64), torch.rand(1, 3, 32, 64))
