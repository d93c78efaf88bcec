"""The optimiser: two groups of parameters and a learning rate that is a pure function of the step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from spikevrt.config import OptimConfig

FLOW_PARTS = ("spynet", "pa_deform")  # names of the parameters whose rate is scaled by `flow_lr_factor`


def check_optim(config: OptimConfig) -> None:
    """Refuse a schedule that cannot be run. Raises ValueError (one line)."""
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
    if config.flow_lr_factor < 0:
        raise ValueError(f"optim.flow_lr_factor: {config.flow_lr_factor}; allowed: 0 or more")


def lr_at(step: int, config: OptimConfig) -> float:
    """The learning rate of step `step` (0-based): a linear climb to `lr`, then half a cosine down to `lr_min`.

    The first step after the warm-up runs at exactly `lr`; `lr_min` is reached at step `steps`, one past the last.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / (config.warmup_steps + 1)
    progress = (step - config.warmup_steps) / (config.steps - config.warmup_steps)
    return config.lr_min + (config.lr - config.lr_min) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def param_groups(network: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Every trainable parameter exactly once: the network first, then what estimates or follows the flow."""
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    flow = [p for name, p in named if any(part in name for part in FLOW_PARTS)]
    rest = [p for name, p in named if not any(part in name for part in FLOW_PARTS)]
    groups = [{"params": rest, "lr_factor": 1.0}, {"params": flow, "lr_factor": config.flow_lr_factor}]
    return [group for group in groups if group["params"]]


def make_optimizer(network: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over `param_groups`, at the rate of step 0."""
    optimizer = torch.optim.AdamW(
        param_groups(network, config), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )
    set_lr(optimizer, 0, config)
    return optimizer


def set_lr(optimizer: torch.optim.Optimizer, step: int, config: OptimConfig) -> float:
    """Give every group the rate of step `step`; returns the rate of the first group."""
    lr = lr_at(step, config)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
    return lr
