"""Pictures and rates from spikes: the interval around every tick (DSFT), its inverse (TFI), the firing rate (TFP).

A tick t lies in the interval [t_prev, t_next): t_prev is the last spike at or before t, t_next the first one after t.
Where one of the two is missing, the stream's edge stands for it: tick -1 or T.

Spikes are 0 or 1.

Dimension key: T ticks, H sensor rows, W sensor columns; `...` any leading axes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spikevrt.recording.spike_file import HeldSpikes
from spikevrt.represent.voxel import bin_bounds

if TYPE_CHECKING:
    from jaxtyping import Float, Int32, UInt8

    from spikevrt.config import Binning


STRIP_VALUES = 1 << 24  # spikes turned into intervals at a time, which bounds the memory
MAX_INT16_TICKS = (1 << 15) - 2  # so that T + 1 is still a number; two to three times faster than 32 bits


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
    # Products and maxima of whole numbers instead of masks: a third of the time on a CPU.
    previous = torch.full(picture, -1, dtype=torch.int32, device=spikes_THW.device)
    for t in range(num_ticks):
        fired = spikes_THW[..., t, :, :].to(torch.int32)
        previous = previous.maximum(fired * (t + 1) - 1)
        length_THW[..., t, :, :] = -previous
    following = torch.full_like(previous, num_ticks)
    for t in reversed(range(num_ticks)):
        length_THW[..., t, :, :] += following
        fired = spikes_THW[..., t, :, :].to(torch.int32)
        following = following.minimum(fired * (t - num_ticks) + num_ticks)
    return length_THW


def interval_voxels(
    spikes_THW: UInt8[Tensor, "... T H W"], *, num_bins: int, binning: Binning = "whole"
) -> Float[Tensor, "... {num_bins} H W"]:
    """Expected spikes per bin: each spike's unit is spread evenly over the interval that it ends, then binned.

    A count of 0 or 1 says little of the light in a bin shorter than an interval; the share of an interval does. So
    these voxels keep their distribution when the threshold (and with it the number of spikes) changes, where counts
    do not: docs/representations.md has the figures. They are blurred over an interval where light changes within it,
    sum to the number of spikes only but for the edges, and need statistics of their own (`VoxelStats`).

    Before the first spike and after the last one, where an interval is cut by the edge of the stream, the rate is the
    highest that the silence allows, but not above that of the neighbouring interval. A silent pixel reads 0.

    Raises ValueError as `voxelise` does; the bins are the same.
    """
    num_ticks = spikes_THW.shape[-3]
    bounds = bin_bounds(num_ticks, num_bins, binning)
    dtype = torch.int16 if num_ticks <= MAX_INT16_TICKS else torch.int32
    picture = (*spikes_THW.shape[:-3], *spikes_THW.shape[-2:])
    # As in `intervals`, whole numbers instead of masks. First forwards: what lies before each tick.
    before = torch.full(picture, -1, dtype=dtype, device=spikes_THW.device)  # the last spike before tick t, or -1
    before_last, starts = before, []
    for t in range(num_ticks):
        starts.append(before)
        fired = spikes_THW[..., t, :, :].to(dtype)
        before, before_last = before.maximum(fired * (t + 1) - 1), before_last.maximum(fired * (before + 1) - 1)
    newest, fires = before - before_last, (before >= 0).to(torch.float32)

    voxels = torch.zeros((*spikes_THW.shape[:-3], num_bins, *spikes_THW.shape[-2:]), device=spikes_THW.device)
    after = torch.full_like(before, num_ticks)  # the first spike at tick t or after it, or T
    after_next = after
    for t in reversed(range(num_ticks)):
        fired = spikes_THW[..., t, :, :].to(dtype)
        after, after_next = (
            after.minimum(fired * (t - num_ticks) + num_ticks),
            after_next.minimum(fired * (after - num_ticks) + num_ticks),
        )
        is_first = starts[t].neg().clamp_min(0)  # 1 up to the first spike
        is_last = (after - (num_ticks - 1)).clamp_min(0)  # 1 behind the last one
        length = (after - starts[t]).maximum((after_next - after) * is_first).maximum(newest * is_last)
        rate = length.to(torch.float32).reciprocal() * fires
        first = bisect_right(bounds, t * num_bins) - 1
        for k in range(first, bisect_left(bounds, (t + 1) * num_bins)):
            part = (min(bounds[k + 1], (t + 1) * num_bins) - max(bounds[k], t * num_bins)) / num_bins
            voxels[..., k, :, :] += part * rate
    return voxels


def expected_counts(
    spikes_Thw: UInt8[Tensor, "... T h w"] | HeldSpikes, *, num_bins: int, binning: Binning
) -> Float[Tensor, "... K h w"]:
    """`interval_voxels`, some rows at a time: expected spikes per bin. Held spikes are unpacked some rows at a time.

    Raises ValueError as `voxelise` does.
    """
    *leading, num_ticks, height, width = spikes_Thw.shape
    rows = max(1, STRIP_VALUES // max(1, num_ticks * width * torch.Size(leading).numel()))
    strips = [
        interval_voxels(
            torch.from_numpy(spikes_Thw.rows(top, top + rows))
            if isinstance(spikes_Thw, HeldSpikes)
            else spikes_Thw[..., top : top + rows, :],
            num_bins=num_bins,
            binning=binning,
        )
        for top in range(0, height, rows)
    ]
    return torch.cat(strips, dim=-2)


def tfp(spikes_THW: UInt8[Tensor, "... T H W"], centre: int, half_window: int) -> Float[Tensor, "... H W"]:
    """Mean spikes per tick over ticks centre - half_window .. centre + half_window, both included; in [0, 1].

    Unbiased; the quantisation error is about 1 / window; motion within the window is blurred.

    Raises:
        ValueError: half_window is negative, or the window leaves the stream (it is never cut short).

    Source: texture from playback, Zhu et al., ICME 2019.
    """
    num_ticks = spikes_THW.shape[-3]
    start, stop = centre - half_window, centre + half_window + 1
    if half_window < 0 or start < 0 or stop > num_ticks:
        raise ValueError(
            f"centre, half_window: {centre}, {half_window}, ticks [{start}, {stop}); allowed: inside [0, {num_ticks})"
        )
    return spikes_THW[..., start:stop, :, :].sum(dim=-3, dtype=torch.int32).to(torch.float32) / (stop - start)
