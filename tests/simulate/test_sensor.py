from __future__ import annotations

import pytest
import torch

from spikevrt.simulate.sensor import SpikeSensor
from spikevrt.simulate.setup import SensorConfig


def random_light(num_ticks: int, seed: int) -> torch.Tensor:
    return torch.rand((num_ticks, 5, 7), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("threshold", [1.0, 1.7, 4.0])
def test_spikes_times_threshold_is_the_light_to_within_one_threshold(threshold: float):
    light = random_light(211, seed=1)
    spikes = SpikeSensor(5, 7, SensorConfig(threshold=threshold), seed=2).expose(light)
    integrated = light.double().cumsum(0)
    error = (spikes.double().cumsum(0) * threshold - integrated).abs()  # after every tick, not only at the end
    assert float(error.max()) <= threshold * (1 + 1e-5)  # float32 accumulates 211 roundings


def test_half_light_fires_every_second_tick():
    spikes = SpikeSensor(3, 5, SensorConfig(), seed=3).expose(torch.full((10, 3, 5), 0.5))
    assert torch.equal(spikes[::2] + spikes[1::2], torch.ones(5, 3, 5, dtype=torch.uint8))


def test_a_threshold_of_two_halves_the_rate():
    light = torch.full((64, 3, 5), 0.5)
    spikes = SpikeSensor(3, 5, SensorConfig(threshold=2.0), seed=4).expose(light)
    assert torch.equal(spikes.sum(0), torch.full((3, 5), 16))


def test_start_phases_differ_between_pixels_and_follow_the_seed():
    light = torch.full((8, 5, 7), 0.125)
    first, again, other = (SpikeSensor(5, 7, SensorConfig(), seed=seed).expose(light) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(set(first.argmax(0).flatten().tolist())) > 3


def test_how_time_is_cut_does_not_change_the_spikes():
    light = random_light(29, seed=7)
    config = SensorConfig(threshold=1.3, dead_ticks=0.4)
    whole = SpikeSensor(5, 7, config, seed=8).expose(light)
    sensor = SpikeSensor(5, 7, config, seed=8)
    assert torch.equal(
        torch.cat([sensor.expose(light[:11]), sensor.expose(light[11:12]), sensor.expose(light[12:])]), whole
    )


def test_a_saturated_pixel_fires_every_tick_and_stops_when_it_is_dark():
    sensor = SpikeSensor(2, 3, SensorConfig(threshold=0.25), seed=9)
    assert bool((sensor.expose(torch.ones(50, 2, 3)) == 1).all())
    assert int(sensor.expose(torch.zeros(50, 2, 3)).sum(0).max()) <= 1


@pytest.mark.parametrize(("dead_ticks", "expected"), [(0.0, 0.5), (0.5, 0.4), (2.0, 0.25)])
def test_light_lost_after_each_spike_lowers_the_rate(dead_ticks: float, expected: float):
    # each spike costs 1 of light plus 0.5 a tick of lost time: one spike every (1 + 0.5 * dead) / 0.5 ticks
    light = torch.full((4000, 2, 3), 0.5)
    rate = SpikeSensor(2, 3, SensorConfig(dead_ticks=dead_ticks), seed=10).expose(light).float().mean()
    assert abs(float(rate) - expected) < 1e-3


def test_the_light_is_left_as_it_was():
    light = random_light(3, seed=11)
    before = light.clone()
    SpikeSensor(5, 7, SensorConfig(dead_ticks=0.1), seed=12).expose(light)
    assert torch.equal(light, before)


@pytest.mark.parametrize(
    ("field", "value"), [("threshold", 0.0), ("tick_rate_hz", -1.0), ("dead_ticks", -0.1), ("ratio", 0)]
)
def test_an_impossible_sensor_is_refused_by_name(field: str, value: float):
    with pytest.raises(ValueError, match=rf"^sensor\.{field}: {value}; must be"):
        SensorConfig(**{field: value})
