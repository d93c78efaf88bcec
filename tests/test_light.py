from __future__ import annotations

import numpy as np
import torch

from spikevrt.light import image_to_linear, linear_to_srgb, luminance, srgb_to_linear


def test_black_white_and_the_joint_of_the_curve_are_where_the_standard_puts_them():
    srgb = torch.tensor([0.0, 0.04045, 0.5, 1.0], dtype=torch.float64)
    expected = torch.tensor([0.0, 0.04045 / 12.92, 0.21404114048223255, 1.0], dtype=torch.float64)
    torch.testing.assert_close(srgb_to_linear(srgb), expected, rtol=0, atol=1e-15)


def test_every_8_bit_value_survives_the_way_to_light_and_back():
    levels = torch.arange(256)
    back = (linear_to_srgb(srgb_to_linear(levels / 255)) * 255).round()
    assert torch.equal(back.long(), levels)


def test_the_curve_has_no_gradient_trap_at_zero():
    light = torch.zeros(3, requires_grad=True)
    linear_to_srgb(light).sum().backward()
    assert torch.equal(light.grad, torch.full((3,), 12.92))


def test_the_table_for_pictures_equals_the_curve():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14
    expected = srgb_to_linear(torch.from_numpy(image).permute(2, 0, 1).double() / 255).float()
    assert torch.equal(image_to_linear(image), expected)


def test_white_has_luminance_one_and_green_most_of_it():
    light = torch.zeros(4, 3, 1, 1)
    light[0] = 1
    for channel in range(3):
        light[1 + channel, channel] = 1
    before = light.clone()
    torch.testing.assert_close(luminance(light).flatten(), torch.tensor([1.0, 0.2126, 0.7152, 0.0722]))
    assert torch.equal(light, before)
