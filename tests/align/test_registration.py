"""Registration: homographies that were applied are found, whatever gain, noise and dead pixels; nonsense is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spikevrt.align.compare import grid_positions, linear_luminance, registered, residual_px
from spikevrt.align.estimate import estimate_registration
from spikevrt.align.registration import Cameras, Fit, resized
from spikevrt.recording.alignment import apply_homography, same_field
from spikevrt.recording.frames import read_image

ASSETS = Path(__file__).resolve().parents[2] / "src" / "spikevrt" / "assets"
CAMERAS = Cameras(width=320, height=212, sensor_width=160, sensor_height=106)
# a 3 % zoom, 1.5 degrees, 9 and -5 px, and a tilt of 0.01
P = np.array([0.03, -0.026, 9 / 160, 0.026, 0.03, -5 / 160, 0.01, -0.008])


@pytest.fixture(scope="module")
def light() -> np.ndarray:
    """Linear luminance of the middle of a photograph, with 40 px of it around the frame: (1, 292, 400)."""
    picture = linear_luminance(read_image(ASSETS / "coffee.jpg"))
    return picture[None, 10:302, 60:460]


def _frame(light: np.ndarray) -> np.ndarray:
    return light[:, 40:-40, 40:-40]


def _seen(light: np.ndarray, homography: np.ndarray, bend: np.ndarray | None = None) -> np.ndarray:
    """What the sensor sees: each pixel reads the 2x2-averaged light at H^-1 of its centre (plus `bend`, frame px)."""
    from scipy.ndimage import map_coordinates, uniform_filter

    rows, columns = np.mgrid[0 : CAMERAS.sensor_height, 0 : CAMERAS.sensor_width] + 0.5
    points = apply_homography(np.linalg.inv(homography), np.stack([columns, rows], axis=-1))
    points = points if bend is None else points + bend
    averaged = uniform_filter(light[0], 2, origin=-1)  # entry (i, j) is centred at the corner (i + 1, j + 1)
    at = [points[..., 1] + 40 - 1, points[..., 0] + 40 - 1]
    return map_coordinates(averaged, at, order=1, mode="nearest")[None]


def _gap_px(homography: np.ndarray, p: np.ndarray = P) -> float:
    return CAMERAS.corner_gap_px(homography, CAMERAS.homography(p))


def test_no_departure_is_the_same_field_and_parameters_invert_the_homography() -> None:
    matrix = CAMERAS.homography(np.zeros(8))
    np.testing.assert_allclose(matrix, same_field(320, 212, 160, 106), rtol=0, atol=1e-15)
    np.testing.assert_allclose(CAMERAS.parameters(CAMERAS.homography(P)), P, rtol=0, atol=1e-12)


def test_a_shift_of_four_frame_pixels_moves_every_corner_by_four() -> None:
    shifted = same_field(320, 212, 160, 106)
    shifted[0, 2] += 2.0  # sensor pixels
    assert CAMERAS.corner_gap_px(shifted, same_field(320, 212, 160, 106)) == pytest.approx(4.0, abs=1e-12)


def test_a_known_homography_is_found_to_a_fifth_of_a_pixel(light: np.ndarray) -> None:
    found = estimate_registration(_frame(light), _seen(light, CAMERAS.homography(P)))
    assert found.corner_shift_px > 12
    assert _gap_px(found.homography) < 0.2
    assert found.residual_after.median_px < 0.3 < 5 < found.residual_before.median_px
    assert found.correlation_after > 0.995 > found.correlation_before


def test_neither_gain_nor_dark_level_nor_vignetting_moves_the_homography(light: np.ndarray) -> None:
    seen = _seen(light, CAMERAS.homography(P))
    rows, columns = np.mgrid[-1 : 1 : CAMERAS.sensor_height * 1j, -1 : 1 : CAMERAS.sensor_width * 1j]
    changed = 700 * (seen * (1 - 0.3 * (rows**2 + columns**2) / 2) + 0.02)
    assert _gap_px(estimate_registration(_frame(light), changed).homography) < 0.4


def test_noise_dead_pixels_and_clipped_highlights_cost_less_than_half_a_pixel(light: np.ndarray) -> None:
    generator = np.random.default_rng(3)
    seen = generator.poisson(30 * _seen(light, CAMERAS.homography(P))).astype(np.float64)
    seen[generator.random(seen.shape) < 0.01] = 0
    clipped = np.clip(1.6 * _frame(light), 0, 1)
    assert (clipped == 1).mean() > 0.02
    assert _gap_px(estimate_registration(clipped, seen).homography) < 0.5


def test_cameras_that_see_the_same_field_stay_exactly_there(light: np.ndarray) -> None:
    found = estimate_registration(_frame(light), _seen(light, CAMERAS.homography(np.zeros(8))))
    assert found.corner_shift_px == 0
    np.testing.assert_array_equal(found.homography, CAMERAS.homography(np.zeros(8)))
    assert found.correlation_after == found.correlation_before


def test_several_pairs_share_one_homography(light: np.ndarray) -> None:
    seen = _seen(light, CAMERAS.homography(P))
    frames = np.concatenate([_frame(light), _frame(light) * 0.5])
    assert _gap_px(estimate_registration(frames, np.concatenate([seen, 3 * seen])).homography) < 0.2


def test_a_smooth_bend_is_left_by_the_homography_and_taken_by_the_flow(light: np.ndarray) -> None:
    rows, columns = np.mgrid[0 : 3 : CAMERAS.sensor_height * 1j, 0 : 4 : CAMERAS.sensor_width * 1j]
    bend = np.stack([3 * np.sin(columns * 1.5), 3 * np.cos(rows * 2)], axis=-1)
    seen = _seen(light, CAMERAS.homography(P), bend)
    stiff = estimate_registration(_frame(light), seen)
    bent = estimate_registration(_frame(light), seen, flow=True)
    assert stiff.flow is None
    assert bent.flow is not None and bent.flow.dtype == np.float32 and bent.flow.shape == (2, 14, 20)
    assert bent.residual_after.median_px < 0.8 * stiff.residual_after.median_px


def test_the_residual_of_a_shift_by_two_frame_pixels_is_two(light: np.ndarray) -> None:
    small = resized(_frame(light), CAMERAS.sensor_height, CAMERAS.sensor_width)
    identity = CAMERAS.homography(np.zeros(8))
    shifted = identity.copy()
    shifted[0, 2] += 1.0
    assert residual_px(CAMERAS, small, small, grid_positions(CAMERAS, identity)).median_px < 0.01
    residual = residual_px(CAMERAS, small, small, grid_positions(CAMERAS, shifted))
    assert residual.median_px == pytest.approx(2.0, abs=0.02)
    assert residual.near_share == 1.0


def test_registering_by_the_same_field_returns_the_same_picture() -> None:
    picture = np.random.default_rng(0).random((2, 106, 160)).astype(np.float32)
    positions = grid_positions(CAMERAS, CAMERAS.homography(np.zeros(8)))
    np.testing.assert_array_equal(registered(picture, positions), picture)


def test_luminance_is_linear_light() -> None:
    image = np.array([[[0, 0, 0], [255, 255, 255], [188, 188, 188], [255, 0, 0]]], dtype=np.uint8)
    np.testing.assert_allclose(linear_luminance(image), [[0, 1, 0.5029, 0.2126]], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["flat", "upside down", "another scene"])
def test_pictures_that_do_not_belong_together_are_refused(name: str, light: np.ndarray) -> None:
    frame, seen = _frame(light), _seen(light, CAMERAS.homography(P))
    if name == "flat":
        frame = np.full_like(frame, 0.5)
        seen = np.random.default_rng(0).poisson(9, seen.shape).astype(np.float64)
    elif name == "upside down":
        seen = seen[:, ::-1].copy()
    else:
        other = linear_luminance(read_image(ASSETS / "astronaut.jpg"))
        seen = resized(other[None, :300, :400], CAMERAS.sensor_height, CAMERAS.sensor_width)
    with pytest.raises(ValueError, match=r"^pictures: cannot be aligned: .*; is it upright, and the same scene\?"):
        estimate_registration(frame, seen)


def test_pictures_that_cannot_be_paired_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^frames \(2, 8, 8\), brightness \(1, 4, 4\); allowed: "):
        estimate_registration(np.zeros((2, 8, 8)), np.zeros((1, 4, 4)))


def test_neither_picture_is_changed(light: np.ndarray) -> None:
    frame, seen = _frame(light).copy(), _seen(light, CAMERAS.homography(P))
    copies = frame.copy(), seen.copy()
    estimate_registration(frame, seen, flow=True)
    np.testing.assert_array_equal(frame, copies[0])
    np.testing.assert_array_equal(seen, copies[1])


def test_four_real_pairs_fall_below_one_pixel(shared: Path) -> None:
    frames = sorted((shared / "data" / "real_rgb_spike_pairs").glob("*.rgb.jpg"))
    assert len(frames) == 4
    for frame in frames:
        brightness = np.load(frame.with_name(frame.name.replace(".rgb.jpg", ".intensity.npy")))[None]
        found = estimate_registration(linear_luminance(read_image(frame))[None], brightness)
        assert found.residual_after.median_px < 0.6 < found.residual_before.median_px
        assert found.residual_after.num_recognised > 100


def test_what_is_worse_than_the_same_field_is_not_kept(light: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _seen(light, CAMERAS.homography(np.zeros(8)))
    shifted = Fit(np.array([0, 0, 3 / 160, 0, 0, 0, 0, 0]), 0.0, np.ones(1))
    monkeypatch.setattr("spikevrt.align.estimate.fit_homography", lambda *_, **__: shifted)
    found = estimate_registration(_frame(light), seen)
    assert not found.is_better and found.corner_shift_px == 0
    np.testing.assert_array_equal(found.homography, CAMERAS.homography(np.zeros(8)))
    assert found.residual_after == found.residual_before


def test_a_geometry_that_explains_hardly_more_than_the_same_field_is_not_kept(
    light: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strong noise leaves half of everything unexplained, and a third of a pixel explains none of it."""
    from spikevrt.align import estimate

    nudge = np.array([0, 0, 0.3 / 160, 0, 0, 0, 0, 0])
    monkeypatch.setattr(estimate, "fit_homography", lambda *_, **__: Fit(nudge, 0.0, np.ones(1)))
    noise = np.random.default_rng(0).normal(0, light.std(), (1, 106, 160))
    seen = _seen(light, CAMERAS.homography(nudge)) + noise
    result = estimate_registration(_frame(light), seen)
    assert not result.is_better and result.corner_shift_px == 0
    np.testing.assert_array_equal(result.homography, CAMERAS.homography(np.zeros(8)))
