"""The kernel of temporal attention against its plain twin, and the twin against the layers of the network."""

from __future__ import annotations

import pytest
import torch

from spikevrt.kernels import operators
from spikevrt.kernels.operators import TemporalWeights, temporal_op, temporal_plain, temporal_triton
from spikevrt.model.spike_vrt import SpikeTemporalSA, TemporalCrossAttnFuse

SAMPLES, PIXELS, CHANNELS, HEADS = 2, 17, 96, 4  # at 5 frames a program takes 12 pixels, at 7 it takes 9


def self_weights(block: SpikeTemporalSA) -> TemporalWeights:
    c = block.norm1.weight.shape[0]
    norm = block.norm1.weight, block.norm1.bias
    q, kv = (block.qkv.weight[:c], block.qkv.bias[:c]), (block.qkv.weight[c:], block.qkv.bias[c:])
    rest = (*block.proj.parameters(), *block.norm2.parameters(), *block.mlp.parameters())
    return TemporalWeights(*norm, *norm, *q, *kv, *rest)


def cross_weights(block: TemporalCrossAttnFuse) -> TemporalWeights:
    layers = (block.norm_rgb, block.norm_spikes, block.q, block.kv, block.proj, block.norm_mlp, block.mlp)
    return TemporalWeights(*(parameter for layer in layers for parameter in layer.parameters()))


def block_of(kind: str, channels: int = CHANNELS):
    torch.manual_seed(3)
    if kind == "self":
        block = SpikeTemporalSA(channels, HEADS, 2.0)
    else:
        block = TemporalCrossAttnFuse(channels, HEADS, 2.0, kind == "cross with time bias")
    with torch.no_grad():
        for parameter in block.parameters():  # a new fusion is the identity, which would hide its attention
            parameter += 0.1 * torch.randn(parameter.shape)
    return block


def features(kind: str, frames: int, channels: int = CHANNELS) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    shape = (SAMPLES, frames, PIXELS, channels)
    return [torch.randn(shape, generator=generator) for _ in range(1 if kind == "self" else 2)]


def call(function, block, inputs):
    memory, bias = None, None
    if isinstance(block, TemporalCrossAttnFuse):
        memory, bias = inputs[1], block._bias(inputs[0].shape[1], torch.float32)
        return function(inputs[0], memory, bias, cross_weights(block), HEADS)
    return function(inputs[0], None, None, self_weights(block), HEADS)


def value_and_gradients(function, block, inputs, dtype=torch.float32):
    leaves = [t.to(dtype, copy=True).requires_grad_() for t in inputs]
    block.zero_grad()
    out = call(function, block, leaves)
    assert out.dtype == dtype
    out.float().square().mean().backward()
    named = {"out": out.detach()} | {f"x{i}": t.grad for i, t in enumerate(leaves)}
    return named | {name: p.grad.clone() for name, p in block.named_parameters()}


KINDS = ["self", "cross", "cross with time bias"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_twin_computes_what_the_layers_of_the_network_do(kind):
    block, inputs = block_of(kind), features(kind, 5)
    sequences = [t.transpose(0, 1).flatten(1, 2) for t in inputs]
    expected = block(*sequences).unflatten(1, (SAMPLES, PIXELS)).transpose(0, 1)
    torch.testing.assert_close(call(temporal_plain, block, inputs), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "frames"), [("self", 7), ("cross", 5), ("cross with time bias", 7)])
def test_kernel_and_plain_twin_agree_in_value_and_gradient(device, monkeypatch, kind, frames):
    monkeypatch.setattr(operators, "BACKWARD_TOKENS", SAMPLES * frames * 7)  # 17 pixels are three chunks
    block, inputs = block_of(kind).to(device), [t.to(device) for t in features(kind, frames)]
    expected = value_and_gradients(temporal_plain, block, inputs)
    for name, value in value_and_gradients(temporal_triton, block, inputs).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_bfloat16_agrees_with_float32_to_its_own_precision(device):
    block, inputs = block_of("cross with time bias").to(device), [t.to(device) for t in features("cross", 5)]
    expected = value_and_gradients(temporal_plain, block, [t.bfloat16().float() for t in inputs])
    with torch.autocast(device, dtype=torch.bfloat16):
        ours = value_and_gradients(temporal_triton, block, inputs, torch.bfloat16)
    for name, value in ours.items():
        error = (value.float() - expected[name]).norm() / expected[name].norm()
        assert error < 0.03, name  # bf16 has 8 bits, 0.4 % a rounding, and some ten of them follow each other


def test_channels_and_heads_that_are_no_power_of_two_fit_too(device):
    block, inputs = block_of("self", 20).to(device), [t.to(device) for t in features("self", 3, 20)]
    expected = call(temporal_plain, block, inputs)
    torch.testing.assert_close(call(temporal_triton, block, inputs), expected, rtol=0, atol=1e-4)


def test_features_are_read_by_their_strides_and_stay_as_they_were(device):
    block = block_of("self").to(device)
    (x,) = features("self", 5)
    wide = torch.stack((x, -x), 2).to(device)  # frames and pixels lie twice as far apart
    before = wide.clone()
    expected = call(temporal_plain, block, [x.to(device)])
    torch.testing.assert_close(call(temporal_triton, block, [wide[:, :, 0]]), expected, rtol=0, atol=1e-4)
    assert torch.equal(wide, before)


def test_a_compiled_function_keeps_the_kernel_without_a_graph_break(device):
    block, inputs = block_of("cross with time bias").to(device), [t.to(device) for t in features("cross", 5)]

    def doubled(x, memory):
        return 2 * call(temporal_triton, block, [x, memory])

    expected = value_and_gradients(temporal_plain, block, inputs)
    block.zero_grad()
    leaves = [t.clone().requires_grad_() for t in inputs]
    out = torch.compile(doubled, fullgraph=True, backend="aot_eager")(*leaves)
    torch.testing.assert_close(out, 2 * expected["out"], rtol=1e-4, atol=1e-4)
    (out / 2).square().mean().backward()
    torch.testing.assert_close(leaves[1].grad, expected["x1"], rtol=1e-4, atol=1e-4)


def test_an_exported_program_holds_the_kernel_as_one_operation(device):
    class Doubled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.block = block_of("self")

        def forward(self, x):
            return 2 * call(temporal_triton, self.block, [x])

    (x,) = features("self", 5)
    program = torch.export.export(Doubled().to(device), (x.to(device),))
    assert "spikevrt.temporal.default" in program.graph_module.code


def test_too_many_frames_are_refused_in_one_line():
    x = torch.zeros(1, 33, 1, CHANNELS)
    with pytest.raises(ValueError, match="33 frames: the Triton kernel takes at most 32"):
        temporal_triton(x, None, None, self_weights(block_of("self")), HEADS)


def test_the_operation_keeps_the_rules_of_torch_for_shapes_unknown_at_compile_time(device):
    block, inputs = block_of("self", 20).to(device), [t.to(device) for t in features("self", 3, 20)]
    weights = [w.detach().clone().requires_grad_() for w in self_weights(block)]
    torch.library.opcheck(temporal_op, (inputs[0].requires_grad_(), None, None, weights, HEADS))
