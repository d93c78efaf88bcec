"""Many recordings from many sources: each with a seed of its own, several at a time, taken up again after a stop."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from spikevrt.atomic import alone_in, remove_unfinished
from spikevrt.engine import Engine, run_jobs
from spikevrt.recording.frames import list_images
from spikevrt.recording.recording import Recording, open_recording
from spikevrt.recording.video import probe_video
from spikevrt.simulate.folders import SharpClip
from spikevrt.simulate.footage import BLENDED_PX, MOST_BETWEEN, find_weights, with_own_interpolation, with_own_rate
from spikevrt.simulate.setup import SimulateOptions
from spikevrt.simulate.synthesise import LAYERS_FROM, is_photo, sha256_source, simulate_recording


def simulate_many(
    sources: Sequence[Path | SharpClip],
    out: Path,
    options: SimulateOptions,
    *,
    count: int | None,
    engine: Engine = Engine(),  # noqa: B008 (immutable)
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[Path]:
    """Simulate `count` recordings, `out/<stem>_<number>`, taking the sources in turn; without a count one of each,
    `out/<stem>`. A `SharpClip` has its own name in the place of the stem.

    Each recording has a seed of its own, derived from `options.seed` and its number; a video longer than needed starts
    at a place drawn from that seed. Cut-outs come from the photographs among the sources. A recording that already
    stands complete with the same settings, source and photographs for layers is kept, so that an interrupted call,
    killed even, is taken up by repeating it; what a killed call left half-written is removed. The engine changes no
    byte. `progress` is told (recordings done, recordings in all). With `tell` a source that cannot be filmed stops no
    other: `tell` is given the reason, a line that names it, and the recordings of the others are returned.

    Raises:
        ValueError: if there are no sources, or `count` is below 1; without `tell`, what is wrong with a source.
        FileNotFoundError: if a source does not exist.
        FileExistsError: if a recording stands that was made otherwise, and `overwrite` is false, if another call is at
            work in `out`, or if `out` is a file.
    """
    if not sources:
        raise ValueError("sources: none given")
    if count is not None and count < 1:
        raise ValueError(f"count: {count}; must be 1 or more")
    clips, out = (
        [one if isinstance(one, SharpClip) else SharpClip(Path(one), Path(one).stem) for one in sources],
        Path(out),
    )
    if engine.is_ray:  # its workers run in another folder
        clips, out = [clip._replace(source=clip.source.absolute()) for clip in clips], out.absolute()
    photos = tuple(clip.source for clip in clips if is_photo(clip.source))
    if options.interpolate != 1 and len(photos) < len(clips):
        find_weights()  # or none can be made
    wanted = []
    for number in range(len(clips) if count is None else count):
        clip = clips[number % len(clips)]
        path = out / (clip.name if count is None else f"{clip.name}_{number:03d}")
        with _told(tell):
            own = _own_options(clip.source, options, number)
            wanted.append(Shot(clip.source, path, own, photos if is_photo(clip.source) else ()))
    run = functools.partial(_make, overwrite=overwrite, go_on=tell is not None)
    paths = [shot.path for shot in wanted]
    with alone_in(out, "simulation"):
        _remove_unfinished(paths)  # of killed calls
        shots = [shot for shot in wanted if overwrite or not _stands(shot)]
        order = {clip.source: index for index, clip in enumerate(clips)}
        shots.sort(key=lambda shot: order[shot.source])  # a photograph is decoded once
        done = len(wanted) - len(shots)
        try:
            for failed, why in run_jobs(run, shots, engine):
                done += 1
                if why is not None and tell is not None:
                    paths.remove(failed)
                    tell(why)
                if progress is not None:
                    progress(done, len(wanted))
        finally:
            _remove_unfinished(paths)  # of this call's killed workers
    return paths


class Shot(NamedTuple):
    """One recording to be made, `path`, and the photographs that its layers are cut from."""

    source: Path
    path: Path
    options: SimulateOptions
    layer_photos: tuple[Path, ...]


def _make(shot: Shot, *, overwrite: bool, go_on: bool) -> tuple[Path, str | None]:
    """Where the recording goes, and with `go_on` why it could not be made."""
    try:
        simulate_recording(shot.source, shot.path, shot.options, overwrite=overwrite, layer_photos=shot.layer_photos)
    except ValueError as error:
        if not go_on:
            raise
        return shot.path, f"{shot.path.name}: {error}"
    return shot.path, None


@contextlib.contextmanager
def _told(tell: Callable[[str], None] | None) -> Iterator[None]:
    """With `tell`, a ValueError from inside goes to it, and no further."""
    try:
        yield
    except ValueError as error:
        if tell is None:
            raise
        tell(str(error))


def _remove_unfinished(paths: Sequence[Path]) -> None:
    for folder in {path.parent for path in paths}:
        if folder.is_dir():
            remove_unfinished(folder, {path.name for path in paths if path.parent == folder})


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
        options = with_own_rate(source, options)
        spare = count_frames(source) - start_frame - options.source_frames_needed
        start_frame += int.from_bytes(digest[6:12], "big") % (spare + 1) if spare > 0 else 0
    own = dataclasses.replace(options, seed=seed, start_frame=start_frame)
    return own if is_photo(source) else with_own_interpolation(source, own)


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


def count_frames(source: Path) -> int:
    """Frames of a video file or a folder."""
    return len(list_images(source)) if source.is_dir() else probe_video(source).num_frames


def motion_in_words(recordings: Sequence[Recording]) -> str | None:
    """What was done about frames of videos that lie too far apart to be blended, of the worst; None: none do."""
    far = []
    for recording in recordings:
        told = recording.provenance
        if (motion_px := told.get("source_motion_px", 0.0)) > BLENDED_PX or told["options"]["interpolate"] > 1:
            factor = told["options"]["interpolate"]
            far.append((motion_px / factor, motion_px, factor, recording.name))
    if not far:
        return None
    apart_px, motion_px, factor, name = max(far)
    words = f"source frames of {name} lie {motion_px:g} px apart"
    if len(far) > 1:
        words += f" (the worst of {len(far)}, of {len(recordings)} recordings)"
    if factor > 1:
        words += f", with {factor} in the place of each {apart_px:.1f}"
    if apart_px <= BLENDED_PX:
        return words
    more = "--interpolate puts frames between (0: as many as it takes)"
    advice = more if factor < MOST_BETWEEN else "allowed: a smaller view, or footage with less motion"
    return f"{words}: blended between, so edges are double; {advice}"
