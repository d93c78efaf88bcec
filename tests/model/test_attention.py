"""The fast attention against its plain twin, value by value and gradient by gradient."""

from __future__ import annotations

import pytest
import torch

from spikevrt.model import attention
from spikevrt.model.attention import WindowMask, attend, attend_plain
from spikevrt.model.blocks import shift_mask


def tensors(requires_grad):
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(12, 3, 16, 5, generator=generator) for _ in range(3))
    bias = torch.randn(3, 16, 16, generator=generator)
    return [t.requires_grad_(requires_grad) for t in (q, k, v, bias)]


@pytest.mark.parametrize("logits_per_chunk", [1, 5 * 3 * 16 * 16, 1 << 21])
@pytest.mark.parametrize("masked", [False, True])
def test_fast_and_plain_attention_agree_in_value_and_gradient(monkeypatch, logits_per_chunk, masked):
    monkeypatch.setattr(attention, "CPU_LOGITS_PER_CHUNK", logits_per_chunk)
    mask = shift_mask((2, 8, 12), (1, 4, 4), (0, 2, 2)) if masked else None
    assert mask is None or len(mask.windows) == 12 and not all(mask.windows)
    ours, plain = tensors(True), tensors(True)
    a, b = attend(*ours, mask), attend_plain(*plain, mask)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    a.square().sum().backward()
    b.square().sum().backward()
    for x, y in zip(ours, plain, strict=True):
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-5)
    with torch.no_grad():  # the fused kernel
        torch.testing.assert_close(attend(*tensors(False), mask), b.detach(), rtol=0, atol=1e-6)


def test_a_mask_period_shorter_than_the_windows_repeats_for_every_sample():
    q, k, v, bias = tensors(False)
    pairs = torch.zeros(4, 16, 16, dtype=torch.bool)
    pairs[3, :, 8:] = True
    mask = WindowMask.of(pairs)
    out = attend_plain(q, k, v, bias, mask)
    alone = attend_plain(q[7:8, :, :, :], k[7:8, :, :8], v[7:8, :, :8], bias[:, :, :8], None)
    torch.testing.assert_close(out[7:8], alone, rtol=0, atol=1e-6)
    torch.testing.assert_close(attend(q, k, v, bias, mask), out, rtol=0, atol=1e-6)
