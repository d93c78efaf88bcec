"""A running average of the weights (EMA): what is validated and saved where `optim.ema_decay` is above 0."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """Exponential moving average of every parameter; `values` are by the parameters' names."""

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
