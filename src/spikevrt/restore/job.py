"""A restoration into files that survives being stopped: what is finished stays, and the same command goes on from
there.

While it runs, everything lies in the hidden folder `.NAME.job` beside the output; the output takes its name when it is
whole. job.json there says what is being made, so that a job goes on only as what it was begun as.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import itertools
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from spikevrt import runtime
from spikevrt.atomic import complete_or_absent, make_folder, put_in_place, refuse_own_input, write_text
from spikevrt.light import HDR_TRANSFERS, HDR_WHITE_NITS, PQ
from spikevrt.progress import Progress, clock
from spikevrt.recording.alignment import Alignment, alignment_values
from spikevrt.recording.deep_images import is_deep
from spikevrt.recording.recording import Recording
from spikevrt.recording.spike_file import sha256_file
from spikevrt.recording.video import probe_video
from spikevrt.restore.clip import tiles_in_all
from spikevrt.restore.options import JobOptions, RestoreOptions, is_video
from spikevrt.restore.prefetch import in_background
from spikevrt.restore.restorer import Gate, Restoration, Restored, Restorer
from spikevrt.restore.writer import FrameFiles, JoinedPieces, Pieces, check_out, summary_path
from spikevrt.shipped import DEFAULT, GAIN_DB, TWIN, find
from spikevrt.typed import amount, load_mapping

JOB_FILE, JOB_FORMAT, JOB_VERSION = "job.json", "spikevrt-restore-job", 1
LONG_S = 20.0  # what takes longer is told before the first frames are there
WRITE_BEHIND = 8  # finished frames that may wait to be written


def restore_recording(
    weights: str | Path,
    recording: Recording,
    out: Path,
    options: RestoreOptions,
    job: JobOptions = JobOptions(),  # noqa: B008 (immutable)
    *,
    gate: Gate | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Restore a recording into files; nothing stands under the name `out` before all of it is there.

    `out` is a video where it ends in .mp4, .mkv or .mov (then its summary is NAME.json beside it); otherwise a folder
    of 000000.png ..., restored.json and, with `job.output.video`, restored.mp4. Every frame is what
    `Restorer(weights, options, gate=gate).frames(recording)` gives.

    Stopped by whatever (an error, Ctrl-C, kill -9, a full disk), the next call with the same arguments goes on after
    the frames that were finished. `progress(done, total)` is called with each frame and may raise to stop; without it
    progress is shown on stderr.

    Returns the summary, which is also written: num_frames, dropped (frame_idx and why), seconds and resumed_at (of this
    call), peak_bytes (of CUDA, else of this process) and predicted_peak_bytes, tiles (as `tiles_in_all`), cuts (null:
    not looked for) and without_spikes (numbers of frames), fps, alignment (as recording.json has it; null: none),
    notes, recording, weights, network (its name in words), spikes (whether it read them), options, environment; and
    made_with, if given.

    Raises:
        FileExistsError: `out` exists, and `overwrite` is off or it is no earlier result of this function; or an
            unfinished job of other settings is there.
        BlockingIOError: another process is at this job.
        FileNotFoundError, ValueError: as `Restorer` and its `plan`.
    """
    out, path = Path(out), find(weights)
    job.check(out)
    check_out(out, overwrite=job.overwrite)
    refuse_own_input(out, recording.files)
    start_s = time.perf_counter()
    restorer = Restorer(path, options, gate=gate)
    runtime.reset_peak_memory(restorer.device)
    for line in _told_of_frames(recording, out):
        print(line, file=sys.stderr)
    if not restorer.reads_spikes:
        print(_frames_alone(restorer, path, recording), file=sys.stderr)
    begun = {
        "format": JOB_FORMAT,
        "version": JOB_VERSION,
        "recording": _identity(recording),
        "weights": sha256_file(path),
        "options": asdict(options),
        "output": asdict(job.output),
        "fps_factor": job.fps_factor,
    }
    with _job_folder(out, begun, restart=job.restart, keep=job.keep) as folder:
        plan = restorer.plan(recording, fps_factor=job.fps_factor, memory=job.memory, fitted=_fitted(folder, options))
        _keep_fitted(folder, options, plan)
        runtime.release_memory()
        pieces = _open_pieces(folder / "pieces", out, job, plan)
        first = pieces.num_done()
        if first:
            print(f"spikevrt: {out}: goes on after {amount(first, 'finished frame')}", file=sys.stderr)
        with contextlib.ExitStack() as stack:
            expect = None
            if progress is None:
                bar = stack.enter_context(Progress(f"restoring {recording.name}"))
                progress, expect = bar.update, functools.partial(_tell_time, bar)
            restored = plan.run(first=first, progress=progress, expect=expect)
            stack.callback(restored.close)
            hand_over = stack.enter_context(in_background(pieces.consume, WRITE_BEHIND))
            for item in restored:
                hand_over(item)
        runtime.synchronise(restorer.device)
        summary = {
            "num_frames": plan.seen.num_frames,
            "dropped": recording.dropped,
            "resumed_at": min(first, plan.seen.num_frames),
            "seconds": time.perf_counter() - start_s,
            "peak_bytes": runtime.peak_memory_bytes(restorer.device),
            "predicted_peak_bytes": plan.predicted_peak_bytes,
            "tiles": tiles_in_all(plan.work),
            "cuts": plan.seen.cuts,
            "without_spikes": plan.seen.without_spikes,
            "fps": recording.fps * job.fps_factor,
            "alignment": None if recording.alignment == Alignment() else alignment_values(recording.alignment),
            "notes": _source_notes(recording, job, out),
            "recording": recording.name,
            "weights": path.name,
            "network": restorer.info.model.name,
            "spikes": restorer.reads_spikes,
            "options": asdict(plan.options),
            "environment": runtime.environment(restorer.device),
            **({} if job.made_with is None else {"made_with": job.made_with}),
        }
        _finish(folder, out, pieces, job, plan, summary)
    return summary


def _open_pieces(folder: Path, out: Path, job: JobOptions, plan: Restoration) -> Pieces:
    """What makes `out`, piece by piece in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if not is_video(out):
        return FrameFiles(folder, job.output.frames, linear=plan.recording.linear)
    assert job.video_pieces is not None
    pieces: Pieces = job.video_pieces(folder, job.output.format, plan.recording, plan.fps_factor)
    return pieces


def _finish(
    folder: Path, out: Path, pieces: Pieces, job: JobOptions, plan: Restoration, summary: dict[str, Any]
) -> None:
    """Everything under its name. Until then it stays among the pieces, whatever happens here."""
    source = plan.recording.blur if isinstance(plan.recording.blur, Path) else None
    if not isinstance(pieces, FrameFiles):
        with complete_or_absent(out) as partial:
            summary["notes"] += cast("JoinedPieces", pieces).join(partial, source)
            write_text(summary_path(out, partial), json.dumps(summary, indent=2) + "\n")
        return
    if job.output.video:
        video = cast("JoinedPieces", _open_pieces(folder / "video", Path("restored.mp4"), job, plan))
        places = plan.seen.places
        video.consume(
            Restored(index, pieces.read(index), *places[index]) for index in range(video.num_done(), len(places))
        )
        summary["notes"] += video.join(pieces.folder / "restored.mp4", source)
    write_text(summary_path(out, pieces.folder), json.dumps(summary, indent=2) + "\n")
    put_in_place(pieces.folder, out.absolute())


@contextlib.contextmanager
def _job_folder(out: Path, begun: dict[str, Any], *, restart: bool, keep: bool) -> Iterator[Path]:
    """The folder of the job that makes `out`, this process's own; gone when the block ends well, or nothing is in it,
    or without `keep`."""
    make_folder(out.parent)
    out = out.absolute()
    job = out.with_name(f".{out.name}.job")
    with _locked(out, job):
        if restart and job.exists():
            shutil.rmtree(job)
        if (job / JOB_FILE).is_file():
            _check_same(out, job, begun)
        else:
            shutil.rmtree(job, ignore_errors=True)
            (job / "pieces").mkdir(parents=True)
            write_text(job / JOB_FILE, json.dumps(begun, indent=1) + "\n")
        try:
            yield job
        except BaseException as error:
            kept = sum(1 for _ in (job / "pieces").glob("[0-9]*"))
            if not kept or not keep:
                shutil.rmtree(job, ignore_errors=True)
                raise
            what = f"what is finished ({amount(kept, 'file')}) is kept beside it; the same command goes on from there"
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise OSError(f"{out}: no space is left on the device; {what}") from error
            print(f"spikevrt: {out}: {what}", file=sys.stderr)
            raise
        shutil.rmtree(job)


@contextlib.contextmanager
def _locked(out: Path, job: Path) -> Iterator[None]:
    """One process at a time. The lock goes with the process, however it ends."""
    lock = job.with_name(f"{job.name}-lock")
    try:
        file = open(lock, "w")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise type(error)(error.errno, "nothing can be written in this folder", str(out.parent)) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BlockingIOError(f"{out}: another process is making it; wait, or choose another --out") from None
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _check_same(out: Path, job: Path, begun: dict[str, Any]) -> None:
    try:
        before = load_mapping(job / JOB_FILE)
    except ValueError:
        before = {}
    now = json.loads(json.dumps(begun))
    different = [key for key in now if before.get(key) != now[key]]
    if different:
        raise FileExistsError(
            f"{out}: an unfinished job with other {', '.join(different)} is kept beside it; finish it with the command "
            "that began it, or pass --restart to throw away what it has"
        )


def _fitted(job: Path, options: RestoreOptions) -> tuple[RestoreOptions, int | None] | None:
    """What an earlier call of this job has fitted into memory, so that it goes on as it began."""
    path = job / "plan.json"
    if not path.is_file():
        return None
    values = load_mapping(path)
    return replace(options, **values["changed"]), values["predicted_peak_bytes"]


def _keep_fitted(job: Path, options: RestoreOptions, plan: Restoration) -> None:
    if (job / "plan.json").is_file():
        return
    changed = {name: value for name, value in asdict(plan.options).items() if value != asdict(options)[name]}
    if changed:
        told = ", ".join(f"{name} {value}" for name, value in changed.items())
        print(f"spikevrt: {told}: so that it fits into memory", file=sys.stderr)
    values = {"changed": changed, "predicted_peak_bytes": plan.predicted_peak_bytes}
    write_text(job / "plan.json", json.dumps(values) + "\n")


def _told_of_frames(recording: Recording, out: Path) -> Iterator[str]:
    """Which are left out or missing."""
    if recording.dropped:
        frame_idx, why = recording.dropped[0]
        more = f", and {len(recording.dropped) - 1} more" if len(recording.dropped) > 1 else ""
        yield f"spikevrt: {recording.root}: frame {frame_idx} left out: {why}{more}"
    numbers = [one.frame_idx for one in recording.exposures]
    if numbers[-1] - numbers[0] >= len(numbers) and not is_video(out):
        after = next(before for before, number in itertools.pairwise(numbers) if number > before + 1)
        told = f"behind frame {after} a frame is missing; files are numbered on without a gap, a video keeps the times"
        yield f"spikevrt: {recording.root}: {told}"


def _source_notes(recording: Recording, job: JobOptions, out: Path) -> list[str]:
    """What of the frames does not come through, or is meant otherwise."""
    notes, bits, shown = [], 8, recording.blur if isinstance(recording.blur, Path) else recording.blur[0]
    if isinstance(recording.blur, Path):
        found = probe_video(shown)
        bits = found.bits
        if "pictures" in recording.notes:
            notes.append(f"pictures: {recording.notes['pictures']}")
        if found.has_alpha:
            notes.append(f"{out.name}: the transparency (alpha) of {shown.name} is not carried over")
        if found.has_light_levels and is_video(out):
            notes.append(f"{out.name}: the mastering display and light levels of {shown.name} are not carried over")
        if found.transfer in HDR_TRANSFERS and not is_video(out):
            white = f"{HDR_WHITE_NITS} nits" if found.transfer == PQ else "the brightest light that HLG codes"
            notes.append(f"{out.name}: frames are of sRGB (EXR: linear light), in which 1 is {white}")
    elif is_deep(shown):
        bits = 16
    if bits > 8 and not is_video(out) and job.output.frames == "png":
        notes.append(f"{out.name}: 8 bits a colour, of {bits} in {shown.name}; frames as png16 keep them")
    return notes


def _frames_alone(restorer: Restorer, path: Path, recording: Recording) -> str:
    """What it means that no spikes are read, and what would change it."""
    line = f"spikevrt: {recording.root}: restored without spikes, by {path.stem} ({restorer.info.model.name})"
    if path == find(TWIN):
        line += (
            f": {GAIN_DB[TWIN]} dB above the blur, where spikes and {DEFAULT} give {GAIN_DB[DEFAULT]} (docs/results.md)"
        )
    if recording.spikes is None:
        return f"{line}; with a spike camera's stream: --spikes FILE beside the frames, or a recording of both"
    return f"{line}; its spikes are not read: --weights {DEFAULT} reads them"


def _tell_time(bar: Progress, seconds: float) -> None:
    if seconds > LONG_S:
        bar.say(f"spikevrt: about {clock(seconds)} for all frames")


def _identity(recording: Recording) -> dict[str, Any]:
    """What tells whether a recording is the one that a job was begun with: its files' sizes and times, its
    exposures."""
    pictures = [recording.blur] if isinstance(recording.blur, Path) else list(recording.blur)
    files = [*pictures, *([] if recording.spikes is None else recording.spikes.files)]
    stated = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in map(Path, files)]
    windows = [(one.frame_idx, one.start_tick, one.stop_tick) for one in recording.exposures]
    return {
        "name": recording.name,
        "num_frames": recording.num_frames,
        "files": _digest(stated),
        "exposures": _digest(windows),
        "alignment": _digest(repr(recording.alignment)),
    }


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
