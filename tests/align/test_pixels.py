"""Dead, hot and stuck pixels: what the neighbours and the frames say decides, not the number alone."""

from __future__ import annotations

import numpy as np
import pytest

from spikevrt.align.defects import find_dead, find_hot, find_shown, find_stuck

NUM_TICKS = 61


def _counts(light: np.ndarray) -> np.ndarray:
    return np.floor(light * NUM_TICKS).astype(np.int64)


def test_dead_and_hot_pixels_are_found_at_the_border_too() -> None:
    light = np.full((17, 19), 0.25)
    light[5, 7] = light[0, 0] = 0.0
    light[11, 3] = 1.0
    assert np.argwhere(find_dead(_counts(light))).tolist() == [[0, 0], [5, 7]]
    assert np.argwhere(find_hot(_counts(light))).tolist() == [[11, 3]]


def test_a_dark_region_is_not_dead_and_a_bright_region_is_not_hot() -> None:
    light = np.full((16, 16), 0.01)
    light[:, 8:] = 0.9
    assert not find_dead(_counts(light)).any() and not find_hot(_counts(light)).any()


def test_a_silent_block_is_dead_only_where_the_frames_are_bright() -> None:
    counts = _counts(np.full((17, 19), 0.5))
    counts[4:12, 4:12] = 0
    promised = np.full((17, 19), 30.0)
    assert np.array_equal(find_dead(counts, promised), counts == 0)
    promised[3:13, 3:13] = 0.0  # a black square stands there
    assert not find_dead(counts, promised).any()
    promised[:] = np.nan  # nobody knows: the block's middle stays open
    assert not find_dead(counts, promised)[6:10, 6:10].any()


def test_a_bright_point_that_the_frames_show_too_is_neither_hot_nor_stuck() -> None:
    counts = _counts(np.full((7, 11), 0.1))
    counts[3, 5] = NUM_TICKS
    slices = np.repeat(counts[None] // 2, 2, axis=0)
    assert find_hot(counts)[3, 5] and find_stuck(counts, slices, NUM_TICKS)[3, 5]
    promised = np.full((7, 11), 0.1 * NUM_TICKS)
    promised[3, 6] = 0.9 * NUM_TICKS  # half a pixel of registration off
    assert not find_hot(counts, promised).any() and not find_stuck(counts, slices, NUM_TICKS, promised).any()


def test_a_saturated_region_is_not_stuck() -> None:
    counts = _counts(np.full((7, 11), 0.2))
    counts[2:5, 4:8] = NUM_TICKS
    slices = np.repeat(counts[None] // 2, 2, axis=0)
    assert not find_stuck(counts, slices, NUM_TICKS).any()


def test_a_pixel_that_beats_on_while_its_neighbours_change_is_stuck() -> None:
    slices = np.stack([np.full((7, 11), value) for value in (2, 12, 22, 7)])
    slices[:, 3, 5] = (8, 8, 7, 8)
    counts = slices.sum(axis=0)
    assert np.argwhere(find_stuck(counts, slices, 4 * 32)).tolist() == [[3, 5]]
    still = np.full((4, 7, 11), 8)
    assert not find_stuck(still.sum(axis=0), still, 4 * 32).any()


def test_the_bright_colour_of_a_bayer_sensor_is_not_hot_but_a_hot_pixel_in_it_is() -> None:
    counts = np.full((16, 18), 3)
    counts[::2, ::2] = 40
    assert not find_hot(counts).any()
    counts[5, 7], counts[::2, ::2] = NUM_TICKS, 3
    assert np.argwhere(find_hot(counts)).tolist() == [[5, 7]]


@pytest.mark.parametrize("promised_spikes", [4.0, 5.0])
def test_a_silent_pixel_is_dead_where_5_spikes_are_promised_all_around_and_a_thin_dark_line_is_not(
    promised_spikes: float,
) -> None:
    counts = _counts(np.full((17, 19), 0.5))
    counts[:, 7] = 0
    promised = np.full((17, 19), 30.0)
    promised[:, 6] = promised_spikes  # half a pixel of registration off
    assert find_dead(counts)[:, 7].all()
    assert find_dead(counts, promised)[:, 7].all() == (promised_spikes >= 5)


def test_infinitely_many_promised_spikes_excuse_a_hot_and_an_always_firing_pixel() -> None:
    counts = _counts(np.full((7, 11), 0.1))
    counts[3, 5] = NUM_TICKS
    slices = np.repeat(counts[None] // 2, 2, axis=0)
    promised = np.full((7, 11), np.nan, dtype=np.float32)
    assert find_hot(counts, promised)[3, 5] and find_stuck(counts, slices, NUM_TICKS, promised)[3, 5]
    promised[3, 5] = np.inf
    assert not find_hot(counts, promised).any() and not find_stuck(counts, slices, NUM_TICKS, promised).any()


def test_a_frame_shows_a_bright_point_where_it_outshines_its_surroundings_or_is_clipped_by_light() -> None:
    light, clipped = np.full((9, 13), 0.004, dtype=np.float32), np.zeros((9, 13), dtype=np.float32)
    light[2, 3] = 0.2
    clipped[6:, :] = 1.0
    light[6:, 8:] = 0.9
    expected = np.zeros((9, 13), dtype=bool)
    expected[2, 3] = expected[6:, 8:] = True  # the rest of the clipped rows is black
    assert np.array_equal(find_shown(light, clipped), expected)


def test_a_constant_pixel_between_changing_ones_is_sound_where_the_frames_promise_no_change() -> None:
    """As after a cut between two scenes that happen to be alike in one pixel."""
    slices = np.stack([np.full((7, 11), value) for value in (2, 12, 22, 7)])
    slices[:, 3, 5] = 8
    counts, promised = slices.sum(axis=0), np.full((7, 11), 20.0)
    assert find_stuck(counts, slices, 4 * 32, None, promised)[3, 5]
    promised[3, 5] = 0.5
    assert not find_stuck(counts, slices, 4 * 32, None, promised).any()
    promised[3, 5] = np.nan
    assert find_stuck(counts, slices, 4 * 32, None, promised)[3, 5]


def test_a_colour_of_a_bayer_sensor_that_does_not_change_is_not_stuck() -> None:
    slices = np.stack([np.full((16, 18), value) for value in (2, 12, 22, 7)])
    slices[:, ::2, ::2] = 8
    assert not find_stuck(slices.sum(axis=0), slices, 4 * 32).any()
