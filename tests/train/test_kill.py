"""The real command in a process of its own, killed, stopped, and left without room on the disk."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.utils._pytree import tree_leaves

from spikevrt.checkpoint import digest, load_state
from spikevrt.config import Config
from spikevrt.train.journal import read_journal
from spikevrt.train.loop import train
from tests.train.conftest import unet_config

pytestmark = pytest.mark.slow

TIMINGS = {"clips_per_s", "data_wait", "device_load", "peak_bytes", "seconds"}  # of one process, not of the run
DEADLINE_S = 120.0


def busy_config(dataset: Path) -> Config:
    """Everything that has a state: a worker, accumulation, averaged weights, worse spikes, uneven journal rows."""
    return unet_config(
        dataset,
        data__workers=1,
        data__spike_dropout=0.25,
        data__degrade={"probability": 0.5, "threshold": [1, 2], "noise": 0.1},
        optim__steps=60,
        optim__ema_decay=0.75,
        train__accumulate=2,
        train__log_every=3,
        train__checkpoint_every=2,
        train__validate_every=30,
        train__keep_every=20,
    )


def start(config: Config, out: Path, *more: str, limit_bytes: int | None = None) -> subprocess.Popen[str]:
    path = out.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(config.to_dict()))

    def limit() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    return subprocess.Popen(
        [sys.executable, "-m", "spikevrt", "train", str(path), "--out", str(out), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=limit,
        start_new_session=True,  # a group of processes of its own
    )


def steps_done(out: Path) -> int:
    """What the journal says; 0 before there is one."""
    try:
        return max((row["step"] for row in read_journal(out)), default=0)
    except FileNotFoundError:
        return 0


def wait_until(condition: Any, process: subprocess.Popen[str]) -> None:
    began = time.monotonic()
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() - began < DEADLINE_S
        time.sleep(0.01)


def rows_without_timings(out: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in TIMINGS} for row in read_journal(out)]


def test_a_run_killed_twice_at_random_equals_one_that_never_stopped(dataset: Path, tmp_path: Path):
    config = busy_config(dataset)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(config, whole)
    rng = random.Random(7)
    for least in (12, 33):
        process = start(config, killed, "--resume", "auto")
        wait_until(lambda least=least: steps_done(killed) >= least, process)
        time.sleep(rng.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = start(config, killed, "--resume", "auto")
    assert process.wait(DEADLINE_S) == 0, process.communicate()[1]
    assert digest(load_state(killed / "last.state")) == digest(load_state(whole / "last.state"))
    assert rows_without_timings(killed) == rows_without_timings(whole)
    for name in ("best.safetensors", "last.safetensors"):
        assert weights_of(killed / name) == weights_of(whole / name)
    assert sorted(path.name for path in (killed / "kept").iterdir()) == [
        "000020.state",
        "000040.state",
        "000060.state",
    ]


def weights_of(path: Path) -> str:
    from spikevrt.checkpoint import load_weights

    return digest(load_weights(path)[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_with_status_0_and_the_command_that_goes_on(
    dataset: Path, tmp_path: Path, number: signal.Signals
):
    out = tmp_path / "run"
    process = start(busy_config(dataset), out)
    wait_until(lambda: steps_done(out) >= 3, process)
    os.killpg(process.pid, number)  # as schedulers and terminals do: the loader's worker gets it too
    _, told = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, told
    assert f"stopped by {number.name}" in told
    assert told.rstrip().endswith(f"go on with: spikevrt train {out.with_suffix('.yaml')} --out {out} --resume")
    step = load_state(out / "last.state")["step"]
    assert f"step {step}/60" in told and 0 <= step - steps_done(out) < 3  # a row every three steps


def test_a_full_disk_costs_no_state_that_was_there(dataset: Path, tmp_path: Path):
    """The limit on the size of a file stands for the full disk: the state does not fit, the journal does."""
    out = tmp_path / "run"
    config = unet_config(dataset, optim__steps=2, train__validate_every=5)
    train(config, out)
    before = digest(load_state(out / "last.state"))
    size = (out / "last.state").stat().st_size
    longer = unet_config(dataset, optim__steps=5, train__validate_every=5)
    process = start(longer, out, "--resume", limit_bytes=size // 2)
    _, told = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 2, told
    assert "step 3: the state was not saved, going on:" in told
    assert told.rstrip().splitlines()[-1].startswith("spikevrt: step 5: the state was not saved:")
    assert digest(load_state(out / "last.state")) == before
    assert [row["step"] for row in read_journal(out) if row["kind"] == "train"] == [1, 2, 3, 4, 5]
    assert not [path for path in out.iterdir() if "partial" in path.name or path.suffix == ".new"]


def test_a_damaged_newest_state_costs_the_steps_since_the_one_before(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "run"
    train(unet_config(dataset), out)
    content = bytearray((out / "last.state").read_bytes())
    tensors = [t for t in tree_leaves(load_state(out / "last.state")) if isinstance(t, torch.Tensor)]
    largest = max(tensors, key=lambda tensor: tensor.numel())
    content[content.index(largest.contiguous().numpy().tobytes()) + 5] ^= 1  # one bit of it
    (out / "last.state").write_bytes(content)
    expected = json.loads(json.dumps(rows_without_timings(out)))
    train(unet_config(dataset), out, resume=True)
    assert f"going on from {out / 'previous.state'}" in capsys.readouterr().err
    assert rows_without_timings(out) == expected
    assert load_state(out / "last.state")["step"] == 3
