"""A plain U-Net through the real loop, restorer and evaluator, and the settings that a run of one refuses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from spikevrt.checkpoint import WeightsInfo, save_weights
from spikevrt.config import Config
from spikevrt.model import build_network
from spikevrt.model.unet import Unet
from spikevrt.recording.recording import open_recording
from spikevrt.restore.job import restore_recording
from spikevrt.restore.restorer import RestoreOptions, load_network
from spikevrt.train import loop
from spikevrt.train.journal import read_journal
from spikevrt.train.loop import train
from spikevrt.train.optim import param_groups
from spikevrt.train.runs import summarise
from spikevrt.train.start import check_scoring
from tests.evaluate.conftest import evaluate
from tests.train.conftest import MICRO_UNET, REAL_BINS, assert_resumed_equals_whole, unet_config
from tests.train.test_ranks import train_on_two_ranks
from tests.train.test_torchrun import losses


@pytest.mark.parametrize("spikes", [{"num_bins": REAL_BINS, "normalize": "density"}, None], ids=["spikes", "rgb"])
def test_a_unet_is_trained_restored_and_evaluated_as_spikevrt_is(
    dataset: Path, tmp_path: Path, spikes: dict[str, Any] | None, capsys: pytest.CaptureFixture[str]
):
    best = train(unet_config(dataset, model__spikes=spikes, optim__ema_decay=0.5), tmp_path / "run")
    assert best == tmp_path / "run" / "best.safetensors"
    network, info = load_network(best, torch.device("cpu"))
    assert type(network) is Unet and info.provenance["step"] == 3
    recording = dataset.parent / "second"
    summary = restore_recording(best, open_recording(recording), tmp_path / "restored", RestoreOptions(device="cpu"))
    assert (summary["num_frames"], summary["tiles"]["shared_flows"]) == (5, False)
    assert len(list((tmp_path / "restored").glob("*.png"))) == 5
    results = evaluate([best], [recording], tmp_path / "scores", RestoreOptions(device="cpu"))
    blur, spike_ratio, _, unet = results["methods"]
    assert (unet["name"], unet["spikes"], unet["parameters"]) == (
        "best", spikes is not None, sum(p.numel() for p in network.parameters()),
    )  # fmt: skip
    assert unet["mean"]["psnr_rgb"] == pytest.approx(blur["mean"]["psnr_rgb"], abs=3.0)  # three steps change little
    listed = summarise(tmp_path / "run")
    assert (listed.state, listed.best_db) == ("finished", info.provenance["val_psnr_rgb"])


def test_a_unet_resumed_equals_itself_never_stopped(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = unet_config(dataset, data__spike_dropout=0.5, optim__ema_decay=0.5)
    assert_resumed_equals_whole(config, tmp_path, monkeypatch)
    assert losses(tmp_path / "whole") == losses(tmp_path / "halves")


def test_a_unet_learns_from_where_its_score_is_that_of_the_blur(dataset: Path, tmp_path: Path):
    """The pictures are noise in blocks, of which there is little to learn: 0.11 dB in these steps."""
    config = unet_config(dataset, optim__steps=60, optim__lr=3e-3, train__validate_every=60, train__checkpoint_every=60)
    train(config, tmp_path / "run")
    (score,) = [row for row in read_journal(tmp_path / "run") if row["kind"] == "validation"]
    assert score["psnr_rgb"] > score["psnr_rgb_blur"] + 0.05


def test_all_parameters_of_a_unet_are_one_group_at_the_full_rate(dataset: Path):
    config = unet_config(dataset)
    network = build_network(config.model)
    (group,) = param_groups(network, config.optim)
    assert group["lr_factor"] == 1.0 and len(group["params"]) == len(list(network.parameters()))


def test_a_dry_run_of_a_unet_forecasts_and_writes_nothing(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert train(unet_config(dataset), tmp_path / "run", dry_run=True) is None
    told = capsys.readouterr().out
    assert "forecast     peak memory" in told and "largest crop 64 at batch 1" in told
    assert not (tmp_path / "run").exists()


def test_a_unet_starts_from_the_weights_of_one_alike_with_their_statistics(dataset: Path, tmp_path: Path):
    config = unet_config(
        dataset, train__init=str(tmp_path / "first.safetensors"), optim__steps=1, optim__warmup_steps=0
    )
    torch.manual_seed(5)
    first = build_network(config.model)
    save_weights(tmp_path / "first.safetensors", first.state_dict(), WeightsInfo(config.model, 0.25, 0.5))
    run = loop.Run(config, loop.Ranks(), None)
    assert all(torch.equal(value, first.state_dict()[name]) for name, value in run.network.state_dict().items())
    assert (run.info.stats.mean, run.info.stats.std) == (0.25, 0.5)


@pytest.mark.parametrize(
    "other", [{"model__spikes": None}, {"model__unet": MICRO_UNET | {"width": 6}}, {"model__unet": None}]
)
def test_weights_of_another_network_do_not_start_a_unet(dataset: Path, tmp_path: Path, other: dict[str, Any]):
    path = tmp_path / "other.safetensors"
    model = unet_config(dataset, **other).model
    save_weights(path, {"a": torch.zeros(1)}, WeightsInfo(model, 0.0, 1.0))
    with pytest.raises(ValueError) as error:
        train(unet_config(dataset, train__init=str(path)), tmp_path / "run")
    assert str(error.value) == f"train.init: {path} holds another network than model says; allowed: the same"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim__vrt_lr_factor": 0.5}, "optim.vrt_lr_factor: 0.5, but a U-Net is one part without"),
        ({"optim__flow_lr_factor": 0.25}, "optim.flow_lr_factor: 0.25, but"),
        ({"optim__flow_fixed_steps": 1}, "optim.flow_fixed_steps: 1, but"),
        ({"train__init_vrt": "vrt.pth"}, "train.init_vrt: vrt.pth, but"),
        ({"train__compile": True}, "train.compile: True, but"),
        (
            {"loss__reblur_weight": 1.0},
            "loss.reblur_flow: network, but a U-Net is one part without optical flow; allowed: dis",
        ),
    ],
)
def test_a_setting_that_a_unet_cannot_obey_ends_the_run_before_it_begins(
    dataset: Path, tmp_path: Path, changes: dict[str, Any], message: str
):
    with pytest.raises(ValueError) as error:
        train(unet_config(dataset, **changes), tmp_path / "run")
    assert str(error.value).startswith(message)
    assert not (tmp_path / "run").exists()


def test_parameters_of_a_unet_are_not_shared_out(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"train\.parallel: fsdp, but a U-Net is one part .*; allowed: ddp"):
        train(unet_config(dataset, train__parallel="fsdp"), tmp_path / "run")


def test_a_unet_cannot_be_scored_on_clips_without_sharp_frames_along_a_flow_of_its_own():
    with pytest.raises(ValueError, match="data: has no sharp frames to validate on, and a U-Net no optical flow"):
        check_scoring(unet_config("data"), has_sharp=False)
    check_scoring(unet_config("data"), has_sharp=True)
    check_scoring(unet_config("data", loss__reblur_flow="dis"), has_sharp=False)
    check_scoring(unet_config("data", model__unet=None), has_sharp=False)


@pytest.mark.slow
def test_two_ranks_take_the_steps_of_one(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def config(batch: int) -> Config:
        return unet_config(dataset, data__batch=batch, data__spike_dropout=0.5, optim__steps=3, train__accumulate=2)

    train(config(2), tmp_path / "one")
    train_on_two_ranks(config(1), tmp_path / "two", monkeypatch)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)  # sums in another order
