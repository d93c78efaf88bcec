"""Diagrams of the report page as SVG, made to be read at 360 pixels: lines and dots, labelled where they are.

A method has one colour and one mark on the whole page; they repeat after eight and after four. Colours are classes c0
to c7 of page.css, told apart by people who do not see red or green. Points carry their value in `data-tip`, which
page.js shows; every diagram has its numbers as a table below it.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH_PX, HEIGHT_PX = 360, 236
LEFT_PX, TOP_PX, BOTTOM_PX = 46, 12, 40  # room for the axes
CHAR_PX, LABEL_CHARS = 6.4, 18  # of a direct label
LINE_PX = 14  # between two labels
ROW_PX = 34  # of the dots of one recording
NUM_COLOURS = 8
MARKS = ("M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z", "M-3.6-3.6h7.2v7.2h-7.2z", "M0-4.8L4.6 3.4H-4.6z", "M0-5L5 0L0 5L-5 0z")


@dataclass(frozen=True)
class Line:
    """One method's points (x, y) in rising x; `index` picks its colour and mark, None is the truth.

    `is_level`: one value that holds for every x; drawn dashed over the whole width.
    """

    label: str
    index: int | None
    points: tuple[tuple[float, float], ...]
    is_level: bool = False


def line_plot(
    lines: Sequence[Line], *, title: str, along: str, upward: str, spec: str = ".2f", marks: bool = True
) -> str:
    """A figure with one line a method, labelled at its right end; without `marks` no points, for long lines.

    Infinite values are in the table only. Text is escaped here.
    """
    table = _values_table(lines, along, spec)
    ys = [y for line in lines for _, y in line.points if math.isfinite(y)]
    xs = sorted({x for line in lines if not line.is_level for x, _ in line.points})
    if not ys or not xs:
        return _figure("<p>no finite values</p>", title, table)
    right = 12 + CHAR_PX * max(min(len(line.label), LABEL_CHARS) for line in lines)
    area = _Area(xs[0], xs[-1], min(ys), max(ys), WIDTH_PX - right)
    parts = [area.axes(xs, along, upward)]
    ends: list[tuple[float, Line]] = []
    for line in sorted(lines, key=lambda line: line.index is not None):  # the truth lies below all others
        finite = [(x, y) for x, y in line.points if math.isfinite(y)]
        if line.is_level and finite:
            finite = [(xs[0], finite[0][1]), (xs[-1], finite[0][1])]
        if not finite:
            continue
        route = " ".join(f"{area.x(x):.1f},{area.y(y):.1f}" for x, y in finite)
        dashed = ' stroke-dasharray="5 4"' if line.is_level else ""
        parts.append(f'<polyline class="line {_colour(line.index)}" points="{route}"{dashed}/>')
        if marks and not line.is_level:
            parts += [
                _point(area.x(x), area.y(y), line.index, f"{line.label}: {y:{spec}} at {along} = {x:g}")
                for x, y in finite
            ]
        ends.append((area.y(finite[-1][1]), line))
    heights = spread([end[0] for end in ends], LINE_PX, TOP_PX + 4, HEIGHT_PX - BOTTOM_PX + 4)
    for height, (end, line) in zip(heights, ends, strict=True):
        x = area.right + 5
        parts.append(
            f'<path class="lead {_colour(line.index)}" d="M{x - 4:.1f} {end:.1f}L{x + 3:.1f} {height:.1f}"/>'
            f'<text class="{_colour(line.index)}" x="{x + 5:.1f}" y="{height + 4:.1f}">{_cut(line.label)}</text>'
        )
    return _figure(_svg("".join(parts), HEIGHT_PX, title), title, table)


def dot_plot(rows: Sequence[tuple[str, Sequence[tuple[int, float]]]], labels: Sequence[str], *, title: str) -> str:
    """A figure with a row a recording and in it a dot a method: rows of (name, ((method's index, value), ...))."""
    values = [value for _, dots in rows for _, value in dots if math.isfinite(value)]
    lines = [Line(labels[k], k, tuple((r, v) for r, (_, dots) in enumerate(rows) for i, v in dots if i == k))
             for k in range(len(labels))]  # fmt: skip
    table = _values_table(lines, "recording", ".2f", [name for name, _ in rows])
    if not values:
        return _figure("<p>no finite values</p>", title, table)
    height = TOP_PX + ROW_PX * len(rows) + 30
    ticks = nice_ticks(min(values), max(values), 5)
    low, high = min(ticks[0], min(values)), max(ticks[-1], max(values))
    scale = (WIDTH_PX - 36) / (high - low)

    def x(value: float) -> float:
        return 18 + (value - low) * scale

    bottom = height - 24
    parts = [
        f'<path class="rule" d="M{x(tick):.1f} {TOP_PX}V{bottom}"/>'
        f'<text x="{x(tick):.1f}" y="{height - 8}" text-anchor="middle">{tick:g}</text>'
        for tick in ticks
    ]
    for row, (name, dots) in enumerate(rows):
        y = TOP_PX + ROW_PX * row + 12
        parts.append(
            f'<text x="2" y="{y - 1}">{_cut(name, 54)}</text><path class="axis" d="M2 {y + 11}H{WIDTH_PX - 2}"/>'
        )
        parts += [
            _point(x(value), y + 11, index, f"{labels[index]}: {value:.2f}, {name}")
            for index, value in dots
            if math.isfinite(value)
        ]
    legend = "".join(
        f'<span class="key"><svg class="{_colour(k)}" viewBox="-7 -7 14 14" width="14" height="14" aria-hidden="true">'
        f'<path class="mark" d="{MARKS[k % len(MARKS)]}"/></svg> {html.escape(label)}</span> '
        for k, label in enumerate(labels)
    )
    return _figure(f'<p class="legend">{legend}</p>' + _svg("".join(parts), height, title), title, table)


def table(rows: Sequence[Sequence[str]], strong: frozenset[tuple[int, int]] = frozenset()) -> str:
    """A table whose first row and first column are heads. `strong`: (row, column) of the cells in bold."""
    parts = []
    for r, row in enumerate(rows):
        cells = []
        for c, text in enumerate(row):
            tag = 'th scope="col"' if r == 0 else 'th scope="row"' if c == 0 else "td"
            inside = html.escape(text)
            cells.append(f"<{tag}>{f'<b>{inside}</b>' if (r, c) in strong else inside}</{tag.split()[0]}>")
        parts.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="scroll" tabindex="0"><table>{"".join(parts)}</table></div>'


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers, 1, 2 or 5 times a power of ten apart, from `low` or below to `high` or above."""
    if not high > low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{k * step:.10g}") for k in range(first, last + 1)]


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places moved so that neighbours are `gap` apart, in their order, with the least sum of squared moves; then into
    `low` to `high` together. Where there is no room for all, they go beyond `low`.
    """
    order = sorted(range(len(places)), key=lambda k: places[k])
    groups: list[list[float]] = []  # of places less their share of gaps, which must not fall: pooled where they do
    for rank, k in enumerate(order):
        groups.append([places[k] - rank * gap])
        while len(groups) > 1 and sum(groups[-2]) * len(groups[-1]) > sum(groups[-1]) * len(groups[-2]):
            last = groups.pop()
            groups[-1] += last
    rising = [sum(group) / len(group) for group in groups for _ in group]
    moved = [0.0] * len(places)
    for rank, k in enumerate(order):
        moved[k] = min(max(rising[rank], low), high - (len(places) - 1) * gap) + rank * gap
    return moved


class _Area:
    """Where values lie on the picture."""

    def __init__(self, x_low: float, x_high: float, y_low: float, y_high: float, right: float) -> None:
        room = (y_high - y_low) / 25 or abs(y_low) / 10 or 1.0  # so that no line lies on the axis
        self.y_low, self.y_high = y_low - room, y_high + room
        self.ticks = [t for t in nice_ticks(self.y_low, self.y_high, 6) if self.y_low <= t <= self.y_high]
        self.x_low, self.x_high, self.right = x_low, x_high, right
        self.bottom = HEIGHT_PX - BOTTOM_PX

    def x(self, value: float) -> float:
        if self.x_high == self.x_low:
            return (LEFT_PX + self.right) / 2
        return LEFT_PX + (value - self.x_low) / (self.x_high - self.x_low) * (self.right - LEFT_PX)

    def y(self, value: float) -> float:
        return self.bottom - (value - self.y_low) / (self.y_high - self.y_low) * (self.bottom - TOP_PX)

    def axes(self, xs: Sequence[float], along: str, upward: str) -> str:
        parts = [
            f'<path class="rule" d="M{LEFT_PX} {self.y(tick):.1f}H{self.right:.1f}"/>'
            f'<text x="{LEFT_PX - 5}" y="{self.y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
            for tick in self.ticks
        ]
        few = xs if len(xs) <= 7 else [t for t in nice_ticks(xs[0], xs[-1], 4) if xs[0] <= t <= xs[-1]]
        taken = -math.inf
        for tick in few:
            if self.x(tick) - taken >= 8 + CHAR_PX * len(f"{tick:g}"):
                taken = self.x(tick)
                parts.append(f'<text x="{taken:.1f}" y="{self.bottom + 16}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<path class="axis" d="M{LEFT_PX} {self.bottom}H{self.right:.1f}"/>')
        middle = (LEFT_PX + self.right) / 2
        parts.append(f'<text x="{middle:.1f}" y="{self.bottom + 33}" text-anchor="middle">{html.escape(along)}</text>')
        turned = f"translate(11 {(TOP_PX + self.bottom) / 2:.1f}) rotate(-90)"
        parts.append(f'<text transform="{turned}" text-anchor="middle">{html.escape(upward)}</text>')
        return "".join(parts)


def _point(x: float, y: float, index: int | None, tip: str) -> str:
    mark = MARKS[(index or 0) % len(MARKS)]
    text = html.escape(tip)
    return (
        f'<g class="point {_colour(index)}" transform="translate({x:.1f} {y:.1f})" data-tip="{text}" tabindex="0">'
        f'<circle class="hit" r="10"/><path class="mark" d="{mark}"/></g>'
    )


def _colour(index: int | None) -> str:
    return "truth" if index is None else f"c{index % NUM_COLOURS}"


def _cut(label: str, chars: int = LABEL_CHARS) -> str:
    return html.escape(label if len(label) <= chars else label[: chars - 1] + "\N{HORIZONTAL ELLIPSIS}")


def _svg(inside: str, height: float, title: str) -> str:
    label = html.escape(title)
    return f'<svg class="plot" viewBox="0 0 {WIDTH_PX} {height:g}" role="group" aria-label="{label}">{inside}</svg>'


def _figure(inside: str, title: str, values: str) -> str:
    caption = f"<figcaption>{html.escape(title)}</figcaption>"
    return f"<figure>{caption}{inside}<details><summary>values</summary>{values}</details></figure>"


def _values_table(lines: Sequence[Line], along: str, spec: str, names: Sequence[str] | None = None) -> str:
    """Rows by x, columns by line; `names` are what x counts, where it counts names."""
    xs = sorted({x for line in lines if not line.is_level for x, _ in line.points})
    rows = [[along, *(line.label for line in lines)]]
    for x in xs:
        cells = []
        for line in lines:
            found = [y for at, y in line.points if at == x or line.is_level]
            cells.append(f"{found[0]:{spec}}" if found else "-")
        rows.append([f"{x:g}" if names is None else names[int(x)], *cells])
    return table(rows)
