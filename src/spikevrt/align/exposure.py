"""How long each frame was exposed, from the footage: how far its motion blur reaches, against the spikes.

A frame is the mean of the light over its exposure; the spikes in a window of any length around the exposure's middle
are such a mean, too, and resemble the frame the more the nearer the window's length is to the exposure's. Spikes are
noisy, the more the shorter the window, and a plain correlation would favour long ones. So the comparison leaves noise
out: products of each pixel with its neighbours, never with itself, to which what is independent from pixel to pixel
adds nothing on average.

Dimension key: N frames, K window lengths, h and w sensor rows and columns.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from spikevrt.align.clock import ExposureRates, fit_clock
from spikevrt.align.compare import linear_luminance
from spikevrt.align.drift import steady_frames
from spikevrt.align.registration import Cameras, resized
from spikevrt.progress import progress_bar
from spikevrt.recording.alignment import apply_homography, read_at
from spikevrt.recording.recording import Recording
from spikevrt.recording.sidecar import Exposure
from spikevrt.recording.timing import named_stream, stream_note
from spikevrt.represent.counts import repair

if TYPE_CHECKING:
    from jaxtyping import Float, Int

MAX_FRAMES = 8
FIT_SHARE = 4  # of the period: the window that finds the middle of the exposures is the period over this
SHORTEST, LONGEST, NUM_LENGTHS = 1 / 64, 1.25, 57  # of the period; in between evenly in the logarithm
LAGS = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0))  # rows and columns to the neighbours
FIT_RANGE = (0.7, 1.35)  # of the length: lengths whose differences tell it
FEWEST_LENGTHS = 5  # for a parabola
LEAST_SIGMA = 2e-4  # of a difference: what frames that all agree may still have in common
OWN_ERROR = 0.03  # of the length, whatever the frames say: reading between pixels blurs, registration is not exact
MAX_SIGMA_SHARE = 0.2  # of the length; less certain is not told
MAX_DIFFERENCE = 0.5  # 1 - squared correlation: with more, it is another scene
FEWEST_TICKS = 2
SILENT = "too little motion, structure or light, fewer than two frames, or spikes and frames that do not fit"
MIN_SENSOR_PX = 32  # of the shorter side: with less there is no structure to compare
CONTRADICTION_SIGMAS, CONTRADICTION_SHARE = 4.0, 0.25  # of what was stated, both: a stated exposure is refused


@dataclass(frozen=True)
class ExposureEstimate:
    """The exposure in ticks, and its standard deviation (by leaving out each frame in turn)."""

    ticks: float
    sigma_ticks: float


def estimate_exposure(recording: Recording) -> ExposureEstimate | None:
    """The length of the exposures of a recording, which need be neither registered nor synchronised to better than a
    period; None where the footage does not tell it (no motion, fewer than two frames, a tiny sensor, another scene), or
    SciPy is missing.

    Raises:
        ValueError: a frame that cannot be read.
    """
    stream = recording.spikes
    inside = [one for index, one in enumerate(recording.exposures) if recording.is_inside(index)]
    if stream is None or len(inside) < 2 or min(stream.height, stream.width) < MIN_SENSOR_PX or not has_scipy():
        return None
    steps = zip(inside, inside[1:], strict=False)
    period = int(np.median([(b.start_tick - a.start_tick) / (b.frame_idx - a.frame_idx) for a, b in steps]))
    chosen = steady_frames(recording, period, MAX_FRAMES)
    window = max(FEWEST_TICKS, period // FIT_SHARE)
    windows = [_shifted(recording.exposures[index], window) for index in chosen]
    cameras = Cameras(recording.width, recording.height, stream.width, stream.height)
    light = [linear_luminance(recording.read_blur(index)) for index in chosen]
    small = np.concatenate([resized(one[None], stream.height, stream.width) for one in light])
    rates = ExposureRates(stream, windows, 2 * period, bad=recording.bad_mask())
    with progress_bar(f"{recording.name}: exposure") as tell:
        found = fit_clock(
            cameras, small, rates, exposure_ticks=period, max_offset_ticks=period, root=rates.mean_count >= 8,
            progress=tell,
        )  # fmt: skip
    if found is None:
        return None
    homography = cameras.homography(found.fit.p)
    lengths = np.unique(np.geomspace(SHORTEST, LONGEST, NUM_LENGTHS) * period // 1).astype(int)
    lengths = lengths[lengths >= FEWEST_TICKS]
    products = []
    for one, exposure in zip(light, windows, strict=True):
        middle = exposure.start_tick + window / 2 + found.fit.offset_ticks
        frame = _on_sensor(one, homography, stream.height, stream.width)
        products.append(_products(recording, frame, middle, lengths))
    kept = np.array([one for one in products if one is not None])
    if len(kept) < 2:
        return None
    told = _length(lengths, kept)
    if told is None:
        return None
    ticks, sigma, difference = told
    if difference > MAX_DIFFERENCE or sigma > MAX_SIGMA_SHARE * ticks:
        return None
    return ExposureEstimate(ticks, sigma)


def has_scipy() -> bool:
    return importlib.util.find_spec("scipy") is not None


def _shifted(exposure: Exposure, num_ticks: int) -> Exposure:
    return dataclasses.replace(exposure, stop_tick=exposure.start_tick + num_ticks)


def _on_sensor(
    light: Float[np.ndarray, "H W"], homography: Float[np.ndarray, "3 3"], height: int, width: int
) -> Float[np.ndarray, "h w"]:
    """The frame as the sensor's pixels see it: the mean over each pixel's area; NaN where a pixel sees beyond it."""
    rows, columns = light.shape
    sides = max(1, round((rows * columns / (height * width)) ** 0.5))
    steps = (np.arange(sides) + 0.5) / sides
    y, x = np.arange(height)[:, None] + steps, np.arange(width)[:, None] + steps
    points = np.stack(np.meshgrid(x.ravel(), y.ravel()), axis=-1)
    at = apply_homography(np.linalg.inv(homography), points)
    seen = read_at(torch.from_numpy(light)[None], torch.from_numpy(at))[0].numpy()
    inside = (at > 0).all(axis=-1) & (at[..., 0] < columns) & (at[..., 1] < rows)
    seen = np.where(inside, seen, np.nan)
    return seen.reshape(height, sides, width, sides).mean(axis=(1, 3))


def _products(
    recording: Recording, frame: Float[np.ndarray, "h w"], middle: float, lengths: Int[np.ndarray, " K"]
) -> Float[np.ndarray, "3 K"] | None:
    """Of frame and frame, frame and spikes, spikes and spikes, for each length; None where a window leaves the
    stream."""
    assert recording.spikes is not None
    low = np.rint(middle - lengths / 2).astype(int)
    edges = sorted({*low.tolist(), *(low + lengths).tolist()})
    if edges[0] < 0 or edges[-1] > recording.num_ticks:
        return None
    sums = np.cumsum(recording.spikes.count(edges), axis=0, dtype=np.int64)
    upto = {edge: sums[at - 1] if at else np.zeros_like(sums[0]) for at, edge in enumerate(edges)}
    known = np.isfinite(frame)
    trend = _trend(known)
    shown = _levelled(np.where(known, frame, 0), known, trend)
    bad = recording.bad_mask()
    found = np.zeros((3, len(lengths)))
    for k, (first, length) in enumerate(zip(low, lengths, strict=True)):
        rate = (upto[first + length] - upto[first]).astype(np.float32) / np.float32(length)
        if bad is not None:
            rate = repair(torch.from_numpy(rate), torch.from_numpy(bad)).numpy()
        seen = _levelled(rate, known, trend)
        found[:, k] = _beside(shown, shown), _beside(shown, seen), _beside(seen, seen)
    return found


def _trend(known: np.ndarray) -> np.ndarray:
    """An orthonormal basis of slow shading over the known pixels."""
    height, width = known.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    shapes = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).reshape(-1, 6)
    basis, _ = np.linalg.qr(shapes * known.reshape(-1, 1))
    return np.asarray(basis)


def _levelled(values: np.ndarray, known: np.ndarray, trend: np.ndarray) -> np.ndarray:
    flat = np.where(known, values, 0).reshape(-1).astype(np.float64)
    return np.where(known, (flat - trend @ (trend.T @ flat)).reshape(values.shape), 0)


def _beside(a: np.ndarray, b: np.ndarray) -> float:
    """The sum of products of each pixel of one with the neighbours of the same pixel in the other."""
    height, width = a.shape
    total = 0.0
    for down, across in LAGS:
        here = np.s_[: height - down, max(0, -across) : width - max(0, across)]
        there = np.s_[down:, max(0, across) : width - max(0, -across)]
        total += float((a[here] * b[there]).sum() + (b[here] * a[there]).sum())
    return total


def _length(lengths: Int[np.ndarray, " K"], products: Float[np.ndarray, "N 3 K"]) -> tuple[float, float, float] | None:
    """The length at which the difference is least, its standard deviation and the difference there; None: none is.

    Blurs of lengths L and M differ by their second moments, so near the least the difference grows as (L^2 - M^2)^2.
    How certain it is at each length, the frames tell, each left out in turn.
    """
    num = len(products)
    sums = np.stack([products.sum(axis=0), *(products.sum(axis=0) - one for one in products)])
    shown, both, seen = np.moveaxis(sums, 1, 0)
    with np.errstate(all="ignore"):
        difference = np.where((seen > 0) & (both > 0), 1 - both**2 / (shown * seen), 1.0)  # of all, then without each
    sigma = difference[1:].std(axis=0) * (num - 1) ** 0.5
    length = lengths[int(np.argmin(difference[0] + 2 * sigma))]
    for _ in range(3):
        near = (lengths >= FIT_RANGE[0] * length) & (lengths <= FIT_RANGE[1] * length)
        if near.sum() < FEWEST_LENGTHS:
            return None
        weights = 1 / (sigma[near] + LEAST_SIGMA)
        fits = [np.polyfit(lengths[near].astype(float) ** 2, row[near], 2, w=weights) for row in difference]
        squares = np.array([-b / (2 * a) if a > 0 else -1.0 for a, b, _ in fits])
        if (squares <= 0).any():
            return None
        length = float(squares[0] ** 0.5)
    a, b, c = fits[0]
    spread = float((squares[1:] ** 0.5).std() * (num - 1) ** 0.5)
    return length, float(np.hypot(spread, OWN_ERROR * length)), float(c - b * b / (4 * a))


def with_exposure(recording: Recording, *, unchecked: bool = False) -> Recording:
    """The recording with exposures as long as its footage says, where nobody stated it (`notes` tell); those that were
    stated are compared with the footage, unless `unchecked`.

    Raises:
        ValueError: the footage contradicts the exposure that was stated.
    """
    is_assumed = "exposure" in recording.notes
    if recording.spikes is None or (unchecked and not is_assumed):
        return recording
    found = estimate_exposure(recording)
    if found is None:
        silent = f"the footage does not tell ({SILENT})"
        if is_assumed:
            return recording.noting(exposure=f"{recording.notes['exposure']}; {silent}")
        return recording.noting(comparison=f"the exposure is taken as it is stated: {silent}")
    if not is_assumed:
        _refuse_contradiction(recording, found)
        return recording
    rate = recording.tick_rate_hz
    ticks = min(max(1, round(found.ticks)), *(one.num_ticks for one in recording.exposures))
    exposures = tuple(
        dataclasses.replace(one, stop_tick=one.start_tick + ticks, t1_s=(one.start_tick + ticks) / rate)
        for one in recording.exposures
    )
    told = f"estimated from the footage: {_words(found, rate)}; `exposure` states it"
    notes = {about: note for about, note in recording.notes.items() if about != "stream"} | {"exposure": told}
    readout = recording.readout_ticks
    name = named_stream(recording.spikes.files[0], recording.num_ticks + readout, readout)
    note = stream_note(exposures, rate, recording.num_ticks, name)
    if note is not None:
        notes["stream"] = note
    return dataclasses.replace(recording, exposures=exposures, notes=notes)


def _words(found: ExposureEstimate, rate_hz: float) -> str:
    milliseconds = f"{1e3 * found.ticks / rate_hz:.3g} +- {1e3 * found.sigma_ticks / rate_hz:.2g} ms"
    return f"{found.ticks:.0f} +- {found.sigma_ticks:.0f} ticks ({milliseconds})"


def _refuse_contradiction(recording: Recording, found: ExposureEstimate) -> None:
    stated = float(np.median([one.num_ticks for one in recording.exposures]))
    off = abs(stated - found.ticks)
    if off > CONTRADICTION_SIGMAS * found.sigma_ticks and off > CONTRADICTION_SHARE * stated:
        raise ValueError(
            f"exposure: {stated:.0f} ticks, but the footage of {recording.root} says "
            f"{_words(found, recording.tick_rate_hz)}; allowed: without it, what the footage says, or with `unchecked`"
        )
