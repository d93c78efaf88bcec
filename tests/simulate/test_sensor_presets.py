"""The presets' figures on a flat field; docs/sensor.md tells the measured ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from benchmarks.spike_statistics import flat_field_cv, interval_outside_fraction, phase_residual
from torch import Tensor

from spikevrt.simulate.sensor import SpikeSensor
from spikevrt.simulate.setup import SENSOR_PRESETS, SensorConfig, sensor_preset

BRIGHT_GREY = 0.215  # with the dark current it fires 0.22 times a tick, as the measured recording does


def flat(config: SensorConfig, grey: float, *, ticks: int = 500) -> Tensor:
    return SpikeSensor(61, 67, config, seed=3).expose(torch.full((ticks, 61, 67), grey))


def test_the_ideal_preset_is_the_default():
    assert sensor_preset("ideal") == SensorConfig()


def test_an_ideal_flat_field_has_two_intervals_and_the_residual_of_rounding():
    spikes = flat(SensorConfig(), BRIGHT_GREY)
    assert interval_outside_fraction(spikes) == 0
    assert abs(phase_residual(spikes) - 12**-0.5) < 0.003
    assert flat_field_cv(spikes) < 0.005  # a spike of 107


@pytest.mark.parametrize("grey", [0.17, BRIGHT_GREY, 0.37, 0.6])
def test_a_bright_flat_field_has_the_noise_of_the_measured_recordings(grey: float):
    spikes = flat(sensor_preset("bright"), grey)
    assert interval_outside_fraction(spikes) <= 0.002
    assert 0.29 <= phase_residual(spikes) <= 0.31
    assert abs(float(spikes.float().mean()) - grey - 0.005) < 0.002


def test_a_bright_flat_field_spreads_as_the_calibrated_response_does():
    spikes = flat(sensor_preset("bright"), 0.5, ticks=1000)
    assert abs(flat_field_cv(spikes) - 0.056) < 0.002


def test_a_grey_surface_in_low_light_fires_three_times_in_a_hundred_ticks():
    spikes = flat(sensor_preset("lowlight"), 0.18)
    assert abs(float(spikes.float().mean(0).median()) - 0.03) < 0.002
    assert 0.02 < interval_outside_fraction(spikes) < 0.08
    assert 0.32 < phase_residual(spikes) < 0.42


def test_low_light_is_the_bright_sensor_in_less_light():
    assert replace(sensor_preset("lowlight"), light_gain=1.0) == sensor_preset("bright")


def test_hot_pixels_of_the_presets_are_as_rare_as_measured():
    rates = flat(replace(sensor_preset("bright"), hot_fraction=0.01), 0.0).float().mean(0)
    hot, dark = rates > 0.025, rates < 0.025
    assert abs(float(hot.float().mean()) - 0.01) < 0.006
    assert abs(float(rates[dark].mean()) - 0.005) < 0.0005


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match=r"^sensor: dim; must be one of ideal, bright, lowlight$"):
        sensor_preset("dim")
    assert SENSOR_PRESETS == ("ideal", "bright", "lowlight")
