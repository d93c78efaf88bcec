"""Where on the sensor a point of the frame lies: one homography (and on request a smooth field) from the footage.

Both pictures are brought to the sensor's scale and made comparable (`features`); a `Level` then maximises their
normalised correlation, summed over the frames, over the eight parameters of a homography and, where the spikes can be
read at another time (`clock`), over the time offset as well. docs/alignment.md has the equations.

Coordinates are those of `recording.alignment`: continuous pixels, corner origin, homographies from frame to sensor.
Dimension key: N frames, H and W rows and columns of a frame, h and w those of the sensor, M points of comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spikevrt.recording.alignment import apply_homography

if TYPE_CHECKING:
    from jaxtyping import Float

COARSE_PX = 40  # about the shorter side of the coarsest level
MAX_RESIDUALS = 200_000  # of one fit, over all frames
FEWEST_POINTS = 100  # of one frame
MARGIN_PX = 3  # a point so near a border is not compared
SIGMA_PX = 0.65  # of the blur before the comparison
SATURATED = 0.97  # linear light above which a frame's pixel says nothing

# What the spikes say the frames look like if the exposures began so many ticks later: (N, h, w), in any unit.
BrightnessAt = Callable[[float], "np.ndarray"]


@dataclass(frozen=True)
class Cameras:
    """The sizes of a frame and of the sensor, and the units in which a homography is estimated.

    Eight numbers p say how the homography H departs from "both see the same field":
    inverse(H) = inverse(A) (I + [[p0 p1 p2] [p3 p4 p5] [p6 p7 0]]) inverse(B), where A takes the frame to coordinates
    with the origin in its centre and 1 at the end of its longer side, and B takes these to the sensor.
    """

    width: int
    height: int
    sensor_width: int
    sensor_height: int

    @property
    def ratio(self) -> float:
        """Frame pixels of one sensor pixel, the mean over both axes."""
        return float((self.width * self.height / (self.sensor_width * self.sensor_height)) ** 0.5)

    @property
    def from_frame(self) -> Float[np.ndarray, "3 3"]:
        unit = max(self.width, self.height) / 2
        return np.array([[1 / unit, 0, -self.width / 2 / unit], [0, 1 / unit, -self.height / 2 / unit], [0, 0, 1]])

    @property
    def to_sensor(self) -> Float[np.ndarray, "3 3"]:
        unit = max(self.width, self.height) / 2
        x, y = unit * self.sensor_width / self.width, unit * self.sensor_height / self.height
        return np.array([[x, 0, self.sensor_width / 2], [0, y, self.sensor_height / 2], [0, 0, 1]])

    def homography(self, p: Float[np.ndarray, " 8"]) -> Float[np.ndarray, "3 3"]:
        matrix = self.to_sensor @ np.linalg.inv(_departure(p)) @ self.from_frame
        return matrix / matrix[2, 2]

    def parameters(self, homography: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, " 8"]:
        """The inverse of `homography`."""
        inner = self.from_frame @ np.linalg.inv(homography) @ self.to_sensor
        return (inner / inner[2, 2] - np.eye(3)).reshape(-1)[:8]

    def corner_gap_px(self, a: Float[np.ndarray, "3 3"], b: Float[np.ndarray, "3 3"]) -> float:
        """How far apart two homographies put a corner of the frame at most, in frame pixels."""
        corners = np.array([[x, y] for x in (0.0, self.width) for y in (0.0, self.height)])
        to_frame = [self.width / self.sensor_width, self.height / self.sensor_height]
        gap = (apply_homography(a, corners) - apply_homography(b, corners)) * to_frame
        return float(np.hypot(gap[:, 0], gap[:, 1]).max())


def _departure(p: Float[np.ndarray, " 8"]) -> Float[np.ndarray, "3 3"]:
    return np.eye(3) + np.append(p, 0.0).reshape(3, 3)


def resized(pictures: Float[np.ndarray, "N H W"], height: int, width: int) -> Float[np.ndarray, "N h w"]:
    """Area averages where it shrinks, bilinear where it grows; float32."""
    import cv2

    if pictures.shape[1:] == (height, width):
        return pictures.astype(np.float32, copy=False)
    way = cv2.INTER_AREA if height <= pictures.shape[1] else cv2.INTER_LINEAR
    return np.stack([cv2.resize(one.astype(np.float32), (width, height), interpolation=way) for one in pictures])


def features(light: Float[np.ndarray, "N h w"], *, root: bool) -> Float[np.ndarray, "N h w"]:
    """What is compared: light or spike rates, slightly blurred and, with `root`, under a square root.

    The root keeps highlights from outweighing all else and turns a gain into a factor, which the correlation ignores.
    Of counts near zero it makes something else than of light, so it is left out where spikes are few.
    """
    even = blurred(np.maximum(light, 0))
    return np.sqrt(even) if root else even


def blurred(pictures: Float[np.ndarray, "N h w"]) -> Float[np.ndarray, "N h w"]:
    import cv2

    return np.stack([cv2.GaussianBlur(one.astype(np.float32), (0, 0), SIGMA_PX) for one in pictures])


@dataclass(frozen=True)
class Fit:
    """`p` and `offset_ticks` at the maximum, and each frame's correlation there, (N,)."""

    p: Float[np.ndarray, " 8"]
    offset_ticks: float
    correlation: Float[np.ndarray, " N"]

    @property
    def score(self) -> float:
        return float(self.correlation.mean())


@dataclass(frozen=True)
class _Points:
    """The sensor's pixels that are compared with one frame: which, where, and a basis of slow shading there."""

    index_M: np.ndarray
    unit_M3: np.ndarray
    trend_M6: np.ndarray


class Level:
    """One level of the pyramid: frames and spikes reduced by 2 ** level, and what compares them."""

    def __init__(
        self,
        cameras: Cameras,
        light: Float[np.ndarray, "N H W"],
        brightness_at: BrightnessAt,
        level: int,
        *,
        change_at: BrightnessAt | None = None,
        root: bool = True,
    ) -> None:
        """`change_at`: the derivative of `brightness_at` by the offset, needed to fit the offset."""
        self.cameras, self.root = cameras, root
        self._brightness_at, self._change_at = brightness_at, change_at
        height, width = (max(8, round(side / 2**level)) for side in (cameras.sensor_height, cameras.sensor_width))
        self.height, self.width = height, width
        self._scale = np.array([width / cameras.sensor_width, height / cameras.sensor_height])
        self.frame_features = features(resized(light, height, width), root=root)
        self._is_saturated = resized((light > SATURATED).astype(np.float32), height, width) > 0.1
        self._last: tuple[float, np.ndarray] | None = None

    def fit(
        self,
        p: Float[np.ndarray, " 8"],
        offset_ticks: float,
        *,
        space: bool = True,
        time: bool = False,
        ticks: tuple[float, float] = (-np.inf, np.inf),
        frames: Sequence[int] | None = None,
        rounds: int = 2,
        max_evaluations: int = 12,
    ) -> Fit:
        """The maximum near (p, offset_ticks) over what is free; `ticks` bounds the offset.

        scipy's trust-region least squares. The points are drawn anew in each round, as the overlap changes.
        """
        from scipy.optimize import least_squares

        free = np.array([space] * 8 + [time])
        x = np.append(p, offset_ticks)
        low = np.append(np.full(8, -0.5), ticks[0])[free]
        high = np.append(np.full(8, 0.5), ticks[1])[free]
        for number in range(rounds if free.any() else 0):
            points = self._points(x[:8], frames, seed=number)
            if points is None:
                break
            objective = _Objective(self, x.copy(), free, points)
            solution = least_squares(
                objective.residuals, np.clip(x[free], low + 1e-9, high - 1e-9), jac=objective.jacobian,
                bounds=(low, high), x_scale="jac", ftol=1e-7, xtol=1e-7, max_nfev=max_evaluations,
            )  # fmt: skip
            x[free] = solution.x
        return Fit(x[:8], float(x[8]), self.correlation(x[:8], float(x[8]), frames))

    def correlation(
        self, p: Float[np.ndarray, " 8"], offset_ticks: float, frames: Sequence[int] | None = None
    ) -> Float[np.ndarray, " N"]:
        """Each frame's correlation as things stand; -1 where frame and sensor hardly overlap."""
        points = self._points(p, frames, seed=0)
        if points is None:
            return np.full(len(self.frame_features if frames is None else frames), -1.0)
        return self.evaluate(p, offset_ticks, points, time=False)[2]

    def shift(self, offset_ticks: float) -> Float[np.ndarray, " 8"]:
        """Where to begin: the translation that phase correlation finds, the median over the frames."""
        import cv2

        window = cv2.createHanningWindow((self.width, self.height), cv2.CV_32F)
        pairs = zip(self.frame_features, self._sensor_features(offset_ticks), strict=True)
        shifts = [cv2.phaseCorrelate(a - a.mean(), b - b.mean(), window)[0] for a, b in pairs]
        x, y = np.median(shifts, axis=0) / self._scale / np.diag(self.cameras.to_sensor)[:2]
        return np.array([0, 0, -x, 0, 0, -y, 0, 0])

    def evaluate(
        self, p: Float[np.ndarray, " 8"], offset_ticks: float, points: dict[int, _Points], *, time: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Residuals, their derivatives (8 of space, then time) and each frame's correlation.

        The residual of a frame is the difference of both feature pictures at the sensor's pixels, each freed of slow
        shading and of norm 1: half its square is 1 - correlation. The frame is read between its pixels and not the
        spikes, whose noise would be smoothed here and there and so pull the maximum about.
        """
        pictures = self._sensor_features(offset_ticks)
        changes = self._feature_changes(offset_ticks) if time else pictures
        residuals, derivatives, correlations = [], [], []
        gain_x, gain_y = np.diag(self.cameras.to_sensor)[:2] * self._scale
        for number, given in points.items():
            column, row, x, y, w = self._frame_xy(p, given.unit_M3)
            frame, down, across = _read(self.frame_features[number], row, column)
            d_x, d_y = across * gain_x / w, down * gain_y / w
            d_w = -(d_x * x + d_y * y) / w
            u, v, one = given.unit_M3.T
            by_space = np.stack([d_x * u, d_x * v, d_x * one, d_y * u, d_y * v, d_y * one, d_w * u, d_w * v], axis=1)
            by_time = changes[number].ravel()[given.index_M].astype(np.float64)[:, None]
            shown, shown_change = _normalised(frame, by_space, given.trend_M6)
            spikes = pictures[number].ravel()[given.index_M].astype(np.float64)
            seen, seen_change = _normalised(spikes, by_time, given.trend_M6)
            residuals.append(shown - seen)
            derivatives.append(np.column_stack([shown_change, -seen_change]))
            correlations.append(float(shown @ seen))
        return np.concatenate(residuals), np.concatenate(derivatives), np.array(correlations)

    def _sensor_features(self, offset_ticks: float) -> Float[np.ndarray, "N h w"]:
        if self._last is None or self._last[0] != offset_ticks:
            brightness = resized(self._brightness_at(offset_ticks), self.height, self.width)
            self._last = offset_ticks, features(brightness, root=self.root)
        return self._last[1]

    def _feature_changes(self, offset_ticks: float) -> Float[np.ndarray, "N h w"]:
        assert self._change_at is not None, "a level without change_at cannot fit the offset"
        changes = blurred(resized(self._change_at(offset_ticks), self.height, self.width))
        if not self.root:
            return changes
        roots = self._sensor_features(offset_ticks)  # d sqrt(x) = dx / (2 sqrt(x))
        return changes / (2 * np.maximum(roots, 0.05 * roots.mean()))

    def _frame_xy(self, p: Float[np.ndarray, " 8"], unit_M3: np.ndarray) -> tuple[np.ndarray, ...]:
        """Column and row (indices of this level's frames) and the homogeneous coordinates before A is undone."""
        x, y, w = _departure(p) @ unit_M3.T
        gain_x, gain_y = np.diag(self.cameras.to_sensor)[:2] * self._scale
        return gain_x * x / w + self.width / 2 - 0.5, gain_y * y / w + self.height / 2 - 0.5, x, y, w

    def _points(self, p: Float[np.ndarray, " 8"], frames: Sequence[int] | None, seed: int) -> dict[int, _Points] | None:
        """The points of each frame; None where too few are left."""
        rows, columns = np.mgrid[0 : self.height, 0 : self.width] + 0.5
        sensor_xy = np.stack([columns.ravel(), rows.ravel()], axis=-1) / self._scale
        unit_points = np.column_stack([sensor_xy, np.ones(len(sensor_xy))]) @ np.linalg.inv(self.cameras.to_sensor).T
        column, row, _, _, w = self._frame_xy(p, unit_points)
        inside = w > 0.1
        for index, side in ((column, self.width), (row, self.height)):
            inside &= (index > MARGIN_PX) & (index < side - 1 - MARGIN_PX)
        for index, side in ((columns.ravel(), self.width), (rows.ravel(), self.height)):
            inside &= (index > MARGIN_PX) & (index < side - MARGIN_PX)
        nearest = (
            np.clip(np.rint(row), 0, self.height - 1).astype(np.int64),
            np.clip(np.rint(column), 0, self.width - 1),
        )
        numbers = range(len(self.frame_features)) if frames is None else frames
        generator = np.random.default_rng(seed)
        points = {}
        for number in numbers:
            is_saturated = self._is_saturated[number][nearest[0], nearest[1].astype(np.int64)]
            chosen = np.flatnonzero(inside & ~is_saturated)
            if len(chosen) < FEWEST_POINTS:
                return None
            if len(chosen) > MAX_RESIDUALS // len(numbers):
                chosen = np.sort(generator.choice(chosen, MAX_RESIDUALS // len(numbers), replace=False))
            u, v, one = unit_points[chosen].T
            trend, _ = np.linalg.qr(np.stack([one, u, v, u * u, u * v, v * v], axis=1))
            points[number] = _Points(chosen, unit_points[chosen], trend)
        return points


class _Objective:
    """What scipy asks for, computed once a place."""

    def __init__(self, level: Level, start: np.ndarray, free: np.ndarray, points: dict[int, _Points]) -> None:
        self._level, self._start, self._free, self._points = level, start, free, points
        self._last: tuple[bytes, tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None

    def residuals(self, values: np.ndarray) -> np.ndarray:
        return self._at(values)[0]

    def jacobian(self, values: np.ndarray) -> np.ndarray:
        return self._at(values)[1][:, self._free]

    def _at(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._last is None or self._last[0] != values.tobytes():
            x = self._start.copy()
            x[self._free] = values
            found = self._level.evaluate(x[:8], float(x[8]), self._points, time=bool(self._free[8]))
            self._last = values.tobytes(), found
        return self._last[1]


def _read(picture: np.ndarray, row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bilinear values, and their exact derivatives by row and by column (with others the solver stops too early)."""
    height, width = picture.shape
    row, column = np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)
    top, left = np.minimum(row.astype(np.int64), height - 2), np.minimum(column.astype(np.int64), width - 2)
    down, along = row - top, column - left
    corner = picture.ravel().astype(np.float64)
    at = top * width + left
    a, b, c, d = corner[at], corner[at + 1], corner[at + width], corner[at + width + 1]
    upper, lower = a + (b - a) * along, c + (d - c) * along
    return upper + (lower - upper) * down, lower - upper, (b - a) * (1 - down) + (d - c) * down


def _normalised(values: np.ndarray, derivatives: np.ndarray, trend: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values without their share of `trend` and of norm 1, and what becomes of their derivatives."""
    centred, change = values - trend @ (trend.T @ values), derivatives - trend @ (trend.T @ derivatives)
    norm = max(float(np.linalg.norm(centred)), 1e-12)
    unit = centred / norm
    return unit, (change - np.outer(unit, unit @ change)) / norm


def num_levels(cameras: Cameras) -> int:
    """Levels of the pyramid, the full one included."""
    shorter = min(cameras.sensor_width, cameras.sensor_height)
    return 1 + max(0, round(float(np.log2(shorter / COARSE_PX))))


def begin(level: Level, offset_ticks: float) -> Float[np.ndarray, " 8"]:
    """Phase correlation's translation, or none at all, whichever correlates better."""
    starts = [np.zeros(8), level.shift(offset_ticks)]
    return max(starts, key=lambda p: float(level.correlation(p, offset_ticks).mean()))


def fit_homography(
    cameras: Cameras,
    light: Float[np.ndarray, "N H W"],
    brightness_at: BrightnessAt,
    offset_ticks: float = 0.0,
    *,
    root: bool = True,
) -> Fit:
    """The homography that all frames share, from coarse to fine, the clocks as they are."""
    p: np.ndarray | None = None
    for number in reversed(range(num_levels(cameras))):
        level = Level(cameras, light, brightness_at, number, root=root)
        p = begin(level, offset_ticks) if p is None else p
        fit = level.fit(p, offset_ticks)
        p = fit.p
    return fit
