"""Linear light: the one place where display values become light and light becomes display values again.

A camera integrates light, not sRGB values. Everything that is simulated (blur and spikes alike) is computed in linear
light, in [0, 1] with 1 the brightest value that sRGB can show. Importing it loads no torch (`simulate/setup.py`).

Dimension key: N ticks, H rows, W columns.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float
    from torch import Tensor

HDR_WHITE_NITS = 1000  # of video of PQ: what linear light of 1 is
# FFmpeg's codes of matrices, BT709, UNSPECIFIED and BT2020 of primaries, too; of transfers; of ranges
BT709, UNSPECIFIED, BT2020, RGB = 1, 2, 9, 0
HDR_TRANSFERS = PQ, HLG = 16, 18
LIMITED_RANGE, FULL_RANGE = 1, 2
# bicubic, accurate rounding, full chroma in and out (FFmpeg's SWS_ flags): without them a round trip darkens every
# colour by one or two levels of 255 and costs 3 dB
EXACT_COLOURS = 0x4 | 0x40000 | 0x2000 | 0x4000
EXACT_COLOUR_WORDS = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"  # the same for FFmpeg's filters
LUMINANCE = (0.2126, 0.7152, 0.0722)  # of linear RGB (ITU-R BT.709)


def srgb_to_linear(srgb: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """sRGB values in [0, 1] -> linear light in [0, 1] (IEC 61966-2-1, exact, piecewise)."""
    import torch

    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Linear light in [0, 1] -> sRGB values in [0, 1]; the inverse of `srgb_to_linear`."""
    import torch

    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)


def hdr_to_linear(code: Float[Tensor, "*shape"], transfer: int) -> Float[Tensor, "*shape"]:
    """Coded values in [0, 1] -> linear light. PQ: in units of `HDR_WHITE_NITS`, up to 10 (SMPTE ST 2084). HLG: the
    scene's light before any display, up to 1 (ITU-R BT.2100, inverse OETF)."""
    import torch

    if transfer == PQ:
        root = code.clamp(0, 1) ** (32 / 2523)
        nits = 10000 * ((root - 0.8359375).clamp_min(0) / (18.8515625 - 18.6875 * root)) ** (16384 / 2610)
        return nits / HDR_WHITE_NITS
    a, b, c = HLG_CONSTANTS
    return torch.where(code <= 0.5, code**2 / 3, (((code - c) / a).exp() + b) / 12)


def linear_to_hdr(light: Float[Tensor, "*shape"], transfer: int) -> Float[Tensor, "*shape"]:
    """The inverse of `hdr_to_linear`; light that the curve does not reach is clipped."""
    import torch

    if transfer == PQ:
        root = (light.clamp(0, 10000 / HDR_WHITE_NITS) * (HDR_WHITE_NITS / 10000)) ** (2610 / 16384)
        return ((0.8359375 + 18.8515625 * root) / (1 + 18.6875 * root)) ** (2523 / 32)
    a, b, c = HLG_CONSTANTS
    light = light.clamp(0, 1)
    return torch.where(light <= 1 / 12, (3 * light).sqrt(), a * (12 * light - b).clamp_min(b).log() + c)


HLG_CONSTANTS = (0.17883277, 0.28466892, 0.55991073)


@functools.lru_cache(maxsize=2)
def hdr_table(transfer: int) -> np.ndarray:
    """Display (sRGB) values, float32, of each coded value of 16 bits: above 1 where it is brighter than
    `HDR_WHITE_NITS`."""
    import torch

    code = torch.arange(65536, dtype=torch.float64) / 65535
    return linear_to_srgb(hdr_to_linear(code, transfer)).float().numpy()


def image_to_linear(image: np.ndarray | Tensor) -> Float[Tensor, "3 H W"]:
    """An 8-bit RGB picture (H, W, 3) -> linear light (3, H, W), float32, by a table of 256 exact values."""
    import torch

    table = srgb_to_linear(torch.arange(256, dtype=torch.float64) / 255).float()
    return table[torch.as_tensor(image).permute(2, 0, 1).long()].contiguous()


def luminance(light: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N H W"]:
    """What a sensor without colour filter sees of linear RGB light: 0.2126 R + 0.7152 G + 0.0722 B."""
    red, green, blue = LUMINANCE
    return (light[:, 0] * red).add_(light[:, 1], alpha=green).add_(light[:, 2], alpha=blue)
