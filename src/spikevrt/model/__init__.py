"""The network that a config describes, and strict loading of its weights: every key used exactly once, or a refusal.

Published VRT checkpoints (`*.pth`, possibly wrapped under `params`) load unchanged, as do safetensors files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikevrt.checkpoint import tell_damage
from spikevrt.config import ModelConfig
from spikevrt.model.network import Network
from spikevrt.model.spike_vrt import SpikeVRT
from spikevrt.model.unet import Unet

SHOWN_KEYS = 5


def build_network(config: ModelConfig) -> Network:
    """The network of `config`, with fresh weights."""
    return SpikeVRT(config) if config.unet is None else Unet(config)


def load_strict(module: nn.Module, state: dict[str, Tensor], source: str = "weights") -> None:
    """Copy `state` into `module`; nothing is changed unless everything fits.

    Raises:
        ValueError: missing or unknown keys, wrong shapes, or values that are not finite; the keys are named.
    """
    own = module.state_dict()
    problems = []
    for word, keys in (("missing", own.keys() - state.keys()), ("unknown", state.keys() - own.keys())):
        if keys:
            problems.append(f"{len(keys)} {word} keys ({_some(sorted(keys))})")
    both = sorted(own.keys() & state.keys())
    wrong = [k for k in both if own[k].shape != state[k].shape]
    if wrong:
        named = [f"{k} {tuple(state[k].shape)} instead of {tuple(own[k].shape)}" for k in wrong]
        problems.append(f"{len(wrong)} wrong shapes ({_some(named)})")
    broken = [k for k in both if state[k].is_floating_point() and not bool(state[k].isfinite().all())]
    if broken:
        problems.append(f"{len(broken)} tensors with NaN or infinity ({_some(broken)})")
    if problems:
        raise ValueError(f"{source}: does not fit the network: {'; '.join(problems)}")
    module.load_state_dict(state, strict=True)


def read_vrt_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a published checkpoint; nothing in the file is executed.

    A file without checksums is read, and told on stderr.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint of tensors, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    state: Any
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file may raise anything: pickle's, zip's or safetensors' own classes
        raise ValueError(
            f"{path}: not a checkpoint of tensors ({(str(error) or type(error).__name__).splitlines()[0][:120]})"
        ) from None
    if isinstance(state, dict) and isinstance(state.get("params"), dict):
        state = state["params"]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path}: not a checkpoint of tensors")
    tell_damage(path, state)
    return state


def load_vrt_checkpoint(vrt: nn.Module, path: str | Path) -> None:
    """Load a published VRT checkpoint into a `VRT`, strictly."""
    load_strict(vrt, read_vrt_checkpoint(path), str(path))


def _some(keys: list[str]) -> str:
    rest = len(keys) - SHOWN_KEYS
    return ", ".join(keys[:SHOWN_KEYS]) + (f", and {rest} more" if rest > 0 else "")
