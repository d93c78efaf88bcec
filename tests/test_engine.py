"""Who does the jobs: results come back, GPUs and threads are shared out, a process that dies takes only its own job."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from spikevrt.engine import Engine, run_jobs


def look(job: int) -> tuple[int, str | None, int, int]:
    time.sleep(0.3)  # so that both workers get some
    return job, os.environ.get("CUDA_VISIBLE_DEVICES"), torch.get_num_threads(), os.getpid()


def die_at_two(job: int) -> str:
    if job == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return f"done {job}"


def fail_at_two(job: tuple[int, Path]) -> None:
    number, folder = job
    if number == 2:
        raise ValueError("two")
    time.sleep(1.0)
    (folder / str(number)).touch()


def lost(job: int) -> str:
    return f"lost {job}"


@pytest.mark.slow
def test_workers_share_the_gpus_and_their_results_come_back():
    found = list(run_jobs(look, range(6), Engine(workers=2, threads=3, gpus=["4", "7"])))
    assert sorted(job for job, *_ in found) == list(range(6))
    assert {(gpu, threads) for _, gpu, threads, _ in found} == {("4", 3), ("7", 3)}
    pids = {pid for *_, pid in found}
    assert len(pids) == 2 and os.getpid() not in pids


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_process_that_dies_loses_its_own_job_alone(workers: int):
    found = list(run_jobs(die_at_two, range(5), Engine(workers=workers), lost=lost))
    assert sorted(found) == ["done 0", "done 1", "done 3", "done 4", "lost 2"]


@pytest.mark.slow
def test_without_a_word_for_lost_jobs_a_process_that_dies_is_an_error():
    with pytest.raises(RuntimeError, match=r"^a worker process died \(exit code -9\)$"):
        list(run_jobs(die_at_two, range(5), Engine(workers=2)))


@pytest.mark.slow
def test_the_first_error_ends_it_once_what_has_begun_is_done(tmp_path: Path):
    jobs = [(2, tmp_path), (0, tmp_path), (1, tmp_path)]
    with pytest.raises(ValueError, match=r"^two\n") as error:
        list(run_jobs(fail_at_two, jobs, Engine(workers=2)))
    assert "fail_at_two" in "".join(error.value.__notes__)  # where it happened, over there
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


def test_one_worker_is_this_process():
    assert [pid for *_, pid in run_jobs(look, [1], Engine(workers=1))] == [os.getpid()]
