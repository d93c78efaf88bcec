"""Activity: a still scene reads one at any brightness, whatever moves reads more."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spikevrt.represent.inputs import spike_activity
from spikevrt.represent.voxel import voxelise
from spikevrt.simulate.sensor import SpikeSensor
from spikevrt.simulate.setup import sensor_preset


def _fired(light_NHW: torch.Tensor, preset: str = "ideal", num_bins: int = 16) -> torch.Tensor:
    sensor = SpikeSensor(*light_NHW.shape[1:], sensor_preset(preset), seed=5)
    return voxelise(sensor.expose(light_NHW), num_bins=num_bins)


def test_a_spike_ahead_of_steady_firing_is_held_against_what_rounding_does():
    """Two bins of two ticks: 2 spikes, then none. Half the time and all the spikes: one ahead. Variance 1.5 / 12."""
    counts = torch.tensor([2.0, 0.0]).view(2, 1, 1)
    torch.testing.assert_close(spike_activity(counts, 4), torch.tensor([[8.0]]).sqrt(), rtol=0, atol=1e-6)


def test_steady_counts_read_zero_where_bins_differ_in_length_too():
    """5 ticks in 2 bins: 2 and 3 ticks; a spike every tick."""
    assert spike_activity(torch.tensor([2.0, 3.0]).view(2, 1, 1), 5).item() == pytest.approx(0.0, abs=1e-6)
    half = torch.tensor([2.5, 2.5]).view(2, 1, 1)
    assert spike_activity(half, 5, binning="fractional").item() == 0.0


@pytest.mark.parametrize("preset", ["ideal", "bright", "lowlight"])
@pytest.mark.parametrize("brightness", [0.1, 0.4, 0.9])
def test_a_still_texture_reads_one_at_any_brightness(preset, brightness):
    light = brightness * torch.rand(64, 88, generator=torch.Generator().manual_seed(7))
    activity = spike_activity(_fired(light.expand(128, -1, -1), preset), 128)
    assert activity.shape == (8, 11)
    assert 0.9 < activity.min() < activity.max() < 1.5  # the largest of 15 edges between bins, 64 pixels a block


def test_a_real_recording_of_a_still_scene_reads_one(shared):
    """250 x 400 pixels, 128 ticks at 0.22 spikes a tick: 1,600 blocks, each the largest of 31 moments."""
    stream_HWT = np.load(shared / "data" / "real_static" / "real_spike_250x400x500_HWT.npz")["arr_0"]
    spikes = torch.from_numpy(np.ascontiguousarray(stream_HWT[:, :, :128].transpose(2, 0, 1))).to(torch.uint8)
    activity = spike_activity(voxelise(spikes, num_bins=32), 128)
    assert 1.1 < activity.median() < 1.3 and activity.max() < 1.5


def test_darkness_reads_zero():
    assert not spike_activity(_fired(torch.zeros(128, 16, 16)), 128).any()


def test_a_small_thing_that_passes_is_told_in_its_block_alone():
    light = torch.full((128, 24, 24), 0.1)
    for tick in range(128):
        light[tick, 10:12, 8 + tick // 16 : 10 + tick // 16] = 0.9  # 2 x 2 pixels, half a pixel in 8 ticks
    activity = spike_activity(_fired(light), 128)
    assert activity[1, 1] > 4
    activity[1, 1:] = 0
    assert activity.max() < 1.5


def test_counts_are_left_as_they_were():
    counts = _fired(torch.full((32, 9, 11), 0.3))
    before = counts.clone()
    assert spike_activity(counts, 32).shape == (2, 2)
    assert torch.equal(counts, before)


def test_one_bin_is_refused():
    with pytest.raises(ValueError, match=r"num_bins: 1; activity within an exposure needs 2 or more"):
        spike_activity(torch.zeros(1, 3, 5), 4)
