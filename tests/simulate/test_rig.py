"""A simulated rig is misaligned by exactly what its provenance says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from spikevrt.recording.frames import write_image
from spikevrt.simulate.sensor import RigView, rig_homography
from spikevrt.simulate.setup import RigConfig, SensorConfig, drawn_rig
from spikevrt.simulate.synthesise import simulate_recording
from tests.simulate.conftest import OPTIONS, fingerprint


def lands(homography_33: torch.Tensor, x: float, y: float) -> list[float]:
    u, v, w = (homography_33 @ torch.tensor([x, y, 1.0], dtype=torch.float64)).tolist()
    return [u / w, v / w]


def test_the_perfect_rig_is_the_ratio_alone():
    homography = rig_homography(RigConfig(), width=46, height=34, ratio=2)
    torch.testing.assert_close(homography, torch.diag(torch.tensor([0.5, 0.5, 1.0], dtype=torch.float64)))


@pytest.mark.parametrize(
    ("rig", "x", "y", "expected"),
    [
        (RigConfig(shift_x_px=6, shift_y_px=-4), 10, 10, [8, 3]),
        (RigConfig(rotate_deg=90), 30, 10, [10, 10]),  # right of the centre (20, 10): turned clockwise it lies below
        (RigConfig(scale=2), 21, 11, [11, 6]),
        (RigConfig(tilt_x=0.25), 40, 10, [18, 5]),  # 20 right of the centre, divided by 1.25: 16
        (RigConfig(tilt_y=-0.2, shift_x_px=2), 20, 20, [11, 11.25]),  # 10 below the centre, divided by 0.8: 12.5
    ],
)
def test_a_point_of_the_frame_lands_where_one_can_reckon_it(rig: RigConfig, x: float, y: float, expected: list[float]):
    assert lands(rig_homography(rig, width=40, height=20, ratio=2), x, y) == pytest.approx(expected)


@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_the_view_of_a_perfect_rig_is_the_mean_over_the_ratio(ratio: int):
    light = torch.rand(5, 3, 6 * ratio, 7 * ratio, generator=torch.Generator().manual_seed(1))
    view = RigView(RigConfig(), width=7 * ratio, height=6 * ratio, ratio=ratio)
    torch.testing.assert_close(view.see(light, pad_px=0), F.avg_pool2d(light, ratio), rtol=0, atol=1e-6)
    assert view.pad_px == 0


@pytest.mark.parametrize("ratio", [1, 2])
def test_each_sensor_pixel_sees_the_light_where_the_homography_says(ratio: int):
    # a linear ramp passes averaging and bilinear sampling unchanged, so the value tells the place
    rig = RigConfig(shift_x_px=3.3, shift_y_px=-2.7, rotate_deg=2, scale=1.05, tilt_x=0.02, tilt_y=-0.01)
    view = RigView(rig, width=94, height=62, ratio=ratio)
    pad = view.pad_px
    assert pad > 0
    x = torch.arange(94 + 2 * pad) + 0.5 - pad
    y = torch.arange(62 + 2 * pad) + 0.5 - pad
    ramp = torch.stack((x.expand(len(y), -1), y[:, None].expand(-1, len(x)), torch.ones(len(y), len(x))))
    seen = view.see(ramp[None], pad_px=pad)[0]
    homography = rig_homography(rig, width=94, height=62, ratio=ratio)
    for u, v in ((0, 0), (11, 7), (94 // ratio - 1, 62 // ratio - 1)):
        place = [float(seen[0, v, u]), float(seen[1, v, u])]
        assert lands(homography, *place) == pytest.approx([u + 0.5, v + 0.5], abs=1e-4)  # float32 of places up to 100


def test_the_light_is_left_untouched_and_its_edge_is_continued():
    light = torch.full((1, 3, 12, 14), 0.25)
    light[..., 0] = 0.75
    before = light.clone()
    seen = RigView(RigConfig(shift_x_px=3), width=14, height=12, ratio=1).see(light, pad_px=0)
    assert torch.equal(light, before)
    assert seen[0, 0, 5].tolist() == pytest.approx([0.75] * 4 + [0.25] * 10, abs=1e-5)


def test_a_photograph_goes_on_beyond_the_frame(tmp_path: Path):
    white = tmp_path / "white.png"
    write_image(white, np.full((149, 211, 3), 255, np.uint8))
    rig = RigConfig(shift_x_px=8, rotate_deg=2)
    recording = simulate_recording(
        white, tmp_path / "out", dataclasses.replace(OPTIONS, rig=rig, num_layers=0, motion_px=15.0)
    )
    assert (recording.read_blur(0) == 255).all()
    assert recording.read_exposure_spikes(1).mean(0).min() >= 21 / 22  # full scale fires every tick, but for a rounding


def test_the_written_exposures_are_early_by_the_offset_and_the_rest_is_the_same(photo: Path, tmp_path: Path):
    right = dataclasses.replace(OPTIONS, rig=RigConfig(margin_ticks=13))
    wrong = dataclasses.replace(OPTIONS, rig=RigConfig(margin_ticks=13, offset_ticks=9))
    one, two = (simulate_recording(photo, tmp_path / name, o) for name, o in (("one", right), ("two", wrong)))
    prints = [fingerprint(path) for path in (one.root, two.root)]
    assert {k: v for k, v in prints[0].items() if k != "recording.json"}.items() <= prints[1].items()
    assert [(e.start_tick, e.stop_tick) for e in one.exposures] == [(13, 35), (44, 66), (75, 97)]
    assert [(e.start_tick, e.stop_tick) for e in two.exposures] == [(4, 26), (35, 57), (66, 88)]
    assert two.exposures[1].t0_s == 35 / 20000
    assert one.num_ticks == two.num_ticks == 84 + 2 * 13
    assert "rig" not in one.provenance
    assert two.provenance["rig"] == {"homography": [[0.5, 0, 0], [0, 0.5, 0], [0, 0, 1]], "offset_ticks": 9}


def test_the_frames_do_not_know_the_rig_but_for_the_crop_of_the_photograph(footage: Path, tmp_path: Path):
    rig = RigConfig(shift_x_px=2.5, rotate_deg=-1)
    plain = simulate_recording(footage, tmp_path / "plain", OPTIONS)
    askew = simulate_recording(footage, tmp_path / "askew", dataclasses.replace(OPTIONS, rig=rig))
    for index in range(3):
        assert np.array_equal(plain.read_blur(index), askew.read_blur(index))
        assert np.array_equal(plain.read_sharp(index), askew.read_sharp(index))
        assert not np.array_equal(plain.read_exposure_spikes(index), askew.read_exposure_spikes(index))
    homography = torch.tensor(askew.provenance["rig"]["homography"], dtype=torch.float64)
    torch.testing.assert_close(homography, rig_homography(rig, width=46, height=34, ratio=2))


def test_a_colour_filter_lies_on_the_sensor_not_on_the_frame(tmp_path: Path):
    red = tmp_path / "red.png"
    picture = np.zeros((149, 211, 3), np.uint8)
    picture[..., 0] = 255
    write_image(red, picture)
    sensor = SensorConfig(bayer="RGGB", ratio=1)
    rig = RigConfig(shift_x_px=3, rotate_deg=2)
    options = dataclasses.replace(OPTIONS, rig=rig, num_layers=0, sensor=sensor)
    rate = simulate_recording(red, tmp_path / "out", options).read_exposure_spikes(0).mean(0)
    assert rate[::2, ::2].min() >= 21 / 22  # the red pixels of the upright sensor
    assert rate[1::2].max() == rate[:, 1::2].max() == 0


def test_a_random_rig_follows_the_seed_and_keeps_its_limits():
    rigs = [drawn_rig(RigConfig(random=True), exposure_ticks=22, seed=seed) for seed in range(50)]
    assert rigs[3] == drawn_rig(RigConfig(random=True), exposure_ticks=22, seed=3)
    assert len(set(rigs)) == 50
    for low, high, values in (
        (-20, 20, [r.shift_x_px for r in rigs]), (-20, 20, [r.shift_y_px for r in rigs]),
        (-2, 2, [r.rotate_deg for r in rigs]), (0.95, 1.05, [r.scale for r in rigs]),
        (-0.02, 0.02, [r.tilt_x for r in rigs]), (-22, 22, [r.offset_ticks for r in rigs]),
    ):  # fmt: skip
        assert low <= min(values) < low + 0.2 * (high - low) < high - 0.2 * (high - low) < max(values) <= high
    assert {rig.margin_ticks for rig in rigs} == {22}


def test_a_margin_is_never_smaller_than_the_offset():
    assert drawn_rig(RigConfig(offset_ticks=-7), exposure_ticks=22, seed=1).margin_ticks == 7
    assert drawn_rig(RigConfig(offset_ticks=-7, margin_ticks=11), exposure_ticks=22, seed=1).margin_ticks == 11


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shift_x_px": float("nan")}, r"rig\.shift_x_px: nan; must be finite"),
        ({"scale": 0.4}, r"rig\.scale: 0\.4; must be 0\.5 to 2"),
        ({"tilt_y": 0.3}, r"rig\.tilt_y: 0\.3; must be -0\.25 to 0\.25"),
        ({"margin_ticks": -1}, r"rig\.margin_ticks: -1; must be 0 or more"),
        ({"random": True, "scale": 1.1}, r"rig\.random: draws shift, rotation, .* not with one of these given"),
    ],
)
def test_impossible_rigs_are_refused_by_name(change: dict[str, float], message: str):
    with pytest.raises(ValueError, match=f"^{message}$"):
        RigConfig(**change)


def test_a_rig_that_looks_far_past_the_frame_is_refused(photo: Path, tmp_path: Path):
    options = dataclasses.replace(OPTIONS, rig=RigConfig(shift_x_px=12))
    with pytest.raises(ValueError, match=r"^rig: the sensor would see 12 px beyond the frame of 46x34; allowed: at mo"):
        simulate_recording(photo, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_parallax_moves_the_layers_for_the_sensor_alone(photo: Path, footage: Path, tmp_path: Path):
    plain = dataclasses.replace(OPTIONS, num_layers=1, rig=RigConfig())
    apart = dataclasses.replace(plain, rig=RigConfig(parallax_px=4))
    both = [simulate_recording(photo, tmp_path / str(k), one) for k, one in enumerate((plain, apart))]
    assert all(np.array_equal(both[0].read_blur(i), both[1].read_blur(i)) for i in range(plain.frames))
    far, near = (recording.read_exposure_spikes(0).sum(0, dtype=int) for recording in both)
    changed = np.abs(far - near) > 2
    assert 0.02 < changed.mean() < 0.9  # where the layer was or is, and not elsewhere
    with pytest.raises(ValueError, match=r"rig\.parallax_px: 4; allowed for a video, which has no layers: 0"):
        simulate_recording(footage, tmp_path / "video", apart)
