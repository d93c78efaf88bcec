"""Two processes under torchrun's environment, against one."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from spikevrt.checkpoint import load_state, load_weights
from spikevrt.config import Config
from spikevrt.train import distributed as ranks_module
from spikevrt.train import loop
from spikevrt.train.distributed import Ranks, join_ranks
from spikevrt.train.journal import read_journal
from spikevrt.train.loop import train
from tests.train.conftest import FakeClips, FakeNetwork, small_config

NO_DROPOUT = {"drop_path": 0.0}
TWO_RANKS = small_config(data__batch=1, train__accumulate=2, model__vrt=NO_DROPOUT)
ONE_RANK = small_config(data__batch=2, train__accumulate=2, model__vrt=NO_DROPOUT)


def test_alone_nothing_is_exchanged(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_ranks("cpu") as ranks:
        assert ranks == Ranks(0, 1) and ranks.is_first
        assert ranks.mean([1.0, 2.0], torch.device("cpu")) == [1.0, 2.0] and ranks.gather("a") == ["a"]


def test_ranks_that_see_different_states_do_not_start(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Ranks, "gather", lambda self, value: [value, 0, value])
    message = "run: step of the saved state: 200 on rank 0, but 0 on rank 1; all ranks must see the same folder"
    with pytest.raises(OSError, match=message):
        Ranks(0, 3).agree(200, "run: step of the saved state")
    Ranks(0, 3).agree(0, "run: step of the saved state")


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "soon", ""])
def test_a_timeout_that_is_no_whole_number_of_seconds_is_refused(monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("SPIKEVRT_PEER_TIMEOUT_S", text)
    with (
        pytest.raises(ValueError, match=f"SPIKEVRT_PEER_TIMEOUT_S: '{text}'; allowed: whole seconds, 1 or more"),
        join_ranks("cpu"),
    ):
        pass


@pytest.mark.usefixtures("fakes")
def test_a_signal_to_another_rank_alone_saves_and_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With status 0, the torchrun of this machine would take the run for done."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(Ranks, "mean", lambda self, values, device: [*values[:-1], 0.5])  # one of two has a signal
    with pytest.raises(InterruptedError, match="run: saved and stopped, because another rank was told to stop"):
        train(small_config(), tmp_path / "run")
    assert load_state(tmp_path / "run" / "last.state")["step"] == 1


def _silent_rank(port: int) -> None:
    os.environ.update(_environment(1, port))
    with join_ranks("cpu") as ranks:
        ranks.wait()
        time.sleep(600)


@pytest.mark.slow
def test_a_rank_that_does_not_answer_ends_the_others_with_one_line(monkeypatch: pytest.MonkeyPatch):
    port = free_port()
    other = mp.get_context("spawn").Process(target=_silent_rank, args=(port,), daemon=True)
    other.start()
    monkeypatch.setenv("SPIKEVRT_PEER_TIMEOUT_S", "2")  # less than the other one needs to start
    for name, value in _environment(0, port).items():
        monkeypatch.setenv(name, value)
    message = r"rank 0 of 2: another rank is gone or does not answer; the last state stays, go on from it with --resume"
    with pytest.raises(ConnectionError, match=message), join_ranks("cpu") as ranks:
        ranks.wait()
        ranks.gather("a")
    assert other.is_alive()
    assert not dist.is_initialized()
    other.kill()
    other.join()


def test_an_error_that_is_not_of_the_network_stays_what_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dist, "init_process_group", lambda *args, **settings: None)
    for name, value in (_environment(0, free_port()) | {"WORLD_SIZE": "2"}).items():
        monkeypatch.setenv(name, value)
    store = dist.HashStore()
    store.set("here/1", "")
    monkeypatch.setattr(ranks_module, "rendezvous", lambda *args, **settings: iter([(store, 0, 2)]))
    with pytest.raises(RuntimeError, match="out of memory"), join_ranks("cpu"):
        raise RuntimeError("out of memory")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _environment(rank: int, port: int) -> dict[str, str]:
    """What torchrun sets."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1"} | {name: str(value) for name, value in numbers.items()}


def _second_rank(port: int, second: Callable[[Config, Path], object], config: Config, out: Path) -> None:
    os.environ.update(_environment(1, port))
    second(config, out)


def train_on_two_ranks(
    config: Config, out: Path, monkeypatch: pytest.MonkeyPatch, second: Callable[[Config, Path], object] = train
) -> None:
    """This process is the first; `second` is called in another one."""
    port = free_port()
    other = mp.get_context("spawn").Process(target=_second_rank, args=(port, second, config, out))
    other.start()
    with monkeypatch.context() as patch:
        for name, value in _environment(0, port).items():
            patch.setenv(name, value)
        train(config, out)
    other.join()
    assert other.exitcode == 0


def _train_fakes(config: Config, out: Path) -> None:
    loop.ClipDataset, loop.build_network = FakeClips, FakeNetwork  # type: ignore[misc,assignment]
    train(config, out)


@pytest.mark.slow
@pytest.mark.usefixtures("fakes")
def test_two_ranks_take_the_steps_of_one_and_share_the_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train_on_two_ranks(TWO_RANKS, tmp_path / "two", monkeypatch, _train_fakes)
    train(ONE_RANK, tmp_path / "one")
    one, two = (load_weights(tmp_path / name / "last.safetensors")[0] for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5)  # gradients summed in another order
    rows_one, rows_two = read_journal(tmp_path / "one"), read_journal(tmp_path / "two")
    for a, b in zip(rows_one, rows_two, strict=True):
        assert (a["kind"], a["step"]) == (b["kind"], b["step"])
        key = "loss" if a["kind"] == "train" else "psnr_rgb"
        assert b[key] == pytest.approx(a[key], abs=1e-3)
    assert [row["num_frames"] for row in rows_two if row["kind"] == "validation"] == [4, 4]  # both ranks' frames
