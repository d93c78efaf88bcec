"""Which pixels of the sensor are broken: dead, hot or stuck.

Everything is judged against the pixel's neighbours, and, where there are frames, against the light that they saw: what
the frame shows too is no fault of the sensor.

Dimension key: h sensor rows, w sensor columns, S slices of time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Integer

FEW_SPIKES = 10  # what the neighbourhood must fire before silence counts as death, and a hot pixel's least excess
LIT_SPIKES = 5  # what the frames must promise around a silent pixel, else it may be a dark line or dot
BLOCK_SPIKES = 20  # what the frame must promise before a silent region counts as dead
HOT_FACTOR = 3.0
DARK_LIGHT = 0.02  # of full light: a frame this dark shows no bright point
STEADY_RATE = 0.98  # of all ticks: fires whatever happens
VARIED_SPIKES = 8  # spikes by which the neighbours must vary between slices before a constant pixel is stuck


def find_dead(
    counts: Integer[np.ndarray, "h w"], expected: Float[np.ndarray, "h w"] | None = None
) -> Bool[np.ndarray, "h w"]:
    """Pixels that never fire where they should.

    A pixel: silent although the median of its 5 x 5 neighbourhood fires 10 times or more, unless the frames promise
    fewer than 5 spikes there or right beside it. A region: silent although the frames promise 20 spikes or more at each
    pixel and around it. `expected` is what the frames promise, in spikes, NaN where not known.
    """
    silent = counts == 0
    dead = silent & (_around(counts, 2, _median) >= FEW_SPIKES)
    if expected is None:
        return dead
    lit = _around(_known(expected, np.inf), 1, _lowest) >= LIT_SPIKES
    return (dead & lit) | (silent & (_around(_known(expected, 0.0), 1, _lowest) >= BLOCK_SPIKES))


def find_hot(
    counts: Integer[np.ndarray, "h w"], expected: Float[np.ndarray, "h w"] | None = None
) -> Bool[np.ndarray, "h w"]:
    """Pixels that fire 3 times as often, and 10 spikes more, than all but one of their 8 neighbours, and of the 8 that
    lie two pixels away (of its own colour, were this a Bayer sensor), and 2 times as often as the frames promise
    (infinitely many: whatever it does is sound)."""
    hot = (counts > HOT_FACTOR * _around(counts, 1, _third_highest) + FEW_SPIKES) & (
        counts > HOT_FACTOR * _around(counts, 2, _third_highest_of_its_colour) + FEW_SPIKES
    )
    return hot if expected is None else hot & (counts > 2 * _promised(expected) + FEW_SPIKES)


def find_stuck(
    counts: Integer[np.ndarray, "h w"],
    slices: Integer[np.ndarray, "S h w"],
    num_ticks: int,
    expected: Float[np.ndarray, "h w"] | None = None,
    expected_span: Float[np.ndarray, "h w"] | None = None,
) -> Bool[np.ndarray, "h w"]:
    """Pixels that fire on, whatever happens around them.

    At almost every tick, while no more than one neighbour does so even 80 % of the time and the frames promise less; or
    as many spikes (within one) in every slice of time, while six of its eight neighbours, next to it and two pixels
    away, vary by 8 or more, and the frames promise that it varies so too (`expected_span`: highest less lowest number
    of spikes in a slice, NaN where not known): after a cut between two scenes, a sound pixel may be alike in both.
    """
    always = (
        (counts >= STEADY_RATE * num_ticks)
        & (_around(counts, 1, _third_highest) < 0.8 * num_ticks)
        & (_around(counts, 2, _third_highest_of_its_colour) < 0.8 * num_ticks)
    )
    if expected is not None:
        always &= _promised(expected) < 0.7 * num_ticks
    if num_ticks < FEW_SPIKES:
        always[:] = False
    span = slices.max(axis=0).astype(np.int64) - slices.min(axis=0)
    steady = (span <= 1) & (counts > 0) & (_around(span, 1, _fourth_lowest) >= VARIED_SPIKES)
    steady &= _around(span, 2, _fourth_lowest_of_its_colour) >= VARIED_SPIKES
    if expected_span is not None:
        steady &= _around(_known(expected_span, np.inf), 1, _lowest) >= VARIED_SPIKES
    return always | steady


def find_shown(light: Float[np.ndarray, "h w"], clipped: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Where the frame itself shows a bright point (3 times its 5 x 5 neighbourhood's median) or is clipped by light.

    `light` is linear, 1 is full light; `clipped` is the share of the cell whose frame pixels are.
    """
    return (light > HOT_FACTOR * _around(light, 2, _median) + DARK_LIGHT) | ((clipped > 0) & (light > DARK_LIGHT))


def _promised(expected: np.ndarray) -> np.ndarray:
    """The most that the frames promise within one pixel; nothing where they tell nothing."""
    return _around(_known(expected, 0.0), 1, _highest)


def _known(expected: np.ndarray, otherwise: float) -> np.ndarray:
    return np.where(np.isnan(expected), np.float32(otherwise), expected)


def _around(values: np.ndarray, radius: int, reduce: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Reduce the (2 radius + 1)^2 values around each pixel (mirrored at the border), 64 rows at a time."""
    size = 2 * radius + 1
    padded = np.pad(values, radius, mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size))
    blocks = [windows[row : row + 64].reshape(-1, values.shape[1], size * size) for row in range(0, len(values), 64)]
    return np.concatenate([reduce(block) for block in blocks])


def _median(values: np.ndarray) -> np.ndarray:
    return np.partition(values, values.shape[-1] // 2, axis=-1)[..., values.shape[-1] // 2]


def _highest(values: np.ndarray) -> np.ndarray:
    return np.asarray(values.max(axis=-1))


def _lowest(values: np.ndarray) -> np.ndarray:
    return np.asarray(values.min(axis=-1))


def _third_highest(values: np.ndarray) -> np.ndarray:
    """Of a pixel and its 8 neighbours: where the pixel itself is highest, the second highest neighbour."""
    return np.partition(values, -3, axis=-1)[..., -3]


def _third_highest_of_its_colour(values: np.ndarray) -> np.ndarray:
    """The same of every second row and column of 5 x 5 values."""
    return _third_highest(_of_its_colour(values))


def _fourth_lowest(values: np.ndarray) -> np.ndarray:
    """Of a pixel and its 8 neighbours; where the pixel itself is lowest, all but two neighbours reach this value."""
    return np.partition(values, 3, axis=-1)[..., 3]


def _fourth_lowest_of_its_colour(values: np.ndarray) -> np.ndarray:
    """The same of every second row and column of 5 x 5 values."""
    return _fourth_lowest(_of_its_colour(values))


def _of_its_colour(values: np.ndarray) -> np.ndarray:
    every_second = values.reshape(*values.shape[:-1], 5, 5)[..., ::2, ::2]
    return every_second.reshape(*values.shape[:-1], 9)
