"""From measured facts to verdicts: one function a finding, each one sentence that says what to do.

Nothing is read here. Every number is finite: what cannot be measured is left out, and the sentence says "cannot tell".

Dimension key: F sampled frames, T scanned ticks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from spikevrt.align.defects import Scan
from spikevrt.align.pairing import ORIENTATIONS, ColourEvidence, OffsetHint
from spikevrt.recording.sidecar import Exposure

if TYPE_CHECKING:
    from jaxtyping import Float

Verdict = Literal["ok", "repaired", "warning", "refused"]
VERDICTS: tuple[Verdict, ...] = ("ok", "repaired", "warning", "refused")  # the worst last

FULL_RATE = 0.98  # above it almost nothing is known about the light
SPARSE_RATE = 0.001
MANY_BAD, TOO_MANY_BAD = 0.05, 0.2  # of all pixels
GAIN_RANGE = (0.75, 1.34)  # about the gain that recordings are simulated at, and the shipped weights are trained at
GAIN_DRIFT = 1.25
FIT, MARGIN = 0.3, 0.12  # of orientation scores
STEADY = 0.5  # a picture of the spikes that resembles itself so well ought to resemble the frames
TURNED, TURN_ERRORS = -0.4, 4.0  # of the colours' ratio: this far from +1, and so many standard errors below 0
MOST_EMPTY = 1 / 3
LEAST_PER_TICK = 15  # spikes a tick; with fewer an empty tick may be chance
OFFSET_GAIN = 0.02  # of the correlation, for a hint at a time offset by one or two frames
AGREEMENT = {3: 9.92, 4: 5.84, 5: 4.60}  # frames: standard errors that chance exceeds once in 100 (Student's t)
LEAST_OFFSET = 1 / 32  # of an exposure: less moves nothing by more than a fraction of the blur


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: the verdict, the numbers behind it, and one sentence."""

    name: str
    verdict: Verdict
    sentence: str
    numbers: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert all(np.isfinite(value) for value in self.numbers.values()), self


def judge_spikes(scan: Scan) -> Finding:
    rate = float(scan.counts.mean() / scan.num_ticks)
    numbers = {"mean_rate": rate, "num_ticks": float(scan.num_ticks)}
    if rate == 0:
        return Finding("spikes", "refused", f"no spike in {scan.num_ticks} ticks: the wrong file or format", numbers)
    if rate >= FULL_RATE:
        sentence = f"{rate:.3f} of all pixels fire at every tick, so the light is not known; capture with less light"
        return Finding("spikes", "refused", sentence, numbers)
    if rate < SPARSE_RATE:
        return Finding("spikes", "warning", f"only {rate:.6f} spikes per pixel and tick: hardly any light", numbers)
    return Finding("spikes", "ok", f"{rate:.4f} spikes per pixel and tick", numbers)


def judge_pixels(name: str, num_bad: int, num_pixels: int, meaning: str) -> Finding:
    share = num_bad / num_pixels
    numbers = {"num_pixels": float(num_bad), "share": share}
    if not num_bad:
        return Finding(name, "ok", "none", numbers)
    if share > TOO_MANY_BAD:
        sentence = f"{num_bad} of {num_pixels} {meaning}: too many to fill from their neighbours"
        return Finding(name, "refused", sentence, numbers)
    sentence = f"{num_bad} of {num_pixels} {meaning}; filled from their neighbours"
    if share > MANY_BAD:
        return Finding(name, "warning", f"{sentence}, which is a guess for so many", numbers)
    return Finding(name, "repaired", sentence, numbers)


def judge_gain(gains: Float[np.ndarray, " F"]) -> Finding:
    known = gains[np.isfinite(gains)]
    if not len(known):
        return Finding("gain", "ok", "cannot tell: no part of the frames is neither dark nor saturated")
    gain = float(np.median(known))
    numbers = {"spikes_per_tick_at_full_light": gain}
    if GAIN_RANGE[0] <= gain <= GAIN_RANGE[1]:
        return Finding("gain", "ok", f"about {gain:.2f} spikes per tick at full light", numbers)
    sentence = (
        f"about {gain:.2f} spikes per tick at full light, where simulated recordings have 1; "
        "use weights trained with normalize: density, which evens it out"
    )
    return Finding("gain", "warning", sentence, numbers)


def judge_density(gains: Float[np.ndarray, " F"], frames: Sequence[int]) -> Finding:
    is_known = np.isfinite(gains) & (gains > 0)
    if is_known.sum() < 2:
        return Finding("density", "ok", "cannot tell: fewer than two frames have a gain")
    known, numbers_of = gains[is_known], np.asarray(frames)[is_known]
    low, high = int(known.argmin()), int(known.argmax())
    drift = float(known[high] / known[low])
    numbers = {"highest_over_lowest": drift}
    if drift <= GAIN_DRIFT:
        return Finding("density", "ok", f"spikes per light vary by {100 * (drift - 1):.0f} % between frames", numbers)
    sentence = (
        f"spikes per light vary {drift:.2f} times, from frame {numbers_of[low]} to frame {numbers_of[high]}: the "
        "colour camera's exposure is not fixed, ticks are lost, or the times are wrong; normalize: density evens it out"
    )
    return Finding("density", "warning", sentence, numbers)


def judge_orientation(scores: Float[np.ndarray, "F 8"], steadiness: float) -> Finding:
    """`steadiness`: how well the spikes' picture resembles itself, one half of the exposure against the other."""
    is_known = np.isfinite(scores).all(axis=1)
    if not is_known.any():
        return Finding("orientation", "ok", "cannot tell: the spikes or the frames are flat")
    known = scores[is_known]
    mean = known.mean(axis=0)
    order = np.argsort(mean)[::-1]
    best, upright = int(order[0]), float(mean[0])
    numbers = {"upright": upright, "best": float(mean[best]), "second": float(mean[order[1]])}
    if mean[best] < FIT and steadiness >= STEADY:
        sentence = (
            f"the spikes resemble the frames in none of the eight orientations (best correlation {mean[best]:.2f}): "
            "another scene, other times, or a wrong size"
        )
        return Finding("orientation", "warning", sentence, numbers)
    if best == 0:
        told = f"upright (correlation {upright:.2f}, the next {numbers['second']:.2f})"
        return Finding("orientation", "ok", told if upright >= FIT else f"cannot tell: {told}", numbers)
    lead = float(mean[best] - mean[order[1]])
    always = bool((known[:, best] > known[:, 0]).all())
    name = ORIENTATIONS[best]
    sentence = f"the spikes fit the frames with {name} (correlation {mean[best]:.2f}, upright {upright:.2f})"
    is_certain = (lead >= MARGIN and mean[best] >= FIT) or mean[best] >= 2 * FIT
    if is_certain and mean[best] - upright >= 2 * MARGIN and always:
        return Finding("orientation", "refused", f"{sentence}; state the order of rows, or turn the spikes", numbers)
    if mean[best] - upright >= MARGIN and mean[best] >= FIT:
        return Finding("orientation", "warning", f"{sentence}; look at the preview", numbers)
    return Finding("orientation", "ok", f"cannot tell: {sentence}, too little to decide", numbers)


def judge_colours(evidence: ColourEvidence | None, fit: float) -> Finding:
    """`fit`: the upright orientation's score; where spikes and frames do not fit, their colours tell nothing."""
    name = "channel order"
    if evidence is None or not fit >= FIT:
        return Finding(name, "ok", "cannot tell: too grey or too dark a scene, or the spikes do not fit the frames")
    numbers = {"ratio": evidence.ratio, "standard_error": evidence.error, "num_cells": float(evidence.num_cells)}
    told = f"red minus blue weighs {evidence.ratio:.2f} +- {evidence.error:.2f} (RGB: +1, BGR: -1)"
    if -2.5 < evidence.ratio < TURNED and evidence.ratio + TURN_ERRORS * evidence.error < 0 and evidence.error < 0.25:
        sentence = f"{told}: the frames are BGR where RGB is expected; exchange their first and third channel"
        return Finding(name, "refused", sentence, numbers)
    if evidence.ratio > -TURNED and evidence.ratio - 2 * evidence.error > 0:
        return Finding(name, "ok", told, numbers)
    return Finding(name, "ok", f"cannot tell: {told}", numbers)


def judge_empty_ticks(scan: Scan) -> Finding:
    num_empty = scan.num_empty
    numbers = {"num_empty": float(num_empty), "share": num_empty / scan.num_ticks}
    if not num_empty:
        return Finding("empty ticks", "ok", f"none of {scan.num_ticks}", numbers)
    per_tick = scan.counts.sum() / max(scan.num_ticks - num_empty, 1)
    first = int(scan.ticks[np.flatnonzero(scan.spikes_per_tick == 0)[0]])
    where = f"{num_empty} of {scan.num_ticks} ticks hold no spike, the first is tick {first}"
    if per_tick < LEAST_PER_TICK:
        return Finding("empty ticks", "ok", f"cannot tell: {where}, but so few fire that this may be chance", numbers)
    if num_empty > MOST_EMPTY * scan.num_ticks:
        return Finding("empty ticks", "refused", f"{where}: too many are lost; capture again", numbers)
    return Finding("empty ticks", "warning", f"{where}: lost, and the rates too low by their share", numbers)


def judge_gaps(scan: Scan) -> Finding:
    numbers = {"num_gaps": float(len(scan.breaks)), "num_witnesses": float(scan.num_witnesses)}
    if scan.breaks:
        ticks = ", ".join(map(str, scan.breaks[:5])) + (" ..." if len(scan.breaks) > 5 else "")
        sentence = (
            f"before tick {ticks} the rhythm of pixels all over the sensor breaks at once: ticks are missing there and "
            "frames behind it lie too late in the stream, or the light changed at once, or the scene was cut, or a "
            "repeating pattern moved past"
        )
        return Finding("gaps", "warning", sentence, numbers)
    if scan.num_witnesses < scan.num_ticks:
        return Finding("gaps", "ok", "cannot tell: hardly any pixel fires evenly", numbers)
    return Finding("gaps", "ok", "none", numbers)


def judge_exposure_times(exposures: Sequence[Exposure], tick_rate_hz: float) -> Finding:
    off = [abs((one.t1_s - one.t0_s) * tick_rate_hz - one.num_ticks) for one in exposures]
    num_off = sum(ticks > 1 for ticks in off)
    numbers = {"num_off": float(num_off), "worst_ticks": float(max(off))}
    if not num_off:
        return Finding("exposure times", "ok", f"seconds and ticks agree at {tick_rate_hz:g} Hz", numbers)
    sentence = (
        f"{num_off} of {len(exposures)} exposures last other than their ticks do at {tick_rate_hz:g} Hz (by up to "
        f"{max(off):.0f} ticks): a wrong tick rate, or lost ticks"
    )
    return Finding("exposure times", "warning", sentence, numbers)


def judge_offset(hint: OffsetHint | None) -> Finding:
    """A hint: `spikevrt align` measures it. A few frames agree by chance more easily than many (AGREEMENT)."""
    name = "time offset"
    if hint is None or hint.correlation < FIT:
        return Finding(name, "ok", "cannot tell: too little texture, or no ticks beyond the exposures")
    offset, error = hint.offset_ticks, hint.error_ticks
    numbers = {"offset_ticks": offset, "correlation": hint.correlation, "correlation_at_0": hint.correlation_at_0}
    is_certain = hint.correlation - hint.correlation_at_0 >= OFFSET_GAIN
    told = f"{abs(offset):.0f} ticks"
    if len(hint.ticks) in AGREEMENT:
        is_certain = abs(offset) >= AGREEMENT[len(hint.ticks)] * error
        numbers["error_ticks"] = error
        told = f"{abs(offset):.1f} +- {error:.1f} ticks"
    if is_certain and abs(offset) >= LEAST_OFFSET * hint.exposure_ticks:
        way = "later" if offset > 0 else "earlier"
        sentence = f"spikes from {told} {way} fit the frames better; run `spikevrt align`"
        return Finding(name, "warning", sentence, numbers)
    if not is_certain and abs(offset) >= LEAST_OFFSET * hint.exposure_ticks:
        return Finding(name, "ok", f"cannot tell: {told}, and frames that do not agree", numbers)
    return Finding(name, "ok", "the spikes fit the frames best where they are", numbers)
