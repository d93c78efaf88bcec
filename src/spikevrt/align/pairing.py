"""Do the spikes show what the frames show: orientation, order of colours, gain. `misfit` asks where and when.

Everything is measured on pairs: the firing rate of one exposure beside the light of its blurry frame, which integrated
the same light over the same time, on one grid. Motion therefore does no harm.

Dimension key: F sampled frames, H and W rows and columns of the common grid, h and w those of the sensor or of compared
pictures, S side of the square on which orientations are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from spikevrt.align.compare import LUMINANCE_3
from spikevrt.recording.alignment import nearest_ratio, read_at
from spikevrt.recording.recording import Recording

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped, UInt8


DISPLAY_GAMMA = 2.2  # the camera's curve is not known; near enough to compare, not to simulate
SQUARE_PX = 48  # orientations are compared on a square of this side: errors of registration of 3 % stay below 2 cells
REACH_PX = 3  # and tried at shifts of up to so many cells
COLOUR_PX = 32  # the colours are compared on a grid of about so many cells a side
TILES = 5  # the colours' evidence is weighed over TILES x TILES parts of the picture
MIN_CELLS = 200  # fewer usable cells tell nothing about colour
MIN_RANGE = 0.01  # of brightness, in full scales: below, a curve cannot be fitted
LEAST_SPREAD = 1e-6  # of the curve's singular values: below, fewer than four brightnesses differ
MATCHED = 0.6  # correlation of two pictures that surely show the same
FIT_UNKNOWN = -1.0  # stands for a correlation that cannot be computed
UPRIGHT = "upright"
ORIENTATIONS = (
    *(UPRIGHT, "rows flipped", "columns flipped", "turned by 180 degrees"),
    *("transposed", "turned by 90 degrees", "turned by 270 degrees", "transposed along the other diagonal"),
)
TURNS = (  # the same of an array (T, h, w), in NumPy's words
    *("spikes", "spikes[:, ::-1]", "spikes[:, :, ::-1]", "spikes[:, ::-1, ::-1]", "spikes.transpose(0, 2, 1)"),
    *("np.rot90(spikes, 1, (1, 2))", "np.rot90(spikes, 3, (1, 2))", "spikes[:, ::-1, ::-1].transpose(0, 2, 1)"),
)


@dataclass(frozen=True)
class Pairs:
    """Rate and linear light of sampled frames, side by side on one grid."""

    frames: tuple[int, ...]
    rate: Float[np.ndarray, "F H W"]
    light: Float[np.ndarray, "F H W 3"]
    clipped: Float[np.ndarray, "F H W"]  # share of the cell's frame pixels with a colour below 4 or above 250

    @property
    def luminance(self) -> Float[np.ndarray, "F H W"]:
        return to_luminance(self.light)


def read_pairs(recording: Recording, frames: Sequence[int], rates: Float[np.ndarray, "F h w"]) -> Pairs:
    """The frames beside the rates of their exposures, in the registered grid where the recording is registered."""
    rates = registered(recording, rates)
    images = [recording.read_blur(index) for index in frames]
    size = rates.shape[1:]
    return Pairs(
        frames=tuple(frames),
        rate=rates,
        light=np.stack([linear_light(image, size) for image in images]),
        clipped=np.stack(
            [_shrink(np.any((image < 4) | (image > 250), axis=2).astype(np.float32), size) for image in images]
        ),
    )


def registered(recording: Recording, maps: np.ndarray) -> Float[np.ndarray, "F H W"]:
    """Maps of the sensor, any number of them, as the frames see them; unchanged where nothing was registered."""
    maps = maps.astype(np.float32, copy=False)
    positions = recording.sensor_positions
    if positions is None:
        return maps
    return read_at(torch.from_numpy(maps)[:, None], torch.from_numpy(positions))[:, 0].numpy()


def linear_light(image: UInt8[np.ndarray, "H2 W2 3"], size: tuple[int, ...]) -> Float[np.ndarray, "H W 3"]:
    """About linear light (gamma 2.2), float32 in [0, 1], averaged to (height, width) = `size`."""
    table = ((np.arange(256) / 255) ** DISPLAY_GAMMA).astype(np.float32)
    return np.stack([_shrink(table[image[:, :, channel]], size) for channel in range(3)], axis=-1)


def to_luminance(light: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n"]:
    """0.2126 R + 0.7152 G + 0.0722 B of linear light."""
    return light @ LUMINANCE_3


def orientation_scores(rate: Float[np.ndarray, "F h w"], light: Float[np.ndarray, "F H W"]) -> Float[np.ndarray, "F 8"]:
    """Correlation of rate and light for each of ORIENTATIONS, in their order: turn the spikes so, and they fit so well.

    Both are brought to a square, and their broad shading is taken out: a bright sky makes any two outdoor pictures
    alike. Each orientation may shift by up to REACH_PX cells, since the cameras may not be registered yet. NaN where
    one of the two is flat.
    """
    scores = np.full((len(rate), len(ORIENTATIONS)), np.nan)
    for index, (one, other) in enumerate(zip(rate, light, strict=True)):
        fixed = detail(_shrink(other, (SQUARE_PX, SQUARE_PX)))
        moving = detail(_shrink(one, (SQUARE_PX, SQUARE_PX)))
        for k, turned in enumerate(orientations(moving)):
            scores[index, k] = _shifted_correlation(turned, fixed, REACH_PX)[0]
    return scores


def other_reading(rates: Float[np.ndarray, "F h w"], light: Float[np.ndarray, "F H W"]) -> tuple[str, float] | None:
    """Do the spikes fit the frames if width and height are exchanged as the file is read? The size, and how well."""
    num, height, width = rates.shape
    if height == width:
        return None
    best = max(
        float(np.nan_to_num(orientation_scores(read.reshape(num, width, height), light).mean(axis=0), nan=-1.0).max())
        for read in (rates, rates[:, ::-1])  # stored with the top row first, or the bottom one
    )
    return (f"{height} x {width}", best) if best >= MATCHED else None


def steadiness(one: Float[np.ndarray, "F H W"], other: Float[np.ndarray, "F H W"]) -> float:
    """How well the pictures of two halves of an exposure fit (`orientation_scores`); FIT_UNKNOWN where one is flat, or
    so small that noise fits itself."""
    if min(one.shape[1:]) < SQUARE_PX // 2:
        return FIT_UNKNOWN
    scores = orientation_scores(one, other)[:, 0]
    return float(scores.mean()) if np.isfinite(scores).all() else FIT_UNKNOWN


def orientations(square: Shaped[np.ndarray, "S S"]) -> list[Shaped[np.ndarray, "S S"]]:
    """The picture turned in the eight ways of ORIENTATIONS, in their order."""
    return [
        *(square, square[::-1], square[:, ::-1], square[::-1, ::-1]),
        *(square.T, np.rot90(square), np.rot90(square, 3), square[::-1, ::-1].T),
    ]


@dataclass(frozen=True)
class ColourEvidence:
    """How the rate depends on red minus blue at equal brightness: +1 as luminance has it, -1 with both exchanged."""

    ratio: float
    error: float  # standard error of `ratio`, from TILES x TILES parts of the picture
    num_cells: int


def colour_evidence(pairs: Pairs) -> ColourEvidence | None:
    """Is the frames' first channel red? None: the scene is too grey, too dark or too flat to tell.

    Luminance is M + D with M = 0.1424 (R + B) + 0.7152 G and D = 0.0702 (R - B); with R and B exchanged it is M - D.
    The rate is fitted by a cubic in M (whatever curve the camera has) plus `ratio` times the cubic's slope times D. The
    standard error is a jackknife over parts of the picture, since neighbouring cells are no independent evidence.
    """
    rate, light, clipped = _coarse(pairs)
    edge = (LUMINANCE_3[0] + LUMINANCE_3[2]) / 2
    middle = light @ np.array([edge, LUMINANCE_3[1], edge], dtype=np.float32)
    red_blue = (light[..., 0] - light[..., 2]) * (LUMINANCE_3[0] - LUMINANCE_3[2]) / 2
    green = light[..., 1] - (light[..., 0] + light[..., 2]) / 2
    usable = (clipped < 0.05) & (middle > 0.01) & (rate > 0) & (rate < 0.9)
    num_cells = int(usable.sum())
    if num_cells < MIN_CELLS:
        return None
    rows, columns = (np.arange(size) * TILES // size for size in rate.shape[1:])
    tile = np.broadcast_to(rows[:, None] * TILES + columns, rate.shape)[usable]
    m, d, e, y = (values[usable].astype(np.float64) for values in (middle, red_blue, green, rate))
    if np.ptp(m) < MIN_RANGE:
        return None
    curve, (_, rank, _, _) = np.polynomial.Polynomial.fit(m, y, 3, rcond=LEAST_SPREAD, full=True)
    if rank < 4:  # fewer than four different brightnesses
        return None
    slope = curve.deriv()(m)
    design = np.stack([np.ones_like(m), m, m**2, m**3, slope * e, slope * d])
    moments = np.stack([_moments(design[:, tile == k], y[tile == k]) for k in range(TILES * TILES)])
    total = moments.sum(axis=0)
    ratio = _last_coefficient(total)
    left_out = np.array([_last_coefficient(total - one) for one in moments if one[0, 0] > 0])
    if not np.isfinite(ratio) or len(left_out) < 4 or not np.isfinite(left_out).all():
        return None
    spread = float(np.sqrt((len(left_out) - 1) / len(left_out) * ((left_out - left_out.mean()) ** 2).sum()))
    return ColourEvidence(float(ratio), spread, num_cells)


def gains(pairs: Pairs) -> Float[np.ndarray, " F"]:
    """Spikes per tick at full light, for each frame: total rate over total light where neither is saturated or dark.

    NaN where no such cell is left.
    """
    luminance = pairs.luminance
    usable = (luminance > 0.02) & (pairs.rate < 0.9) & (pairs.clipped < 0.5)
    light, rate = (np.where(usable, values, 0).sum(axis=(1, 2)) for values in (luminance, pairs.rate))
    return np.divide(rate, light, out=np.full(len(light), np.nan), where=light > 0)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's coefficient over all values; NaN when one of the two is constant."""
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale > 0 else float("nan")


def detail(picture: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """Compressed by a square root, less its own smooth version."""
    root = np.sqrt(np.clip(picture, 0, None)).astype(np.float64)
    smooth = root
    for axis, size in enumerate(root.shape):
        smooth = _smooth(smooth, axis, max(1, size // 6))
    return root - smooth


def _shifted_correlation(moving: np.ndarray, fixed: np.ndarray, reach: int) -> tuple[float, int, int]:
    """The best correlation over shifts of up to `reach` cells (wrapped round), and that shift (rows, columns)."""
    a, b = moving - moving.mean(), fixed - fixed.mean()
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    if not scale > 1e-9 * a.size:
        return float("nan"), 0, 0
    product = np.fft.irfft2(np.fft.rfft2(b) * np.fft.rfft2(a).conj(), a.shape)
    shifts = np.arange(-reach, reach + 1)
    near = product[np.ix_(shifts % a.shape[0], shifts % a.shape[1])]
    row, column = np.unravel_index(int(near.argmax()), near.shape)
    return float(near[row, column] / scale), int(shifts[row]), int(shifts[column])


def _coarse(pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rate, light and clipped share on a coarse grid, shifted onto each other as they fit best."""
    height, width = pairs.rate.shape[1:]
    times = max(1, round(max(height, width) / COLOUR_PX))
    size = (max(1, height // times), max(1, width // times))
    reach = min(max(height, width) // 20, (min(height, width) - 1) // 2)
    rates = []
    for rate, light in zip(pairs.rate, pairs.luminance, strict=True):
        _, down, right = _shifted_correlation(detail(rate), detail(light), reach)
        rates.append(_shrink(np.roll(rate, (down, right), (0, 1)), size))
    lights = [np.stack([_shrink(light[..., k], size) for k in range(3)], axis=-1) for light in pairs.light]
    return np.stack(rates), np.stack(lights), np.stack([_shrink(clipped, size) for clipped in pairs.clipped])


def _smooth(picture: np.ndarray, axis: int, radius: int) -> np.ndarray:
    """Mean over 2 radius + 1 cells along an axis, mirrored at the border; from running sums, whatever the radius."""
    padded = np.pad(picture, [(radius, radius) if k == axis else (0, 0) for k in range(2)], mode="symmetric")
    sums = np.moveaxis(np.insert(padded.cumsum(axis=axis), 0, 0.0, axis=axis), axis, 0)
    width = 2 * radius + 1
    return np.moveaxis((sums[width:] - sums[:-width]) / width, 0, axis)


def _moments(design: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.concatenate([design @ design.T, (design @ target)[:, None]], axis=1)


def _last_coefficient(moments: np.ndarray) -> float:
    try:
        return float(np.linalg.solve(moments[:, :-1], moments[:, -1])[-1])
    except np.linalg.LinAlgError:
        return float("nan")


def _shrink(picture: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Mean over boxes, float32, to (height, width) = `size`; the last boxes may reach beyond the picture's edge, which
    is continued."""
    from PIL import Image

    if picture.shape == tuple(size):
        return picture.astype(np.float32)
    ratio = nearest_ratio(*picture.shape, *size)
    beyond = [cells * ratio - side for cells, side in zip(size, picture.shape, strict=True)]
    if all(0 <= rest < ratio for rest in beyond):
        picture = np.pad(picture, [(0, rest) for rest in beyond], mode="edge")
    image = Image.fromarray(np.ascontiguousarray(picture, dtype=np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BOX))
