"""From measured facts to verdicts: one function a finding, each one sentence that says what to do.

"ok": nothing that the shipped weights do not tolerate. "bad": more than that, for certain; it refuses, and the sentence
names what mends it. "cannot tell": neither is certain; the sentence says what would tell. docs/health.md has what the
weights tolerate. Nothing is read here; every number is finite, and what cannot be measured is left out.

Dimension key: F sampled frames, T scanned ticks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from spikevrt.align.defects import Scan
from spikevrt.align.misfit import LEAST_FRAMES, Displacement, TimeOffset
from spikevrt.align.pairing import MATCHED, ORIENTATIONS, TURNS, ColourEvidence
from spikevrt.recording.sidecar import Exposure
from spikevrt.typed import amount

if TYPE_CHECKING:
    from jaxtyping import Float

Verdict = Literal["ok", "cannot tell", "bad"]
VERDICTS: tuple[Verdict, ...] = ("ok", "cannot tell", "bad")  # the worst last

FULL_RATE = 0.98  # above it almost nothing is known about the light
SPARSE_RATE = 0.001
MANY_BAD, TOO_MANY_BAD = 0.05, 0.2  # of all pixels
GAIN_RANGE = (0.75, 1.34)  # about the gain that recordings are simulated at, and the shipped weights are trained at
GAIN_DRIFT = 1.25
FIT, MARGIN = 0.3, 0.12  # of orientation scores
SAME = 0.75  # of the spikes' likeness to themselves: the same scene resembles the frames better
TURNED, TURN_ERRORS = -0.4, 4.0  # of the colours' ratio: this far from +1, and so many standard errors below 0
MOST_EMPTY = 1 / 3
LEAST_PER_TICK = 15  # spikes a tick; with fewer an empty tick may be chance
TOLERATED_PX, HARMFUL_PX = (
    0.5,
    1.0,
)  # of displacement: bad is surely more than the first, ok surely less than the second
TOLERATED_SHARE, HARMFUL_SHARE = 1 / 32, 1 / 16  # of an exposure: the same of a time offset
TOLERATED_TICKS, HARMFUL_TICKS = 1, 3  # of a short exposure: fewer ticks are not measured so well
LIKELIER = 0.15  # of what correlation lacks to 1 (and at least LEAST_LIKELIER): frames that each fit so much better at
LEAST_LIKELIER = 0.005  # a time of their own are timed wrongly
SURE = 2.6  # standard errors: one-sided, 1 in 100 (Student's t of 15 parts)
AGREEMENT = {
    2: 63.66,
    3: 9.92,
    4: 5.84,
    5: 4.60,
}  # frames: standard errors that chance exceeds once in 100 (Student's t)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: the verdict, one sentence, and the numbers behind it.

    `matters` is False where not to know it is no reason to doubt the recording (the order of channels of a grey scene).
    """

    name: str
    verdict: Verdict
    sentence: str
    numbers: dict[str, float] = field(default_factory=dict)
    matters: bool = True

    def __post_init__(self) -> None:
        assert all(np.isfinite(value) for value in self.numbers.values()), self


def judge_spikes(scan: Scan) -> Finding:
    rate = float(scan.counts.mean() / scan.num_ticks)
    numbers = {"mean_rate": rate, "num_ticks": float(scan.num_ticks)}
    if rate == 0:
        return Finding("spikes", "bad", f"no spike in {scan.num_ticks} ticks: the wrong file or format", numbers)
    if rate >= FULL_RATE:
        sentence = f"{rate:.3f} of all pixels fire at every tick, so the light is not known; capture with less light"
        return Finding("spikes", "bad", sentence, numbers)
    if rate < SPARSE_RATE:
        sentence = f"only {rate:.6f} spikes per pixel and tick: hardly any light; a brighter recording would tell"
        return Finding("spikes", "cannot tell", sentence, numbers)
    return Finding("spikes", "ok", f"{rate:.4f} spikes per pixel and tick", numbers)


def judge_pixels(name: str, num_bad: int, num_pixels: int, meaning: str) -> Finding:
    share = num_bad / num_pixels
    numbers = {"num_pixels": float(num_bad), "share": share}
    if not num_bad:
        return Finding(name, "ok", "none", numbers)
    if share > TOO_MANY_BAD:
        sentence = f"{num_bad} of {num_pixels} {meaning}: too many to fill from their neighbours"
        return Finding(name, "bad", sentence, numbers)
    sentence = f"{num_bad} of {num_pixels} {meaning}; filled from their neighbours"
    if share > MANY_BAD:
        sentence += ", which is a guess for so many; an evenly lit, moving scene would tell whether they are broken"
        return Finding(name, "cannot tell", sentence, numbers)
    return Finding(name, "ok", sentence, numbers)


def judge_gain(gains: Float[np.ndarray, " F"]) -> Finding:
    known = gains[np.isfinite(gains)]
    if not len(known):
        sentence = "no part of the frames is neither dark nor saturated; such a part would tell"
        return Finding("gain", "cannot tell", sentence, matters=False)
    gain = float(np.median(known))
    sentence = f"about {gain:.2f} spikes per tick at full light"
    if not GAIN_RANGE[0] <= gain <= GAIN_RANGE[1]:
        sentence += ", where simulated recordings have 1; weights trained with normalize: density even it out"
    return Finding("gain", "ok", sentence, {"spikes_per_tick_at_full_light": gain})


def judge_density(gains: Float[np.ndarray, " F"], frames: Sequence[int]) -> Finding:
    is_known = np.isfinite(gains) & (gains > 0)
    if is_known.sum() < 2:
        sentence = "fewer than two frames have a gain; more of them, neither dark nor saturated, would tell"
        return Finding("density", "cannot tell", sentence, matters=False)
    known, numbers_of = gains[is_known], np.asarray(frames)[is_known]
    low, high = int(known.argmin()), int(known.argmax())
    drift = float(known[high] / known[low])
    numbers = {"highest_over_lowest": drift}
    if drift <= GAIN_DRIFT:
        return Finding("density", "ok", f"spikes per light vary by {100 * (drift - 1):.0f} % between frames", numbers)
    sentence = (
        f"spikes per light vary {drift:.2f} times, from frame {numbers_of[low]} to frame {numbers_of[high]}: the "
        "colour camera's exposure is not fixed, or ticks are lost, or the times are wrong; footage at a fixed exposure "
        "would tell"
    )
    return Finding("density", "cannot tell", sentence, numbers)


def judge_orientation(
    scores: Float[np.ndarray, "F 8"],
    steadiness: float,
    found: Displacement | None,
    other_size: tuple[str, float] | None,
    mend: str,
    rows: str = "",
) -> Finding:
    """`steadiness`: how well the spikes' picture resembles itself, one half of the exposure against the other;
    `other_size`: another reading of the spikes and how well it fits the frames; `mend`: what brings cameras and clocks
    together that are far apart, in words; `rows`: what states the order of the spikes' rows, "" where nothing does."""
    name = "orientation"
    is_known = np.isfinite(scores).all(axis=1)
    if not is_known.any():
        sentence = "the spikes or the frames are flat; a scene with structure would tell"
        return Finding(name, "cannot tell", sentence)
    known = scores[is_known]
    mean = known.mean(axis=0)
    order = np.argsort(mean)[::-1]
    best, upright = int(order[0]), float(mean[0])
    numbers = {"upright": upright, "best": float(mean[best]), "second": float(mean[order[1]])}
    told = f"upright (correlation {upright:.2f}, the next {max(mean[1:]):.2f})"
    if found is not None and found.correlation >= max(MATCHED, mean[best] + MARGIN):  # upright, but far beside
        return Finding(name, "ok", told, numbers)
    turned = ORIENTATIONS[best]
    sentence = f"the spikes fit the frames with {turned} (correlation {mean[best]:.2f}, upright {upright:.2f})"
    lead = float(mean[best] - mean[order[1]])
    is_certain = (lead >= MARGIN and mean[best] >= FIT) or mean[best] >= 2 * FIT
    if best != 0 and is_certain and mean[best] - upright >= 2 * MARGIN and (known[:, best] > known[:, 0]).all():
        array = f"turn the spikes: write them as .npy (`spikevrt convert`), and give {TURNS[best]} of that array"
        is_stated = rows and turned == "rows flipped"
        sentence += f"; state the other order of rows: {rows}" if is_stated else f"; {array}"
        return Finding(name, "bad", sentence, numbers)
    if mean[best] < min(FIT, SAME * steadiness):
        alone = f"the spikes resemble the frames in none of the eight orientations (best correlation {mean[best]:.2f}"
        alone += f", and themselves {steadiness:.2f}): another scene, other times, or a wrong size"
        if other_size is not None:
            alone += f"; read as {other_size[0]} pixels they fit ({other_size[1]:.2f}): state that width and height"
        else:
            alone += "; pair the files that belong together, look at the sizes that fit with `spikevrt inspect`, or, "
            alone += f"where only the cameras or clocks are far apart, {mend}"
        return Finding(name, "bad", alone, numbers)
    if best == 0 and upright >= FIT:
        return Finding(name, "ok", told, numbers)
    more = "a scene with more structure, or more light, would tell"
    if best == 0:
        return Finding(name, "cannot tell", f"{told}; {more}", numbers)
    return Finding(name, "cannot tell", f"{sentence}, too little to decide; {more}", numbers)


def judge_registration(found: Displacement | None, mend: str) -> Finding:
    """`mend`: what to do about it, in words."""
    name, more = "registration", "a scene with structure in all parts of the frame, or more light, would tell"
    if found is None or found.correlation < MATCHED or not np.isfinite(found.error_px):
        return Finding(name, "cannot tell", f"spikes and frames have too little structure in common; {more}")
    px, error = found.px, found.error_px
    numbers = {"px": px, "error_px": error, "right_px": float(found.right_px), "down_px": float(found.down_px)}
    told = f"{px:.1f} +- {error:.1f} px"
    if px - SURE * error > TOLERATED_PX:
        sentence = f"the spikes lie {told} beside the frames, and {TOLERATED_PX:g} px cost about a dB"
        return Finding(name, "bad", f"{sentence}; {mend}", numbers)
    if px + SURE * error < HARMFUL_PX:
        return Finding(name, "ok", f"the spikes lie on the frames to {told}", numbers)
    sentence = f"the spikes lie {told} beside the frames, where {HARMFUL_PX:g} px do harm; {more}"
    return Finding(name, "cannot tell", sentence, numbers)


def judge_colours(evidence: ColourEvidence | None, fit: float) -> Finding:
    """`fit`: the upright orientation's score; where spikes and frames do not fit, their colours tell nothing."""
    name = "channel order"
    if evidence is None or not fit >= FIT:
        sentence = "too grey or too dark a scene, or the spikes do not fit the frames; a colourful scene would tell"
        return Finding(name, "cannot tell", sentence, matters=False)
    numbers = {"ratio": evidence.ratio, "standard_error": evidence.error, "num_cells": float(evidence.num_cells)}
    told = f"red minus blue weighs {evidence.ratio:.2f} +- {evidence.error:.2f} (RGB: +1, BGR: -1)"
    if -2.5 < evidence.ratio < TURNED and evidence.ratio + TURN_ERRORS * evidence.error < 0 and evidence.error < 0.25:
        sentence = f"{told}: the frames are BGR where RGB is expected; exchange their first and third channel"
        return Finding(name, "bad", sentence, numbers)
    if evidence.ratio > -TURNED and evidence.ratio - 2 * evidence.error > 0:
        return Finding(name, "ok", told, numbers)
    return Finding(name, "cannot tell", f"{told}; a more colourful scene would tell", numbers, matters=False)


def judge_empty_ticks(scan: Scan) -> Finding:
    num_empty = scan.num_empty
    numbers = {"num_empty": float(num_empty), "share": num_empty / scan.num_ticks}
    if not num_empty:
        return Finding("empty ticks", "ok", f"none of {scan.num_ticks}", numbers)
    per_tick = scan.counts.sum() / max(scan.num_ticks - num_empty, 1)
    first = int(scan.ticks[np.flatnonzero(scan.spikes_per_tick == 0)[0]])
    where = f"without a spike: {num_empty} of {amount(scan.num_ticks, 'tick')}, the first is tick {first}"
    if per_tick < LEAST_PER_TICK:
        sentence = f"{where}, but so few fire that this may be chance; more light would tell"
        return Finding("empty ticks", "cannot tell", sentence, numbers, matters=False)
    if num_empty > MOST_EMPTY * scan.num_ticks:
        return Finding("empty ticks", "bad", f"{where}: too many are lost; capture again", numbers)
    return Finding("empty ticks", "ok", f"{where}: lost, and the rates too low by their share", numbers)


def judge_gaps(scan: Scan) -> Finding:
    numbers = {"num_gaps": float(len(scan.breaks)), "num_witnesses": float(scan.num_witnesses)}
    if scan.breaks:
        ticks = ", ".join(map(str, scan.breaks[:5])) + (" ..." if len(scan.breaks) > 5 else "")
        sentence = (
            f"before tick {ticks} the rhythm of pixels all over the sensor breaks at once: ticks are missing there and "
            "frames behind it lie too late in the stream, or the light changed at once, or the scene was cut, or a "
            "repeating pattern moved past; the camera's own count of ticks would tell"
        )
        return Finding("gaps", "cannot tell", sentence, numbers)
    if scan.num_witnesses < scan.num_ticks:
        sentence = "hardly any pixel fires evenly; a still part of the scene, or more light, would tell"
        return Finding("gaps", "cannot tell", sentence, numbers, matters=False)
    return Finding("gaps", "ok", "none", numbers)


def judge_exposure_times(exposures: Sequence[Exposure], tick_rate_hz: float) -> Finding:
    off = [abs((one.t1_s - one.t0_s) * tick_rate_hz - one.num_ticks) for one in exposures]
    num_off = sum(ticks > 1 for ticks in off)
    numbers = {"num_off": float(num_off), "worst_ticks": float(max(off))}
    if not num_off:
        return Finding("exposure times", "ok", f"seconds and ticks agree at {tick_rate_hz:g} Hz", numbers)
    sentence = (
        f"not as long as its ticks at {tick_rate_hz:g} Hz: {num_off} of {amount(len(exposures), 'exposure')} (by up to "
        f"{max(off):.0f} ticks): a wrong tick rate, or lost ticks; the cameras' settings would tell"
    )
    return Finding("exposure times", "cannot tell", sentence, numbers)


def judge_offset(found: TimeOffset | None, mend: str) -> Finding:
    """Frames that fit best later and later mean a wrong period or clock; a few agree by chance more easily than many
    (AGREEMENT)."""
    name = "time offset"
    if found is None:
        sentence = "no frame fits best at a time that the stream holds; a stream that begins half an exposure before "
        return Finding(name, "cannot tell", f"{sentence}the first frame and ends as much after the last would tell")
    if found.correlation < FIT:
        sentence = f"spikes and frames hardly correlate ({found.correlation:.2f}); more structure or light would tell"
        return Finding(name, "cannot tell", sentence)
    num, offset = len(found.ticks), float(found.ticks.mean())
    tolerated = max(TOLERATED_TICKS, TOLERATED_SHARE * found.exposure_ticks)
    harmful = max(HARMFUL_TICKS, HARMFUL_SHARE * found.exposure_ticks)
    numbers = {"offset_ticks": offset, "correlation": found.correlation, "correlation_at_0": found.correlation_at_0}
    error = float(found.ticks.std(ddof=1) / num**0.5) if num > 1 else None
    if error is not None:
        numbers["error_ticks"] = error
    growth, growth_error = _growth(found)
    if num - 1 in AGREEMENT and abs(growth) > max(harmful, AGREEMENT[num - 1] * growth_error):
        numbers |= {"growth_ticks": growth, "growth_error_ticks": growth_error}
        first, last = found.ticks[0], found.ticks[-1]
        sentence = (
            f"frame {found.frames[0]} fits best {_later(first)}, frame {found.frames[-1]} {_later(last)}: the offset "
            f"grows by {growth:.1f} +- {growth_error:.1f} ticks; a wrong frame or tick rate, missing frames, or clocks "
            "that drift"
        )
        return Finding(name, "bad", f"{sentence}; check the rates, or {mend}", numbers)
    if error is not None and abs(offset) >= max(tolerated, AGREEMENT[num] * error):
        return Finding(name, "bad", f"the spikes fit the frames {_later(offset, error)}; {mend}", numbers)
    if error is None or num < LEAST_FRAMES:
        frames = f"{amount(num, 'frame')} alone {'fits' if num == 1 else 'fit'} best {_later(offset)}"
        sentence = f"{frames}; three or more, each with another motion, would tell"
        return Finding(name, "cannot tell", sentence, numbers)
    if abs(offset) + SURE * error < harmful:
        sentence = f"the spikes fit the frames where they are, to {abs(offset):.1f} +- {error:.1f} ticks"
        return Finding(name, "ok", sentence, numbers)
    gain = found.correlation - found.correlation_at_0
    if gain >= max(LEAST_LIKELIER, LIKELIER * (1 - found.correlation)) and np.ptp(found.ticks) >= 2 * harmful:
        first, last = int(found.ticks.argmin()), int(found.ticks.argmax())
        sentence = (
            f"frame {found.frames[first]} fits best {_later(found.ticks[first])}, frame {found.frames[last]} "
            f"{_later(found.ticks[last])} (correlation {found.correlation:.3f}, not {found.correlation_at_0:.3f}): "
            "frames are missing, doubled or timed wrongly; state when each was exposed (timestamps or triggers)"
        )
        return Finding(name, "bad", sentence, numbers)
    sentence = f"the frames do not agree: {_later(offset, error)}, where {harmful:g} ticks do harm"
    return Finding(name, "cannot tell", f"{sentence}; more or other motion, or more light, would tell", numbers)


def _later(ticks: float, error: float | None = None) -> str:
    told = f"{abs(ticks):.1f}" if error is None else f"{abs(ticks):.1f} +- {error:.1f}"
    return f"{told} ticks {'later' if ticks > 0 else 'earlier'}"


def _growth(found: TimeOffset) -> tuple[float, float]:
    """By how many ticks the offset grows from the first of the frames to the last, and its standard error: a line."""
    when = found.middles - found.middles.mean()
    spread = float((when**2).sum())
    if not spread > 0 or len(when) < 3:
        return 0.0, float("inf")
    slope = float(when @ found.ticks) / spread
    left = found.ticks - found.ticks.mean() - slope * when
    length = float(np.ptp(when))
    return slope * length, float(np.sqrt((left**2).sum() / (len(when) - 2) / spread)) * length
