"""The optimiser: a group of parameters for each part of the network, and a rate that is a pure function of the step."""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

import torch
from torch import nn

from spikevrt.config import OptimConfig

Part = Literal["vrt", "flow", "spikes", "fusion"]
PARTS: tuple[Part, ...] = ("vrt", "flow", "spikes", "fusion")
FLOW_NAMES = ("spynet", "pa_deform")  # names of what estimates or follows the flow
SPIKE_NAMES = ("spike_encoder", "spike_attention")


def check_optim(config: OptimConfig) -> None:
    """Refuse an optimiser or a schedule that cannot be run. Raises ValueError (one line)."""
    if config.steps < 1:
        raise ValueError(f"optim.steps: {config.steps}; allowed: 1 or more")
    if not 0 <= config.warmup_steps < config.steps:
        raise ValueError(
            f"optim.warmup_steps: {config.warmup_steps}; allowed: 0 to optim.steps - 1 = {config.steps - 1}"
        )
    if not 0 <= config.lr_min <= config.lr:
        raise ValueError(f"optim.lr_min: {config.lr_min}; allowed: 0 to optim.lr = {config.lr}")
    if config.clip_norm <= 0:
        raise ValueError(f"optim.clip_norm: {config.clip_norm}; allowed: more than 0")
    factors = {f"optim.{part}_lr_factor": lr_factor(part, config) for part in PARTS}
    for name, value in factors.items():
        if value < 0:
            raise ValueError(f"{name}: {value}; allowed: 0 (frozen) or more")
    if not any(factors.values()):
        raise ValueError(f"{', '.join(factors)}: all 0, which trains nothing; allowed: one above 0")
    if not 0 <= config.ema_decay < 1:
        raise ValueError(f"optim.ema_decay: {config.ema_decay}; allowed: 0 (no average) to less than 1")
    if config.flow_fixed_steps < 0:
        raise ValueError(f"optim.flow_fixed_steps: {config.flow_fixed_steps}; allowed: 0 or more")
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
    """The part of the network that the parameter `name` belongs to."""
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
    """Say which parameters step `step` (0-based) trains: the frozen stand still, and at first so does the flow."""
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
        try:
            from torchao.optim import AdamW8bit
        except ImportError:
            raise ValueError("optim.kind: adamw8bit needs torchao; install spikevrt[lowmem], or choose adamw") from None
        optimizer = AdamW8bit(groups, **settings)
    elif config.kind == "adam":
        optimizer = torch.optim.Adam(groups, **settings, fused=True)
    else:
        optimizer = torch.optim.AdamW(groups, **settings, fused=True)
    set_lr(optimizer, 0, config)
    return optimizer


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
