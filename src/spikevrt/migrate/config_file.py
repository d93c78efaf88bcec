"""Turn a config of an older VRT+Spike (upper-case YAML) into one of ours; every key of it is accounted for.

A key is taken over, or needs nothing and is left out with the reason, or is refused with the reason. `keys` says which.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from spikevrt.atomic import write_text
from spikevrt.config import CHECKPOINT_PARTS, Config
from spikevrt.migrate.keys import KEYS, Key, older_defaults
from spikevrt.migrate.rules import CONVERTED, Nothing, Others, Settings, number, plain
from spikevrt.typed import load_yaml

MAX_DEPTH, MAX_KEYS = 10, 2_000  # of a file; aliases can make it endless
MAX_VALUE_CHARS = 80  # shown of one value
BY_NAME: dict[str, Key] = {name: key for key in KEYS for name in key.old}
COMMANDS = ("prepare", "train", "torchrun")  # first words of a `new` that is an option and no setting


@dataclass(frozen=True)
class Converted:
    """What became of one old key."""

    old: str
    value: Any
    became: str  # the new setting with its value, "nothing to set: ..." or the reason of the refusal
    refused: bool
    is_named: bool = True  # False: the older code's own value, where the config named none

    def __str__(self) -> str:
        unnamed = "" if self.is_named else " (not named: the older code's own)"
        return f"{self.old} = {_shown(self.value)}{unnamed} {'refused:' if self.refused else '->'} {self.became}"


@dataclass(frozen=True)
class Imported:
    """The new config (of the keys that were not refused; the rest has its defaults), a line for every old key, and
    the options of commands, such as {"prepare --num-bins": 32}."""

    config: Config
    lines: tuple[Converted, ...]
    options: dict[str, Any]

    @property
    def refused(self) -> tuple[Converted, ...]:
        return tuple(line for line in self.lines if line.refused)

    def commands(self, config: str = "NEW.yaml") -> list[str]:
        """What to type next, where the new config lies at `config`: `spikevrt prepare`, then `spikevrt train`."""
        words: dict[str, list[str]] = {command: [] for command in COMMANDS}
        for option, value in self.options.items():
            command, name = option.split()
            text = [] if value is True else [shlex.quote(str(value))]
            words[command] += text if name.isupper() else [name, *text]
        found = []
        is_prepared = "prepare DATASET" not in self.options and self.config.data.root != Config().data.root
        if words["prepare"] and not is_prepared:
            found.append(" ".join(["spikevrt", "prepare", *words["prepare"]]))
        if words["train"] or words["torchrun"]:
            start = ["torchrun", *words["torchrun"], "-m", "spikevrt"] if words["torchrun"] else ["spikevrt"]
            found.append(" ".join([*start, "train", shlex.quote(config), *words["train"]]))
        return found


def write_config(out: Path, old: Path, imported: Imported, init: Path | None = None) -> None:
    """Write the new config, above it in comments what `old` said that is not in it; `init`: the converted weights."""
    head = [f"From {old.name}, by `spikevrt config import`."]
    head += [f"Give to the command: {command}" for command in imported.commands(str(out))]
    head += [f"Not in it: {line}" for line in imported.refused]
    text = "".join(f"# {' '.join(line.split())}\n" for line in head)
    values = imported.config.to_dict()
    if init is not None:
        values["train"]["init"] = str(init)
    write_text(out, text + yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def read_old_config(path: str | Path) -> dict[str, Any]:
    """Every key of an upper-case YAML file as (dotted name, value), in its order. Nothing in it is executed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, not a mapping, empty, a key twice, or too deep or too long to be a config.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such config file")
    values = load_yaml(path)
    if not isinstance(values, dict) or not values:
        raise ValueError(f"{path}: a config is a YAML mapping")
    old: dict[str, Any] = {}
    for name, value, depth in _leaves(values, "", 1):
        if depth > MAX_DEPTH:
            raise ValueError(f"{path}: nested more than {MAX_DEPTH} deep; this is no config")
        if name in old:
            raise ValueError(f"{path}: {name} is given twice")
        old[name] = value
        if len(old) > MAX_KEYS:
            raise ValueError(f"{path}: more than {MAX_KEYS} keys; this is no config")
    return old


def import_config(old: Others, *, with_checkpoint: bool = False) -> Imported:
    """Convert the keys of `read_old_config`. A key that is refused is left out; its line says why.

    `with_checkpoint`: the run's weights are converted too, and are what training starts from.
    """
    taken: dict[str, dict[str, Any]] = {}  # old name -> new settings
    told: dict[str, str] = {}
    refused: dict[str, str] = {}
    every = {**old, **older_defaults(old)}
    others = {**every, CONVERTED: True} if with_checkpoint else every
    for name, value in every.items():
        key = _known(name)
        if key is None:
            refused[name] = _unknown(name)
            continue
        try:
            new = key.rule(value, others)
        except ValueError as error:
            refused[name] = "; ".join(filter(None, [key.remark if not key.new else "", str(error)]))
            continue
        if isinstance(new, Nothing):
            told[name] = f"nothing to set: {new}"
        elif new is None:
            told[name] = f"nothing to set: {key.remark if not key.new else 'it is off without being named'}"
        else:
            taken[name] = dict(new) if isinstance(new, Settings) else dict.fromkeys(key.new, new)
    _refuse_contradictions(every, taken, refused)
    _leave_out_the_spikes(taken, told)
    config = _build(taken, refused)
    lines = []
    for name, value in every.items():
        became = refused.get(name) or told.get(name) or _described(name, taken[name])
        lines.append(Converted(name, value, became, name in refused, name in old))
    options = {new: value for chosen in taken.values() for new, value in chosen.items() if _is_option(new)}
    return Imported(config, tuple(lines), options)


def _known(name: str) -> Key | None:
    """The row of a key; VRT's own settings are written small, too."""
    is_of_vrt = name.startswith(("MODEL.VRT.", "MODEL.VRT_CFG."))
    return BY_NAME.get(name.upper() if is_of_vrt else name)


def standardisation(old: Others) -> dict[str, float]:
    """Mean and std with which the old run standardised its voxels, as its config says; none: 0 and 1.

    Raises:
        ValueError: one of them is no number.
    """
    found = {"mean": 0.0, "std": 1.0}
    for name, value in old.items():
        end = name.rpartition(".")[2].lower().rpartition("_")[2]
        if name.startswith("DATA.") and end in found and BY_NAME.get(name) is BY_NAME["DATA.NORM.MEAN"]:
            try:
                found[end] = number(value, old)
            except ValueError as error:
                raise ValueError(f"{name}: {_shown(value)}; {error}") from None
    return found


def _refuse_contradictions(old: Others, taken: dict[str, dict[str, Any]], refused: dict[str, str]) -> None:
    """Two old keys for one setting must agree; those that do not are moved from `taken` to `refused`."""
    wanted: dict[str, dict[str, Any]] = {}
    for name, settings in taken.items():
        for setting, value in settings.items():
            wanted.setdefault(setting, {})[name] = value
    for setting, values in wanted.items():
        if any(value != next(iter(values.values())) for value in values.values()):
            for name in values:
                others = ", ".join(f"{other} = {_shown(old[other])}" for other in values if other != name)
                refused.setdefault(name, f"contradicts {others}: they are one setting, {documented(setting)}")
                taken.pop(name, None)


def _leave_out_the_spikes(taken: dict[str, dict[str, Any]], told: dict[str, str]) -> None:
    """A network without a spike branch has none of its settings."""
    without = [name for name, settings in taken.items() if settings.get("model.spikes") is False]
    if not without:
        return
    for name in list(taken):
        kept = {new: value for new, value in taken[name].items() if not _is_of_spikes(new)}
        if not kept:
            told[name] = f"nothing to set: {without[0]} leaves out the spike branch"
            del taken[name]
        else:
            taken[name] = kept


def _is_of_spikes(new: str) -> bool:
    return new.startswith("model.spikes.") or new in ("model.checkpoint:spikes", "model.checkpoint:fusion")


def _build(taken: dict[str, dict[str, Any]], refused: dict[str, str]) -> Config:
    """The config of what is taken. Settings that it refuses are moved to `refused`, until the rest is a config."""
    while True:
        try:
            return Config.from_dict(_nested(taken))
        except ValueError as error:
            guilty = [name for name, new in taken.items() if any(_is_named(setting, str(error)) for setting in new)]
            if not guilty:
                raise
            for name in guilty:
                refused[name] = str(error)
                del taken[name]


def _is_named(setting: str, message: str) -> bool:
    """Whether the message of a refused config speaks of this setting, by its whole name or within its section."""
    section, _, last = setting.partition(":")[0].rpartition(".")
    whole = re.search(rf"{re.escape(section)}\.{re.escape(last)}\b", message)
    return bool(whole) or (message.startswith(section) and bool(re.search(rf"\b{re.escape(last)}\b", message)))


def _nested(taken: dict[str, dict[str, Any]]) -> dict[str, Any]:
    settings = {new: value for chosen in taken.values() for new, value in chosen.items() if not _is_option(new)}
    tree: dict[str, Any] = {}
    parts = [part for part in CHECKPOINT_PARTS if settings.pop(f"model.checkpoint:{part}", False)]
    if parts:
        tree["model"] = {"checkpoint": parts}
    if settings.pop("model.spikes", True) is False:
        tree.setdefault("model", {})["spikes"] = None
    for name, value in settings.items():
        *sections, last = name.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    return tree


def _is_option(new: str) -> bool:
    return new.split()[0] in COMMANDS


def _described(name: str, settings: dict[str, Any]) -> str:
    key = _known(name)
    assert key is not None
    parts = {new.partition(":")[2]: value for new, value in settings.items() if ":" in new}
    told = [_setting(new, value) for new, value in settings.items() if ":" not in new]
    if parts:  # a key turns all of its parts on or off
        told.append(f"model.checkpoint {'with' if any(parts.values()) else 'without'} {', '.join(parts)}")
    return ", ".join(told) + (f" ({key.remark})" if key.is_told else "")


def _setting(new: str, value: Any) -> str:
    if new == "model.spikes":
        return "a spike branch (model.spikes)" if value else f"{new} = null"
    if new.split()[-1].isupper():
        return f"spikevrt {new.split()[0]} {_shown(value)}"
    if _is_option(new):
        return f"{documented(new)}{'' if value is True else f' {_shown(value)}'}"
    return f"{new} = {_shown(value)}"


def documented(new: str) -> str:
    """How a `new` of the table is written for people."""
    if _is_option(new):
        return new if new.startswith("torchrun") else f"spikevrt {new}"
    return new.partition(":")[0]


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name.upper(), BY_NAME, n=1)
    return f"unknown key{f'; the nearest known is {near[0]}' if near else ''}"


def _shown(value: Any) -> str:
    """A value on one line."""
    text = " ".join(plain(value).split())
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[: MAX_VALUE_CHARS - 3]}..."


def _leaves(values: dict[Any, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any, int]]:
    """(dotted name, value, depth) of every key that holds no further keys, or lies too deep to be looked into.

    A section with nothing in it is a key whose value is an empty mapping.
    """
    for key, value in values.items():
        if isinstance(value, dict) and value and depth <= MAX_DEPTH:
            yield from _leaves(value, f"{prefix}{key}.", depth + 1)
        else:
            yield f"{prefix}{key}", value, depth
