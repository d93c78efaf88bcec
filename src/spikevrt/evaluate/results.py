"""Read results.json files, put several together, and answer what tables and curves ask of them.

A condition is what a recording was captured under (threshold, offset, ...); a suite is a set of conditions with the
same scenes, and its base is the condition that the others are variations of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from spikevrt.evaluate.scores import METRICS_ALL
from spikevrt.typed import convert, load_json, naming, require

FORMAT, VERSION = "spikevrt-results", 3
RESULTS = "results.json"
# Of the metrics that are known: the unit, and 1 where more is better, -1 where less is, 0 where neither.
KNOWN = {metric.name: (metric.unit, {"up": 1, "down": -1, None: 0}[metric.better]) for metric in METRICS_ALL}
TWO_PLACES = {"dB", "px"}


@dataclass(frozen=True)
class ScoredCondition:
    """What a recording was captured under. `values` holds all but the two names: numbers, words, yes or no."""

    name: str
    suite: str
    values: dict[str, Any]


@dataclass(frozen=True)
class ScoredRecording:
    """A recording as the results tell of it; `path` is where it lay then, None where they do not say."""

    name: str
    num_frames: int
    width: int
    height: int
    path: Path | None = None
    condition: dict[str, bool | int | float | str] | None = None

    def __post_init__(self) -> None:
        if self.condition is not None:
            for key in ("name", "suite"):
                convert(self.condition.get(key), str, f"condition.{key}")

    @cached_property
    def captured(self) -> ScoredCondition | None:
        """The condition under which it was captured."""
        if self.condition is None:
            return None
        values = dict(self.condition)
        return ScoredCondition(str(values.pop("name")), str(values.pop("suite")), values)


@dataclass(frozen=True)
class SequenceScores:
    """One method on one recording: means by metric, and the values of each frame with its `frame_idx`."""

    name: str
    mean: dict[str, float]
    frames: tuple[dict[str, float], ...]


@dataclass(frozen=True)
class ScoredMethod:
    """One row of the table; `folder` holds the results file, and perhaps frames and pictures of it."""

    name: str
    sequences: tuple[SequenceScores, ...]  # of some recordings or all
    weights: Any = None  # which; None: the method is no network
    spikes: Any = None  # True where it reads them
    parameters: int | None = None
    ms_per_frame: float | None = None
    peak_memory_bytes: float | None = None
    folder: Path = Path()

    @property
    def is_network(self) -> bool:
        return self.weights is not None

    @property
    def reads_spikes(self) -> bool:
        return self.spikes is True

    @cached_property
    def scores(self) -> dict[str, SequenceScores]:
        """By the recording's name."""
        return {sequence.name: sequence for sequence in self.sequences}


@dataclass(frozen=True)
class Results:
    """One results file, or several of the same data put together. `files` holds each with its decoded JSON."""

    files: tuple[tuple[Path, dict[str, Any]], ...]
    data_sha256: str
    protocol: dict[str, str]
    recordings: tuple[ScoredRecording, ...]
    methods: tuple[ScoredMethod, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric that some sequence has: the known ones in the order of `KNOWN`, then the others by name."""
        found = {name for method in self.methods for scores in method.sequences for name in scores.mean}
        return (*(name for name in KNOWN if name in found), *sorted(found - set(KNOWN)))


def read_results(path: Path) -> Results:
    """Read a results.json, or the one in a folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not one of this version, or a value in it is missing or wrong.
    """
    path = Path(path)
    file = path / RESULTS if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{path}: no results there; allowed: a {RESULTS}, or a folder with one")
    values = load_json(file, FORMAT, VERSION)
    with naming(file):
        read = convert(_numbers(values), _File, finite=False)
        recordings = tuple(
            recording if recording.path is None else replace(recording, path=(file.parent / recording.path).resolve())
            for recording in read.data.recordings
        )
        known = {recording.name for recording in recordings}
        names = [method.name for method in read.methods]
        for index, method in enumerate(read.methods):
            if method.name in names[:index]:
                raise ValueError(f"two methods are called {method.name}")
            for number, sequence in enumerate(method.sequences):
                where = f"methods[{index}].sequences[{number}]"
                require(sequence.name in known, f"{where}.name", sequence.name, "one of data.recordings")
                require(all("frame_idx" in frame for frame in sequence.frames), where, "frames", "each with frame_idx")
        if not names or not recordings:
            raise ValueError("no methods or no recordings; allowed: one of each or more")
    methods = tuple(replace(method, folder=file.parent) for method in read.methods)
    return Results(((file, values),), read.data.sha256, read.protocol, recordings, methods)


def merge(parts: Sequence[Results]) -> Results:
    """Several results of the same data as one, methods in the order given.

    A method without a network that scored the same everywhere (the blurry input, say) is kept once.

    Raises:
        ValueError: the data or a metric's definition differ, or two methods have one name; the line says which.
    """
    whole = parts[0]
    first = whole.files[0][0]
    for part in parts[1:]:
        file = part.files[0][0]
        if part.data_sha256 != whole.data_sha256:
            hashes = f"data {part.data_sha256[:12]}, but {first} has {whole.data_sha256[:12]}"
            raise ValueError(f"{file}: {hashes}; allowed: results of the same data")
        if [r.name for r in part.recordings] != [r.name for r in whole.recordings]:
            raise ValueError(f"{file}: names its recordings otherwise than {first}; allowed: the same names")
        for metric, words in part.protocol.items():
            if whole.protocol.get(metric, words) != words:
                raise ValueError(f"{file}: protocol.{metric} is not that of {first}; allowed: the same metric")
        known = {method.name: method for method in whole.methods}
        for method in part.methods:
            if method.name in known and not _is_same_measurement(method, known[method.name]):
                other = known[method.name].folder
                raise ValueError(f"{file}: a method called {method.name} is in {other} already; rename one")
        new = tuple(method for method in part.methods if method.name not in known)
        whole = replace(
            whole,
            files=whole.files + part.files,
            protocol={**whole.protocol, **part.protocol},
            methods=whole.methods + new,
        )
    return whole


def mean_of(method: ScoredMethod, recordings: Sequence[ScoredRecording], metric: str) -> tuple[float | None, int]:
    """(mean over those of the recordings that the method has the metric of, how many those are)."""
    values = [
        method.scores[recording.name].mean[metric]
        for recording in recordings
        if recording.name in method.scores and metric in method.scores[recording.name].mean
    ]
    return (sum(values) / len(values) if values else None), len(values)


def suites(results: Results) -> dict[str, list[ScoredCondition]]:
    """The conditions of each suite, each once, in the order of the file. Empty where no recording has a condition."""
    found: dict[str, list[ScoredCondition]] = {}
    for recording in results.recordings:
        if recording.captured is not None:
            conditions = found.setdefault(recording.captured.suite, [])
            if recording.captured.name not in [condition.name for condition in conditions]:
                conditions.append(recording.captured)
    return found


def base_of(conditions: Sequence[ScoredCondition]) -> ScoredCondition:
    """The condition from which the others of its suite differ in the fewest values in all; the first of equals."""
    return min(conditions, key=lambda one: sum(len(differing(one, other)) for other in conditions))


def differing(one: ScoredCondition, other: ScoredCondition) -> list[str]:
    """The keys in whose values two conditions differ."""
    keys = [*one.values, *(key for key in other.values if key not in one.values)]
    return [key for key in keys if one.values.get(key) != other.values.get(key)]


def recordings_under(results: Results, condition: ScoredCondition) -> list[ScoredRecording]:
    return [
        recording
        for recording in results.recordings
        if recording.captured is not None
        and (recording.captured.suite, recording.captured.name) == (condition.suite, condition.name)
    ]


def base_groups(results: Results) -> list[tuple[str, list[ScoredRecording]]]:
    """What the main table is made of: (title, recordings) of the base of each suite, and of all without condition."""
    groups = []
    for suite, conditions in suites(results).items():
        base = base_of(conditions)
        title = suite if base.name == suite else f"{suite}, base {base.name}"
        groups.append((title, recordings_under(results, base)))
    plain = [recording for recording in results.recordings if recording.captured is None]
    return groups + ([("all recordings" if not groups else "without condition", plain)] if plain else [])


def curve_conditions(conditions: Sequence[ScoredCondition], axis: str) -> list[tuple[float, ScoredCondition]]:
    """The base of a suite and the conditions that differ from it in the number `axis` alone, by that number."""
    base = base_of(conditions)
    points = [
        (condition.values[axis], condition)
        for condition in conditions
        if condition is base or differing(base, condition) == [axis]
    ] if _is_number(base.values.get(axis)) else []  # fmt: skip
    return sorted(((float(x), c) for x, c in points if _is_number(x)), key=lambda point: point[0])


def shown(value: float | None, metric: str) -> str:
    """A value as the tables have it: two places of dB and px, else four."""
    if value is None:
        return "-"
    if math.isinf(value):
        return "inf"
    return f"{value:.2f}" if KNOWN.get(metric, ("", 0))[0] in TWO_PLACES else f"{value:.4f}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_same_measurement(one: ScoredMethod, other: ScoredMethod) -> bool:
    return not one.is_network and not other.is_network and one.scores == other.scores


@dataclass(frozen=True)
class _Data:
    sha256: str
    recordings: tuple[ScoredRecording, ...]


@dataclass(frozen=True)
class _File:
    """What is read of a results.json; the rest of it is for people."""

    data: _Data
    methods: tuple[ScoredMethod, ...]
    protocol: dict[str, str]


def _numbers(node: Any) -> Any:
    """Decoded JSON with infinity for "inf", and without the nulls of what could not be measured."""
    if isinstance(node, dict):
        return {key: _numbers(value) for key, value in node.items() if value is not None}
    if isinstance(node, list):
        return [_numbers(value) for value in node]
    return math.inf if node == "inf" else node
