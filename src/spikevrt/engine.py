"""Who does the jobs of a batch: this process, processes of this machine, or Ray's workers on one machine or many.

A job is independent of all others, and what it makes are files; what comes back says how it went. Nothing here loads
torch when imported.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import multiprocessing
import os
import socket
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Annotated, Any, TypeVar

KINDS = ("processes", "ray")
ANSWER_WITHIN_S = 5.0
GPUS = "CUDA_VISIBLE_DEVICES"
Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Engine:
    """Processes of this machine or Ray, with at most `workers` jobs at a time.

    Each worker computes on `threads` threads and sees one of `gpus` (names as CUDA_VISIBLE_DEVICES has them), in turn;
    with none given, what this process sees. `ray` starts a local Ray, or joins the cluster at `ray_address`, whose
    machines must see the same files under the same paths; where there are `gpus`, each job has one of Ray's choice.

    Raises:
        ValueError: it cannot be had: an unknown kind, a Ray address for another one, or Ray is not installed.
    """

    engine: Annotated[str, "processes, or ray"] = KINDS[0]
    workers: Annotated[int | None, "recordings at a time (1; where a GPU computes, one a GPU)"] = None
    ray_address: Annotated[str | None, "with --engine ray: a cluster that shares the files", "HOST:PORT"] = None
    threads: int = 1
    gpus: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers: {self.workers}; must be 1 or more")
        if self.engine not in KINDS:
            raise ValueError(f"engine: {self.engine}; must be one of {', '.join(KINDS)}")
        if self.ray_address is not None and not self.is_ray:
            raise ValueError(f"ray_address: only with `engine` ray, not {self.engine}")
        if self.is_ray and importlib.util.find_spec("ray") is None:
            raise ValueError("engine: ray is not installed; pip install 'spikevrt[ray]'")

    @property
    def is_ray(self) -> bool:
        return self.engine == "ray"

    @property
    def num_workers(self) -> int:
        return self.workers or 1


def run_jobs(
    run: Callable[[Job], Result],
    jobs: Sequence[Job],
    engine: Engine = Engine(),
    *,
    lost: Callable[[Job], Result] | None = None,
) -> Iterator[Result]:
    """Call `run` for every job and yield what it returns as each is done, in any order.

    The first error ends it: jobs that have not begun are not begun, those that have are waited for. `lost` gives the
    result of a job whose process died (killed for memory, say), and the others go on; without it, that is an error too.
    One worker of `processes` without `lost` is this process itself, with its own threads and GPUs.

    Raises:
        ValueError: no cluster answers at the engine's `ray_address`.
        RuntimeError: the process of a job died, and there is no `lost`.
    """
    if engine.is_ray:
        return _with_ray(run, jobs, engine, lost)
    if engine.num_workers == 1 and lost is None:
        return map(run, jobs)
    return _with_processes(run, jobs, engine, lost)


@dataclass
class _Worker:
    """A process that does one job after the other, and this process's end of the pipe to it."""

    process: BaseProcess
    pipe: Connection
    gpu: str | None
    job: Any = None


def _with_processes(
    run: Callable[[Job], Result],
    jobs: Sequence[Job],
    engine: Engine,
    lost: Callable[[Job], Result] | None,
) -> Iterator[Result]:
    waiting = list(reversed(jobs))
    busy: list[_Worker] = []
    try:
        for number in range(min(engine.num_workers, len(jobs))):
            gpu = engine.gpus[number % len(engine.gpus)] if engine.gpus else None
            busy.append(_started(run, engine.threads, gpu, waiting.pop()))
        while busy:
            ready = wait([worker.pipe for worker in busy])
            worker = next(worker for worker in busy if worker.pipe in ready)
            busy.remove(worker)
            job = worker.job
            try:
                result, error = worker.pipe.recv()
            except (EOFError, OSError):
                worker.process.join()
                if lost is None:
                    raise RuntimeError(f"a worker process died (exit code {worker.process.exitcode})") from None
                result, error = lost(job), None
                if waiting:
                    busy.append(_started(run, engine.threads, worker.gpu, waiting.pop()))
            else:
                if error is not None:
                    worker.pipe.close()
                    raise error
                if waiting:
                    worker.job = waiting.pop()
                    worker.pipe.send(worker.job)
                    busy.append(worker)
                else:
                    worker.pipe.close()  # which ends it
            yield result
    except KeyboardInterrupt:
        for worker in busy:
            worker.process.terminate()
        raise
    finally:
        for worker in busy:  # what has begun is waited for
            with contextlib.suppress(EOFError, OSError):
                worker.pipe.recv()
            worker.pipe.close()
            worker.process.join()


def _started(run: Callable[[Any], Any], threads: int, gpu: str | None, job: Any) -> _Worker:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_work, args=(run, theirs, threads, gpu), daemon=True)
    process.start()
    theirs.close()
    ours.send(job)
    return _Worker(process, ours, gpu, job)


def _work(run: Callable[[Any], Any], pipe: Connection, threads: int, gpu: str | None) -> None:
    """Do the jobs that come through the pipe until it is closed; send back (result, None) or (None, error)."""
    if gpu is not None:  # CUDA has not been asked for anything in this process
        os.environ[GPUS] = gpu
    import torch

    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        while True:
            job = pipe.recv()
            try:
                answer: tuple[Any, Exception | None] = (run(job), None)
            except Exception as error:
                error.add_note(traceback.format_exc())  # the traceback of this process
                answer = (None, error)
            pipe.send(answer)
    except (EOFError, OSError, KeyboardInterrupt):
        return


def _end_with_parent() -> None:
    """A worker whose parent was killed would otherwise finish its job and wait for ever for the next."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _with_ray(
    run: Callable[[Job], Result],
    jobs: Sequence[Job],
    engine: Engine,
    lost: Callable[[Job], Result] | None,
) -> Iterator[Result]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    address = engine.ray_address
    if address is None:
        num_cpus = engine.num_workers * engine.threads
        ray.init(
            address="local", _node_ip_address="127.0.0.1", num_cpus=num_cpus, include_dashboard=False,
            log_to_driver=False, logging_level=logging.ERROR,
        )  # fmt: skip
    else:
        _check_address(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError:
            raise ValueError(
                f"ray_address: {address}; what answers there is no Ray cluster, or wants a token (RAY_AUTH_MODE)"
            ) from None
    waiting, running = list(reversed(jobs)), dict[Any, Job]()
    try:
        task: Any = ray.remote(num_cpus=engine.threads, num_gpus=int(bool(engine.gpus)), max_retries=2)(_ray_task)
        while waiting or running:
            while waiting and len(running) < engine.num_workers:
                job = waiting.pop()
                running[task.remote(run, job, engine.threads)] = job
            (done,), _ = ray.wait(list(running))
            job = running.pop(done)
            try:
                result: Result = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
                if lost is None:
                    raise RuntimeError("a worker of Ray died") from None
                result = lost(job)
            yield result
    finally:
        if running:  # shutdown kills, and a killed job leaves half a recording
            ray.wait(list(running), num_returns=len(running))
        ray.shutdown()


def _check_address(address: str) -> None:
    """Ray itself tries for many minutes to reach a cluster that is not there."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"ray_address: {address}; must be HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_WITHIN_S).close()
    except (OSError, OverflowError):
        raise ValueError(f"ray_address: {address}; no cluster answers there") from None


def _ray_task(run: Callable[[Job], Result], job: Job, threads: int) -> Result:
    import torch

    torch.set_num_threads(threads)
    return run(job)
