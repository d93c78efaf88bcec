"""Window attention by torch's fused kernels against the network's plain twin. No Triton: these run anywhere."""

from __future__ import annotations

import pytest
import torch

from spikevrt.kernels import operators
from spikevrt.kernels.operators import MaskPatterns, aligned, attend_windows
from spikevrt.model.blocks import shift_mask
from spikevrt.model.layers import attend_plain

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
NUM_TOKENS = 2 * 3 * 3  # no multiple of eight, as odd windows are


def tensors(head_size: int, with_bias: bool, device: str = "cpu") -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(2 * 12, 3, NUM_TOKENS, head_size, generator=generator) for _ in range(3))
    bias = torch.randn(3, NUM_TOKENS, NUM_TOKENS, generator=generator)
    return [t.to(device) for t in ((q, k, v, bias) if with_bias else (q, k, v))]


def mask_of_two_samples():
    mask = shift_mask((4, 6, 9), (2, 3, 3), (1, 1, 1))
    assert len(mask.kinds) == 12 and len(set(mask.kinds)) == 8
    return mask


def patterns_of_two_samples():
    mask = mask_of_two_samples()
    return MaskPatterns.of(mask.patterns, mask.kinds)


def plain(q, k, v, bias, mask):
    """`attend_plain` scales the query; here it is scaled already."""
    return attend_plain(q * q.shape[-1] ** 0.5, k, v, bias, mask)


def value_and_gradients(function, inputs, mask):
    leaves = [t.clone().requires_grad_() for t in inputs]
    out = function(*leaves[:3], leaves[3] if len(leaves) > 3 else None, mask)
    out.square().sum().backward()
    return [out.detach(), *(t.grad for t in leaves)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("head_size", [16, 20])
def test_sdpa_equals_the_plain_twin_in_value_and_gradient(device, masked, with_bias, head_size):
    inputs = tensors(head_size, with_bias, device)
    mask = mask_of_two_samples() if masked else None
    expected = value_and_gradients(plain, tensors(head_size, with_bias), mask)
    patterns = None if mask is None else MaskPatterns.of(mask.patterns.to(device), mask.kinds)
    for value, expectation in zip(value_and_gradients(attend_windows, inputs, patterns), expected, strict=True):
        torch.testing.assert_close(value.cpu(), expectation, rtol=1e-4, atol=1e-4)


def test_windows_of_every_mask_are_found_once_and_put_back():
    mask = mask_of_two_samples()
    pairs = mask.pairs(12)
    patterns = MaskPatterns.of(mask.patterns, mask.kinds)
    assert len(patterns.pairs) == 8  # last window or not, along three axes
    assert sum(mask is None for mask in patterns.pairs) == 1
    assert torch.equal(torch.cat(patterns.windows)[patterns.places], torch.arange(12))
    for apart, windows in zip(patterns.pairs, patterns.windows, strict=True):
        for index in windows:
            assert torch.equal(pairs[index], torch.zeros_like(pairs[0]) if apart is None else apart)


def test_few_windows_at_a_time_make_no_difference(monkeypatch):
    inputs, mask = tensors(16, True), mask_of_two_samples()
    whole = value_and_gradients(attend_windows, inputs, MaskPatterns.of(mask.patterns, mask.kinds))
    monkeypatch.setattr(operators, "LOGITS_PER_CHUNK", 1)
    for one, all_ in zip(
        value_and_gradients(attend_windows, inputs, MaskPatterns.of(mask.patterns, mask.kinds)), whole, strict=True
    ):
        torch.testing.assert_close(one, all_, rtol=1e-5, atol=1e-5)


def test_rows_of_an_aligned_bias_begin_at_multiples_of_eight():
    bias = torch.rand(3, NUM_TOKENS, NUM_TOKENS)
    out = aligned(bias)
    assert torch.equal(out, bias) and out.stride() == (NUM_TOKENS * 24, 24, 1)


def test_a_compiled_function_has_no_graph_break():
    patterns = patterns_of_two_samples()
    inputs = tensors(16, True)
    compiled = torch.compile(lambda *t: attend_windows(*t, patterns), fullgraph=True, backend="aot_eager")
    expected = attend_windows(*inputs, patterns)
    torch.testing.assert_close(compiled(*inputs), expected, rtol=0, atol=1e-6)
