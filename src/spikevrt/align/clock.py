"""How far the two clocks are apart: what the spikes say of a frame if its exposure began so many ticks later.

Offset and homography are estimated together (`registration.Level`): while the camera moves evenly, a later exposure
looks like a shifted sensor, and only what moves otherwise tells the two apart.

Dimension key: N frames, K knots in time, H and W rows and columns of a frame, h and w those of the sensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from spikevrt.align.registration import Cameras, Fit, Level, begin, num_levels
from spikevrt.recording.sidecar import Exposure
from spikevrt.recording.stream import SpikeStream
from spikevrt.represent.counts import repair

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

READ_TICKS = 64  # of the stream at once
KNOTS = 32  # per exposure
MAX_BYTES = 1 << 28  # of counts in memory; knots lie further apart where they would take more
SCAN_STEPS = 8  # per exposure
STARTS = 3  # offsets of the scan from which the joint fit begins


class ExposureRates:
    """Mean spikes per tick of some exposures, shifted by any (fractional) number of ticks.

    The counts up to a knot every few ticks are kept, so that any window costs four look-ups; between knots they are
    interpolated linearly. The stream is read once, in pieces; what stays is 2 K h w bytes a frame, 256 MiB at most.
    """

    def __init__(
        self,
        stream: SpikeStream,
        exposures: Sequence[Exposure],
        max_offset_ticks: int,
        *,
        bad: Bool[np.ndarray, "h w"] | None = None,
    ) -> None:
        """`max_offset_ticks`: so far either side the stream is read, where it exists."""
        self._bad = None if bad is None or not bad.any() else torch.from_numpy(bad)
        self._windows = [(exposure.start_tick, exposure.stop_tick) for exposure in exposures]
        self._knots: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []
        for start, stop in self._windows:
            first, last = max(0, start - max_offset_ticks), min(stream.num_ticks, stop + max_offset_ticks)
            kind = np.uint16 if last - first < 1 << 16 else np.uint32
            most = MAX_BYTES // len(exposures) // (stream.height * stream.width * np.dtype(kind).itemsize)
            step = max(1, (stop - start) // KNOTS, -(-(last - first) // max(most - 2, 1)))
            knots = [*range(first, last, step), last]
            counts = np.zeros((len(knots), stream.height, stream.width), dtype=kind)
            at_once = max(1, READ_TICKS // step)
            for low in range(0, len(knots) - 1, at_once):
                edges = knots[low : low + at_once + 1]
                counts[low + 1 : low + len(edges)] = stream.count(edges)
            self._knots.append(np.array(knots))
            self._counts.append(np.cumsum(counts, axis=0, dtype=kind))

    @property
    def mean_count(self) -> float:
        """Spikes of a pixel in an exposure, on average over pixels and frames."""
        ticks = np.mean([stop - start for start, stop in self._windows])
        return float(self.at(0.0).mean() * ticks)

    def at(self, offset_ticks: float, *, soft_ticks: float = 0.0) -> Float[np.ndarray, "N h w"]:
        """Rates, float32, bad pixels repaired. A window that leaves what was read is cut short.

        With `soft_ticks` the mean over all offsets within so many ticks: the window opens and closes gradually.
        """
        rates = np.stack([self._rate(number, offset_ticks, soft_ticks) for number in range(len(self._windows))])
        return rates if self._bad is None else repair(torch.from_numpy(rates), self._bad).numpy()

    def change_at(self, offset_ticks: float, *, soft_ticks: float) -> Float[np.ndarray, "N h w"]:
        """The derivative of `at` by the offset: exactly the difference of both ends, over their distance."""
        later, sooner = self.at(offset_ticks + soft_ticks), self.at(offset_ticks - soft_ticks)
        return (later - sooner) / np.float32(2 * soft_ticks)

    def usable(self, low_ticks: float, high_ticks: float) -> list[int]:
        """The frames whose window stays inside what was read for every offset between the two."""
        return [
            number
            for number, ((start, stop), knots) in enumerate(zip(self._windows, self._knots, strict=True))
            if start + low_ticks >= knots[0] and stop + high_ticks <= knots[-1]
        ]

    def _rate(self, number: int, offset_ticks: float, soft_ticks: float) -> np.ndarray:
        knots, counts = self._knots[number], self._counts[number]
        low, high = (float(np.clip(edge + offset_ticks, knots[0], knots[-1])) for edge in self._windows[number])
        gained = _mean_count(knots, counts, high, soft_ticks) - _mean_count(knots, counts, low, soft_ticks)
        return gained / np.float32(max(high - low, 1e-6))


def _mean_count(knots: np.ndarray, counts: np.ndarray, tick: float, soft_ticks: float) -> np.ndarray:
    """The count up to `tick`, linear between knots, averaged over `soft_ticks` either side of it."""
    low, high = max(tick - soft_ticks, knots[0]), min(tick + soft_ticks, knots[-1])
    first = int(np.clip(np.searchsorted(knots, low, side="right") - 1, 0, len(knots) - 2))
    last = int(np.clip(np.searchsorted(knots, high, side="left"), first + 1, len(knots) - 1))
    weights = np.zeros(last - first + 1, dtype=np.float32)
    for left in range(first, last):
        a, b = max(low, knots[left]), min(high, knots[left + 1])
        share = (((a + b) / 2) - knots[left]) / (knots[left + 1] - knots[left])
        part = (b - a) / (high - low) if high > low else 1.0
        weights[left - first] += (1 - share) * part
        weights[left - first + 1] += share * part
    return np.tensordot(weights, counts[first : last + 1].astype(np.float32), axes=1)


@dataclass(frozen=True)
class ClockFit:
    """The joint maximum, over `frames`; what it is worth is computed when asked for. `scan`: (offset, loss of
    correlation against the best) of the coarse search."""

    fit: Fit
    frames: tuple[int, ...]
    scan: tuple[tuple[float, float], ...]
    _search: _Search

    @cached_property
    def offset_sigma_ticks(self) -> float:
        """Standard deviation of the offset by the jackknife, each frame left out in turn; infinite with fewer than two
        frames."""
        return self._search.jackknife(min(1, self._search.second), self.fit, list(self.frames))

    @cached_property
    def sharpness(self) -> float:
        """How many times larger 1 - correlation becomes a quarter of an exposure away, the homography fitted anew; 1
        where the footage does not tell the offset."""
        return self._search.sharpness(self._search.second, self.fit, list(self.frames))


def fit_clock(
    cameras: Cameras,
    light: Float[np.ndarray, "N H W"],
    rates: ExposureRates,
    *,
    exposure_ticks: int,
    max_offset_ticks: int,
    space: bool = True,
    root: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> ClockFit | None:
    """The offset within +-`max_offset_ticks`, and with `space` the homography, from coarse to fine.

    `progress` is called with (fits done, fits in all). None where no two frames can be compared over a range of
    offsets.
    """
    search = _Search(cameras, light, rates, exposure_ticks / SCAN_STEPS, max_offset_ticks, space, root)
    second, num_offsets = search.second, len(search.offsets)
    total = num_offsets + STARTS + second

    def tell(done: int) -> None:
        if progress is not None:
            progress(min(done, total), total)

    scanned = search.scan(tell)
    if not scanned:
        return None
    scan = tuple((offset, loss) for loss, offset, _ in scanned)
    fits = []
    for number, (_, offset, p) in enumerate(sorted(scanned, key=lambda one: one[0])[:STARTS], 1):
        reached = search.climb(second, p, offset)
        tell(num_offsets + number)
        if reached is not None:
            fits.append(reached)
    if not fits:
        return None
    fit, frames = max(fits, key=lambda one: one[0].score)
    for number in reversed(range(second)):
        finer = search.climb(number, fit.p, fit.offset_ticks)
        if finer is None:
            return None
        fit, frames = finer
        tell(total - number)
    return ClockFit(fit, tuple(frames), scan, search)


@dataclass(frozen=True)
class _Search:
    cameras: Cameras
    light: np.ndarray
    rates: ExposureRates
    step_ticks: float
    max_offset_ticks: int
    space: bool
    root: bool

    @property
    def second(self) -> int:
        """The coarsest level but one, where the joint fit begins."""
        return max(0, num_levels(self.cameras) - 2)

    @property
    def offsets(self) -> list[float]:
        """The grid on which the coarse search looks."""
        reach = int(np.ceil(self.max_offset_ticks / self.step_ticks))
        most = self.max_offset_ticks
        return [float(np.clip(k * self.step_ticks, -most, most)) for k in range(-reach, reach + 1)]

    def scan(self, tell: Callable[[int], None]) -> list[tuple[float, float, np.ndarray]]:
        """(loss, offset, p) on a grid of offsets, at the coarsest level.

        Frames at the ends of the stream are not there at every offset, so a frame's correlation is judged against its
        own best.
        """
        level = self._level(num_levels(self.cameras) - 1)
        start = begin(level, 0.0) if self.space else np.zeros(8)
        found = []
        for number, offset in enumerate(self.offsets, 1):
            frames = self.rates.usable(offset, offset)
            if len(frames) >= 2:
                found.append((offset, frames, level.fit(start, offset, space=self.space, frames=frames)))
            tell(number)
        best: dict[int, float] = {}
        for _, frames, fit in found:
            for frame, value in zip(frames, fit.correlation, strict=True):
                best[frame] = max(best.get(frame, -1.0), float(value))
        return [
            (float(np.mean([best[f] - c for f, c in zip(frames, fit.correlation, strict=True)])), offset, fit.p)
            for offset, frames, fit in found
        ]

    def climb(self, level_number: int, p: np.ndarray, offset: float) -> tuple[Fit, list[int]] | None:
        """The joint maximum near `offset`: over frames that are there all around it; it moves on where it must."""
        level = self._level(level_number)
        result = None
        for _ in range(4):
            low, high = offset - self.step_ticks, offset + self.step_ticks
            frames = self.rates.usable(low - self.soft_ticks, high + self.soft_ticks)
            if len(frames) < 2:
                return result
            low, high = max(low, -self.max_offset_ticks - 0.5), min(high, self.max_offset_ticks + 0.5)
            fit = level.fit(p, offset, space=self.space, time=True, ticks=(low, high), frames=frames)
            result, p, offset = (fit, frames), fit.p, fit.offset_ticks
            is_at_bound = min(offset - low, high - offset) < 0.02 * self.step_ticks
            if not is_at_bound or abs(offset) > self.max_offset_ticks:
                return result
        return result

    def jackknife(self, level_number: int, fit: Fit, frames: list[int]) -> float:
        level, num = self._level(level_number), len(frames)
        ticks = (fit.offset_ticks - 2 * self.step_ticks, fit.offset_ticks + 2 * self.step_ticks)
        offsets = [
            level.fit(
                fit.p, fit.offset_ticks, space=self.space, time=True, ticks=ticks, rounds=1,
                frames=[other for other in frames if other != left_out],
            ).offset_ticks
            for left_out in frames
        ]  # fmt: skip
        return float(np.std(offsets) * (num - 1) ** 0.5)

    def sharpness(self, level_number: int, fit: Fit, frames: list[int]) -> float:
        level, ratios = self._level(level_number), []
        for aside in (-2 * self.step_ticks, 2 * self.step_ticks):
            offset = fit.offset_ticks + aside
            low, high = sorted((offset, fit.offset_ticks))
            shared = [i for i in self.rates.usable(low - self.soft_ticks, high + self.soft_ticks) if i in frames]
            if len(shared) >= 2:
                here, there = (
                    level.fit(fit.p, at, space=self.space, frames=shared).score for at in (fit.offset_ticks, offset)
                )
                ratios.append((1 - there) / max(1 - here, 1e-9))
        return float(np.mean(ratios)) if ratios else 1.0

    def _level(self, number: int) -> Level:
        soft = self.soft_ticks
        return Level(
            self.cameras, self.light, lambda d: self.rates.at(d, soft_ticks=soft), number, root=self.root,
            change_at=lambda d: self.rates.change_at(d, soft_ticks=soft),
        )  # fmt: skip

    @property
    def soft_ticks(self) -> float:
        return max(1.0, self.step_ticks)
