"""Many recordings: one call, several workers, and an interrupted call is taken up by repeating it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from spikevrt.atomic import alone_in, remove_unfinished
from spikevrt.engine import Engine, run_jobs
from spikevrt.recording.recording import open_recording
from spikevrt.simulate.setup import SimulateOptions
from spikevrt.simulate.synthesise import LAYERS_FROM, count_frames, is_photo, sha256_source, simulate_recording


def simulate_many(
    sources: Sequence[Path],
    out: Path,
    options: SimulateOptions,
    *,
    count: int,
    engine: Engine = Engine(),  # noqa: B008 (immutable)
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Simulate `count` recordings, `out/<stem>_<number>`, taking the sources in turn.

    Each recording has a seed of its own, derived from `options.seed` and its number; a video longer than needed starts
    at a place drawn from that seed. Cut-outs come from the photographs among the sources. A recording that already
    stands complete with the same settings, source and photographs for layers is kept, so that an interrupted call,
    killed even, is taken up by repeating it; what a killed call left half-written is removed. The engine changes no
    byte. `progress` is told (recordings done, recordings in all).

    Raises:
        ValueError: if there are no sources, or `count` is below 1.
        FileNotFoundError: if a source does not exist.
        FileExistsError: if a recording stands that was made otherwise, and `overwrite` is false, if another call is at
            work in `out`, or if `out` is a file.
    """
    if not sources:
        raise ValueError("sources: none given")
    if count < 1:
        raise ValueError(f"count: {count}; must be 1 or more")
    sources, out = [Path(source) for source in sources], Path(out)
    if engine.kind == "ray":  # its workers run in another folder
        sources, out = [source.absolute() for source in sources], out.absolute()
    photos = tuple(source for source in sources if is_photo(source))
    wanted = []
    for number in range(count):
        source = sources[number % len(sources)]
        path = out / f"{source.stem}_{number:03d}"
        wanted.append(Shot(source, path, _own_options(source, options, number), photos if is_photo(source) else ()))
    run = functools.partial(_make, overwrite=overwrite)
    paths = [shot.path for shot in wanted]
    names = {path.name for path in paths}
    with alone_in(out, "simulation"):
        remove_unfinished(out, names)  # of killed calls
        shots = [shot for shot in wanted if overwrite or not _stands(shot)]
        shots.sort(key=lambda shot: sources.index(shot.source))  # a photograph is decoded once
        done = count - len(shots)
        try:
            for _ in run_jobs(run, shots, engine):
                done += 1
                if progress is not None:
                    progress(done, count)
        finally:
            remove_unfinished(out, names)  # of this call's killed workers
    return paths


class Shot(NamedTuple):
    """One recording to be made, `path`, and the photographs that its layers are cut from."""

    source: Path
    path: Path
    options: SimulateOptions
    layer_photos: tuple[Path, ...]


def _make(shot: Shot, *, overwrite: bool) -> None:
    simulate_recording(shot.source, shot.path, shot.options, overwrite=overwrite, layer_photos=shot.layer_photos)


def _stands(shot: Shot) -> bool:
    """Whether the recording is there already; refuses one that was made otherwise."""
    if not shot.path.exists():
        return False
    if not _made_with(shot):
        raise FileExistsError(f"{shot.path}: exists, made otherwise; choose another --out or pass --overwrite")
    return True


def _own_options(source: Path, options: SimulateOptions, number: int) -> SimulateOptions:
    """The options of recording `number`: its seed, and the place where a video starts."""
    digest = hashlib.sha256(f"{options.seed}:{number}".encode()).digest()
    seed = int.from_bytes(digest[:6], "big")
    start_frame = options.start_frame
    if not is_photo(source):
        spare = count_frames(source) - start_frame - options.source_frames_needed
        start_frame += int.from_bytes(digest[6:12], "big") % (spare + 1) if spare > 0 else 0
    return dataclasses.replace(options, seed=seed, start_frame=start_frame)


def _made_with(shot: Shot) -> bool:
    """Whether a recording is complete and was made from this source and these photographs with these options."""
    try:
        provenance = open_recording(shot.path).provenance
    except (OSError, ValueError):
        return False
    recorded, wanted = provenance.get("options"), _in_json(shot.options)
    has_layers = is_photo(shot.source) and shot.options.num_layers > 0
    return (
        isinstance(recorded, dict)
        and _completed(recorded, _in_json(SimulateOptions())) == wanted
        and provenance.get("source_sha256") == sha256_source(shot.source)
        and provenance.get(LAYERS_FROM) == ([sha256_source(path) for path in shot.layer_photos] if has_layers else None)
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
