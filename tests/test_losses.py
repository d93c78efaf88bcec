from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from spikevrt.config import LossConfig
from spikevrt.light import linear_to_srgb
from spikevrt.losses import (
    Losses,
    VggRelu33,
    charbonnier,
    dis_flow,
    edge_strength,
    exposure_duty,
    feature_distance,
    fft_distance,
    frame_motion,
    reblur,
)
from tests.golden.make_vgg_golden import GOLDEN, formula, pictures

CONVS = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256)}
REST = [f"features.{n}.{part}" for n in (16, 34) for part in ("weight", "bias")] + ["classifier.6.bias"]


@pytest.fixture(scope="module")
def vgg19() -> dict[str, torch.Tensor]:
    """The shape of torchvision's file as far as relu3_3, random values; what comes later is there but tiny."""
    generator = torch.Generator().manual_seed(3)
    state = {name: torch.zeros(1) for name in REST}
    for index, (out_channels, in_channels) in CONVS.items():
        scale = (2 / (9 * in_channels)) ** 0.5
        state[f"features.{index}.weight"] = torch.randn(out_channels, in_channels, 3, 3, generator=generator) * scale
        state[f"features.{index}.bias"] = torch.zeros(out_channels)
    return state


@pytest.fixture
def vgg_file(vgg19: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    torch.save(vgg19, tmp_path / "vgg19.pth")
    return tmp_path / "vgg19.pth"


def test_charbonnier_of_equal_pictures_is_epsilon():
    x = torch.rand(2, 3, 5, 7)
    torch.testing.assert_close(charbonnier(x, x, eps=0.125), torch.tensor(0.125), rtol=0, atol=0)


def test_charbonnier_of_three_four_is_five():
    assert charbonnier(torch.tensor([3.0]), torch.tensor([0.0]), eps=4.0) == 5.0


def test_charbonnier_broadcasts_nothing():
    with pytest.raises(ValueError, match=r"charbonnier: shapes \(2, 3\) and \(3,\) differ"):
        charbonnier(torch.zeros(2, 3), torch.zeros(3))


def test_a_weight_counts_a_pixel_that_many_times():
    x, weight = torch.tensor([3.0, 0.0]), torch.tensor([2.0, 0.5])
    assert charbonnier(x, torch.zeros(2), eps=4.0, weight=weight) == (2 * 5 + 0.5 * 4) / 2


def test_a_weight_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"charbonnier: shapes \(2, 3\) and, of the weight, \(3,\) differ"):
        charbonnier(torch.zeros(2, 3), torch.zeros(2, 3), weight=torch.ones(3))


def test_features_are_those_of_the_layers_written_out(vgg19: dict[str, torch.Tensor], vgg_file: Path):
    frames = torch.rand(2, 3, 13, 17, generator=torch.Generator().manual_seed(5))
    x = (frames - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    for index in CONVS:
        if index in (5, 10):
            x = torch.nn.functional.max_pool2d(x, 2)
        x = torch.relu(torch.conv2d(x, vgg19[f"features.{index}.weight"], vgg19[f"features.{index}.bias"], padding=1))
    out = VggRelu33(vgg_file)(frames)
    assert out.shape == (2, 256, 3, 4) and (out >= 0).all()
    torch.testing.assert_close(out, x, rtol=1e-5, atol=1e-6)


def test_features_and_their_gradient_are_those_of_torchvisions_vgg19(tmp_path: Path):
    """Tolerance: 1e-5 of the largest value, for sums of up to 2304 products in another order."""
    golden = np.load(GOLDEN, allow_pickle=False)
    state = {name: torch.zeros(1) for name in golden["names"].tolist()}
    for index, (out_channels, in_channels) in CONVS.items():
        for name, shape in {"weight": (out_channels, in_channels, 3, 3), "bias": (out_channels,)}.items():
            state[f"features.{index}.{name}"] = formula(f"features.{index}.{name}", shape)
    assert len(state) == 38 and np.array_equal(pictures(), golden["pictures"])
    x = (torch.from_numpy(golden["pictures"]).float() / 255).requires_grad_()
    features = VggRelu33(saved(tmp_path, state))(x)
    features.square().mean().backward()
    for ours, key in ((features.detach(), "features"), (x.grad, "gradient")):
        theirs = torch.from_numpy(golden[key])
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * theirs.abs().max().item())


def test_the_distance_is_zero_for_equal_frames_and_its_gradient_reaches_only_the_first(vgg_file: Path):
    vgg = VggRelu33(vgg_file)
    x = torch.rand(1, 3, 8, 8, requires_grad=True)
    y = torch.rand(1, 3, 8, 8, requires_grad=True)
    assert feature_distance(vgg, x, x) == 0
    feature_distance(vgg, x, y).backward()
    assert x.grad is not None and x.grad.abs().sum() > 0 and y.grad is None
    assert all(p.grad is None for p in vgg.parameters())


def test_pth_and_safetensors_give_the_same_features(vgg19: dict[str, torch.Tensor], vgg_file: Path, tmp_path: Path):
    save_file(vgg19, tmp_path / "vgg19.safetensors")
    frames = torch.rand(1, 3, 8, 8)
    assert torch.equal(VggRelu33(vgg_file)(frames), VggRelu33(tmp_path / "vgg19.safetensors")(frames))


def saved(tmp_path: Path, state: Any) -> Path:
    torch.save(state, tmp_path / "w.pth")
    return tmp_path / "w.pth"


def test_a_missing_key_is_named(vgg19: dict[str, torch.Tensor], tmp_path: Path):
    """Fault 9: a wrong file must not give a loss of noise."""
    path = saved(tmp_path, {k: v for k, v in vgg19.items() if k != "features.7.bias"})
    with pytest.raises(ValueError) as error:
        VggRelu33(path)
    assert str(error.value) == f"{path}: no VGG-19 weights: lacks features.7.bias (1 missing, 0 unknown keys)"


def test_an_unknown_key_is_named(vgg19: dict[str, torch.Tensor], tmp_path: Path):
    path = saved(tmp_path, vgg19 | {"features.1.weight": torch.zeros(1)})  # VGG-19 with batch normalisation has it
    with pytest.raises(ValueError, match=r"holds features\.1\.weight \(0 missing, 1 unknown keys\)"):
        VggRelu33(path)


def test_a_wrong_shape_is_named(vgg19: dict[str, torch.Tensor], tmp_path: Path):
    path = saved(tmp_path, vgg19 | {"features.0.bias": torch.zeros(63)})
    with pytest.raises(ValueError, match=r"features\.0\.bias has shape \(63,\); VGG-19 has \(64,\)"):
        VggRelu33(path)


def test_a_file_that_holds_no_weights_is_named(tmp_path: Path):
    (tmp_path / "w.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"w\.pth: not a weights file"):
        VggRelu33(tmp_path / "w.pth")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth: no such file \(loss\.perceptual_file"):
        VggRelu33(tmp_path / "nothing.pth")


def test_without_a_network_the_ways_out_are_named(monkeypatch: pytest.MonkeyPatch):
    def offline(*args: Any, **settings: Any) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(
        OSError, match=r"download failed \(URLError\); set loss\.perceptual_file .* loss\.perceptual_weight to 0"
    ):
        VggRelu33(None)


# --- edges, spectra -------------------------------------------------------------------------------------------------


def test_a_step_has_its_height_as_edge_strength_on_both_sides_and_flat_parts_none():
    grey = torch.full((2, 3, 5, 7), 0.25)
    grey[..., 3:] = 0.75
    expected = torch.zeros(2, 5, 7)
    expected[..., 2:4] = 0.5
    torch.testing.assert_close(edge_strength(grey), expected, rtol=0, atol=1e-6)
    rows = edge_strength(grey.transpose(-1, -2))
    torch.testing.assert_close(rows, expected.transpose(-1, -2), rtol=0, atol=1e-6)


def test_no_edge_is_stronger_than_one():
    corners = (torch.rand(1, 1, 31, 37, generator=torch.Generator().manual_seed(7)) > 0.5).float().expand(1, 3, 31, 37)
    assert edge_strength(corners).max() == 1.0


def test_a_picture_of_ones_is_a_third_away_from_black_in_a_spectrum_of_4x4():
    """Only the mean frequency differs: 4 = sqrt(16), one of 4 x 3 that `rfft2` returns."""
    assert fft_distance(torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)) == pytest.approx(4 / 12)


def test_magnitudes_do_not_change_when_a_picture_moves_cyclically():
    x = torch.rand(2, 3, 13, 17, generator=torch.Generator().manual_seed(2))
    assert fft_distance(x, x.roll((3, 5), (2, 3))) < 1e-6  # rounding of float32


def test_the_gradient_of_the_spectra_is_finite_where_a_magnitude_is_zero():
    x = torch.zeros(1, 3, 8, 8, requires_grad=True)
    fft_distance(x, torch.rand(1, 3, 8, 8)).backward()
    assert x.grad is not None and bool(x.grad.isfinite().all())


# --- re-blur --------------------------------------------------------------------------------------------------------


def still(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return first.new_zeros(len(first), 2, *first.shape[-2:])


def of_the_step(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The flow between pictures of one step: black to its left, and so many columns of black."""
    edges = [(picture[:, 0, 0] == 0).sum(-1) for picture in (first, second)]
    flow = still(first, second)
    flow[:, 0] = (edges[1] - edges[0]).float()[:, None, None]
    return flow


def moving_step(edges: list[int], width: int = 97) -> torch.Tensor:
    frames = torch.zeros(1, len(edges), 3, 5, width)
    for t, edge in enumerate(edges):
        frames[0, t, ..., edge:] = 1
    return frames


def test_without_motion_reblurring_changes_nothing():
    frames = torch.rand(2, 3, 3, 11, 13, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(reblur(frames, still, torch.full((2, 3), 0.5)), frames, rtol=0, atol=1e-5)


def test_a_constant_clip_stays_constant_whatever_moves():
    def wild(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return 40 * torch.randn(len(first), 2, *first.shape[-2:], generator=torch.Generator().manual_seed(4))

    frames = torch.full((1, 3, 3, 11, 13), 0.3)
    torch.testing.assert_close(reblur(frames, wild, torch.ones(1, 3)), frames, rtol=0, atol=1e-6)


def test_a_step_of_18_pixels_a_frame_seen_half_the_time_becomes_a_ramp_of_9_in_linear_light():
    edges = [22, 40, 58]
    blurry = reblur(moving_step(edges), of_the_step, torch.full((1, 3), 0.5), num_times=9)
    columns = torch.arange(97)
    for t, edge in enumerate(edges):  # column `edge - 4` sees white in one of nine moments, `edge + 4` in all
        ramp = linear_to_srgb((columns - edge + 5).clamp(0, 9) / 9)
        torch.testing.assert_close(blurry[0, t, 1, 3], ramp, rtol=0, atol=2e-3)  # positions are rounded in grid_sample


def test_each_frame_has_a_duty_of_its_own():
    blurry = reblur(moving_step([22, 40]), of_the_step, torch.tensor([[0.0, 0.5]]))
    assert [len(frame.round(decimals=3).unique()) for frame in blurry[0]] == [2, 10]


def test_a_frame_moves_by_the_mean_of_both_sides_and_at_the_ends_by_the_one():
    motion = frame_motion(moving_step([10, 12, 18]), of_the_step)
    assert motion[0, :, 0, 2, 2].tolist() == [2, 4, 6] and motion[0, :, 1].abs().max() == 0


def test_the_gradient_of_reblurring_reaches_the_frames_and_not_the_flow():
    scale = torch.ones(1, requires_grad=True)
    frames = moving_step([10, 12, 18]).requires_grad_()
    reblur(frames, lambda a, b: scale * of_the_step(a, b), torch.ones(1, 3)).sum().backward()
    assert frames.grad is not None and bool((frames.grad.abs().sum((0, 2, 3, 4)) > 0).all()) and scale.grad is None


def test_descending_the_reblur_term_alone_sharpens_a_blurry_step():
    """From the blurry frames to half of their distance from the sharp ones, or less, in 100 steps."""
    sharp = moving_step([22, 40, 58], width=83)
    duty = torch.full((1, 3), 0.5)

    def flow(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return of_the_step(
            *((sharp[0, :2], sharp[0, 1:]) if torch.equal(first, state[0, :2]) else (sharp[0, 1:], sharp[0, :2]))
        )

    state = reblur(sharp, of_the_step, duty)
    blur = state.clone()
    frames = blur.clone().requires_grad_()
    optimizer = torch.optim.Adam([frames], lr=0.02)
    for _ in range(100):
        state = frames.detach().clone()
        optimizer.zero_grad()
        charbonnier(reblur(frames, flow, duty), blur).backward()
        optimizer.step()
    before, after = ((x - sharp).abs().mean().item() for x in (blur, frames.detach()))
    assert after < before / 2, (before, after)


def test_one_frame_cannot_be_reblurred():
    with pytest.raises(ValueError, match="reblur: clips of 1 frame; allowed: 2 or more"):
        reblur(torch.zeros(1, 1, 3, 5, 7), still, torch.ones(1, 1))


def test_ten_milliseconds_in_every_twenty_are_a_duty_of_one_half_also_backwards():
    t0, t1 = [100.00, 100.02, 100.04], [100.01, 100.03, 100.05]
    duty = exposure_duty([t0, t0[::-1]], [t1, t1[::-1]])
    torch.testing.assert_close(duty, torch.full((2, 3), 0.5))


def test_the_duty_of_a_frame_is_measured_against_its_own_neighbours():
    duty = exposure_duty([[0.0, 1.0, 4.0]], [[0.5, 1.5, 4.5]])
    torch.testing.assert_close(duty, torch.tensor([[0.5 / 1, 0.5 / 2, 0.5 / 3]]))


def test_one_frame_has_no_duty():
    with pytest.raises(ValueError, match="exposure_duty: clips of 1 frame; allowed: 2 or more"):
        exposure_duty([[0.0]], [[0.1]])


def test_frames_at_one_time_have_no_duty():
    with pytest.raises(ValueError, match="exposure_duty: neighbouring exposures are at the same time"):
        exposure_duty([[0.0, 0.0]], [[0.1, 0.1]])


# --- all terms ------------------------------------------------------------------------------------------------------

OFF = {"perceptual_weight": 0.0}


def a_clip(num: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(num)
    return [torch.rand(1, 2, 3, 40, 41, generator=generator) for _ in range(3)]


def test_the_reference_loss_is_charbonnier_and_a_tenth_of_the_vgg_distance(vgg_file: Path):
    restored, blur, sharp = a_clip(1)
    terms = Losses(LossConfig(perceptual_file=str(vgg_file)))(restored, blur, sharp)
    distance = feature_distance(VggRelu33(vgg_file), restored[0], sharp[0])
    assert list(terms) == ["charbonnier", "perceptual"]
    assert terms["charbonnier"] == charbonnier(restored, sharp, 1e-3)
    torch.testing.assert_close(terms["perceptual"], 0.1 * distance)


@pytest.mark.parametrize("name", ["edge", "fft", "lpips", "reblur"])
def test_a_term_appears_with_its_weight_and_is_proportional_to_it(name: str):
    restored, blur, sharp = a_clip(2)
    duty = torch.full((1, 2), 0.5)
    values = []
    for weight in (1.0, 4.0):
        losses = Losses(LossConfig(**(OFF | {f"{name}_weight": weight})), still)
        terms = losses(restored.clone().requires_grad_(), blur, sharp, duty)
        assert list(terms) == ["charbonnier", name]
        assert all(term.shape == () and term.dtype == torch.float32 and term.requires_grad for term in terms.values())
        values.append(terms[name].item())
    assert values[1] == pytest.approx(4 * values[0]) and values[0] > 0


def test_charbonnier_and_edge_add_up_to_charbonnier_of_pixels_counted_one_plus_weight_times_edge():
    restored, blur, sharp = a_clip(3)
    terms = Losses(LossConfig(**OFF, edge_weight=3.0))(restored, blur, sharp)
    weight = (1 + 3 * edge_strength(sharp[0]))[:, None].expand(2, 3, 40, 41)
    torch.testing.assert_close(sum(terms.values()), charbonnier(restored[0], sharp[0], weight=weight))


def test_without_sharp_frames_the_reblur_term_is_alone():
    restored, blur, _ = a_clip(4)
    terms = Losses(LossConfig(**OFF, reblur_weight=2.0), still)(restored, blur, None, torch.ones(1, 2))
    assert list(terms) == ["reblur"]
    assert terms["reblur"].item() == pytest.approx(2 * charbonnier(restored, blur).item(), rel=1e-4)


def test_under_autocast_all_but_the_two_networks_are_float32():
    restored, blur, sharp = (x.bfloat16() for x in a_clip(5))
    losses = Losses(LossConfig(**OFF, edge_weight=1.0, fft_weight=1.0, lpips_weight=1.0, reblur_weight=1.0), still)
    plain = losses(restored, blur, sharp, torch.ones(1, 2))
    with torch.autocast("cpu", torch.bfloat16):
        terms = losses(restored, blur, sharp, torch.ones(1, 2))
    for name, term in terms.items():
        assert term.dtype == torch.float32
        assert name == "lpips" or torch.equal(term, plain[name])
    assert terms["lpips"].item() == pytest.approx(plain["lpips"].item(), rel=0.02)


def test_the_gradient_of_every_term_reaches_the_restored_frames(vgg_file: Path):
    restored, blur, sharp = a_clip(6)
    restored.requires_grad_()
    config = LossConfig(
        perceptual_file=str(vgg_file), edge_weight=1.0, fft_weight=1.0, lpips_weight=1.0, reblur_weight=1.0
    )
    terms = Losses(config, still)(restored, blur, sharp, torch.ones(1, 2))
    assert list(terms) == ["charbonnier", "edge", "perceptual", "fft", "lpips", "reblur"]
    for name, term in terms.items():
        (gradient,) = torch.autograd.grad(term, restored, retain_graph=True)
        assert bool(gradient.isfinite().all()) and gradient.abs().sum() > 0, name


def test_the_dis_flow_brings_a_shifted_picture_back():
    pytest.importorskip("cv2")
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, 3, 12, 14, generator=generator)
    first = torch.nn.functional.interpolate(coarse, size=(96, 112), mode="bicubic").clamp(0, 1)
    second = first.roll(3, -1)  # what stood at x stands at x + 3
    inner = dis_flow(first, second)[0, :, 24:-24, 24:-24]
    torch.testing.assert_close(inner.median(2).values.median(1).values, torch.tensor([3.0, 0.0]), rtol=0, atol=0.2)
