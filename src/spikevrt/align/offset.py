"""A hint at a time offset, cheap enough for every recording: when would the spikes fit each frame best?

For a few frames the spikes of windows that begin earlier and later than the exposure are correlated with the frame; a
parabola through the best three says when. Frames that agree, each by its own motion, tell an offset, and how well they
agree tells its error. `clock` measures it, together with the registration.

Dimension key: F frames, S shifts in time, h w rows and columns of the compared pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spikevrt.align.pairing import Pairs, detail, registered
from spikevrt.recording.recording import Recording

if TYPE_CHECKING:
    from jaxtyping import Float

STEPS = 16  # of an exposure, between two shifts
REACH = STEPS // 2  # steps either way: half an exposure
REACH_PX = 3  # one shift in space, the same for all frames: the cameras may not be registered yet
COMPARED_PX = 160  # longer side, at most; larger pictures are reduced by a whole factor


@dataclass(frozen=True)
class OffsetHint:
    """How many ticks later each frame's spikes would fit it best, the length of an exposure, and mean correlations."""

    ticks: Float[np.ndarray, " F"]
    exposure_ticks: int
    correlation: float  # with every frame's spikes taken so much later, by their mean
    correlation_at_0: float

    @property
    def offset_ticks(self) -> float:
        return float(self.ticks.mean())

    @property
    def error_ticks(self) -> float:
        """Standard error of `offset_ticks`; infinite for a single frame."""
        num = len(self.ticks)
        return float(self.ticks.std(ddof=1) / num**0.5) if num > 1 else float("inf")


def offset_hint(recording: Recording, pairs: Pairs) -> OffsetHint | None:
    """From those of the paired frames that have half an exposure of spikes before them and behind them.

    A frame that is flat, or one of whose windows is (it holds no spike), tells nothing and is left out. None where none
    is left, exposures differ in length or have fewer than STEPS ticks.
    """
    assert recording.spikes is not None
    lengths = {recording.exposures[index].num_ticks for index in pairs.frames}
    step = min(lengths) // STEPS
    if len(lengths) != 1 or step < 1:
        return None
    num_ticks = STEPS * step  # of an exposure, without what does not divide
    correlations = []
    for light, index in zip(pairs.luminance, pairs.frames, strict=True):
        exposure = recording.exposures[index]
        middle = (exposure.start_tick + exposure.stop_tick) // 2
        first, last = middle - num_ticks, middle + num_ticks
        if first < 0 or last > recording.num_ticks or last - first >= 1 << 16:
            continue
        slices = recording.spikes.count(range(first, last + 1, step)).astype(np.float32)
        sums = np.concatenate([np.zeros_like(slices[:1]), slices.cumsum(axis=0)])
        moved = registered(recording, sums[STEPS:] - sums[:-STEPS])
        found = _correlations(moved, light)
        if found is not None:
            correlations.append(found)
    if not correlations:
        return None
    scores = _best_in_common(np.stack(correlations))
    ticks = np.array([_peak(frame) for frame in scores]) * step
    return OffsetHint(ticks, min(lengths), float(scores.mean(axis=0).max()), float(scores[:, REACH].mean()))


def _correlations(
    moved: Float[np.ndarray, "S h w"], light: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, "S y x"] | None:
    """Of each window with the frame, for every shift in space of up to REACH_PX pixels (wrapped round).

    None where the frame or a window is flat, so that nothing correlates with it.
    """
    fixed = _centred(_reduced(light))
    found = []
    for one in moved:
        moving = _centred(_reduced(one))
        size = np.sqrt((fixed**2).sum() * (moving**2).sum())
        if not size > 0:
            return None
        product = np.fft.irfft2(np.fft.rfft2(moving).conj() * np.fft.rfft2(fixed), s=fixed.shape) / size
        found.append(np.roll(product, (REACH_PX, REACH_PX), axis=(0, 1))[: 2 * REACH_PX + 1, : 2 * REACH_PX + 1])
    return np.stack(found)


def _best_in_common(correlations: Float[np.ndarray, "F S y x"]) -> Float[np.ndarray, "F S"]:
    """At each shift in time the shift in space that fits all frames together best."""
    flat = correlations.reshape(*correlations.shape[:2], -1)
    best = flat.mean(axis=0).argmax(axis=1)
    return np.take_along_axis(flat, best[None, :, None], axis=2)[..., 0]


def _peak(scores: Float[np.ndarray, " S"]) -> float:
    """Where the maximum lies, in steps from the middle, by a parabola; at an end the end."""
    best = int(scores.argmax())
    if best in (0, len(scores) - 1):
        return float(best - REACH)
    before, at, after = scores[best - 1 : best + 2]
    curve = before - 2 * at + after
    return best - REACH + (float((before - after) / (2 * curve)) if curve < 0 else 0.0)


def _centred(picture: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    fine = detail(picture)
    return fine - fine.mean()


def _reduced(picture: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    times = -(-max(picture.shape) // COMPARED_PX)
    height, width = (size // times for size in picture.shape)
    cells = picture[: height * times, : width * times].reshape(height, times, width, times)
    return cells.mean(axis=(1, 3))
