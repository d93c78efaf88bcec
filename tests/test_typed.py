"""Typed reading: what is refused, and in which words."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from spikevrt.typed import amount, convert, load_json, naming, parse_yaml, require_file_name


@dataclass(frozen=True)
class Wheel:
    radius: float
    spokes: int = 7

    def __post_init__(self) -> None:
        if self.spokes < 1:
            raise ValueError(f"spokes: {self.spokes}; allowed: 1 or more")


@dataclass(frozen=True)
class Cart:
    wheels: tuple[Wheel, ...] = ()
    kind: Literal["hand", "horse"] = "hand"
    plan: Path | None = None
    loads: dict[str, float] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)


def test_lists_become_tuples_whole_numbers_floats_and_texts_paths():
    values = {"wheels": [{"radius": 3}], "plan": "a.svg", "loads": {"hay": 5}, "about": {"n": float("nan")}, "extra": 1}
    cart = convert(values, Cart)
    assert cart.wheels == (Wheel(3.0, 7),) and isinstance(cart.wheels[0].radius, float)
    assert cart.plan == Path("a.svg") and cart.loads == {"hay": 5.0} and "extra" in values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"wheels": [{"radius": 1.0}, {"radius": "2"}]}, "wheels[1].radius: '2'; allowed: float"),
        ({"wheels": [{}]}, "wheels[0].radius is missing"),
        ({"wheels": [{"radius": 1.0, "spokes": 0}]}, "wheels[0].spokes: 0; allowed: 1 or more"),
        ({"wheels": [{"radius": 1.0, "spokes": True}]}, "wheels[0].spokes: True; allowed: int"),
        ({"wheels": [{"radius": float("inf")}]}, "wheels[0].radius: inf; allowed: a finite float"),
        ({"wheels": [{"radius": 1.0, "spoke": 3}]}, "unknown key wheels[0].spoke; did you mean wheels[0].spokes?"),
        ({"wheels": 3}, "wheels: 3; allowed: list"),
        ({"kind": "dog"}, "kind: 'dog'; allowed: hand, horse"),
        ({"plan": 3}, "plan: 3; allowed: str"),
        ({"loads": {"hay": "much"}}, "loads.hay: 'much'; allowed: float"),
        ({3: 4}, "unknown key 3; allowed: wheels, kind, plan, loads, about"),
        ([], "all of it: []; allowed: mapping"),
    ],
)
def test_what_is_wrong_is_named_by_its_path_in_one_line(values: Any, message: str):
    with pytest.raises(ValueError) as caught:
        convert(values, Cart, closed=True)
    assert str(caught.value) == message


def test_yaml_reads_numbers_as_json_does_and_refuses_a_key_that_stands_twice():
    assert parse_yaml("[1e-3, 3E5, .5e+1, 1e3x, 2026-01-01x]") == [1e-3, 3e5, 5.0, "1e3x", "2026-01-01x"]
    with pytest.raises(ValueError, match="^line 1 on: a is given twice$"):
        parse_yaml("a: 1\nb: 2\na: 3\n")


def test_a_json_file_of_another_format_says_which_it_is_and_which_is_allowed(tmp_path: Path):
    path = tmp_path / "cart.json"
    path.write_text('{"format": "cart", "version": true}')
    with pytest.raises(ValueError) as caught:
        load_json(path, "cart", 1, "; make it anew")
    assert str(caught.value) == f"{path}: format 'cart' version True; allowed: 'cart' version 1; make it anew"


def test_a_file_is_named_once():
    with pytest.raises(ValueError, match=r"^a\.json: b: 3$"), naming("a.json"), naming("a.json"):
        raise ValueError("b:\n3")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\\b", "c:d", "a\nb"])
def test_a_file_name_leads_nowhere_else(name: str):
    with pytest.raises(ValueError, match="^file: .*; allowed: the name of a file beside it$"):
        require_file_name("file", name)


def test_one_is_no_plural() -> None:
    assert [amount(number, "whole tick") for number in (0, 1, 2)] == ["0 whole ticks", "1 whole tick", "2 whole ticks"]
