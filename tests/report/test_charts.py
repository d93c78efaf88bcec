"""Diagrams: every point tells its value, text stays text, and the SVG needs nothing outside of itself."""

from __future__ import annotations

import html
import math
import re

from spikevrt.report import charts
from spikevrt.report.charts import Curve, dot_chart, line_chart


def told(svg: str) -> list[str]:
    return [html.unescape(text) for text in re.findall(r'data-tip="([^"]*)"', svg)]


def places(svg: str) -> list[tuple[float, float]]:
    """Where the points lie that tell their value."""
    points = re.findall(r'data-tip="[^"]*".*?<use [^>]*?x="([\d.]+)" y="([\d.]+)"', svg, flags=re.DOTALL)
    return [(float(x), float(y)) for x, y in points]


def drawn(*curves: Curve, marks: bool = True) -> charts.Chart:
    return line_chart(curves, title="t", along="x", upward="y", marks=marks)


def test_points_lie_in_proportion_to_their_values_and_tell_them():
    svg = drawn(Curve("a", 0, ((1.0, 20.0), (2.0, 25.0), (4.0, 30.0)))).svg
    (x0, y0), (x1, y1), (x2, y2) = places(svg)
    assert abs((x1 - x0) * 2 - (x2 - x1)) < 0.01 and abs((y0 - y1) - (y1 - y2)) < 0.01 and y0 > y1
    assert told(svg) == ["a: 20.00 at x = 1", "a: 25.00 at x = 2", "a: 30.00 at x = 4"]


def test_a_level_line_is_dashed_and_has_no_points_but_a_value_at_every_x():
    level = Curve("b", 1, ((1.0, 25.0),), is_level=True)
    chart = drawn(Curve("a", 0, ((1.0, 20.0), (4.0, 30.0))), level)
    assert "stroke-dasharray" in chart.svg and len(told(chart.svg)) == 2
    assert chart.values == [["x", "a", "b"], ["1", "20.00", "25.00"], ["4", "30.00", "25.00"]]


def test_infinite_values_are_in_the_table_and_not_in_the_picture():
    chart = drawn(Curve("a", 0, ((1.0, math.inf), (2.0, 30.0))))
    assert chart.values[1] == ["1", "inf"] and len(told(chart.svg)) == 1 and "nan" not in chart.svg


def test_without_a_finite_value_there_is_no_picture():
    assert drawn(Curve("a", 0, ((1.0, math.inf),))).svg == ""
    assert dot_chart([("one", ((0, math.inf),))], ["a"], title="t").svg == ""


def test_a_long_line_has_no_points():
    svg = drawn(Curve("a", 0, tuple((float(x), float(x * x)) for x in range(49))), marks=False).svg
    assert told(svg) == [] and "<svg" in svg


def test_every_method_has_its_colour_of_the_page_and_its_name():
    svg = drawn(
        *(Curve(f"method {k}", k, ((0.0, k), (1.0, 30.0))) for k in range(7)), Curve("sharp", None, ((0, 1),))
    ).svg
    for k in range(7):
        assert f"var(--c{k})" in svg and f">method {k}</text>" in svg
    assert ">sharp</text>" in svg and "currentColor" in svg and "#0000" not in svg


def test_dots_stand_in_the_row_of_their_recording():
    chart = dot_chart([("one", ((0, 20.0), (1, 30.0))), ("two", ((0, 25.0),))], ["a", "b"], title="t")
    found = dict(zip(told(chart.svg), places(chart.svg), strict=True))
    (x0, y0), (x1, y1), (x2, y2) = (found[tip] for tip in ("a: 20.00, one", "b: 30.00, one", "a: 25.00, two"))
    assert y0 == y1 < y2 and x0 < x2 < x1
    assert chart.values == [["recording", "a", "b"], ["one", "20.00", "30.00"], ["two", "25.00", "-"]]


def test_text_stays_text():
    hostile = '<b onclick="x">$\\alpha$ & co'
    svg = drawn(Curve(hostile, 0, ((1.0, 2.0),))).svg
    assert "<b onclick" not in svg and told(svg) == [f"{hostile}: 2.00 at x = 1"] and "$\\alpha$" in html.unescape(svg)


def test_a_picture_refers_only_to_itself():
    svg = drawn(Curve("a", 0, ((1.0, 20.0), (2.0, 25.0)))).svg
    references, ids = set(re.findall(r'href="([^"]*)"', svg)), re.findall(r' id="([^"]*)"', svg)
    assert references == {f"#{name}" for name in ids} and len(set(ids)) == len(ids)
    assert not [word for word in ("http", "url(", "<style", "<!--") if word in svg]


def test_two_pictures_of_a_page_share_no_id():
    one, two = (drawn(Curve(name, 0, ((1.0, 20.0),))).svg for name in "ab")
    assert not set(re.findall(r' id="([^"]*)"', one)) & set(re.findall(r' id="([^"]*)"', two))
