"""Align a recording from its own footage: estimate, judge, and refuse what the footage cannot tell.

Dimension key: N frames, H and W rows and columns of a frame, h and w those of the sensor, r and c of a flow field.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikevrt.align.clock import ExposureRates, fit_clock
from spikevrt.align.compare import Residual, grid_positions, linear_luminance, residual_px, smooth_flow, write_overlay
from spikevrt.align.drift import fit_drift, frames_light, shifted, steady_frames
from spikevrt.align.registration import Cameras, Level, fit_homography, resized
from spikevrt.align.settings import AlignOptions
from spikevrt.atomic import complete_or_absent
from spikevrt.progress import progress_bar
from spikevrt.recording.alignment import Alignment, write_alignment
from spikevrt.recording.frames import WRITE_SUFFIXES
from spikevrt.recording.recording import Recording, with_alignment
from spikevrt.typed import amount

if TYPE_CHECKING:
    from jaxtyping import Float

FLOW_FILE = "alignment_flow.npy"
FEW_SPIKES = 8.0  # of a pixel in an exposure: below it no square root (registration.features)
MIN_CORRELATION = 0.3
MIN_NEAR = 0.5  # share of the recognised patches that lie within two sensor pixels
MIN_RECOGNISED = 4  # patches
MAX_CORNER_SHARE = 0.25  # of the frame's longer side
MIN_GAIN = 0.05  # of what does not correlate: a geometry that explains less of it is noise
MIN_SHARPNESS = 1.5  # clock.ClockFit
MAX_SIGMA_SHARE = 1 / 16  # of an exposure: an offset less certain than this is not written
SMALL_SHIFT_PX = 0.1  # a homography that moves no corner by more is no news
SMALL_OFFSET_TICKS = 0.5
MIN_FLOW_GAIN = 0.95  # of the residual: a displacement that saves less is not kept


@dataclass(frozen=True)
class Registration:
    """A homography (frame to sensor), perhaps a displacement, and what they improved.

    Correlations are means over the frames; `before` is "both see the same field", and what is kept where nothing better
    was found (`is_better`).
    """

    homography: Float[np.ndarray, "3 3"]
    flow: Float[np.ndarray, "2 r c"] | None
    correlation_before: float
    correlation_after: float
    residual_before: Residual
    residual_after: Residual
    corner_shift_px: float
    is_better: bool


@dataclass(frozen=True)
class Estimate:
    """What was found in a recording: the alignment (without its file of flow), and how to tell it."""

    alignment: Alignment
    flow: Float[np.ndarray, "2 r c"] | None
    lines: tuple[str, ...]


def estimate_registration(
    frames: Float[np.ndarray, "N H W"], brightness: Float[np.ndarray, "N h w"], *, flow: bool = False
) -> Registration:
    """One registration for N pairs of pictures: linear luminance of frames, and what the spikes say, in any unit.
    Raises ValueError: the evidence is too weak, or the pictures cannot be paired."""
    _need_libraries()
    if frames.ndim != 3 or brightness.ndim != 3 or len(frames) != len(brightness) or not len(frames):
        raise ValueError(f"frames {frames.shape}, brightness {brightness.shape}; allowed: (N, H, W) and (N, h, w)")
    cameras = Cameras(frames.shape[2], frames.shape[1], brightness.shape[2], brightness.shape[1])
    light = resized(frames, brightness.shape[1], brightness.shape[2])
    fit = fit_homography(cameras, light, lambda _: brightness)
    return _judged("pictures", cameras, light, brightness, brightness, cameras.homography(fit.p), flow=flow, root=True)


def estimate_alignment(
    recording: Recording, options: AlignOptions, *, progress: Callable[[int, int], None] | None = None
) -> Estimate:
    """Estimate time offset and registration of a recording that was opened without its alignment.

    Nothing is written but the preview. An offset that the footage does not tell (no motion, too few frames) stays 0.
    `progress` is called with (fits done, fits in all) and may raise to stop; without it they are shown on stderr.
    Raises ValueError: no spikes, an alignment applied already, or evidence too weak to register by.
    """
    preview = options.preview
    if preview is not None and preview.suffix.lower() not in WRITE_SUFFIXES:
        raise ValueError(f"preview: {preview}; allowed: a name ending in {', '.join(WRITE_SUFFIXES)}")
    _need_libraries()
    if recording.spikes is None:
        raise ValueError(f"{recording.root}: no spikes in this recording")
    assert recording.alignment == Alignment(), "open it without its alignment"
    stream = recording.spikes
    cameras = Cameras(recording.width, recording.height, stream.width, stream.height)
    inside = [exposure for exposure in recording.exposures if exposure.is_inside(stream.num_ticks)]
    if not inside:
        raise ValueError(f"{recording.root}: no exposure lies inside the stream; are the times right?")
    exposure_ticks = int(np.median([exposure.num_ticks for exposure in inside]))
    chosen = steady_frames(recording, exposure_ticks, options.max_frames)
    num_used = len(chosen)
    exposures = [recording.exposures[i] for i in chosen]
    most = (options.max_offset_ticks or exposure_ticks) if options.time else 0
    reach = most + -(-exposure_ticks // 4) if options.time else 0
    rates = ExposureRates(stream, exposures, reach, bad=recording.bad_mask())
    light = frames_light(recording, chosen, cameras)
    root = rates.mean_count >= FEW_SPIKES
    quality: dict[str, Any] = {"frames": num_used}
    lines = [f"{recording.root}: {num_used} of {amount(recording.num_frames, 'frame')}, {exposure_ticks} ticks each"]
    offset, drift_ppm, p = 0.0, 0.0, None
    if options.time:
        with progress_bar(f"{recording.name}: fits") as tell:
            found = fit_clock(
                cameras, light, rates, exposure_ticks=exposure_ticks, max_offset_ticks=most, space=options.space,
                root=root, progress=progress or tell,
            )  # fmt: skip
        sigma = float("inf") if found is None else found.offset_sigma_ticks
        quality["offset_sigma_ticks"] = round(sigma, 3) if np.isfinite(sigma) else None
        sharpness = 1.0 if found is None else found.sharpness
        quality["sharpness"] = round(sharpness, 2)
        if found is None or sigma > MAX_SIGMA_SHARE * exposure_ticks or sharpness < MIN_SHARPNESS:
            why = "fewer than two frames to compare" if found is None else "too little motion, or too even"
            quality["offset"] = "not observable"
            lines.append(f"time: not observable ({why}; sharpness {sharpness:.2f}, +-{sigma:.1f}); the offset stays 0")
        elif abs(found.fit.offset_ticks) > most:
            quality["offset"] = "out of range"
            lines.append(f"time: more than {most} ticks apart, or not observable; the offset stays 0")
        else:
            quality["offset"] = "estimated"
            p = found.fit.p
            if abs(found.fit.offset_ticks) >= SMALL_OFFSET_TICKS:
                offset = round(found.fit.offset_ticks, 3)
            way = "later" if offset >= 0 else "earlier"
            seconds = abs(offset) / recording.tick_rate_hz
            lines.append(
                f"time: {abs(offset):.2f} ticks ({seconds:.6f} s) {way} than written, +-{sigma:.2f}, "
                f"sharpness {sharpness:.1f}"
            )
            line = fit_drift(recording, cameras, p, found.fit.offset_ticks, root=root, most=options.max_frames)
            if line is not None:
                ppm, sigma_ppm = 1e6 * line.per_tick, 1e6 * line.sigma_per_tick
                told = "" if line.is_significant else "; too little to be told from none, left out"
                lines.append(f"drift: {ppm:.1f} +- {sigma_ppm:.1f} ppm over {line.ticks} ticks{told}")
                quality |= {"drift_sigma_ppm": round(sigma_ppm, 2)}
                if line.is_significant:
                    offset, drift_ppm = round(line.offset_ticks, 3), round(ppm, 3)
                    moved = [shifted(one, round(line.per_tick * one.start_tick)) for one in exposures]
                    rates = ExposureRates(stream, moved, reach, bad=recording.bad_mask())
    homography = cameras.homography(np.zeros(8))
    if options.space:
        fit = (
            fit_homography(cameras, light, rates.at, 0.0, root=root)
            if p is None
            else Level(cameras, light, rates.at, 0, root=root).fit(p, offset, rounds=1)
        )
        homography = cameras.homography(fit.p)
    result = _judged(
        str(recording.root), cameras, light, rates.at(0.0), rates.at(offset), homography, flow=options.flow, root=root
    )  # fmt: skip
    if not result.is_better:
        offset, drift_ppm, quality["offset"] = 0.0, 0.0, "not better"
        lines.append("nothing was found that is better than what is written: both stay as they are")
    if options.space:
        lines.append(
            f"space: corners move by up to {result.corner_shift_px:.1f} px" + (", flow" * (result.flow is not None))
        )
    before, after = result.residual_before, result.residual_after
    lines.append(
        f"correlation {result.correlation_before:.3f} -> {result.correlation_after:.3f}, residual "
        f"{before.median_px:.2f} -> {after.median_px:.2f} px (median of {after.num_recognised} patches)"
    )
    quality |= {
        "correlation_before": round(result.correlation_before, 4),
        "correlation_after": round(result.correlation_after, 4),
        "residual_before_px": _finite(before.median_px),
        "residual_after_px": _finite(after.median_px),
        "patches": after.num_recognised,
        "corner_shift_px": round(result.corner_shift_px, 2),
    }
    is_moved = options.space and result.corner_shift_px >= SMALL_SHIFT_PX
    rows = tuple(tuple(float(value) for value in row) for row in result.homography) if is_moved else None
    alignment = Alignment(offset, rows, quality=quality, drift_ppm=drift_ppm)  # type: ignore[arg-type]
    kept = with_alignment(recording, alignment)  # refuses what would leave no frame
    if kept.dropped:
        lines.append(
            f"then outside the stream, and dropped: {len(kept.dropped)} of {amount(recording.num_frames, 'frame')}"
        )
    if preview is not None:
        middle = num_used // 2
        identity = grid_positions(cameras, cameras.homography(np.zeros(8)))
        write_overlay(
            preview, cameras, linear_luminance(recording.read_blur(chosen[middle])),
            (rates.at(0.0)[middle], identity),
            (rates.at(offset)[middle], grid_positions(cameras, result.homography, result.flow)),
        )  # fmt: skip
    return Estimate(alignment, result.flow, tuple(lines))


def write_estimate(recording: Recording, estimate: Estimate) -> Alignment:
    """Put an estimate into the recording's folder; returns the alignment as it is stored."""
    path = recording.root / FLOW_FILE
    alignment = estimate.alignment
    if estimate.flow is not None:
        with complete_or_absent(path) as partial, partial.open("wb") as file:
            np.save(file, estimate.flow.astype(np.float32))
        alignment = dataclasses.replace(alignment, flow=path)
    write_alignment(recording.root, alignment)
    if estimate.flow is None:
        path.unlink(missing_ok=True)
    return alignment


def reset_alignment(root: Path) -> None:
    """Take the alignment out of a recording's folder. Raises as `write_alignment`."""
    write_alignment(root, None)
    (Path(root) / FLOW_FILE).unlink(missing_ok=True)


def _judged(
    name: str,
    cameras: Cameras,
    light: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    homography: np.ndarray,
    *,
    flow: bool,
    root: bool,
) -> Registration:
    """Measure a homography against the identity, and refuse it where it does not hold.

    `before` and `after` are the brightness at the clocks as they are and as they should be.
    """
    identity = cameras.homography(np.zeros(8))
    corner = cameras.corner_gap_px(homography, identity)
    if corner < SMALL_SHIFT_PX:
        homography, corner = identity, 0.0
    sides = []
    for brightness, matrix in ((before, identity), (after, homography)):
        correlation = _correlation(cameras, light, brightness, matrix, root=root)
        positions = grid_positions(cameras, matrix)
        sides.append((correlation, residual_px(cameras, light, brightness, positions, root=root)))
    (correlation_before, residual_before), (correlation_after, residual_after) = sides
    weak = None
    if correlation_after < MIN_CORRELATION:
        weak = f"frames and spikes correlate by {correlation_after:.2f}; allowed: {MIN_CORRELATION} or more"
    elif residual_after.num_recognised < MIN_RECOGNISED or residual_after.near_share < MIN_NEAR:
        near = residual_after.near_share * residual_after.num_recognised
        weak = f"only {near:.0f} of {residual_after.num_patches} patches agree; allowed: half of them"
    elif corner > MAX_CORNER_SHARE * max(cameras.width, cameras.height):
        weak = f"corners would move by {corner:.0f} px; allowed: a quarter of the frame"
    if weak is not None:
        raise ValueError(f"{name}: cannot be aligned: {weak}; is it upright, and the same scene? (`spikevrt inspect`)")
    unexplained = 1 - (0 if corner == 0 else MIN_GAIN)  # what the found geometry may leave of what was unexplained
    is_better = 1 - correlation_after <= unexplained * (1 - correlation_before)
    if not is_better:
        homography, corner, after = identity, 0.0, before
        correlation_after, residual_after = correlation_before, residual_before
    field = None
    if flow:
        found = smooth_flow(cameras, light, after, homography, root=root)
        with_flow = residual_px(cameras, light, after, grid_positions(cameras, homography, found), root=root)
        if with_flow.median_px < MIN_FLOW_GAIN * residual_after.median_px:
            field, residual_after = found, with_flow
    return Registration(
        homography, field, correlation_before, correlation_after, residual_before, residual_after, corner, is_better
    )


def _correlation(
    cameras: Cameras, light: np.ndarray, brightness: np.ndarray, homography: np.ndarray, *, root: bool
) -> float:
    level = Level(cameras, light, lambda _: brightness, 0, root=root)
    return float(level.correlation(cameras.parameters(homography), 0.0).mean())


def _finite(value: float) -> float | None:
    return round(value, 3) if np.isfinite(value) else None


def _need_libraries() -> None:
    try:
        import cv2  # noqa: F401
        import scipy  # noqa: F401
    except ImportError as error:
        raise ValueError(f"align: needs {error.name}; pip install 'spikevrt[align]'") from None
