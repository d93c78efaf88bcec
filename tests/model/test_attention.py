"""The fast attention against its plain twin, value by value and gradient by gradient."""

from __future__ import annotations

import pytest
import torch

from spikevrt.model import layers
from spikevrt.model.blocks import partition, shift_mask, shift_mask_plain
from spikevrt.model.layers import WindowAttention, attend, attend_plain

MASKS = {"none": None, "shifted": ((2, 8, 12), (1, 4, 4), (0, 2, 2))}


def tensors(requires_grad):
    generator = torch.Generator().manual_seed(3)
    qkv = torch.randn(3, 12, 3, 16, 5, generator=generator)
    bias = torch.randn(3, 16, 16, generator=generator)
    return [t.requires_grad_(requires_grad) for t in (qkv, bias)]


@pytest.mark.parametrize("logits_per_piece", [1, 5 * 3 * 16 * 16, 1 << 21])
@pytest.mark.parametrize("masked", ["none", "shifted"])
def test_attention_in_pieces_equals_plain_attention_in_value_and_gradient(monkeypatch, logits_per_piece, masked):
    monkeypatch.setattr(layers, "LOGITS_PER_PIECE", logits_per_piece)
    mask = shift_mask(*MASKS[masked]) if MASKS[masked] else None
    assert mask is None or len(mask.kinds) == 12 and not all(mask.kinds)
    (qkv, bias), (plain_qkv, plain_bias) = tensors(True), tensors(True)
    a, b = attend(qkv, bias, mask), attend_plain(*plain_qkv, plain_bias, mask)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    a.square().sum().backward()
    b.square().sum().backward()
    torch.testing.assert_close(qkv.grad, plain_qkv.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(bias.grad, plain_bias.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("logits_per_piece", [1, 1 << 21])
def test_swapped_windows_are_asked_by_the_other_half(monkeypatch, logits_per_piece):
    monkeypatch.setattr(layers, "LOGITS_PER_PIECE", logits_per_piece)
    mask = shift_mask((2, 4, 12), (1, 4, 4), (0, 2, 2))
    (qkv, _), (plain, _) = tensors(True), tensors(True)
    out = attend(qkv, None, mask, swap=True)
    expected = attend_plain(torch.cat((plain[0, 6:], plain[0, :6])), plain[1], plain[2], None, mask)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)
    for result in (out, expected):
        result.square().sum().backward()
    torch.testing.assert_close(qkv.grad, plain.grad, rtol=1e-5, atol=1e-5)


def test_a_mask_period_shorter_than_the_windows_repeats_for_every_sample():
    qkv, bias = tensors(False)
    mask = shift_mask((1, 4, 8), (1, 4, 4), (0, 0, 2))
    assert mask.kinds == (0, 1)
    out = attend_plain(*qkv, bias, mask)
    left = torch.arange(16) % 4 < 2  # of the last window of a row: what the shift brought from the other end is right
    q, k, v = qkv[:, 7:8]
    alone = attend_plain(q[:, :, left], k[:, :, left], v[:, :, left], bias[:, left][:, :, left], None)
    torch.testing.assert_close(out[7:8, :, left], alone, rtol=0, atol=1e-6)
    torch.testing.assert_close(attend(qkv, bias, mask), out, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "window", "shift"),
    [((6, 16, 24), (2, 4, 4), (1, 2, 2)), ((5, 8, 8), (5, 4, 4), (0, 2, 2)), ((12, 4, 9), (6, 4, 3), (3, 0, 1))],
)
def test_eight_patterns_hide_the_same_pairs_as_a_mask_drawn_on_the_picture(size, window, shift):
    few, drawn = shift_mask(size, window, shift), shift_mask_plain(size, window, shift)
    num_windows = drawn.patterns.shape[0]
    assert few.patterns.shape[0] == 8
    assert torch.equal(few.pairs(2 * num_windows), drawn.pairs(2 * num_windows))
    assert not few.patterns[0].any()


def layer(mutual, plain=False):
    torch.manual_seed(5)
    module = WindowAttention(12, (2, 4, 4), 3, mutual)
    torch.nn.init.normal_(module.relative_position_bias_table)
    module.plain = plain
    return module


@pytest.mark.parametrize("mutual", [False, True])
def test_window_attention_equals_its_plain_twin_in_value_and_gradient(mutual):
    mask = shift_mask((4, 8, 12), (2, 4, 4), (1, 2, 2))
    x = torch.randn(1, 4, 8, 12, 12, generator=torch.Generator().manual_seed(2))
    results = []
    for plain in (False, True):
        module = layer(mutual, plain)
        windows = partition(x, (2, 4, 4)).requires_grad_()
        out = module(windows, mask)
        out.square().sum().backward()
        results.append([out, windows.grad, *(p.grad for p in module.parameters())])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)  # sums over 768 tokens in another order


def test_the_bias_is_made_anew_when_its_table_changes_whatever_way():
    module = layer(False)
    with torch.no_grad():
        first = module.bias(32)
        assert module.bias(32) is first
        module.relative_position_bias_table.data.add_(1)  # leaves no trace in the version of the parameter
        torch.testing.assert_close(module.bias(32), first + 1)
        assert module.bias(16).shape == (3, 16, 16)
    assert module.bias(32).requires_grad
