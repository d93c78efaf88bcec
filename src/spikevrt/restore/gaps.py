"""Which exposures of a recording have no usable spikes: outside the stream, or with too many of their ticks lost.

A lost stretch holds no spike at all; so do ticks in the dark. In the dark, empty ticks come as dice fall: one follows
a live tick as often as it follows an empty one. That share is taken from the ticks behind live ones, to which a lost
stretch, however long, adds only once. A run of empty ticks that such dice would hardly throw was lost. (A sensor all of
whose pixels fire in step would be misread; pixels of real ones differ, and ours start at random phases.)

Dimension key: T ticks.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from spikevrt.recording.recording import Recording
from spikevrt.recording.stream import live_ticks

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

MAX_LOST_SHARE = 0.05  # of an exposure: six ticks of 128, which dim it by a twentieth, as a gain would
LEAST_LOST_TICKS = 4  # shorter runs are dropped ticks, one by one, however bright the scene
CHANCE = 1e-4  # that the dark throws a run taken for a loss anywhere in the ticks looked at


def has_usable_spikes(recording: Recording, index: int) -> bool:
    """Whether the spikes of exposure `index` can be used: it lies inside the stream, holds a spike, and at most
    MAX_LOST_SHARE of its ticks were lost in stretches (`lost_ticks`).

    The exposure is read, packed where it lies packed; half of its length either side only where it has too many empty
    ticks. False for a recording without spikes. Dark scenes are usable as long as anything fires; where hardly one tick
    in ten is live, a stretch of half an exposure can no longer be told from the dark, and is used.
    """
    exposure, stream = recording.exposures[index], recording.spikes
    if stream is None or not recording.is_inside(index):
        return False
    live = live_ticks(stream, exposure.start_tick, exposure.stop_tick)
    most = MAX_LOST_SHARE * exposure.num_ticks
    if not live.any():
        return False
    if (~live).sum() <= most:
        return True
    half = exposure.num_ticks // 2
    first, last = max(0, exposure.start_tick - half), min(stream.num_ticks, exposure.stop_tick + half)
    before = live_ticks(stream, first, exposure.start_tick)
    lost = lost_ticks(np.concatenate([before, live, live_ticks(stream, exposure.stop_tick, last)]))
    return bool(lost[len(before) : len(before) + len(live)].sum() <= most)


def lost_ticks(live: Bool[np.ndarray, " T"]) -> Bool[np.ndarray, " T"]:
    """Which ticks lie in a run of empty ones that was lost, for ticks in a row of which each is live or empty."""
    starts, stops = _empty_runs(live)
    num_live = int(live.sum())
    lost = np.zeros(len(live), dtype=bool)
    if not num_live or not len(starts):
        return lost
    share = min(len(starts) / (num_live + 1), 1.0)  # of the ticks behind a live one (or at the start), those empty
    if share == 1.0:  # every live tick stands alone: as after a flash, or all pixels in step
        return lost
    least = max(LEAST_LOST_TICKS, math.log(CHANCE / len(live)) / math.log(share))
    for start, stop in zip(starts, stops, strict=True):
        if stop - start >= least:
            lost[start:stop] = True
    return lost


def _empty_runs(live: Bool[np.ndarray, " T"]) -> tuple[Int[np.ndarray, " R"], Int[np.ndarray, " R"]]:
    """Starts and ends of the runs of empty ticks."""
    change = np.diff(np.concatenate([[1], live.astype(np.int8), [1]]))
    return np.flatnonzero(change == -1), np.flatnonzero(change == 1)
