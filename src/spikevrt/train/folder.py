"""The folder of a run: what it is made of, who may write into it, and what a resumed run must agree with.

`config.yaml run.json journal.jsonl tensorboard/ pictures/ best.safetensors last.safetensors last.state`
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from spikevrt import checkpoint, runtime
from spikevrt.checkpoint import WeightsInfo
from spikevrt.config import Config
from spikevrt.train.journal import JOURNAL_FILE, TENSORBOARD_FOLDER

if TYPE_CHECKING:
    from torch import nn

    from spikevrt.data.dataset import DatasetInfo

CONFIG, RUN_INFO = "config.yaml", "run.json"
BEST_WEIGHTS, LAST_WEIGHTS, STATE = "best.safetensors", "last.safetensors", "last.state"
PICTURES = "pictures"
STATE_FORMAT = 1


def check(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that must not be written to.

    Raises:
        FileExistsError: it exists and is neither to be resumed nor overwritten.
        FileNotFoundError: it is to be resumed and holds no state.
        ValueError: both `resume` and `overwrite`, or `overwrite` of something that is no run.
    """
    if resume and overwrite:
        raise ValueError("--resume and --overwrite: choose one")
    if resume:
        if not (out / STATE).is_file():
            raise FileNotFoundError(f"{out / STATE}: no such state; there is nothing to resume")
    elif out.exists():
        if not overwrite:
            raise FileExistsError(f"{out}: exists; choose another --out or pass --overwrite")
        if not out.is_dir() or (any(out.iterdir()) and not (out / CONFIG).is_file()):
            raise ValueError(f"{out}: is no folder of a run (no {CONFIG}); --overwrite replaces nothing else")


def create(out: Path, config: Config, info: DatasetInfo, world: int, *, resume: bool) -> None:
    """Make the folder (an earlier run in it is removed unless resumed); write `config.yaml` and `run.json`."""
    out.mkdir(parents=True, exist_ok=True)
    if not resume:
        for name in (RUN_INFO, JOURNAL_FILE, BEST_WEIGHTS, LAST_WEIGHTS, STATE):
            (out / name).unlink(missing_ok=True)
        for name in (PICTURES, TENSORBOARD_FOLDER):
            shutil.rmtree(out / name, ignore_errors=True)
    _write(out / CONFIG, yaml.safe_dump(config.to_dict(), sort_keys=False))
    about = _provenance(config, info) | {
        "num_ranks": world,
        "environment": runtime.environment(runtime.pick_device(config.train.device)),
    }
    _write(out / RUN_INFO, json.dumps(about, indent=2) + "\n")


def save_weights(
    path: Path, network: nn.Module, config: Config, info: DatasetInfo, step: int, psnr_rgb: float | None
) -> None:
    """Weights with all that is needed to use them and to know where they come from."""
    mean, std = _statistics(config, info)
    provenance = _provenance(config, info) | {
        "step": step,
        "val_psnr_rgb": psnr_rgb,
        "commit": runtime.git_commit(),
        "versions": runtime.versions(),
    }
    checkpoint.save_weights(path, network.state_dict(), WeightsInfo(config.model, mean, std, provenance))


def save(out: Path, config: Config, info: DatasetInfo, state: dict[str, Any]) -> None:
    """Write the state to resume from, with what it must agree with."""
    agree = {"format": STATE_FORMAT, "config": config.to_dict(), "statistics": list(_statistics(config, info))}
    checkpoint.save_state(out / STATE, state | agree)


def load(out: Path, config: Config) -> dict[str, Any]:
    """Read the state. Every setting is obeyed; those that differ from the saved run's are named on stderr.

    Raises:
        ValueError: damaged, of another format, or for another network.
    """
    state = checkpoint.load_state(out / STATE)
    if state.get("format") != STATE_FORMAT:
        raise ValueError(f"{out / STATE}: training state format {state.get('format')}; expected {STATE_FORMAT}")
    for name, before, now in differences(state["config"], config.to_dict()):
        if name.startswith("model.") and name != "model.checkpoint":
            raise ValueError(f"{name}: {now}, but {out} was trained with {before}; a resumed run keeps its network")
        print(f"spikevrt: resuming with {name} {now} (was {before})", file=sys.stderr)
    return state


def check_statistics(state: dict[str, Any], config: Config, info: DatasetInfo) -> None:
    """Refuse to go on with voxels normalised differently. Raises ValueError."""
    before, now = tuple(state["statistics"]), _statistics(config, info)
    if before != now:
        raise ValueError(f"{info.root}: voxel mean and std {now}, but the run was trained with {before}")


def _statistics(config: Config, info: DatasetInfo) -> tuple[float, float]:
    return (0.0, 1.0) if config.model.spikes is None else (info.stats.mean, info.stats.std)


def _provenance(config: Config, info: DatasetInfo) -> dict[str, Any]:
    return {"seed": config.train.seed, "data_hash": info.data_hash, "config": config.to_dict()}


def differences(before: Any, now: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted name, value before, value now) of every plain value that differs; None where one has none."""
    if isinstance(before, dict) and isinstance(now, dict):
        prefix = f"{name}." if name else ""
        pairs = ((f"{prefix}{key}", before.get(key), now.get(key)) for key in [*now, *(before.keys() - now.keys())])
        return [row for key, b, n in pairs for row in differences(b, n, key)]
    return [] if before == now else [(name, before, now)]


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
