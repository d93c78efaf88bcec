"""`spikevrt runs`."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikevrt.verbs.options import add_verb

if TYPE_CHECKING:
    from spikevrt.train.runs import Comparison, RunSummary

DEFAULT_FOLDER = Path("runs")
MAX_VALUE_CHARS = 60  # of one value in a comparison; --json has them whole


def add(verbs: Any) -> None:
    parser = add_verb(verbs, "runs", _runs, "spikevrt runs --compare runs/tiny runs/tiny_rgb --plot curves.png")
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="run, or folder of runs (runs)")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="two runs instead of a list")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="with --compare: draw the curves of both")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --plot")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")


def _runs(parsed: argparse.Namespace) -> None:
    """List training runs, the best first; or compare two: settings, environment, scores, curves."""
    if parsed.compare is None:
        if parsed.plot is not None:
            raise ValueError("--plot: only with --compare A B")
        if parsed.overwrite:
            raise ValueError("--overwrite: only with --plot")
        _list(parsed.folders or [DEFAULT_FOLDER], as_json=parsed.json)
    else:
        if parsed.folders:
            raise ValueError(f"{parsed.folders[0]}: no folder besides the two of --compare")
        a, b = parsed.compare
        _compare(a, b, parsed.plot, overwrite=parsed.overwrite, as_json=parsed.json)


def _list(folders: Sequence[Path], *, as_json: bool) -> None:
    from spikevrt.train.runs import list_runs

    runs = list_runs(folders)
    if as_json:
        print(json.dumps({"runs": [_plain(run) for run in runs]}, indent=2))
    elif not runs:
        print(f"no runs in {', '.join(map(str, folders))}")
    else:
        head = ["run", "score", "best dB", "at step", "blur dB", "steps", "last loss", "state", "data", "commit"]
        sound = [_line(run) for run in runs if run.problem is None]
        lines = _aligned([[*head, "device"], *sound]) if sound else []
        lines += [f"{run.folder}: damaged: {run.problem}" for run in runs if run.problem is not None]
        print("\n".join(lines))


def _line(run: RunSummary) -> list[str]:
    return [
        str(run.folder), _or_dash(run.score), _or_dash(run.best_db, ".2f"), _or_dash(run.best_step),
        _or_dash(run.blur_db, ".2f"), f"{run.steps_done}/{run.steps}", _or_dash(run.last_loss, ".4f"), run.state,
        _or_dash(run.data_hash), _or_dash(run.commit), _or_dash(run.device),
    ]  # fmt: skip


def _compare(a: Path, b: Path, plot: Path | None, *, overwrite: bool, as_json: bool) -> None:
    from spikevrt.report.curves import draw_comparison
    from spikevrt.train.journal import read_journal
    from spikevrt.train.runs import compare

    if overwrite and plot is None:
        raise ValueError("--overwrite: only with --plot")
    if plot is not None:
        if plot.exists() and not (overwrite and plot.is_file()):
            hint = " or pass --overwrite" if plot.is_file() else ""
            raise FileExistsError(f"{plot}: exists; choose another --plot{hint}")
        if plot.suffix.lower() != ".png":
            raise ValueError(f"--plot: {plot}; allowed: a name that ends in .png")
    comparison = compare(a, b)
    if plot is not None:
        plot.parent.mkdir(parents=True, exist_ok=True)
        draw_comparison([(str(path), read_journal(path)) for path in (a, b)], plot)
    print(json.dumps(_plain_comparison(comparison), indent=2) if as_json else "\n".join(_told(comparison)))
    if plot is not None and not as_json:
        print(f"curves -> {plot}")


def _told(comparison: Comparison) -> list[str]:
    a, b = comparison.a, comparison.b
    lines = [f"a: {a.folder}", f"b: {b.folder}"]
    for title, rows in (("settings", comparison.settings), ("environment", comparison.environment)):
        table = [[title, "a", "b"], *([name, _short(x), _short(y)] for name, x, y in rows)]
        lines += ["", *(_aligned(table, right=()) if rows else [f"{title}: the same"])]
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
        lines += _aligned([head, *scores], right=range(4))
    if comparison.best_gain_db is not None:
        best = f"{a.best_db:.2f} (step {a.best_step}) and {b.best_db:.2f} (step {b.best_step})"
        lines.append(f"best: {best}, {comparison.best_gain_db:+.2f} dB")
    if comparison.last_gain_db is not None:
        lines.append(f"last step of both, {comparison.scores[-1][0]}: {comparison.last_gain_db:+.2f} dB")
    return lines


def _plain_comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "a": _plain(comparison.a),
        "b": _plain(comparison.b),
        "settings": [{"name": name, "a": x, "b": y} for name, x, y in comparison.settings],
        "environment": [{"name": name, "a": x, "b": y} for name, x, y in comparison.environment],
        "score": comparison.score,
        "scores": [{"step": step, "a": x, "b": y} for step, x, y in comparison.scores],
        "best_gain_db": comparison.best_gain_db,
        "last_gain_db": comparison.last_gain_db,
    }


def _plain(run: RunSummary) -> dict[str, Any]:
    return dataclasses.asdict(run) | {"folder": str(run.folder)}


def _short(value: Any) -> str:
    text = "-" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= MAX_VALUE_CHARS else text[: MAX_VALUE_CHARS - 3] + "..."


def _or_dash(value: Any, spec: str = "") -> str:
    return "-" if value is None else format(value, spec)


def _aligned(rows: Sequence[Sequence[str]], *, right: Sequence[int] = (2, 3, 4, 5, 6)) -> list[str]:
    """Columns of equal width; those of `right` (numbers) end together, the others start together."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
