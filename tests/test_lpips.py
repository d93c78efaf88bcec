from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from spikevrt.lpips import ALEXNET, LPIPS_WEIGHTS, VGG16, Lpips, Trunk
from spikevrt.recording.frames import read_image, to_float
from tests.golden import make_lpips_golden as by_hand

GOLDEN: dict[str, list[float]] = json.loads(by_hand.GOLDEN.read_text())
VGG_FILE = os.environ.get("SPIKEVRT_TEST_LPIPS_VGG")  # 29 MB, not shipped; examples/lpips_weights.py makes it
PHOTO = Path(__file__).resolve().parents[1] / "src" / "spikevrt" / "assets" / "chelsea.jpg"


@pytest.fixture(scope="module")
def lpips() -> Lpips:
    return Lpips()


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    return to_float(np.stack([read_image(PHOTO)]))


def test_a_photograph_and_four_damaged_ones_are_as_far_apart_as_the_official_package_says(
    lpips: Lpips, photo: torch.Tensor
):
    """Values of the package lpips 0.1.4, LPIPS(net="alex"), normalize=True, with the trunk in float32.

    Rounding the kernels to float16 moves a value by at most 5e-5 of it; other decoders of the JPEG file, by 1e-4.
    """
    noise = 0.1 * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(photo, 9, 1, 4, count_include_pad=False)
    damaged = torch.cat((blurred, (photo + noise).clamp(0, 1), photo.roll(8, -1), photo * 0.5))
    found = lpips(photo.expand(4, -1, -1, -1), damaged)
    torch.testing.assert_close(found, torch.tensor([0.441168, 0.798989, 0.122142, 0.101729]), rtol=5e-4, atol=0)


def golden_pictures() -> tuple[torch.Tensor, torch.Tensor]:
    x, y = (torch.from_numpy(stack).float() for stack in by_hand.pictures())
    return x, y


def test_the_shipped_float16_weights_give_what_float32_ones_give_to_2e_5(lpips: Lpips):
    torch.testing.assert_close(lpips(*golden_pictures()), torch.tensor(GOLDEN["alex"]), rtol=0, atol=2e-5)


@pytest.mark.skipif(VGG_FILE is None, reason="SPIKEVRT_TEST_LPIPS_VGG names no file of VGG-16's weights")
def test_vgg_16_in_float16_gives_what_float32_weights_give_to_5e_5():
    assert VGG_FILE is not None
    found = Lpips(VGG_FILE, VGG16)(*golden_pictures())
    torch.testing.assert_close(found, torch.tensor(GOLDEN["vgg"]), rtol=0, atol=5e-5)


@pytest.mark.parametrize(("trunk", "layers"), [(ALEXNET, by_hand.ALEX), (VGG16, by_hand.VGG)], ids=["alex", "vgg"])
def test_with_any_weights_both_trunks_agree_with_a_second_implementation(trunk: Trunk, layers: list, tmp_path: Path):
    """In NumPy and float64, the layers written down anew. Activations keep their size from layer to layer."""
    generator = torch.Generator().manual_seed(3)
    state = {}
    for index, (inputs, outputs, side, _, _) in enumerate(trunk.convs):
        kernel = torch.randn(outputs, inputs, side, side, generator=generator) * (2 / (inputs * side * side)) ** 0.5
        state |= {
            f"convs.{index}.weight": kernel,
            f"convs.{index}.bias": 0.1 * torch.randn(outputs, generator=generator),
        }
    for index, conv in enumerate(trunk.compare_after):
        state[f"heads.{index}"] = torch.rand(trunk.convs[conv][1], generator=generator)
    save_file(state, tmp_path / "w.safetensors")
    x, y = golden_pictures()
    found = Lpips(tmp_path / "w.safetensors", trunk)(x[:1], y[:1])
    kernels = [state[f"convs.{i}.weight"].permute(2, 3, 1, 0).numpy() for i in range(len(trunk.convs))]
    biases = [state[f"convs.{i}.bias"].numpy() for i in range(len(trunk.convs))]
    heads = [state[f"heads.{i}"].numpy() for i in range(5)]
    expected = by_hand.distance(layers, kernels, biases, heads, x[0].double().numpy(), y[0].double().numpy())
    assert expected > 0.1  # the trunks see a difference, so that agreement says something
    assert found.item() == pytest.approx(expected, rel=1e-5)  # float32 against float64


def test_features_compared_one_by_one_give_the_same_distance(lpips: Lpips):
    x, y = golden_pictures()
    together = lpips.features(torch.cat((x, y)))
    torch.testing.assert_close(lpips.distance([f[:4] for f in together], [f[4:] for f in together]), lpips(x, y))


def test_a_picture_is_at_no_distance_from_itself_and_order_does_not_matter(lpips: Lpips):
    x, y = torch.rand(2, 2, 3, 37, 41, generator=torch.Generator().manual_seed(1))
    assert lpips(x, x).tolist() == [0, 0]
    torch.testing.assert_close(lpips(x, y), lpips(y, x))


def test_a_batch_of_two_is_two_batches_of_one(lpips: Lpips):
    x, y = torch.rand(2, 2, 3, 37, 41, generator=torch.Generator().manual_seed(2))
    alone = torch.cat([lpips(x[i : i + 1], y[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(lpips(x, y), alone)


def test_the_gradient_reaches_the_pictures_alone_and_is_finite_where_they_are_flat_or_equal(lpips: Lpips):
    x, y = torch.zeros(1, 3, 31, 31, requires_grad=True), torch.zeros(1, 3, 31, 31)
    lpips(x, y).sum().backward()
    assert x.grad is not None and bool(x.grad.isfinite().all())
    z = torch.rand(1, 3, 31, 31, requires_grad=True)
    lpips(z, y).sum().backward()
    assert z.grad is not None and z.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in lpips.parameters())


def test_pictures_stay_as_they_are(lpips: Lpips):
    x = torch.rand(1, 3, 31, 31)
    before = x.clone()
    lpips(x, x * 0.5)
    assert torch.equal(x, before)


def test_small_pictures_are_refused(lpips: Lpips):
    with pytest.raises(ValueError, match="LPIPS of pictures of 31x30; allowed: 31x31 or larger"):
        lpips(torch.zeros(1, 3, 30, 31), torch.zeros(1, 3, 30, 31))


def test_pictures_of_two_shapes_are_refused(lpips: Lpips):
    with pytest.raises(ValueError, match=r"LPIPS of \(1, 3, 40, 40\) and \(3, 40, 40\): expected two of one shape"):
        lpips(torch.zeros(1, 3, 40, 40), torch.zeros(3, 40, 40))


def changed(tmp_path: Path, **changes: Any) -> Path:
    state = load_file(LPIPS_WEIGHTS) | {name.replace("_", "."): value for name, value in changes.items()}
    save_file({name: value for name, value in state.items() if value is not None}, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_a_missing_key_is_named(tmp_path: Path):
    path = changed(tmp_path, convs_3_bias=None)
    with pytest.raises(ValueError) as error:
        Lpips(path)
    assert (
        str(error.value) == f"{path}: no weights of LPIPS with AlexNet: lacks convs.3.bias (1 missing, 0 unknown keys)"
    )


def test_an_unknown_key_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"holds heads\.5 \(0 missing, 1 unknown keys\)"):
        Lpips(changed(tmp_path, heads_5=torch.zeros(1)))


def test_the_weights_of_the_other_trunk_are_refused():
    with pytest.raises(ValueError, match=r"no weights of LPIPS with VGG-16: lacks convs\.10\.bias \(16 missing"):
        Lpips(LPIPS_WEIGHTS, VGG16)


def test_a_wrong_shape_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"heads\.0 has shape \(63,\); AlexNet has \(64,\)"):
        Lpips(changed(tmp_path, heads_0=torch.zeros(63)))


def test_what_is_no_safetensors_file_is_named(tmp_path: Path):
    (tmp_path / "w.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"w\.safetensors: not a safetensors file"):
        Lpips(tmp_path / "w.safetensors")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors: no such file \(weights of LPIPS\)"):
        Lpips(tmp_path / "nothing.safetensors")
