"""The kernels of deformable convolution against their plain twin, which is the network's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from spikevrt.kernels.operators import deform_op, deform_triton
from spikevrt.model.deformable_alignment import deform_conv

# convolution groups, deformable groups, input channels of a convolution group, output channels
CASES = {
    "one group": (1, 1, 5, 3),
    "six channels a group, as in the network": (1, 16, 96, 96),
    "two neighbours": (2, 4, 12, 10),
    "more channels a group than a block": (1, 1, 37, 4),
    "a group that two convolution groups share": (2, 3, 6, 4),
    "more outputs than a block": (1, 2, 4, 131),
}


def case(name: str, height: int = 3, width: int = 5, device: str = "cpu") -> list[torch.Tensor]:
    """Two pictures, which are a part of a kernel's block of 64 pixels where they are no larger."""
    conv_groups, groups, inputs, outputs = CASES[name]
    generator = torch.Generator().manual_seed(13)
    x = torch.randn(2, conv_groups * inputs, height, width, generator=generator)
    offset = 3 * torch.randn(2, groups, 9, 2, height, width, generator=generator)
    mask = torch.rand(2, groups, 9, height, width, generator=generator)
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator) / (9 * inputs) ** 0.5
    bias = torch.randn(outputs, generator=generator)
    return [t.to(device) for t in (x, offset, mask, weight, bias)]


def plain(*tensors):
    return deform_conv(*tensors, plain=True)


def value_and_gradients(function, tensors):
    leaves = [t.clone().requires_grad_() for t in tensors]
    out = function(*leaves)
    out.float().square().sum().backward()
    return dict(zip(("out", "x", "offset", "mask", "weight", "bias"), (out, *(t.grad for t in leaves)), strict=True))


@pytest.mark.parametrize("name", [name for name in CASES if name != "one group"])  # which is compiled below
def test_kernel_and_plain_twin_agree_in_value_and_gradient(device, name):
    tensors = case(name, width=13 if name == "two neighbours" else 5, device=device)  # 13: more than a block of pixels
    before = [t.clone() for t in tensors]
    expected = value_and_gradients(plain, tensors)
    for key, value in value_and_gradients(deform_triton, tensors).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=2e-4, msg=lambda m, k=key: f"{k}: {m}")
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


def test_zero_offsets_and_full_masks_are_an_ordinary_convolution(device):
    x, offset, mask, weight, bias = case("two neighbours", device=device)
    out = deform_triton(x, torch.zeros_like(offset), torch.ones_like(mask), weight, bias)
    torch.testing.assert_close(out, F.conv2d(x, weight, bias, padding=1, groups=2), rtol=0, atol=1e-4)


def test_an_offset_far_outside_reads_zero(device):
    x, offset, mask, weight, bias = case("one group", device=device)
    out = deform_triton(x, torch.full_like(offset, 1e12), mask, weight, bias)
    torch.testing.assert_close(out, bias.view(1, -1, 1, 1).expand_as(out), rtol=0, atol=0)


def test_inputs_in_channels_last_memory_are_read_where_they_lie(device):
    tensors = case("six channels a group, as in the network", device=device)
    expected = plain(*tensors)
    x, offset, mask, weight, bias = tensors
    x = x.contiguous(memory_format=torch.channels_last)
    offset = offset.permute(0, 4, 5, 1, 2, 3).contiguous().permute(0, 3, 4, 5, 1, 2)
    mask = mask.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
    out = deform_triton(x, offset, mask, weight, bias)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-4)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_bfloat16_pictures_at_float32_positions_agree_to_their_own_precision(device):
    x, offset, mask, weight, bias = case("two neighbours", device=device)
    x, weight = x.bfloat16().float(), weight.bfloat16().float()
    expected = value_and_gradients(plain, (x, offset, mask, weight, bias))
    for key, value in value_and_gradients(deform_triton, (x.bfloat16(), offset, mask, weight, bias)).items():
        error = (value.float() - expected[key]).norm() / expected[key].norm()
        assert error < 0.02, key  # 0.4 % a rounding: sampled values, products, the result and its gradient


def test_a_compiled_function_keeps_the_kernels_without_a_graph_break(device):
    tensors = case("one group", device=device)
    expected = value_and_gradients(plain, tensors)
    compiled = torch.compile(lambda *t: deform_triton(*t) * 1, fullgraph=True, backend="aot_eager")
    for key, value in value_and_gradients(compiled, tensors).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=2e-4, msg=lambda m, k=key: f"{k}: {m}")


def test_an_exported_program_holds_the_kernel_as_one_operation(device):
    class Scaled(torch.nn.Module):
        def forward(self, *tensors):
            return 2 * deform_triton(*tensors)

    program = torch.export.export(Scaled(), tuple(case("one group", device=device)))
    assert "spikevrt.deform.default" in program.graph_module.code


def test_too_many_output_channels_are_refused_in_one_line():
    x, offset, mask, _, _ = case("one group")
    with pytest.raises(ValueError, match="257 output channels of a group: the Triton kernel takes at most 256"):
        deform_triton(x, offset, mask, torch.zeros(257, 5, 3, 3), torch.zeros(257))


def test_the_operation_keeps_the_rules_of_torch_for_shapes_unknown_at_compile_time(device):
    torch.library.opcheck(deform_op, tuple(t.requires_grad_() for t in case("one group", device=device)))
