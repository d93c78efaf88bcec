"""The optimiser: a group of parameters for each part of the network, a rate that is a pure function of the step, and
the running average of the weights."""

from __future__ import annotations

import itertools
import logging
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from spikevrt.config import OptimConfig
from spikevrt.typed import require

Part = Literal["vrt", "flow", "spikes", "fusion"]
PARTS: tuple[Part, ...] = ("vrt", "flow", "spikes", "fusion")
FLOW_NAMES = ("spynet", "pa_deform")  # names of what estimates or follows the flow
SPIKE_NAMES = ("spike_encoder", "spike_attention")
BYTES = ("codes", "scale", "qmap")  # what an average in bytes consists of


def check_optim(config: OptimConfig) -> None:
    """Refuse an optimiser or a schedule that cannot be run. Raises ValueError (one line)."""
    last_warmup = config.steps - 1
    require(config.steps >= 1, "optim.steps", config.steps, "1 or more")
    require(
        0 <= config.warmup_steps <= last_warmup,
        "optim.warmup_steps",
        config.warmup_steps,
        f"0 to optim.steps - 1 = {last_warmup}",
    )
    require(0 <= config.lr < math.inf, "optim.lr", config.lr, "0 or more, finite")
    require(all(0 <= beta < 1 for beta in config.betas), "optim.betas", list(config.betas), "0 to less than 1")
    require(0 <= config.weight_decay < math.inf, "optim.weight_decay", config.weight_decay, "0 or more, finite")
    require(0 <= config.lr_min <= config.lr, "optim.lr_min", config.lr_min, f"0 to optim.lr = {config.lr}")
    require(config.clip_norm > 0, "optim.clip_norm", config.clip_norm, "more than 0")
    factors = {f"optim.{part}_lr_factor": lr_factor(part, config) for part in PARTS}
    for name, value in factors.items():
        require(0 <= value < math.inf, name, value, "0 (frozen) or more")
    if not any(factors.values()):
        raise ValueError(f"{', '.join(factors)}: all 0, which trains nothing; allowed: one above 0")
    require(0 <= config.ema_decay < 1, "optim.ema_decay", config.ema_decay, "0 (no average) to less than 1")
    require(config.flow_fixed_steps >= 0, "optim.flow_fixed_steps", config.flow_fixed_steps, "0 or more")
    if config.flow_fixed_steps and config.flow_lr_factor == 0:
        raise ValueError(
            "optim.flow_fixed_steps: given, but optim.flow_lr_factor is 0, which freezes the flow for good"
        )
    if config.schedule == "cosine_restart":
        if not config.restart_steps or min(config.restart_steps) < 1:
            raise ValueError(
                f"optim.restart_steps: {list(config.restart_steps)}; allowed with schedule cosine_restart: one length "
                "of a period or more, each 1 or more"
            )
    elif config.restart_steps:
        raise ValueError(f"optim.restart_steps: {list(config.restart_steps)}, but optim.schedule is {config.schedule}")


def lr_at(step: int, config: OptimConfig) -> float:
    """The learning rate of step `step` (0-based): a linear climb to `lr`, then half a cosine down to `lr_min`.

    The first step after the warm-up runs at exactly `lr`. Schedule `cosine` reaches `lr_min` at step `steps`, one past
    the last; `cosine_restart` at the end of each period of `restart_steps`, and jumps back to `lr`.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / (config.warmup_steps + 1)
    place, period = step - config.warmup_steps, config.steps - config.warmup_steps
    if config.schedule == "cosine_restart":
        for period in itertools.chain(config.restart_steps, itertools.repeat(config.restart_steps[-1])):
            if place < period:
                break
            place -= period
    progress = min(place / period, 1.0)
    return config.lr_min + (config.lr - config.lr_min) * 0.5 * (1 + math.cos(math.pi * progress))


def part_of(name: str) -> Part:
    """The part of SpikeVRT that the parameter `name` belongs to; a U-Net is all one part, of factor 1 (`start`)."""
    if any(part in name for part in FLOW_NAMES):
        return "flow"
    if name.startswith(SPIKE_NAMES):
        return "spikes"
    return "fusion" if name.startswith("fusion") else "vrt"


def lr_factor(part: Part, config: OptimConfig) -> float:
    """The rate of a part relative to `lr`; 0 where it is frozen."""
    return {
        "vrt": config.vrt_lr_factor,
        "flow": config.flow_lr_factor,
        "spikes": config.spikes_lr_factor,
        "fusion": config.fusion_lr_factor,
    }[part]


def set_trained(network: nn.Module, step: int, config: OptimConfig) -> None:
    """Mark the parameters that step `step` (0-based) trains: no frozen part, nor the flow before `flow_fixed_steps`."""
    for name, parameter in network.named_parameters():
        part = part_of(name)
        fixed = part == "flow" and step < config.flow_fixed_steps
        parameter.requires_grad_(lr_factor(part, config) > 0 and not fixed)


def param_groups(network: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Every parameter that is ever trained, exactly once, a group for each part."""
    groups = []
    for part in PARTS:
        parameters = [p for name, p in network.named_parameters() if part_of(name) == part]
        factor = lr_factor(part, config)
        if parameters and factor > 0:
            groups.append({"params": parameters, "lr_factor": factor})
    if not groups:
        raise ValueError("optim: every part that this network has is frozen; allowed: one lr_factor above 0")
    return groups


def make_optimizer(network: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser over `param_groups`, at the rate of step 0.

    Raises:
        ValueError: `adamw8bit` without torchao.
    """
    groups = param_groups(network, config)
    settings: dict[str, Any] = {"lr": config.lr, "betas": config.betas, "weight_decay": config.weight_decay}
    optimizer: torch.optim.Optimizer
    if config.kind == "adamw8bit":
        optimizer = _adamw8bit(groups, settings)
    elif config.kind == "adam":
        optimizer = torch.optim.Adam(groups, **settings, fused=True)
    else:
        optimizer = torch.optim.AdamW(groups, **settings, fused=True)
    set_lr(optimizer, 0, config)
    return optimizer


def _adamw8bit(groups: list[dict[str, Any]], settings: dict[str, Any]) -> torch.optim.Optimizer:
    """AdamW whose two averages take a byte a weight; those of small tensors (`has_bytes`) stay in float32."""
    for name in ("torchao", "torch.utils._pytree"):  # which warn of kernels for other machines and of deprecated calls
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        from torchao.optim import AdamW8bit
    except ImportError:
        raise ValueError("optim.kind: adamw8bit needs torchao; install spikevrt[lowmem], or choose adamw") from None

    class Uncompiled(AdamW8bit):
        """torchao compiles the step once for every shape of a parameter: minutes on a CPU, and other roundings."""

        def step(self, closure: Any = None) -> Any:
            with torch.compiler.set_stance("force_eager"):
                return super().step(closure)

    optimizer: torch.optim.Optimizer = Uncompiled(groups, **settings)
    return optimizer


def has_bytes(parameter: Tensor) -> bool:
    """Whether `adamw8bit` keeps this parameter's averages in bytes: whole blocks of 256 weights, 4096 or more."""
    return parameter.numel() >= 4096 and parameter.numel() % 256 == 0


def packed(optimizer_state: dict[str, Any]) -> dict[str, Any]:
    """The state of an optimiser as plain tensors: a file of it is read without torchao, and by no class of it."""

    def pack(value: Any) -> Any:
        if hasattr(value, "__tensor_flatten__"):
            return {name: getattr(value, name).cpu() for name in BYTES} | {"signed": value.signed}
        return value

    state = optimizer_state.get("state", {})  # nothing on ranks that do not write
    return optimizer_state | {
        "state": {name: {key: pack(value) for key, value in values.items()} for name, values in state.items()}
    }


def unpacked(saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The inverse of `packed`, for `optimizer`. Raises ValueError where one is adamw8bit and the other is not."""
    is_8bit = not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW)
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    wants = is_8bit and any(has_bytes(p) for p in parameters)
    holds = any(isinstance(value, dict) for values in saved["state"].values() for value in values.values())
    if saved["state"] and wants != holds:
        raise ValueError(f"saved {'with' if holds else 'without'} adamw8bit")
    if not holds:
        return saved
    from torchao.optim.subclass_8bit import OptimState8bit

    def unpack(value: Any) -> Any:
        if isinstance(value, dict):
            return OptimState8bit(*(value[name] for name in BYTES), value["signed"], dtype=torch.float32)
        return value

    return saved | {
        "state": {
            name: {key: unpack(value) for key, value in values.items()} for name, values in saved["state"].items()
        }
    }


def set_lr(optimizer: torch.optim.Optimizer, step: int, config: OptimConfig) -> float:
    """Give every group the rate of step `step`; returns the rate before the factors."""
    lr = lr_at(step, config)
    for group in optimizer.param_groups:
        rate = lr * group["lr_factor"]
        if isinstance(group["lr"], torch.Tensor):  # torchao keeps it in one, so that its compiled step stays valid
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    return lr


class Average:
    """Exponential moving average (EMA) of every parameter, validated and saved where `optim.ema_decay` is above 0.

    `values` are by the parameters' names.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values: dict[str, Tensor] = {name: p.detach().clone() for name, p in network.named_parameters()}

    def update(self, network: nn.Module, step: int) -> None:
        """After step `step` (0-based): average <- d average + (1 - d) weights, d = min(decay, (1+step) / (10+step)).

        The smaller d of the first steps lets the average forget where the weights started.
        """
        move = get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))
        current: list[Tensor] = [p.detach() for _, p in network.named_parameters()]
        with torch.no_grad():
            move(list(self.values.values()), current, 0)
