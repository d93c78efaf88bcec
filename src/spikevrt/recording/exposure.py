"""One frame's shutter on the recording's clock, as it stands in a sidecar, and what exposures must be like together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spikevrt.typed import require


@dataclass(frozen=True)
class Exposure:
    """One frame's shutter: ticks [start_tick, stop_tick), which is [t0_s, t1_s) of the recording's clock.

    The sharp frame is that of the middle, or of `shift_ticks` after it.
    """

    frame_idx: int
    start_tick: int
    stop_tick: int
    t0_s: float
    t1_s: float
    shift_ticks: int = 0

    @property
    def num_ticks(self) -> int:
        return self.stop_tick - self.start_tick

    @property
    def window(self) -> tuple[int, int]:
        """Ticks [first, last) around the sharp frame, as many as the exposure has: what a network reads."""
        return self.start_tick + self.shift_ticks, self.stop_tick + self.shift_ticks

    @property
    def span(self) -> tuple[int, int]:
        """Ticks [first, last) of the exposure and the window together: `num_ticks` + |`shift_ticks`|."""
        return min(self.start_tick, self.window[0]), max(self.stop_tick, self.window[1])

    def is_inside(self, num_ticks: int) -> bool:
        """Whether it has ticks, and a stream of `num_ticks` has all of them."""
        return 0 <= self.start_tick < self.stop_tick <= num_ticks


def exposure_values(exposure: Exposure) -> dict[str, int | float]:
    """An entry of a sidecar's `exposures`; a shift of 0 is left out."""
    return {name: value for name, value in vars(exposure).items() if name != "shift_ticks" or value}


def check_exposures(sidecar: Path, exposures: Sequence[Exposure], num_ticks: int) -> None:
    """Raises ValueError unless the exposures are in order, do not overlap, and lie inside the stream."""
    if not exposures:
        raise ValueError(f"{sidecar}: no exposures")
    previous: Exposure | None = None
    for index, exposure in enumerate(exposures):
        window = f"ticks [{exposure.start_tick}, {exposure.stop_tick})"
        if not exposure.is_inside(num_ticks):
            raise ValueError(f"{sidecar}: exposures[{index}]: {window}; allowed: inside [0, {num_ticks}), not empty")
        if exposure.window[0] < 0 or exposure.window[1] > num_ticks:
            allowed = f"a window inside [0, {num_ticks})"
            raise ValueError(f"{sidecar}: exposures[{index}]: shift_ticks {exposure.shift_ticks}; allowed: {allowed}")
        if not exposure.t0_s < exposure.t1_s:
            raise ValueError(f"{sidecar}: exposures[{index}]: t0_s {exposure.t0_s} is not before t1_s {exposure.t1_s}")
        if previous is not None and exposure.start_tick < previous.stop_tick:
            raise ValueError(f"{sidecar}: exposures[{index}]: {window} begin before the exposure before it ends")
        if previous is not None and exposure.frame_idx <= previous.frame_idx:
            raise ValueError(f"{sidecar}: exposures[{index}]: frame_idx {exposure.frame_idx} is not in rising order")
        previous = exposure


def check_bad_pixels(pixels: Sequence[tuple[int, int]], height: int, width: int) -> None:
    """`spikes.bad_pixels` of a sidecar, (row, column) each. Raises ValueError for one outside the sensor."""
    for row, column in pixels:
        is_inside = 0 <= row < height and 0 <= column < width
        allowed = f"[row, column] inside {height} rows and {width} columns"
        require(is_inside, "spikes.bad_pixels", [row, column], allowed)
