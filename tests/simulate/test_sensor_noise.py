"""Each noise of the sensor alone: it has the size that its setting says, and follows the seed, not the cuts of time."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from spikevrt.light import luminance
from spikevrt.simulate.sensor import SpikeSensor, sensor_light
from spikevrt.simulate.setup import SensorConfig

EVERYTHING = SensorConfig(
    threshold=1.3, dead_ticks=0.1, light_gain=0.9, photons_per_tick=300.0, dark_current=0.05, dark_cv=0.4, gain_cv=0.1,
    threshold_cv=0.05, threshold_jitter=0.05, dead_fraction=0.02, hot_fraction=0.03, hot_current=0.4,
    missed_fraction=0.1,
)  # fmt: skip


def random_light(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def flat_spikes(config: SensorConfig, grey: float, *, ticks: int = 400, seed: int = 1, size: int = 61) -> Tensor:
    return SpikeSensor(size, size + 6, config, seed=seed).expose(torch.full((ticks, size, size + 6), grey))


def rates(config: SensorConfig, grey: float, *, ticks: int = 400) -> Tensor:
    return flat_spikes(config, grey, ticks=ticks).double().mean(0)


def cv(values: Tensor) -> float:
    return float(values.std() / values.mean())


@pytest.mark.parametrize("dead_ticks", [0.0, 0.4])
def test_the_ideal_sensor_draws_its_start_phases_and_nothing_else(dead_ticks: float):
    light = random_light(50, 11, 13, seed=1)
    charge = torch.rand((11, 13), generator=torch.Generator().manual_seed(2))
    dead, expected = torch.zeros(11, 13), []
    for light_hw in light:
        lost = dead.clamp_max(1)
        charge = charge + light_hw / 1.7 * (1 - lost)
        fired = charge >= 1
        charge = torch.where(fired, (charge - 1).clamp_max(1), charge)
        dead = torch.where(fired, torch.tensor(dead_ticks), dead - lost)
        expected.append(fired)
    config = SensorConfig(threshold=1.7, dead_ticks=dead_ticks)
    assert torch.equal(SpikeSensor(11, 13, config, seed=2).expose(light), torch.stack(expected).to(torch.uint8))


@pytest.mark.parametrize("photons_per_tick", [20.0, 300.0])  # drawn from Poisson, and from a normal
def test_how_time_is_cut_does_not_change_the_spikes_of_a_noisy_sensor(photons_per_tick: float):
    light = random_light(29, 5, 7, seed=3)
    config = replace(EVERYTHING, photons_per_tick=photons_per_tick)
    whole = SpikeSensor(5, 7, config, seed=4).expose(light)
    sensor = SpikeSensor(5, 7, config, seed=4)
    parts = [sensor.expose(light[a:b]) for a, b in ((0, 11), (11, 12), (12, 12), (12, 29))]
    assert torch.equal(torch.cat(parts), whole)


def test_the_noise_follows_the_seed():
    first, again, other = (flat_spikes(EVERYTHING, 0.4, ticks=20, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_pattern_seed_keeps_the_camera_and_changes_the_noise():
    config = SensorConfig(gain_cv=0.2, pattern_seed=7)
    first, other = (flat_spikes(config, 0.3, ticks=1000, seed=seed).float().mean(0) for seed in (1, 2))
    assert not torch.equal(first, other)
    assert float((first - other).abs().max()) <= 0.001 + 1e-6  # one spike of a thousand ticks: the start phase
    elsewhere = flat_spikes(replace(config, pattern_seed=8), 0.3, ticks=1000, seed=1).float().mean(0)
    assert float((first - elsewhere).abs().max()) > 0.1


def test_one_setting_does_not_change_the_map_of_another():
    config = SensorConfig(gain_cv=0.2)
    alone = rates(config, 0.3)
    both = rates(replace(config, dead_fraction=0.1, threshold_cv=0.0), 0.3)
    assert torch.equal(both[both > 0], alone[both > 0])
    assert abs(float((both == 0).double().mean()) - 0.1) < 0.02


def test_the_light_gain_scales_the_light():
    light = random_light(60, 5, 7, seed=8)
    dim = SpikeSensor(5, 7, SensorConfig(light_gain=0.25), seed=9).expose(light)
    assert torch.equal(dim, SpikeSensor(5, 7, SensorConfig(), seed=9).expose(light * 0.25))


def test_the_dark_current_fires_in_the_dark():
    assert torch.equal(rates(SensorConfig(dark_current=0.125), 0.0), torch.full((61, 67), 0.125).double())
    assert float(rates(SensorConfig(), 0.0).max()) == 0


def test_a_spread_of_the_response_is_the_spread_of_the_rates():
    observed = rates(SensorConfig(gain_cv=0.056), 0.5, ticks=2000)
    assert abs(cv(observed) - 0.056) < 0.002  # 4087 pixels: 0.056 / sqrt(2 * 4087) = 0.0006
    assert abs(float(observed.mean()) - 0.5) < 0.002


def test_a_spread_of_the_threshold_spreads_the_spikes_cost():
    observed = 1 / rates(SensorConfig(threshold_cv=0.05), 0.5, ticks=2000)
    assert abs(cv(observed) - 0.05) < 0.002


def test_a_spread_of_the_dark_current_leaves_its_mean():
    observed = rates(SensorConfig(dark_current=0.1, dark_cv=0.4), 0.0, ticks=2000)
    assert abs(cv(observed) - 0.4) < 0.02
    assert abs(float(observed.mean()) - 0.1) < 0.003


@pytest.mark.parametrize("photons_per_tick", [20.0, 500.0])  # drawn from Poisson, and from a normal
def test_spike_counts_vary_as_the_photons_do(photons_per_tick: float):
    """Light in `ticks` ticks is a Poisson number / photons_per_tick; two roundings to whole spikes add 1/6."""
    ticks, grey = 800, 0.5
    counts = flat_spikes(SensorConfig(photons_per_tick=photons_per_tick), grey, ticks=ticks).double().sum(0)
    expected = ticks * grey / photons_per_tick + 1 / 6
    assert abs(float(counts.var()) / expected - 1) < 0.1  # the variance of 4087 values: 2.2 %
    assert abs(float(counts.mean()) - ticks * grey) < 0.4


def test_jitter_of_the_threshold_moves_spikes_but_loses_none():
    calm, shaken = (flat_spikes(SensorConfig(threshold_jitter=jitter), 0.21) for jitter in (0.0, 0.1))
    assert not torch.equal(calm, shaken)
    assert int((calm.sum(0).int() - shaken.sum(0).int()).abs().max()) <= 2  # of 84: early or late at both ends


def test_jitter_of_the_threshold_leaves_the_mean_rate():
    config = SensorConfig(threshold_jitter=0.2)
    rate = flat_spikes(config, 0.1, ticks=1200)[200:].double().mean()  # by then the start is forgotten
    # light is kept, so a pixel's count is off by what it holds at both ends: less than 1, of 4087 pixels the mean
    assert abs(float(rate) - 0.1) < 4 * 0.5 / 4087**0.5 / 1000


def test_dead_pixels_are_silent_whatever_the_noise():
    config = SensorConfig(dead_fraction=1.0, photons_per_tick=50.0, threshold_jitter=1.0, dark_current=0.3)
    assert int(flat_spikes(config, 1.0, ticks=50).sum()) == 0


def test_hot_pixels_fire_in_the_dark():
    observed = rates(SensorConfig(hot_fraction=0.1, hot_current=0.25), 0.0)
    assert sorted(observed.unique().tolist()) == [0.0, 0.25]
    assert abs(float((observed > 0).double().mean()) - 0.1) < 0.02


def test_a_missed_read_out_is_empty_and_its_charge_fires_later():
    config = SensorConfig(missed_fraction=0.2)
    spikes, complete = flat_spikes(config, 0.3), flat_spikes(SensorConfig(), 0.3)
    is_missed = spikes.flatten(1).sum(1) == 0
    assert abs(float(is_missed.float().mean()) - 0.2) < 0.06
    lost = complete.sum(0).int() - spikes.sum(0).int()
    assert 0 <= float(lost.float().mean()) < 1.5  # of 120 spikes: what waits at the end
    late = int(is_missed.nonzero()[0]) + 1
    assert int(spikes[late].sum()) >= int(complete[late - 1].sum())


def test_the_default_light_of_the_sensor_is_the_mean_luminance():
    light = random_light(3, 3, 10, 14, seed=10)
    assert torch.equal(sensor_light(light, SensorConfig()), F.avg_pool2d(luminance(light)[:, None], 2)[:, 0])


def test_the_response_weighs_the_colours():
    light = torch.tensor([0.1, 0.2, 0.4]).view(1, 3, 1, 1).expand(2, 3, 4, 6)
    seen = sensor_light(light, SensorConfig(response=(1.0, 0.5, 0.25)))
    torch.testing.assert_close(seen, torch.full((2, 2, 3), 0.3))


@pytest.mark.parametrize(
    ("bayer", "cell"), [("BGGR", "BG GR"), ("RGGB", "RG GB"), ("GRBG", "GR BG"), ("GBRG", "GB RG")]
)
def test_a_bayer_sensor_sees_one_colour_a_pixel(bayer: str, cell: str):
    light = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1).expand(1, 3, 6, 10)  # 3 x 5 pixels at ratio 2
    seen = sensor_light(light, SensorConfig(bayer=bayer))[0]
    top, bottom = ([1.0 + "RGB".index(colour) for colour in row] for row in cell.split())
    assert seen.tolist() == [(row * 3)[:5] for row in (top, bottom, top)]


def test_the_light_is_left_as_it_was_by_every_noise():
    light = random_light(7, 3, 10, 14, seed=11)
    before = light.clone()
    for config in (EVERYTHING, SensorConfig(bayer="BGGR", ratio=1, light_gain=2.0)):
        seen = sensor_light(light, config)
        kept = seen.clone()
        SpikeSensor(*seen.shape[1:], config, seed=1).expose(seen)
        assert torch.equal(seen, kept)
    assert torch.equal(light, before)


def test_the_settings_survive_json():
    config = replace(EVERYTHING, response=(0.3, 0.59, 0.11))
    assert SensorConfig(**json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("light_gain", 0.0),
        ("photons_per_tick", -1.0),
        ("dark_current", -0.1),
        ("dark_cv", -0.1),
        ("gain_cv", float("inf")),
        ("threshold_cv", float("nan")),
        ("threshold_jitter", -0.1),
        ("hot_current", -0.1),
        ("dead_fraction", 1.5),
        ("hot_fraction", -0.1),
        ("missed_fraction", 2.0),
        ("bayer", "RGBG"),
    ],
)
def test_an_impossible_noise_is_refused_by_name(field: str, value: float | str):
    with pytest.raises(ValueError, match=rf"^sensor\.{field}: {value}; must be"):
        replace(SensorConfig(), **{field: value})


def test_more_dead_and_hot_pixels_than_pixels_are_refused():
    with pytest.raises(ValueError, match=r"^sensor\.hot_fraction: 0\.6; must be at most 1 - dead_fraction$"):
        SensorConfig(dead_fraction=0.5, hot_fraction=0.6)


@pytest.mark.parametrize("response", [(1.0, 1.0), (1.0, 1.0, -1.0)])
def test_a_response_that_is_not_three_weights_is_refused(response: tuple[float, ...]):
    with pytest.raises(ValueError, match=r"^sensor\.response: .*; must be three weights of 0 or more: red, green"):
        SensorConfig(response=response)  # type: ignore[arg-type]


def test_a_response_beside_a_bayer_pattern_is_refused():
    with pytest.raises(
        ValueError, match=r"^sensor\.response: .*; must be left alone where `bayer` chooses the colours$"
    ):
        SensorConfig(bayer="BGGR", response=(1.0, 0.0, 0.0))
