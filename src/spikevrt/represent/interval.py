"""From the time between spikes: the interval around every tick (DSFT), and its inverse, a picture (TFI).

A tick t lies in the interval [t_prev, t_next): t_prev is the last spike at or before t, t_next the first one after t.
Where one of the two is missing, the stream's edge stands for it: tick -1 or T.

Dimension key: T ticks, H sensor rows, W sensor columns; `...` any leading axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spikevrt.represent.voxel import bin_edges

if TYPE_CHECKING:
    from jaxtyping import Float, Int32, UInt8


def tfi(spikes_THW: UInt8[Tensor, "... T H W"], centre: int) -> Float[Tensor, "... H W"]:
    """1 / (t_next - t_prev) per pixel, in [0, 1].

    Where a spike is missing, the value is the highest rate that the silence allows. A pixel that never fires reads 0.

    Raises:
        ValueError: `centre` is not a tick of the stream.

    Source: texture from interval, Zhu et al., ICME 2019.
    """
    num_ticks = spikes_THW.shape[-3]
    if not 0 <= centre < num_ticks:
        raise ValueError(f"centre: {centre}; allowed: 0 to {num_ticks - 1}")
    fired = spikes_THW.to(torch.bool)
    ticks = torch.arange(num_ticks, device=spikes_THW.device, dtype=torch.int32).view(-1, 1, 1)
    previous = torch.where(fired[..., : centre + 1, :, :], ticks[: centre + 1], -1).amax(dim=-3)
    if centre + 1 < num_ticks:
        following = torch.where(fired[..., centre + 1 :, :, :], ticks[centre + 1 :], num_ticks).amin(dim=-3)
    else:
        following = torch.full_like(previous, num_ticks)
    rate = (following - previous).to(torch.float32).reciprocal()
    silent = (previous < 0) & (following == num_ticks)
    return rate.masked_fill(silent, 0.0)


def intervals(spikes_THW: UInt8[Tensor, "... T H W"]) -> Int32[Tensor, "... T H W"]:
    """t_next - t_prev, in ticks, around every tick; 1 to T + 1.

    At the edges of the stream it is the shortest interval that the silence allows, and T + 1 for a pixel that never
    fires. `tfi(spikes, t)` is one over it, for pixels that fire. Reversed in time, tick t reads what T - 2 - t read.

    Source: differential of spike firing time (DSFT), Zhao et al., CVPR 2024 (BSF).
    """
    num_ticks = spikes_THW.shape[-3]
    length_THW = torch.empty(spikes_THW.shape, dtype=torch.int32, device=spikes_THW.device)
    picture = (*spikes_THW.shape[:-3], *spikes_THW.shape[-2:])
    previous = torch.full(picture, -1, dtype=torch.int32, device=spikes_THW.device)
    for t in range(num_ticks):
        previous = previous.masked_fill(spikes_THW[..., t, :, :] != 0, t)
        length_THW[..., t, :, :] = -previous
    following = torch.full_like(previous, num_ticks)
    for t in reversed(range(num_ticks)):
        length_THW[..., t, :, :] += following
        following = following.masked_fill(spikes_THW[..., t, :, :] != 0, t)
    return length_THW


def interval_voxels(spikes_THW: UInt8[Tensor, "... T H W"], *, num_bins: int) -> Float[Tensor, "... {num_bins} H W"]:
    """Expected spikes per bin: each spike's unit is spread evenly over the interval that it ends, then binned.

    A count of 0 or 1 says little of the light in a bin shorter than an interval; the share of an interval does. So
    these voxels keep their distribution when the threshold (and with it the number of spikes) changes, where counts
    do not: docs/representations.md has the figures. They are blurred over an interval where light changes within it,
    sum to the number of spikes only but for the edges, and need statistics of their own (`VoxelStats`).

    Before the first spike and after the last one, where an interval is cut by the edge of the stream, the rate is the
    highest that the silence allows, but not above that of the neighbouring interval. A silent pixel reads 0. Bins are
    those of `voxelise`, split "whole".

    Raises:
        ValueError: num_bins is below 1, or there are fewer ticks than bins.
    """
    num_ticks = spikes_THW.shape[-3]
    edges = bin_edges(num_ticks, num_bins)
    fired_THW = spikes_THW != 0
    # Flipped twice: an interval without its first spike but with its last one, in which that light was gathered.
    rate_THW = intervals(spikes_THW.flip(-3)).flip(-3).to(torch.float32).reciprocal()
    ticks = torch.arange(num_ticks, device=spikes_THW.device).view(-1, 1, 1)
    first_1HW = torch.where(fired_THW, ticks, num_ticks).amin(dim=-3, keepdim=True)
    last_1HW = torch.where(fired_THW, ticks, -1).amax(dim=-3, keepdim=True)
    second_1HW = rate_THW.gather(-3, (first_1HW + 1).clamp_max(num_ticks - 1))
    newest_1HW = rate_THW.gather(-3, last_1HW.clamp_min(0))
    rate_THW = torch.where(ticks <= first_1HW, rate_THW.minimum(second_1HW), rate_THW)
    rate_THW = torch.where(ticks > last_1HW, rate_THW.minimum(newest_1HW), rate_THW).masked_fill(last_1HW < 0, 0.0)
    voxels = torch.zeros((*spikes_THW.shape[:-3], num_bins, *spikes_THW.shape[-2:]), device=spikes_THW.device)
    for k in range(num_bins):
        for t in range(edges[k], edges[k + 1]):
            voxels[..., k, :, :] += rate_THW[..., t, :, :]
    return voxels
