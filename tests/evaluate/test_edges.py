"""Rise widths, against edges of known width, and a disc that moves before a background that stands."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from spikevrt.evaluate.motion import STEP_PX, edge_rise, motion_boundaries, rise_width_px

RISE_OF_SIGMA = 2.563  # 10-90 % of a Gaussian-blurred step is 2 * 1.2816 sigma wide


def erf(x: np.ndarray) -> np.ndarray:
    return torch.erf(torch.from_numpy(x)).numpy()


def step(sigma_px: float, angle_deg: float = 0.0, low: float = 0.2, high: float = 0.8) -> torch.Tensor:
    """One frame of 61 x 67 pixels: a step across the middle, blurred by a Gaussian, its normal at an angle."""
    y, x = np.meshgrid(np.arange(61) - 30.0, np.arange(67) - 33.3, indexing="ij")
    along = x * math.cos(math.radians(angle_deg)) + y * math.sin(math.radians(angle_deg))
    values = low + (high - low) * (1 + erf(along / (sigma_px * math.sqrt(2)))) / 2
    return torch.from_numpy(values).float().expand(1, 3, -1, -1).clone()


def disc_clip(blur_steps: int = 1) -> torch.Tensor:
    """Three frames of 96 x 128 pixels: a bright disc moves 6 pixels a frame; with steps, a mean over as many places."""
    generator = torch.Generator().manual_seed(1)
    texture = torch.nn.functional.interpolate(torch.rand(1, 1, 24, 32, generator=generator), (96, 128), mode="bicubic")[
        0
    ]
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    frames = []
    for t in range(3):
        places = [6 * (t + (step + 0.5) / blur_steps - 0.5) for step in range(blur_steps)]
        discs = [(21 - torch.hypot(x - 45 - place, y - 48) + 0.5).clamp(0, 1) for place in places]
        inside = torch.stack(discs).mean(0)
        shade = 0.75 + 0.04 * torch.sin((x + 2 * y - 6 * t) / 3)  # seen by the flow, too weak for an edge
        frames.append((1 - inside) * (0.1 + 0.1 * texture[0]) + inside * shade)
    return torch.stack(frames)[:, None].expand(-1, 3, -1, -1).clone()


@pytest.mark.parametrize("angle_deg", [0, 31, 45, 90, 137, 180, 270])
@pytest.mark.parametrize("sigma_px", [1.5, 2.5])
def test_a_gaussian_blurred_step_has_its_known_width_in_every_direction(sigma_px: float, angle_deg: float):
    """Reading between pixels is bilinear, which adds up to 1/6 square pixel to the variance, and more in the tails."""
    rise = edge_rise(step(sigma_px, angle_deg), step(0.7, angle_deg))
    assert rise.restored_px.item() == pytest.approx(RISE_OF_SIGMA * sigma_px, rel=0.06)
    assert rise.sharp_px.item() == pytest.approx(RISE_OF_SIGMA * math.hypot(0.7, 6**-0.5), rel=0.1)


def test_the_truth_s_own_width_does_not_depend_on_what_was_restored():
    sharp = step(1.0)
    assert torch.equal(edge_rise(step(3.0), sharp).sharp_px, edge_rise(sharp, sharp).sharp_px)
    assert torch.equal(edge_rise(sharp, sharp).restored_px, edge_rise(sharp, sharp).sharp_px)


def test_a_motion_blurred_step_is_eight_tenths_of_its_path_wide():
    path_px = 11
    sharp = step(0.5)
    ramp = torch.stack([sharp.roll(shift, -1) for shift in range(-5, 6)]).mean(0)
    ramp[..., :8], ramp[..., -8:] = 0.2, 0.8  # what roll brought round
    assert edge_rise(ramp, sharp).restored_px.item() == pytest.approx(0.8 * path_px, rel=0.03)


def test_brightness_and_contrast_do_not_change_a_width():
    weak = edge_rise(step(2.0, low=0.3, high=0.7), step(0.7)).restored_px.item()
    assert weak == pytest.approx(edge_rise(step(2.0), step(0.7)).restored_px.item(), rel=0.02)  # levels are whole


def test_sharpening_makes_a_width_smaller_and_never_zero():
    soft, sharp = step(2.0), step(0.7)
    widths = []
    for strength in (0, 1, 4, 16):
        blurred = torch.nn.functional.avg_pool2d(soft, 5, 1, 2, count_include_pad=False)
        widths.append(edge_rise((soft + strength * (soft - blurred)).clamp(0, 1), sharp).restored_px.item())
    assert widths == sorted(widths, reverse=True) and widths[-1] > 0.5


def test_an_edge_that_is_gone_counts_as_the_whole_profile():
    sharp = step(0.7)
    assert edge_rise(torch.full_like(sharp, 0.5), sharp).restored_px.item() == 20.0
    assert edge_rise(1 - sharp, sharp).restored_px.item() == 20.0


def test_little_noise_on_a_wide_edge_does_not_make_it_sharp():
    noise = 0.01 * torch.randn(1, 1, 61, 67, generator=torch.Generator().manual_seed(2))
    rise = edge_rise(step(2.5) + noise, step(0.7)).restored_px.item()
    assert rise == pytest.approx(RISE_OF_SIGMA * 2.5, rel=0.12)


def test_a_frame_without_edges_has_no_width():
    flat = torch.full((1, 3, 31, 37), 0.5)
    rise = edge_rise(step(1.0)[..., :31, :37], flat)
    assert rise.restored_px.isnan().all() and rise.sharp_px.isnan().all() and rise.num_edges == (0,)


def test_a_ramp_of_ten_places_has_eight_of_them_between_its_tenths():
    profile = np.clip((np.arange(81) - 35.0) / 10, 0, 1)[None]
    assert rise_width_px(profile, np.ones(1))[0] == pytest.approx(8 * STEP_PX)


def test_motion_boundaries_lie_around_the_disc_and_not_in_the_background():
    band = motion_boundaries(disc_clip())
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    for t in range(3):
        distance = torch.hypot(x - 45 - 6 * t, y - 48) - 21
        assert band[t][distance.abs() < 1].float().mean() > 0.8
        assert band[t][distance > 20].float().mean() < 0.05


def test_the_edge_of_a_moving_disc_gets_wider_with_blur():
    sharp = disc_clip()
    kept, blurred = edge_rise(sharp, sharp), edge_rise(disc_clip(blur_steps=9), sharp)
    assert all(kept.at_boundaries) and kept.num_edges == blurred.num_edges and min(kept.num_edges) > 60
    assert (kept.sharp_px < 2.5).all()
    assert (blurred.restored_px > kept.sharp_px + 1).all()  # 6 pixels of path where the edge moves along its normal


def test_where_nothing_moves_all_edges_are_measured():
    still = step(1.0).expand(2, -1, -1, -1)
    rise = edge_rise(still, still)
    assert rise.at_boundaries == (False, False) and min(rise.num_edges) > 50


def test_blur_where_nothing_moves_does_not_count():
    sharp = disc_clip()
    sharp[..., 80:, :] = (torch.arange(128) // 8 % 2).float()  # stripes that stand, far from the disc
    restored = sharp.clone()
    restored[..., 80:, :] = torch.nn.functional.avg_pool2d(sharp[..., 80:, :], (1, 5), 1, (0, 2))
    rise = edge_rise(restored, sharp)
    assert (rise.restored_px - rise.sharp_px).abs().max() < 0.2


def test_the_clips_are_untouched():
    restored, sharp = step(2.0), step(1.0)
    edge_rise(restored, sharp)
    assert torch.equal(restored, step(2.0)) and torch.equal(sharp, step(1.0))
