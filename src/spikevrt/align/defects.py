"""What is wrong with a stream by itself: pixels that are dead, hot or stuck, ticks that are empty or missing.

Pixels are judged against their neighbours, and, where there are frames, against the light that they saw: what the frame
shows too is no fault of the sensor. Ticks are looked at in one pass: a pixel in steady light fires at even intervals,
and where ticks are missing, the intervals of all pixels break at once.

Dimension key: T ticks, h sensor rows, w sensor columns, S slices of time, P probed pixels, B borders between ticks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from spikevrt.formats.voxel_files import VoxelStream
from spikevrt.recording.stream import JoinedStream, SpikeStream

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Integer, UInt8

FEW_SPIKES = 10  # what the neighbourhood must fire before a silent pixel counts as dead, and a hot pixel's least excess
LIT_SPIKES = 5  # what the frames must promise around a silent pixel, else it may be a dark line or dot
BLOCK_SPIKES = 20  # what the frame must promise before a silent region counts as dead
HOT_FACTOR = 3.0
DARK_LIGHT = 0.02  # of full light: a frame this dark shows no bright point
STEADY_RATE = 0.98  # of all ticks: fires whatever happens
LOWEST, MEDIAN, HIGHEST = 0, 12, -1  # ranks; the median of 5 x 5 values
# Of a pixel and its 8 neighbours. Where the pixel itself is highest, the third is the second highest neighbour; where
# it is lowest, all but two neighbours reach the fourth.
THIRD_HIGHEST, FOURTH_LOWEST = -3, 3
VARIED_SPIKES = 8  # spikes by which the neighbours must vary between slices before a constant pixel is stuck


def find_dead(
    counts: Integer[np.ndarray, "h w"], expected: Float[np.ndarray, "h w"] | None = None
) -> Bool[np.ndarray, "h w"]:
    """Pixels that never fire where they should.

    A pixel: silent although the median of its 5 x 5 neighbourhood fires 10 times or more, unless the frames promise
    fewer than 5 spikes there or right beside it. A region: silent although the frames promise 20 spikes or more at each
    pixel and around it. `expected` is what the frames promise, in spikes, NaN where not known.
    """
    silent = counts == 0
    dead = silent & (_around(counts, 2, MEDIAN) >= FEW_SPIKES)
    if expected is None:
        return dead
    lit = _around(_known(expected, np.inf), 1, LOWEST) >= LIT_SPIKES
    return (dead & lit) | (silent & (_around(_known(expected, 0.0), 1, LOWEST) >= BLOCK_SPIKES))


def find_hot(
    counts: Integer[np.ndarray, "h w"], expected: Float[np.ndarray, "h w"] | None = None
) -> Bool[np.ndarray, "h w"]:
    """Pixels that fire 3 times as often, and 10 spikes more, than all but one of their 8 neighbours, and of the 8 that
    lie two pixels away (of its own colour, were this a Bayer sensor), and 2 times as often as the frames promise
    (infinitely many: whatever it does is sound)."""
    hot = (counts > HOT_FACTOR * _around(counts, 1, THIRD_HIGHEST) + FEW_SPIKES) & (
        counts > HOT_FACTOR * _around(counts, 2, THIRD_HIGHEST, every=2) + FEW_SPIKES
    )
    return hot if expected is None else hot & (counts > 2 * _promised(expected) + FEW_SPIKES)


def find_stuck(
    counts: Integer[np.ndarray, "h w"],
    slices: Integer[np.ndarray, "S h w"],
    num_ticks: int,
    expected: Float[np.ndarray, "h w"] | None = None,
    expected_span: Float[np.ndarray, "h w"] | None = None,
) -> Bool[np.ndarray, "h w"]:
    """Pixels that fire on, whatever happens around them.

    At almost every tick, while no more than one neighbour does so even 80 % of the time and the frames promise less; or
    as many spikes (within one) in every slice of time, while six of its eight neighbours, next to it and two pixels
    away, vary by 8 or more, and the frames promise that it varies so too (`expected_span`: highest less lowest number
    of spikes in a slice, NaN where not known): after a cut between two scenes, a sound pixel may be alike in both.
    """
    always = (
        (counts >= STEADY_RATE * num_ticks)
        & (_around(counts, 1, THIRD_HIGHEST) < 0.8 * num_ticks)
        & (_around(counts, 2, THIRD_HIGHEST, every=2) < 0.8 * num_ticks)
    )
    if expected is not None:
        always &= _promised(expected) < 0.7 * num_ticks
    if num_ticks < FEW_SPIKES:
        always[:] = False
    span = slices.max(axis=0).astype(np.int64) - slices.min(axis=0)
    steady = (span <= 1) & (counts > 0) & (_around(span, 1, FOURTH_LOWEST) >= VARIED_SPIKES)
    steady &= _around(span, 2, FOURTH_LOWEST, every=2) >= VARIED_SPIKES
    if expected_span is not None:
        steady &= _around(_known(expected_span, np.inf), 1, LOWEST) >= VARIED_SPIKES
    return always | steady


def find_shown(light: Float[np.ndarray, "h w"], clipped: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Where the frame itself shows a bright point (3 times its 5 x 5 neighbourhood's median) or is clipped by light.

    `light` is linear, 1 is full light; `clipped` is the share of the cell whose frame pixels are.
    """
    return (light > HOT_FACTOR * _around(light, 2, MEDIAN) + DARK_LIGHT) | ((clipped > 0) & (light > DARK_LIGHT))


def _promised(expected: np.ndarray) -> np.ndarray:
    """The most that the frames promise within one pixel; nothing where they tell nothing."""
    return _around(_known(expected, 0.0), 1, HIGHEST)


def _known(expected: np.ndarray, otherwise: float) -> np.ndarray:
    return np.where(np.isnan(expected), np.float32(otherwise), expected)


def _around(values: np.ndarray, radius: int, rank: int, *, every: int = 1) -> np.ndarray:
    """The value of that rank, counted from the lowest (0) or the highest (-1), among the (2 radius + 1)^2 around each
    pixel (mirrored at the border), or among those of `every` second row and column: of its own colour, in a Bayer
    sensor. 64 rows at a time."""
    size = 2 * radius + 1
    padded = np.pad(values, radius, mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size))[..., ::every, ::every]
    blocks = [windows[row : row + 64].copy() for row in range(0, len(values), 64)]
    flat = [block.reshape(-1, values.shape[1], block.shape[2] * block.shape[3]) for block in blocks]
    for one in flat:
        one.partition(rank, axis=-1)
    return np.concatenate([one[..., rank] for one in flat])


CHUNK_BITS = 1 << 25  # pixels times ticks that are unpacked at once
MAX_PROBES = 4096  # pixels whose intervals are looked at, evenly spread
LEAST_INTERVAL_TICKS = 4  # shorter ones cannot show a break
LEAST_WITNESSES = 60  # intervals across a border, fewer tell nothing; half of them in each half of the sensor
BREAK_SHARE = 0.4  # of the intervals across a border, in each half
SEARCH_TICKS, OVERLAP_TICKS = 4096, 128  # of one search for breaks, and of two that follow each other
NEAR_TICKS = 24  # either side: motion breaks intervals too, but over many ticks and not at once


@dataclass(frozen=True)
class Scan:
    """What one pass over the windows [start, stop) found."""

    windows: tuple[tuple[int, int], ...]
    counts: Int[np.ndarray, "h w"]
    spikes_per_tick: Int[np.ndarray, " T"]  # of all windows, one after the other
    breaks: tuple[int, ...]  # ticks at which time jumps
    num_witnesses: int  # intervals that could have shown a break, over all borders

    @property
    def num_ticks(self) -> int:
        return len(self.spikes_per_tick)

    @property
    def ticks(self) -> Int[np.ndarray, " T"]:
        """The number of each tick of `spikes_per_tick` in the stream."""
        return np.concatenate([np.arange(start, stop) for start, stop in self.windows])

    @property
    def num_empty(self) -> int:
        return int((self.spikes_per_tick == 0).sum())


def scan(
    stream: SpikeStream, windows: Sequence[tuple[int, int]], progress: Callable[[int, int], None] | None = None
) -> Scan:
    """Read the windows once, in bounded memory; `progress` is called with (ticks done, ticks in all).

    Empty and overlapping windows are the caller's mistake.
    """
    assert windows and all(start < stop for start, stop in windows), windows
    counts = np.zeros((stream.height, stream.width), dtype=np.int64)
    step = min(max(1, CHUNK_BITS // (stream.height * stream.width)), np.iinfo(np.uint16).max)
    stride = max(1, int(np.ceil((stream.height * stream.width / MAX_PROBES) ** 0.5)))
    per_tick: list[np.ndarray] = []
    breaks: list[int] = []
    num_witnesses = num_read = 0
    num_ticks = sum(stop - start for start, stop in windows)
    for start, stop in _without_joints(stream, windows):
        probes = _Probes(start)
        for first in range(start, stop, step):
            spikes = stream.read(first, min(first + step, stop))
            counts += spikes.sum(axis=0, dtype=np.uint16)
            per_tick.append(spikes.reshape(len(spikes), -1).sum(axis=1, dtype=np.int64))
            num_read += len(spikes)
            if progress is not None:
                progress(num_read, num_ticks)
            probes.add(spikes[:, stride // 2 :: stride, stride // 2 :: stride].reshape(len(spikes), -1))
        probes.search(is_last=True)
        breaks += probes.breaks
        num_witnesses += probes.num_witnesses
    return Scan(tuple(windows), counts, np.concatenate(per_tick), tuple(breaks), num_witnesses)


def _without_joints(stream: SpikeStream, windows: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The windows, parted where two files of a stream meet: between them the camera may have paused. So are the bins of
    precomputed voxels, whose ticks have no rhythm of their own."""
    joints = list(_joints(stream, 0))
    for start, stop in windows:
        yield from pairwise([start, *(tick for tick in joints if start < tick < stop), stop])


def _joints(stream: SpikeStream, first: int) -> Iterator[int]:
    if isinstance(stream, JoinedStream):
        for one, start in zip(stream.streams, stream.starts, strict=False):
            yield first + start
            yield from _joints(one, first + start)
    elif isinstance(stream, VoxelStream):
        yield from range(first + stream.ticks_per_bin, first + stream.num_ticks, stream.ticks_per_bin)


class _Probes:
    """The probed pixels of one window; searched in blocks of about SEARCH_TICKS that overlap, so memory is bounded.

    Near a block's ends breaks are uncertain: each half of an overlap belongs to the block that it lies deeper inside.
    """

    def __init__(self, start: int) -> None:
        self.start, self.num_ticks, self.is_first = start, 0, True
        self.pieces: list[np.ndarray] = []
        self.breaks: list[int] = []
        self.num_witnesses = 0

    def add(self, spikes: UInt8[np.ndarray, "T P"]) -> None:
        if self.num_ticks >= SEARCH_TICKS:
            self.search(is_last=False)
        self.pieces.append(spikes.copy())
        self.num_ticks += len(spikes)

    def search(self, *, is_last: bool) -> None:
        block = np.concatenate(self.pieces)
        found, num_witnesses = find_breaks_in(block)
        first = 0 if self.is_first else OVERLAP_TICKS // 2
        last = len(block) if is_last else len(block) - OVERLAP_TICKS // 2
        self.breaks += [self.start + tick for tick in found if first <= tick < last]
        self.num_witnesses += num_witnesses
        keep = min(OVERLAP_TICKS, len(block))
        self.start += len(block) - keep
        self.pieces, self.num_ticks, self.is_first = [block[len(block) - keep :]], keep, False


def find_breaks_in(spikes: UInt8[np.ndarray, "T P"]) -> tuple[list[int], int]:
    """Ticks b such that time jumps between tick b - 1 and b, and how many intervals bore witness.

    An interval is a witness when those before and after it agree within one tick and last 4 ticks or more; it is broken
    when it differs from both by more than one. At a jump of g ticks about all witnesses break whose interval does not
    divide g. The pixels are parted in two halves with equally many witnesses, in their order, and both must break: what
    moves in one part of the picture is no jump. Of neighbouring borders that pass (an interval spans several) the one
    with the largest share stands.
    """
    pixel, tick = np.nonzero(spikes.T)
    num_ticks = len(spikes)
    inside = (pixel[3:] == pixel[:-3]) if len(pixel) > 3 else np.zeros(0, dtype=bool)
    interval = np.diff(tick)
    before, own, after = (interval[k : len(interval) - 2 + k][inside] for k in range(3)) if len(inside) else ([],) * 3
    before, own, after = np.asarray(before), np.asarray(own), np.asarray(after)
    if not len(own):
        return [], 0
    opens, closes = tick[1:-2][inside], tick[2:-1][inside]
    is_witness = (np.abs(before - after) <= 1) & (np.minimum(before, after) >= LEAST_INTERVAL_TICKS)
    is_broken = is_witness & ((own < np.minimum(before, after) - 1) | (own > np.maximum(before, after) + 1))
    owner = pixel[3:][inside]
    is_early = owner < np.median(owner[is_witness]) if is_witness.any() else is_witness
    early, late = (
        _shares(opens, closes, is_witness & half, is_broken & half, num_ticks, LEAST_WITNESSES // 2)
        for half in (is_early, ~is_early)
    )
    share = _shares(opens, closes, is_witness, is_broken, num_ticks, LEAST_WITNESSES)
    near = np.lib.stride_tricks.sliding_window_view(np.pad(share, NEAR_TICKS, mode="symmetric"), 2 * NEAR_TICKS + 1)
    passing = np.flatnonzero(np.minimum(early, late) >= BREAK_SHARE)
    passing = passing[share[passing] > 2 * np.median(near[passing], axis=1)]
    groups = np.split(passing, np.flatnonzero(np.diff(passing) > 2 * LEAST_INTERVAL_TICKS) + 1) if len(passing) else []
    return [int(group[share[group].argmax()]) for group in groups], int(is_witness.sum())


def _shares(
    opens: np.ndarray, closes: np.ndarray, is_witness: np.ndarray, is_broken: np.ndarray, num_ticks: int, least: int
) -> Float[np.ndarray, " B"]:
    """For each border the broken share of the witnesses across it; 0 where they are fewer than `least`."""
    witnesses = _crossings(opens[is_witness], closes[is_witness], num_ticks)
    broken = _crossings(opens[is_broken], closes[is_broken], num_ticks)
    return np.divide(broken, witnesses, out=np.zeros(num_ticks + 1), where=witnesses >= least)


def _crossings(opens: np.ndarray, closes: np.ndarray, num_ticks: int) -> Int[np.ndarray, " B"]:
    """For each border b (before tick b) the number of intervals with opens < b <= closes."""
    change = np.bincount(opens + 1, minlength=num_ticks + 2) - np.bincount(closes + 1, minlength=num_ticks + 2)
    return change.cumsum()[: num_ticks + 1]
