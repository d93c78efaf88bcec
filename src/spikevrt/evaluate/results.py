"""Read results.json files, put several together, and answer what tables and curves ask of them.

A condition is what a recording was captured under (threshold, offset, ...); a split is a set of conditions with the
same scenes, and its base is the condition that the others are variations of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spikevrt.evaluate.scores import METRICS_ALL
from spikevrt.recording.sidecar import Fields, read_fields

FORMAT, VERSION = "spikevrt-results", 2
RESULTS = "results.json"
# Of the metrics that are known: the unit, and 1 where more is better, -1 where less is, 0 where neither.
KNOWN = {metric.name: (metric.unit, {"up": 1, "down": -1, None: 0}[metric.better]) for metric in METRICS_ALL}
TWO_PLACES = {"dB", "px"}


@dataclass(frozen=True)
class Condition:
    """What a recording was captured under. `values` holds all but the two names: numbers, words, yes or no."""

    name: str
    split: str
    values: dict[str, Any]


@dataclass(frozen=True)
class ScoredRecording:
    """A recording as the results tell of it; `path` is where it lay then, None where they do not say."""

    name: str
    path: Path | None
    num_frames: int
    width: int
    height: int
    condition: Condition | None


@dataclass(frozen=True)
class SequenceScores:
    """One method on one recording: means by metric, and the values of each frame by its index."""

    mean: dict[str, float]
    frames: tuple[tuple[int, dict[str, float]], ...]


@dataclass(frozen=True)
class Method:
    """One row of the table; `folder` holds the results file, and perhaps frames and pictures of it."""

    name: str
    folder: Path
    sequences: dict[str, SequenceScores]  # by the recording's name; some may be absent
    is_network: bool
    reads_spikes: bool
    parameters: int | None
    ms_per_frame: float | None
    peak_memory_bytes: float | None


@dataclass(frozen=True)
class Results:
    """One results file, or several of the same data put together. `files` holds each with its decoded JSON."""

    files: tuple[tuple[Path, dict[str, Any]], ...]
    data_sha256: str
    protocol: dict[str, str]
    recordings: tuple[ScoredRecording, ...]
    methods: tuple[Method, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric that some sequence has: the known ones in the order of `KNOWN`, then the others by name."""
        found = {name for method in self.methods for scores in method.sequences.values() for name in scores.mean}
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
    fields = read_fields(file, FORMAT, VERSION)
    recordings = tuple(_read_recording(entry, file.parent) for entry in fields.each("data.recordings"))
    names = {recording.name for recording in recordings}
    methods = tuple(_read_method(entry, file.parent, names) for entry in fields.each("methods"))
    for name in (method.name for method in methods):
        if [method.name for method in methods].count(name) > 1:
            raise ValueError(f"{file}: two methods are called {name}")
    if not methods or not recordings:
        raise ValueError(f"{file}: no methods or no recordings; allowed: one of each or more")
    protocol = fields.inside("protocol")
    return Results(
        ((file, fields.values),),
        fields.get("data.sha256", str),
        {str(name): protocol.get(name, str) for name in protocol.values},
        recordings,
        methods,
    )


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


def mean_of(method: Method, recordings: Sequence[ScoredRecording], metric: str) -> tuple[float | None, int]:
    """(mean over those of the recordings that the method has the metric of, how many those are)."""
    values = [
        method.sequences[recording.name].mean[metric]
        for recording in recordings
        if recording.name in method.sequences and metric in method.sequences[recording.name].mean
    ]
    return (sum(values) / len(values) if values else None), len(values)


def splits(results: Results) -> dict[str, list[Condition]]:
    """The conditions of each split, each once, in the order of the file. Empty where no recording has a condition."""
    found: dict[str, list[Condition]] = {}
    for recording in results.recordings:
        if recording.condition is not None:
            conditions = found.setdefault(recording.condition.split, [])
            if recording.condition.name not in [condition.name for condition in conditions]:
                conditions.append(recording.condition)
    return found


def base_of(conditions: Sequence[Condition]) -> Condition:
    """The condition from which the others of its split differ in the fewest values in all; the first of equals."""
    return min(conditions, key=lambda one: sum(len(differing(one, other)) for other in conditions))


def differing(one: Condition, other: Condition) -> list[str]:
    """The keys in whose values two conditions differ."""
    keys = [*one.values, *(key for key in other.values if key not in one.values)]
    return [key for key in keys if one.values.get(key) != other.values.get(key)]


def recordings_under(results: Results, condition: Condition) -> list[ScoredRecording]:
    return [
        recording
        for recording in results.recordings
        if recording.condition is not None
        and (recording.condition.split, recording.condition.name) == (condition.split, condition.name)
    ]


def base_groups(results: Results) -> list[tuple[str, list[ScoredRecording]]]:
    """What the main table is made of: (title, recordings) of the base of each split, and of all without condition."""
    groups = []
    for split, conditions in splits(results).items():
        base = base_of(conditions)
        title = split if base.name == split else f"{split}, base {base.name}"
        groups.append((title, recordings_under(results, base)))
    plain = [recording for recording in results.recordings if recording.condition is None]
    return groups + ([("all recordings" if not groups else "without condition", plain)] if plain else [])


def curve_conditions(conditions: Sequence[Condition], axis: str) -> list[tuple[float, Condition]]:
    """The base of a split and the conditions that differ from it in the number `axis` alone, by that number."""
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


def _is_same_measurement(one: Method, other: Method) -> bool:
    return not one.is_network and not other.is_network and one.sequences == other.sequences


def _read_recording(entry: Fields, folder: Path) -> ScoredRecording:
    path = (folder / entry.get("path", str)).resolve() if entry.has("path") else None
    condition = None
    if entry.has("condition"):
        inside = entry.inside("condition")
        values = {str(key): value for key, value in inside.values.items() if key not in ("name", "split")}
        for key, value in values.items():
            if not isinstance(value, str | int | float):
                raise ValueError(f"{entry.path}: {inside.prefix}{key}: {str(value)[:80]!r}; allowed: number or text")
        condition = Condition(inside.get("name", str), inside.get("split", str), values)
    return ScoredRecording(
        entry.get("name", str), path, entry.get("num_frames", int), entry.get("width", int), entry.get("height", int),
        condition,
    )  # fmt: skip


def _read_method(entry: Fields, folder: Path, recordings: set[str]) -> Method:
    sequences: dict[str, SequenceScores] = {}
    for sequence in entry.each("sequences"):
        name = sequence.get("name", str)
        if name not in recordings:
            raise ValueError(f"{entry.path}: {sequence.prefix}name: {name[:80]!r}; allowed: one of data.recordings")
        frames = tuple((frame.get("frame_idx", int), _read_scores(frame)) for frame in sequence.each("frames"))
        sequences[name] = SequenceScores(_read_scores(sequence.inside("mean")), frames)
    return Method(
        name=entry.get("name", str),
        folder=folder,
        sequences=sequences,
        is_network=entry.has("weights"),
        reads_spikes=entry.has("spikes") and entry.values["spikes"] is True,
        parameters=entry.get("parameters", int) if entry.has("parameters") else None,
        ms_per_frame=entry.get("ms_per_frame", float) if entry.has("ms_per_frame") else None,
        peak_memory_bytes=entry.get("peak_memory_bytes", float) if entry.has("peak_memory_bytes") else None,
    )


def _read_scores(fields: Fields) -> dict[str, float]:
    """Numbers by metric. "inf" is infinity; null, of what could not be measured, is left out."""
    scores: dict[str, float] = {}
    for name, value in fields.values.items():
        if name == "frame_idx" or value is None:
            continue
        scores[str(name)] = math.inf if value == "inf" else fields.get(str(name), float)
    return scores
