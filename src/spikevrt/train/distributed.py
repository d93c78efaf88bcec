"""The processes of a run: one, or several ranks under torchrun; how they stop, and the network spread over them.

A rank that is gone ends all others, with a status that is not 0: torchrun then starts those that are left, from the
last state (docs/scaling.md). The network is copied (DDP) or its parameters are sharded (FSDP2), and compiled where
asked for.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import rendezvous
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from spikevrt.data.dataset import ClipStream, EpochDataset, StreamedDataset, collate
from spikevrt.model.blocks import RTMSA, TMSA
from spikevrt.model.vrt import Stage

if TYPE_CHECKING:
    from spikevrt.config import Config

JOIN_TIMEOUT = timedelta(minutes=10)  # for all ranks to have started, as torchrun's join_timeout
MAX_KINDS_OF_BLOCK = 256  # by width, size, window, shift; torch's own limit of 8 would leave the others uncompiled
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
        """All ranks in a row, as FSDP expects them."""
        return init_device_mesh(device.type, (self.world,))

    def wait(self) -> None:
        """Go on when all are here."""
        if self.world > 1:
            dist.barrier()


@contextlib.contextmanager
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
            # torchrun offers its restarted processes the store of those before, at addresses where nobody listens. (Of
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


class StopRequest:
    """Inside the block, `signal_name` is the name of the first signal that came (in the main thread only)."""

    def __init__(self) -> None:
        self.signal_name = ""
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                self._former[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.signal_name = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}


def reset_worker_signals(worker_id: int) -> None:
    """In a loader worker: leave both signals to the main process, which still needs clips for the step in hand.

    Schedulers send them to every process of a job. A worker ends when the main process does.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """FSDP2: every rank keeps a share of each parameter; a stage is gathered when it runs, all else at once."""
    for module in network.modules():
        if isinstance(module, Stage | RTMSA):
            fully_shard(module, mesh=mesh)
    fully_shard(network, mesh=mesh)


def compile_blocks(network: nn.Module, trial: Callable[[nn.Module], None], *, visible: bool) -> None:
    """`torch.compile` of the transformer blocks, in place; where that fails, which is told in one line, without it.

    Blocks alone: blocks alike share a kernel, so a deep network takes no longer than a shallow one, and the rest (flow,
    sampling) gains nothing. `trial` runs a step through the network, so that a failure comes now and not in the middle
    of a run. Shapes are fixed; validation, whose sizes are others, runs what is not compiled (validation.py).
    """
    blocks = [module for module in network.modules() if isinstance(module, TMSA)]
    try:
        for block in blocks:
            block.compile(dynamic=False, recompile_limit=MAX_KINDS_OF_BLOCK)
        trial(network)
    except Exception as error:  # no compiler, an operator it does not know: dynamo and inductor raise many kinds
        if visible:
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            print(f"spikevrt: train.compile: torch.compile failed, going on without it ({reason})", file=sys.stderr)
        torch.compiler.reset()
        for block in blocks:
            block._compiled_call_impl = None  # where nn.Module.compile puts it; there is no call to undo it
        network.zero_grad(set_to_none=True)


def channels_last(network: nn.Module) -> None:
    """Lay out the kernels of all convolutions with the channels last, in place."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        elif isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def copies(module: nn.Module, device: torch.device) -> DistributedDataParallel:
    """DDP: every rank keeps all parameters; gradients are averaged."""
    return DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None)


@contextlib.contextmanager
def gradients_stay(trained: nn.Module, network: nn.Module, *, when: bool) -> Any:
    """While `when`: the gradients of this micro-batch are kept here; the last one's exchange covers them all."""
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(not when)
        yield
    elif when and isinstance(trained, DistributedDataParallel):
        with trained.no_sync():
            yield
    else:
        yield


def clip_gradients(network: nn.Module, max_norm: float) -> float:
    """Scale the gradients down to `max_norm`; returns their norm before, over all ranks."""
    norm = nn.utils.clip_grad_norm_(network.parameters(), max_norm)
    value = float(whole(norm))
    return value if math.isfinite(value) else math.nan


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be shared out among ranks, all of it, on each of them (all must call)."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def clip_loader(
    clips: EpochDataset, config: Config, ranks: Ranks, device: torch.device, *, samples: int, steps_left: int
) -> DataLoader[Any]:
    """Micro-batches of this rank for `steps_left` steps, from the place after `samples` clips of all ranks together."""
    start = samples - samples % ranks.world  # only another number of ranks than before leaves a rest
    clips_per_step = config.data.batch * config.train.accumulate * ranks.world
    stream = ClipStream(
        len(clips),
        seed=config.train.seed,
        start=start,
        stop=start + steps_left * clips_per_step,
        rank=ranks.rank,
        world=ranks.world,
    )
    return DataLoader(
        StreamedDataset(clips),
        batch_size=config.data.batch,
        sampler=stream,
        num_workers=config.data.workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        worker_init_fn=reset_worker_signals,
    )
