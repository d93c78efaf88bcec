"""One process or several (torchrun): who am I, and what do the others say."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh


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

    Raises:
        ValueError: if there are more local processes than CUDA devices.
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
    dist.init_process_group("nccl" if use_cuda else "gloo")
    try:
        yield Ranks(rank=dist.get_rank(), world=world)
    finally:
        # Gloo's own thread needs the GIL to let go of the last exchange; DDP's destructor would wait for that thread
        # without giving the GIL up, for ever. A moment without the GIL is enough.
        time.sleep(0.05)
        dist.destroy_process_group()
