from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from spikevrt.losses import VggRelu33, charbonnier, feature_distance

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
