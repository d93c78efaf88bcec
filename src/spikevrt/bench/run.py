"""Score methods on the benchmark: every method under every condition, into one results.json.

A network that has been scored stands in the folder `methods` at once, so that an interrupted call is taken up by
repeating it: what was scored on the same recordings by the same weights and options is not scored again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from spikevrt.align.health import NAMES, admit
from spikevrt.atomic import write_text
from spikevrt.bench.benchmark import NAME, SCENES, Condition, prepare_benchmark, total_digest
from spikevrt.evaluate.methods import Method
from spikevrt.evaluate.pictures import frame_path
from spikevrt.evaluate.runner import (
    RESULTS,
    Subject,
    all_methods,
    new_results,
    plain_json,
    score,
    write_json,
)
from spikevrt.evaluate.scores import Measure
from spikevrt.progress import progress_bar, text_table
from spikevrt.recording.frames import to_uint8, write_image
from spikevrt.recording.recording import Recording, open_recording
from spikevrt.recording.spike_file import sha256_file
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.restorer import admitted
from spikevrt.runtime import environment, pick_device
from spikevrt.shipped import find
from spikevrt.typed import amount, load_mapping

METHODS, RECORDINGS = "methods", "recordings"  # folders beside results.json
SCORING = 3  # to be raised when the same method would score otherwise
KEPT = ("slow", "medium", "fast")  # conditions of which the restored frames are kept


@dataclass(frozen=True)
class Entry:
    """A method to be scored and what it is, so that a result of another day is told from its own."""

    method: Method
    identity: str | None  # None: it may have changed since, so it is scored every time


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

    The methods are `evaluate.runner.all_methods`. A method without spikes runs where frames differ; without spikes run
    those that may. Recordings pass the health gate as `restore` has it, which finds broken pixels, but it refuses none:
    what is wrong is the condition. Raises FileNotFoundError, ValueError, FileExistsError: as `prepare_benchmark` and
    `all_methods`; `out` is a folder with something else in it.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / METHODS).is_dir())):
        raise FileExistsError(f"{out}: exists and holds no benchmark's results; choose another --out")
    entries = _entries([find(path) for path in weights], others, options)
    (out / METHODS).mkdir(parents=True, exist_ok=True)
    root = recordings or out / RECORDINGS
    with progress_bar(f"making {NAME}") as progress:
        found = prepare_benchmark(root, conditions, progress=progress)
    print(f"{NAME}: {amount(len(found), 'recording')}, sha256 {total_digest(found)} (checked)")
    subjects = [_subject(root, condition, scene.name, found) for condition in conditions for scene in SCENES]
    results = new_results(subjects, options, measure, out)
    results["benchmark"] = {"name": NAME, "sha256": total_digest(found)}
    chosen = [[subject for subject in subjects if _takes(entry.method, subject)] for entry in entries]
    total = sum(subject.recording.num_frames for taken in chosen for subject in taken)
    with progress_bar("restoring and scoring") as progress:
        done = itertools.count(1)

        def advance() -> None:
            progress(next(done), total)

        for entry, taken in zip(entries, chosen, strict=True):
            if taken:
                results["methods"].append(_scored(entry, taken, measure, options, out, advance))
    write_json(out / RESULTS, results)
    print(condition_table(results))
    return results


def condition_table(results: dict[str, Any]) -> str:
    """The first metric that was taken, a line per condition and a column per method, as plain text.

    A dash stands where a method was not run.
    """
    recordings = results["data"]["recordings"]
    metric = next(iter(results["methods"][0]["sequences"][0]["mean"]))
    names = list(dict.fromkeys(recording["condition"]["name"] for recording in recordings))
    rows = [[metric, *(method["name"] for method in results["methods"])]]
    for name in names:
        members = {recording["name"] for recording in recordings if recording["condition"]["name"] == name}
        cells = []
        for method in results["methods"]:
            means = [s["mean"] for s in method["sequences"] if s["name"] in members]
            values = [float(mean[metric]) for mean in means if metric in mean]
            cells.append(f"{sum(values) / len(values):.2f}" if values else "-")
        rows.append([name, *cells])
    return "\n".join(text_table(rows))


def _entries(weights: Sequence[Path], others: Sequence[str], options: RestoreOptions) -> list[Entry]:
    methods = all_methods(weights, others, options, lenient_gate)
    identities = ["1"] * (len(methods) - len(weights) - len(others)) + [
        *map(sha256_file, weights),
        *[None] * len(others),
    ]
    return [Entry(method, identity) for method, identity in zip(methods, identities, strict=True)]


def _subject(root: Path, condition: Condition, scene: str, digests: dict[str, str]) -> Subject:
    path = f"{condition.folder}/{scene}"
    recording = open_recording(root / path, keep_outside=True)
    recording = (
        admitted(recording, RestoreOptions(), lenient_gate) if condition.spikes else replace(recording, spikes=None)
    )
    return Subject(f"{condition.name}_{scene}", recording, asdict(condition), digests[path])


def lenient_gate(recording: Recording, *, ignore: Collection[str], strict: bool) -> Recording:
    """The health gate as `restore` has it, all of its findings ignored: they are the condition. What can be repaired,
    broken pixels, is."""
    with contextlib.redirect_stderr(io.StringIO()):
        return admit(recording, ignore=NAMES)


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
    options: RestoreOptions,
    out: Path,
    advance: Callable[[], None],
) -> dict[str, Any]:
    """The method's entry: that of an earlier call where it stands, else scored now and written."""
    key = {
        "identity": entry.identity,
        "scoring": SCORING,
        "options": asdict(options),
        "metrics": list(measure.metrics),
        "lpips_vgg": None if measure.lpips_vgg is None else sha256_file(measure.lpips_vgg),
        "recordings": [[subject.name, subject.sha256] for subject in subjects],
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = out / METHODS / f"{entry.method.name}-{digest[:12]}.json"
    result: dict[str, Any]
    if entry.identity is not None and path.is_file():
        result = load_mapping(path, "; remove it to have the method scored again")["result"]
        for _ in range(sum(subject.recording.num_frames for subject in subjects)):
            advance()
        print(f"{entry.method.name}: scored before, at commit {(result['scored_at']['commit'] or 'unknown')[:12]}")
        return {**result, "name": entry.method.name}
    frames = frame_path(out, entry.method.name, "", 0).parent
    shutil.rmtree(frames, ignore_errors=True)  # of other weights of this name

    def keep(frame: Tensor, index: int, subject: Subject) -> None:
        if subject.condition is not None and subject.condition["name"] in KEPT:
            kept = frame_path(out, entry.method.name, subject.name, index)
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_image(kept, to_uint8(frame))

    try:
        result = score(entry.method, subjects, measure, keep=keep, advance=advance)
    except BaseException:
        shutil.rmtree(frames, ignore_errors=True)
        raise
    result["scored_at"] = environment(pick_device(options.device))
    write_text(path, json.dumps(plain_json({"key": key, "result": result}), allow_nan=False))
    written: dict[str, Any] = load_mapping(path)["result"]
    return written  # the same values as a later call will find
