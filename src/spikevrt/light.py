"""Linear light: the one place where display values become light and light becomes display values again.

A camera integrates light, not sRGB values. Everything that is simulated (blur and spikes alike) is computed in linear
light, in [0, 1] with 1 the brightest value that sRGB can show. Importing it loads no torch (`simulate/setup.py`).

Dimension key: N ticks, H rows, W columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float
    from torch import Tensor

LUMINANCE = (0.2126, 0.7152, 0.0722)  # of linear RGB (ITU-R BT.709)


def srgb_to_linear(srgb: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """sRGB values in [0, 1] -> linear light in [0, 1] (IEC 61966-2-1, exact, piecewise)."""
    import torch

    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Linear light in [0, 1] -> sRGB values in [0, 1]; the inverse of `srgb_to_linear`."""
    import torch

    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)


def image_to_linear(image: np.ndarray | Tensor) -> Float[Tensor, "3 H W"]:
    """An 8-bit RGB picture (H, W, 3) -> linear light (3, H, W), float32, by a table of 256 exact values."""
    import torch

    table = srgb_to_linear(torch.arange(256, dtype=torch.float64) / 255).float()
    return table[torch.as_tensor(image).permute(2, 0, 1).long()].contiguous()


def luminance(light: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N H W"]:
    """What a sensor without colour filter sees of linear RGB light: 0.2126 R + 0.7152 G + 0.0722 B."""
    red, green, blue = LUMINANCE
    return (light[:, 0] * red).add_(light[:, 1], alpha=green).add_(light[:, 2], alpha=blue)
