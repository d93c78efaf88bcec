"""The health gate: is a recording fit to be restored, what of it can be filled, what cannot be told, and why.

The cost is bounded: the stream is scanned whole where it holds at most 2^28 bits, else in the sampled exposures only,
2^28 bits in all; frames and orientations are compared on at most five exposures at equal distances.

Dimension key: F sampled frames, h sensor rows, w sensor columns, S slices of time.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spikevrt.align.defects import Scan, find_dead, find_hot, find_shown, find_stuck, scan
from spikevrt.align.findings import (
    FIT,
    FULL_RATE,
    VERDICTS,
    Finding,
    Verdict,
    judge_colours,
    judge_density,
    judge_empty_ticks,
    judge_exposure_times,
    judge_gain,
    judge_gaps,
    judge_offset,
    judge_orientation,
    judge_pixels,
    judge_registration,
    judge_spikes,
)
from spikevrt.align.misfit import displacement, time_offset
from spikevrt.align.pairing import (
    FIT_UNKNOWN,
    Pairs,
    colour_evidence,
    gains,
    orientation_scores,
    other_reading,
    read_pairs,
    registered,
    steadiness,
)
from spikevrt.progress import progress_bar
from spikevrt.recording.recording import Recording
from spikevrt.recording.sidecar import SIDECAR
from spikevrt.recording.stream import PackedStream, RolledStream, Sps100Stream
from spikevrt.typed import amount

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, UInt16

MAX_FRAMES = 5
SCAN_BITS = 1 << 28  # pixels times ticks
SLICES = 2  # of each sampled exposure, to see which pixels vary
TRUSTED_FIT = 0.5  # orientation score from which frames are evidence about single pixels
NAMES = (
    *("spikes", "dead pixels", "hot pixels", "stuck pixels", "gain", "density", "orientation", "registration"),
    *("channel order", "empty ticks", "gaps", "exposure times", "time offset"),
)


@dataclass(frozen=True)
class Evidence:
    """What was measured, for the report's pictures."""

    scan: Scan
    pairs: Pairs
    orientation: Float[np.ndarray, "F 8"]
    gains: Float[np.ndarray, " F"]
    dead: Bool[np.ndarray, "h w"]
    hot: Bool[np.ndarray, "h w"]
    stuck: Bool[np.ndarray, "h w"]

    @property
    def masks(self) -> dict[str, Bool[np.ndarray, "h w"]]:
        """True where a pixel is broken, by how."""
        return {"dead": self.dead, "hot": self.hot, "stuck": self.stuck}


@dataclass(frozen=True)
class HealthReport:
    """The findings, in the order of NAMES, and the bad pixels: those that the recording knew and those found now."""

    findings: tuple[Finding, ...]
    bad_pixels: tuple[tuple[int, int], ...]
    evidence: Evidence

    @property
    def verdict(self) -> Verdict:
        """The worst of all that matter."""
        return max((finding.verdict for finding in self.findings if finding.matters), key=VERDICTS.index)

    def finding(self, name: str) -> Finding:
        return next(finding for finding in self.findings if finding.name == name)


def admit(recording: Recording, *, ignore: Collection[str] = (), strict: bool = False) -> Recording:
    """The health gate: the recording with its broken pixels marked, to be filled from their neighbours; or a refusal.

    `ignore` names findings (NAMES) that shall not refuse. With `strict` what cannot be told refuses too, where it
    matters. On stderr one line for the pixels that were marked now, and one for each such finding. Raises ValueError: a
    finding refuses (the line names it and the remedy), an unknown name in `ignore`, or no spikes.
    """
    check_names(ignore)
    report = check_health(recording)
    told = [finding for finding in report.findings if finding.name not in ignore and finding.matters]
    refusing = [finding for finding in told if finding.verdict == "bad"]
    if refusing:
        named = "; ".join(f"{finding.name}: {finding.sentence}" for finding in refusing)
        raise ValueError(f"{recording.root}: {named}; allowed: a recording that passes, or {_ignoring(refusing)}")
    unknown = [finding for finding in told if finding.verdict == "cannot tell"]
    if strict and unknown:
        named = "; ".join(f"{finding.name} ({finding.sentence})" for finding in unknown)
        raise ValueError(
            f"{recording.root}: strict: cannot tell: {named}; allowed: a recording that tells, or {_ignoring(unknown)}"
            f"; to look: spikevrt inspect {recording.root} --report health.html"
        )
    num_new = len(report.bad_pixels) - len(recording.bad_pixels)
    lines = [f"{amount(num_new, 'bad spike pixel')}, filled from the neighbours (see `inspect`)"] if num_new else []
    lines += [f"cannot tell: {finding.name}: {finding.sentence}" for finding in unknown]
    for line in lines:
        print(f"spikevrt: {recording.root}: {line}", file=sys.stderr)
    return dataclasses.replace(recording, bad_pixels=report.bad_pixels) if num_new else recording


def _ignoring(findings: Collection[Finding]) -> str:
    """The option that ignores these, as it is typed into a shell."""
    return f"`ignore_health` {' '.join(shlex.quote(finding.name) for finding in findings)}"


def admit_readable(recording: Recording, *, ignore: Collection[str] = (), strict: bool = False) -> Recording:
    """`admit`, asked about the frames whose pictures can be read: a training set drops the others, with the reason."""
    seen = recording
    while damaged := {index for index in sampled_frames(seen.num_frames) if not _reads(seen, index)}:
        kept = [index for index in range(seen.num_frames) if index not in damaged]
        if not kept:
            return recording  # nothing of it will be kept, and that is told with the reason
        seen = seen.chosen(kept)
    return dataclasses.replace(recording, bad_pixels=admit(seen, ignore=ignore, strict=strict).bad_pixels)


def _reads(recording: Recording, index: int) -> bool:
    try:
        recording.read_blur(index)
    except (ValueError, OSError):
        return False
    return True


def check_names(ignore: Collection[str]) -> None:
    """Raises ValueError for a name that is no finding's."""
    for name in ignore:
        if name not in NAMES:
            raise ValueError(f"ignore_health: {name!r}; allowed: {', '.join(NAMES)}")


def check_health(recording: Recording) -> HealthReport:
    """Look at pixels, ticks, and whether the spikes show what the frames show; on stderr how far that is. Raises
    ValueError: the recording has no spikes, or a file of it is damaged."""
    if recording.spikes is None:
        raise ValueError(f"{recording.root}: no spikes in this recording; allowed: a recording with spikes")
    frames = sampled_frames(recording.num_frames)
    with progress_bar(f"{recording.name}: ticks") as tell:
        found = scan(recording.spikes, _windows(recording, frames), tell)
    slices = np.stack([_slices(recording, index) for index in frames])
    lengths = np.array([recording.exposures[index].num_ticks for index in frames], dtype=np.float32)
    rates = (slices.sum(axis=1, dtype=np.int64) / lengths[:, None, None]).astype(np.float32)
    pairs = read_pairs(recording, frames, _filled(rates, recording.bad_mask()))
    scores = orientation_scores(pairs.rate, pairs.luminance)
    upright = float(scores[:, 0].mean()) if np.isfinite(scores[:, 0]).all() else FIT_UNKNOWN
    gain = gains(pairs)
    promise = Promise()
    if upright >= TRUSTED_FIT:
        promise = _promise(recording, pairs, gain, found.num_ticks, lengths / SLICES)
    halves = [registered(recording, slices[:, k]) for k in (0, -1)]
    known = recording.bad_mask()
    unknown = np.ones(found.counts.shape, dtype=bool) if known is None else ~known
    every_slice = slices.reshape(-1, *found.counts.shape)
    stuck = find_stuck(found.counts, every_slice, found.num_ticks, promise.at_most, promise.span) & unknown
    dead = find_dead(found.counts, promise.spikes) & unknown
    hot = find_hot(found.counts, promise.at_most) & unknown & ~stuck
    if not found.counts.any() or found.counts.mean() >= FULL_RATE * found.num_ticks:  # the finding "spikes" says it all
        dead, hot, stuck = (np.zeros_like(unknown) for _ in range(3))
    num_pixels = found.counts.size
    beside = displacement(pairs, _seen(recording, pairs), frame_px=recording.width / pairs.rate.shape[2])
    is_alike = not scores.mean(axis=0).max() < FIT
    other_size = None if is_alike else other_reading(slices.sum(axis=1, dtype=np.float32), pairs.luminance)
    is_recording = (recording.root / SIDECAR).is_file()
    align = f"`spikevrt align {recording.root}`" if is_recording else "`spikevrt record`, then `spikevrt align`"
    mend = f"run {align}"
    registration = judge_registration(beside, mend)
    undone = beside if registration.verdict == "bad" else None  # else it would take up a part of a time offset
    findings = (
        judge_spikes(found),
        judge_pixels("dead pixels", int(dead.sum()), num_pixels, "pixels never fire where they should"),
        judge_pixels("hot pixels", int(hot.sum()), num_pixels, "pixels fire far more than their neighbours"),
        judge_pixels("stuck pixels", int(stuck.sum()), num_pixels, "pixels fire on whatever happens around them"),
        judge_gain(gain),
        judge_density(gain, frames),
        judge_orientation(scores, steadiness(*halves), beside, other_size, mend, _rows_words(recording)),
        registration,
        judge_colours(colour_evidence(pairs), upright),
        judge_empty_ticks(found),
        judge_gaps(found),
        judge_exposure_times(recording.exposures, recording.tick_rate_hz),
        judge_offset(time_offset(recording, pairs, undone), mend),
    )
    assert tuple(finding.name for finding in findings) == NAMES
    rows, columns = np.nonzero(dead | hot | stuck)
    bad = recording.bad_pixels + tuple(zip(rows.tolist(), columns.tolist(), strict=True))
    return HealthReport(findings, bad, Evidence(found, pairs, scores, gain, dead, hot, stuck))


def _rows_words(recording: Recording) -> str:
    """What states the order of the spikes' rows; "" where nothing does."""
    stream = recording.spikes.stream if isinstance(recording.spikes, RolledStream) else recording.spikes
    if (recording.root / SIDECAR).is_file():
        return "" if isinstance(stream, Sps100Stream) else f"spikes.rows in {recording.root / SIDECAR}"
    beside = "with `top_down`, or without it" if isinstance(stream, PackedStream) else ""
    return "`spike_rows`" if "layout" in recording.provenance else beside


def sampled_frames(num_frames: int) -> tuple[int, ...]:
    """At most five, at equal distances, the first and the last among them."""
    return tuple(sorted({round(index) for index in np.linspace(0, num_frames - 1, min(num_frames, MAX_FRAMES))}))


def _windows(recording: Recording, frames: Collection[int]) -> list[tuple[int, int]]:
    assert recording.spikes is not None
    most = max(1, SCAN_BITS // (recording.spikes.height * recording.spikes.width))
    if recording.num_ticks <= most:
        return [(0, recording.num_ticks)]
    windows = []
    for index in frames:
        exposure = recording.exposures[index]
        length = min(exposure.num_ticks, max(1, most // len(frames)))
        start = exposure.start_tick + (exposure.num_ticks - length) // 2
        windows.append((start, start + length))
    return windows


def _slices(recording: Recording, index: int) -> UInt16[np.ndarray, "S h w"]:
    """Counts of the halves of an exposure."""
    num_ticks = recording.exposures[index].num_ticks
    return recording.count_exposure(index, [num_ticks * k // SLICES for k in range(SLICES + 1)])


def _seen(recording: Recording, pairs: Pairs) -> Bool[np.ndarray, "H W"]:
    """The cells of the pairs' grid that the sensor sees."""
    assert recording.spikes is not None
    positions = recording.sensor_positions
    if positions is None:
        return np.ones(pairs.rate.shape[1:], dtype=bool)
    size = np.array([recording.spikes.width, recording.spikes.height])
    return np.all((positions >= 0) & (positions <= size), axis=-1)


def _filled(rates: Float[np.ndarray, "F h w"], bad: Bool[np.ndarray, "h w"] | None) -> Float[np.ndarray, "F h w"]:
    if bad is None or bad.all():
        return rates
    import torch

    from spikevrt.represent.counts import repair

    return repair(torch.from_numpy(rates), torch.from_numpy(bad)).numpy()


@dataclass(frozen=True)
class Promise:
    """What the frames promise at each sensor pixel, in spikes; NaN where not known, None where they tell nothing."""

    spikes: Float[np.ndarray, "h w"] | None = None  # in all scanned ticks
    at_most: Float[np.ndarray, "h w"] | None = None  # the same; without a gain infinite at bright points, else NaN
    span: Float[np.ndarray, "h w"] | None = None  # highest less lowest of the slices


def _promise(
    recording: Recording, pairs: Pairs, gain: Float[np.ndarray, " F"], num_ticks: int, slice_ticks: np.ndarray
) -> Promise:
    light = pairs.luminance
    if not np.isfinite(gain).any():
        shown = find_shown(light.mean(axis=0), pairs.clipped.mean(axis=0))
        return Promise(at_most=_on_sensor(recording, np.where(shown, np.float32(np.inf), np.float32(np.nan))))
    rate = light * np.float32(np.nanmedian(gain))
    spikes = _on_sensor(recording, rate.mean(axis=0) * num_ticks)
    return Promise(spikes, spikes, _on_sensor(recording, np.ptp(rate * slice_ticks[:, None, None], axis=0)))


def _on_sensor(recording: Recording, values: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "h w"]:
    """From the frames' grid to the sensor's; NaN where no frame looks."""
    assert recording.spikes is not None
    positions = recording.sensor_positions
    if positions is None:
        return values
    size = (recording.spikes.height, recording.spikes.width)
    columns, rows = np.floor(positions).astype(np.int64).reshape(-1, 2).T
    inside = (rows >= 0) & (rows < size[0]) & (columns >= 0) & (columns < size[1])
    moved = np.full(size, np.nan, dtype=np.float32)
    moved[rows[inside], columns[inside]] = values.reshape(-1)[inside]
    return moved
