from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from spikevrt.lpips import LPIPS_WEIGHTS, Lpips
from spikevrt.recording.frames import read_image, to_float

PHOTO = Path(__file__).resolve().parents[1] / "src" / "spikevrt" / "demo" / "assets" / "chelsea.jpg"


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
    assert str(error.value) == f"{path}: no LPIPS weights: lacks convs.3.bias (1 missing, 0 unknown keys)"


def test_an_unknown_key_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"holds heads\.5 \(0 missing, 1 unknown keys\)"):
        Lpips(changed(tmp_path, heads_5=torch.zeros(1)))


def test_a_wrong_shape_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"heads\.0 has shape \(63,\); LPIPS has \(64,\)"):
        Lpips(changed(tmp_path, heads_0=torch.zeros(63)))


def test_what_is_no_safetensors_file_is_named(tmp_path: Path):
    (tmp_path / "w.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"w\.safetensors: not a safetensors file"):
        Lpips(tmp_path / "w.safetensors")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors: no such file \(weights of LPIPS\)"):
        Lpips(tmp_path / "nothing.safetensors")
