"""How fast the two clocks run apart: each frame's own time offset, from the first frames to the last, and a line.

Quartz clocks differ by up to some hundred millionths, which is nothing within a second and whole exposures within a
minute. So the offset is followed from a stretch in which it hardly changes to stretches four times as long.

Dimension key: N frames, H and W rows and columns of a frame, h and w those of the sensor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spikevrt.align.clock import ExposureRates
from spikevrt.align.compare import linear_luminance
from spikevrt.align.registration import Cameras, Level, resized
from spikevrt.recording.recording import Recording
from spikevrt.recording.sidecar import Exposure

if TYPE_CHECKING:
    from jaxtyping import Float

MAX_DRIFT = 2e-4  # a clock that is off by more is broken, or the stated rate is wrong
FEWEST_FRAMES = 4  # whose offsets make a line that can be trusted
SIGNIFICANT = 3.0  # standard deviations
LEAST_TICKS = 1.0  # over the whole recording; less moves nothing
GROWTH = 4


@dataclass(frozen=True)
class Drift:
    """A line of offsets: `offset_ticks` at tick 0 of the stream, growing by `per_tick`, known to `sigma_per_tick`;
    `ticks`: from the first to the last frame looked at."""

    offset_ticks: float
    per_tick: float
    sigma_per_tick: float
    ticks: int

    @property
    def is_significant(self) -> bool:
        """Whether it is more than chance, and moves anything."""
        moved = abs(self.per_tick) * self.ticks
        return abs(self.per_tick) > SIGNIFICANT * self.sigma_per_tick and moved >= LEAST_TICKS


def steady_frames(recording: Recording, exposure_ticks: int, most: int) -> list[int]:
    """Up to `most` frames inside the stream, evenly over the longest stretch from the first on in which a drift moves
    the offset by less than a quarter of an exposure."""
    inside = [index for index in range(recording.num_frames) if recording.is_inside(index)]
    return _spread(recording, inside, exposure_ticks / 4 / MAX_DRIFT, most)


def _spread(recording: Recording, inside: Sequence[int], span_ticks: float, most: int) -> list[int]:
    first = recording.exposures[inside[0]].start_tick
    near = [index for index in inside if recording.exposures[index].start_tick - first <= span_ticks]
    return [near[int(at)] for at in np.linspace(0, len(near) - 1, min(most, len(near))).round()]


def frames_light(recording: Recording, chosen: Sequence[int], cameras: Cameras) -> Float[np.ndarray, "N h w"]:
    """The linear luminance of frames, at the sensor's size."""
    size = cameras.sensor_height, cameras.sensor_width
    return np.concatenate([resized(linear_luminance(recording.read_blur(index))[None], *size) for index in chosen])


def fit_drift(
    recording: Recording, cameras: Cameras, p: Float[np.ndarray, " 8"], offset_ticks: float, *, root: bool, most: int
) -> Drift | None:
    """The line of offsets over all of a recording, from the registration `p` and the offset of its first stretch; None
    where too few frames tell."""
    assert recording.spikes is not None
    inside = [index for index in range(recording.num_frames) if recording.is_inside(index)]
    exposures = recording.exposures
    exposure_ticks = int(np.median([exposures[index].num_ticks for index in inside]))
    whole = exposures[inside[-1]].start_tick - exposures[inside[0]].start_tick
    span, line = exposure_ticks / 4 / MAX_DRIFT, Drift(offset_ticks, 0.0, np.inf, 0)
    while True:
        chosen = _spread(recording, inside, span, most)
        if len(chosen) < FEWEST_FRAMES:
            return None
        starts = np.array([exposures[index].start_tick for index in chosen], dtype=float)
        expected = line.offset_ticks + line.per_tick * starts
        moved = [shifted(exposures[i], round(by)) for i, by in zip(chosen, expected, strict=True)]
        reach = -(-exposure_ticks // 2)
        rates = ExposureRates(recording.spikes, moved, reach, bad=recording.bad_mask())
        level = Level(
            cameras, frames_light(recording, chosen, cameras), lambda d, r=rates: r.at(d, soft_ticks=2.0), 0,  # type: ignore[misc]
            change_at=lambda d, r=rates: r.change_at(d, soft_ticks=2.0), root=root,  # type: ignore[misc]
        )  # fmt: skip
        usable = rates.usable(-reach / 2, reach / 2)
        found = [
            level.fit(p, 0.0, space=False, time=True, ticks=(-reach / 2, reach / 2), rounds=1, frames=[one])
            for one in usable
        ]
        offsets = np.rint(expected[usable]) + [fit.offset_ticks for fit in found]
        fitted = _line(starts[usable], offsets)
        if fitted is None:
            return None
        line = fitted
        if span >= whole:
            return line
        span *= GROWTH


def _line(starts: Float[np.ndarray, " N"], offsets: Float[np.ndarray, " N"]) -> Drift | None:
    """Least squares, without the frames that lie far off the line of the median slope (Theil and Sen)."""
    one, two = np.triu_indices(len(starts), k=1)
    if len(starts) < FEWEST_FRAMES or (starts[one] == starts[two]).any():
        return None
    slope = np.median((offsets[two] - offsets[one]) / (starts[two] - starts[one]))
    rest = offsets - slope * starts
    rest -= np.median(rest)
    kept = np.abs(rest) <= max(SIGNIFICANT * 1.4826 * float(np.median(np.abs(rest))), 1e-3)
    if kept.sum() < FEWEST_FRAMES:
        return None
    starts, offsets = starts[kept], offsets[kept]
    slope, at_zero = np.polyfit(starts, offsets, 1)
    error = float(np.sqrt(((offsets - at_zero - slope * starts) ** 2).sum() / (len(starts) - 2)))
    sigma = error / float(np.sqrt(((starts - starts.mean()) ** 2).sum()))
    return Drift(float(at_zero), float(slope), sigma, int(np.ptp(starts)))


def shifted(exposure: Exposure, ticks: int) -> Exposure:
    """The exposure so many ticks later; its seconds stay."""
    return dataclasses.replace(exposure, start_tick=exposure.start_tick + ticks, stop_tick=exposure.stop_tick + ticks)
