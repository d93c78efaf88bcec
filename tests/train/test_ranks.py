"""Two processes under torchrun's environment, against one."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from spikevrt.checkpoint import load_weights
from spikevrt.train import loop
from spikevrt.train.journal import read_journal
from spikevrt.train.loop import train
from spikevrt.train.ranks import Ranks, join_ranks
from tests.train.conftest import FakeClips, FakeNetwork, small_config

NO_DROPOUT = {"drop_path": 0.0}
TWO_RANKS = small_config(data__batch=1, train__accumulate=2, model__vrt=NO_DROPOUT)
ONE_RANK = small_config(data__batch=2, train__accumulate=2, model__vrt=NO_DROPOUT)


def test_alone_nothing_is_exchanged(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_ranks("cpu") as ranks:
        assert ranks == Ranks(0, 1) and ranks.is_first
        assert ranks.mean([1.0, 2.0], torch.device("cpu")) == [1.0, 2.0] and ranks.gather("a") == ["a"]


def _environment(rank: int, port: int) -> dict[str, str]:
    """What torchrun sets."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1"} | {name: str(value) for name, value in numbers.items()}


def _second_rank(port: int, out: Path) -> None:
    os.environ.update(_environment(1, port))
    loop.ClipDataset, loop.SpikeVRT = FakeClips, FakeNetwork  # type: ignore[misc,assignment]
    train(TWO_RANKS, out)


@pytest.mark.usefixtures("fakes")
def test_two_ranks_take_the_steps_of_one_and_share_the_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    other = mp.get_context("spawn").Process(target=_second_rank, args=(port, tmp_path / "two"))
    other.start()
    for name, value in _environment(0, port).items():
        monkeypatch.setenv(name, value)
    train(TWO_RANKS, tmp_path / "two")
    other.join()
    assert other.exitcode == 0
    monkeypatch.delenv("WORLD_SIZE")
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
