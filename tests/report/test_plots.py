"""Diagrams: where points lie, what is written beside them, and that text stays text."""

from __future__ import annotations

import math
import re

import pytest

from spikevrt.report import plots
from spikevrt.report.plots import Line


def _places(svg: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'class="point[^>]*translate\(([\d.]+) ([\d.]+)\)', svg)]


def test_points_lie_in_proportion_to_their_values():
    line = Line("a", 0, ((1.0, 20.0), (2.0, 25.0), (4.0, 30.0)))
    drawn = plots.line_plot([line], title="t", along="x", upward="y")
    (x0, y0), (x1, y1), (x2, y2) = _places(drawn)
    assert (x1 - x0) * 2 == pytest.approx(x2 - x1, abs=0.2)  # written to a tenth of a pixel
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2) and y0 > y1


def test_a_level_line_is_dashed_over_the_whole_width_without_points():
    moving = Line("a", 0, ((1.0, 20.0), (4.0, 30.0)))
    drawn = plots.line_plot([moving, Line("b", 1, ((1.0, 25.0),), is_level=True)], title="t", along="x", upward="y")
    solid, dashed = re.findall(r'<polyline class="line c\d" points="([^"]*)"( stroke-dasharray="5 4")?/>', drawn)
    assert (solid[1], bool(dashed[1])) == ("", True)
    ends = [[float(p.split(",")[0]) for p in points.split()] for points, _ in (solid, dashed)]
    assert (ends[0][0], ends[0][-1]) == (ends[1][0], ends[1][-1])
    assert len(_places(drawn)) == 2
    assert "<td>25.00</td><td" not in drawn and drawn.count("<td>25.00</td>") == 2  # in the table at every x


def test_infinite_values_are_in_the_table_and_not_in_the_picture():
    drawn = plots.line_plot([Line("a", 0, ((1.0, math.inf), (2.0, 30.0)))], title="t", along="x", upward="y")
    assert "<td>inf</td>" in drawn and len(_places(drawn)) == 1 and "nan" not in drawn


def test_without_a_finite_value_the_figure_says_so():
    drawn = plots.line_plot([Line("a", 0, ((1.0, math.inf),))], title="t", along="x", upward="y")
    assert "no finite values" in drawn and "<svg" not in drawn


def test_equal_values_lie_in_the_middle_beside_a_tick():
    drawn = plots.line_plot([Line("a", 0, ((1.0, 23.8), (2.0, 23.8)))], title="t", along="x", upward="y")
    assert {y for _, y in _places(drawn)} == {(plots.TOP_PX + plots.HEIGHT_PX - plots.BOTTOM_PX) / 2}
    assert ">24</text>" in drawn


def test_the_axis_does_not_reach_far_beyond_the_values():
    drawn = plots.line_plot([Line("a", 0, ((1.0, 0.01), (2.0, 0.97)))], title="t", along="x", upward="y")
    assert re.findall(r'text-anchor="end">([^<]*)<', drawn) == ["0", "0.2", "0.4", "0.6", "0.8", "1"]


def test_every_line_is_labelled_and_labels_do_not_overlap():
    lines = [Line(f"method {k}", k, ((0.0, 20.0), (1.0, 30.0 + k / 100))) for k in range(7)]
    drawn = plots.line_plot(lines, title="t", along="x", upward="y")
    heights = sorted(float(y) for y in re.findall(r'<text class="c\d" x="[\d.]+" y="([\d.]+)">method', drawn))
    assert len(heights) == 7
    assert min(b - a for a, b in zip(heights, heights[1:], strict=False)) >= plots.LINE_PX - 0.1


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 4.0, [0, 1, 2, 3, 4]), (23.8, 29.5, [22, 24, 26, 28, 30]), (7.0, 7.0, [2, 4, 6, 8, 10, 12]),
     (-3, 0.5, [-3, -2, -1, 0, 1])],
)  # fmt: skip
def test_ticks_are_round_and_reach_around_the_values(low, high, expected):
    assert plots.nice_ticks(low, high, 4) == expected


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.1), (23.81, 23.84), (-1e-7, 3e5), (0.0, 0.0)])
def test_ticks_of_any_range_are_a_round_step_apart_and_few(low, high):
    found = plots.nice_ticks(low, high, 4)
    reach = 1e-6 * (found[1] - found[0])  # rounding of the last digit
    assert found[0] <= low + reach and high <= found[-1] + reach
    steps = [b - a for a, b in zip(found, found[1:], strict=False)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-6) and f"{steps[0]:.3e}"[:5] in ("1.000", "2.000", "5.000")
    assert 3 <= len(found) <= 7


def test_spreading_leaves_places_that_are_apart_and_keeps_the_order_of_the_others():
    assert plots.spread([50.0, 10.0, 90.0], 14, 0, 100) == [50.0, 10.0, 90.0]
    assert plots.spread([52.0, 50.0, 51.0], 14, 0, 100) == [65.0, 37.0, 51.0]  # round their own middle
    assert plots.spread([99.0, 98.0], 14, 0, 100) == [100.0, 86.0] and plots.spread([1.0, 2.0], 14, 0, 100) == [
        0.0,
        14.0,
    ]


def test_a_dot_lies_in_its_recording_s_row_at_its_value():
    rows = [("one", [(0, 20.0), (1, 30.0)]), ("two", [(0, 25.0)])]
    drawn = plots.dot_plot(rows, ["a", "b"], title="t")
    (x20, y20), (x30, y30), (x25, y25) = _places(drawn)
    assert y20 == y30 and y25 == y20 + plots.ROW_PX
    assert x25 == pytest.approx((x20 + x30) / 2, abs=0.1)
    assert drawn.count('class="key"') == 2


def test_text_stays_text():
    hostile = '<b onclick="x">&'
    line = Line(hostile, 0, ((0.0, 1.0), (1.0, 2.0)))
    drawn = [
        plots.line_plot([line], title=hostile, along=hostile, upward=hostile),
        plots.dot_plot([(hostile, [(0, 1.0)])], [hostile], title=hostile),
        plots.table([[hostile, "x"], [hostile, hostile]]),
    ]
    for text in drawn:
        assert "<b onclick" not in text and 'data-tip="<' not in text and "&lt;b onclick" in text


def test_the_strong_cells_of_a_table_are_bold_and_no_others():
    text = plots.table([["m", "a"], ["x", "1"], ["y", "2"]], frozenset({(2, 1)}))
    assert "<td><b>2</b></td>" in text and text.count("<b>") == 1
    assert text.count('<th scope="row">') == 2 and text.count('<th scope="col">') == 2
