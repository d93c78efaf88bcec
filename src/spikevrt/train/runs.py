"""Runs on the disk: find them, sum each up in a line, compare two. Reads folders that `train/folder.py` writes.

What cannot be read is listed as damaged, with the reason; it never stops the list.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spikevrt.config import Config
from spikevrt.progress import text_table
from spikevrt.train.folder import CONFIG, RUN_INFO, differences
from spikevrt.train.journal import JOURNAL_FILE, read_journal, score_name, series
from spikevrt.typed import load_mapping, load_yaml

SHORT_HASH = 12  # characters
MAX_VALUE_CHARS = 60  # of one value in the lines of a comparison
HEAD = ("run", "score", "best dB", "at step", "blur dB", "steps", "last loss", "state", "data", "commit", "device")
NO_SETTING = ("config", "command")  # of run.json, told elsewhere or different in every run


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run in short. None: not known, or not there yet."""

    folder: Path
    state: str  # finished, unfinished (stopped or still running), damaged
    problem: str | None = None  # why damaged
    steps_done: int | None = None
    steps: int | None = None
    score: str | None = None  # what it is judged by: psnr_rgb, or reblur_psnr of a run without sharp frames
    best_db: float | None = None
    best_step: int | None = None
    blur_db: float | None = None  # psnr_rgb of the untouched input
    last_loss: float | None = None
    started: str | None = None
    data_hash: str | None = None
    commit: str | None = None
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs. A difference is (name, in a, in b); None where one has no such value."""

    a: RunSummary
    b: RunSummary
    settings: list[tuple[str, Any, Any]]
    environment: list[tuple[str, Any, Any]]
    score: str | None  # what both are judged by; None: not comparable, and the rest is empty
    scores: list[tuple[int, float, float]]  # (step, a, b) of every step at which both were validated
    best_gain_db: float | None  # best of b - best of a
    last_gain_db: float | None  # b - a at the last step that both have

    def values(self) -> dict[str, Any]:
        """As plain values, in which every difference has names."""
        plain = asdict(self)
        for key, name in (("settings", "name"), ("environment", "name"), ("scores", "step")):
            plain[key] = [dict(zip((name, "a", "b"), row, strict=True)) for row in plain[key]]
        return plain


def find_runs(folders: Iterable[str | Path]) -> list[Path]:
    """Every run in or below `folders`, each once, in the order of their paths. A run's own folders are not searched.

    Raises:
        FileNotFoundError: no such folder (named).
        NotADirectoryError: a file.
    """
    found: dict[Path, Path] = {}  # by its true place: two ways may lead to one run
    for folder in map(Path, folders):
        if not folder.exists():
            raise FileNotFoundError(f"{folder}: no such folder")
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder}: not a folder")
        unreadable: list[OSError] = []
        for path, names, files in os.walk(folder, onerror=unreadable.append):
            names[:] = sorted(name for name in names if not name.startswith("."))
            if _is_run(set(files)):
                names.clear()
                found.setdefault(Path(path).resolve(), Path(path))
        for error in unreadable:  # perhaps a run: its summary will say what is wrong
            found.setdefault(Path(error.filename).absolute(), Path(error.filename))
    return list(found.values())


def summarise(folder: str | Path) -> RunSummary:
    """Sum up the run in `folder`. Never raises for what the folder holds: the run is then `damaged`."""
    return _read(Path(folder))[0]


def list_runs(folders: Iterable[str | Path]) -> list[RunSummary]:
    """All runs below `folders`, the best first: by psnr_rgb, then those with another score, without one, damaged.

    Raises as `find_runs` does.
    """
    return sorted((summarise(folder) for folder in find_runs(folders)), key=_rank)


def compare(a: str | Path, b: str | Path) -> Comparison:
    """What differs between two runs, and what came of it. Settings that a run does not name count with their defaults.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: not a run, or a damaged one (named, with the reason).
    """
    (run_a, config_a, about_a, rows_a), (run_b, config_b, about_b, rows_b) = (_sound(Path(path)) for path in (a, b))
    score = run_a.score if run_a.score == run_b.score else None
    scores_a, scores_b = (_scores(rows, score) for rows in (rows_a, rows_b))
    both = [(step, scores_a[step], scores_b[step]) for step in sorted(scores_a.keys() & scores_b.keys())]
    best = None
    if score is not None and run_a.best_db is not None and run_b.best_db is not None:
        best = run_b.best_db - run_a.best_db
    return Comparison(
        a=run_a,
        b=run_b,
        settings=sorted(differences(config_a, config_b)),
        environment=sorted(differences(about_a, about_b)),
        score=score,
        scores=both,
        best_gain_db=best,
        last_gain_db=both[-1][2] - both[-1][1] if both else None,
    )


def _is_run(files: set[str]) -> bool:
    """At least two of the three: one name alone is no evidence of a run."""
    return len({CONFIG, RUN_INFO, JOURNAL_FILE} & files) >= 2


def _sound(folder: Path) -> tuple[RunSummary, dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: no such folder")
    if not folder.is_dir() or not _is_run({path.name for path in folder.iterdir()}):
        raise ValueError(f"{folder}: not a run (a run has {CONFIG}, {RUN_INFO} and {JOURNAL_FILE})")
    parts = _read(folder)
    if parts[0].problem is not None:
        raise ValueError(f"{folder}: damaged: {parts[0].problem}")
    return parts


def _read(folder: Path) -> tuple[RunSummary, dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """(summary, settings, environment, journal rows); of a damaged run the summary alone is of use."""
    try:
        config = _settings(folder)
        about = load_mapping(folder / RUN_INFO)
        rows = _rows(folder)
    except (ValueError, OSError) as error:
        return RunSummary(folder=folder, state="damaged", problem=_reason(error, folder)), {}, {}, []
    steps = config["optim"]["steps"]
    done = max((row["step"] for row in rows), default=0)
    score = score_name(rows)
    scores = _scores(rows, score)
    best_step = max(scores, key=lambda step: (scores[step], -step)) if scores else None
    blurs, losses = series(rows, "validation", "psnr_rgb_blur"), series(rows, "train", "loss")
    environment = about.get("environment")
    environment = environment if isinstance(environment, dict) else {}
    run = RunSummary(
        folder=folder,
        state="finished" if done >= steps else "unfinished",
        steps_done=done,
        steps=steps,
        score=score,
        best_db=None if best_step is None else scores[best_step],
        best_step=best_step,
        blur_db=blurs[-1][1] if blurs else None,
        last_loss=losses[-1][1] if losses else None,
        started=_text(about.get("started")),
        data_hash=_short(about.get("data_hash")),
        commit=_short(environment.get("commit")),
        device=_text(environment.get("device")),
    )
    flat = {name: value for name, value in (about | environment).items() if name not in (*NO_SETTING, "environment")}
    return run, config, flat, rows


def _settings(folder: Path) -> dict[str, Any]:
    values = load_yaml(folder / CONFIG)
    if not isinstance(values, dict):
        raise ValueError(f"{CONFIG} is no mapping")
    try:
        return Config.from_dict(values).to_dict()
    except ValueError:  # of another version, whose settings were others: taken as it is
        optim = values.get("optim")
        steps = optim.get("steps") if isinstance(optim, dict) else None
        if not isinstance(steps, int) or isinstance(steps, bool):
            raise ValueError(f"{CONFIG} has no optim.steps") from None
        return values


def _rows(folder: Path) -> list[dict[str, Any]]:
    """The journal's rows; none where no journal has been begun. Raises ValueError on a row that is none."""
    return read_journal(folder) if (folder / JOURNAL_FILE).exists() else []


def _scores(rows: Sequence[dict[str, Any]], score: str | None) -> dict[int, float]:
    return {} if score is None else dict(series(rows, "validation", score))


def _rank(run: RunSummary) -> tuple[int, float, str]:
    group = 3 if run.state == "damaged" else 2 if run.best_db is None else int(run.score != "psnr_rgb")
    return group, -(run.best_db or 0.0), str(run.folder)


def _reason(error: Exception, folder: Path) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{Path(error.filename).name}: {error.strerror}"
    return " ".join(str(error).replace(f"{folder}{os.sep}", "").split())


def _short(value: Any) -> str | None:
    """The first characters of a hash; `-dirty` stays, because it says that the commit is not the code."""
    if not isinstance(value, str):
        return None
    return value[:SHORT_HASH] + ("-dirty" if value.endswith("-dirty") and len(value) > SHORT_HASH else "")


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def listed(runs: Sequence[RunSummary]) -> list[str]:
    """A table of the runs that can be read, and a line for each that cannot."""
    sound = [_line(run) for run in runs if run.problem is None]
    lines = text_table([HEAD, *sound], left=(0, 1, 7, 8, 9, 10)) if sound else []
    return lines + [f"{run.folder}: damaged: {run.problem}" for run in runs if run.problem is not None]


def _line(run: RunSummary) -> list[str]:
    return [
        str(run.folder), _or_dash(run.score), _or_dash(run.best_db, ".2f"), _or_dash(run.best_step),
        _or_dash(run.blur_db, ".2f"), f"{run.steps_done}/{run.steps}", _or_dash(run.last_loss, ".4f"), run.state,
        _or_dash(run.data_hash), _or_dash(run.commit), _or_dash(run.device),
    ]  # fmt: skip


def told(comparison: Comparison) -> list[str]:
    """The comparison in lines: what differs, then the scores step by step."""
    a, b = comparison.a, comparison.b
    lines = [f"a: {a.folder}", f"b: {b.folder}"]
    for title, rows in (("settings", comparison.settings), ("environment", comparison.environment)):
        lines_of = [[title, "a", "b"], *([name, _shown(x), _shown(y)] for name, x, y in rows)]
        lines += ["", *(text_table(lines_of, left=range(3)) if rows else [f"{title}: the same"])]
    lines.append("")
    if a.data_hash != b.data_hash:
        lines.append("the data differ (data_hash): the scores are of different pictures")
    if comparison.score is None:
        return [*lines, f"scores: not comparable (a: {_or_dash(a.score)}, b: {_or_dash(b.score)})"]
    if not comparison.scores:
        lines.append("no step at which both were validated")
    else:
        head = ["step", f"{comparison.score} a, dB", "b, dB", "b - a, dB"]
        scores = [[str(step), f"{x:.2f}", f"{y:.2f}", f"{y - x:+.2f}"] for step, x, y in comparison.scores]
        lines += text_table([head, *scores], left=())
    if comparison.best_gain_db is not None:
        best = f"{a.best_db:.2f} (step {a.best_step}) and {b.best_db:.2f} (step {b.best_step})"
        lines.append(f"best: {best}, {comparison.best_gain_db:+.2f} dB")
    if comparison.last_gain_db is not None:
        lines.append(f"last step of both, {comparison.scores[-1][0]}: {comparison.last_gain_db:+.2f} dB")
    return lines


def _shown(value: Any) -> str:
    text = "-" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= MAX_VALUE_CHARS else text[: MAX_VALUE_CHARS - 3] + "..."


def _or_dash(value: Any, spec: str = "") -> str:
    return "-" if value is None else format(value, spec)
