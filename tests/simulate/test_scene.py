from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spikevrt.light import image_to_linear
from spikevrt.recording.frames import read_image, write_image
from spikevrt.simulate.scene import PhotoScene, camera_matrix, photo_scene, sample
from spikevrt.simulate.setup import SensorConfig, SimulateOptions
from tests.simulate.conftest import textured, video_of

SENSOR = SensorConfig(ratio=1)
OPTIONS = SimulateOptions(  # 90 ticks
    frames=3, exposure_ticks=30, period_ticks=30, height=29, width=43, motion_px=6.0, seed=1, sensor=SENSOR
)


def scene_of(photo: Path, **changes: Any) -> PhotoScene:
    return photo_scene(photo, replace(OPTIONS, **changes))


def test_light_stays_in_range_and_never_shows_the_outside(tmp_path: Path):
    white = tmp_path / "white.png"
    write_image(white, np.full((60, 60, 3), 255, np.uint8))
    for seed in range(10):
        light = scene_of(white, seed=seed, num_layers=0, motion_px=20).light(torch.arange(90))
        torch.testing.assert_close(light, torch.ones_like(light), rtol=0, atol=1e-5)


def test_a_tick_looks_the_same_alone_and_in_any_batch(photo: Path):
    scene = scene_of(photo)
    together = scene.light(torch.arange(90))
    torch.testing.assert_close(scene.light(torch.tensor([37]))[0], together[37], rtol=0, atol=1e-5)
    torch.testing.assert_close(scene.light(torch.tensor([80, 3])), together[[80, 3]], rtol=0, atol=1e-5)


def test_the_scene_follows_its_seed(photo: Path):
    ticks = torch.tensor([0, 45])
    assert torch.equal(scene_of(photo, seed=3).light(ticks), scene_of(photo, seed=3).light(ticks))
    assert not torch.equal(scene_of(photo, seed=3).light(ticks), scene_of(photo, seed=4).light(ticks))


def test_without_motion_nothing_moves(photo: Path):
    light = scene_of(photo, motion_px=0.0).light(torch.tensor([0, 30, 89]))
    assert torch.equal(light[0], light[1])
    assert torch.equal(light[0], light[2])


def test_the_image_moves_as_far_in_one_exposure_as_the_scene_says(photo: Path):
    ratios = []
    for seed in range(20):
        scene = scene_of(photo, seed=seed, motion_px=12.0, num_layers=0, frames=10)
        assert 6.0 <= scene.speed_px <= 18.0
        x, y = torch.meshgrid(torch.arange(-21, 22, 6), torch.arange(-14, 15, 4), indexing="xy")
        points = torch.stack((x, y, torch.ones_like(x))).view(3, -1).double()
        start = torch.arange(0, 270, 10)
        before, after = (camera_matrix(scene.camera.at(ticks)) @ points for ticks in (start, start + 30))
        moved = after[:, :2] / after[:, 2:] - before[:, :2] / before[:, 2:]
        ratios.append(float(moved.square().sum(1).mean().sqrt()) / scene.speed_px)
    assert 0.75 < np.mean(ratios) < 1.25
    assert min(ratios) > 0.5
    assert max(ratios) < 2


def test_recordings_differ_in_speed(photo: Path):
    speeds = [scene_of(photo, seed=seed).speed_px for seed in range(20)]
    assert min(speeds) < 4.5
    assert max(speeds) > 7.5


def test_layers_move_apart_from_the_photograph(photo: Path, other_photo: Path):
    ticks = torch.tensor([10, 60])
    bare = scene_of(photo, num_layers=0, seed=5).light(ticks)
    scene = photo_scene(photo, replace(OPTIONS, seed=5), layer_photos=[other_photo])
    layered = scene.light(ticks)
    covered = (layered - bare).abs().amax(1) > 0.02
    assert 0 < int(covered[0].sum()) < covered[0].numel()
    assert not torch.equal(covered[0], covered[1])
    assert scene.layer_photos == (other_photo, other_photo)


def test_a_layer_is_painted_only_where_it_can_be_and_nothing_is_missed(photo: Path):
    scene = scene_of(photo, seed=6, num_layers=3)
    for layer in scene.layers:
        big = layer.patch(torch.arange(0, 90, 15), height=401, width=403)
        small = layer.patch(torch.arange(0, 90, 15), height=29, width=43)
        assert big is not None
        cover = torch.zeros(6, 401, 403)
        cover[:, big[0], big[1]] = big[2][:, 3]
        inside = cover[:, 186:215, 180:223]  # the small view, in the middle of the big one
        found = torch.zeros(6, 29, 43)
        if small is not None:
            found[:, small[0], small[1]] = small[2][:, 3]
        torch.testing.assert_close(found, inside, rtol=0, atol=1e-4)
        assert float(big[2][:, 3, [0, -1]].max()) == 0  # nothing is cut off at the reach
        assert float(big[2][:, 3, :, [0, -1]].max()) == 0


@pytest.mark.parametrize("motion_px", [1000.0, 10000.0, 1e7, 1e300])
def test_a_motion_that_leads_far_beyond_any_photograph_is_refused_by_name(photo: Path, motion_px: float):
    with pytest.raises(ValueError, match=r"^motion_px: \S+; leads a view of 43x29 over \S+ pixels; allowed: 1024$"):
        scene_of(photo, seed=1, motion_px=motion_px)


def test_a_view_of_one_pixel_can_be_filmed_at_rest_and_is_refused_in_fast_motion(photo: Path):
    light = scene_of(photo, seed=2, height=1, width=1, motion_px=0.0).light(torch.arange(3))
    assert light.shape == (3, 3, 1, 1)
    with pytest.raises(ValueError, match=r"^motion_px: 12\.0; leads a view of 1x1 over \S+ pixels; allowed: 1024$"):
        scene_of(photo, seed=2, height=1, width=1, motion_px=12.0)


def test_the_identity_homography_samples_the_texture_itself():
    texture = torch.rand((3, 7, 11), generator=torch.Generator().manual_seed(7))
    matrix = torch.diag(torch.tensor([1 / 5, 1 / 3, 1.0])).expand(2, 3, 3)
    seen = sample(texture, matrix, torch.arange(-3, 4), torch.arange(-5, 6))
    torch.testing.assert_close(seen, texture.expand(2, -1, -1, -1), rtol=0, atol=1e-5)


def test_video_frames_are_met_exactly_and_mixed_in_linear_light_between(footage: Path):
    scene = video_of(footage, ticks_per_frame=4)
    first, second = (image_to_linear(read_image(footage / name)) for name in ("00.png", "01.png"))
    light = scene.light(torch.tensor([0, 1, 4]))
    assert (scene.height, scene.width, scene.num_ticks) == (34, 50, 48)
    assert torch.equal(light[0], first)
    torch.testing.assert_close(light[1], 0.75 * first + 0.25 * second, rtol=0, atol=1e-6)
    assert torch.equal(light[2], second)


def test_a_video_can_be_read_again_from_an_earlier_tick(footage: Path):
    scene = video_of(footage, ticks_per_frame=4)
    first = scene.light(torch.arange(7))
    scene.light(torch.tensor([30]))
    assert torch.equal(scene.light(torch.arange(7)), first)


def test_start_frame_skips_frames(footage: Path):
    whole, rest = video_of(footage, ticks_per_frame=2), video_of(footage, ticks_per_frame=2, start_frame=3)
    assert torch.equal(rest.light(torch.tensor([0, 5])), whole.light(torch.tensor([6, 11])))
    assert rest.num_ticks == 18


def test_a_start_frame_behind_the_end_is_refused(footage: Path):
    with pytest.raises(ValueError, match=r"^start_frame: 12; two must be left of the frames of .*footage: 13$"):
        video_of(footage, ticks_per_frame=4, start_frame=12)


@pytest.mark.parametrize("view", [{"height": 36}, {"width": 52, "height": 20}])
def test_a_video_is_never_enlarged(footage: Path, view: dict[str, int]):
    with pytest.raises(
        ValueError, match=r"footage: frames of 50x34 pixels are smaller than the view of \d+x\d+; allowed"
    ):
        video_of(footage, ticks_per_frame=4, **view)


def test_a_folder_of_pictures_of_different_sizes_is_no_video(footage: Path):
    write_image(footage / "05.png", textured(33, 50, seed=8))
    with pytest.raises(
        ValueError, match=r"05\.png: size differs from 00\.png; frames of one video must be of one size"
    ):
        video_of(footage, ticks_per_frame=4)
