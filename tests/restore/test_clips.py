"""Clips: every frame at full weight, none across a cut, the same whatever frame is begun with."""

from __future__ import annotations

import pytest
import torch

from spikevrt.restore.clips import cut_clips

FIVE = {"clip_frames": 5, "overlap_frames": 1}


def spans(num_frames: int, **changes) -> list[tuple[int, int, bool]]:
    return [(clip.start, clip.stop, clip.has_spikes) for clip in cut_clips(num_frames, **{**FIVE, **changes})]


def test_without_cuts_clips_are_spread_as_tiles_are():
    assert spans(13) == [(0, 5, True), (4, 9, True), (8, 13, True)]
    assert spans(13, clip_frames=0) == [(0, 13, True)]


def test_no_clip_reaches_across_a_cut_and_short_scenes_are_short_clips():
    assert spans(12, cuts=[7, 8]) == [(0, 5, True), (2, 7, True), (7, 8, True), (8, 12, True)]


def test_frames_without_spikes_are_clips_of_their_own():
    assert spans(9, without_spikes={0, 4, 5}) == [(0, 1, False), (1, 4, True), (4, 6, False), (6, 9, True)]


@pytest.mark.parametrize("overlap", [0, 1, 3])
def test_every_frame_has_full_weight_and_is_settled_once_and_in_order(overlap: int):
    total, settled = torch.zeros(23), 0
    for clip in cut_clips(23, clip_frames=5, overlap_frames=overlap, cuts=[6, 17], without_spikes={9}):
        total[clip.start : clip.stop] += clip.weights
        assert clip.start == settled < clip.settled <= clip.stop
        settled = clip.settled
    assert settled == 23
    torch.testing.assert_close(total, torch.ones(23))


@pytest.mark.parametrize("first", range(23))
def test_beginning_later_leaves_out_exactly_the_clips_that_are_not_needed(first: int):
    changes = {"cuts": [6, 17], "without_spikes": {9}, "overlap_frames": 2}
    assert spans(23, first=first, **changes) == [span for span in spans(23, **changes) if span[1] > first]
