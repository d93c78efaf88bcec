from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from spikevrt.light import linear_to_srgb
from spikevrt.recording.frames import to_uint8
from spikevrt.simulate.sensor import FrameExposure, camera_seed, develop, row_delays
from spikevrt.simulate.setup import CameraConfig

NOISY = CameraConfig(full_well_electrons=1000.0, read_noise=0.02)


def random_light(*shape: int, seed: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def flat(grey: float) -> torch.Tensor:
    return torch.full((3, 101, 103), grey)


def linear(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float64) / 255


def test_the_default_camera_is_the_srgb_curve_and_eight_bits():
    light = random_light(3, 11, 13, seed=1)
    light[:, 0, 0], light[:, 0, 1], light[:, 0, 2] = 0.0, 1.0, 1.0000001  # what a sum of float32 may end in
    for generator in (None, torch.Generator().manual_seed(1)):
        assert np.array_equal(develop(light, CameraConfig(), generator), to_uint8(linear_to_srgb(light)))


def test_the_linear_curve_shows_half_light_as_half_the_levels():
    assert np.unique(develop(flat(0.5), CameraConfig(curve="linear"))).tolist() == [128]


def test_the_power_curve_undone_is_the_light():
    shown = develop(flat(0.25), CameraConfig(curve="2.2"))
    assert np.unique(shown).tolist() == [round(255 * 0.25 ** (1 / 2.2))]


def test_light_beyond_full_scale_is_cut_off_after_the_gain():
    light = torch.tensor([0.1, 0.25, 0.6]).expand(3, 1, 3)
    shown = develop(light, CameraConfig(exposure_gain=2.0, curve="linear"))
    assert shown[0, :, 0].tolist() == [51, 128, 255]


@pytest.mark.parametrize(("bits", "levels"), [(1, [0, 255]), (2, [0, 85, 170, 255])])
def test_few_bits_leave_few_levels_from_black_to_white(bits: int, levels: list[int]):
    ramp = torch.linspace(0, 1, 257).expand(3, 1, 257)
    assert np.unique(develop(ramp, CameraConfig(bits=bits, curve="linear"))).tolist() == levels


def test_read_noise_has_the_configured_spread_in_linear_light():
    config = CameraConfig(read_noise=0.05, curve="linear")
    shown = linear(develop(flat(0.5), config, torch.Generator().manual_seed(2)))
    assert abs(shown.mean() - 0.5) < 1e-3
    assert abs(shown.std() - 0.05) < 1e-3  # 31,209 values: 0.05 / sqrt(2 * 31209) = 0.0002


@pytest.mark.parametrize("grey", [0.1, 0.4])
def test_shot_noise_grows_with_the_root_of_the_light(grey: float):
    config = CameraConfig(full_well_electrons=400.0, curve="linear")
    shown = linear(develop(flat(grey), config, torch.Generator().manual_seed(3)))
    assert abs(shown.std() / (grey / 400) ** 0.5 - 1) < 0.02


def test_saturated_pixels_stay_full_under_shot_noise():
    config = CameraConfig(full_well_electrons=400.0, exposure_gain=2.0)
    assert int(develop(flat(0.9), config, torch.Generator().manual_seed(4)).min()) == 255


def test_a_picture_without_a_generator_has_no_noise():
    assert np.array_equal(develop(flat(0.3), NOISY), develop(flat(0.3), CameraConfig()))


def test_the_noise_follows_the_seed():
    first, again, other = (develop(flat(0.3), NOISY, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert camera_seed(5) != camera_seed(6)


def test_an_exposure_is_the_plain_mean_of_its_ticks_bit_for_bit():
    light = random_light(16, 3, 5, 7, seed=7)
    exposure = FrameExposure(5, 7, CameraConfig(), start=100, stop=116)
    exposure.add(100, light)
    assert torch.equal(exposure.mean(), light.sum(0) / 16)


@pytest.mark.parametrize("cuts", [(0, 41), (0, 3, 4, 17, 41), tuple(range(42))])
def test_each_row_of_a_rolling_shutter_is_the_mean_over_its_own_ticks(cuts: tuple[int, ...]):
    light = random_light(41, 3, 5, 7, seed=8)
    config = CameraConfig(rolling_shutter_ticks=12)
    exposure = FrameExposure(5, 7, config, start=9, stop=22)
    for low, high in zip(cuts[:-1], cuts[1:], strict=True):
        exposure.add(low, light[low:high])
    expected = torch.stack([light[9 + 3 * row : 22 + 3 * row, :, row].mean(0) for row in range(5)], 1)
    torch.testing.assert_close(exposure.mean(), expected, rtol=0, atol=1e-6)  # 13 float32 in another order
    assert exposure.last_tick == 34


def test_a_bar_that_moves_sideways_leans_under_a_rolling_shutter():
    light = torch.zeros(30, 3, 11, 30)
    light[torch.arange(30), :, :, torch.arange(30)] = 1.0  # a vertical bar, one pixel a tick
    config = CameraConfig(rolling_shutter_ticks=10)
    exposure = FrameExposure(11, 30, config, start=4, stop=5)
    exposure.add(0, light)
    assert exposure.mean()[0].argmax(-1).tolist() == list(range(4, 15))


def test_row_delays_run_evenly_from_none_to_all():
    assert row_delays(5, CameraConfig(rolling_shutter_ticks=8)).tolist() == [0, 2, 4, 6, 8]
    assert row_delays(4, CameraConfig(rolling_shutter_ticks=1)).tolist() == [0, 0, 1, 1]
    assert row_delays(1, CameraConfig(rolling_shutter_ticks=9)).tolist() == [0]
    assert row_delays(3, CameraConfig()).tolist() == [0, 0, 0]


def test_ticks_outside_the_exposure_are_ignored():
    light = random_light(10, 3, 2, 3, seed=9)
    exposure = FrameExposure(2, 3, CameraConfig(), start=4, stop=6)
    for first in (0, 5):
        exposure.add(first, light[first : first + 5])
    exposure.add(50, light)
    assert torch.equal(exposure.mean(), (light[4] + light[5]) / 2)


def test_the_light_is_left_as_it_was():
    light = random_light(6, 3, 5, 7, seed=10)
    before = light.clone()
    develop(light[0], replace(NOISY, exposure_gain=2.0), torch.Generator().manual_seed(1))
    FrameExposure(5, 7, CameraConfig(rolling_shutter_ticks=3), start=0, stop=3).add(0, light)
    assert torch.equal(light, before)


def test_the_settings_survive_json():
    assert CameraConfig(**json.loads(json.dumps(asdict(NOISY)))) == NOISY


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("exposure_gain", 0.0),
        ("full_well_electrons", -1.0),
        ("read_noise", float("inf")),
        ("curve", "log"),
        ("bits", 9),
        ("rolling_shutter_ticks", -1),
    ],
)
def test_an_impossible_camera_is_refused_by_name(field: str, value: float | str):
    with pytest.raises(ValueError, match=rf"^camera\.{field}: {value}; must be"):
        replace(CameraConfig(), **{field: value})


def test_an_exposure_of_no_ticks_is_refused():
    with pytest.raises(ValueError, match=r"^stop: 5; must be above start = 5$"):
        FrameExposure(2, 3, CameraConfig(), start=5, stop=5)
