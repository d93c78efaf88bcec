from __future__ import annotations

import pytest
import torch
from torch import nn

from spikevrt.config import OptimConfig
from spikevrt.train.optim import PARTS, check_optim, lr_at, make_optimizer, param_groups, set_lr, set_trained


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


def test_restarts_jump_back_to_the_rate_and_the_last_period_repeats():
    config = OptimConfig(lr=1.0, lr_min=0.2, steps=31, warmup_steps=1, schedule="cosine_restart", restart_steps=(4, 2))
    rates = [lr_at(step, config) for step in range(1, 10)]  # periods of 4, 2, 2, ... steps after the warm-up
    assert [rates[place] for place in (0, 4, 6, 8)] == [1.0, 1.0, 1.0, 1.0]
    assert [rates[place] for place in (2, 5, 7)] == pytest.approx([0.6, 0.6, 0.6])  # half way of each


def network_of_parts() -> nn.ModuleDict:
    """One linear layer for each part, named as SpikeVRT names them."""
    vrt = nn.ModuleDict({"spynet": nn.Linear(2, 3), "stage1": nn.ModuleDict({"pa_deform": nn.Linear(3, 5)})})
    vrt["conv_last"] = nn.Linear(5, 7)
    return nn.ModuleDict({"vrt": vrt, "spike_encoder": nn.Linear(7, 11), "fusion": nn.ModuleList([nn.Linear(2, 13)])})


def test_every_parameter_is_in_the_group_of_its_part_and_the_part_has_its_own_rate():
    config = OptimConfig(
        lr=0.8, steps=11, warmup_steps=0, flow_lr_factor=0.125, spikes_lr_factor=0.5, fusion_lr_factor=2.0
    )
    vrt, flow, spikes, fusion = param_groups(network_of_parts(), config)
    assert [p.shape for p in vrt["params"]] == [(7, 5), (7,)]
    assert len(flow["params"]) == 4
    assert (len(spikes["params"]), len(fusion["params"])) == (2, 2)
    optimizer = make_optimizer(network_of_parts(), config)
    assert [group["lr"] for group in optimizer.param_groups] == [0.8, 0.1, 0.4, 1.6]
    assert set_lr(optimizer, 11, config) == pytest.approx(0.0)


def test_a_frozen_part_is_in_no_group_and_gets_no_gradient():
    network = network_of_parts()
    config = OptimConfig(vrt_lr_factor=0.0, flow_lr_factor=0.0)
    assert len(param_groups(network, config)) == 2
    set_trained(network, 0, config)
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"spike_encoder.weight", "spike_encoder.bias", "fusion.0.weight", "fusion.0.bias"}


def test_the_flow_stands_still_at_first():
    network = network_of_parts()
    config = OptimConfig(flow_fixed_steps=3)
    for step, is_trained in ((0, False), (2, False), (3, True), (4, True)):
        set_trained(network, step, config)
        assert network["vrt"]["spynet"].weight.requires_grad is is_trained
        assert network["vrt"]["conv_last"].weight.requires_grad


def test_adam_has_no_decoupled_decay():
    assert type(make_optimizer(nn.Linear(2, 3), OptimConfig(kind="adam"))) is torch.optim.Adam


def test_a_network_without_the_only_part_that_is_trained_is_refused():
    with pytest.raises(ValueError, match="every part that this network has is frozen"):
        param_groups(nn.Linear(2, 3), OptimConfig(vrt_lr_factor=0.0))


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
        ({"flow_lr_factor": -1.0}, "optim.flow_lr_factor: -1.0; allowed: 0 (frozen) or more"),
        (
            {f"{part}_lr_factor": 0.0 for part in PARTS},
            "optim.vrt_lr_factor, optim.flow_lr_factor, optim.spikes_lr_factor, optim.fusion_lr_factor: all 0, "
            "which trains nothing; allowed: one above 0",
        ),
        ({"ema_decay": 1.0}, "optim.ema_decay: 1.0; allowed: 0 (no average) to less than 1"),
        ({"flow_fixed_steps": -1}, "optim.flow_fixed_steps: -1; allowed: 0 or more"),
        (
            {"flow_fixed_steps": 3, "flow_lr_factor": 0.0},
            "optim.flow_fixed_steps: given, but optim.flow_lr_factor is 0, which freezes the flow for good",
        ),
        (
            {"schedule": "cosine_restart"},
            "optim.restart_steps: []; allowed with schedule cosine_restart: one length of a period or more, "
            "each 1 or more",
        ),
        ({"restart_steps": (3,)}, "optim.restart_steps: [3], but optim.schedule is cosine"),
    ],
)
def test_a_schedule_that_cannot_run_is_refused(values: dict, message: str):
    with pytest.raises(ValueError) as error:
        check_optim(OptimConfig(**values))
    assert str(error.value) == message
