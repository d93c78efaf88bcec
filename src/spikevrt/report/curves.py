"""Learning curves as pictures: one run's journal, or several runs side by side.

Drawn with matplotlib, without its global state, so that it may be called from any thread.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spikevrt.atomic import complete_or_absent
from spikevrt.train.folder import CURVES
from spikevrt.train.journal import SCORES, Rows, read_journal, score_name, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_POINTS = 400  # of one line; in longer journals a point stands for an equal run of rows
MAX_MARKERS = 60  # on one line
DPI = 110
TERM = "loss_"  # the terms of the loss: loss_charbonnier, loss_fft ...
GREY = "0.45"


def draw_curves(rows: Rows, path: str | Path, *, title: str = "") -> Path:
    """Draw one run: loss and its terms, validation score, learning rate, gradient norm. Replaces `path`.

    Raises:
        OSError: the file cannot be written; what stood there stays.
    """
    figure, panels = _figure(2, 2, (11.0, 7.0))
    train = [row for row in rows if row["kind"] == "train"]
    _draw_loss(panels[0], train)
    _draw_score(panels[1], rows)
    _line(panels[2], train, "lr", color="C0")
    _dress(panels[2], "learning rate")
    _line(panels[3], train, "grad_norm", color="C0", thin=max)
    _dress(panels[3], "gradient norm before clipping", log=True)
    _mark_skipped(panels[3], train)
    return _save(figure, panels, path, title)


def draw_run(folder: Path) -> None:
    """Draw the curves of a run's folder into its curves.png; where that cannot be written, the run goes on without."""
    with contextlib.suppress(OSError):  # the journal is there to draw them from at any time
        draw_curves(read_journal(folder), folder / CURVES, title=folder.name)


def draw_comparison(runs: Sequence[tuple[str, Rows]], path: str | Path, *, title: str = "") -> Path:
    """Draw the losses and validation scores of several runs, each (name, rows), over the same steps.

    Raises:
        OSError: the file cannot be written; what stood there stays.
    """
    figure, panels = _figure(1, 2, (12.0, 4.8))
    kinds = {kind for _, rows in runs if (kind := score_name(rows)) is not None}
    blurs: dict[float, list[str]] = {}
    for index, (name, rows) in enumerate(runs):
        train = [row for row in rows if row["kind"] == "train"]
        _loss_line(panels[0], train, "loss", f"C{index}", name)
        kind = score_name(rows)
        if kind is not None:
            label = name if len(kinds) == 1 else f"{name} ({kind})"
            at, best = _draw_scores(panels[1], series(rows, "validation", kind), label, f"C{index}")
            panels[1].plot([at], [best], color=f"C{index}", marker="*", markersize=13)
            panels[1].annotate(
                f"{best:.2f}", (at, best), xytext=(0, 8), textcoords="offset points", ha="center", color=f"C{index}"
            )
        blur = _last(series(rows, "validation", "psnr_rgb_blur"))
        if blur is not None:
            blurs.setdefault(blur, []).append(name)
    for blur, names in blurs.items():
        whose = "" if len(blurs) == 1 else f" ({', '.join(names)})"
        panels[1].axhline(blur, color=GREY, linestyle="--", linewidth=1, label=f"blurry input {blur:.2f}{whose}")
    _dress(panels[0], "training loss", log=True)
    _dress(panels[1], SCORES[next(iter(kinds))] if len(kinds) == 1 else "validation score, dB")
    if not kinds:
        _say(panels[1], "not validated yet")
    return _save(figure, panels, path, title)


def _draw_loss(panel: Axes, train: Rows) -> None:
    terms = sorted({name for row in train for name in row if name.startswith(TERM)})
    for index, name in enumerate(terms if len(terms) > 1 else ()):  # a single term is the loss
        _loss_line(panel, train, name, f"C{index + 1}", name.removeprefix(TERM))
    _loss_line(panel, train, "loss", "C0", "loss")
    _dress(panel, "training loss", log=True)


def _draw_score(panel: Axes, rows: Rows) -> None:
    name = score_name(rows)
    _dress(panel, SCORES[name or "psnr_rgb"])
    if name is None:
        _say(panel, "not validated yet")
        return
    at, best = _draw_scores(panel, series(rows, "validation", name), name, "C0")
    panel.plot([at], [best], color="C3", marker="*", markersize=14, linestyle="", label=f"best {best:.2f}, step {at:,}")
    blur = _last(series(rows, "validation", "psnr_rgb_blur"))
    if blur is not None:
        panel.axhline(blur, color=GREY, linestyle="--", linewidth=1.2, label=f"blurry input {blur:.2f}")


def _draw_scores(panel: Axes, points: list[tuple[int, float]], label: str, color: str) -> tuple[int, float]:
    """The line of a run's scores; returns step and value of the best."""
    steps, values = zip(*points, strict=True)
    marker = "o" if len(points) <= MAX_MARKERS else ""
    panel.plot(steps, values, color=color, marker=marker, markersize=4, label=label)
    return max(points, key=lambda point: point[1])


def _mark_skipped(panel: Axes, train: Rows) -> None:
    """A tick on the axis where steps were skipped since the row before."""
    most, at = 0.0, []
    for step, skipped in series(train, "train", "skipped"):
        if skipped > most:
            at.append(step)
            most = skipped
    if at:
        label = f"skipped steps: {most}"
        panel.plot(at, [0.02] * len(at), "|", color="C3", transform=panel.get_xaxis_transform(), label=label)


def _loss_line(panel: Axes, train: Rows, name: str, color: str, label: str) -> None:
    """The values, pale, and their running mean: batches differ by more than what is learnt between two of them."""
    points = _line(panel, train, name, color=color, alpha=0.2)
    if points:
        steps, values = zip(*_smoothed(points), strict=True)
        panel.plot(steps, values, color=color, label=label, marker="" if len(points) > 1 else "o")


def _line(
    panel: Axes, train: Rows, name: str, *, color: str, alpha: float = 1.0,
    thin: Callable[[Sequence[float]], float] = statistics.fmean,
) -> list[tuple[int, float]]:  # fmt: skip
    """Draw a series, thinned; returns what was drawn."""
    points = _thinned(series(train, "train", name), thin)
    if points:
        steps, values = zip(*points, strict=True)
        panel.plot(steps, values, color=color, alpha=alpha, marker="" if len(points) > 1 else "o")
    return points


def _smoothed(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Means over a tenth of all points around each one, so that the mean does not lag behind (fewer at both ends)."""
    reach = len(points) // 20
    values = [value for _, value in points]
    return [
        (step, statistics.fmean(values[max(0, at - reach) : at + reach + 1])) for at, (step, _) in enumerate(points)
    ]


def _thinned(points: list[tuple[int, float]], thin: Callable[[Sequence[float]], float]) -> list[tuple[int, float]]:
    """At most MAX_POINTS points: each stands for an equal run of neighbours, at its last step."""
    size = max(1, -(-len(points) // MAX_POINTS))
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(group[-1][0], thin([value for _, value in group])) for group in groups]


def _last(points: list[tuple[int, float]]) -> float | None:
    return points[-1][1] if points else None


def _dress(panel: Axes, label: str, *, log: bool = False) -> None:
    """Labels, grid and scale; called when the lines are drawn."""
    panel.set_xlabel("step")
    panel.set_ylabel(label)
    panel.grid(True, which="major", color="0.9", linewidth=0.8)
    if log and panel.dataLim.y1 > 0:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # 0.02, not 2 x 10^-2
        panel.yaxis.set_minor_formatter(NullFormatter())


def _say(panel: Axes, text: str) -> None:
    panel.set_yticks([])
    panel.text(0.5, 0.5, text, transform=panel.transAxes, ha="center", va="center", color=GREY)


def _figure(rows: int, columns: int, inches: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, dpi=DPI, layout="constrained")
    panels: Iterable[Axes] = figure.subplots(rows, columns).flat
    return figure, list(panels)


def _save(figure: Figure, panels: Sequence[Axes], path: str | Path, title: str) -> Path:
    """The finishing touches, then the file: complete or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.ticker import EngFormatter, MaxNLocator

    last_step = max(1.0, *(panel.dataLim.x1 for panel in panels))
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xlim(0, last_step * 1.03)
        panel.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        if any(not str(line.get_label()).startswith("_") for line in panel.lines):
            panel.legend(frameon=False, fontsize="small")
    if title:
        figure.suptitle(title)
    path = Path(path)
    with complete_or_absent(path) as partial, partial.open("wb") as file:
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    return path
