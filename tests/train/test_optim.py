from __future__ import annotations

import pytest
import torch
from torch import nn

from spikevrt.config import OptimConfig
from spikevrt.train.optim import check_optim, lr_at, make_optimizer, param_groups, set_lr


def test_the_warm_up_climbs_linearly_and_the_cosine_ends_at_the_minimum():
    config = OptimConfig(lr=1.0, lr_min=0.2, steps=7, warmup_steps=3)
    assert [lr_at(step, config) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert lr_at(5, config) == pytest.approx(0.6)  # half way: the mean of 1 and 0.2
    assert lr_at(7, config) == pytest.approx(0.2)


def test_the_rate_never_rises_after_the_warm_up():
    config = OptimConfig(lr=3e-4, steps=101, warmup_steps=11)
    rates = [lr_at(step, config) for step in range(11, 101)]
    assert rates == sorted(rates, reverse=True) and rates[-1] > 0


def test_without_warm_up_the_first_step_runs_at_the_full_rate():
    assert lr_at(0, OptimConfig(lr=0.5, steps=2, warmup_steps=0)) == 0.5


def test_every_trainable_parameter_is_in_exactly_one_group_and_flow_has_its_own_rate():
    network = nn.ModuleDict({"spynet": nn.Linear(2, 3), "stage": nn.ModuleDict({"pa_deform": nn.Linear(3, 5)})})
    network["head"] = nn.Linear(5, 7)
    network["head"].bias.requires_grad_(False)
    config = OptimConfig(lr=0.8, steps=11, warmup_steps=0, flow_lr_factor=0.125)
    rest, flow = param_groups(network, config)
    assert [p.shape for p in rest["params"]] == [(7, 5)]
    assert len(flow["params"]) == 4
    optimizer = make_optimizer(network, config)
    assert [group["lr"] for group in optimizer.param_groups] == [0.8, 0.1]
    assert set_lr(optimizer, 11, config) == pytest.approx(0.0)


def test_the_optimiser_has_the_betas_and_weight_decay_of_the_config():
    optimizer = make_optimizer(nn.Linear(2, 3), OptimConfig(betas=(0.5, 0.75), weight_decay=0.125))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["betas"] == (0.5, 0.75) and optimizer.defaults["weight_decay"] == 0.125


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "optim.steps: 0; allowed: 1 or more"),
        ({"steps": 5, "warmup_steps": 5}, "optim.warmup_steps: 5; allowed: 0 to optim.steps - 1 = 4"),
        ({"lr": 1e-4, "lr_min": 1e-3}, "optim.lr_min: 0.001; allowed: 0 to optim.lr = 0.0001"),
        ({"clip_norm": 0.0}, "optim.clip_norm: 0.0; allowed: more than 0"),
        ({"flow_lr_factor": -1.0}, "optim.flow_lr_factor: -1.0; allowed: 0 or more"),
    ],
)
def test_a_schedule_that_cannot_run_is_refused(values: dict, message: str):
    with pytest.raises(ValueError) as error:
        check_optim(OptimConfig(**values))
    assert str(error.value) == message
