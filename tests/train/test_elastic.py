"""Two torchrun agents on loopback stand for two machines: one is killed, the other one takes the run to its end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from torch.distributed import DistError, TCPStore

from spikevrt.checkpoint import digest, load_state
from spikevrt.config import Config
from spikevrt.train.journal import read_journal
from spikevrt.train.loop import train
from tests.conftest import ROOT
from tests.train.conftest import unet_config

STEPS, STEPS_BEFORE = 40, 3
DEADLINE_S = 400.0  # on two idle cores the whole test takes a tenth of it
RENDEZVOUS = "is_host=0,last_call_timeout=3,keep_alive_interval=1,keep_alive_max_attempt=5"  # docs/scaling.md


@pytest.fixture
def store() -> TCPStore:
    """The rendezvous of the agents, in a process that nobody kills."""
    try:
        return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    except (DistError, RuntimeError) as error:
        pytest.skip(f"no sockets on loopback: {error}")


def agent(port: int, config: Path, out: Path) -> subprocess.Popen[str]:
    """One machine: torchrun with one process."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=3"),
            *("--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test", "--local-addr=127.0.0.1"),
            *("--rdzv-conf", RENDEZVOUS),
            *("-m", "spikevrt", "train", str(config), "--out", str(out), "--resume", "auto"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=out.with_name(f"agent{time.monotonic_ns()}.txt").open("w"),
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
    )


def children(pid: int) -> list[int]:
    """Process ids below `pid`, all generations."""
    direct = [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]
    return [number for child in direct for number in (child, *children(child))]


def kill(agent: subprocess.Popen[str]) -> None:
    """The machine fails: the agent and all that it started are gone at once."""
    for pid in [agent.pid, *children(agent.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    agent.wait()


def num_ranks(out: Path) -> int:
    try:
        return int(json.loads((out / "run.json").read_text())["num_ranks"])
    except FileNotFoundError:
        return 0


def steps_of(out: Path) -> list[int]:
    try:
        return [row["step"] for row in read_journal(out) if row["kind"] == "train"]
    except FileNotFoundError:
        return []


def told(folder: Path) -> str:
    return "\n\n".join(path.read_text()[-3000:] for path in sorted(folder.glob("agent*.txt")))


def wait_until(condition: Callable[[], bool], agents: list[subprocess.Popen[str]], folder: Path) -> None:
    began = time.monotonic()
    while not condition():
        assert all(agent.poll() is None for agent in agents), told(folder)
        assert time.monotonic() - began < DEADLINE_S, told(folder)
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to find the processes of an agent")
def test_when_one_of_two_machines_dies_the_other_takes_every_step_that_is_left(
    dataset: Path, tmp_path: Path, store: TCPStore
):
    config = unet_config(dataset, optim__steps=STEPS, train__validate_every=STEPS, train__keep_every=1)
    path, out = tmp_path / "config.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(config.to_dict()))
    agents = [agent(store.port, path, out) for _ in range(2)]
    try:
        wait_until(lambda: num_ranks(out) == 2 and len(steps_of(out)) >= STEPS_BEFORE, agents, tmp_path)
        kill(agents[0])
        assert agents[1].wait(DEADLINE_S) == 0, told(tmp_path)
    finally:
        for process in agents:
            if process.poll() is None:
                kill(process)
    assert "another rank is gone or does not answer" in told(tmp_path)
    assert num_ranks(out) == 1
    assert steps_of(out) == list(range(1, STEPS + 1))
    state = load_state(out / "last.state")
    assert state["step"] == STEPS
    steps_of_two = state["samples"] - STEPS  # a clip a step and rank
    assert STEPS_BEFORE - 1 <= steps_of_two < STEPS
    alone = gone_on_alone(config, out / "kept" / f"{steps_of_two:06d}.state", tmp_path / "alone")
    assert digest(state) == digest(alone)


def gone_on_alone(config: Config, state: Path, out: Path) -> dict[str, object]:
    """The last state of one process that goes on from `state`."""
    out.mkdir()
    shutil.copy(state, out / "last.state")
    train(config, out, resume=True)
    return load_state(out / "last.state")


@pytest.mark.parametrize("script", sorted((ROOT / "docs" / "slurm").iterdir()), ids=lambda path: path.name)
def test_a_slurm_script_is_bash_and_says_what_was_tried(script: Path):
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert {"# tried", "# not tried"} <= {line.split(":")[0] for line in script.read_text().splitlines()}
