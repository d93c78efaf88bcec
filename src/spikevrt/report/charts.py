"""Diagrams drawn by matplotlib: SVG inside a page, and learning curves as pictures.

In a page they are legible at 360 pixels, in the page's own font and colours. A method has one colour and one mark on
the whole page; they repeat after eight and after four. Colours are variables of page.css, told apart by people who do
not see red or green, so that they follow the page into the dark. Learning curves are of one run's journal, or of
several runs side by side, drawn without matplotlib's global state, so that it may be called from any thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import io
import math
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spikevrt.atomic import complete_or_absent
from spikevrt.train.folder import CURVES
from spikevrt.train.journal import SCORES, Rows, read_journal, score_name, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


WIDTH_PT, HEIGHT_PT = 360, 220  # of a diagram without its legend; an SVG's unit is the point
ROW_PT, LEGEND_PT = 34, 18  # of one recording's dots, and of one line of the legend
MARKS = "osD^"
NUM_COLOURS = 8
LABEL_CHARS = 26
INK, FAINT, RULE = "#000001", "#000002", "#000003"  # stand for the page's colours until the SVG is written
VARIABLES = {INK: "currentColor", FAINT: "var(--faint)", RULE: "var(--rule)"}
VARIABLES |= {f"#0000{16 + k:02x}": f"var(--c{k})" for k in range(NUM_COLOURS)}


@dataclass(frozen=True)
class Curve:
    """One method's points (x, y) in rising x; `index` picks its colour and mark, None is the truth.

    `is_level`: one value that holds for every x; drawn dashed over the whole width.
    """

    label: str
    index: int | None
    points: tuple[tuple[float, float], ...]
    is_level: bool = False


@dataclass(frozen=True)
class Chart:
    """A diagram for the template: its SVG (empty without any finite value), and its numbers as a table."""

    title: str
    svg: str
    values: list[list[str]]


def line_chart(
    curves: Sequence[Curve], *, title: str, along: str, upward: str, spec: str = ".2f", marks: bool = True
) -> Chart:
    """One line a method; without `marks` no points, for long lines. Infinite values are in the table only."""
    values = _values(curves, along, spec)
    xs = sorted({x for curve in curves if not curve.is_level for x, _ in curve.points})
    if not xs or not any(math.isfinite(y) for curve in curves for _, y in curve.points):
        return Chart(title, "", values)
    figure, panel = new_figure(HEIGHT_PT + LEGEND_PT * -(-len(curves) // 2))
    tips: list[str] = []
    for curve in sorted(curves, key=lambda curve: curve.index is not None):  # the truth is drawn below all others
        finite = [(x, y) for x, y in curve.points if math.isfinite(y)]
        label, colour = _cut(curve.label), colour_of(curve.index)
        if curve.is_level and finite:
            panel.axhline(finite[0][1], color=colour, linestyle=(0, (5, 4)), label=label)
        elif finite:
            mark = MARKS[(curve.index or 0) % len(MARKS)] if marks else ""
            width, alpha = (3.0, 0.55) if curve.index is None else (1.75, 1.0)
            panel.plot(*zip(*finite, strict=True), color=colour, marker=mark, linewidth=width, alpha=alpha, label=label)
            if marks:
                _add_tips(panel, finite, [f"{curve.label}: {y:{spec}} at {along} = {x:g}" for x, y in finite], tips)
    if len(xs) <= 7:
        panel.set_xticks(xs, [f"{x:g}" for x in xs])
    panel.set_xlabel(along)
    panel.set_ylabel(upward)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, labelcolor="linecolor")
    return Chart(title, svg(figure, title, tips), values)


def dot_chart(rows: Sequence[tuple[str, Sequence[tuple[int, float]]]], labels: Sequence[str], *, title: str) -> Chart:
    """A row a recording and in it a dot a method: rows of (name, ((method's index, value), ...))."""
    curves = [
        Curve(label, k, tuple((r, v) for r, (_, dots) in enumerate(rows) for i, v in dots if i == k))
        for k, label in enumerate(labels)
    ]
    values = _values(curves, "recording", ".2f", [name for name, _ in rows])
    if not any(math.isfinite(value) for _, dots in rows for _, value in dots):
        return Chart(title, "", values)
    figure, panel = new_figure(ROW_PT * len(rows) + 40 + LEGEND_PT * -(-len(curves) // 2))
    tips: list[str] = []
    for k, curve in enumerate(curves):
        finite = [(value, row) for row, value in curve.points if math.isfinite(value)]
        if finite:
            mark, label = MARKS[k % len(MARKS)], _cut(curve.label)
            panel.plot(*zip(*finite, strict=True), color=colour_of(k), linestyle="", marker=mark, label=label)
            _add_tips(panel, finite, [f"{curve.label}: {value:.2f}, {rows[int(r)][0]}" for value, r in finite], tips)
    for row, (name, _) in enumerate(rows):
        panel.axhline(row, color=RULE, zorder=0, linewidth=0.8)
        panel.text(0, row - 0.22, _cut(name, 54), transform=panel.get_yaxis_transform(), color=FAINT)
    panel.set_ylim(len(rows) - 0.6, -0.75)
    panel.set_yticks([])
    figure.legend(loc="outside lower center", ncols=2, frameon=False, labelcolor="linecolor")
    return Chart(title, svg(figure, title, tips), values)


def new_figure(height_pt: float) -> tuple[Figure, Axes]:
    """An empty diagram, without matplotlib's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_PT / 72, height_pt / 72), layout="constrained", facecolor="none")
    panel: Axes = figure.subplots()
    panel.set_facecolor("none")
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color(FAINT)
    panel.tick_params(length=0, labelcolor=FAINT)
    panel.xaxis.label.set_color(FAINT)
    panel.yaxis.label.set_color(FAINT)
    panel.grid(True, axis="y", color=RULE, linewidth=0.8)
    panel.set_axisbelow(True)
    return figure, panel


def svg(figure: Figure, label: str, tips: Sequence[str] = ()) -> str:
    """The figure as markup that stands inside HTML: colours are the page's, nothing is referred to outside of it.

    `tips[k]` is the value that the page shows beside the artist whose gid is tip-k.
    """
    import matplotlib

    for panel in figure.axes:
        for artist in (*panel.lines, *panel.collections, *panel.patches, *panel.texts):
            artist.set_clip_on(False)
        for line in (*panel.get_xgridlines(), *panel.get_ygridlines()):
            line.set_clip_on(False)
    buffer = io.StringIO()
    salt = hashlib.sha256(repr((label, *tips)).encode()).hexdigest()  # ids differ between the diagrams of a page
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="tip-(\d+)"', lambda found: _tip(tips[int(found[1])]), text)
    used = set(re.findall(r'xlink:href="#([^"]+)"', text))
    text = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", text)
    text = re.sub("|".join(VARIABLES), lambda found: VARIABLES[found[0]], text)
    view = re.search(r'viewBox="[^"]+"', text)
    assert view is not None
    head = f'<svg class="plot" {view[0]} role="group" aria-label="{html.escape(label)}">'
    return head + re.sub(r"\s*\n\s*", "\n", text[text.index(">") + 1 :])


def colour_of(index: int | None) -> str:
    """The colour of a method by its place among all; None is the truth."""
    return INK if index is None else f"#0000{16 + index % NUM_COLOURS:02x}"


def _tip(text: str) -> str:
    return f'<g class="point" tabindex="0" data-tip="{html.escape(text)}"'


def _add_tips(panel: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str], tips: list[str]) -> None:
    """Lay what is touched over each point, and keep what it says."""
    for (x, y), text in zip(points, texts, strict=True):
        panel.plot([x], [y], "o", color=INK, markersize=18, markeredgewidth=0, alpha=0, gid=f"tip-{len(tips)}")
        tips.append(text)


def _cut(label: str, chars: int = LABEL_CHARS) -> str:
    text = label if len(label) <= chars else label[: chars - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return text.replace("$", r"\$")  # no formula


def _values(curves: Sequence[Curve], along: str, spec: str, names: Sequence[str] | None = None) -> list[list[str]]:
    """Rows by x, columns by curve; `names` are what x counts, where it counts names."""
    xs = sorted({x for curve in curves if not curve.is_level for x, _ in curve.points})
    rows = [[along, *(curve.label for curve in curves)]]
    for x in xs:
        cells = []
        for curve in curves:
            found = [y for at, y in curve.points if at == x or curve.is_level]
            cells.append(f"{found[0]:{spec}}" if found else "-")
        rows.append([f"{x:g}" if names is None else names[int(x)], *cells])
    return rows


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
