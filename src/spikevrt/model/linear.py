"""A linear layer over the last axis by the faster of torch's two libraries, and who takes a fast path.

Dimension key: ... any leading axes, C channels in, O channels out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float


def on_cpu(x: Tensor) -> bool:
    """Whether `x` is computed on a CPU, operation by operation: there the paths of this package that work in pieces of
    the cache's size are the fast ones. Not on a GPU, and not under torch.compile or torch.export, which want the whole.
    """
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def linear(x: Float[Tensor, "... C"], weight: Float[Tensor, "O C"], bias: Float[Tensor, " O"] | None) -> Tensor:
    """x weight^T + bias. On a CPU as a convolution with a kernel of one pixel: that goes to oneDNN, F.linear to MKL."""
    if not on_cpu(x) or x.dtype == torch.float64:
        return F.linear(x, weight, bias)
    if not x.is_contiguous():
        x = x.contiguous()
    pixels = x.view(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)  # one row of pixels in channels_last memory
    out = F.conv2d(pixels, weight[:, :, None, None], bias)
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], weight.shape[0])


class Linear(nn.Linear):
    """`nn.Linear` by `linear`."""

    plain = False  # as `nn.Linear` does it

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.plain else linear(x, self.weight, self.bias)


def as_published(network: nn.Module) -> nn.Module:
    """Switch every layer that has a plain twin to it, in place: the network computes as the published design is
    written. For comparisons; slower and larger."""
    for module in network.modules():
        if hasattr(module, "plain"):
            setattr(module, "plain", True)  # noqa: B010 (nn.Module's own annotation admits tensors alone)
    return network
