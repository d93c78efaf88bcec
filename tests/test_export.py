"""Exported programs give what the network gives, at sizes they were not traced at, and say what to feed them."""

from __future__ import annotations

import importlib.util
import json
import runpy
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim

from spikevrt import cli, export
from spikevrt.checkpoint import WeightsInfo, save_weights
from spikevrt.config import Config
from spikevrt.export import ExportOptions, describe, export_network, open_program
from spikevrt.model import build_network, network_of_weights
from spikevrt.model.blocks import TMSA, BlockSettings
from spikevrt.model.flow import SpyNet
from spikevrt.model.spike_vrt import SpikeVRT
from tests.conftest import MICRO_SPIKES, MICRO_VRT, empty_twin_stages
from tests.test_cli import refused

ROOT = Path(__file__).resolve().parents[1]
EIGHT: dict[str, Any] = {
    "depths": [1] * 8,
    "dims": [8] * 8,
    "num_heads": [2] * 8,
    "independent": [],
}  # the fewest stages that a VRT has


def make_weights(path: Path, spikes: dict[str, Any] | None, **vrt: Any) -> Path:
    """A network drawn at random, in which spikes and flows do count."""
    config = Config.from_dict({"model": {"vrt": MICRO_VRT | EIGHT | vrt, "spikes": spikes}}).model
    torch.manual_seed(7)
    network = SpikeVRT(config)
    for name, parameter in network.named_parameters():
        if name.startswith("fusion") or "conv_offset" in name:
            nn.init.normal_(parameter, std=0.02)  # offsets that do not multiply rounding
    save_weights(path, network.state_dict(), WeightsInfo(config, 0.3, 0.4, {}))
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return make_weights(tmp_path / "micro.safetensors", MICRO_SPIKES)


@pytest.fixture
def vrt_weights(tmp_path: Path) -> Path:
    return make_weights(tmp_path / "vrt.safetensors", None)


# --- programs ---


@pytest.mark.slow
def test_a_torch_program_traced_at_one_size_runs_at_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def with_empty_stages(weights: Path, trusted: Any) -> Any:
        network, info, state = network_of_weights(weights, trusted)
        empty_twin_stages(network.vrt)
        return network, info, state

    monkeypatch.setattr(export, "network_of_weights", with_empty_stages)
    weights = make_weights(tmp_path / "shifted.safetensors", None, depths=[3, 1, 1, 1, 1, 1, 1, 1], mutual_ratio=0.4)
    out = tmp_path / "vrt.pt2"
    assert cli.main(["export", str(weights), "--out", str(out), "--frames", "3", "--no-check"]) == 0
    assert capsys.readouterr().out.startswith("torch program")
    network, _ = export._load(weights, ExportOptions())
    assert any(any(block.shift) for block in network.modules() if isinstance(block, TMSA))
    run = open_program("torch", out)
    for height, width in ((64, 104), (96, 72)):  # 2, 3 and 4 windows along an axis at 1/8, and padded ones
        blur = torch.rand(1, 3, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.no_grad():
            expected = network(blur)
        assert float((expected - blur).abs().max()) > 0.01  # it does something
        torch.testing.assert_close(run(blur), expected, rtol=0, atol=1e-4)  # other kernels, another order of sums
    about = json.loads((tmp_path / "vrt.pt2.json").read_text())
    assert about["inputs"][0]["shape"] == [1, 3, 3, "height", "width"]
    assert about["free_sizes"]["height"] == {"min": 64, "max": 8192, "multiple": 8}
    with zipfile.ZipFile(out) as archive:
        inside = [name for name in archive.namelist() if name.endswith("spikevrt.json")]
        assert json.loads(archive.read(inside[0])) == about


@pytest.mark.slow
def test_an_onnx_program_restores_a_clip_of_numpy_arrays_as_the_restorer_does(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("onnxruntime")
    from spikevrt.represent.voxel import VoxelStats, normalise
    from spikevrt.restore.restorer import RestoreOptions, restore_clip

    out = tmp_path / "micro.onnx"
    options = ExportOptions(frames=2, height=80, width=64, check=True)
    assert export_network(weights, out, options)["max_difference"] < export.TOLERANCE
    generator = np.random.default_rng(1)
    frames = generator.integers(0, 256, (2, 75, 61, 3), dtype=np.uint8)
    counts = generator.integers(0, 5, (2, 16, 38, 31), dtype=np.uint8)
    np.save(tmp_path / "blur.npy", frames)
    np.save(tmp_path / "counts.npy", counts)
    arguments = [out, tmp_path / "blur.npy", tmp_path / "counts.npy", "--out", tmp_path / "sharp.npy"]
    monkeypatch.setattr(sys, "argv", ["run_onnx.py", *map(str, arguments)])
    runpy.run_path(str(ROOT / "examples" / "run_onnx.py"), run_name="__main__")

    network, info = export._load(weights, ExportOptions())
    voxels = normalise(torch.from_numpy(counts), VoxelStats(info.voxel_mean, info.voxel_std))
    blur = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    expected = restore_clip(network, blur, voxels, RestoreOptions(tile_px=0, overlap_px=0)).permute(0, 2, 3, 1)
    sharp = torch.from_numpy(np.load(tmp_path / "sharp.npy")) / 255
    assert sharp.shape == expected.shape
    assert float((sharp - expected.clamp(0, 1)).abs().max()) < 0.6 / 255  # rounded to bytes


def exported(module: nn.Module, example: tuple[torch.Tensor, ...], free: Any) -> torch.export.ExportedProgram:
    with torch.no_grad(), torch.fx.experimental._config.patch(backed_size_oblivious=True):
        return torch.export.export(module, example, dynamic_shapes=free)


def onnx_of(program: torch.export.ExportedProgram, path: Path) -> export.Run:
    export._write("onnx", program, path, "{}")
    return open_program("onnx", path)


@pytest.mark.slow
@pytest.mark.parametrize("mutual", [False, True])
def test_a_block_exported_at_one_size_is_the_block_at_every_other(tmp_path: Path, mutual: bool):
    torch.manual_seed(3)
    block = TMSA(BlockSettings(8, (2 if mutual else 3, 4, 4), 2, 2.0, mutual=mutual), (1, 2, 2), 0.0).eval()
    nn.init.normal_(block.attn.relative_position_bias_table)
    # a size that may be one window only, and may not, is refused by torch.export: rows and columns begin above it
    free = {axis: Dim(name, min=lowest, max=64) for axis, name, lowest in ((1, "d", 2), (2, "h", 5), (3, "w", 5))}
    program = exported(block, (torch.randn(1, 5, 8, 12, 8),), (free,))
    clips = [torch.randn(1, *size, 8) for size in ((5, 7, 11), (2, 5, 8), (3, 16, 5), (6, 5, 13), (7, 9, 8))]
    as_torch = program.module()
    with torch.no_grad():
        expected = [block(clip) for clip in clips]
        for clip, value in zip(clips, expected, strict=True):
            torch.testing.assert_close(as_torch(clip), value, rtol=0, atol=2e-6)  # sums in another order
    pytest.importorskip("onnxruntime")
    run = onnx_of(program, tmp_path / "block.onnx")
    for clip, value in zip(clips, expected, strict=True):
        torch.testing.assert_close(run(clip), value, rtol=0, atol=1e-5)  # another library's sums


@pytest.mark.slow
def test_onnxruntime_runs_the_flow_pyramid_at_sizes_it_was_not_traced_at(tmp_path: Path):
    pytest.importorskip("onnxruntime")
    torch.manual_seed(3)
    spynet = SpyNet((4, 4, 4, 4)).eval()
    spynet.basic_module = spynet.basic_module[:3]  # of six levels alike the three coarsest
    sides = {2: 8 * Dim("h", min=8, max=64), 3: 8 * Dim("w", min=8, max=64)}

    class Finest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spynet = spynet

        def forward(self, ref: torch.Tensor, supp: torch.Tensor) -> torch.Tensor:
            return self.spynet(ref, supp)[0]

    program = exported(Finest(), (torch.rand(1, 3, 72, 88), torch.rand(1, 3, 72, 88)), (sides, sides))
    run = onnx_of(program, tmp_path / "flow.onnx")
    for height, width in ((72, 88), (64, 96), (104, 80)):
        pair = torch.rand(1, 3, height, width), torch.rand(1, 3, height, width)
        with torch.no_grad():
            torch.testing.assert_close(run(*pair), spynet(*pair)[0], rtol=0, atol=1e-4)  # pixels


# --- the description ---


def test_the_description_names_every_input_with_its_shape_and_statistics(weights: Path):
    options = ExportOptions(frames=5)
    network, info = export._load(weights, options)
    about = describe("onnx", weights, network, info, options)
    assert [value["name"] for value in about["inputs"]] == ["blur", "spike_vox"]
    assert about["inputs"][1]["shape"] == [1, 5, 16, "spike_height", "spike_width"]
    assert (about["inputs"][1]["mean"], about["inputs"][1]["std"]) == (0.3, 0.4)
    assert set(about["free_sizes"]) == {"height", "width", "spike_height", "spike_width"}
    assert Config.from_dict({"model": json.loads(json.dumps(about["model"]))}).model == info.model
    assert len(about["weights"]["sha256"]) == 64


def test_without_spikes_there_is_one_input_and_no_spike_branch(weights: Path):
    options = ExportOptions(without_spikes=True)
    network, info = export._load(weights, options)
    assert [value["name"] for value in describe("torch", weights, network, info, options)["inputs"]] == ["blur"]
    assert not any(name.startswith(("spike", "fusion")) for name, _ in network.named_parameters())


# --- the comparison ---


def test_a_program_that_differs_is_refused_and_leaves_no_file(
    vrt_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(export, "trace", lambda *_: None)
    monkeypatch.setattr(export, "_write", lambda kind, program, path, text: path.write_bytes(b"program"))
    monkeypatch.setattr(export, "open_program", lambda kind, path: lambda blur: blur + 1)
    arguments = ("export", vrt_weights, "--out", tmp_path / "vrt.pt2", "--frames", 2, "--height", 64, "--width", 64)
    message = refused(capsys, tmp_path, *arguments)
    assert message.startswith("export: the torch program differs from the network by ")
    assert message.endswith("at 2 frames of 64x64; allowed: 1e-04. Nothing was written")


def test_one_clip_that_reads_another_pixel_is_no_difference_but_nan_is(vrt_weights: Path):
    network, _ = export._load(vrt_weights, ExportOptions())
    size = export.ClipSize(2, 64, 64, 32, 32)
    asked: list[int] = []

    def wrong_once(blur: torch.Tensor) -> torch.Tensor:
        asked.append(1)
        return network(blur) + (len(asked) == 1)

    assert export.largest_difference(wrong_once, network, size) == 0
    assert len(asked) == 2
    assert export.largest_difference(lambda blur: blur * float("nan"), network, size) == float("inf")


# --- the U-Net ---


@pytest.fixture
def fold_weights(tmp_path: Path) -> Path:
    """A U-Net like the one that ships: folded, relit, reading profiles; its last layer drawn at random."""
    spikes = {"num_bins": 5, "binning": "fractional", "representation": "profile", "relight": True}
    unet = {"width": 6, "growth": 2, "depth": 1, "blocks": 1, "unshuffle": 2, "neighbours": 0}
    config = Config.from_dict({"model": {"unet": unet, "spikes": spikes}}).model
    torch.manual_seed(7)
    network = build_network(config)
    nn.init.normal_(network.last.weight, std=0.02)
    save_weights(tmp_path / "fold.safetensors", network.state_dict(), WeightsInfo(config, 0.0, 1.0, {}))
    return tmp_path / "fold.safetensors"


def has_compiler() -> bool:
    try:
        export._check_tools("aoti", ExportOptions())
    except ValueError:
        return False
    return True


@pytest.mark.slow
def test_a_folded_unet_becomes_an_aoti_package_of_any_size_and_number_of_threads(
    fold_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if not has_compiler():
        pytest.skip("no C++ compiler")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # where it is written; it may run on more
    path = tmp_path / "fold.aoti.pt2"
    assert export_network(fold_weights, path, ExportOptions(check=True))["max_difference"] < 1e-6
    with zipfile.ZipFile(path) as archive:
        sources = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".cpp")]
    assert any("#pragma omp parallel" in source for source in sources)
    package = torch._inductor.aoti_load_package(str(path))
    assert package.loader.get_metadata()["spikevrt"] == Path(f"{path}.json").read_text()


@pytest.mark.parametrize("suffix", [".pt2", pytest.param(".onnx", marks=pytest.mark.slow)])
def test_a_folded_unet_becomes_a_program_of_any_size(fold_weights: Path, tmp_path: Path, suffix: str):
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime")
    out = tmp_path / f"fold{suffix}"
    assert export_network(fold_weights, out, ExportOptions(check=True))["max_difference"] < 1e-6
    about = json.loads((tmp_path / f"fold{suffix}.json").read_text())
    assert about["network"] == "U-Net on blocks of 2x2 pixels, spike-corrected frames"
    assert about["free_sizes"]["height"] == {"min": 64, "max": 8192, "multiple": 4}
    blur, spikes = about["inputs"]
    assert blur["values"].startswith("the blurry frame relit by its spikes")
    assert spikes["values"].startswith("2 log((r + 0.004) / (m + 0.004))")
    told = {name: spikes[name] for name in ("num_bins", "binning", "normalize", "representation", "relight")}
    assert told == {
        "num_bins": 5, "binning": "fractional", "normalize": "none", "representation": "profile", "relight": True,
    }  # fmt: skip


def test_a_unet_without_its_spikes_is_exported_on_blurry_frames(fold_weights: Path, tmp_path: Path):
    options = ExportOptions(frames=2, height=64, width=68, without_spikes=True)
    assert export_network(fold_weights, tmp_path / "rgb.pt2", options)["max_difference"] < 1e-6
    about = json.loads((tmp_path / "rgb.pt2.json").read_text())
    assert [one["values"] for one in about["inputs"]] == ["the blurry frame, RGB as displayed (sRGB), 0 to 1"]


# --- mistakes ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "a.bin"), "no format; allowed: names that end in .aoti.pt2, .pt2, .onnx, or --format"),
        (("--out", "a.pt2", "--format", "onnx"), "a name for format onnx ends in .onnx"),
        (("--out", "a.aoti.pt2", "--format", "torch"), "a name that ends in .aoti.pt2 is for format aoti"),
        (("--out", "a.pt2", "--height", "64"), "--height, --width: 64, None; allowed: both, or none for any size"),
        (("--out", "a.pt2", "--frames", "1"), "--frames: 1; allowed: 2 to 256, or none for any number"),
        (
            ("--out", "a.pt2", "--height", "72", "--width", "64"),
            "--height: 72; allowed: multiples of 16 from 64 to 8192",
        ),
        (
            ("--out", "a.pt2", "--height", "64", "--width", "32"),
            "--width: 32; allowed: multiples of 16 from 64 to 8192",
        ),
        (
            ("--out", "a.pt2", "--spike-ratio", "2"),
            "--spike-ratio: only with --height and --width; otherwise the voxels may have any size",
        ),
        (
            ("--out", "a.pt2", "--height", "64", "--width", "64", "--spike-ratio", "0"),
            "--spike-ratio: 0; allowed: 1 or more",
        ),
    ],
)
def test_an_option_that_cannot_be_obeyed_is_told_in_one_line(
    arguments: tuple[str, ...],
    message: str,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    assert refused(capsys, tmp_path, "export", weights, *arguments).endswith(message)


def test_a_network_without_spikes_has_none_to_leave_out(
    vrt_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    message = refused(capsys, tmp_path, "export", vrt_weights, "--out", tmp_path / "a.pt2", "--without-spikes")
    assert message == f"--without-spikes: {vrt_weights} is a network without spikes"


def test_only_networks_that_deblur_are_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    weights = make_weights(tmp_path / "interpolation.safetensors", None, pa_frames=0)
    message = refused(capsys, tmp_path, "export", weights, "--out", tmp_path / "a.pt2")
    assert message.endswith("only networks that deblur are exported (pa_frames above 0, upscale 1, RGB)")


def test_a_clip_too_short_for_the_network_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    weights = make_weights(tmp_path / "far.safetensors", None, pa_frames=6, deform_groups=3, dims=[12] * 8)
    message = refused(capsys, tmp_path, "export", weights, "--out", tmp_path / "a.pt2", "--frames", 2)
    assert message == "--frames: 2; this network needs 4 or more"


@pytest.mark.parametrize("name", ["a.pt2", "a.pt2.json"])
def test_what_exists_is_not_overwritten(name: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / name).write_text("precious")
    message = refused(capsys, tmp_path, "export", weights, "--out", tmp_path / "a.pt2")
    assert message == f"{tmp_path / name}: exists; choose another --out or pass --overwrite"


@pytest.mark.parametrize(("missing", "check"), [("onnxscript", []), ("onnxruntime", ["--check"])])
def test_a_missing_package_is_told_with_the_extra_that_brings_it(
    missing: str,
    check: list[str],
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else object() or found(name))
    message = refused(capsys, tmp_path, "export", weights, "--out", tmp_path / "a.onnx", *check)
    assert message == f"export: needs {missing}; pip install 'spikevrt[export]'"


def test_a_missing_compiler_is_told_in_one_line(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from torch._inductor import cpp_builder, exc

    def no_compiler() -> str:
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", no_compiler)
    message = refused(capsys, tmp_path, "export", weights, "--out", tmp_path / "a.aoti.pt2")
    assert message == "--format: aoti needs a C++ compiler (g++, or the one that CXX names)"
