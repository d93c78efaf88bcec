"""Typed reading: JSON and YAML to plain values, and plain values to frozen dataclasses, strictly.

A key that is missing or unknown and a value of a wrong type are a ValueError of one line, which names the key by its
dotted path, shows the value and says what is allowed. msgspec converts; it is imported when something is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import json
import math
import re
import types
import typing
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")
MAX_SHOWN = 80  # characters of a value that a message shows
OUR_WORDS = {"array": "list", "object": "mapping"}  # what msgspec calls otherwise than YAML and Python


def convert(values: Any, kind: type[T], name: str = "", *, closed: bool = False, finite: bool = True) -> T:
    """Plain values as a `kind`: a dataclass, or tuples, dicts, paths, literals and unions of those.

    Types are strict (no text becomes a number, True is no int), but whole numbers may stand for floats and lists for
    tuples. NaN is no float. What `__post_init__` refuses is told with the path of its class in front.

    Args:
        values: decoded JSON or YAML.
        kind: what it must be.
        name: the dotted path of `values`, which messages begin with.
        closed: refuse keys that no field has, with the nearest that one has; else they are passed over.
        finite: refuse infinity too.

    Raises:
        ValueError: one line, `path.of.key: value; allowed: ...` for a wrong value.
    """
    import msgspec

    _look_through(values, kind, name, closed, finite)
    try:
        return msgspec.convert(values, kind, dec_hook=lambda kind, value: kind(value))
    except msgspec.ValidationError as error:
        raise ValueError(_told(str(error), values, name, error.__cause__)) from None


def load_mapping(path: Path, advice: str = "") -> dict[str, Any]:
    """The values of a JSON file that holds a mapping. Raises ValueError, whose line `advice` ends."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({one_line(error)}){advice}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: {shown(values)}; allowed: a mapping{advice}")
    return values


def load_json(path: Path, format: str, version: int, advice: str = "") -> dict[str, Any]:
    """As `load_mapping`, of a file whose `format` and `version` are these."""
    values = load_mapping(path, advice)
    found = values.get("format"), values.get("version")
    if found != (format, version) or isinstance(found[1], bool):
        told = f"format {shown(found[0])} version {shown(found[1])}"
        raise ValueError(f"{path}: {told}; allowed: {format!r} version {version}{advice}")
    return values


def parse_yaml(text: str) -> Any:
    """The plain values of a YAML text; nothing in it is executed. 1e-3 is a number, as in YAML 1.2 and JSON.

    Raises ValueError where it is no YAML, or a key stands twice in one mapping.
    """
    import yaml

    try:
        return yaml.load(text, Loader=_yaml_loader())
    except _Repeated:
        raise
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:  # PyYAML lets the last three out
        raise ValueError(f"not YAML ({(str(error).splitlines() or ['?'])[0]})") from None


def load_yaml(path: Path) -> Any:
    """`parse_yaml` of a file. Raises ValueError, which names the file."""
    with naming(path):
        try:
            return parse_yaml(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"not YAML ({error})") from None


@contextlib.contextmanager
def naming(what: Path | str) -> Iterator[None]:
    """A ValueError from inside gets the name of a file, or of another source, in front, unless it has it.

    So does a RecursionError, of values nested without end, which becomes a ValueError.
    """
    try:
        yield
    except (ValueError, RecursionError) as error:
        text = one_line(error)
        raise ValueError(text if text.startswith(str(what)) else f"{what}: {text}") from None


def require(holds: bool, name: str, value: Any, allowed: str) -> None:
    """Raises ValueError `name: value; allowed: ...` unless it holds."""
    if not holds:
        raise ValueError(f"{name}: {shown(value)}; allowed: {allowed}")


def require_file_name(name: str, value: str) -> None:
    """`value` must be the name of a file in the same folder: no path, for a file must not point elsewhere."""
    is_plain = value not in ("", ".", "..") and value.isprintable() and not set(value) & set("/\\:")
    require(is_plain, name, value, "the name of a file beside it")


def shown(value: Any) -> str:
    """A value within a message: one line, cut where it is long."""
    try:
        text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        text = type(value).__name__
    return " ".join(text[: MAX_SHOWN + 1].split()) if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def amount(number: int, noun: str) -> str:
    """1 frame, 2 frames."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def renamed(message: str, names: Mapping[str, str], kept: Container[str] = ()) -> str:
    """A message with the names of fields as whoever reads it knows them.

    Named are: what stands before the first colon (`tile_px: 7; allowed ...`, `rig.scale: 3`, which is `rig_scale`),
    any name with an underscore wherever it stands, but in a list of values; and any name in backticks. What is not in
    `names`, or in `kept`, stays. Where there is no width but the field of a spike file beside frames, width is
    `spike_width`.
    """

    def name(match: re.Match[str]) -> str:
        section, field = match[1] or "", match[2]
        found = names.get(f"{section}_{field}") or names.get(field) or names.get(f"spike_{field}")
        return found if found and match[0] not in kept else match[0]

    head, colon, rest = re.sub(r"`()([a-z_]+)`", name, message).partition(": ")
    if re.fullmatch(r"[\w.]+(, \w+)*", head):
        head = re.sub(r"(?:(\w+)\.)?(\w+)", name, head)
    return head + colon + re.sub(r"(?<![\w./-])(?<!, )()([a-z]+(?:_[a-z]+)+)(?![\w/,-]|\.\w)", name, rest)


def _look_through(values: Any, kind: Any, name: str, closed: bool, finite: bool) -> None:
    """Refuse what msgspec lets pass, or tells less of: unknown keys, numbers that are not finite, other literals."""
    if kind in (int, str, bool, Any):
        return
    origin, inner = _parts(kind)
    if kind is float:
        if isinstance(values, int | float):
            is_sound = abs(values) < 1 << 63 if isinstance(values, int) else values == values
            allowed = "a finite float" if finite else "float"
            require(is_sound and not (finite and math.isinf(values)), name, values, allowed)
    elif origin in (typing.Union, types.UnionType):
        others = [one for one in inner if one is not types.NoneType]
        if values is not None and len(others) == 1:
            _look_through(values, others[0], name, closed, finite)
    elif dataclasses.is_dataclass(kind) and isinstance(values, dict):
        fields = _fields(typing.cast(type, kind))
        for key, value in values.items():
            if key in fields:
                _look_through(value, fields[key], _joined(name, key), closed, finite)
            elif closed:
                near = difflib.get_close_matches(str(key), fields, n=1)
                advice = f"did you mean {_joined(name, near[0])}?" if near else f"allowed: {', '.join(fields)}"
                unknown = _joined(name, key if isinstance(key, str) and key.isprintable() else ascii(key))
                raise ValueError(f"unknown key {unknown[:MAX_SHOWN]}; {advice}")
    elif origin is tuple and isinstance(values, list | tuple):
        for index, value in enumerate(values):
            one = inner[0 if inner[-1] is ... else min(index, len(inner) - 1)]
            _look_through(value, one, f"{name}[{index}]", closed, finite)
    elif origin is dict and isinstance(values, dict) and inner[1] is not Any:
        for key, value in values.items():
            convert(value, inner[1], _joined(name, str(key)), closed=closed, finite=finite)  # msgspec tells no key
    elif kind is Path:
        require(isinstance(values, str), name, values, "str")
    elif origin is Literal:
        require(
            any(values == one and type(values) is type(one) for one in inner), name, values, ", ".join(map(str, inner))
        )


@functools.cache
def _parts(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    return typing.get_origin(kind), typing.get_args(kind)


@functools.cache
def _fields(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _joined(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _told(message: str, values: Any, name: str, cause: BaseException | None) -> str:
    """msgspec's message ("Expected `int`, got `str` - at `$.a[1].b`") as one of ours."""
    text, _, path = message.rpartition(" - at `$") if " - at `$" in message else (message, "", "")
    steps = re.findall(r"\.(\w+)|\[(\d+)\]", path)
    for key, index in steps:
        values = values[int(index)] if index else values[key]
        name = f"{name}[{index}]" if index else _joined(name, key)
    if cause is not None:
        return str(cause) if str(cause).startswith(name) else _joined(name, str(cause))
    if missing := re.search(r"missing required field `(.+)`", text):
        return f"{_joined(name, missing[1])} is missing"
    expected = re.match(r"Expected `(.+)`(.*?),? got", text)
    allowed = f"{expected[1]}{expected[2]}" if expected else text
    allowed = re.sub(r"\w+", lambda word: OUR_WORDS.get(word[0], word[0]), allowed).replace(" | ", ", ")
    return f"{name or 'all of it'}: {shown(values)}; allowed: {allowed}"


class _Repeated(ValueError):
    """A key that stands twice in one mapping."""


@functools.cache
def _yaml_loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML's safe loader, but a key that stands twice is refused: it would take the last and drop the first."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                    if key.value in seen:
                        raise _Repeated(f"line {node.start_mark.line + 1} on: {key.value} is given twice")
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

    exponent = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$")  # YAML 1.1 reads 1e-3 as text
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", exponent, list("-+.0123456789"))
    return Loader
