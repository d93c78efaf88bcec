"""Scenes of the same bits everywhere: what they show, and that no processor's habits are in them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from spikevrt.light import srgb_to_linear
from spikevrt.mux.join import write_video
from spikevrt.recording.frames import write_image
from spikevrt.simulate import exact
from spikevrt.simulate.exact import (
    ExactScene,
    ExactVideo,
    Motion,
    Sway,
    exact_scene,
    exact_video,
    grey_light,
    image_light,
    light_levels,
    sway_motion,
)

STILL = Sway(0, 4, 0)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    write_image(path, np.random.default_rng(3).integers(0, 256, (61, 83, 3), dtype=np.uint8))
    return path


def scene(photo: Path, *, speed_px: float = 5.0, seed: str = "a", cutouts: int = 2) -> ExactScene:
    return exact_scene(photo, [photo] * cutouts, height=40, width=48, speed_px=speed_px, exposure_ticks=32, seed=seed)


def test_a_sway_goes_through_four_amplitudes_a_period_and_turns_without_a_jump():
    sway = Sway(amplitude=1000, period=64, phase=5)
    values = [sway.at(tick) for tick in range(129)]
    assert values[:64] == values[64:128]
    assert max(values) == 1000 and min(values) == -1000
    moved = [abs(b - a) for a, b in zip(values[:64], values[1:65], strict=True)]
    assert sum(moved) == 4000
    assert max(abs(b - a) for a, b in zip(moved, moved[1:], strict=False)) <= 1000 * 8 / 32**2 * 4 + 2


def test_a_motion_moves_by_about_its_speed_in_an_exposure():
    for seed in "abcde":
        motion = sway_motion(seed, 16.0, exposure_ticks=104, turning=False)
        places = np.array([motion.at(tick)[:2] for tick in range(104 * 40)]) / exact.PLACE
        path = np.hypot(*np.diff(places, axis=0).T).sum() / 40
        assert 12 < path < 26, path  # the sweep of 16, the tremor of 4 along each axis beside it


def test_light_is_in_range_in_whole_levels_and_moves(photo: Path):
    light = scene(photo).light(torch.arange(3) * 9)
    assert light.shape == (3, 3, 40, 48) and light.dtype == torch.float32
    assert float(light.min()) >= 0 and float(light.max()) <= 1
    assert torch.equal(light * exact.LIGHT, (light * exact.LIGHT).round())
    assert not torch.equal(light[0], light[1])


def test_a_still_camera_shows_the_photograph_itself(photo: Path):
    texture = torch.rand(3, 41, 49, generator=torch.Generator().manual_seed(3))
    texture = (texture * exact.TEXTURE).round() / exact.TEXTURE
    still = Motion((STILL,), (STILL,), STILL, STILL)
    seen = ExactScene(41, 49, texture, still, ()).light(torch.tensor([0, 17]))
    assert torch.equal(seen, texture.expand(2, -1, -1, -1))


def test_a_moved_camera_shows_what_interpolating_the_photograph_shows():
    generator = torch.Generator().manual_seed(5)
    texture = (torch.rand(3, 60, 70, generator=generator) * exact.TEXTURE).round() / exact.TEXTURE
    x, y, turn, zoom = 3 * exact.PLACE + 1000, -2 * exact.PLACE - 77, 20_000, -9_000
    motion = Motion((Sway(x, 4, 1),), (Sway(y, 4, 1),), Sway(turn, 4, 1), Sway(zoom, 4, 1))
    assert motion.at(0) == (x, y, turn, zoom)
    seen = ExactScene(30, 40, texture, motion, ()).light(torch.tensor([0]))[0]
    rows, columns = torch.meshgrid(torch.arange(30) - 14.5, torch.arange(40) - 19.5, indexing="ij")
    scale, skew = 1 + zoom / exact.TURN, turn / exact.TURN
    at_x = scale * columns - skew * rows + x / exact.PLACE
    at_y = skew * columns + scale * rows + y / exact.PLACE
    grid = torch.stack((at_x / (69 / 2), at_y / (59 / 2)), -1)[None].float()
    expected = F.grid_sample(texture[None], grid, align_corners=True)[0]
    # a place is rounded to 1/32 px: off by at most 1/64 along each axis, times the steepest slope
    assert float((seen - expected).abs().max()) < 2 / 64 + 1e-4


def test_a_cut_out_hides_what_is_behind_it_and_moves_on_its_own(photo: Path):
    bare, dressed = (scene(photo, cutouts=count).light(torch.tensor([0, 40])) for count in (0, 1))
    changed = [(a != b).any(0) for a, b in zip(bare, dressed, strict=True)]
    assert all(0.01 < float(part.float().mean()) < 0.6 for part in changed)
    assert not torch.equal(changed[0], changed[1])


def test_a_seed_decides_the_scene_and_the_speed_how_far_its_paths_reach_in_the_same_time(photo: Path):
    first, again, other = (scene(photo, seed=seed).light(torch.tensor([11])) for seed in ("a", "a", "b"))
    assert torch.equal(first, again) and not torch.equal(first, other)
    slow, fast = (scene(photo, speed_px=speed).motion for speed in (2.0, 8.0))
    assert [s.period for s in slow.x] == [s.period for s in fast.x]
    assert abs(4 * slow.x[0].amplitude - fast.x[0].amplitude) <= 4 * slow.x[0].period


def test_levels_and_light_are_each_others_inverse():
    image = torch.arange(256, dtype=torch.uint8).view(16, 16, 1).expand(-1, -1, 3)
    assert np.array_equal(light_levels(image_light(image)), image.numpy())
    between = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(1))
    levels = torch.from_numpy(light_levels(between)).permute(2, 0, 1).double()
    low, high = (srgb_to_linear(((levels + d) / 255).clamp(0, 1)) for d in (-0.5, 0.5))
    assert bool(((low <= between) & (between <= high)).all())


def test_a_sensor_pixel_sees_the_mean_grey_light_of_its_square():
    light = (torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(2)) * exact.LIGHT).round() / exact.LIGHT
    for ratio in (1, 2, 4):
        grey = grey_light(light, ratio)
        expected = (light * torch.tensor([0.2109375, 0.71484375, 0.07421875]).view(3, 1, 1)).sum(1)
        expected = F.avg_pool2d(expected[:, None], ratio)[:, 0]
        torch.testing.assert_close(grey, expected, rtol=0, atol=1 / exact.LIGHT)


def test_a_video_fades_from_frame_to_frame():
    frames = np.stack([np.full((2, 3, 3), level, np.uint8) for level in (0, 255, 0)])
    video = ExactVideo(frames, ticks_per_frame=4)
    assert video.num_ticks == 8
    assert video.light(torch.arange(8))[:, 0, 0, 0].tolist() == [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25]


def test_a_video_file_is_cut_and_its_colours_are_those_of_a_decoder(tmp_path: Path):
    y, x = np.mgrid[:32, :48]
    frames = [np.stack((x * 5, y * 7, 255 - x * 4), -1).clip(0, 255).astype(np.uint8) for _ in range(4)]
    write_video(tmp_path / "v.mp4", frames, 25.0, crf=1)
    video = exact_video(tmp_path / "v.mp4", top=4, left=8, height=16, width=20, count=3, ticks_per_frame=8)
    assert video.frames.shape == (3, 16, 20, 3)
    with av.open(str(tmp_path / "v.mp4")) as container:
        frame = next(container.decode(video=0))
    expected = frame.reformat(format="rgb24", src_colorspace="ITU601", interpolation="POINT").to_ndarray()[4:20, 8:28]
    assert np.abs(video.frames[0].astype(int) - expected).max() <= 3  # rounded elsewhere
    with pytest.raises(ValueError, match="4 frames; 9 needed"):
        exact_video(tmp_path / "v.mp4", top=0, left=0, height=8, width=8, count=9, ticks_per_frame=8)


SCRIPT = """
import hashlib, sys, torch
from pathlib import Path
from spikevrt.simulate.exact import exact_scene, grey_light, light_levels
from spikevrt.simulate.sensor import SpikeSensor
from spikevrt.simulate.setup import sensor_preset
scene = exact_scene(Path(sys.argv[1]), [Path(sys.argv[1])] * 2, height=40, width=48, speed_px=9.0, exposure_ticks=32,
                    seed="digest")
light = scene.light(torch.arange(64))
digest = hashlib.sha256(light.numpy().tobytes() + light_levels(light.sum(0) / 64).tobytes())
for preset in ("ideal", "bright", "lowlight"):
    digest.update(SpikeSensor(20, 24, sensor_preset(preset), seed=5).expose(grey_light(light, 2)).numpy().tobytes())
print(torch.backends.cpu.get_cpu_capability(), digest.hexdigest())
"""


@pytest.mark.slow
def test_every_kind_of_processor_and_number_of_threads_gives_the_same_bits(photo: Path):
    told = []
    kinds = {"DEFAULT": 2, "AVX2": 3, "AVX512": 4}  # what this processor cannot do ends the process
    cases = (("default", 1), ("default", 2), ("avx2", 2), ("avx512", 2))
    for capability, threads in cases[: kinds.get(torch.backends.cpu.get_cpu_capability(), 4)]:
        environment = os.environ | {"ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": str(threads)}
        run = [sys.executable, "-c", SCRIPT, str(photo)]
        told.append(subprocess.run(run, env=environment, check=True, capture_output=True, text=True).stdout.split())
    assert len({digest for _, digest in told}) == 1, told
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        assert len({name for name, _ in told}) >= 2  # the setting did choose other kernels


def test_places_are_exact_where_floats_would_round():
    """A place far from the centre, turned a little: in float32 it would be off."""
    pose = (exact.PLACE // 2 + 1, -3, 12_345, -6_789)
    at_x, at_y = exact._places(pose, (slice(0, 900), slice(0, 900)), (449.5, 449.5), (449.5, 449.5))
    scale, skew = 1 + pose[3] / exact.TURN, pose[2] / exact.TURN
    x, y = 899 - 449.5, 0 - 449.5
    assert int(at_x[0, 899]) == math.floor((scale * x - skew * y + 449.5 + pose[0] / exact.PLACE) * 32 + 0.5)
    assert int(at_y[0, 899]) == math.floor((skew * x + scale * y + 449.5 + pose[1] / exact.PLACE) * 32 + 0.5)
