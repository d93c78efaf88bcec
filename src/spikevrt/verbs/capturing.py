"""Verbs on what was captured: `simulate`, `record`, `inspect`, `align`, `convert`."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spikevrt.align.settings import AlignOptions, InspectOptions
from spikevrt.atomic import refuse_existing
from spikevrt.engine import Engine
from spikevrt.formats.dataset_trees import NO_OPTIONS, LayoutOptions
from spikevrt.recording.sidecar import ROWS, SIDECAR, TARGETS, Stated, StreamFormat, kind_of
from spikevrt.simulate.setup import (
    SENSOR_PRESETS,
    CameraConfig,
    RigConfig,
    SensorConfig,
    SimulateOptions,
    sensor_preset,
)
from spikevrt.typed import amount
from spikevrt.verbs import (
    DATASET_GROUP,
    OF_DATASETS,
    add_fields,
    add_loose,
    add_out,
    add_sharp,
    add_verb,
    chosen,
    dashed,
    folder,
    open_loose,
    options_of,
    refuse,
    say_made,
    settled,
    spelled,
)

MOST_TOLD = 20  # lines of one kind


def add(verbs: Any) -> None:
    _add_simulate(verbs)
    _add_record(verbs)
    _add_inspect(verbs)
    _add_align(verbs)
    _add_convert(verbs)


def _add_simulate(verbs: Any) -> None:
    example = "spikevrt simulate photo.jpg --out recordings/photo --width 320 --height 192"
    parser = add_verb(verbs, "simulate", _simulate, example)
    text = "photograph, frame folder, video, or a folder of folders of sharp frames or of videos (docs/simulation.md)"
    parser.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help=text)
    add_out(parser, "the recording's folder; with --count or a folder of clips, the folder of recordings")
    parser.add_argument("--layer-photos", nargs="+", type=Path, metavar="PHOTO", help="what the layers are cut out of")
    add_fields(parser, SimulateOptions)
    many = parser.add_argument_group("many recordings")
    text = "make so many, going round the sources (of a folder of clips one each)"
    many.add_argument("--count", type=int, metavar="N", help=text)
    add_fields(many, Engine)
    group = parser.add_argument_group("spike camera")
    presets = f"{', '.join(SENSOR_PRESETS)}; what follows changes it (%(default)s)"
    group.add_argument("--sensor", default=SENSOR_PRESETS[0], metavar="PRESET", help=presets)
    add_fields(group, SensorConfig)
    add_fields(parser.add_argument_group("colour camera"), CameraConfig)
    rig = parser.add_argument_group("rig: a known misalignment, told in the provenance alone")
    add_fields(rig, RigConfig, prefix="rig_")


def _simulate(parsed: argparse.Namespace) -> int:
    """Make recordings (blurry frames, sharp frames, spikes) from photographs or sharp high-rate video."""
    # before torch is loaded: many short parallel steps, and threads that spin between them lose to any busy neighbour
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    options = options_of(
        SimulateOptions, parsed, sensor=replace(sensor_preset(parsed.sensor), **chosen(SensorConfig, parsed)),
        camera=options_of(CameraConfig, parsed), rig=options_of(RigConfig, parsed, prefix="rig_"),
    )  # fmt: skip
    from spikevrt.simulate.folders import find_clips
    from spikevrt.simulate.synthesise import is_photo, simulate_recording

    start_s = time.perf_counter()
    if parsed.count is not None or not any(source.is_dir() for source in parsed.sources):
        _check_number(parsed, is_many=parsed.count is not None)
    folders = {source: find_clips(source) for source in parsed.sources if not is_photo(source)}
    _check_for_sources(parsed)
    is_many = parsed.count is not None or any(folders.values())
    _check_number(parsed, is_many=is_many)
    if is_many:
        return _simulate_many(parsed, folders, options, start_s)
    from spikevrt.progress import progress_bar
    from spikevrt.simulate.collection import motion_in_words

    with progress_bar("ticks") as progress:
        made = simulate_recording(
            parsed.sources[0], parsed.out, options, overwrite=parsed.overwrite,
            layer_photos=parsed.layer_photos or (), progress=progress,
        )  # fmt: skip
    _say(parsed, _rate_in_words(parsed, options), motion_in_words([made]))
    say_made(f"{amount(made.num_frames, 'frame')}, {amount(made.num_ticks, 'tick')}", parsed.out, start_s)
    return 0


def _check_number(parsed: argparse.Namespace, *, is_many: bool) -> None:
    """Refuse what is not for one recording, or not for many."""
    if is_many:
        refuse(parsed, ("layer_photos",), "not with --count, which cuts layers out of the sources")
    elif len(parsed.sources) > 1:
        raise ValueError(f"SOURCE: {len(parsed.sources)} given; allowed: one, or several with --count")
    else:
        refuse(parsed, chosen(Engine, parsed), "only with --count, or of a folder of clips")


def _simulate_many(
    parsed: argparse.Namespace, folders: Mapping[Path, Any], options: SimulateOptions, start_s: float
) -> int:
    """Recordings of all sources, of a folder's clips each; status 1 where one could not be made."""
    from spikevrt.progress import progress_bar
    from spikevrt.recording.recording import open_recording
    from spikevrt.simulate.collection import motion_in_words, simulate_many

    clips, failed = list[Any](), list[str]()
    for source in parsed.sources:
        found = folders.get(source)
        clips += [source] if found is None else found.clips
        if found is not None:
            _say(parsed, f"{source}: {found.in_words()} of sharp frames", *found.notes)
    with progress_bar("recordings") as progress:
        paths = simulate_many(
            clips, parsed.out, options, count=parsed.count, engine=options_of(Engine, parsed),
            overwrite=parsed.overwrite, progress=progress, tell=failed.append,
        )  # fmt: skip
    if not paths:
        more = f"; and so on: none of {len(failed)} could be made" if len(failed) > 1 else ""
        raise ValueError(failed[0] + more)
    _say(parsed, _rate_in_words(parsed, options), motion_in_words([open_recording(path) for path in paths]))
    _say(parsed, *(f"{why}; left out" for why in failed))
    left_out = f", {len(failed)} could not be made" if failed else ""
    say_made(f"{amount(len(paths), 'recording')}{left_out}", parsed.out, start_s)
    return 1 if failed else 0


def _rate_in_words(parsed: argparse.Namespace, options: SimulateOptions) -> str | None:
    """At what rate a video was taken to be filmed, where nobody said it."""
    from spikevrt.simulate.synthesise import is_photo, ticks_in_words

    if parsed.ticks_per_frame is not None or options.source_fps is not None or all(map(is_photo, parsed.sources)):
        return None
    fps = float(options.sensor.tick_rate_hz / options.source_frame_ticks)
    said = f"{parsed.sources[0]}: {ticks_in_words(options)}, as if filmed at {fps:g} frames a second"
    return f"{said}; --source-fps says the true rate"


def _say(parsed: argparse.Namespace, *lines: str | None) -> None:
    """What is worth knowing, a line each, on stderr; of many the first."""
    told = [line for line in lines if line]
    for line in told[:MOST_TOLD]:
        print(f"spikevrt: {spelled(line, parsed.parser, ())}", file=sys.stderr)
    if len(told) > MOST_TOLD:
        print(f"spikevrt: and {len(told) - MOST_TOLD} more", file=sys.stderr)


def _check_for_sources(parsed: argparse.Namespace) -> None:
    """Refuse what none of the sources obeys: a photograph is filmed by a moving camera, a video as it is."""
    from spikevrt.simulate.synthesise import is_photo

    photos = [is_photo(source) for source in parsed.sources]
    if not any(photos):
        refuse(parsed, ("motion_px", "num_layers", "layer_photos"), f"for photographs; not for {parsed.sources[0]}")
    if all(photos):
        names = ("ticks_per_frame", "source_fps", "start_frame", "interpolate")
        refuse(parsed, names, f"for videos and folders of frames; not for {parsed.sources[0]}")
    if parsed.num_layers == 0:
        refuse(parsed, ("layer_photos",), "not with --num-layers 0")


def _add_record(verbs: Any) -> None:
    example = (
        "spikevrt record street.mp4 --spikes street.dat --spike-width 400 --spike-height 250 --exposure 1/125s "
        "--out recordings/street"
    )
    parser = add_verb(verbs, "record", _record, example)
    parser.add_argument("frames", type=Path, help="video, or folder of images, as the colour camera wrote it")
    add_out(parser, "the recording's folder")
    add_sharp(parser)
    parser.add_argument("--copy", action="store_true", help="copy the files; otherwise the folder holds links to them")
    add_loose(parser)


def _record(parsed: argparse.Namespace) -> None:
    """Make a recording of a video or images, a spike file beside them, and what is known of their times."""
    from spikevrt.align.describe import summary_line
    from spikevrt.progress import progress_bar
    from spikevrt.recording.alignment import has_alignment
    from spikevrt.recording.loose import keep_recording, with_sharp
    from spikevrt.recording.recording import open_recording

    start_s = time.perf_counter()
    if parsed.spikes is None:
        raise ValueError("--spikes: none given; a recording has frames and spikes")
    refuse_existing(parsed.out, marker=SIDECAR, overwrite=parsed.overwrite)
    recording = open_loose(parsed.frames, parsed)
    if parsed.sharp is not None:
        recording = with_sharp(recording, parsed.sharp)
    recording = settled(recording, parsed)
    was_aligned = has_alignment(parsed.out)
    with progress_bar("bytes") as progress:
        keep_recording(
            recording, parsed.out, options_of(Stated, parsed), copy=parsed.copy, overwrite=parsed.overwrite,
            tell=progress,
        )  # fmt: skip
    if was_aligned:
        gone = "the recording that was replaced had one; this one, whose files may be others, has none"
        print(f"spikevrt: alignment: {gone}; run `spikevrt align {parsed.out}`", file=sys.stderr)
    made = open_recording(parsed.out, keep_outside=True)
    say_made(summary_line(made).partition(": ")[2], parsed.out, start_s)


def _add_inspect(verbs: Any) -> None:
    example = "spikevrt inspect spikes.dat --rgb frames --out readings.png"
    parser = add_verb(verbs, "inspect", _inspect, example)
    parser.add_argument("path", type=Path, help="recording, folder of them, dataset, spike file, frame folder or video")
    add_fields(parser, StreamFormat)
    parser.add_argument("--top-down", dest="rows", action="store_const", const="top-down", help="--rows top-down")
    parser.add_argument("--size", action="append", type=_size, metavar="WxH", help="one more size that may fit")
    add_fields(parser, InspectOptions)
    add_loose(parser, without=("top_down", "tick_rate_hz"))
    add_fields(parser.add_argument_group(DATASET_GROUP), LayoutOptions, only=OF_DATASETS)


def _inspect(parsed: argparse.Namespace) -> None:
    """Tell what a recording, spike file, dataset, frame folder or video holds, and whether it is sound; draw it."""
    from spikevrt.align.inspect import inspect
    from spikevrt.recording.recording import open_recording
    from spikevrt.report.recording_pages import write_health_page

    recording = None
    if parsed.spikes is not None:
        refuse(parsed, OF_DATASETS, "not with --spikes")
        if given := [name for name in chosen(StreamFormat, parsed) if name != "rows"]:
            beside = ", ".join(dashed(f"spike_{name}") for name in given)
            raise ValueError(f"{', '.join(map(dashed, given))}: of a spike file alone; allowed with --spikes: {beside}")
        parsed.top_down, parsed.rows = parsed.rows == ROWS[False], None
        recording = settled(open_loose(parsed.path, parsed), parsed)
        parsed.tick_rate_hz = None  # which is of --confirm otherwise
    elif not parsed.path.is_dir() or (parsed.path / SIDECAR).is_file():
        others = {"tick_rate_hz", *chosen(LayoutOptions, parsed)}
        refuse(parsed, chosen(Stated, parsed).keys() - others, "only with --spikes")
    said = chosen(StreamFormat, parsed)
    options = options_of(
        InspectOptions, parsed, stated=StreamFormat(**{"kind": kind_of(parsed.path.suffix)} | said) if said else None,
        sizes=tuple(parsed.size or ()),
        layout=NO_OPTIONS if recording is not None else options_of(LayoutOptions, parsed),
    )  # fmt: skip
    inspection = inspect(parsed.path, options, recording)
    lines = (spelled(line, parsed.parser, ()) if "`" in line else line for line in inspection.lines)
    print("\n".join(lines), flush=True)
    if parsed.report is not None and inspection.health is not None:
        write_health_page(parsed.report, recording or open_recording(parsed.path), inspection.health)
        print(f"report -> {parsed.report}")
    if inspection.refusal is not None:
        raise ValueError(inspection.refusal)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: WIDTHxHEIGHT, for example 400x250")
    return int(match[1]), int(match[2])


def _add_align(verbs: Any) -> None:
    parser = add_verb(verbs, "align", _align, "spikevrt align recordings/street --preview aligned.png")
    parser.add_argument("recording", type=Path, help="recording folder; or frames or a video, with --spikes")
    add_fields(parser, AlignOptions)
    parser.add_argument("--out", type=folder, metavar="PATH", help="with --spikes: make this recording, and align it")
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, and do not write it")
    parser.add_argument("--reset", action="store_true", help="take the alignment out of the recording")
    add_loose(parser)


def _align(parsed: argparse.Namespace) -> None:
    """Estimate time offset and registration of a recording's two cameras from its footage."""
    from spikevrt.align.estimate import estimate_alignment, reset_alignment, write_estimate
    from spikevrt.recording.loose import keep_recording
    from spikevrt.recording.recording import open_recording

    start_s = time.perf_counter()
    root, is_loose = parsed.recording, parsed.spikes is not None
    if parsed.reset and (parsed.dry_run or is_loose or chosen(AlignOptions, parsed)):
        raise ValueError("--reset: takes no other option")
    if not is_loose:
        refuse(parsed, ("out", *chosen(Stated, parsed)), "only with --spikes")
    elif (parsed.out is None) != parsed.dry_run:
        raise ValueError("--out: of frames and --spikes the recording to make, or --dry-run; allowed: one of the two")
    options = options_of(AlignOptions, parsed)
    if is_loose:
        recording = settled(open_loose(root, parsed), parsed)
    else:
        recording = open_recording(root, apply_alignment=False, keep_outside=True)
    if parsed.reset:
        reset_alignment(root)
        say_made("alignment taken out", root / SIDECAR, start_s)
        return
    estimate = estimate_alignment(recording, options)
    print("\n".join(estimate.lines))
    if options.preview is not None:
        print(f"preview -> {options.preview}")
    if parsed.dry_run:
        return
    if is_loose:
        root = parsed.out
        keep_recording(recording, root, options_of(Stated, parsed), overwrite=parsed.overwrite)
        recording = open_recording(root, keep_outside=True)
    write_estimate(recording, estimate)
    say_made("alignment", root / SIDECAR, start_s)


def _add_convert(verbs: Any) -> None:
    parser = add_verb(verbs, "convert", _convert, "spikevrt convert car.npz car.dat")
    parser.add_argument("source", type=Path, metavar="A", help="spike file or recording")
    parser.add_argument("out", type=Path, metavar="B", help="spike file; by its suffix .npy, .npz, .h5, else packed")
    parser.add_argument("--to", choices=TARGETS, help="variant of B (by its suffix)")
    parser.add_argument("--to-rows", choices=ROWS.values(), help="order of B's rows (as usual for its kind)")
    parser.add_argument("--start", type=int, default=0, metavar="TICK", help="first tick (%(default)s)")
    parser.add_argument("--stop", type=int, metavar="TICK", help="tick behind the last one (all)")
    parser.add_argument("--tick-rate-hz", type=float, metavar="HZ", help="for B's sidecar (what A's says)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file B")
    stated = parser.add_argument_group("what A is, where neither its sidecar nor a config.yaml nor itself tells")
    add_fields(stated, StreamFormat)


def _convert(parsed: argparse.Namespace) -> None:
    """Convert spikes from one file format to another, or cut out some ticks; a sidecar tells what was written."""
    from spikevrt.formats.convert import open_source, target_format, write_stream
    from spikevrt.progress import progress_bar
    from spikevrt.recording.stream import Sps100Stream

    start_s = time.perf_counter()
    stream, tick_rate_hz, sha256 = open_source(parsed.source, chosen(StreamFormat, parsed))
    if parsed.tick_rate_hz is not None:
        tick_rate_hz = parsed.tick_rate_hz
    target = target_format(parsed.out, stream.width, parsed.to, parsed.to_rows)
    with progress_bar("ticks") as progress:
        written = write_stream(
            parsed.out, stream, target, ticks=(parsed.start, parsed.stop), tick_rate_hz=tick_rate_hz,
            source_sha256=sha256, overwrite=parsed.overwrite, progress=progress,
        )  # fmt: skip
    for note in stream.notes if isinstance(stream, Sps100Stream) else ():
        print(f"{parsed.source}: {note}")
    say_made(f"{amount(written.num_ticks, 'tick')} ({written.format.describe()})", parsed.out, start_s)
