from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from spikevrt.evaluate.motion import tof
from spikevrt.recording.frames import read_image, to_float

PHOTO = Path(__file__).resolve().parents[2] / "src" / "spikevrt" / "assets" / "chelsea.jpg"


def moving_photo(step_px: int, num_frames: int = 3) -> torch.Tensor:
    """A photograph behind a window of 131 x 127 pixels that moves `step_px` to the right from frame to frame."""
    photo = to_float(np.stack([read_image(PHOTO)]))[0]
    return torch.stack([photo[:, 50:181, 60 + step_px * t : 187 + step_px * t] for t in range(num_frames)])


def test_a_clip_that_stands_still_is_as_far_from_the_truth_as_the_truth_moves():
    still, moving = moving_photo(0), moving_photo(3)
    values = tof(still, moving)
    assert values.shape == (2,)
    assert values.tolist() == pytest.approx([3.0, 3.0], rel=0.1)  # Farneback misses the pixels at the window's border


def test_moving_twice_as_fast_is_as_wrong_as_standing_still():
    assert tof(moving_photo(4), moving_photo(2)).tolist() == pytest.approx([2.0, 2.0], rel=0.1)


def test_the_true_clip_has_no_distance_whatever_it_does():
    assert tof(moving_photo(5), moving_photo(5)).tolist() == [0.0, 0.0]


def test_one_frame_has_no_motion():
    with pytest.raises(ValueError, match="tof of a clip of 1 frame; allowed: 2 or more"):
        tof(moving_photo(1, 1), moving_photo(1, 1))


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match=r"tof needs OpenCV; install spikevrt\[metrics\]"):
        tof(moving_photo(1), moving_photo(1))
