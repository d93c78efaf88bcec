"""Every fast path of the network against its plain twin: the same values, the same gradients."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from spikevrt.config import ModelConfig, SpikeConfig, VrtConfig
from spikevrt.model import layers, spike_vrt
from spikevrt.model.layers import Geglu, Linear
from spikevrt.model.spike_vrt import SpikeVRT, attend_over_time, over_pixels


def as_published(network):
    """Switch every layer that has a plain twin to it, in place: the network computes as the published design is
    written."""
    for module in network.modules():
        if hasattr(module, "plain"):
            setattr(module, "plain", True)  # noqa: B010
    return network


def both_ways(make, *inputs, tolerance=1e-5):
    """Values and gradients of a module and of its plain twin, compared."""
    results = []
    for plain in (False, True):
        module = make()
        if plain:
            as_published(module)
        leaves = [t.clone().requires_grad_() for t in inputs]
        out = module(*leaves)
        out.square().sum().backward()
        results.append([out, *(t.grad for t in leaves), *(p.grad for p in module.parameters())])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=tolerance, atol=tolerance * plain.abs().max().item())


def seeded(module):
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_a_linear_layer_as_a_convolution():
    both_ways(lambda: seeded(Linear(7, 5)), noise(2, 3, 7))
    both_ways(lambda: seeded(Linear(7, 5)), noise(7, 3).t())


@pytest.mark.parametrize("tokens_per_piece", [1, 5, 8192])
def test_the_feed_forward_layer_in_pieces(monkeypatch, tokens_per_piece):
    monkeypatch.setattr(layers, "TOKENS_PER_PIECE", tokens_per_piece)
    both_ways(lambda: seeded(Geglu(6, 10, 4)), noise(2, 3, 2, 6))


class NormAndGeglu(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.mlp = torch.nn.LayerNorm(6), Geglu(6, 12, 6)

    def forward(self, x):
        return self.mlp(x, self.norm)


def test_the_feed_forward_layer_with_its_norm(monkeypatch):
    monkeypatch.setattr(layers, "TOKENS_PER_PIECE", 5)
    both_ways(lambda: seeded(NormAndGeglu()), noise(2, 3, 2, 6), tolerance=1e-4)  # sums of 12 divided by their spread


def test_attention_over_time_is_softmax_over_the_frames_of_a_pixel():
    q, k, v, bias = noise(3, 2, 12), noise(7, 2, 12), 2 * noise(7, 2, 12), noise(3, 3, 7)
    out = attend_over_time(q, k, v, 3, bias)
    head = slice(4, 8)  # the second of three
    weights = (q[:, 1, head] @ k[:, 1, head].t() / 2 + bias[1]).softmax(-1)
    torch.testing.assert_close(out[:, 1, head], weights @ v[:, 1, head], rtol=0, atol=1e-5)


def test_pieces_of_pixels_are_as_large_as_a_budget_of_bytes_allows(monkeypatch):
    sizes = []

    def look(x):
        sizes.append(x.shape[1])
        return x

    x = noise(1, 5, 8, 3, 4)
    monkeypatch.setattr(spike_vrt, "BYTES_PER_PIECE", 3 * (5 * 3 * 4 * 4))  # three rows of 5 frames
    assert torch.equal(over_pixels(look, x, max_tokens=1 << 30), x)
    assert sizes == [9, 9, 6]


def small(pa_frames, depths=(2,) * 9):
    vrt = VrtConfig(
        window=(2, 4, 4),
        depths=depths,
        dims=(8,) * 7 + (12,) * (len(depths) - 7),
        num_heads=(2,) * len(depths),
        pa_frames=pa_frames,
        deform_groups=4,
        flow_widths=(4, 4, 4, 4),
        drop_path=0.0,
    )
    spikes = SpikeConfig(num_bins=3, dims=(8,) * 4, attention_heads=2, fusion_heads=2)
    config = dataclasses.replace(ModelConfig(), vrt=vrt, spikes=spikes)
    torch.manual_seed(7)
    network = SpikeVRT(config)
    for parameter in network.parameters():
        if not parameter.any():  # what starts at zero shall count, too
            torch.nn.init.normal_(parameter, std=0.05)
    return network


@pytest.mark.parametrize("pa_frames", [2, 4])
def test_the_whole_network(pa_frames):
    blur, voxels = noise(1, 5, 3, 64, 72).sigmoid(), noise(1, 5, 3, 32, 36)
    ours = small(pa_frames)
    plain = as_published(small(pa_frames))
    with torch.no_grad():
        a, b = ours(blur, voxels), plain(blur, voxels)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-4 * b.abs().max().item())  # sampling positions rounded by 1e-6
