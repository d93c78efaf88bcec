"""The network against tensors of the published one: whole-network files, and one module at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spikevrt.model import load_strict
from spikevrt.model.blocks import RTMSA, TMSAG, BlockSettings, Geglu, shift_mask
from spikevrt.model.deformable_alignment import DeformAlign
from spikevrt.model.flow import Flows, flow_warp, nearest4
from spikevrt.model.layers import WindowAttention, WindowMask, relative_position_index, sine_position_code
from spikevrt.model.vrt import Stage, Upsample
from tests.golden import check

GOLDEN = Path(__file__).parents[1] / "golden"
MODULES = dict(np.load(GOLDEN / "modules.npz", allow_pickle=False))
SHIPPED = sorted(GOLDEN.glob("dev_*.npz"))
SHARED = Path(__file__).parents[3] / "shared" / "golden"
OTHERS = sorted(p for p in SHARED.glob("*.npz") if (p.stem[:4] in ("dev_", "hold")) and not (GOLDEN / p.name).exists())


def golden(key: str) -> Tensor:
    return torch.from_numpy(MODULES[key])


def load_golden(module: nn.Module, name: str) -> None:
    prefix = f"{name}/sd/"
    load_strict(module, {key[len(prefix) :]: golden(key) for key in MODULES if key.startswith(prefix)})


def assert_near(ours: Tensor, key: str, limit: float = 1e-5) -> None:
    torch.testing.assert_close(ours, golden(key), rtol=0, atol=limit)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, marks=[] if p.stem.startswith("dev_e") else pytest.mark.slow, id=p.stem)
        for p in SHIPPED + OTHERS
    ],
)
def test_outputs_and_gradients_match_the_published_network(path):
    assert check.main([str(path)]) == 0


def dev_f() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / "dev_f_deblur_w344_d8.npz", allow_pickle=False))


@pytest.mark.slow
def test_a_changed_weight_is_noticed(tmp_path):
    data = dev_f()
    data["sd/stage3.linear1.weight"] *= 1.5
    np.savez(tmp_path / "changed.npz", **data)
    assert check.main([str(tmp_path / "changed.npz")]) == 1


@pytest.mark.slow
def test_changed_results_are_noticed_each():
    data = dev_f()
    changed = {"flow/b0", "mid/stage4", "grad/spynet.basic_module.5.basic_module.0.weight"}
    for key in changed:
        data[key] = data[key] * 1.5
    assert check.check_network(data, torch.float32).hopeless >= changed


def test_a_file_without_one_weight_is_refused_by_name(tmp_path, capsys):
    data = dict(np.load(SHIPPED[0], allow_pickle=False))
    del data["sd/conv_last.bias"]
    np.savez(tmp_path / "partial.npz", **data)
    assert check.main([str(tmp_path / "partial.npz")]) == 2
    assert "conv_last.bias" in capsys.readouterr().err


def test_flow_warp_and_nearest4():
    x, flow = golden("flow_warp/x"), golden("flow_warp/flow").permute(0, 3, 1, 2)
    assert_near(flow_warp(x, flow), "flow_warp/bilinear_zeros")
    assert_near(flow_warp(x, flow, "border"), "flow_warp/bilinear_border")
    assert_near(nearest4(x, flow), "flow_warp/nearest4", 0)


def test_relative_position_index_and_sine_code():
    assert torch.equal(relative_position_index((2, 3, 4)), golden("rel_index/win2_3_4"))
    assert_near(sine_position_code(8, 8, 12), "sine/h8w8_dim12", 1e-6)
    assert_near(sine_position_code(4, 6, 8), "sine/h4w6_dim8", 1e-6)


@pytest.mark.parametrize("key", [k for k in MODULES if k.startswith("mask/")])
def test_shift_masks(key):
    size, window, shift = key[5:].split("_")
    dims = tuple(int(n) for n in size.replace("D", " ").replace("H", " ").replace("W", " ").split())
    mask = shift_mask(dims, tuple(int(c) for c in window[2:]), tuple(int(c) for c in shift[2:]))
    assert torch.equal(mask.pairs(golden(key).shape[0]), golden(key))


@pytest.mark.parametrize(("name", "window"), [("window_attn_mut", (2, 4, 4)), ("window_attn_self", (3, 4, 4))])
def test_window_attention(name, window):
    heads = MODULES[f"{name}/sd/relative_position_bias_table"].shape[1]
    attention = WindowAttention(12, window, heads, mutual=name.endswith("mut"))
    load_golden(attention, name)
    mask = WindowMask(golden(f"{name}/mask") != 0)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            assert_near(attention(golden(f"{name}/x"), None), f"{name}/y_nomask")
            assert_near(attention(golden(f"{name}/x"), mask), f"{name}/y_mask")


@pytest.mark.parametrize("key", [k for k in MODULES if k.startswith("tmsag_") and "/x_" in k])
def test_transformer_groups(key):
    name = key.split("/")[0]
    mutual = name.endswith("mut")
    table = MODULES[f"{name}/sd/blocks.0.attn.relative_position_bias_table"]
    depth = 1 + max(int(k.split("blocks.")[1].split(".")[0]) for k in MODULES if k.startswith(f"{name}/sd/"))
    frames = (table.shape[0] // 49 + 1) // 2
    ratio = MODULES[f"{name}/sd/blocks.0.mlp.fc11.weight"].shape[0] / 8
    group = TMSAG(BlockSettings(8, (frames, 4, 4), table.shape[1], ratio, mutual=mutual), [0.0] * depth)
    load_golden(group, name)
    y = group(golden(key).permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)
    assert_near(y, key.replace("/x_", "/y_"))


def test_residual_group_of_single_frame_windows():
    table = MODULES["rtmsa_win144/sd/residual_group.blocks.0.attn.relative_position_bias_table"]
    keys = [k for k in MODULES if k.startswith("rtmsa_win144/sd/residual_group.blocks.")]
    depth = 1 + max(int(k.split("blocks.")[1].split(".")[0]) for k in keys)
    group = RTMSA(BlockSettings(8, (1, 4, 4), table.shape[1], 2.0), [0.0] * depth)
    load_golden(group, "rtmsa_win144")
    y = group(golden("rtmsa_win144/x").permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)
    assert_near(y, "rtmsa_win144/y")


@pytest.mark.parametrize("pa_frames", [2, 4, 6])
def test_deformable_alignment(pa_frames):
    name = f"dcn_pa{pa_frames}"
    groups = MODULES[f"{name}/sd/conv_offset.6.weight"].shape[0] // 27
    neighbours = pa_frames // 2
    warped = [golden(f"{name}/warped{i}") for i in range(neighbours)]
    flows = [golden(f"{name}/flow{i}") for i in range(neighbours)]
    errors = []
    for residue in (10.0, 5.0, 2.5, 1.25):  # the file does not say which stage the module belongs to
        align = DeformAlign(12, pa_frames, groups, residue)
        load_golden(align, name)
        with torch.no_grad():
            y = align(list(golden(f"{name}/x").chunk(neighbours, 1)), warped, golden(f"{name}/cur"), flows)
        errors.append(float((y - golden(f"{name}/y")).abs().max()))
    assert min(errors) < 1e-5


@pytest.mark.parametrize("name", sorted({k.split("/")[0] for k in MODULES if k.startswith("stage_pa")}))
def test_stages(name):
    pa_frames, reshape = int(name[8]), name.rpartition("_")[2]
    x = golden(f"{name}/x").permute(0, 2, 3, 4, 1)
    y = golden(f"{name}/y").permute(0, 2, 3, 4, 1)
    prefix = f"{name}/sd/residual_group"
    depths = {
        group: 1 + max(int(k.split("blocks.")[1].split(".")[0]) for k in MODULES if k.startswith(f"{prefix}{group}.b"))
        for group in (1, 2)
    }
    depth = sum(depths.values())
    table = MODULES[f"{prefix}2.blocks.0.attn.relative_position_bias_table"]
    window = ((table.shape[0] // 49 + 1) // 2, 4, 4)
    groups = MODULES[f"{name}/sd/pa_deform.conv_offset.6.weight"].shape[0] // 27 if pa_frames else 1
    flows = None
    if pa_frames:
        pairs = range(pa_frames // 2)
        flows = Flows([[golden(f"{name}/fb{k}")] * 4 for k in pairs], [[golden(f"{name}/ff{k}")] * 4 for k in pairs])
    errors = []
    for scale in (1, 2, 4, 8):  # sets the limit of the learned offsets, which the file does not tell
        stage = Stage(
            x.shape[-1], BlockSettings(y.shape[-1], window, table.shape[1], 2.0), [0.0] * depth, reshape=reshape,
            scale=scale, mutual_ratio=depths[1] / depth, pa_frames=pa_frames, deform_groups=groups,
        )  # fmt: skip
        load_golden(stage, name)
        with torch.no_grad():
            errors.append(float((stage(x, flows) - y).abs().max()))
    assert min(errors) < 1e-5


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_upsampling(scale):
    upsample = Upsample(scale, 4)
    load_golden(upsample, f"upsample{scale}")
    x = golden(f"upsample{scale}/x")
    y = upsample(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (1, 2)).transpose(1, 2)
    assert_near(y, f"upsample{scale}/y")


def test_feed_forward():
    geglu = Geglu(8, 16, 8)
    load_golden(geglu, "geglu")
    assert_near(geglu(golden("geglu/x")), "geglu/y")
