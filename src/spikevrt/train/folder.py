"""The folder of a run: what it is made of, who may write into it, and what a resumed run must agree with.

`config.yaml run.json journal.jsonl curves.png tensorboard/ pictures/ best.safetensors last.safetensors last.state
previous.state kept/ skipped/`
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from spikevrt import checkpoint, runtime
from spikevrt.atomic import complete_or_absent, is_unfinished, remove_unfinished, write_text
from spikevrt.checkpoint import WeightsInfo
from spikevrt.config import Config
from spikevrt.train.journal import JOURNAL_FILE, TENSORBOARD_FOLDER

if TYPE_CHECKING:
    from torch import Tensor

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
    mean, std = _statistics(config, info)
    provenance = _provenance(config, info) | {
        "step": step,
        **{f"val_{name}": value for name, value in score.items()},
        "commit": runtime.git_commit(),
        "versions": runtime.versions(),
    }
    checkpoint.save_weights(path, tensors, WeightsInfo(config.model, mean, std, provenance))


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
    os.replace(out / NEW_STATE, out / STATE)


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


def load(out: Path, config: Config, *, told: bool = True) -> dict[str, Any]:
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


def check_data(state: dict[str, Any], config: Config, info: DatasetInfo, *, told: bool = True) -> None:
    """Refuse to go on with voxels normalised differently; tell (if `told`) of other data. Raises ValueError."""
    if told and state["data_hash"] != info.data_hash:
        print(
            f"spikevrt: resuming on other data: data_hash {info.data_hash[:12]} (was {state['data_hash'][:12]})",
            file=sys.stderr,
        )
    before, now = tuple(state["statistics"]), _statistics(config, info)
    if before != now:
        raise ValueError(f"{info.root}: voxel mean and std {now}, but the run was trained with {before}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _started(out: Path) -> str:
    """When the run that is resumed was started first."""
    try:
        return str(json.loads((out / RUN_INFO).read_text(encoding="utf-8"))["started"])
    except (OSError, ValueError, KeyError, TypeError):
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
