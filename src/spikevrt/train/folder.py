"""The folder of a run: what it is made of, who may write into it, what is saved, what a resumed run must agree with.

`config.yaml run.json journal.jsonl curves.png tensorboard/ pictures/ best.safetensors last.safetensors last.state
previous.state kept/ skipped/`
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import yaml
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from spikevrt import checkpoint, runtime
from spikevrt.atomic import complete_or_absent, is_unfinished, put_in_place, remove_unfinished, write_text
from spikevrt.checkpoint import WeightsInfo
from spikevrt.config import Config
from spikevrt.model import load_strict
from spikevrt.train.distributed import whole
from spikevrt.train.journal import JOURNAL_FILE, TENSORBOARD_FOLDER
from spikevrt.train.optim import Average, packed, unpacked
from spikevrt.typed import load_mapping

if TYPE_CHECKING:
    from spikevrt.data.dataset import DatasetInfo

CONFIG, RUN_INFO = "config.yaml", "run.json"
BEST_WEIGHTS, LAST_WEIGHTS = "best.safetensors", "last.safetensors"
STATE, PREVIOUS_STATE, KEPT = "last.state", "previous.state", "kept"
NEW_STATE = "last.state.new"  # the newest for the moment between two renamings; under this name always complete
STATES = (NEW_STATE, STATE, PREVIOUS_STATE)  # the newest first
PICTURES, SKIPPED, CURVES = "pictures", "skipped", "curves.png"
STATE_FORMAT = 2
MAX_SKIPPED_BATCHES = 4  # that are saved to be looked at

Resume = bool | Literal["auto"]


def check(out: Path, *, resume: Resume, overwrite: bool) -> bool:
    """Refuse a folder that must not be written to; returns whether a run in it is to be resumed.

    `resume` "auto" resumes where there is a state and starts anew where there is none, also over a run that was ended
    before it saved one: what a scheduler that restarts the same command needs.

    Raises:
        FileExistsError: it exists and is neither to be resumed nor overwritten.
        FileNotFoundError: it is to be resumed and holds no state.
        ValueError: both `resume` and `overwrite`, or `overwrite` of something that is no run.
    """
    if resume and overwrite:
        raise ValueError("--resume and --overwrite: choose one")
    has_state = any((out / name).is_file() for name in STATES)
    if resume is True and not has_state:
        raise FileNotFoundError(f"{out / STATE}: no such state; there is nothing to resume")
    if resume and has_state:
        return True
    if out.exists():
        if not overwrite and resume != "auto":
            raise FileExistsError(f"{out}: exists; choose another --out or pass --overwrite")
        if not out.is_dir() or (any(_content(out)) and not (out / CONFIG).is_file()):
            raise ValueError(f"{out}: is no folder of a run (no {CONFIG}); --overwrite replaces nothing else")
    return False


def create(out: Path, config: Config, info: DatasetInfo, world: int, *, resume: bool) -> None:
    """Make the folder (an earlier run in it is removed unless resumed); write `config.yaml` and `run.json`."""
    out.mkdir(parents=True, exist_ok=True)
    remove_unfinished(out)
    if not resume:
        for name in (RUN_INFO, JOURNAL_FILE, CURVES, BEST_WEIGHTS, LAST_WEIGHTS, *STATES):
            (out / name).unlink(missing_ok=True)
        for name in (PICTURES, TENSORBOARD_FOLDER, KEPT, SKIPPED):
            shutil.rmtree(out / name, ignore_errors=True)
    write_text(out / CONFIG, yaml.safe_dump(config.to_dict(), sort_keys=False))
    about = _provenance(config, info) | {
        "started": _started(out) if resume else _now(),
        "num_ranks": world,
        "environment": runtime.environment(runtime.pick_device(config.train.device)),
    }
    write_text(out / RUN_INFO, json.dumps(about, indent=2) + "\n")


def save_weights(
    path: Path, tensors: dict[str, Tensor], config: Config, info: DatasetInfo, step: int, score: dict[str, float]
) -> None:
    """Weights with all that is needed to use them and to know where they come from."""
    described = weights_info(config, info, step)
    provenance = described.provenance | {
        **{f"val_{name}": value for name, value in score.items()},
        "commit": runtime.git_commit(),
        "versions": runtime.versions(),
    }
    checkpoint.save_weights(path, tensors, replace(described, provenance=provenance))


def weights_info(config: Config, info: DatasetInfo, step: int) -> WeightsInfo:
    """What the weights of a step say of themselves, but for their score."""
    mean, std = _statistics(config, info)
    return WeightsInfo(config.model, mean, std, _provenance(config, info) | {"step": step})


def save(out: Path, config: Config, info: DatasetInfo, state: dict[str, Any]) -> None:
    """Write the state to resume from, with what it must agree with; the one before it stays as `previous.state`.

    At any moment one of the two is there and complete. Raises OSError where it cannot be written.
    """
    agree = {
        "format": STATE_FORMAT,
        "config": config.to_dict(),
        "statistics": list(_statistics(config, info)),
        "data_hash": info.data_hash,
    }
    checkpoint.save_state(out / NEW_STATE, state | agree)
    if config.train.keep_every and state["step"] % config.train.keep_every == 0:
        kept = out / KEPT / f"{state['step']:06d}.state"
        try:
            _keep(out / NEW_STATE, kept)
        except OSError as error:
            print(f"spikevrt: {kept}: not kept ({error})", file=sys.stderr)
    if (out / STATE).exists():
        os.replace(out / STATE, out / PREVIOUS_STATE)
    put_in_place(out / NEW_STATE, out / STATE)


def _keep(state: Path, kept: Path) -> None:
    with complete_or_absent(kept) as partial:
        try:
            os.link(state, partial)  # a name more, no byte more
        except OSError:  # a file system without links
            shutil.copyfile(state, partial)


def _content(out: Path) -> list[Path]:
    """What is in the folder, but for files that a killed run had not finished."""
    return [path for path in out.iterdir() if not is_unfinished(path)]


def save_skipped(out: Path, step: int, rank: int, batches: list[dict[str, Any]]) -> Path | None:
    """Keep the micro-batches of a skipped step, the first few of a rank, to be looked at; None where there are enough.

    Raises OSError where they cannot be written.
    """
    path = out / SKIPPED / f"step{step:06d}_rank{rank}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    if len(list(path.parent.glob(f"step*_rank{rank}.pt"))) >= MAX_SKIPPED_BATCHES:
        return None
    checkpoint.save_state(path, {"step": step, "rank": rank, "batches": batches})
    return path


def divergence(out: Path, step: int, num_skipped: int) -> str:
    """The line that ends a run whose loss stays NaN."""
    state = out / STATE
    kept = f"the last good state is {state}" if state.is_file() else "no state was saved yet"
    return (
        f"train: loss or gradient was not finite in {num_skipped} steps in a row, up to step {step}; {kept}; "
        f"the first such batches are in {out / SKIPPED}; try a lower optim.lr or train.precision fp32"
    )


def load(out: Path, config: Config, *, told: bool) -> dict[str, Any]:
    """Read the newest state that is whole. Every setting is obeyed; those that differ from the saved run's are named
    on stderr (if `told`).

    Raises:
        ValueError: every state is damaged or of another format, or it is for another network.
    """
    state, path = _newest(out, told)
    if config.optim.steps < state.get("step", 0):
        raise ValueError(f"optim.steps: {config.optim.steps}; {path} has taken {state['step']}; allowed: that or more")
    if state.get("format") != STATE_FORMAT:
        raise ValueError(f"{path}: training state format {state.get('format')}; expected {STATE_FORMAT}")
    for name, before, now in differences(state["config"], config.to_dict()):
        if name.startswith("model.") and not name.startswith("model.checkpoint"):
            raise ValueError(f"{name}: {now}, but {out} was trained with {before}; a resumed run keeps its network")
        if told:
            print(f"spikevrt: resuming with {name} {now} (was {before})", file=sys.stderr)
    return state


def _newest(out: Path, told: bool) -> tuple[dict[str, Any], Path]:
    names = [name for name in STATES if (out / name).is_file()]
    for older, name in zip([*names[1:], None], names, strict=True):
        try:
            return checkpoint.load_state(out / name), out / name
        except ValueError as error:
            if older is None:
                raise
            if told:
                print(f"spikevrt: {error}; going on from {out / older}", file=sys.stderr)
    raise FileNotFoundError(f"{out / STATE}: no such state; there is nothing to resume")


def check_data(state: dict[str, Any], config: Config, info: DatasetInfo, *, told: bool) -> None:
    """Refuse to go on with voxels normalised differently; tell (if `told`) of other data. Raises ValueError."""
    if told and state["data_hash"] != info.data_hash:
        print(
            f"spikevrt: resuming on other data: data_hash {info.data_hash[:12]} (was {state['data_hash'][:12]})",
            file=sys.stderr,
        )
    before, now = tuple(state["statistics"]), _statistics(config, info)
    if before != now:
        raise ValueError(f"{info.root}: voxel mean and std {now}, but the run was trained with {before}")


def whole_weights(network: nn.Module, average: Average | None) -> dict[str, Tensor]:
    """The network's whole tensors, or the averaged ones where there is an average, on every rank (all must call)."""
    values = {name: whole(value.detach()) for name, value in network.state_dict().items()}
    return values if average is None else values | {name: whole(value) for name, value in average.values.items()}


def gather_state(
    network: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, average: Average | None
) -> dict[str, Any]:
    """The tensors that the next step depends on, whole and by name (all ranks must call; the first one's is complete).

    A state does not depend on the number of ranks or on their kind, and holds no generator: random numbers are drawn
    from (seed, step, rank).
    """
    saved = StateDictOptions(full_state_dict=True, cpu_offload=True)
    optimizer_state: dict[str, Any] = {"state": {}, "param_groups": []}
    if optimizer.state:  # where there is none yet, asking for it would take a step of size zero
        optimizer_state = packed(get_optimizer_state_dict(network, optimizer, options=saved))
    return {
        "network": get_model_state_dict(network, options=saved),
        "optimizer": optimizer_state,
        "scaler": scaler.state_dict(),
        "average": {} if average is None else {name: whole(value).cpu() for name, value in average.values.items()},
    }


def restore_state(
    saved: dict[str, Any],
    source: str,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: Average | None,
) -> None:
    """The inverse of `gather_state`, strictly. The optimiser keeps the settings of its groups, which may be others now.

    Raises:
        ValueError: tensors that do not fit the network, or an optimiser of another kind or over other parts.
    """
    loaded = StateDictOptions(full_state_dict=True)
    if not any(isinstance(p, DTensor) for p in network.parameters()):
        load_strict(network, saved["network"], source)
    else:
        set_model_state_dict(network, saved["network"], options=loaded)
    is_trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        # torch expects a state for what is trained and for nothing else: not for what was frozen so far, or where every
        # step was skipped. `set_trained` sets afterwards what the next step trains.
        parameter.requires_grad_(id(parameter) in is_trained and name in saved["optimizer"]["state"])
    fresh = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    if saved["optimizer"]["state"]:
        try:
            optimizer_state = unpacked(saved["optimizer"], optimizer)
            set_optimizer_state_dict(network, optimizer, optimizer_state, options=loaded)
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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _started(out: Path) -> str:
    """When the run that is resumed was started first."""
    try:
        return str(load_mapping(out / RUN_INFO)["started"])
    except (OSError, ValueError, KeyError):
        return _now()


def _statistics(config: Config, info: DatasetInfo) -> tuple[float, float]:
    return (0.0, 1.0) if config.model.spikes is None else (info.stats.mean, info.stats.std)


def _provenance(config: Config, info: DatasetInfo) -> dict[str, Any]:
    about = {"seed": config.train.seed, "data_hash": info.data_hash, "config": config.to_dict()}
    return about | ({"max_shift_ticks": info.max_shift_ticks} if info.max_shift_ticks else {})


def differences(before: Any, now: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted name, value before, value now) of every plain value that differs; None where one has none."""
    if isinstance(before, dict) and isinstance(now, dict):
        prefix = f"{name}." if name else ""
        pairs = ((f"{prefix}{key}", before.get(key), now.get(key)) for key in [*now, *(before.keys() - now.keys())])
        return [row for key, b, n in pairs for row in differences(b, n, key)]
    return [] if before == now else [(name, before, now)]
