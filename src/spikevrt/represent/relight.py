"""A blurry frame relit by the spikes: a baseline that needs no network, and a frame that networks may start from.

The blurry frame's light is right on average over the exposure, and the spikes tell how each pixel's light changed in
it: light(centre) = light(blur) * rate(around the centre) / rate(whole exposure). The gain of the sensor cancels.

Dimension key: K bins, h, w rows and columns of the spikes on the frame, H, W picture rows and columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from spikevrt.light import linear_to_srgb, srgb_to_linear
from spikevrt.represent.voxel import Split, bin_bounds

if TYPE_CHECKING:
    from jaxtyping import Float

DARK_RATE = 0.02  # spikes per tick, for rates from counts
SHARE = 8  # the short window is an exposure's ticks, or bins, over this


def short_window(num_ticks: int) -> tuple[int, int]:
    """The eighth of an exposure's ticks around its centre, as [start, stop)."""
    half = min(num_ticks // (2 * SHARE), (num_ticks - 1) // 2)
    return num_ticks // 2 - half, num_ticks // 2 + half + 1


def short_bins(num_bins: int) -> tuple[int, int]:
    """The eighth of an exposure's bins around its centre, at least the one or two that hold it, as [first, stop)."""
    first = min(num_bins // 2 - num_bins // (2 * SHARE), (num_bins - 1) // 2)
    return first, num_bins - first


def spike_ratio(
    blur: Float[Tensor, "3 H W"], short: Float[Tensor, "h w"], long: Float[Tensor, "h w"], *, dark: float = DARK_RATE
) -> Float[Tensor, "3 H W"]:
    """The blurry frame relit by the spikes, in [0, 1].

    `short` is the firing rate (spikes per tick) around the exposure's centre, `long` that over the whole exposure;
    their ratio is resized bilinearly and applied to linear light, the same for all colours. `dark` (spikes per tick) is
    added to both, so that the ratio of two rates that are hardly known is near 1.

    Source: the identity on which Chen et al., SpikeReveal (S-SDM), NeurIPS 2024, build.
    """
    ratio = (short + dark) / (long + dark)
    ratio = F.interpolate(ratio[None, None], blur.shape[-2:], mode="bilinear", align_corners=False)[0]
    return linear_to_srgb((srgb_to_linear(blur) * ratio).clamp(0, 1))


def relight(
    blur: Float[Tensor, "3 H W"],
    counts: Float[Tensor, "K h w"],
    num_ticks: int,
    *,
    split: Split,
    dark: float = DARK_RATE,
    mean_rate: Float[Tensor, "h w"] | None = None,
) -> Float[Tensor, "3 H W"]:
    """`spike_ratio` of an exposure whose spikes are counted (or expected) per bin: the short window is `short_bins`.

    `mean_rate` (spikes per tick): that of the exposure, where the bins are of another window; None: of the bins.

    The counts lie on the frame, all of it, or on the crop that `blur` is cut to (its outermost pixel then differs from
    the cropped whole: resizing looks at neighbours). A new tensor, in [0, 1].
    """
    first, stop = short_bins(len(counts))
    bounds = bin_bounds(num_ticks, len(counts), split)
    short_ticks = (bounds[stop] - bounds[first]) / len(counts)
    counts = counts.float()
    long = counts.sum(0) / num_ticks if mean_rate is None else mean_rate
    return spike_ratio(blur, counts[first:stop].sum(0) / short_ticks, long, dark=dark)
