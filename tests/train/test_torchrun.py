"""The real command under torchrun: two processes on one machine, whole copies or shared-out parameters, against one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from spikevrt.checkpoint import load_weights
from spikevrt.config import Config
from spikevrt.data.dataset import open_dataset
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.restorer import Restorer
from spikevrt.train.distributed import Ranks
from spikevrt.train.journal import read_journal
from spikevrt.train.loop import train
from spikevrt.train.validation import validate
from tests.train.conftest import real_config

STEPS, MORE_STEPS = 2, 3
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "spikevrt")


def config_of(dataset: Path, *, steps: int, batch: int, parallel: str = "ddp") -> Config:
    """Three training clips, of which a step takes four, so that the state is saved within an epoch; a constant rate."""
    return real_config(
        dataset,
        data__batch=batch,
        model__vrt__drop_path=0.0,  # each rank draws its own
        optim__steps=steps,
        optim__lr=1e-4,
        optim__lr_min=1e-4,
        optim__ema_decay=0.5,
        train__accumulate=2,
        train__parallel=parallel,
        train__validate_every=STEPS,
        train__checkpoint_every=STEPS,
    )


def run_two_ranks(config: Config, out: Path) -> None:
    path = out.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(config.to_dict()))
    finished = subprocess.run(
        [*TORCHRUN, "train", str(path), "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert finished.returncode == 0, finished.stderr


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in read_journal(out) if row["kind"] == "train"]


@pytest.fixture(scope="module")
def alone(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    train(config_of(dataset, steps=MORE_STEPS, batch=2), out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_take_the_steps_of_one_and_one_goes_on_from_their_state(
    dataset: Path, alone: Path, tmp_path: Path, parallel: str, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "run"
    run_two_ranks(config_of(dataset, steps=STEPS, batch=1, parallel=parallel), out)
    assert losses(out) == pytest.approx(losses(alone)[:STEPS], abs=1e-5)  # gradients summed in another order

    (score,) = [row for row in read_journal(out) if row["kind"] == "validation"]
    restorer = Restorer(out / "best.safetensors", RestoreOptions(device="cpu"))
    assert validate(restorer, open_dataset(dataset).val, Ranks()).value == score["psnr_rgb"] > 0

    train(config_of(dataset, steps=MORE_STEPS, batch=2), out, resume=True)
    assert "resuming with data.batch 2 (was 1)" in capsys.readouterr().err
    assert losses(out) == pytest.approx(losses(alone), abs=1e-5)
    one, two = (load_weights(path / "last.safetensors")[0] for path in (alone, out))
    apart = torch.cat([(two[name] - one[name]).abs().flatten() for name in one if one[name].is_floating_point()])
    assert float(apart.mean()) < 1e-6  # single weights with next to no gradient may be a step of Adam (1e-4) apart


def test_sharing_parameters_out_needs_torchrun(dataset: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="fsdp shares parameters out among ranks; start it with torchrun"):
        train(config_of(dataset, steps=STEPS, batch=1, parallel="fsdp"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
