"""Parts of the real network: frozen, fixed at first, started from other weights, averaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from spikevrt.checkpoint import WeightsInfo, digest, load_state, load_weights, read_info, save_weights
from spikevrt.model.spike_vrt import SpikeVRT
from spikevrt.train import loop
from spikevrt.train.journal import read_journal
from spikevrt.train.loop import train
from spikevrt.train.optim import Average
from tests.train.conftest import real_config


@pytest.fixture(scope="module")
def twin(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network without spikes, not at its start any more."""
    path = tmp_path_factory.mktemp("twin") / "twin.safetensors"
    torch.manual_seed(5)
    config = real_config(dataset, model__spikes=None).model
    save_weights(path, SpikeVRT(config).state_dict(), WeightsInfo(config, 0.0, 1.0))
    return path


@pytest.mark.slow
def test_with_vrt_frozen_the_network_without_spikes_stays_the_one_it_started_from(
    dataset: Path, twin: Path, tmp_path: Path
):
    config = real_config(
        dataset,
        train__init=str(twin),
        optim__vrt_lr_factor=0.0,
        optim__flow_lr_factor=0.0,
        optim__steps=4,
    )
    train(config, tmp_path / "run")
    before, after = load_weights(twin)[0], load_weights(tmp_path / "run" / "last.safetensors")[0]
    assert all(torch.equal(after[name], before[name]) for name in before)
    fresh = SpikeVRT(config.model).state_dict()
    assert after["fusion.0.proj.weight"].any() and not fresh["fusion.0.proj.weight"].any()


@pytest.mark.slow
def test_weights_of_spikevrt_bring_their_voxel_statistics_and_a_resumed_run_keeps_them(dataset: Path, tmp_path: Path):
    config = real_config(dataset, optim__steps=2)
    torch.manual_seed(5)
    network = SpikeVRT(config.model)
    save_weights(tmp_path / "first.safetensors", network.state_dict(), WeightsInfo(config.model, 0.25, 0.5))
    tuned = real_config(dataset, optim__steps=2, train__init=str(tmp_path / "first.safetensors"))
    train(tuned, tmp_path / "run")
    (tmp_path / "first.safetensors").unlink()
    longer = real_config(dataset, optim__steps=3, train__init=str(tmp_path / "first.safetensors"))
    train(longer, tmp_path / "run", resume=True)
    info = read_info(tmp_path / "run" / "last.safetensors")
    assert (info.voxel_mean, info.voxel_std, info.provenance["step"]) == (0.25, 0.5, 3)


def test_weights_of_another_network_are_refused(dataset: Path, twin: Path, tmp_path: Path):
    config = real_config(dataset, model__vrt__mlp_ratio=3.0, train__init=str(twin))
    with pytest.raises(ValueError, match=r"train\.init: .*twin\.safetensors holds another network than model says"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_flow_stands_still_for_its_steps_and_a_run_cut_there_goes_on_alike(
    dataset: Path, twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = real_config(dataset, train__init=str(twin), optim__steps=4, optim__flow_fixed_steps=2)
    seen: dict[int, str] = {}
    take_step = loop.Run.take_step

    def watched(self: Any, micro_batches: Any) -> Any:
        result = take_step(self, micro_batches)
        seen[self.step] = digest(self.network.vrt.spynet.state_dict())
        return result

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "take_step", watched)
        train(config, tmp_path / "whole")
    assert seen[0] == seen[1] != seen[2] != seen[3]
    for cut in (1, 2):  # among its steps, and at their end

        def crash(self: Any, micro_batches: Any, cut: int = cut) -> Any:
            if self.step == cut:
                raise RuntimeError("power cut")
            return take_step(self, micro_batches)

        with monkeypatch.context() as patch:
            patch.setattr(loop.Run, "take_step", crash)
            with pytest.raises(RuntimeError, match="power cut"):
                train(config, tmp_path / "cut", resume=cut > 1)
    train(config, tmp_path / "cut", resume=True)
    assert digest(load_state(tmp_path / "cut" / "last.state")) == digest(load_state(tmp_path / "whole" / "last.state"))


def test_the_average_forgets_where_it_started_and_then_follows_its_decay():
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 8.0)
    average = Average(layer, decay=0.5)
    nn.init.constant_(layer.weight, 0.0)
    average.update(layer, 0)  # decay 1/10 in the first step
    assert float(average.values["weight"]) == pytest.approx(0.8)
    average.update(layer, 90)  # decay 0.5, its end value
    assert float(average.values["weight"]) == pytest.approx(0.4)


@pytest.mark.slow
def test_the_averaged_weights_are_what_is_saved_and_judged(dataset: Path, tmp_path: Path):
    train(real_config(dataset, optim__ema_decay=0.9), tmp_path / "run")
    state, saved = load_state(tmp_path / "run" / "last.state"), load_weights(tmp_path / "run" / "last.safetensors")[0]
    name = "vrt.conv_last.bias"
    assert torch.equal(saved[name], state["average"][name]) and not torch.equal(saved[name], state["network"][name])


@pytest.mark.slow
def test_without_sharp_frames_a_run_learns_from_the_blur_alone(dataset: Path, twin: Path, tmp_path: Path):
    """From weights that are no identity, so that there is something to mend."""
    config = real_config(
        dataset,
        train__init=str(twin),
        train__self_supervised=True,
        loss__reblur_weight=1.0,
        optim__steps=6,
        optim__lr=1e-3,
        optim__flow_lr_factor=0.0,
        train__validate_every=3,
    )
    train(config, tmp_path / "run")
    rows = read_journal(tmp_path / "run")
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loss__fft_weight": 0.1, "loss__reblur_weight": 1.0},
            "train.self_supervised: has no sharp frames for loss.fft_weight; allowed: 0",
        ),
        ({}, "train.self_supervised: loss.reblur_weight is 0, so nothing would be learnt"),
    ],
)
def test_a_self_supervised_run_that_could_not_learn_is_refused(
    dataset: Path, tmp_path: Path, changes: dict[str, Any], message: str
):
    with pytest.raises(ValueError) as error:
        train(real_config(dataset, train__self_supervised=True, **changes), tmp_path / "run")
    assert str(error.value) == message


def test_a_flow_that_sees_no_motion_is_refused(dataset: Path, tmp_path: Path):
    """From scratch SpyNet says that nothing moves; then the blurry frame itself is the best answer."""
    config = real_config(dataset, train__self_supervised=True, loss__reblur_weight=1.0)
    with pytest.raises(ValueError, match=r"the optical flow sees 0\.00 pixels of motion a frame"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_flow_for_a_term_that_is_off_is_refused(dataset: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"loss\.reblur_flow: dis, but loss\.reblur_weight is 0"):
        train(real_config(dataset, loss__reblur_flow="dis"), tmp_path / "run")
