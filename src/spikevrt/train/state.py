"""All that the next step depends on: whole tensors by name, whatever the number of ranks and their kind.

So a run saved by four ranks with shared-out parameters goes on in one process, and the other way round. Random numbers
are drawn from (seed, step, rank), so no generator is in it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from spikevrt.model.weights import load_strict
from spikevrt.train.average import Average
from spikevrt.train.optim import packed, unpacked
from spikevrt.train.parallel import whole

_SAVED = StateDictOptions(full_state_dict=True, cpu_offload=True)
_LOADED = StateDictOptions(full_state_dict=True)


def weights(network: nn.Module, average: Average | None) -> dict[str, Tensor]:
    """The network's whole tensors, or the averaged ones where there is an average, on every rank (all must call)."""
    values = {name: whole(value.detach()) for name, value in network.state_dict().items()}
    return values if average is None else values | {name: whole(value) for name, value in average.values.items()}


def gather(
    network: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, average: Average | None
) -> dict[str, Any]:
    """The tensors of a run (all ranks must call; the first one's is complete)."""
    optimizer_state: dict[str, Any] = {"state": {}, "param_groups": []}
    if optimizer.state:  # where there is none yet, asking for it would take a step of size zero
        optimizer_state = packed(get_optimizer_state_dict(network, optimizer, options=_SAVED))
    return {
        "network": get_model_state_dict(network, options=_SAVED),
        "optimizer": optimizer_state,
        "scaler": scaler.state_dict(),
        "average": {} if average is None else {name: whole(value).cpu() for name, value in average.values.items()},
    }


def restore(
    saved: dict[str, Any],
    source: str,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: Average | None,
) -> None:
    """The inverse of `gather`, strictly. The optimiser keeps the settings of its groups, which may be others now.

    Raises:
        ValueError: tensors that do not fit the network, or an optimiser of another kind or over other parts.
    """
    if not any(isinstance(p, DTensor) for p in network.parameters()):
        load_strict(network, saved["network"], source)
    else:
        set_model_state_dict(network, saved["network"], options=_LOADED)
    is_trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        # torch wants a state for what is trained and for nothing else: not for what stood still so far, or where every
        # step was skipped. What the next step trains is said afterwards.
        parameter.requires_grad_(id(parameter) in is_trained and name in saved["optimizer"]["state"])
    fresh = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    if saved["optimizer"]["state"]:
        try:
            optimizer_state = unpacked(saved["optimizer"], optimizer)
            set_optimizer_state_dict(network, optimizer, optimizer_state, options=_LOADED)
        except (RuntimeError, KeyError, ValueError, AssertionError) as error:
            reason = " ".join(str(error).split())[:160]
            raise ValueError(
                f"{source}: its optimiser state does not fit optim.kind and the lr factors ({reason})"
            ) from None
    for group, settings in zip(optimizer.param_groups, fresh, strict=True):
        group.update(settings)
    if scaler.is_enabled() and saved["scaler"]:
        scaler.load_state_dict(saved["scaler"])
    if average is not None:
        _restore_average(saved["average"] or saved["network"], average)


def _restore_average(saved: dict[str, Tensor], average: Average) -> None:
    """From the saved average, or, where none was kept so far, from the weights."""
    for name, value in average.values.items():
        new = saved[name].to(value.device)
        if isinstance(value, DTensor):
            new = distribute_tensor(new, value.device_mesh, value.placements)
        value.copy_(new)
