"""Many recordings: a folder of them restored into a folder of results, each on its own, by several processes.

An interrupted call, killed even, is taken up by repeating it. A recording that cannot be restored stops no other.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch

from spikevrt.atomic import alone_in, write_text
from spikevrt.checkpoint import read_info
from spikevrt.engine import GPUS, Engine, run_jobs
from spikevrt.progress import text_table
from spikevrt.recording.recording import open_recording, recordings_in
from spikevrt.recording.sidecar import SIDECAR
from spikevrt.recording.spike_file import sha256_file
from spikevrt.restore.job import restore_recording
from spikevrt.restore.options import JobOptions, RestoreOptions
from spikevrt.restore.restorer import Gate
from spikevrt.restore.writer import SUMMARY_FILE
from spikevrt.runtime import pick_device
from spikevrt.shipped import find
from spikevrt.typed import amount, load_mapping

BATCH_FILE = "summary.json"
Status = Literal["restored", "kept", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What became of one recording: restored now, kept from an earlier call, or failed, and why (one line)."""

    name: str
    status: Status
    num_frames: int | None = None
    seconds: float = 0.0
    error: str | None = None
    told: str = ""  # on stderr, by the process that worked at it


class Task(NamedTuple):
    """One recording and where it goes; `job.made_with` tells results of other weights, options or recordings apart."""

    recording: Path
    out: Path
    job: JobOptions


def restore_many(
    weights: str | Path,
    folder: Path,
    out: Path,
    options: RestoreOptions,
    job: JobOptions = JobOptions(),  # noqa: B008 (immutable)
    *,
    engine: Engine = Engine(),  # noqa: B008 (immutable)
    gate: Gate | None = None,
    tell: Callable[[Outcome, int, int], None] | None = None,
) -> list[Outcome]:
    """Restore every recording that lies in `folder` into `out`/NAME, as `restore_recording` does, each in a process
    that nothing else depends on; `out`/summary.json has the outcomes, written anew with every one.

    A recording that stands restored by the same weights with the same options is kept; one restored otherwise fails,
    unless `job.overwrite`, which then replaces it. `engine`: who does it, and how many recordings at once; not stated:
    as many as there are GPUs, each with one for itself, or on CPUs one, with all threads; several share the threads.
    `tell(outcome, done, total)` is called with each. Returns the outcomes in the order of names.

    Raises:
        FileNotFoundError, ValueError: no recordings there, no such weights, or the engine is not to be had.
        FileExistsError: `out` is a file, holds the recordings, or another call is at work in it.
    """
    stated = (Path(folder), Path(out))
    weights, folder, out = find(weights).absolute(), stated[0].absolute(), stated[1].absolute()
    recordings = recordings_in(folder)
    if not recordings:
        raise ValueError(f"{folder}: neither a recording nor a folder of recordings (no {SIDECAR})")
    if out.resolve() == folder.resolve():
        raise FileExistsError(f"{out}: holds the recordings; choose another --out")
    read_info(weights)
    gpus = visible_gpus() if pick_device(options.device).type == "cuda" else []
    workers = engine.workers or max(1, len(gpus))
    engine = replace(engine, workers=workers, threads=max(1, torch.get_num_threads() // workers), gpus=gpus)
    outcomes: dict[str, Outcome] = {}

    def as_stated(text: str) -> str:  # paths are absolute, for workers that run in another folder
        return text.replace(f"{folder}/", f"{stated[0]}/").replace(f"{out}/", f"{stated[1]}/")

    def add(outcome: Outcome) -> None:
        error = None if outcome.error is None else as_stated(outcome.error)
        outcome = replace(outcome, error=error, told=as_stated(outcome.told))
        outcomes[outcome.name] = outcome
        _write(out, weights, options, [outcomes[name] for name in sorted(outcomes)])
        if tell is not None:
            tell(outcome, len(outcomes), len(recordings))

    with alone_in(out, "restoration"):
        made_by: dict[str, Any] = {"weights_sha256": sha256_file(weights), "options": _plain(asdict(options))}
        made_by |= {"output": _plain(asdict(job.output)), "fps_factor": job.fps_factor}
        tasks = []
        for path in recordings:
            made_with = made_by | {"recording_sha256": sha256_file(path / SIDECAR)}
            task = Task(path, out / path.name, replace(job, made_with=made_with))
            standing = _standing(task)
            if standing is None:
                tasks.append(task)
            else:
                add(standing)
        run = functools.partial(_restore, weights=weights, options=options, gate=gate)
        for outcome in run_jobs(run, tasks, engine, lost=_lost):
            add(outcome)
    return [outcomes[path.name] for path in recordings]


def told(outcomes: Sequence[Outcome], out: Path, seconds: float) -> list[str]:
    """A table of the recordings, and a last line: how many of each status, and the first error."""
    rows = [["recording", "frames", "seconds", "status"]]
    for one in outcomes:
        frames = "-" if one.num_frames is None else str(one.num_frames)
        rows.append([one.name, frames, f"{one.seconds:.1f}", one.status])
    counts = Counter(one.status for one in outcomes)
    parts = ", ".join(f"{counts[status]} {status}" for status in get_args(Status) if counts[status])
    last = f"{amount(len(outcomes), 'recording')}: {parts} -> {out} ({seconds:.1f} s)"
    if failed := [one for one in outcomes if one.error is not None]:
        more = f"; and {len(failed) - 1} more in {out / BATCH_FILE}" if len(failed) > 1 else ""
        last += f"; {failed[0].name}: {failed[0].error}{more}"
    return [*text_table(rows, left=(0, 3)), last]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them. CUDA is not started for it."""
    stated = os.environ.get(GPUS)
    if stated is not None:
        return [name for name in stated.split(",") if name.strip()]
    return [str(number) for number in range(torch.cuda.device_count())]


def _standing(task: Task) -> Outcome | None:
    """What is to be said of a recording that stands restored already; None where it is to be worked at."""
    if not task.out.exists():
        return None
    try:
        summary = load_mapping(task.out / SUMMARY_FILE)
        if summary["made_with"] == task.job.made_with:
            return Outcome(task.recording.name, "kept", summary["num_frames"], summary["seconds"])
    except (OSError, ValueError, KeyError):
        pass
    if task.job.overwrite:
        return None
    error = f"{task.out}: exists, restored otherwise; choose another --out or pass --overwrite"
    return Outcome(task.recording.name, "failed", error=error)


def _restore(task: Task, *, weights: Path, options: RestoreOptions, gate: Gate | None) -> Outcome:
    """In a worker. Every error becomes an outcome; what is said on stderr is handed over, so that lines do not mix."""
    start_s, said = time.perf_counter(), io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            recording = open_recording(task.recording, keep_outside=True)
            summary = restore_recording(weights, recording, task.out, options, task.job, gate=gate)
    except Exception as error:
        if not isinstance(error, (ValueError, OSError)):  # our mistake, or no memory: the traceback is kept
            said.write(traceback.format_exc())
        kind = "" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: "
        line = " ".join(f"{kind}{error}".split()) or type(error).__name__
        return Outcome(
            task.recording.name, "failed", seconds=time.perf_counter() - start_s, error=line, told=said.getvalue()
        )
    return Outcome(task.recording.name, "restored", summary["num_frames"], summary["seconds"], told=said.getvalue())


def _lost(task: Task) -> Outcome:
    return Outcome(
        task.recording.name,
        "failed",
        error=f"{task.recording}: the process that restored it was killed (no memory left?); see --memory",
    )


def _write(out: Path, weights: Path, options: RestoreOptions, outcomes: Sequence[Outcome]) -> None:
    values = {
        "weights": weights.name,
        "options": asdict(options),
        "recordings": [
            {"name": one.name, "status": one.status, "num_frames": one.num_frames, "seconds": round(one.seconds, 3),
             "error": one.error}
            for one in outcomes
        ],
    }  # fmt: skip
    write_text(out / BATCH_FILE, json.dumps(values, indent=2) + "\n")


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives them back."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain
