"""What enters a network for one frame: the blurry or the relit frame, and voxels or profiles.

The only place where that is decided; training and restoring call it alike and get the same bits, but for a crop's relit
frame in its outermost pixel, where the ratio is resized. `config.SpikeInputs` says what a network reads.

Dimension key: T ticks of exposure and window together, K bins, h w sensor rows and columns, h2 w2 those of the spikes
on the frame, H W frame rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from spikevrt.config import SpikeInputs
from spikevrt.represent.counts import place_counts, window_intervals
from spikevrt.represent.profile import PROFILE_DARK_RATE, profile
from spikevrt.represent.relight import DARK_RATE, relight
from spikevrt.represent.voxel import VoxelStats, normalise, voxelise
from spikevrt.represent.voxel import density as voxel_density

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Num, UInt8


@dataclass(frozen=True)
class BinnedSpikes:
    """One exposure's spikes on the frame, counted (representation counts) or expected (profile) per bin of a window.

    `num_ticks` is the length of the exposure and of the window. `mean_rate` (spikes per tick) is the exposure's own
    where the window lies elsewhere; None: the bins tell it.
    """

    counts: Num[Tensor, "K h2 w2"]
    num_ticks: int
    mean_rate: Float[Tensor, "h2 w2"] | None = None


@dataclass(frozen=True)
class SensorGrid:
    """How sensor pixels come onto the frame: `bad` ones are filled from their neighbours, then read at `positions`."""

    bad: Bool[np.ndarray, "h w"] | None = None
    positions: Float[np.ndarray, "h2 w2 2"] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether a cell is a sensor pixel and depends on no other."""
        return self.bad is None and self.positions is None


PLAIN_GRID = SensorGrid()


def bin_spikes(
    spec: SpikeInputs, spikes_Thw: UInt8[Tensor, "T h w"], shift_ticks: int = 0, grid: SensorGrid = PLAIN_GRID
) -> BinnedSpikes:
    """Bin the ticks of one exposure and of the window that begins `shift_ticks` after it, which only profiles read.

    Raises:
        ValueError: fewer ticks than bins with split "whole", every pixel bad, or a position that is not a number.
    """
    num_ticks = len(spikes_Thw) - abs(shift_ticks)
    if spec.representation == "profile":
        counts, mean_rate = window_intervals(
            spikes_Thw, shift_ticks, num_bins=spec.num_bins, split=spec.split, bad=grid.bad, positions=grid.positions
        )
        return BinnedSpikes(counts, num_ticks, mean_rate)
    assert shift_ticks == 0, shift_ticks
    counts = voxelise(spikes_Thw, num_bins=spec.num_bins, split=spec.split)
    return BinnedSpikes(place_counts(counts, bad=grid.bad, positions=grid.positions), num_ticks)


def network_inputs(
    spec: SpikeInputs,
    stats: VoxelStats,
    blur: Float[Tensor, "3 H W"],
    spikes: BinnedSpikes,
    *,
    density: float | None = None,
) -> tuple[Float[Tensor, "3 H W"], Float[Tensor, "K h2 w2"]]:
    """The frame that enters the network, in [0, 1] display values, and the voxels or profiles beside it.

    `density`: the mean log1p count of the whole frame, where `blur` and `spikes` are a crop of it; None: measured on
    `spikes`. With `relight` off the frame is `blur` itself.
    """
    is_profile = spec.representation == "profile"
    frame = blur
    if spec.relight:
        dark = PROFILE_DARK_RATE if is_profile else DARK_RATE
        frame = relight(
            blur, spikes.counts, spikes.num_ticks, split=spec.split, dark=dark, mean_rate=spikes.mean_rate
        )  # fmt: skip
    if is_profile:
        return frame, profile(spikes.counts, spikes.num_ticks, split=spec.split, mean_rate=spikes.mean_rate)
    if spec.normalize == "density" and density is None:
        density = float(voxel_density(spikes.counts))
    return frame, normalise(spikes.counts, stats, density=density if spec.normalize == "density" else None)
