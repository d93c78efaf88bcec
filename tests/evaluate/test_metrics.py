"""The metrics, against numbers of an independent implementation and numbers done in the head."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from spikevrt.evaluate import metrics


def _clip(kind: int) -> torch.Tensor:
    """Two frames of 23 x 31 pixels by integer arithmetic: the same on every machine, as (T, 3, H, W) in [0, 1]."""
    t, y, x, c = torch.meshgrid(*(torch.arange(n) for n in (2, 23, 31, 3)), indexing="ij")
    levels = (3 * x * x + 5 * y * y + 7 * x * y + 11 * c + 17 * t) % 256
    if kind == 1:
        levels = (3 * levels) // 4 + (x * y + 5 * t) % 48
    return levels.permute(0, 3, 1, 2).float() / 255


# scikit-image 0.26.0 on the two clips: structural_similarity(gaussian_weights=True, sigma=1.5,
# use_sample_covariance=False, data_range=255, full=True), map cropped by 5 pixels, mean of the channels (or of the
# unrounded BT.601 luma); peak_signal_noise_ratio(data_range=255).
SCIKIT_IMAGE = {
    "psnr_rgb": (19.885173212268125, 20.238554373959964),
    "psnr_y": (21.559618015437422, 21.89473753937456),
    "ssim_rgb": (0.9362026146493845, 0.9381625308210463),
    "ssim_y": (0.9348966993539868, 0.9344359025711858),
}


@pytest.mark.parametrize("name", metrics.METRICS)
def test_each_metric_agrees_with_scikit_image(name):
    values = getattr(metrics, name)(_clip(0), _clip(1))
    expected = torch.tensor(SCIKIT_IMAGE[name], dtype=torch.float64)
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-9)  # float64 in both, in another order of sums


def test_frame_scores_are_the_four_metrics_frame_by_frame():
    scores = metrics.frame_scores(_clip(0), _clip(1))
    assert len(scores) == 2
    for index, frame in enumerate(scores):
        assert tuple(frame) == metrics.METRICS
        for name in metrics.METRICS:
            assert frame[name] == pytest.approx(SCIKIT_IMAGE[name][index], abs=1e-9)


def test_the_mean_over_frames_is_a_mean_of_decibels_not_of_squared_errors():
    sharp = torch.zeros(2, 3, 13, 17)
    restored = torch.zeros(2, 3, 13, 17)
    restored[0] += 1 / 255  # one level off: 48.13 dB
    restored[1] += 100 / 255  # 100 levels off: 8.13 dB
    frames = metrics.frame_scores(restored, sharp)
    one_level = 20 * math.log10(255)
    assert metrics.sequence_mean(frames)["psnr_rgb"] == pytest.approx(one_level - 20, abs=1e-9)
    clip_wide = 10 * math.log10(255**2 / ((1 + 100**2) / 2))
    assert abs(metrics.sequence_mean(frames)["psnr_rgb"] - clip_wide) > 15


def test_a_long_sequence_counts_as_much_as_a_short_one():
    def frame(value: float) -> dict[str, float]:
        return dict.fromkeys(metrics.METRICS, value)

    short, long = metrics.sequence_mean([frame(40.0)]), metrics.sequence_mean([frame(20.0)] * 7)
    assert metrics.total_mean([short, long])["psnr_rgb"] == 30.0


def test_a_metric_that_some_frames_lack_is_averaged_over_those_that_have_it():
    frames = [{"frame_idx": 7, "edge_rise_px": 2.0, "psnr_y": 30.0}, {"frame_idx": 8, "psnr_y": 40.0}]
    assert metrics.sequence_mean(frames) == {"edge_rise_px": 2.0, "psnr_y": 35.0}
    assert metrics.total_mean([{"tof": 1.0, "psnr_y": 30.0}, {"psnr_y": 32.0}]) == {"tof": 1.0, "psnr_y": 31.0}


def _ssim_3d_by_scipy(restored: torch.Tensor, sharp: torch.Tensor) -> float:
    """Of one frame, by scipy.ndimage: its border mode "nearest" repeats the border."""
    from scipy.ndimage import gaussian_filter

    def smooth(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, 1.5, mode="nearest", radius=5)

    x, y = ((255 * frame).round().double().numpy() for frame in (restored, sharp))
    x_mean, y_mean = smooth(x), smooth(y)
    x_variance, y_variance = smooth(x * x) - x_mean**2, smooth(y * y) - y_mean**2
    covariance = smooth(x * y) - x_mean * y_mean
    c1, c2 = 2.55**2, 7.65**2
    similarity = (2 * x_mean * y_mean + c1) * (2 * covariance + c2)
    similarity /= (x_mean**2 + y_mean**2 + c1) * (x_variance + y_variance + c2)
    return float(similarity.mean())


def test_three_dimensional_ssim_agrees_with_scipy_and_is_not_the_two_dimensional_one():
    restored, sharp = _clip(0), _clip(1)
    values = metrics.ssim_rgb_3d(restored, sharp)
    expected = [_ssim_3d_by_scipy(*pair) for pair in zip(restored, sharp, strict=True)]
    assert values.tolist() == pytest.approx(expected, abs=1e-9)  # float64 in both, in another order of sums
    assert (values - metrics.ssim_rgb(restored, sharp)).abs().min() > 0.001


def test_three_dimensional_ssim_of_frames_that_are_nearly_black_keeps_its_peak():
    dark = torch.zeros(1, 3, 13, 17)
    dark[..., ::2] = 1 / 255  # level 1: where the peak is guessed from the picture, it is 1 here, and this SSIM 0.01
    assert metrics.ssim_rgb_3d(dark, torch.zeros_like(dark)).item() > 0.9


def test_scores_are_those_of_the_8_bit_picture():
    sharp = torch.full((1, 3, 11, 13), 0.2)
    within_half_a_level = sharp + 0.4 / 255
    assert metrics.psnr_rgb(within_half_a_level, sharp).item() == math.inf
    above_white, white = torch.full_like(sharp, 1.7), torch.ones_like(sharp)
    assert metrics.psnr_rgb(above_white, white).item() == math.inf


def test_identical_frames_have_ssim_one():
    for ssim in (metrics.ssim_rgb, metrics.ssim_rgb_3d):
        torch.testing.assert_close(ssim(_clip(0), _clip(0)), torch.ones(2, dtype=torch.float64))


def test_swapping_red_and_blue_changes_luma():
    assert metrics.psnr_y(_clip(0).flip(1), _clip(0)).max() < 60


def test_the_clips_are_untouched():
    restored, sharp = _clip(0), _clip(1)
    metrics.frame_scores(restored, sharp)
    assert torch.equal(restored, _clip(0)) and torch.equal(sharp, _clip(1))


def test_a_value_that_is_not_a_number_is_an_error_and_never_a_score():
    restored = _clip(0)
    restored[1, 2, 3, 5] = math.nan
    for name in metrics.METRICS:
        with pytest.raises(ValueError):
            getattr(metrics, name)(restored, _clip(1))


def test_clips_of_different_shape_are_refused():
    with pytest.raises(ValueError, match=r"restored \(1, 3, 23, 31\) and sharp \(2, 3, 23, 31\)"):
        metrics.psnr_rgb(_clip(0)[:1], _clip(1))


def test_ssim_of_a_picture_smaller_than_its_window_is_refused():
    with pytest.raises(ValueError, match="SSIM of frames of 13x7 pixels; allowed: 11x11 or larger"):
        metrics.ssim_rgb(torch.zeros(1, 3, 7, 13), torch.zeros(1, 3, 7, 13))
