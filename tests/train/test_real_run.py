"""The real parts together: simulated recordings, a prepared dataset, the smallest SpikeVRT, the loop, the restorer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from spikevrt.model.spike_vrt import SpikeVRT
from spikevrt.restore.restorer import load_network
from spikevrt.train import loop
from spikevrt.train.journal import read_journal
from tests.train.conftest import assert_resumed_equals_whole, real_config

pytestmark = pytest.mark.slow


def test_the_real_network_resumed_equals_itself_never_stopped(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = real_config(dataset)
    best = assert_resumed_equals_whole(config, tmp_path, monkeypatch)
    assert best == tmp_path / "halves" / "best.safetensors"
    scores = [
        [row["psnr_rgb"] for row in read_journal(tmp_path / name) if row["kind"] == "validation"]
        for name in ("whole", "halves")
    ]
    assert scores[0] == scores[1] and len(scores[0]) == 1
    network, info = load_network(best, torch.device("cpu"))
    assert isinstance(network, SpikeVRT) and info.provenance["step"] == 3


def test_every_parameter_of_the_real_network_is_trained(dataset: Path):
    """Fault 4, for weights: a part that exists and never learns. (What starts at zero lets gradients in later.)"""
    config = real_config(dataset)
    run = loop.Run(dataclasses.replace(config, optim=dataclasses.replace(config.optim, steps=5)), loop.Ranks(), None)
    before = {name: p.detach().clone() for name, p in run.network.named_parameters()}
    run.trained.train()
    batches = iter(run.loader())
    for _ in range(5):  # what starts at zero (last convolution, fusion) lets gradients in one step after the other
        loop.set_lr(run.optimizer, 1, run.config.optim)
        run.take_step(run.fetch(batches)[0])
        run.step += 1
    still = [name for name, p in run.network.named_parameters() if torch.equal(p, before[name])]
    assert still == []


def test_nan_in_the_pictures_of_the_real_network_is_a_skipped_step(dataset: Path):
    """On a CPU the gradient of torch's border sampling reads outside its memory at a position that is NaN."""
    run = loop.Run(real_config(dataset), loop.Ranks(), None)
    before = [p.detach().clone() for p in run.network.parameters()]
    run.trained.train()
    micro_batches, _ = run.fetch(iter(run.loader()))
    micro_batches[0]["blur"][0, 0, 0, 5, 7] = float("nan")
    terms, grad_norm = run.take_step(micro_batches)
    assert terms["charbonnier"] != terms["charbonnier"] and grad_norm != grad_norm
    assert all(torch.equal(p, q) for p, q in zip(run.network.parameters(), before, strict=True))
