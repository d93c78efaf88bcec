from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch

from spikevrt.evaluate.metrics import PIXELS_PER_DEGREE, flip, lpips_network, lpips_scores
from spikevrt.lpips import Lpips


def noise(seed: int, num_frames: int = 3, *, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    """Frames of 41 x 37 pixels, whole levels of 8 bits."""
    values = torch.rand(num_frames, 3, 41, 37, generator=torch.Generator().manual_seed(seed))
    return ((low + (high - low) * values) * 255).round() / 255


def test_lpips_is_the_network_s_and_tlp_the_difference_of_its_distances_of_neighbours():
    restored, sharp, network = noise(1), noise(2, low=0.2), Lpips()
    distances, changes = lpips_scores(network, restored, sharp)
    torch.testing.assert_close(distances, network(restored, sharp))
    expected = (network(restored[:-1], restored[1:]) - network(sharp[:-1], sharp[1:])).abs()
    torch.testing.assert_close(changes, expected, rtol=1e-4, atol=1e-6)  # a difference of float32 numbers near 1
    assert distances.shape == (3,) and changes.shape == (2,)


def test_lpips_is_that_of_the_8_bit_picture():
    sharp = noise(3, 1)
    distances, _ = lpips_scores(lpips_network(), sharp + 0.4 / 255, sharp)
    assert distances.tolist() == [0.0]


def test_a_clip_that_flickers_has_tlp_though_every_frame_is_as_far_from_the_truth():
    sharp = noise(4, 1).expand(2, -1, -1, -1)
    flickering = torch.stack((noise(5, 1)[0], noise(6, 1)[0]))
    steady = flickering[:1].expand(2, -1, -1, -1)
    assert lpips_scores(lpips_network(), steady, sharp)[1].tolist() == [0.0]
    assert lpips_scores(lpips_network(), flickering, sharp)[1].item() > 0.01


def test_one_frame_has_lpips_and_no_tlp():
    distances, changes = lpips_scores(lpips_network(), noise(1, 1), noise(2, 1))
    assert distances.shape == (1,) and changes.shape == (0,)


def test_the_network_is_read_once():
    assert lpips_network() is lpips_network()


@pytest.fixture
def flip_is_there() -> None:
    pytest.importorskip("flip_evaluator")


def lab(rgb: tuple[float, float, float]) -> np.ndarray:
    """CIELAB of an sRGB colour, relative to the white of sRGB."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in rgb]
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    x, y, z = (to_xyz @ linear) / to_xyz.sum(1)
    x, y, z = (t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29 for t in (x, y, z))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def flip_of_flat_colours(first: tuple[float, float, float], second: tuple[float, float, float]) -> float:
    """The colour half of FLIP, by the paper: flat pictures pass its spatial filters unchanged, and have no features.

    Hunt-adjusted CIELAB, HyAB distance to the power of 0.7, divided by that of green and blue, and the knee that gives
    the first 40 % of distances 95 % of the range.
    """

    def hyab(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
        one, other = (np.array([v[0], 0.01 * v[0] * v[1], 0.01 * v[0] * v[2]]) for v in (lab(a), lab(b)))
        return abs(one[0] - other[0]) + math.hypot(one[1] - other[1], one[2] - other[2])

    largest = hyab((0, 1, 0), (0, 0, 1)) ** 0.7
    distance = hyab(first, second) ** 0.7
    knee = 0.4 * largest
    if distance < knee:
        return 0.95 * distance / knee
    return 0.95 + 0.05 * (distance - knee) / (largest - knee)


@pytest.mark.usefixtures("flip_is_there")
@pytest.mark.parametrize(
    ("first", "second"),
    [((0.2, 0.4, 0.6), (0.2, 0.4, 0.8)), ((0.8, 0.2, 0.2), (0.6, 0.2, 0.4)), ((0, 0, 0), (1, 1, 1))],
)
def test_flip_of_flat_colours_is_that_of_the_paper_s_formula(first, second):
    clip = [
        torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, 29, 31) for colour in (first, second)
    ]
    assert flip(*clip).item() == pytest.approx(flip_of_flat_colours(first, second), abs=2e-3)  # matrices of 7 digits


@pytest.mark.usefixtures("flip_is_there")
def test_flip_of_equal_frames_is_zero_frame_by_frame():
    sharp = noise(7)
    restored = sharp.clone()
    restored[1] = 1 - restored[1]
    values = flip(restored, sharp)
    assert values[0] == values[2] == 0 and values[1] > 0.1


@pytest.mark.usefixtures("flip_is_there")
def test_flip_filters_as_an_eye_does_at_67_pixels_a_degree():
    """Noise that changes from pixel to pixel is seen less than the same noise in blocks of 8."""
    grey = torch.full((1, 3, 64, 64), 128 / 255)
    fine = grey + 0.1 * torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    coarse = torch.nn.functional.interpolate(fine[..., ::8, ::8], scale_factor=8)
    assert flip(fine, grey).item() < 0.6 * flip(coarse, grey).item()
    assert pytest.approx(0.7 * 3840 / 0.7 * math.pi / 180, abs=0.05) == PIXELS_PER_DEGREE


def test_flip_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "flip_evaluator", None)
    with pytest.raises(ValueError, match=r"flip needs the package flip-evaluator; install spikevrt\[metrics\]"):
        flip(noise(1), noise(1))
