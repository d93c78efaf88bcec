"""Diagrams as SVG inside a page, drawn by matplotlib: legible at 360 pixels, in the page's own font and colours.

A method has one colour and one mark on the whole page; they repeat after eight and after four. Colours are variables of
page.css, told apart by people who do not see red or green, so that they follow the page into the dark.
"""

from __future__ import annotations

import hashlib
import html
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
