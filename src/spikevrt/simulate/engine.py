"""Who does the jobs of a batch: this process, processes of this machine, or Ray's workers on one machine or many.

A job is independent of all others, and its result is a file; nothing comes back but that it is done.
"""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import Any, TypeVar

import torch

ENGINES = ("processes", "ray")
ANSWER_WITHIN_S = 5.0
Job = TypeVar("Job")


def check_engine(engine: str, ray_address: str | None) -> None:
    """Refuse an engine that cannot be had, before anything is made.

    Raises:
        ValueError: unknown engine, a Ray address for another one, or Ray is not installed.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine: {engine}; must be one of {', '.join(ENGINES)}")
    if ray_address is not None and engine != "ray":
        raise ValueError(f"ray_address: only with engine ray, not {engine}")
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        raise ValueError("engine: ray is not installed; pip install 'spikevrt[ray]'")


def run_jobs(
    run: Callable[[Job], None], jobs: Sequence[Job], *, engine: str, workers: int, ray_address: str | None = None
) -> Iterator[None]:
    """Call `run` for every job, at most `workers` at a time, and yield once for each that is done.

    The first error ends it: jobs that have not begun are not begun, those that have are waited for. With one worker,
    `processes` stays in this process.
    `ray` starts a local Ray of `workers` workers, or joins the cluster at `ray_address`, whose machines must see the
    same files under the same paths.

    Raises:
        ValueError: no cluster answers at `ray_address`.
    """
    check_engine(engine, ray_address)
    if engine == "ray":
        return _with_ray(run, jobs, workers, ray_address)
    if workers == 1:
        return map(run, jobs)
    return _with_processes(run, jobs, workers)


def _with_processes(run: Callable[[Job], None], jobs: Sequence[Job], workers: int) -> Iterator[None]:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker) as pool:
        yield from pool.map(run, jobs)


def _start_worker() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would otherwise finish its job and wait for ever for the next."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _with_ray(run: Callable[[Job], None], jobs: Sequence[Job], workers: int, address: str | None) -> Iterator[None]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if address is None:
        ray.init(
            address="local", _node_ip_address="127.0.0.1", num_cpus=workers, include_dashboard=False,
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
    waiting, running = list(reversed(jobs)), list[Any]()
    try:
        task: Any = ray.remote(num_cpus=1, max_retries=2)(_ray_task)
        while waiting or running:
            while waiting and len(running) < workers:
                running.append(task.remote(run, waiting.pop()))
            done, running = ray.wait(running)
            try:
                ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            yield None
    finally:
        if running:  # shutdown kills, and a killed job leaves half a recording
            ray.wait(running, num_returns=len(running))
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


def _ray_task(run: Callable[[Job], None], job: Job) -> None:
    torch.set_num_threads(1)
    run(job)
