"""Checkpoints (.pth) of an older VRT+Spike as weights of ours: every tensor by name, where the layers are the same.

They are: its VRT has the published parameter names, which are ours; its spike branch and fusion are ours under other
names, with attention as `nn.MultiheadAttention`, whose queries, keys and values are one matrix. With `activation: relu`
and two blocks a scale, which `config import` sets, the network computes the same. A tensor that no layer of ours takes
is refused by its old name, and so is a layer that gets none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from spikevrt.checkpoint import WeightsInfo, save_weights
from spikevrt.config import ModelConfig
from spikevrt.model import build_network, read_vrt_checkpoint, some_keys
from spikevrt.recording.spike_file import sha256_file
from spikevrt.typed import amount

WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
NORMED_FUSION = "cross_attn_fuse.fuse_blocks.0.attn.in_proj_weight"  # an earlier version's


def convert_checkpoint(
    path: Path, out: Path, model: ModelConfig, *, mean: float = 0.0, std: float = 1.0, partial: bool = False
) -> list[str]:
    """Write the weights in `path` to `out`, of the network `model`; `mean` and `std` standardised its log1p counts.

    With `partial`, where the spike branch or the fusion has no counterpart, the VRT alone is written, from which
    training can start as well. Returns a line for what was left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no checkpoint of tensors, or tensors and layers that do not belong together; they are named.
    """
    old = read_vrt_checkpoint(path)
    for wrapper in WRAPPERS:
        old = {name.removeprefix(wrapper): value for name, value in old.items()}
    if not any(name.startswith("vrt.") for name in old):  # VRT trained alone
        old = {f"vrt.{name}": value for name, value in old.items()}
    problems = _misfits(old, model)
    lines = []
    if problems and partial:
        vrt = {name: value for name, value in old.items() if name.startswith("vrt.")}
        model, left = dataclasses.replace(model, spikes=None, checkpoint=_of_vrt(model.checkpoint)), len(old) - len(vrt)
        lines = [
            f"{path}: VRT alone, {amount(left, 'tensor')} of spike branch and fusion left out: {'; '.join(problems)}"
        ]
        old, problems = vrt, _misfits(vrt, model)
    if problems:
        allowed = "a checkpoint of the network that the config describes" + (
            "" if partial else ", or --partial, its VRT"
        )
        raise ValueError(f"{path}: {'; '.join(problems)}; allowed: {allowed}")
    provenance = {"imported_from": path.name, "imported_sha256": sha256_file(path)}
    save_weights(out, {name: value for name, value, _ in _renamed(old)}, WeightsInfo(model, mean, std, provenance))
    return lines


def _misfits(old: Mapping[str, Tensor], model: ModelConfig) -> list[str]:
    """What keeps these tensors from being those of the network `model`: by their names, and by ours where none is."""
    own = build_network(model).state_dict()
    found = {ours: (name, value) for ours, value, name in _renamed(old)}
    unknown = sorted(name for name, _ in found.items() if name not in own)
    unknown_old = list(dict.fromkeys(found[name][0] for name in unknown))
    missing = sorted(own.keys() - found.keys())
    shapes = [
        f"{name} {tuple(value.shape)} instead of {tuple(own[ours].shape)}"
        for ours, (name, value) in sorted(found.items())
        if ours in own and own[ours].shape != value.shape
    ]
    problems = []
    if unknown_old:
        problems.append(f"{amount(len(unknown_old), 'tensor')} without a counterpart ({some_keys(unknown_old)})")
    if NORMED_FUSION in old:
        problems.append("an earlier fusion, which added to the normalised RGB features and not to themselves")
    if missing:
        problems.append(f"{len(missing)} of ours without a tensor ({some_keys(missing)})")
    if shapes:
        problems.append(f"{len(shapes)} of other sizes ({some_keys(shapes)})")
    return problems


def _renamed(old: Mapping[str, Tensor]) -> list[tuple[str, Tensor, str]]:
    """(our name, tensor, old name); a name that is none of the older code's stays as it is."""
    modules = _modules()
    found = []
    for name, value in old.items():
        for theirs, ours in modules.items():
            if name.startswith(f"{theirs}."):
                found.append((ours + name.removeprefix(theirs), value, name))
                break
        else:
            found += [(ours, part, name) for ours, part in _attention(name, value)]
    return found


def _modules() -> dict[str, str]:
    """Modules with the same parameters: the older name, ours."""
    modules = {"spike_encoder.in_proj": "spike_encoder.scales.0.0"}
    modules |= {f"spike_encoder.res0.{block}": f"spike_encoder.scales.0.{2 + block}" for block in range(9)}
    for scale in range(4):
        if scale:
            modules[f"spike_encoder.downs.{scale - 1}"] = f"spike_encoder.scales.{scale}.0"
            for block in range(9):
                modules[f"spike_encoder.residuals.{scale - 1}.{block}"] = f"spike_encoder.scales.{scale}.{2 + block}"
        for theirs, ours in (("ln1", "norm1"), ("ln2", "norm2"), ("attn.out_proj", "proj"), ("mlp", "mlp")):
            modules[f"spike_temporal_sa.blocks.{scale}.{theirs}"] = f"spike_attention.{scale}.{ours}"
        fused = {"ln_q": "norm_rgb", "ln_kv": "norm_spikes", "ln_ffn": "norm_mlp", "ffn": "mlp"}
        for theirs, ours in (fused | {"attn.attn.out_proj": "proj"}).items():
            modules[f"cross_attn_fuse.fuse_blocks.{scale}.{theirs}"] = f"fusion.{scale}.{ours}"
    return modules


def _attention(name: str, value: Tensor) -> list[tuple[str, Tensor]]:
    """The one matrix (and bias) of queries, keys and values, as ours has it: together, or queries apart."""
    for scale in range(4):
        for end in ("weight", "bias"):
            if name == f"spike_temporal_sa.blocks.{scale}.attn.in_proj_{end}":
                return [(f"spike_attention.{scale}.qkv.{end}", value)]
            if name == f"cross_attn_fuse.fuse_blocks.{scale}.attn.attn.in_proj_{end}":
                q, kv = value[: len(value) // 3], value[len(value) // 3 :]
                return [(f"fusion.{scale}.q.{end}", q), (f"fusion.{scale}.kv.{end}", kv)]
    return [(name, value)]


def _of_vrt(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part for part in parts if part not in ("spikes", "fusion"))
