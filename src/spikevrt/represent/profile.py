"""How each pixel's light changed during an exposure, whatever the sensor's threshold and gain.

The rate in a bin comes from the intervals between spikes, which say far more of it than a count of a few. It is told
relative to the pixel's own mean over the exposure, so that threshold, gain and brightness cancel. The blurry frame
knows the mean light; the two together are the light in every bin.

Dimension key: T ticks of one exposure, K bins, h, w rows and columns of the spikes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spikevrt.represent.interval import interval_voxels
from spikevrt.represent.voxel import Split, bin_bounds

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8

PROFILE_DARK_RATE = 0.004  # spikes per tick, added to both rates: of a pixel in the dark, whose ratio means nothing
PROFILE_SCALE = 0.5  # of the logarithms, so that what a network reads is of the order of 1 where things move
STRIP_VALUES = 1 << 24  # spikes turned into intervals at a time, which bounds the memory


def expected_counts(
    spikes_Thw: UInt8[Tensor, "... T h w"], *, num_bins: int, split: Split
) -> Float[Tensor, "... K h w"]:
    """`interval_voxels`, some rows at a time: expected spikes per bin.

    Raises ValueError as `voxelise` does.
    """
    *leading, num_ticks, height, width = spikes_Thw.shape
    rows = max(1, STRIP_VALUES // max(1, num_ticks * width * torch.Size(leading).numel()))
    strips = [
        interval_voxels(spikes_Thw[..., top : top + rows, :], num_bins=num_bins, split=split)
        for top in range(0, height, rows)
    ]
    return torch.cat(strips, dim=-2)


def profile(
    counts: Float[Tensor, "... K h w"],
    num_ticks: int,
    *,
    split: Split,
    mean_rate: Float[Tensor, "... h w"] | None = None,
) -> Float[Tensor, "... K h w"]:
    """log(rate in the bin / mean rate over the exposure) / `PROFILE_SCALE`, from expected counts per bin.

    `mean_rate` (spikes per tick) is that of the exposure, where the bins are of another window of `num_ticks` ticks
    than the exposure; None: of the bins. 0 where the light does not change; a pixel without spikes reads 0. Pointwise:
    the profile of a crop is the cropped profile.
    """
    num_bins = counts.shape[-3]
    bounds = torch.tensor(bin_bounds(num_ticks, num_bins, split), dtype=counts.dtype, device=counts.device)
    ticks = (bounds.diff() / num_bins)[:, None, None]
    mean = counts.sum(-3, keepdim=True) / num_ticks if mean_rate is None else mean_rate.unsqueeze(-3)
    return ((counts / ticks + PROFILE_DARK_RATE) / (mean + PROFILE_DARK_RATE)).log_().div_(PROFILE_SCALE)
