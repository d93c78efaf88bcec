"""How far beside the frames the spikes lie, in pixels and in ticks: cheap enough for every recording, with errors.

A blurry frame and the spikes of its exposure (`pairing.Pairs`) show the same light, so motion does no harm.
`displacement` fits one affine map between spikes and frames, all frames together, from a search over whole cells down
to fractions of a pixel; how it changes when parts of the picture are left out is its error. `time_offset` correlates
each frame with windows of spikes that begin earlier and later; a parabola through the best three says when. Frames that
agree, each by its own motion, tell an offset. `spikevrt align` measures both better and writes them down; here the
question is whether that is needed. NumPy and torch alone.

Dimension key: F frames, H and W rows and columns of the common grid, h and w those of a reduced picture, M parts of the
picture, S shifts in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from spikevrt.align.pairing import Pairs, detail, registered
from spikevrt.recording.alignment import read_at
from spikevrt.recording.recording import Recording

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

SEARCH_PX, FINE_PX = 80, 320  # longer side, at most, of the first pictures that are compared, and of the last
SEARCH_SHARE = 0.25  # of each side: how far a shift may be
PARTS = 4  # along either side, left out in turn
ROUNDS = 6  # of a fit on one level, at most
LEAST_SHARE = 0.5  # of the picture that must overlap
MOST_TURNED = 0.2  # of an affine map's departure from a shift: 11 degrees, 20 %
LEAST_PX = 8  # shorter side of a picture that can be compared
STEPS = 16  # of an exposure, between two shifts in time
SHORT = 12  # steps of a window where there are no spikes around the exposures: it moves inside them
REACH = STEPS // 2  # steps either way: half an exposure
REACH_PX = 6  # and by so many cells all frames may lie aside, together
COMPARED_PX = 160  # longer side, at most, of the pictures that are compared then
LEAST_FRAMES = 3  # that must have spikes around their exposures, or short windows are taken


@dataclass(frozen=True)
class Displacement:
    """Where the spikes lie beside the frames.

    px: root mean square over the frame, in frame pixels. error_px: its standard error, infinite where too few parts of
    the picture tell. right_px, down_px: the mean shift. correlation: of spikes and frames with it undone. frame_at:
    (x, y) in cells, where in the frames lies what a cell of the spikes shows.
    """

    px: float
    error_px: float
    right_px: float
    down_px: float
    correlation: float
    frame_at: Float[np.ndarray, "H W 2"]


def displacement(pairs: Pairs, seen: Bool[np.ndarray, "H W"], *, frame_px: float) -> Displacement | None:
    """`seen`: the cells that the sensor sees; `frame_px`: frame pixels of a cell.

    None where there is nothing to compare: flat or tiny pictures.
    """
    factors = _factors(seen.shape)
    level = _Level.of(pairs.rate, pairs.luminance, seen, factors[0])
    if level is None:
        return None
    fit = level.fit(level.search())
    for times in factors[1:]:
        level = _Level.of(pairs.rate, pairs.luminance, seen, times) or level
        fit = level.fit(fit)
    length, error = level.length(fit)
    unit, correlation = level.unit * factors[-1], level.correlation(fit)
    frame_at = (_moved(fit, level.uv(seen.shape, unit)) * unit) + np.array(seen.shape[::-1]) / 2
    px = unit * frame_px
    return Displacement(length * px, error * px, -fit[0] * px, -fit[3] * px, correlation, frame_at)


def _factors(size: tuple[int, ...]) -> list[int]:
    """By which the pictures are reduced, the coarsest first."""
    first, last = (max(1, -(-max(size) // side)) for side in (SEARCH_PX, FINE_PX))
    factors = [first]
    while factors[-1] > last:
        factors.append(max(last, factors[-1] // 2))
    return factors


@dataclass(frozen=True)
class _Level:
    """Pictures at one scale, and affine maps p between them: a cell of the spikes at (u, v), in units of half the
    longer side from the centre, shows what the frame has at (u, v) + (p0 + p1 u + p2 v, p3 + p4 u + p5 v)."""

    spikes: Float[np.ndarray, "F H W"]
    frames: Float[np.ndarray, "F H W"]
    seen: Bool[np.ndarray, "H W"]

    @staticmethod
    def of(rate: np.ndarray, light: np.ndarray, seen: np.ndarray, times: int) -> _Level | None:
        if min(seen.shape) // times < LEAST_PX:
            return None
        spikes, frames = (
            np.stack([detail(_soft(_reduced(one, times))) for one in pictures]) for pictures in (rate, light)
        )
        tell = (np.ptp(spikes, axis=(1, 2)) > 1e-6) & (np.ptp(frames, axis=(1, 2)) > 1e-6)
        return _Level(spikes[tell], frames[tell], _reduced(seen, times) > 0.99) if tell.any() else None

    @property
    def unit(self) -> float:
        return max(self.seen.shape) / 2

    def uv(self, size: tuple[int, ...], unit: float) -> Float[np.ndarray, "H W 2"]:
        rows, columns = (np.arange(side) + 0.5 - side / 2 for side in size)
        return np.stack(np.meshgrid(columns, rows), axis=-1) / unit

    def search(self) -> Float[np.ndarray, " 6"]:
        """The shift by whole cells at which they correlate best, all frames together."""
        size = (2 * self.seen.shape[0], 2 * self.seen.shape[1])
        total = np.zeros(size)
        for spikes, frame in zip(self.spikes * self.seen, self.frames, strict=True):
            product = np.fft.rfft2(spikes, size).conj() * np.fft.rfft2(frame, size)
            total += np.fft.irfft2(product, size) / np.sqrt((spikes**2).sum() * (frame**2).sum() + 1e-30)
        down, right = (np.arange(-int(side * SEARCH_SHARE), int(side * SEARCH_SHARE) + 1) for side in self.seen.shape)
        near = total[np.ix_(down % size[0], right % size[1])]
        row, column = np.unravel_index(int(near.argmax()), near.shape)
        return np.array([right[column], 0, 0, down[row], 0, 0]) / self.unit

    def fit(self, p: Float[np.ndarray, " 6"]) -> Float[np.ndarray, " 6"]:
        """Gauss-Newton from `p`, as long as the correlation grows; a step moves nothing by more than two cells."""
        best = self.correlation(p)
        for _ in range(ROUNDS):
            normal, moment = (parts.sum(axis=0) for parts in self._equations(p))
            step = _solved(normal, moment)
            step *= min(1.0, 2 / self.unit / max(np.abs(step).max(), 1e-12))
            for _ in range(3):
                there = self.correlation(p + step)
                if there > best:
                    break
                step /= 2
            else:
                break
            p, best = p + step, there
            if np.abs(step).max() * self.unit < 0.01:
                break
        return p

    def correlation(self, p: Float[np.ndarray, " 6"]) -> float:
        """Of spikes and frames, the mean over the frames; -1 where they hardly overlap."""
        read = self._read(p, slopes=False)
        if read is None:
            return -1.0
        inside, frames, _ = read
        scores = []
        for one, other in zip(self.spikes, frames, strict=True):
            a, b = (values[inside] - values[inside].mean() for values in (one, other))
            scores.append(a @ b / np.sqrt((a @ a) * (b @ b) + 1e-30))
        return float(np.mean(scores))

    def length(self, p: Float[np.ndarray, " 6"]) -> tuple[float, float]:
        """Root mean square of the displacement over the picture, and its standard error (a jackknife), in units."""
        normal, moment = self._equations(p)
        uv = self.uv(self.seen.shape, self.unit)
        rms = float(np.sqrt(((_moved(p, uv) - uv) ** 2).sum(axis=-1).mean()))
        left_out = np.array(
            [
                _solved(normal.sum(axis=0) - a, moment.sum(axis=0) - b)
                for a, b in zip(normal, moment, strict=True)
                if a[0, 0] > 0
            ]
        )
        num = len(left_out)
        if num < PARTS:
            return rms, float("inf")
        spread = sum(((_moved(one, uv) - uv) ** 2).sum(axis=-1).mean() for one in left_out - left_out.mean(axis=0))
        return rms, float(np.sqrt((num - 1) / num * spread))

    def _read(self, p: np.ndarray, *, slopes: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Which cells can be compared, the frames there, and their slopes (to the right and down, by a unit)."""
        height, width = self.seen.shape
        xy = _moved(p, self.uv(self.seen.shape, self.unit)) * self.unit + np.array([width, height]) / 2
        x, y = np.moveaxis(xy, -1, 0)
        inside = self.seen & (x >= 1.5) & (y >= 1.5) & (x <= width - 1.5) & (y <= height - 1.5)
        if inside.mean() < LEAST_SHARE or np.abs(p[[1, 2, 4, 5]]).max() > MOST_TURNED:
            return None
        pictures = self.frames[None]
        if slopes:
            down, right = np.gradient(self.frames, axis=(1, 2))
            pictures = np.stack([self.frames, right * self.unit, down * self.unit])
        read = read_at(torch.from_numpy(pictures), torch.from_numpy(xy)).numpy()
        return inside, read[0], np.moveaxis(read[1:], 0, 1)

    def _equations(self, p: np.ndarray) -> tuple[Float[np.ndarray, "M 6 6"], Float[np.ndarray, "M 6"]]:
        """The normal equations of the step from `p`, of each part of the picture, all frames together."""
        normal, moment = np.zeros((PARTS * PARTS, 6, 6)), np.zeros((PARTS * PARTS, 6))
        read = self._read(p, slopes=True)
        if read is None:
            return normal, moment
        inside, frames, slopes = read
        rows, columns = (np.arange(side) * PARTS // side for side in inside.shape)
        part = (rows[:, None] * PARTS + columns)[inside]
        u, v = self.uv(self.seen.shape, self.unit)[inside].T
        basis = np.stack([np.ones_like(u), u, v])
        for one, other, (right, down) in zip(self.spikes, frames, slopes, strict=True):
            a, b = (values[inside] - values[inside].mean() for values in (one, other))
            size = np.sqrt(a @ a) + 1e-30
            gain = max(a @ b / (b @ b + 1e-30), 0.05 * size / np.sqrt(b @ b + 1e-30))
            design = gain * np.concatenate([right[inside] * basis, down[inside] * basis]) / size
            left = (a - gain * b) / size
            for k in range(PARTS * PARTS):
                of_part = design[:, part == k]
                normal[k] += of_part @ of_part.T
                moment[k] += of_part @ left[part == k]
        return normal, moment


def _moved(p: Float[np.ndarray, " 6"], uv: Float[np.ndarray, "H W 2"]) -> Float[np.ndarray, "H W 2"]:
    u, v = np.moveaxis(uv, -1, 0)
    return uv + np.stack([p[0] + p[1] * u + p[2] * v, p[3] + p[4] * u + p[5] * v], axis=-1)


def _solved(normal: np.ndarray, moment: np.ndarray) -> np.ndarray:
    return np.linalg.lstsq(normal, moment, rcond=1e-6)[0]


def _soft(picture: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """Weights 1 2 1 along both axes, the border repeated."""
    for axis in (0, 1):
        padded = np.pad(picture, [(1, 1) if k == axis else (0, 0) for k in range(2)], mode="edge")
        before, after = (padded.take(range(at, at + picture.shape[axis]), axis) for at in (0, 2))
        picture = (before + 2 * picture + after) / 4
    return picture


def _reduced(picture: np.ndarray, times: int) -> Float[np.ndarray, "h w"]:
    """Means of `times` x `times` cells around the centre; what is left over at the borders is cut off."""
    (top, left), (height, width) = (
        (side % times // 2 for side in picture.shape),
        (side // times for side in picture.shape),
    )
    cells = picture[top : top + height * times, left : left + width * times].reshape(height, times, width, times)
    return cells.mean(axis=(1, 3), dtype=np.float32)


@dataclass(frozen=True)
class TimeOffset:
    """When the spikes fit the frames: so many ticks later than written down, for each frame that can tell.

    frames: which. middles: the middles of their exposures, in ticks. exposure_ticks: the shortest exposure.
    correlation: at each frame's best, the mean; correlation_at_0: as written.
    """

    ticks: Float[np.ndarray, " F"]
    frames: tuple[int, ...]
    middles: Float[np.ndarray, " F"]
    exposure_ticks: int
    correlation: float
    correlation_at_0: float


def time_offset(recording: Recording, pairs: Pairs, undone: Displacement | None) -> TimeOffset | None:
    """From the frames with spikes around their exposures; where fewer than three have any, from shorter windows of
    spikes, which move inside the exposures: five times less certain. `undone`: taken out first.

    A frame that is flat, or one of whose windows is, and one that fits best where its spikes end, tells nothing. None
    where no frame tells anything, or an exposure has fewer than STEPS ticks.
    """
    step = min(recording.exposures[index].num_ticks for index in pairs.frames) // STEPS
    if step < 1:
        return None
    light = pairs.luminance
    if undone is not None:
        light = read_at(torch.from_numpy(light), torch.from_numpy(undone.frame_at)).numpy()
    for share in (1.0, SHORT / STEPS):
        surfaces = {
            index: surface
            for index, one in zip(pairs.frames, light, strict=True)
            if (surface := _surface(recording, index, one, step, share)) is not None
        }
        curves = _best_in_common(surfaces)
        peaks = {index: peak for index, curve in curves.items() if (peak := _peak(curve)) is not None}
        if len(peaks) >= min(LEAST_FRAMES, len(pairs.frames)):
            break
    if not peaks:
        return None
    told = [recording.exposures[index] for index in peaks]
    return TimeOffset(
        ticks=np.array(list(peaks.values())) * step,
        frames=tuple(peaks),
        middles=np.array([(one.start_tick + one.stop_tick) / 2 for one in told]),
        exposure_ticks=min(one.num_ticks for one in told),
        correlation=float(np.mean([np.nanmax(curves[index]) for index in peaks])),
        correlation_at_0=float(np.mean([curves[index][REACH] for index in peaks])),
    )


def _surface(
    recording: Recording, index: int, light: Float[np.ndarray, "H W"], step: int, share: float
) -> Float[np.ndarray, "S y x"] | None:
    """Correlation of the frame with each window of spikes at each shift of up to REACH_PX cells (wrapped round); NaN
    where there are no such spikes. None where that is so already a step away, or a picture is flat."""
    assert recording.spikes is not None
    exposure = recording.exposures[index]
    length = int(exposure.num_ticks / step * share)
    first = (exposure.start_tick + exposure.stop_tick - length * step) // 2
    shifts = [
        k
        for k in range(-REACH, REACH + 1)
        if first + k * step >= 0 and first + (k + length) * step <= recording.num_ticks
    ]
    if not {-1, 0, 1} <= set(shifts):
        return None
    edges = range(first + shifts[0] * step, first + (shifts[-1] + length) * step + 1, step)
    slices = np.stack([_compared(one) for one in registered(recording, recording.spikes.count(edges))])
    sums = np.concatenate([np.zeros_like(slices[:1]), slices.cumsum(axis=0)])
    fixed = _centred(_compared(light))
    surface = np.full((2 * REACH + 1, 2 * REACH_PX + 1, 2 * REACH_PX + 1), np.nan)
    for k, one in zip(shifts, sums[length:] - sums[:-length], strict=True):
        moving = _centred(one)
        size = np.sqrt((fixed**2).sum() * (moving**2).sum())
        if not size > 0:
            return None
        product = np.fft.irfft2(np.fft.rfft2(moving).conj() * np.fft.rfft2(fixed), s=fixed.shape) / size
        near = np.arange(-REACH_PX, REACH_PX + 1)
        surface[k + REACH] = product[np.ix_(near % product.shape[0], near % product.shape[1])]
    return surface


def _best_in_common(surfaces: dict[int, Float[np.ndarray, "S y x"]]) -> dict[int, Float[np.ndarray, " S"]]:
    """Each frame's curve over time, at the one shift in space at which all frames, each at its own best time, fit best:
    between cells, by parabolas, or a fraction of a cell would look like a delay that each motion turns another way."""
    if not surfaces:
        return {}
    every = np.stack(list(surfaces.values()))
    fit = np.nanmax(every, axis=1).mean(axis=0)
    inner = fit[1:-1, 1:-1]
    row, column = (int(at) for at in np.unravel_index(int(inner.argmax()), inner.shape))
    down, right = _vertex(fit[row : row + 3, column + 1]), _vertex(fit[row + 1, column : column + 3])
    curves = _between(down) @ every[:, :, row : row + 3, column : column + 3] @ _between(right)
    return dict(zip(surfaces, curves, strict=True))


def _vertex(three: Float[np.ndarray, " 3"]) -> float:
    """Where the parabola through three values has its maximum, from the middle one, within half a step."""
    before, at, after = (float(value) for value in three)
    curve = before - 2 * at + after
    return float(np.clip((before - after) / (2 * curve), -0.5, 0.5)) if curve < 0 else 0.0


def _between(at: float) -> Float[np.ndarray, " 3"]:
    """Weights of three values at -1, 0 and 1 for the parabola through them at `at`."""
    return np.array([at * (at - 1) / 2, 1 - at * at, at * (at + 1) / 2])


def _peak(scores: Float[np.ndarray, " S"]) -> float | None:
    """Where the maximum lies, in steps from the middle, by a parabola; at an end of what is searched the end, None at
    an end of what is known."""
    best = int(np.nanargmax(scores))
    if best in (0, len(scores) - 1):
        return float(best - REACH)
    around = scores[best - 1 : best + 2]
    return best - REACH + _vertex(around) if np.isfinite(around).all() else None


def _compared(picture: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "h w"]:
    return _reduced(picture, -(-max(picture.shape) // COMPARED_PX))


def _centred(picture: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    fine = detail(picture)
    return fine - fine.mean()
