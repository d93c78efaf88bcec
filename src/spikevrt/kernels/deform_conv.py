"""Modulated deformable convolution, 3x3, as a gather fused with its matrix product, forward and backward.

No sampled value (9 x channels a pixel) is ever stored: forward and backward read the picture at the offsets anew, and
the backward pass keeps input, offset, mask and weight alone. The plain twin is `model/deform.py` `deform_conv`.

Dimension key: N pictures, k convolution groups of C channels, G deformable groups, P = 9 taps of a 3x3 kernel, H rows,
W columns, O output channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

TAPS = 9
MAX_OUTPUTS = 256  # of one convolution group; a block of the kernel holds them all


def deform_triton(
    x: Float[Tensor, "N kC H W"],
    offset: Float[Tensor, "N G P 2 H W"],
    mask: Float[Tensor, "N G P H W"],
    weight: Float[Tensor, "O C 3 3"],
    bias: Float[Tensor, " O"],
) -> Float[Tensor, "N O H W"]:
    """3x3 convolution whose tap (i, j) of pixel (y, z) reads at (y + i - 1 + dy, z + j - 1 + dz), times its mask.

    Bilinear, zero outside the picture. Group g of the offsets serves input channels [g*kC/G, (g+1)*kC/G).
    Input and result lie in channels_last memory (another input is copied).

    Products are of x's dtype, positions and sums float32. Its gradient of x is added in any order.

    Raises:
        ValueError: a convolution group with more output channels than the kernel holds.
    """
    per_group = weight.shape[0] * weight.shape[1] // x.shape[1]
    if per_group > MAX_OUTPUTS:
        raise ValueError(f"{per_group} output channels of a group: the Triton kernel takes at most {MAX_OUTPUTS}")
    result: Tensor = deform_op(x, offset, mask, weight, bias)
    return result


@torch.library.custom_op(
    "spikevrt::deform",
    mutates_args=(),
    schema="(Tensor x, Tensor offset, Tensor mask, Tensor weight, Tensor bias) -> Tensor",
)
def deform_op(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    from spikevrt.kernels import deform_conv_triton as kernel

    return kernel.forward(x, offset, mask, weight, bias)


@deform_op.register_fake
def _(x, offset, mask, weight, bias):  # type: ignore[no-untyped-def]
    n, _, height, width = x.shape
    return x.new_empty(n, height, width, weight.shape[0]).permute(0, 3, 1, 2)


@torch.library.custom_op(
    "spikevrt::deform_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor x, Tensor offset, Tensor mask, Tensor weight) -> (Tensor, Tensor, Tensor, Tensor)",
)
def deform_backward(
    grad: Tensor, x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, offset, mask and weight."""
    from spikevrt.kernels import deform_conv_triton as kernel

    return (
        *kernel.backward_input(grad, x, offset, mask, weight),
        kernel.backward_weight(grad, x, offset, mask, weight),
    )


@deform_backward.register_fake
def _(grad, x, offset, mask, weight):  # type: ignore[no-untyped-def]
    n, channels, height, width = x.shape
    of_x = x.new_empty(n, height, width, channels).permute(0, 3, 1, 2)
    return of_x, offset.new_empty(offset.shape), mask.new_empty(mask.shape), weight.new_empty(weight.shape)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *saved, bias = inputs
    ctx.bias_dtype = bias.dtype
    ctx.save_for_backward(*saved)


def _backward(ctx, grad):  # type: ignore[no-untyped-def]
    return *deform_backward(grad, *ctx.saved_tensors), grad.sum((0, 2, 3), dtype=torch.float32).to(ctx.bias_dtype)


deform_op.register_autograd(_backward, setup_context=_save)
