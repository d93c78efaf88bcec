"""One exposure's counts as a network or a baseline reads them: counted, bad pixels filled.

The only place that puts these steps in a row; every path (preparing, training, restoring, the baseline) calls it. Where
the cameras do not lie on each other it is the frames that are resampled (`Recording.on_sensor`), never the counts.

Dimension key: S slices of time, K bins, h and w sensor rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from spikevrt.recording.recording import Recording
from spikevrt.recording.spike_file import HeldSpikes
from spikevrt.represent.interval import expected_counts
from spikevrt.represent.voxel import count_bins

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Integer, UInt8

    from spikevrt.config import Binning


Count = Callable[[Sequence[int]], "Integer[np.ndarray, 'S h w']"]


def exposure_counts(
    count: Count,
    num_ticks: int,
    *,
    num_bins: int,
    binning: Binning = "whole",
    bad: Bool[np.ndarray, "h w"] | None = None,
) -> Float[Tensor, "{num_bins} h w"]:
    """Spikes per bin and pixel of one exposure of `num_ticks` ticks, float32; `count(edges)` counts between edges.

    `bad` pixels are filled from their neighbours; without them the values are those of `count_bins`.

    Raises:
        ValueError: as `count_bins` and `repair` do.
    """
    return filled(count_bins(count, num_ticks, num_bins=num_bins, binning=binning), bad)


def frame_counts(
    recording: Recording, index: int, *, num_bins: int, binning: Binning = "whole"
) -> Float[Tensor, "{num_bins} h w"]:
    """`exposure_counts` of exposure `index` of a recording, bad pixels filled.

    Raises ValueError as `exposure_counts` does, and where the recording has no spikes.
    """
    return exposure_counts(
        lambda edges: recording.count_exposure(index, edges),
        recording.exposures[index].num_ticks,
        num_bins=num_bins,
        binning=binning,
        bad=recording.bad_mask(),
    )


def exposure_intervals(
    spikes_Thw: UInt8[Tensor, "T h w"] | HeldSpikes,
    *,
    num_bins: int,
    binning: Binning = "whole",
    bad: Bool[np.ndarray, "h w"] | None = None,
) -> Float[Tensor, "{num_bins} h w"]:
    """The same from the intervals between spikes: expected spikes per bin and pixel (`represent.inputs`).

    Raises ValueError as `exposure_counts` does.
    """
    return filled(expected_counts(spikes_Thw, num_bins=num_bins, binning=binning), bad)


def window_intervals(
    spikes_Thw: UInt8[Tensor, "T h w"] | HeldSpikes,
    shift_ticks: int,
    *,
    num_bins: int,
    binning: Binning = "whole",
    bad: Bool[np.ndarray, "h w"] | None = None,
) -> tuple[Float[Tensor, "{num_bins} h w"], Float[Tensor, "h w"] | None]:
    """`exposure_intervals` of a window of an exposure's length that begins `shift_ticks` after the exposure does, and
    the exposure's own mean rate (spikes per tick); None without a shift, where the bins tell it.

    The spikes are those of exposure and window together. Raises ValueError as `exposure_counts` does.
    """
    num_ticks = len(spikes_Thw) - abs(shift_ticks)
    exposed, read = (slice(first, first + num_ticks) for first in (max(0, -shift_ticks), max(0, shift_ticks)))
    counts = exposure_intervals(spikes_Thw[read], num_bins=num_bins, binning=binning, bad=bad)
    if shift_ticks == 0:
        return counts, None
    return counts, exposure_intervals(spikes_Thw[exposed], num_bins=1, bad=bad)[0] / num_ticks


def filled(counts: Float[Tensor, "S h w"], bad: Bool[np.ndarray, "h w"] | None) -> Float[Tensor, "S h w"]:
    """Counts of any slices, `bad` pixels filled by `repair`; the others keep their bits.

    What was filled is no whole number; up to 65504 it is rounded to float16, so that datasets need no wider type.
    """
    if bad is None:
        return counts
    mask = torch.from_numpy(bad)
    repaired = repair(counts, mask)
    rounded = repaired.to(torch.float16).to(torch.float32)
    return torch.where(mask & rounded.isfinite(), rounded, repaired)


def repair(values: Float[Tensor, "... h w"], bad: Bool[Tensor, "h w"]) -> Float[Tensor, "... h w"]:
    """Each bad pixel becomes the mean of those of its eight neighbours that are good; good pixels keep their bits.

    A bad pixel without a good neighbour waits until its neighbours are repaired and takes the mean of those, so that a
    hole is filled from its rim inwards. The mean and not the median: counts are small whole numbers, whose median is
    coarse and, where most are zero, zero. What a bad pixel holds is never read (it may be NaN).

    Raises:
        ValueError: every pixel is bad.
    """
    assert values.is_floating_point() and bad.dtype == torch.bool and values.shape[-2:] == bad.shape, (
        values.dtype,
        tuple(values.shape),
        tuple(bad.shape),
    )
    height, width = bad.shape
    if bool(bad.all()):
        raise ValueError(f"bad: all {height}x{width} pixels; allowed: at least one good pixel")
    repaired = values.clone(memory_format=torch.contiguous_format)
    flat_Np = repaired.view(-1, height * width)
    bad = bad.to(values.device)
    known = torch.nn.functional.pad(~bad, (1, 1, 1, 1), value=False)
    steps_82 = torch.tensor([(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if r or c], device=values.device)
    waiting_M2 = bad.nonzero()
    while len(waiting_M2):
        rows_M8, columns_M8 = (waiting_M2[:, None] + steps_82).unbind(-1)
        usable_M8 = known[rows_M8 + 1, columns_M8 + 1]
        ready_M = usable_M8.any(dim=1)
        usable = usable_M8[ready_M]
        near = flat_Np[:, torch.where(usable, (rows_M8 * width + columns_M8)[ready_M], 0)]
        rows, columns = waiting_M2[ready_M].unbind(-1)
        flat_Np[:, rows * width + columns] = near.masked_fill(~usable, 0).sum(dim=-1) / usable.sum(dim=-1)
        known[rows + 1, columns + 1] = True
        waiting_M2 = waiting_M2[~ready_M]
    return repaired
