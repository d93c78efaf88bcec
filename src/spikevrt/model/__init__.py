"""The network that a config describes, and strict loading of its weights: every key used exactly once, or a refusal.

Published VRT checkpoints (`*.pth`, possibly wrapped under `params` or `state_dict`) load unchanged, and so do
safetensors files.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikevrt.checkpoint import WeightsInfo, check_trusted, load_weights, tell_damage
from spikevrt.config import ModelConfig
from spikevrt.model.network import Network
from spikevrt.model.spike_vrt import SpikeVRT
from spikevrt.model.unet import Unet
from spikevrt.runtime import named_function
from spikevrt.typed import amount, convert

SHOWN_KEYS = 5
SIZES = ("pad_multiple", "min_size_px", "min_free_px", "min_frames")  # what every network says of itself
METHODS = ("forward", "start_at_identity", "bytes_per_pixel")  # what every network does


def build_network(config: ModelConfig) -> Network:
    """The network of `config`, with fresh weights.

    Raises:
        ValueError: `config.custom` names no factory of a network, or it cannot take `config.options`.
    """
    if config.custom is not None:
        return _custom_network(config, config.custom)
    return SpikeVRT(config) if config.unet is None else Unet(config)


def network_of_weights(
    path: Path, trust_custom: Collection[str] = ()
) -> tuple[Network, WeightsInfo, dict[str, Tensor]]:
    """The network of a weights file, loaded strictly; the code that the file names is run only where it is trusted.

    Raises:
        FileNotFoundError, ValueError: as `load_weights`, `check_trusted` and `load_strict`.
    """
    state, info = load_weights(path)
    check_trusted(info, path, trust_custom)
    network = build_network(info.model)
    load_strict(network, state, str(path))
    return network, info, state


def _custom_network(config: ModelConfig, name: str) -> Network:
    """What the factory that `name` names makes of `config`, and of its options as the dataclass that it asks for.

    Raises ValueError: no such factory, options that it does not take, or no network as `network.Network` says.
    """
    factory = named_function(name, "model.custom")
    try:
        kinds = [parameter.annotation for parameter in inspect.signature(factory, eval_str=True).parameters.values()]
    except (ValueError, TypeError, NameError) as error:
        raise ValueError(f"model.custom: {name}: {error}; allowed: a function or class") from None
    if len(kinds) not in (1, 2) or (len(kinds) == 2 and not dataclasses.is_dataclass(kinds[1])):
        raise ValueError(f"model.custom: {name}; must take a ModelConfig, and no other but a dataclass of options")
    if len(kinds) == 1 and config.options is not None:
        raise ValueError(f"model.options: {config.options}; allowed: none, for {name} takes none")
    options = [convert(config.options or {}, kind, "model.options", closed=True) for kind in kinds[1:]]
    try:
        network = factory(config, *options)
        _check_custom(network)
    except Exception as error:  # whatever goes wrong in somebody else's code is told in a line
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"model.custom: {name}: {kind}{error}") from error
    return network


def _check_custom(network: object) -> None:
    """Try the network on a small grey clip. Raises ValueError where it is not what `Network` says."""
    if not isinstance(network, Network):
        raise ValueError(f"makes a {type(network).__name__}; allowed: a spikevrt.model.network.Network")
    for name in METHODS:
        if getattr(type(network), name) is getattr(Network, name):
            raise ValueError(f"{type(network).__name__} has no {name}, which Network describes")
    for name in SIZES:
        value = getattr(network, name, None)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{type(network).__name__}.{name}: {value}; allowed: 1 or more")
    multiple, spikes = network.pad_multiple, network.config.spikes
    side_px = -(-network.min_size_px // (2 * multiple)) * 2 * multiple
    blur = torch.full((1, max(2, network.min_frames), 3, side_px, side_px), 0.5)
    voxels = None if spikes is None else torch.zeros(1, blur.shape[1], spikes.num_bins, side_px // 2, side_px // 2)
    with torch.random.fork_rng(devices=()), torch.no_grad():
        for given in (None, voxels):
            restored = network.eval()(blur, given)
            if not isinstance(restored, Tensor) or restored.shape != blur.shape or not restored.is_floating_point():
                got = f"{restored.dtype} {tuple(restored.shape)}" if isinstance(restored, Tensor) else type(restored)
                raise ValueError(f"makes {got} of frames {tuple(blur.shape)}; allowed: floats of that shape")
            if not bool(restored.isfinite().all()):
                raise ValueError(f"makes NaN or infinity of grey frames of shape {tuple(blur.shape)}")
    network.train()


def load_strict(module: nn.Module, state: dict[str, Tensor], source: str = "weights") -> None:
    """Copy `state` into `module`; nothing is changed unless everything fits.

    Raises:
        ValueError: missing or unknown keys, wrong shapes, or values that are not finite; the keys are named.
    """
    own = module.state_dict()
    problems = []
    for word, keys in (("missing", own.keys() - state.keys()), ("unknown", state.keys() - own.keys())):
        if keys:
            problems.append(f"{amount(len(keys), word + ' key')} ({some_keys(sorted(keys))})")
    both = sorted(own.keys() & state.keys())
    wrong = [k for k in both if own[k].shape != state[k].shape]
    if wrong:
        named = [f"{k} {tuple(state[k].shape)} instead of {tuple(own[k].shape)}" for k in wrong]
        problems.append(f"{len(wrong)} wrong shapes ({some_keys(named)})")
    broken = [k for k in both if state[k].is_floating_point() and not bool(state[k].isfinite().all())]
    if broken:
        problems.append(f"{amount(len(broken), 'tensor')} with NaN or infinity ({some_keys(broken)})")
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
    for wrapper in ("params", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path}: not a checkpoint of tensors")
    tell_damage(path, state)
    return state


def load_vrt_checkpoint(vrt: nn.Module, path: str | Path) -> None:
    """Load a published VRT checkpoint into a `VRT`, strictly."""
    load_strict(vrt, read_vrt_checkpoint(path), str(path))


def some_keys(keys: list[str]) -> str:
    """The first few of them, and how many there are besides."""
    rest = len(keys) - SHOWN_KEYS
    return ", ".join(keys[:SHOWN_KEYS]) + (f", and {rest} more" if rest > 0 else "")
