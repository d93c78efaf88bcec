from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from spikevrt.evaluate import motion
from spikevrt.evaluate.metrics import psnr_rgb
from spikevrt.evaluate.motion import reblur_psnr
from spikevrt.light import linear_to_srgb, srgb_to_linear
from spikevrt.recording.frames import read_image, to_float
from spikevrt.recording.sidecar import Exposure

PHOTO = Path(__file__).resolve().parents[2] / "src" / "spikevrt" / "assets" / "chelsea.jpg"
SPEED_PX = 8  # a frame


def exposures(num_frames: int, duty: float) -> list[Exposure]:
    return [Exposure(t, 0, 1, t * 0.01, (t + duty) * 0.01) for t in range(num_frames)]


def window(offset_px: int) -> torch.Tensor:
    photo = to_float(np.stack([read_image(PHOTO)]))[0]
    return photo[:, 50:181, 60 + offset_px : 187 + offset_px]


def moving(num_frames: int, reach_px: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(sharp, blurry) frames of a photograph that moves 8 pixels a frame, exposed while it moves 2 `reach_px` pixels.

    The exposure is a mean of whole-pixel shifts in linear light, its two ends counting half: nothing of `losses`.
    """
    sharp = torch.stack([window(SPEED_PX * t + SPEED_PX) for t in range(num_frames)])
    blurry = []
    for t in range(num_frames):
        shifts = range(-reach_px, reach_px + 1)
        weights = [0.5 if abs(shift) == reach_px else 1.0 for shift in shifts]
        light = [w * srgb_to_linear(window(SPEED_PX * t + SPEED_PX + s)) for s, w in zip(shifts, weights, strict=True)]
        blurry.append(linear_to_srgb(torch.stack(light).sum(0) / sum(weights)))
    return sharp, torch.stack(blurry)


def test_the_truth_blurs_to_the_input_and_the_input_does_not():
    sharp, blurry = moving(3, 4)  # exposed all the time from frame to frame
    truth, itself = reblur_psnr(sharp, blurry, exposures(3, 1.0)), reblur_psnr(blurry, blurry, exposures(3, 1.0))
    assert truth.shape == (3,)
    assert truth.min() > 43  # 8 bits, and what comes into the window on the way, cost the rest
    assert (truth > itself + 5).all()
    assert psnr_rgb(sharp, blurry).max() < 29


def test_the_exposure_s_length_counts():
    sharp, blurry = moving(3, 2)  # exposed half of the time
    assert (reblur_psnr(sharp, blurry, exposures(3, 0.5)) > reblur_psnr(sharp, blurry, exposures(3, 1.0)) + 10).all()


def test_a_still_clip_must_be_its_input():
    still = window(0).expand(2, -1, -1, -1)
    assert reblur_psnr(still, still, exposures(2, 1.0)).min() > 50  # 8 bits, and light and back in float32


def test_a_clip_in_pieces_has_the_same_values(monkeypatch: pytest.MonkeyPatch):
    sharp, blurry = moving(5, 4)
    whole = reblur_psnr(sharp, blurry, exposures(5, 1.0))
    monkeypatch.setattr(motion, "CHUNK_FRAMES", 2)
    assert torch.equal(reblur_psnr(sharp, blurry, exposures(5, 1.0)), whole)


def test_one_frame_cannot_be_reblurred():
    with pytest.raises(ValueError, match="reblur_psnr of a clip of 1 frame; allowed: 2 or more"):
        reblur_psnr(window(0)[None], window(0)[None], exposures(1, 1.0))


def test_frames_and_input_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match=r"reblur_psnr: restored \(2, 3, 5, 7\) and blur \(2, 3, 5, 11\) differ"):
        reblur_psnr(torch.zeros(2, 3, 5, 7), torch.zeros(2, 3, 5, 11), exposures(2, 1.0))
