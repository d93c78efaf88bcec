"""The network over several ranks: whole copies (DDP), or its parameters shared out (FSDP2); compiled where asked for.

What torch provides, in the order that it needs: compile, wrap, clip, gather.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from spikevrt.model.blocks import RTMSA, TMSA
from spikevrt.model.stage import Stage

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

MAX_KINDS_OF_BLOCK = 256  # by width, size, window, shift; torch's own limit of 8 would leave the others uncompiled


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
