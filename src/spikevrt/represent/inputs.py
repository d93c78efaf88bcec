"""What enters a network for one frame: the blurry or the relit frame, and voxels or profiles.

The only place where that is decided; training and restoring call it alike and get the same bits, but in a crop's outer
two sensor pixels, where neighbours count. `config.SpikeInputs` says what a network reads.

A relit frame: the blurry frame's light is right on average over the exposure, and the spikes tell how each pixel's
light changed in it: light(centre) = light(blur) * rate(around the centre) / rate(whole exposure). The gain of the
sensor cancels. It is also the strong baseline that needs no network.

A profile: how each pixel's light changed during an exposure, whatever the sensor's threshold and gain. The rate in a
bin comes from the intervals between spikes, which say far more of it than a count of a few, relative to the pixel's own
mean over the exposure.

Dimension key: T ticks of exposure and window together, K bins, h w sensor rows and columns, H W frame rows and columns
(of frames that lie on the sensor: `Recording.on_sensor`), hb wb rows and columns of blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spikevrt.config import Binning, SpikeInputs
from spikevrt.light import linear_to_srgb, srgb_to_linear
from spikevrt.recording.alignment import nearest_ratio
from spikevrt.recording.spike_file import HeldSpikes
from spikevrt.represent.counts import filled, window_intervals
from spikevrt.represent.voxel import VoxelStats, bin_bounds, count_bins, normalise, voxelise
from spikevrt.represent.voxel import density as voxel_density

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Num, UInt8


@dataclass(frozen=True)
class BinnedSpikes:
    """One exposure's spikes, counted (representation counts) or expected (profile) per bin of a window.

    `num_ticks` is the length of the exposure and of the window. `mean_rate` (spikes per tick) is the exposure's own
    where the window lies elsewhere; None: the bins tell it.
    """

    counts: Num[Tensor, "K h w"]
    num_ticks: int
    mean_rate: Float[Tensor, "h w"] | None = None


def bin_spikes(
    spec: SpikeInputs,
    spikes_Thw: UInt8[Tensor, "T h w"] | HeldSpikes,
    shift_ticks: int = 0,
    bad: Bool[np.ndarray, "h w"] | None = None,
) -> BinnedSpikes:
    """Bin the ticks of one exposure and of the window that begins `shift_ticks` after it, which only profiles read;
    `bad` pixels are filled from their neighbours. Raises ValueError: fewer ticks than bins (unless binning is
    "fractional"), or every pixel bad.
    """
    num_ticks = len(spikes_Thw) - abs(shift_ticks)
    if spec.representation == "profile":
        counts, mean_rate = window_intervals(
            spikes_Thw, shift_ticks, num_bins=spec.num_bins, binning=spec.binning, bad=bad
        )
        return BinnedSpikes(steadied(counts, num_ticks, spec.binning, mean_rate), num_ticks, mean_rate)
    assert shift_ticks == 0, shift_ticks
    if isinstance(spikes_Thw, HeldSpikes):
        counts = count_bins(spikes_Thw.count, num_ticks, num_bins=spec.num_bins, binning=spec.binning)
    else:
        counts = voxelise(spikes_Thw, num_bins=spec.num_bins, binning=spec.binning)
    return BinnedSpikes(filled(counts, bad), num_ticks)


def network_inputs(
    spec: SpikeInputs,
    stats: VoxelStats,
    blur: Float[Tensor, "3 H W"],
    spikes: BinnedSpikes,
    *,
    density: float | None = None,
) -> tuple[Float[Tensor, "3 H W"], Float[Tensor, "K h w"]]:
    """The frame that enters the network, in [0, 1] display values, and the voxels or profiles beside it.

    `density`: the mean log1p count of the whole frame, where `blur` and `spikes` are a crop of it; None: measured on
    `spikes`. With `relight` off the frame is `blur` itself.
    """
    is_profile = spec.representation == "profile"
    frame = blur
    if spec.relight:
        dark = PROFILE_DARK_RATE if is_profile else DARK_RATE
        frame = relight(
            blur, spikes.counts, spikes.num_ticks, binning=spec.binning, dark=dark, mean_rate=spikes.mean_rate
        )  # fmt: skip
    if is_profile:
        return frame, profile(spikes.counts, spikes.num_ticks, binning=spec.binning, mean_rate=spikes.mean_rate)
    if spec.normalize == "density" and density is None:
        density = float(voxel_density(spikes.counts))
    return frame, normalise(spikes.counts, stats, density=density if spec.normalize == "density" else None)


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
    their ratio is resized bilinearly and applied to linear light, the same for all colours. Rate (i, j) is that of the
    r x r pixels from (r * i, r * j) on, the last ones perhaps beyond the frame; where the sizes allow no such r, both
    see the same field. `dark` (spikes per tick) is added to both, so that the ratio of two rates that are hardly known
    is near 1.

    Source: the identity on which Chen et al., SpikeReveal (S-SDM), NeurIPS 2024, build.
    """
    ratio = (short + dark) / (long + dark)
    height, width = blur.shape[-2:]
    r = nearest_ratio(height, width, *ratio.shape)
    covers = ratio.shape == (-(-height // r), -(-width // r))
    size = (r * ratio.shape[0], r * ratio.shape[1]) if covers else (height, width)
    ratio = F.interpolate(ratio[None, None], size, mode="bilinear", align_corners=False)[0, :, :height, :width]
    return linear_to_srgb((srgb_to_linear(blur) * ratio).clamp(0, 1))


def relight(
    blur: Float[Tensor, "3 H W"],
    counts: Float[Tensor, "K h w"],
    num_ticks: int,
    *,
    binning: Binning,
    dark: float = DARK_RATE,
    mean_rate: Float[Tensor, "h w"] | None = None,
) -> Float[Tensor, "3 H W"]:
    """`spike_ratio`, a new tensor, of an exposure whose spikes are counted (or expected) per bin: the short window is
    `short_bins`. `mean_rate` (spikes per tick): that of the exposure, where the bins are of another window; None: of
    the bins. The counts lie on the frame, or on the crop that `blur` is cut to."""
    first, stop = short_bins(len(counts))
    bounds = bin_bounds(num_ticks, len(counts), binning)
    short_ticks = (bounds[stop] - bounds[first]) / len(counts)
    counts = counts.float()
    long = counts.sum(0) / num_ticks if mean_rate is None else mean_rate
    return spike_ratio(blur, counts[first:stop].sum(0) / short_ticks, long, dark=dark)


PROFILE_DARK_RATE = 0.004  # spikes per tick, added to both rates: of a pixel in the dark, whose ratio means nothing
PROFILE_SCALE = 0.5  # of the logarithms, so that what a network reads is of the order of 1 where things move


def profile(
    counts: Float[Tensor, "... K h w"],
    num_ticks: int,
    *,
    binning: Binning,
    mean_rate: Float[Tensor, "... h w"] | None = None,
) -> Float[Tensor, "... K h w"]:
    """log(rate in the bin / mean rate over the exposure) / `PROFILE_SCALE`, from expected counts per bin.

    `mean_rate` (spikes per tick) is that of the exposure, where the bins are of another window of `num_ticks` ticks
    than the exposure; None: of the bins. 0 where the light does not change; a pixel without spikes reads 0. Pointwise:
    the profile of a crop is the cropped profile.
    """
    num_bins = counts.shape[-3]
    bounds = torch.tensor(bin_bounds(num_ticks, num_bins, binning), dtype=counts.dtype, device=counts.device)
    ticks = (bounds.diff() / num_bins)[:, None, None]
    mean = counts.sum(-3, keepdim=True) / num_ticks if mean_rate is None else mean_rate.unsqueeze(-3)
    return ((counts / ticks + PROFILE_DARK_RATE) / (mean + PROFILE_DARK_RATE)).log_().div_(PROFILE_SCALE)


STEADY, MOVING = 2.0, 4.0  # mean squares, in those of steady light: nothing changes up to one, all of it from the other


def steadied(
    counts: Float[Tensor, "K h w"], num_ticks: int, binning: Binning, mean_rate: Float[Tensor, "h w"] | None = None
) -> Float[Tensor, "K h w"]:
    """Expected counts per bin, without what could come of steady light: bright light would seem to flicker.

    A spike is known to a tick. With r spikes a tick and C(s) the counts up to the share s of T ticks, steady light has
    d(s) = C(s) - s C(1) of variance r^2 (1 + s^2 + (1 - s)^2) / 12. The mean of d^2 over that of its variance, at the
    edges between bins of 5 x 5 pixels, tells what stays of the changes: firm shrinkage (Gao and Bruce, 1997).
    `mean_rate`: of the exposure, beside the window. Then d(s) = C(s) - s T r, of variance r^2 (1 + s^2) / 6; and what
    holds fewer than two spikes, and so no whole interval, is known to no better than two.
    """
    bounds = bin_bounds(num_ticks, len(counts), binning)
    mean = counts.sum(0) / num_ticks if mean_rate is None else mean_rate
    ahead, deviation, noise = torch.zeros_like(mean), torch.zeros_like(mean), mean.square()
    if mean_rate is not None:
        noise = torch.where(torch.minimum(mean * num_ticks, counts.sum(0)) < 2, 4.0, noise)
    changes = counts - mean * (torch.tensor(bounds, device=counts.device).diff() / len(counts))[:, None, None]
    edges = bounds[1:-1] if mean_rate is None else bounds[1:]
    for change, edge in zip(changes, edges, strict=False):
        s = edge / bounds[-1]
        ahead += change
        deviation += ahead.square() * (12 / (1 + s**2 + (1 - s) ** 2) if mean_rate is None else 6 / (1 + s**2))
    both = torch.stack((deviation, len(edges) * noise))[:, None]
    deviation, noise = F.avg_pool2d(both, 5, 1, 2, count_include_pad=False)[:, 0]
    return counts - changes * ((MOVING * noise - deviation) / ((MOVING - STEADY) * noise).clamp_min(1e-9)).clamp(0, 1)


BLOCK = 8  # sensor pixels a side: few enough that something small stands out, enough for a steady mean


def spike_activity(
    counts: Float[Tensor, "K h w"], num_ticks: int, *, binning: Binning = "whole"
) -> Float[Tensor, "hb wb"]:
    """How far the spikes of each block of 8 x 8 pixels are from steady firing: 1 for a still scene, 0 for a dark one.

    With C(s) the spikes of a pixel up to the share s of the exposure, d(s) = C(s) - s C(1). Steady light leaves d to
    the start phase and to the two roundings, each uniform over one spike: its variance is (1 + s^2 + (1 - s)^2) / 12.
    The value is the root of the mean over the block of d^2 / variance, at the edge between bins where it is largest.
    A grey that fires half a whole number of spikes reads sqrt(2), one that fires a whole number 0. Photon noise adds
    s (1 - s) / (photons per spike) for each spike: nothing that matters above some hundred photons a spike.
    Raises ValueError: one bin, which tells nothing of the time within the exposure.
    """
    num_bins, height, width = counts.shape
    if num_bins < 2:
        raise ValueError(f"num_bins: {num_bins}; activity within an exposure needs 2 or more")
    bounds = bin_bounds(num_ticks, num_bins, binning)
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
