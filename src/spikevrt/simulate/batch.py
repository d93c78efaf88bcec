"""Many recordings: one call, several workers, and an interrupted call is taken up by repeating it."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from spikevrt.recording.recording import open_recording
from spikevrt.simulate.engine import check_engine, run_jobs
from spikevrt.simulate.source import count_frames, is_photo, sha256_source
from spikevrt.simulate.synthesise import SimulateOptions, simulate_recording


def simulate_many(
    sources: Sequence[Path],
    out: Path,
    options: SimulateOptions,
    *,
    count: int,
    workers: int = 1,
    engine: str = "processes",
    ray_address: str | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Simulate `count` recordings, `out/<stem>_<number>`, taking the sources in turn.

    Each recording has a seed of its own, derived from `options.seed` and its number; a video longer than needed starts
    at a place drawn from that seed. Cut-outs come from the photographs among the sources. A recording that already
    stands complete with the same settings is kept, so that an interrupted call, killed even, is taken up by repeating
    it; what a killed call left half-written is removed. Neither `workers` nor `engine` (`engine.run_jobs`) changes a
    byte. `progress` is told (recordings done, recordings in all).

    Raises:
        ValueError: if there are no sources, `count` or `workers` is below 1, or the engine is not to be had.
        FileNotFoundError: if a source does not exist.
        FileExistsError: if a recording stands that was made otherwise, and `overwrite` is false, or if another call is
            at work in `out`.
    """
    if not sources:
        raise ValueError("sources: none given")
    for name, value in (("count", count), ("workers", workers)):
        if value < 1:
            raise ValueError(f"{name}: {value}; must be 1 or more")
    check_engine(engine, ray_address)
    sources, out = [Path(source) for source in sources], Path(out)
    if engine == "ray":  # its workers run in another folder
        sources, out = [source.absolute() for source in sources], out.absolute()
    photos = tuple(source for source in sources if is_photo(source))
    jobs, paths = [], []
    for number in range(count):
        source = sources[number % len(sources)]
        own = _own_options(source, options, number)
        path = out / f"{source.stem}_{number:03d}"
        paths.append(path)
        if path.exists() and not overwrite:
            if not _made_with(path, source, own):
                raise FileExistsError(f"{path}: exists, made otherwise; choose another --out or pass --overwrite")
            continue
        jobs.append((source, path, own, photos))
    jobs.sort(key=lambda job: sources.index(job[0]))  # a photograph is decoded once
    run = functools.partial(_run_job, overwrite=overwrite)
    with _alone_in(out):
        for path in paths:
            _remove_leftovers(path)
        done = count - len(jobs)
        for _ in run_jobs(run, jobs, engine=engine, workers=workers, ray_address=ray_address):
            done += 1
            if progress is not None:
                progress(done, count)
    return paths


def _run_job(job: tuple[Path, Path, SimulateOptions, tuple[Path, ...]], *, overwrite: bool) -> None:
    source, path, options, photos = job
    simulate_recording(source, path, options, overwrite=overwrite, layer_photos=photos if is_photo(source) else ())


@contextlib.contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Hold a lock on the folder `out`, made if need be; the system frees it however this process ends."""
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    handle = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileExistsError(f"{out}: another simulation is at work there; choose another --out") from None
        yield
    finally:
        os.close(handle)
        if is_new and not any(out.iterdir()):
            out.rmdir()


def _remove_leftovers(path: Path) -> None:
    """What killed calls left of a recording: complete_or_absent writes under these hidden names."""
    for what in ("partial", "old"):
        for left in path.parent.glob(f".{glob.escape(path.name)}.{what}-*"):
            shutil.rmtree(left)


def _own_options(source: Path, options: SimulateOptions, number: int) -> SimulateOptions:
    """The options of recording `number`: its seed, and the place where a video starts."""
    digest = hashlib.sha256(f"{options.seed}:{number}".encode()).digest()
    seed = int.from_bytes(digest[:6], "big")
    start_frame = options.start_frame
    if not is_photo(source):
        spare = count_frames(source) - start_frame - options.source_frames_needed
        start_frame += int.from_bytes(digest[6:12], "big") % (spare + 1) if spare > 0 else 0
    return dataclasses.replace(options, seed=seed, start_frame=start_frame)


def _made_with(path: Path, source: Path, options: SimulateOptions) -> bool:
    """Whether the recording at `path` is complete and was made from this source with these options."""
    try:
        provenance = open_recording(path).provenance
    except (OSError, ValueError):
        return False
    recorded, wanted = provenance.get("options"), _in_json(options)
    return (
        isinstance(recorded, dict)
        and _completed(recorded, _in_json(SimulateOptions())) == wanted
        and provenance.get("source_sha256") == sha256_source(source)
    )


def _in_json(options: SimulateOptions) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(options)))
    return values


def _completed(recorded: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """What was recorded, with the defaults of options that did not exist then."""
    whole = default | recorded
    for name, inner in default.items():
        if isinstance(inner, dict) and isinstance(whole[name], dict):
            whole[name] = _completed(whole[name], inner)
    return whole
