"""Score methods on the benchmark: every method under every condition, into one results.json.

A method that has been scored stands in the folder `methods` at once, so that an interrupted call is taken up by
repeating it: what was scored on the same recordings by the same weights is not scored again.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from spikevrt.bench.benchmark import NAME, SCENES, Condition, prepare_benchmark, total_digest
from spikevrt.checkpoint import read_info
from spikevrt.evaluate import report
from spikevrt.evaluate.methods import (
    Method,
    blur_method,
    interval_ratio_method,
    network_method,
    other_method,
    spike_ratio_method,
)
from spikevrt.evaluate.runner import (
    RESULTS,
    Measure,
    Subject,
    method_names,
    new_results,
    plain_json,
    score,
    write_json,
)
from spikevrt.recording.atomic import complete_or_absent
from spikevrt.recording.frames import to_uint8, write_image
from spikevrt.recording.recording import open_recording
from spikevrt.recording.spike_file import sha256_file
from spikevrt.restore.inputs import reads_spikes
from spikevrt.restore.output import progress_bar
from spikevrt.restore.restorer import RestoreOptions

METHODS, RECORDINGS = "methods", "recordings"  # folders beside results.json
KEPT = ("medium",)  # conditions of which the restored frames are kept


@dataclass(frozen=True)
class Entry:
    """A method to be scored and what it is, so that a result of another day is told from its own."""

    method: Method
    identity: str


def run_benchmark(
    out: Path,
    weights: Sequence[Path],
    others: Sequence[str],
    conditions: Sequence[Condition],
    options: RestoreOptions,
    measure: Measure,
    *,
    recordings: Path | None = None,
) -> dict[str, Any]:
    """Make the benchmark (in `recordings`, by default OUT/recordings), score, write OUT/results.json, print the table.

    The methods are the blurry input, the two ratios, each of `weights`, and `others` (`methods.other_method`).
    A method without spikes runs where frames differ; without spikes run those that may.

    Raises:
        FileNotFoundError, ValueError, FileExistsError: as `prepare_benchmark`, `load_weights`, `other_method`; `out` is
            a folder with something else in it.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / METHODS).is_dir())):
        raise FileExistsError(f"{out}: exists and holds no benchmark's results; choose another --out")
    entries = _entries([Path(path) for path in weights], others, options)
    (out / METHODS).mkdir(parents=True, exist_ok=True)
    root = recordings or out / RECORDINGS
    with progress_bar(f"making {NAME}") as progress:
        found = prepare_benchmark(root, conditions, progress=progress)
    print(f"{NAME}: {len(found)} recordings, sha256 {total_digest(found)} (checked)")
    subjects = [_subject(root, condition, scene.name) for condition in conditions for scene in SCENES]
    results = new_results(subjects, options, measure, out)
    results["benchmark"] = {"name": NAME, "sha256": total_digest(found)}
    chosen = [[subject for subject in subjects if _takes(entry.method, subject)] for entry in entries]
    total = sum(subject.recording.num_frames for taken in chosen for subject in taken)
    with progress_bar("restoring and scoring") as progress:
        done = itertools.count(1)

        def advance() -> None:
            if progress is not None:
                progress(next(done), total)

        for entry, taken in zip(entries, chosen, strict=True):
            if taken:
                results["methods"].append(_scored(entry, taken, measure, out, results["data"]["sha256"], advance))
    write_json(out / RESULTS, results)
    print(condition_table(results))
    return results


def condition_table(results: dict[str, Any], metric: str = "psnr_rgb") -> str:
    """One metric, a line per condition and a column per method, as plain text; a dash where a method was not run."""
    recordings = results["data"]["recordings"]
    names = list(dict.fromkeys(recording["condition"]["name"] for recording in recordings))
    rows = [[metric, *(method["name"] for method in results["methods"])]]
    for name in names:
        members = {recording["name"] for recording in recordings if recording["condition"]["name"] == name}
        cells = []
        for method in results["methods"]:
            values = [float(s["mean"][metric]) for s in method["sequences"] if s["name"] in members]
            cells.append(f"{sum(values) / len(values):.2f}" if values else "-")
        rows.append([name, *cells])
    return report.aligned(rows)


def _entries(weights: Sequence[Path], others: Sequence[str], options: RestoreOptions) -> list[Entry]:
    entries = [Entry(make(), "1") for make in (blur_method, spike_ratio_method, interval_ratio_method)]
    for name, path in zip(method_names(weights), weights, strict=True):
        uses_spikes = reads_spikes(read_info(path), options)
        entries.append(Entry(network_method(name, path, options, uses_spikes=uses_spikes), sha256_file(path)))
    entries += [Entry(other_method(text), text) for text in others]
    names = [entry.method.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"methods: {name} twice; give another name")
    return entries


def _subject(root: Path, condition: Condition, scene: str) -> Subject:
    recording = open_recording(root / condition.folder / scene)
    if not condition.spikes:
        recording = replace(recording, spikes=None)
    return Subject(f"{condition.name}_{scene}", recording, asdict(condition))


def _takes(method: Method, subject: Subject) -> bool:
    assert subject.condition is not None
    condition = Condition(**subject.condition)
    if not method.uses_spikes:
        return condition.has_own_frames
    return condition.spikes or method.may_go_without


def _scored(
    entry: Entry,
    subjects: Sequence[Subject],
    measure: Measure,
    out: Path,
    data_sha256: str,
    advance: Callable[[], None],
) -> dict[str, Any]:
    """The method's entry: that of an earlier call where it stands, else scored now and written."""
    path = out / METHODS / f"{entry.method.name}.json"
    key = {
        "identity": entry.identity,
        "data": data_sha256,
        "recordings": [subject.name for subject in subjects],
        "metrics": list(measure.names),
    }
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["key"] == key:
            for _ in range(sum(subject.recording.num_frames for subject in subjects)):
                advance()
            result: dict[str, Any] = stored["result"]
            return result

    def keep(frame: Tensor, index: int, subject: Subject) -> None:
        if subject.condition is not None and subject.condition["name"] in KEPT:
            kept = report.frame_path(out, entry.method.name, subject.name, index)
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_image(kept, to_uint8(frame))

    result = score(entry.method, subjects, measure, keep=keep, advance=advance)
    with complete_or_absent(path) as partial:
        partial.write_text(json.dumps(plain_json({"key": key, "result": result}), allow_nan=False), encoding="utf-8")
    return result
