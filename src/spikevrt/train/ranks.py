"""One process or several (torchrun): who am I, what do the others say, and what if one of them is gone.

A rank that is gone ends all others, with a status that is not 0: torchrun then starts those that are left, from the
last state (docs/scaling.md).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import rendezvous
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

JOIN_TIMEOUT = timedelta(minutes=10)  # for all ranks to have started, as torchrun's join_timeout


@dataclass(frozen=True)
class Ranks:
    """This process (`rank`) among `world`; everything is a no-op when there is only one."""

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def mean(self, values: list[float], device: torch.device) -> list[float]:
        """The mean of each value over the ranks, the same on all of them. NaN anywhere is NaN everywhere."""
        if self.world == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(tensor)
        return [value / self.world for value in tensor.tolist()]

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, on all of them, in rank order."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def agree(self, value: Any, what: str) -> None:
        """Go on only if all ranks have the same `value`; `what` names it. Raises OSError where they differ."""
        values = self.gather(value)
        if any(other != values[0] for other in values):
            told = ", ".join(f"{other} on rank {rank}" for rank, other in enumerate(values) if other != values[0])
            raise OSError(f"{what}: {values[0]} on rank 0, but {told}; all ranks must see the same folder")

    def mesh(self, device: torch.device) -> DeviceMesh:
        """All ranks in a row, as FSDP wants them."""
        return init_device_mesh(device.type, (self.world,))

    def wait(self) -> None:
        """Go on when all are here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def join_ranks(device: str) -> Iterator[Ranks]:
    """Join the process group that torchrun's environment describes; without one, be alone.

    A rank whose process has died is noticed at the next exchange. One that is silent (its machine hangs, its network
    is cut) is waited for: half an hour on CPUs, ten minutes on GPUs, or SPIKEVRT_PEER_TIMEOUT_S seconds.

    Raises:
        ValueError: if there are more local processes than CUDA devices, or for another SPIKEVRT_PEER_TIMEOUT_S.
        ConnectionError: another rank is gone.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks()
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    use_cuda = device != "cpu" and torch.cuda.is_available()
    if use_cuda:
        if local_rank >= torch.cuda.device_count():
            raise ValueError(
                f"torchrun --nproc-per-node: more processes than the {torch.cuda.device_count()} CUDA devices"
            )
        torch.cuda.set_device(local_rank)
    timeout = _peer_timeout()
    try:
        # The timeout is for exchanges: starting up may take one machine much longer than another.
        store, rank, _ = next(rendezvous("env://", timeout=JOIN_TIMEOUT))
        if os.environ.get("GROUP_WORLD_SIZE") == "1":
            # torchrun offers its restarted processes the store of those before, with addresses that nobody is at. (Of
            # several torchruns each counts its own restarts: TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 gives a new store.)
            store = dist.PrefixStore(f"restart{os.environ.get('TORCHELASTIC_RESTART_COUNT')}", store)
        store.set(f"here/{rank}", "")
        store.wait([f"here/{other}" for other in range(world)], JOIN_TIMEOUT)
        backend = "nccl" if use_cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)
        yield Ranks(rank=rank, world=world)
    except RuntimeError as error:
        if not _is_of_the_network(error):
            raise
        raise ConnectionError(
            f"rank {os.environ.get('RANK')} of {world}: another rank is gone or does not answer; "
            f"the last state stays, go on from it with --resume ({_first_sentence(error)})"
        ) from None
    finally:
        # Gloo's own thread needs the GIL to let go of the last exchange; DDP's destructor would wait for that thread
        # without giving the GIL up, for ever. A moment without the GIL is enough.
        time.sleep(0.05)
        if dist.is_initialized():
            dist.destroy_process_group()


def _peer_timeout() -> timedelta | None:
    """How long an exchange waits for the other ranks; None: as torch does."""
    text = os.environ.get("SPIKEVRT_PEER_TIMEOUT_S")
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"SPIKEVRT_PEER_TIMEOUT_S: {text!r}; allowed: whole seconds, 1 or more")
    return timedelta(seconds=int(text))


def _is_of_the_network(error: RuntimeError) -> bool:
    """Whether an exchange failed, and not a computation. Gloo's errors are plain RuntimeErrors that name its source."""
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)


def _first_sentence(error: RuntimeError) -> str:
    words = " ".join(str(error).split())
    return re.sub(r"^\[\S*/gloo/\S*\] ", "", words).split(". ")[0][:200]
