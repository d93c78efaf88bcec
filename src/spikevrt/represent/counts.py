"""One exposure's counts as a network or a baseline reads them: counted, bad pixels filled, brought onto the frame.

The only place that puts these three steps in a row; every path (preparing, training, restoring, the baseline) calls it.

Dimension key: S slices of time, K bins, h and w sensor rows and columns, h2 and w2 those of the registered grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from spikevrt.recording.alignment import read_at
from spikevrt.recording.recording import Recording
from spikevrt.represent.profile import expected_counts
from spikevrt.represent.repair import repair
from spikevrt.represent.voxel import Split, count_bins

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Integer, UInt8

Count = Callable[[Sequence[int]], "Integer[np.ndarray, 'S h w']"]


def exposure_counts(
    count: Count,
    num_ticks: int,
    *,
    num_bins: int,
    split: Split = "whole",
    bad: Bool[np.ndarray, "h w"] | None = None,
    positions: Float[np.ndarray, "h2 w2 2"] | None = None,
) -> Float[Tensor, "{num_bins} h2 w2"]:
    """Spikes per bin and cell of one exposure of `num_ticks` ticks, float32; `count(edges)` counts between edges.

    `bad` pixels are filled from their neighbours; `positions` says where each cell looks on the sensor. Without the
    two, the values are those of `count_bins`.

    Raises:
        ValueError: as `count_bins`, `repair` and `read_at` do.
    """
    return place_counts(count_bins(count, num_ticks, num_bins=num_bins, split=split), bad=bad, positions=positions)


def frame_counts(
    recording: Recording, index: int, *, num_bins: int, split: Split = "whole"
) -> Float[Tensor, "{num_bins} h2 w2"]:
    """`exposure_counts` of exposure `index` of a recording, bad pixels filled, on the frame.

    Raises ValueError as `exposure_counts` does, and where the recording has no spikes.
    """
    return exposure_counts(
        lambda edges: recording.count_exposure(index, edges),
        recording.exposures[index].num_ticks,
        num_bins=num_bins,
        split=split,
        bad=recording.bad_mask(),
        positions=recording.sensor_positions,
    )


def exposure_intervals(
    spikes_Thw: UInt8[Tensor, "T h w"],
    *,
    num_bins: int,
    split: Split = "whole",
    bad: Bool[np.ndarray, "h w"] | None = None,
    positions: Float[np.ndarray, "h2 w2 2"] | None = None,
) -> Float[Tensor, "{num_bins} h2 w2"]:
    """The same from the intervals between spikes: expected spikes per bin and cell (`represent.profile`).

    Raises ValueError as `exposure_counts` does.
    """
    return place_counts(expected_counts(spikes_Thw, num_bins=num_bins, split=split), bad=bad, positions=positions)


def window_intervals(
    spikes_Thw: UInt8[Tensor, "T h w"],
    shift_ticks: int,
    *,
    num_bins: int,
    split: Split = "whole",
    bad: Bool[np.ndarray, "h w"] | None = None,
    positions: Float[np.ndarray, "h2 w2 2"] | None = None,
) -> tuple[Float[Tensor, "{num_bins} h2 w2"], Float[Tensor, "h2 w2"] | None]:
    """`exposure_intervals` of a window of an exposure's length that begins `shift_ticks` after the exposure does, and
    the exposure's own mean rate (spikes per tick); None without a shift, where the bins tell it.

    The spikes are those of exposure and window together. Raises ValueError as `exposure_counts` does.
    """
    num_ticks = len(spikes_Thw) - abs(shift_ticks)
    exposed, read = (slice(first, first + num_ticks) for first in (max(0, -shift_ticks), max(0, shift_ticks)))
    counts = exposure_intervals(spikes_Thw[read], num_bins=num_bins, split=split, bad=bad, positions=positions)
    if shift_ticks == 0:
        return counts, None
    return counts, exposure_intervals(spikes_Thw[exposed], num_bins=1, bad=bad, positions=positions)[0] / num_ticks


def place_counts(
    counts: Float[Tensor, "S h w"],
    *,
    bad: Bool[np.ndarray, "h w"] | None = None,
    positions: Float[np.ndarray, "h2 w2 2"] | None = None,
) -> Float[Tensor, "S h2 w2"]:
    """Counts of any slices: bad pixels filled, then read at `positions`.

    What was filled or read between pixels is no whole number; it is rounded to float16, in which datasets keep it, so
    that counts from a cache and counts made now are the same.
    """
    if bad is None and positions is None:
        return counts
    if bad is not None:
        counts = repair(counts, torch.from_numpy(bad))
    if positions is not None:
        counts = read_at(counts, torch.from_numpy(positions))
    return counts.to(torch.float16).to(torch.float32)
