"""The real parts together: simulated recordings, a prepared dataset, the smallest SpikeVRT, the loop, the restorer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spikevrt.checkpoint import load_weights
from spikevrt.config import Config
from spikevrt.data.prepare import prepare
from spikevrt.model.network import SpikeVRT
from spikevrt.recording.frames import write_image
from spikevrt.restore.restorer import load_network
from spikevrt.simulate.synthesise import SimulateOptions, simulate_recording
from spikevrt.train import loop
from spikevrt.train.journal import read_journal
from spikevrt.train.loop import train

NUM_BINS = 4


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("captures")
    rng = np.random.default_rng(3)
    write_image(root / "photo.png", np.kron(rng.integers(0, 256, (24, 32, 3)), np.ones((8, 8, 1))).astype(np.uint8))
    options = SimulateOptions(frames=2, exposure_ticks=8, period_ticks=10, width=64, height=64, num_layers=0)
    recordings = [simulate_recording(root / "photo.png", root / name, options).root for name in ("first", "second")]
    return prepare(recordings[:1], root / "dataset", num_bins=NUM_BINS, val=recordings[1:])


def real_config(dataset: Path, **train_values: Any) -> Config:
    eight = [8] * 11
    return Config.from_dict(
        {
            "model": {
                "vrt": {
                    "window": [2, 4, 4],
                    "depths": [1] * 11,
                    "dims": eight,
                    "num_heads": [2] * 11,
                    "deform_groups": 4,
                    "flow_widths": [4, 4, 4, 4],
                },
                "spikes": {"num_bins": NUM_BINS, "dims": eight[:4]},
            },
            "data": {"root": str(dataset), "clip_frames": 2, "crop_px": 64, "batch": 1},
            "loss": {"perceptual_weight": 0.0},
            "optim": {"lr": 1e-3, "steps": 3, "warmup_steps": 1},
            "train": {"device": "cpu", "precision": "fp32", "log_every": 1, "checkpoint_every": 1} | train_values,
        }
    )


def test_the_real_network_resumed_equals_itself_never_stopped(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = real_config(dataset)
    train(config, tmp_path / "whole")
    take_step = loop._Run.take_step

    def crash_in_step_three(self: Any, micro_batches: Any) -> Any:
        if self.step == 2:
            raise RuntimeError("power cut")
        return take_step(self, micro_batches)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "take_step", crash_in_step_three)
        with pytest.raises(RuntimeError, match="power cut"):
            train(config, tmp_path / "halves")
    best = train(config, tmp_path / "halves", resume=True)
    assert best == tmp_path / "halves" / "best.safetensors"
    whole, halves = (load_weights(tmp_path / name / "last.safetensors")[0] for name in ("whole", "halves"))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
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
    run = loop._Run(dataclasses.replace(config, optim=dataclasses.replace(config.optim, steps=5)), loop.Ranks(), None)
    before = {name: p.detach().clone() for name, p in run.network.named_parameters()}
    run.trained.train()
    batches = iter(run.loader())
    for _ in range(5):  # what starts at zero (last convolution, fusion) lets gradients in one step after the other
        loop.set_lr(run.optimizer, 1, run.config.optim)
        run.take_step(run.fetch(batches)[0])
        run.step += 1
    still = [name for name, p in run.network.named_parameters() if torch.equal(p, before[name])]
    assert still == []
