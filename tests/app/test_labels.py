"""What the page says: every field, and every message of the package in the words of the page."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from spikevrt.app import labels
from spikevrt.app.labels import on_page, read_stated
from spikevrt.recording.sidecar import Stated

PACKAGE = Path(labels.__file__).parents[1]
REACHED = (  # files whose messages and notes a visitor may see
    *("recording/loose", "recording/timing", "recording/time_tables", "recording/recording", "recording/alignment"),
    *("recording/arrays", "recording/spike_formats", "align/estimate", "align/exposure", "align/findings"),
    "align/health",
)


def texts(path: Path) -> Iterator[str]:
    """The strings of a file but its docstrings; values are `x`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    seen = {id(one.value) for one in ast.walk(tree) if isinstance(one, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            seen |= {id(part) for part in node.values}
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in seen:
            yield node.value


@pytest.mark.parametrize("name", REACHED)
def test_no_message_names_a_command_an_option_or_a_field_of_the_code(name):
    found = [text for text in texts(PACKAGE / f"{name}.py") if re.search(r"`\w|spikevrt [a-z]+ |--[a-z]", text)]
    allowed = (  # of `UnknownGeometry`, for which the page has a list; of --strict; on stderr
        *("see what fits with: spikevrt inspect", "`x`", "strict: cannot tell", "(see `inspect`)"),
    )
    shown = [on_page(text) for text in found if not any(words in text for words in allowed)]
    assert not [text for text in shown if re.search(r"`|spikevrt [a-z]+|--[a-z]|[a-z]_[a-z]", text)]


def test_the_page_has_a_field_for_whatever_can_be_stated():
    """But for what others say: ticks are a unit of the exposure, a period is a rate, a trigger's ticks a table."""
    names = {field.name for field in dataclasses.fields(Stated)}
    assert names - set(labels.LABELS) == {"exposure_ticks", "period_ticks", "triggers"}
    assert len(set(labels.LABELS.values())) == len(labels.LABELS)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("spike_width: 0; allowed: 1 or more", '"Spike width (pixels)": 0; allowed: 1 or more'),
        ("width: 0; allowed: 1 or more", '"Spike width (pixels)": 0; allowed: 1 or more'),
        ("`fps` or `period_ticks` states another", '"Frame rate (Hz)" states another'),
        ("beside; run `spikevrt record`, then `spikevrt align`", 'beside; press "Align the cameras"'),
        ("they fit later; run `spikevrt align a/street`", 'they fit later; press "Align the cameras"'),
        ("`first_tick` states it, `spikevrt align` finds it", '"First tick" states it, "Align the cameras" finds it'),
        ("write them as .npy (`spikevrt convert`); so", "write them as .npy; so"),
        ("--max-offset-ticks: 0; allowed", '"Search the time offset so far (ticks)": 0; allowed'),
        ("passes, or `ignore_health` gaps gain", 'passes, or "Restore in spite of these findings": gaps gain'),
        (
            "of rows: with `top_down`, or without it",
            'of rows: with "The first stored row is the top one", or without it',
        ),
        ("a_b.mp4: no such x_y", "a_b.mp4: no such x_y"),
    ],
)
def test_a_message_is_told_in_the_words_of_the_page(message, shown):
    assert on_page(message) == shown


def test_an_empty_field_says_nothing_and_a_text_is_read_as_its_kind(tmp_path):
    given = {"spike_width": " 400 ", "spike_height": "", "first_tick": None, "tick_rate_hz": "2e4", "top_down": False}
    assert read_stated(given) == Stated(spike_width=400, tick_rate_hz=20000.0)
    table = tmp_path / "times.csv"
    given = {"fps": "30000/1001", "exposure": "1/125s", "timestamps": str(table), "spike_kind": "", "top_down": True}
    assert read_stated(given) == Stated(fps=Fraction(30000, 1001), exposure="1/125s", timestamps=table, top_down=True)


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("spike_width", "4.5", "a whole number"),
        ("tick_rate_hz", "fast", "a number"),
        ("first_tick", "1e3", "a whole number"),
        ("fps", "30/0", "a number or a fraction"),
    ],
)
def test_a_field_that_is_no_number_is_named(name, text, allowed):
    with pytest.raises(ValueError, match=f"^{name}: '{text}'; allowed: {allowed}"):
        read_stated({name: text})
