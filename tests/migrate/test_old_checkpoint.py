"""Checkpoints of an older VRT+Spike: written down here from its description, they compute the same as ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevrt.checkpoint import load_weights
from spikevrt.config import ModelConfig, SpikeConfig, VrtConfig
from spikevrt.migrate.old_checkpoint import convert_checkpoint
from spikevrt.model import build_network, load_strict
from spikevrt.model.spike_vrt import SpikeVRT, over_pixels

DIM, BINS, HEADS = 8, 5, 2
VRT = VrtConfig(
    window=(2, 4, 4), depths=(1,) * 8, dims=(DIM,) * 8, num_heads=(2,) * 8, independent=(), deform_groups=2,
    flow_widths=(8, 8, 8, 8),
)  # fmt: skip
MODEL = ModelConfig(
    vrt=VRT,
    spikes=SpikeConfig(
        num_bins=BINS, dims=(DIM,) * 4, num_blocks=2, activation="relu", attention_heads=HEADS, fusion_heads=HEADS
    ),
)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv3d(DIM, DIM, 3, padding=1), nn.Conv3d(DIM, DIM, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + x)


class Encoder(nn.Module):
    """Bins are channels; two blocks a scale; (B, C, T, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.in_proj = nn.Conv3d(BINS, DIM, 3, padding=1)
        self.res0 = nn.Sequential(Block(), Block())
        self.downs = nn.ModuleList(nn.Conv3d(DIM, DIM, 3, stride=(1, 2, 2), padding=1) for _ in range(3))
        self.residuals = nn.ModuleList(nn.Sequential(Block(), Block()) for _ in range(3))

    def forward(self, voxels: Tensor) -> list[Tensor]:
        found = [self.res0(F.relu(self.in_proj(voxels.transpose(1, 2))))]
        for down, blocks in zip(self.downs, self.residuals, strict=True):
            found.append(blocks(F.relu(down(found[-1]))))
        return found


class Attention(nn.Module):
    """Of sequences (S, T, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.attn = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(DIM, 2 * DIM), nn.GELU(), nn.Linear(2 * DIM, DIM))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln2(x))


class Held(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(DIM, HEADS, batch_first=True)


class Fusion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln_q, self.ln_kv, self.ln_ffn = nn.LayerNorm(DIM), nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.attn = Held()
        self.ffn = nn.Sequential(nn.Linear(DIM, 2 * DIM), nn.GELU(), nn.Linear(2 * DIM, DIM))

    def forward(self, rgb: Tensor, spikes: Tensor) -> Tensor:
        k = self.ln_kv(spikes)
        x = rgb + self.attn.attn(self.ln_q(rgb), k, k, need_weights=False)[0]
        return x + self.ffn(self.ln_ffn(x))


class Older(nn.Module):
    """The parts of VRTWithSpike under its names."""

    def __init__(self, vrt: VrtConfig = VRT) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.vrt = build_network(ModelConfig(vrt=vrt, spikes=None)).get_submodule("vrt")
        self.spike_encoder = Encoder()
        self.spike_temporal_sa = nn.ModuleDict({"blocks": nn.ModuleList(Attention() for _ in range(4))})
        self.cross_attn_fuse = nn.ModuleDict({"fuse_blocks": nn.ModuleList(Fusion() for _ in range(4))})
        for parameter in self.parameters():  # biases and norms too, which are 0 and 1 at first
            nn.init.normal_(parameter, std=0.2)


def saved(path: Path, state: dict[str, Any]) -> Path:
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.99)}]}
    torch.save({"step": 7, "epoch": 1, "best_psnr": 31.5, "state_dict": state, "optimizer": optimizer}, path)
    return path


def converted(tmp_path: Path, state: dict[str, Any], **options: Any) -> list[str]:
    return convert_checkpoint(saved(tmp_path / "old.pth", state), tmp_path / "new.safetensors", MODEL, **options)


def test_names_that_wrappers_lengthened_are_the_same_weights(tmp_path: Path):
    older = Older().state_dict()
    converted(tmp_path, {f"module._orig_mod.{name}": value for name, value in older.items()})
    tensors, _ = load_weights(tmp_path / "new.safetensors")
    assert torch.equal(tensors["spike_encoder.scales.2.3.conv1.bias"], older["spike_encoder.residuals.1.1.conv1.bias"])


def test_a_converted_network_computes_what_the_older_one_did(tmp_path: Path):
    older = Older()
    assert converted(tmp_path, older.state_dict()) == []
    tensors, info = load_weights(tmp_path / "new.safetensors")
    network = build_network(info.model)
    assert isinstance(network, SpikeVRT) and info.model == MODEL and (info.voxel_mean, info.voxel_std) == (0, 1)
    load_strict(network, tensors)
    for name, value in older.vrt.state_dict().items():
        assert torch.equal(network.vrt.state_dict()[name], value)
    voxels, rgb = torch.randn(1, 3, BINS, 16, 24), torch.randn(1, 3, 16, 24, DIM)
    with torch.no_grad():
        theirs, ours = older.spike_encoder(voxels), network.spike_encoder(voxels)
        for scale, (their, own) in enumerate(zip(theirs, ours, strict=True)):
            torch.testing.assert_close(own, their.permute(0, 2, 3, 4, 1))
            sequences = their.permute(0, 3, 4, 2, 1).flatten(0, 2)  # (S, T, C)
            attended = older.spike_temporal_sa["blocks"][scale](sequences)
            own = over_pixels(network.spike_attention[scale], own, max_tokens=100)
            torch.testing.assert_close(own.permute(0, 2, 3, 1, 4).flatten(0, 2), attended)
        colours = rgb.permute(0, 2, 3, 1, 4).flatten(0, 2)
        fused = older.cross_attn_fuse["fuse_blocks"][2](colours, attended[:1].expand_as(colours))
        own = network.fusion[2](colours.transpose(0, 1), attended[:1].expand_as(colours).transpose(0, 1))
        torch.testing.assert_close(own.transpose(0, 1), fused)


def test_tensors_without_a_counterpart_are_refused_by_their_own_names(tmp_path: Path):
    state = Older().state_dict()
    state["spike_encoder.gate.weight"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"pth: 1 tensor without a counterpart \(spike_encoder\.gate\.weight\); all"):
        converted(tmp_path, state)
    assert not (tmp_path / "new.safetensors").exists()


def test_another_size_is_named_by_the_older_name(tmp_path: Path):
    state = Older().state_dict()
    state["spike_encoder.in_proj.weight"] = torch.zeros(DIM, 32, 3, 3, 3)
    with pytest.raises(ValueError, match=r"1 of other sizes \(spike_encoder\.in_proj\.weight \(8, 32, 3, 3, 3\) ins"):
        converted(tmp_path, state)


def test_an_earlier_fusion_is_refused_and_its_vrt_alone_is_taken_when_told(tmp_path: Path):
    state = {name.replace(".attn.attn.", ".attn."): value for name, value in Older().state_dict().items()}
    with pytest.raises(ValueError, match="an earlier fusion, which added to the normalised RGB features"):
        converted(tmp_path, state)
    (line,) = converted(tmp_path, state, partial=True)
    assert "VRT alone, " in line and "cross_attn_fuse.fuse_blocks.0.attn.in_proj_bias" in line
    tensors, info = load_weights(tmp_path / "new.safetensors")
    assert info.model.spikes is None
    load_strict(build_network(info.model), tensors)


def test_a_checkpoint_of_vrt_alone_is_its_twins(tmp_path: Path):
    model = ModelConfig(vrt=VRT, spikes=None)
    path = saved(tmp_path / "old.pth", Older().vrt.state_dict())
    convert_checkpoint(path, tmp_path / "new.safetensors", model)
    assert load_weights(tmp_path / "new.safetensors")[1].model == model


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path):
    torch.save({"state_dict": Older()}, tmp_path / "old.pth")  # a whole pickled module
    with pytest.raises(ValueError, match="old.pth: not a checkpoint of tensors"):
        convert_checkpoint(tmp_path / "old.pth", tmp_path / "new.safetensors", MODEL)
