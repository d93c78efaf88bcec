"""Augmentation: frames, voxels and meta move alike."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch

from spikevrt.data.augment import Augmentation, augment, draw_augmentation
from spikevrt.data.sample import Sample
from spikevrt.represent.voxel import voxelise

EVERY = [Augmentation(*choice) for choice in itertools.product([False, True], repeat=4)]


def make_sample(num_frames: int = 3, num_bins: int = 5, size: int = 7) -> Sample:
    generator = torch.Generator().manual_seed(1)
    blur = torch.rand(num_frames, 3, 2 * size, 2 * size, generator=generator)
    return {
        "blur": blur,
        "frames": blur,
        "sharp": torch.rand(num_frames, 3, 2 * size, 2 * size, generator=generator),
        "spike_vox": torch.rand(num_frames, num_bins, size, size, generator=generator),
        "meta": {"seq": "a", "frame_idx": [4, 5, 6], "t0": [0.4, 0.5, 0.6], "t1": [0.45, 0.55, 0.65]},
    }


def assert_same(first: Sample, second: Sample) -> None:
    assert first.keys() == second.keys() and first["meta"] == second["meta"]
    for key in ("blur", "sharp", "spike_vox"):
        torch.testing.assert_close(first[key], second[key], rtol=0, atol=0)


def test_nothing_chosen_changes_nothing():
    sample = make_sample()
    assert_same(augment(sample, Augmentation()), sample)


@pytest.mark.parametrize("augmentation", EVERY)
def test_the_given_sample_stays_as_it_is_and_shares_no_memory(augmentation: Augmentation):
    sample = make_sample()
    before = copy.deepcopy(sample)
    augment(sample, augmentation)["blur"].zero_()
    assert_same(sample, before)


@pytest.mark.parametrize("name", ["transpose", "mirror_columns", "mirror_rows", "reverse_time"])
def test_each_of_the_four_undoes_itself_and_is_not_nothing(name: str):
    sample, once = make_sample(), Augmentation(**{name: True})
    changed = augment(sample, once)
    assert not torch.equal(changed["blur"], sample["blur"]) and not torch.equal(
        changed["spike_vox"], sample["spike_vox"]
    )
    assert_same(augment(changed, once), sample)


def test_a_corner_is_seen_in_the_same_corner_of_frames_and_voxels():
    for augmentation in EVERY:
        sample = make_sample()
        for key, block in [("blur", 2), ("sharp", 2), ("spike_vox", 1)]:
            sample[key].zero_()
            sample[key][..., :block, -block:] = 1.0  # upper right
        result = augment(sample, augmentation)
        voxels_HW = result["spike_vox"][0, 0].repeat_interleave(2, 0).repeat_interleave(2, 1)
        assert torch.equal(result["blur"][0, 0], voxels_HW) and torch.equal(result["sharp"][0, 0], voxels_HW)
        assert voxels_HW.sum() == 4


def test_time_reversal_reverses_frames_bins_and_meta_together():
    sample = make_sample()
    result = augment(sample, Augmentation(reverse_time=True))
    torch.testing.assert_close(result["blur"][0], sample["blur"][2], rtol=0, atol=0)
    torch.testing.assert_close(result["spike_vox"][0, 0], sample["spike_vox"][2, 4], rtol=0, atol=0)
    assert result["meta"] == {"seq": "a", "frame_idx": [6, 5, 4], "t0": [0.6, 0.5, 0.4], "t1": [0.65, 0.55, 0.45]}


def test_reversed_bins_are_the_bins_of_the_reversed_stream():
    spikes = torch.randint(2, (15, 7, 7), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    sample = make_sample()
    sample["spike_vox"] = voxelise(spikes, num_bins=5).repeat(3, 1, 1, 1)
    result = augment(sample, Augmentation(reverse_time=True))
    torch.testing.assert_close(result["spike_vox"][0], voxelise(spikes.flip(0), num_bins=5), rtol=0, atol=0)


def test_a_sample_without_spikes_gets_none():
    sample = make_sample()
    del sample["spike_vox"]
    assert "spike_vox" not in augment(sample, EVERY[-1])


def test_a_sample_without_sharp_frames_gets_none():
    sample = make_sample()
    del sample["sharp"]
    assert set(augment(sample, EVERY[-1])) == {"blur", "frames", "spike_vox", "meta"}


def test_draws_reach_all_sixteen_and_repeat_with_the_seed():
    draws = [[draw_augmentation(g) for _ in range(200)] for g in (torch.Generator().manual_seed(3) for _ in range(2))]
    assert set(draws[0]) == set(EVERY) and draws[0] == draws[1]
