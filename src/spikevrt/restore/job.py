"""A restoration into files that survives being stopped: what is finished stays, and the same command goes on from
there.

While it runs, everything lies in the hidden folder `.NAME.job` beside the output; the output takes its name when it is
whole. job.json there says what is being made, so that a job goes on only as what it was begun as.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikevrt import runtime
from spikevrt.atomic import complete_or_absent, put_in_place, write_text
from spikevrt.checkpoint import WeightsInfo
from spikevrt.progress import progress_bar
from spikevrt.recording.recording import Recording
from spikevrt.recording.spike_file import sha256_file
from spikevrt.restore.admission import NO_SPIKES, admit, tell_without_spikes
from spikevrt.restore.inputs import reads_spikes
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.output import Output, check_out, open_parts, summary_path
from spikevrt.restore.parts import FrameFiles, VideoParts
from spikevrt.restore.pipeline import in_background
from spikevrt.restore.plan import fit_into_memory
from spikevrt.restore.restorer import load_network, restore_frames
from spikevrt.restore.scan import Scan, scan_recording
from spikevrt.restore.slow_motion import middle_frames, slow_motion
from spikevrt.restore.work import ClipWork, tiles_in_all

if TYPE_CHECKING:
    from spikevrt.model.network import Network

JOB_FILE, JOB_FORMAT, JOB_VERSION = "job.json", "spikevrt-restore-job", 1
WRITE_BEHIND = 8  # finished frames that may wait to be written


def restore_recording(
    weights: Path,
    recording: Recording,
    out: Path,
    options: RestoreOptions,
    *,
    overwrite: bool = False,
    output: Output = Output(),  # noqa: B008 (immutable)
    fps_factor: int = 1,
    memory: str | None = None,
    restart: bool = False,
    progress: Callable[[int, int], None] | None = None,
    made_with: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Restore a recording into files; nothing stands under the name `out` before all of it is there.

    `out` is a video where it ends in .mp4, .mkv or .mov (then its summary is NAME.json beside it); otherwise a folder
    of 000000.png ..., restored.json and, with `output.video`, restored.mp4. `fps_factor`: sharp frames in the place of
    one (`slow_motion`). `memory`: what the process may hold, as "6GiB"; None: what is free; tile, clip and precision
    are lowered until they fit.

    Stopped by whatever (an error, Ctrl-C, kill -9, a full disk), the next call with the same arguments goes on after
    the frames that were finished; `restart` throws them away. `progress(done, total)` is called with each frame and may
    raise to stop; without it a bar is shown on a terminal. A recording whose spikes are to be read passes the health
    gate first (`admit`); scene cuts and frames without usable spikes are looked for (`scan`).

    Returns the summary, which is also written: num_frames, dropped (frame_idx and why), seconds and resumed_at (of this
    call), peak_bytes (of CUDA, else of this process) and predicted_peak_bytes, tiles (as `tiles_in_all`), cuts and
    without_spikes (numbers of frames), fps, notes, recording, weights, options, environment; and made_with, if given:
    what the caller will know the result by (`batch`).

    Raises:
        FileExistsError: `out` exists, and `overwrite` is off or it is no earlier result of this function; or an
            unfinished job of other settings is there.
        BlockingIOError: another process is at this job.
        FileNotFoundError, ValueError: as `load_network` and `restore_frames`.
    """
    out, weights = Path(out), Path(weights)
    output.check(out)
    check_out(out, overwrite=overwrite)
    device = runtime.pick_device(options.device)
    runtime.autocast(device, options.precision)  # refused now rather than after the loading
    runtime.reset_peak_memory(device)
    start_s = time.perf_counter()
    network, info = load_network(weights, device)
    with_spikes = reads_spikes(info, options)
    if options.strict and not with_spikes:
        raise ValueError(f"strict: true; allowed for {weights}, a network without spikes: false")
    if options.without_spikes:
        tell_without_spikes(info, str(weights))
    if with_spikes and recording.spikes is None:
        raise ValueError(NO_SPIKES.format(recording.root))
    for line in _dropped_lines(recording):
        print(line, file=sys.stderr)
    begun = {
        "format": JOB_FORMAT,
        "version": JOB_VERSION,
        "recording": _identity(recording),
        "weights": sha256_file(weights),
        "options": asdict(options),
        "output": asdict(output),
        "fps_factor": fps_factor,
    }
    with _job_folder(out, begun, restart=restart) as job:
        fitted, predicted = _planned(job, network, info, recording, options, memory)
        if with_spikes:
            sound = admit(recording.inside_stream(), options.ignore_health, options.strict)
            recording = replace(recording, bad_pixels=sound.bad_pixels)
        found = _scanned(job, recording, with_spikes=with_spikes)
        runtime.release_memory()
        if found.without_spikes:
            tell_without_spikes(info, str(weights))
        gaps = set(found.without_spikes)
        apart = {*found.cuts, *gaps, *(index + 1 for index in gaps)}
        footage = slow_motion(recording, fps_factor, apart=apart)
        middles = middle_frames(footage, fps_factor)
        if predicted is not None:  # looking through the recording may have taken more than restoring it will
            predicted = max(predicted, runtime.peak_memory_bytes(device))
        parts = open_parts(job / "parts", out, output, footage, recording, fps_factor)
        first = parts.num_done()
        if first:
            print(f"spikevrt: {out}: goes on after {first} of {footage.num_frames} frames", file=sys.stderr)
        work: list[ClipWork] = []
        with contextlib.ExitStack() as stack:
            if progress is None:
                progress = stack.enter_context(progress_bar(f"restoring {recording.name}"))
            restored = restore_frames(
                network, info, footage, fitted, cuts=[middles[index] for index in found.cuts],
                without_spikes={middles[index] for index in gaps}, first=first, progress=progress, tell=work.append,
            )  # fmt: skip
            stack.callback(restored.close)
            hand_over = stack.enter_context(in_background(parts.consume, WRITE_BEHIND))
            if first < footage.num_frames:
                for item in restored:
                    hand_over(item)
        runtime.synchronise(device)
        summary = {
            "num_frames": footage.num_frames,
            "dropped": recording.dropped,
            "resumed_at": first,
            "seconds": time.perf_counter() - start_s,
            "peak_bytes": runtime.peak_memory_bytes(device),
            "predicted_peak_bytes": predicted,
            "tiles": tiles_in_all(work),
            "cuts": [middles[index] for index in found.cuts],
            "without_spikes": [middles[index] for index in found.without_spikes],
            "fps": footage.fps,
            "notes": [],
            "recording": recording.name,
            "weights": weights.name,
            "options": asdict(fitted),
            "environment": runtime.environment(device),
            **({} if made_with is None else {"made_with": made_with}),
        }
        _finish(job, out, parts, output, footage, recording, fps_factor, summary)
    return summary


def _finish(
    job: Path,
    out: Path,
    parts: FrameFiles | VideoParts,
    output: Output,
    footage: Recording,
    recording: Recording,
    fps_factor: int,
    summary: dict[str, Any],
) -> None:
    """Everything under its name. Until then it stays among the parts, whatever happens here."""
    source = recording.blur if isinstance(recording.blur, Path) else None
    if isinstance(parts, VideoParts):
        with complete_or_absent(out) as partial:
            summary["notes"] = list(parts.join(partial, source))
            _write_summary(summary_path(out, partial), summary)
        return
    if output.video:
        video = open_parts(job / "video", Path("restored.mp4"), output, footage, recording, fps_factor)
        assert isinstance(video, VideoParts)
        first = video.num_done()
        video.consume((index, parts.read(index)) for index in range(first, footage.num_frames))
        summary["notes"] = list(video.join(parts.folder / "restored.mp4", source))
    _write_summary(summary_path(out, parts.folder), summary)
    put_in_place(parts.folder, out.absolute())


def _write_summary(path: Path, summary: dict[str, Any]) -> None:
    write_text(path, json.dumps(summary, indent=2) + "\n")


@contextlib.contextmanager
def _job_folder(out: Path, begun: dict[str, Any], *, restart: bool) -> Iterator[Path]:
    """The folder of the job that makes `out`, this process's own; gone when the block ends well, or nothing is in
    it."""
    out = out.absolute()
    job = out.with_name(f".{out.name}.job")
    with _locked(out, job):
        if restart and job.exists():
            shutil.rmtree(job)
        if (job / JOB_FILE).is_file():
            _check_same(job, begun)
        else:
            shutil.rmtree(job, ignore_errors=True)
            (job / "parts").mkdir(parents=True)
            write_text(job / JOB_FILE, json.dumps(begun, indent=1) + "\n")
        try:
            yield job
        except BaseException as error:
            kept = sum(1 for _ in (job / "parts").glob("[0-9]*"))
            if not kept:
                shutil.rmtree(job, ignore_errors=True)
                raise
            what = f"what is finished ({kept} files) is kept in {job}; the same command goes on from there"
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise OSError(f"{out}: no space is left on the device; {what}") from error
            print(f"spikevrt: {out}: {what}", file=sys.stderr)
            raise
        shutil.rmtree(job)


@contextlib.contextmanager
def _locked(out: Path, job: Path) -> Iterator[None]:
    """One process at a time. The lock goes with the process, however it ends."""
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = job.with_name(f"{job.name}-lock")
    with open(lock, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BlockingIOError(f"{out}: another process is making it; wait, or choose another --out") from None
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _check_same(job: Path, begun: dict[str, Any]) -> None:
    try:
        before = json.loads((job / JOB_FILE).read_text(encoding="utf-8"))
    except ValueError:
        before = {}
    now = json.loads(json.dumps(begun))
    different = [key for key in now if before.get(key) != now[key]]
    if different:
        raise FileExistsError(
            f"{job}: an unfinished job with other {', '.join(different)}; finish it with the command that began it, or "
            "pass --restart to throw away what it has"
        )


def _scanned(job: Path, recording: Recording, *, with_spikes: bool) -> Scan:
    """Cuts and gaps, found once a job."""
    path = job / "scan.json"
    if path.is_file():
        values = json.loads(path.read_text(encoding="utf-8"))
        return Scan(tuple(values["cuts"]), tuple(values["without_spikes"]))
    with progress_bar(f"looking through {recording.name}") as progress:
        found = scan_recording(recording, with_spikes=with_spikes, progress=progress)
    if found.without_spikes:
        print(
            f"spikevrt: warning: {recording.root}: no usable spikes at {len(found.without_spikes)} of "
            f"{recording.num_frames} frames, the first is {found.without_spikes[0]}; restored from the frames alone",
            file=sys.stderr,
        )
    write_text(path, json.dumps(asdict(found)) + "\n")
    return found


def _planned(
    job: Path, network: Network, info: WeightsInfo, recording: Recording, options: RestoreOptions, memory: str | None
) -> tuple[RestoreOptions, int | None]:
    """Tile, clip and precision that fit, and the predicted peak; chosen once a job, so that it goes on as it began.

    To be called while the process holds nothing but the network: what it frees it keeps, and small tiles would fit into
    that unseen.
    """
    path = job / "plan.json"
    if path.is_file():
        values = json.loads(path.read_text(encoding="utf-8"))
        return replace(options, **values["changed"]), values["predicted_peak_bytes"]
    fitted, predicted = fit_into_memory(network, info, recording, options, memory)
    changed = {name: value for name, value in asdict(fitted).items() if value != asdict(options)[name]}
    if changed:
        told = ", ".join(f"{name} {value}" for name, value in changed.items())
        print(f"spikevrt: {told}: so that it fits into memory", file=sys.stderr)
    write_text(path, json.dumps({"changed": changed, "predicted_peak_bytes": predicted}) + "\n")
    return fitted, predicted


def _dropped_lines(recording: Recording) -> Iterator[str]:
    if recording.dropped:
        frame_idx, why = recording.dropped[0]
        more = f", and {len(recording.dropped) - 1} more" if len(recording.dropped) > 1 else ""
        yield f"spikevrt: {recording.root}: frame {frame_idx} left out: {why}{more}"


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
