"""Profiles: what threshold, gain and brightness leave of the spikes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from spikevrt.recording.spike_file import HeldSpikes, SpikeGeometry, pack
from spikevrt.represent.inputs import PROFILE_DARK_RATE, PROFILE_SCALE, profile, steadied
from spikevrt.represent.interval import STRIP_VALUES, expected_counts, interval_voxels
from spikevrt.simulate.sensor import SpikeSensor
from spikevrt.simulate.setup import SensorConfig, sensor_preset


def seen(light: torch.Tensor, threshold: float) -> torch.Tensor:
    sensor = SpikeSensor(*light.shape[1:], SensorConfig(threshold=threshold, ratio=1), seed=3)
    spikes = sensor.expose(light)
    return profile(expected_counts(spikes, num_bins=8, binning="whole"), len(light), binning="whole")


def test_a_steady_light_reads_zero_whatever_its_brightness_and_the_threshold():
    light = torch.tensor([0.25, 0.5, 1.0]).view(1, 1, 3).expand(128, 1, 3)
    for threshold in (1.0, 2.0, 4.0):
        read = seen(light, threshold)[1:-1]  # the first and last bin hold intervals that the edge cuts
        assert float(read.abs().max()) < 0.15, threshold


def test_light_that_doubles_in_the_middle_reads_its_logarithm_at_every_threshold():
    light = torch.full((128, 1, 1), 0.2)
    light[64:] = 0.4
    expected = torch.tensor([0.2 / 0.3, 0.4 / 0.3]).log() / PROFILE_SCALE
    for threshold in (1.0, 2.0):
        read = seen(light, threshold)[:, 0, 0]
        torch.testing.assert_close(torch.stack((read[1:3].mean(), read[5:7].mean())), expected, rtol=0, atol=0.12)


def test_a_pixel_without_spikes_reads_zero_and_one_that_starts_to_fire_is_bounded():
    counts = torch.zeros(4, 1, 2)
    counts[3, 0, 1] = 8.0
    read = profile(counts, 32, binning="whole")
    assert read[:, 0, 0].tolist() == [0.0] * 4
    lowest = math.log(PROFILE_DARK_RATE / (0.25 + PROFILE_DARK_RATE)) / PROFILE_SCALE
    assert read[0, 0, 1].item() == pytest.approx(lowest)


def test_the_profile_of_a_crop_is_the_cropped_profile_and_the_counts_stay_as_they_are():
    counts = torch.rand(5, 7, 11, generator=torch.Generator().manual_seed(1))
    before = counts.clone()
    whole, part = profile(counts, 23, binning="fractional"), profile(counts[:, 2:5, 3:], 23, binning="fractional")
    torch.testing.assert_close(whole[:, 2:5, 3:], part, rtol=0, atol=1e-5)  # a logarithm's last bits
    assert torch.equal(counts, before)


def test_intervals_taken_in_strips_are_those_of_the_whole(monkeypatch):
    spikes = torch.randint(0, 2, (2, 19, 13, 7), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    assert spikes.numel() <= STRIP_VALUES
    whole = interval_voxels(spikes, num_bins=5, binning="fractional")
    monkeypatch.setattr("spikevrt.represent.interval.STRIP_VALUES", 2 * 19 * 7 * 3)
    assert torch.equal(expected_counts(spikes, num_bins=5, binning="fractional"), whole)
    geometry = SpikeGeometry(7, 13, bottom_up=False, tag_bits=1)
    packed = np.frombuffer(pack(spikes[1].numpy(), geometry), np.uint8).reshape(19, -1)
    held = expected_counts(HeldSpikes(packed, geometry), num_bins=5, binning="fractional")
    assert torch.equal(held, whole[1])


def test_a_profile_of_another_window_is_relative_to_the_exposures_mean():
    counts = torch.full((2, 1, 1), 4.0)  # a spike a tick in 8 ticks
    told = profile(counts, 8, binning="whole", mean_rate=torch.full((1, 1), 0.5))
    expected = math.log((1 + PROFILE_DARK_RATE) / (0.5 + PROFILE_DARK_RATE)) / PROFILE_SCALE
    torch.testing.assert_close(told, torch.full((2, 1, 1), expected))
    assert torch.equal(profile(counts, 8, binning="whole", mean_rate=torch.ones(1, 1)), torch.zeros(2, 1, 1))


@pytest.mark.parametrize("num_ticks", [32, 80, 137])
@pytest.mark.parametrize("sensor", ["ideal", "bright"])
def test_steady_light_of_any_brightness_is_steadied_and_light_that_doubles_is_not(num_ticks: int, sensor: str):
    light = torch.linspace(0.01, 0.98, 40).expand(num_ticks, 50, 40)
    doubled = torch.linspace(0.1, 0.45, 40).expand(num_ticks, 50, 40).clone()
    doubled[num_ticks // 2 :] *= 2

    def changes(light: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        spikes = SpikeSensor(50, 40, sensor_preset(sensor), seed=5).expose(light)
        counts = expected_counts(spikes, num_bins=32, binning="whole")
        before = counts.clone()
        steady = steadied(counts, num_ticks, "whole")
        assert torch.equal(counts, before)
        torch.testing.assert_close(steady.sum(0), counts.sum(0), rtol=1e-4, atol=1e-4)  # as much light as before
        return tuple(profile(n, num_ticks, binning="whole").square().mean().sqrt() for n in (counts, steady))

    (noise, left), (change, kept) = changes(light), changes(doubled)
    assert left < 0.3 * noise and kept > 0.9 * change


def test_a_window_that_is_as_bright_as_the_exposure_is_steadied_and_a_brighter_one_is_not():
    counts = torch.tensor([4.0, 4.5, 3.5, 4.2]).view(4, 1, 1)  # in 8 ticks each
    told = steadied(counts, 32, "whole", torch.full((1, 1), 0.52))
    torch.testing.assert_close(told, torch.full((4, 1, 1), 8 * 0.52))
    brighter = steadied(2 * counts, 32, "whole", torch.full((1, 1), 0.52))
    assert float((brighter - 2 * counts).abs().max()) < 0.15
    assert torch.equal(steadied(0 * counts, 32, "whole"), 0 * counts)
