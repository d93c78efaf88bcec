"""Sampling: the plain twin against grid_sample and against cases that can be computed by hand."""

from __future__ import annotations

import pytest
import torch

from spikevrt.model import flow
from spikevrt.model.flow import (
    LEVEL_REACH_PX,
    SpyNet,
    SpyNetLevel,
    clip_flows,
    flow_warp,
    sample,
    sample_by_index,
)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_sampling_by_index_equals_grid_sample_in_value_and_gradient(mode, padding):
    generator = torch.Generator().manual_seed(13)
    x = torch.randn(3, 5, 7, 11, generator=generator)
    columns = 15 * torch.rand(3, 13, 17, generator=generator) - 2  # up to two pixels outside
    rows = 11 * torch.rand(3, 13, 17, generator=generator) - 2
    results = []
    for read in (sample, sample_by_index):
        leaves = [t.clone().requires_grad_() for t in (x, columns, rows)]
        out = read(*leaves, mode, padding)
        out.square().sum().backward()
        # the nearest pixel does not depend on small changes of the position: no gradient, or one of zeros
        results.append([out, *(torch.zeros_like(t) if t.grad is None else t.grad for t in leaves)])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=0, atol=5e-5)  # positions rounded by 1e-6, gradients up to 30


def test_positions_on_and_beyond_a_border_get_no_gradient_as_in_grid_sample():
    x = torch.arange(20.0).view(1, 1, 4, 5)
    columns = torch.tensor([[[-1.0, 0.0, 1.5, 4.0, 6.0]]])
    gradients = []
    for read in (sample, sample_by_index):
        leaf = columns.clone().requires_grad_()
        read(x, leaf, torch.full_like(columns, 1.5), "bilinear", "border").sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[1], torch.tensor([[[0.0, 0.0, 1.0, 0.0, 0.0]]]), rtol=0, atol=0)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-6)


def test_a_position_that_is_no_number_is_read_without_an_error():
    x = torch.ones(1, 1, 3, 5)
    columns, rows = torch.tensor([[[float("nan"), 1.0]]]), torch.ones(1, 1, 2)
    assert sample_by_index(x, columns, rows, "nearest").flatten().tolist() == [0.0, 1.0]
    assert sample_by_index(x, columns, rows).isnan().flatten().tolist() == [True, False]


def test_the_plain_twin_is_for_gpus_in_the_deterministic_mode(monkeypatch):
    def unexpected(*arguments):
        raise AssertionError("sampled by index")

    monkeypatch.setattr(flow, "sample_by_index", unexpected)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    flow_warp(torch.rand(1, 1, 5, 7), torch.zeros(1, 2, 5, 7))  # a CPU's grid_sample always gives the same bits
    with pytest.raises(AssertionError, match="sampled by index"):
        flow.sample(_OnCuda(), torch.zeros(1, 2, 2), torch.zeros(1, 2, 2))


class _OnCuda:
    is_cuda = True


@pytest.mark.parametrize("max_pixels", [1, 64 * 7, 64 * 72, 3 * 64 * 72, 10**9])
def test_flows_computed_in_parts_are_those_computed_at_once(max_pixels):
    """Bands of one row to all pictures at a time; two frames away they are chained after."""
    torch.manual_seed(17)
    spynet = SpyNet((5, 7, 5, 3))
    frames = torch.rand(1, 4, 3, 64, 72)
    with torch.no_grad():
        whole, parts = clip_flows(spynet, frames, 4), clip_flows(spynet, frames, 4, max_pixels)
    assert whole.backward[0][0].abs().max() > 0.01
    for at_once, in_parts in zip(whole.backward + whole.forward, parts.backward + parts.forward, strict=True):
        for a, b in zip(at_once, in_parts, strict=True):
            torch.testing.assert_close(b, a, rtol=0, atol=1e-5)  # other convolution kernels, flows of some pixels


def test_a_level_sees_as_far_as_its_bands_reach():
    level = SpyNetLevel((2, 2, 2, 2))
    for layer in level.basic_module[::2]:
        torch.nn.init.ones_(layer.weight)
    x = torch.zeros(1, 8, 40, 1)
    x[0, 0, 20] = 1.0
    with torch.no_grad():
        moved = (level(x) - level(torch.zeros_like(x)))[0, 0, :, 0]
    assert moved.nonzero().flatten().tolist() == list(range(20 - LEVEL_REACH_PX, 20 + LEVEL_REACH_PX + 1))
