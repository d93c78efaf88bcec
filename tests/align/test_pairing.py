"""Spikes against frames: the eight orientations are eight, and colours are told by what they weigh."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from spikevrt.align.findings import judge_orientation, judge_registration
from spikevrt.align.misfit import displacement
from spikevrt.align.pairing import (
    LUMINANCE_3,
    ORIENTATIONS,
    TURNS,
    Pairs,
    colour_evidence,
    gains,
    linear_light,
    orientation_scores,
    orientations,
    to_luminance,
)
from spikevrt.recording.frames import read_image


def _scene(height: int = 60, width: int = 60, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 60
    waves = [
        sum(np.sin(x * rng.uniform(-20, 20) + y * rng.uniform(-20, 20) + rng.uniform(0, 6)) for _ in range(6))
        for _ in range(3)
    ]
    return np.stack([0.1 + 0.7 * (w - w.min()) / (w.max() - w.min()) for w in waves], axis=-1).astype(np.float32)


def _pairs(light: np.ndarray, weights: np.ndarray = LUMINANCE_3, gain: float = 0.5) -> Pairs:
    return Pairs((0,), gain * (light @ weights)[None], light[None], np.zeros((1, *light.shape[:2]), dtype=np.float32))


def test_the_eight_orientations_differ_and_the_first_changes_nothing() -> None:
    square = np.arange(25).reshape(5, 5)
    turned = [tuple(one.ravel()) for one in orientations(square)]
    assert len(set(turned)) == len(ORIENTATIONS) == 8 and turned[0] == tuple(range(25))


def test_a_turn_in_numpy_s_words_is_that_turn_of_every_tick() -> None:
    spikes = np.arange(2 * 3 * 3).reshape(2, 3, 3)
    for index, words in enumerate(TURNS):
        wanted = [orientations(tick)[index] for tick in spikes]
        np.testing.assert_array_equal(eval(words, {"np": np, "spikes": spikes}), wanted, err_msg=words)


@pytest.mark.parametrize("index", range(8))
def test_the_orientation_that_undoes_a_turn_scores_highest(index: int) -> None:
    picture = to_luminance(_scene())
    inverse = {5: 6, 6: 5}.get(index, index)
    turned = np.ascontiguousarray(orientations(picture)[index])
    scores = orientation_scores(turned[None], picture[None])[0]
    assert int(scores.argmax()) == inverse and scores[inverse] > 0.98  # 60 cells do not fall on 48 alike from both ends


def test_a_shift_of_two_cells_in_forty_eight_costs_little() -> None:
    picture = to_luminance(_scene(48, 48))
    scores = orientation_scores(np.roll(picture, (2, -2), (0, 1))[None], picture[None])[0]
    assert int(scores.argmax()) == 0 and scores[0] > 0.8


def test_a_flat_picture_has_no_orientation() -> None:
    assert np.isnan(orientation_scores(np.full((1, 7, 11), 0.3), to_luminance(_scene(7, 11))[None])).all()


def test_red_minus_blue_weighs_plus_one_minus_one_and_nothing() -> None:
    light = _scene()
    known = colour_evidence(_pairs(light))
    exchanged = colour_evidence(_pairs(light, LUMINANCE_3[::-1].copy()))
    flat = colour_evidence(_pairs(light, np.array([1, 1, 1], dtype=np.float32) / 3))
    assert known is not None and exchanged is not None and flat is not None
    assert abs(known.ratio - 1) < 0.05 and abs(exchanged.ratio + 1) < 0.05 and abs(flat.ratio) < 0.1


def test_a_grey_scene_has_no_evidence_of_colours() -> None:
    grey = np.repeat(_scene()[:, :, :1], 3, axis=2)
    assert colour_evidence(_pairs(grey)) is None


@pytest.mark.parametrize("num_tones", [2, 3])
def test_fewer_than_four_tones_have_no_evidence_of_colours_and_no_warning(num_tones: int) -> None:
    tones = np.linspace(0.2, 0.8, num_tones, dtype=np.float32)
    grey = tones[(np.indices((60, 60)) // 4).sum(axis=0) % num_tones][..., None]
    light = grey * np.array([1, 0.5, 0.2], dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert colour_evidence(_pairs(light)) is None


def test_the_gain_is_the_rate_over_the_light_and_unknown_in_the_dark() -> None:
    light = _scene()
    np.testing.assert_allclose(gains(_pairs(light)), [0.5], rtol=1e-5)
    assert np.isnan(gains(_pairs(np.zeros((7, 11, 3), dtype=np.float32)))).all()


def test_light_is_averaged_after_it_is_made_linear() -> None:
    """Half black and half white is half the light, not the light of middle grey."""
    image = np.zeros((2, 4, 3), dtype=np.uint8)
    image[0] = 255
    np.testing.assert_allclose(linear_light(image, (1, 2)), np.full((1, 2, 3), 0.5), atol=1e-6)


def test_real_pairs_are_upright_and_never_told_to_be_bgr(shared: Path) -> None:
    """A passing car, spike camera 400 x 250 beside a colour camera, registered to within 4 pixels of 800 x 500."""
    folder = shared / "data" / "real_rgb_spike_pairs"
    for file in sorted(folder.glob("*.intensity.npy")):
        rate = np.load(file).astype(np.float32)
        light = linear_light(read_image(file.with_name(file.name.replace(".intensity.npy", ".rgb.jpg"))), rate.shape)
        scores = orientation_scores(rate[None], to_luminance(light)[None])[0]
        assert int(scores.argmax()) == 0 and scores[0] > 0.85 and np.sort(scores)[-2] < 0.3, file.name
        evidence = colour_evidence(Pairs((0,), 0.8 * (rate / rate.max())[None], light[None], np.zeros_like(rate)[None]))
        assert evidence is None or evidence.ratio > 0, file.name
        pairs = Pairs((0,), (rate / rate.max())[None], light[None], np.zeros_like(rate)[None])
        beside = displacement(pairs, np.ones(rate.shape, dtype=bool), frame_px=2.0)
        assert beside is not None and beside.correlation > 0.9
        assert judge_orientation(scores[None], 0.9, beside, None, "").verdict == "ok", file.name
        assert beside.px < 6 and (judge_registration(beside, "align").verdict != "bad" or beside.px > 2), file.name


@pytest.mark.parametrize(("width", "ratio"), [(641, 4), (101, 3), (96, 2)])
def test_cells_that_reach_beyond_a_frame_do_not_stretch_it(width: int, ratio: int) -> None:
    columns = np.linspace(40, 200, width).round().astype(np.uint8)
    image = np.broadcast_to(columns[None, :, None], (ratio * 5, width, 3))
    cells = linear_light(image, (5, -(-width // ratio)))[2, :, 1]
    expected = linear_light(image, image.shape[:2])[0, :, 1]
    whole = width // ratio
    np.testing.assert_allclose(cells[:whole], expected[: whole * ratio].reshape(whole, ratio).mean(1), rtol=1e-5)
