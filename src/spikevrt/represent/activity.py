"""Does anything move during an exposure? Told from its counts, in units of what a still scene reads.

A pixel under steady light fires steadily: up to any moment its spikes are the exposure's times the share of the time,
to within one spike, however bright it is. Where something passes by, they run ahead or fall behind.

Dimension key: K bins, h w rows and columns of counts, hb wb rows and columns of blocks.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from spikevrt.represent.voxel import Split, bin_bounds

if TYPE_CHECKING:
    from jaxtyping import Float

BLOCK = 8  # sensor pixels a side: few enough that something small stands out, enough for a steady mean


def spike_activity(counts: Float[Tensor, "K h w"], num_ticks: int, *, split: Split = "whole") -> Float[Tensor, "hb wb"]:
    """How far the spikes of each block of 8 x 8 pixels are from steady firing: 1 for a still scene, 0 for a dark one.

    With C(s) the spikes of a pixel up to the share s of the exposure, d(s) = C(s) - s C(1). Steady light leaves d to
    the start phase and to the two roundings, each uniform over one spike: its variance is (1 + s^2 + (1 - s)^2) / 12.
    The value is the root of the mean over the block of d^2 / variance, at the edge between bins where it is largest.
    A grey that fires half a whole number of spikes reads sqrt(2), one that fires a whole number 0. Photon noise adds
    s (1 - s) / (photons per spike) for each spike: nothing that matters above some hundred photons a spike.

    Raises:
        ValueError: one bin, which tells nothing of the time within the exposure.
    """
    num_bins, height, width = counts.shape
    if num_bins < 2:
        raise ValueError(f"num_bins: {num_bins}; activity within an exposure needs 2 or more")
    bounds = bin_bounds(num_ticks, num_bins, split)
    total, fired = counts.sum(0), torch.zeros_like(counts[0])
    most = counts.new_zeros(-(-height // BLOCK), -(-width // BLOCK))
    for bin_counts, (_, bound) in zip(counts[:-1], pairwise(bounds), strict=False):
        share = bound / bounds[-1]
        fired = fired + bin_counts
        still = (1 + share**2 + (1 - share) ** 2) / 12
        squares = (fired - share * total).square()[None]
        blocks = F.avg_pool2d(squares, BLOCK, ceil_mode=True, count_include_pad=False)[0]
        most = torch.maximum(most, blocks / still)
    return most.sqrt()
