"""Verbs on what was captured: `simulate`, `inspect`, `align`, `convert`."""

from __future__ import annotations

import argparse
import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikevrt.engine import Engine
from spikevrt.formats.dataset_trees import LayoutOptions
from spikevrt.recording.sidecar import AXES, HEADERLESS, KINDS, SPIKE_KINDS, SUFFIX_KINDS, TARGETS, kind_of
from spikevrt.simulate.setup import CameraConfig, RigConfig, SensorConfig, SimulateOptions, sensor_preset
from spikevrt.verbs import (
    DATASET_GROUP,
    add_fields,
    add_out,
    add_verb,
    chosen,
    given,
    layout_options,
    refuse,
    say_made,
)

if TYPE_CHECKING:
    from spikevrt.recording.spike_formats import StreamFormat
    from spikevrt.recording.stream import SpikeStream

ROWS = ("bottom-up", "top-down")
STATED = ("kind", "width", "height", "rows", "tag_bits", "key", "axes")  # what a user may say of a spike file's bytes


def add(verbs: Any) -> None:
    _add_simulate(verbs)
    _add_inspect(verbs)
    _add_align(verbs)
    _add_convert(verbs)


def _add_stated(parser: Any) -> None:
    """What a spike file is, where it does not tell."""
    parser.add_argument("--kind", choices=KINDS, help="how the spikes are stored (by the suffix, else packed)")
    parser.add_argument("--width", type=int, metavar="N", help="spike columns, without tag bits")
    parser.add_argument("--height", type=int, metavar="N", help="spike rows")
    parser.add_argument("--rows", choices=ROWS, help="order of the rows (packed: bottom-up)")
    parser.add_argument("--tag-bits", type=int, metavar="N", help="bits behind the pixels of each packed row (0)")
    parser.add_argument("--key", metavar="NAME", help="array of an .npz or .h5 file")
    parser.add_argument("--axes", choices=AXES, help="order of an array's axes")


def _add_simulate(verbs: Any) -> None:
    example = "spikevrt simulate photo.jpg --out recordings/photo --width 320 --height 192"
    parser = add_verb(verbs, "simulate", _simulate, example)
    parser.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="photograph, frame folder or video")
    add_out(parser, "the recording's folder; with --count, the folder of recordings")
    parser.add_argument("--count", type=int, metavar="N", help="make so many recordings, going round the sources")
    parser.add_argument("--workers", type=int, metavar="N", help="recordings at a time, with --count (1)")
    parser.add_argument("--engine", metavar="NAME", help="with --count: processes, or ray (processes)")
    parser.add_argument("--ray-address", metavar="HOST:PORT", help="with --engine ray: a cluster that shares the files")
    parser.add_argument("--layer-photos", nargs="+", type=Path, metavar="PHOTO", help="what the layers are cut out of")
    add_fields(parser, SimulateOptions)
    group = parser.add_argument_group("spike camera")
    group.add_argument("--sensor", metavar="PRESET", help="ideal, bright or lowlight; what follows changes it (ideal)")
    add_fields(group, SensorConfig)
    add_fields(parser.add_argument_group("colour camera"), CameraConfig)
    rig = parser.add_argument_group("rig: a known misalignment, told in the provenance alone")
    add_fields(rig, RigConfig, prefix="rig_")


def _simulate(parsed: argparse.Namespace) -> None:
    """Make recordings (blurry frames, sharp frames, spikes) from photographs or sharp high-rate video."""
    # before torch is loaded: many short parallel steps, and threads that spin between them lose to any busy neighbour
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    options = SimulateOptions(
        sensor=replace(sensor_preset(parsed.sensor or "ideal"), **chosen(SensorConfig, parsed)),
        camera=CameraConfig(**chosen(CameraConfig, parsed)),
        rig=RigConfig(**chosen(RigConfig, parsed, prefix="rig_")),
        **chosen(SimulateOptions, parsed),
    )
    if parsed.count is None:
        if len(parsed.sources) > 1:
            raise ValueError(f"SOURCE: {len(parsed.sources)} given; allowed: one, or several with --count")
        refuse(parsed, ("workers", "engine", "ray_address"), "only with --count")
    else:
        refuse(parsed, ("layer_photos",), "not with --count, which cuts layers out of the sources")
    from spikevrt.progress import progress_bar
    from spikevrt.simulate.synthesise import simulate_many, simulate_recording

    start_s = time.perf_counter()
    _check_for_sources(parsed)
    if parsed.count is None:
        with progress_bar("ticks") as progress:
            made = simulate_recording(
                parsed.sources[0], parsed.out, options, overwrite=parsed.overwrite,
                layer_photos=parsed.layer_photos or (), progress=progress,
            )  # fmt: skip
        what = f"{made.num_frames} frames, {made.num_ticks} ticks"
    else:
        engine = Engine(parsed.engine or "processes", **given(parsed, ("workers", "ray_address")))
        with progress_bar("recordings") as progress:
            paths = simulate_many(
                parsed.sources, parsed.out, options, count=parsed.count, engine=engine, overwrite=parsed.overwrite,
                progress=progress,
            )  # fmt: skip
        what = f"{len(paths)} recordings"
    say_made(what, parsed.out, start_s)


def _check_for_sources(parsed: argparse.Namespace) -> None:
    """Refuse what none of the sources obeys: a photograph is filmed by a moving camera, a video as it is."""
    from spikevrt.simulate.synthesise import is_photo

    photos = [is_photo(source) for source in parsed.sources]
    if not any(photos):
        refuse(parsed, ("motion_px", "num_layers", "layer_photos"), f"for photographs; not for {parsed.sources[0]}")
    if all(photos):
        names = ("ticks_per_frame", "start_frame", "interpolate")
        refuse(parsed, names, f"for videos and folders of frames; not for {parsed.sources[0]}")
    if parsed.num_layers == 0:
        refuse(parsed, ("layer_photos",), "not with --num-layers 0")


def _add_inspect(verbs: Any) -> None:
    example = "spikevrt inspect spikes.dat --rgb frames --out readings.png"
    parser = add_verb(verbs, "inspect", _inspect, example)
    parser.add_argument("path", type=Path, help="recording, folder of them, dataset, spike file, frame folder or video")
    _add_stated(parser)
    parser.add_argument("--top-down", dest="rows", action="store_const", const="top-down", help="--rows top-down")
    parser.add_argument("--size", action="append", type=_size, metavar="WxH", help="one more size that may fit")
    parser.add_argument("--rgb", type=Path, metavar="PATH", help="frames of the same scene, to see which reading fits")
    parser.add_argument("--confirm", type=int, metavar="NUMBER", help="the listed reading is right: write FILE.json")
    parser.add_argument("--tick-rate-hz", type=float, metavar="HZ", help="kept by --confirm (20000)")
    parser.add_argument("--out", type=Path, metavar="PNG", help="write a preview picture, or a sheet of the readings")
    parser.add_argument("--report", type=Path, metavar="HTML", help="write the health page of a recording")
    parser.add_argument("--overwrite", action="store_true", help="replace what --out, --report or --confirm writes")
    parser.add_argument("--centre", type=int, metavar="TICK", help="tick of the preview (the middle)")
    parser.add_argument("--half-window", type=int, metavar="TICKS", help="ticks either side (20)")
    add_fields(parser.add_argument_group(DATASET_GROUP), LayoutOptions)


def _inspect(parsed: argparse.Namespace) -> None:
    """Tell what a recording, spike file, dataset, frame folder or video holds, and whether it is sound; draw it."""
    from spikevrt.align.inspect import InspectOptions, inspect
    from spikevrt.recording.recording import open_recording
    from spikevrt.report.recording_pages import write_health_page

    options = InspectOptions(
        stated=_stated(parsed), sizes=tuple(parsed.size or ()), rgb=parsed.rgb, confirm=parsed.confirm,
        tick_rate_hz=parsed.tick_rate_hz, out=parsed.out, centre=parsed.centre, half_window=parsed.half_window,
        report=parsed.report, overwrite=parsed.overwrite, layout=layout_options(parsed),
    )  # fmt: skip
    inspection = inspect(parsed.path, options)
    print("\n".join(inspection.lines), flush=True)
    if parsed.report is not None and inspection.health is not None:
        write_health_page(parsed.report, open_recording(parsed.path), inspection.health)
        print(f"report -> {parsed.report}")
    if inspection.refusal is not None:
        raise ValueError(inspection.refusal)


def _stated(parsed: argparse.Namespace) -> StreamFormat | None:
    """The format that the options state; None when they state none."""
    from spikevrt.recording.spike_formats import StreamFormat

    about = _said(parsed)
    if not about:
        return None
    kind = about.pop("kind", None) or kind_of(parsed.path.suffix)
    if kind in HEADERLESS and SPIKE_KINDS[kind].size is None and (parsed.width is None or parsed.height is None):
        raise ValueError(
            "--width, --height: a file without a header needs both; allowed: both, or none to see what fits"
        )
    return StreamFormat(kind, **about)


def _said(parsed: argparse.Namespace) -> dict[str, Any]:
    """What the user said of a spike file's bytes, as fields of StreamFormat."""
    about = given(parsed, STATED)
    if "rows" in about:
        about["bottom_up"] = about.pop("rows") == "bottom-up"
    return about


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: WIDTHxHEIGHT, for example 400x250")
    return int(match[1]), int(match[2])


def _add_align(verbs: Any) -> None:
    parser = add_verb(verbs, "align", _align, "spikevrt align recordings/street --preview aligned.png")
    parser.add_argument("recording", type=Path, help="recording folder")
    parser.add_argument("--no-time", action="store_true", help="the clocks are right: estimate the registration alone")
    parser.add_argument("--no-space", action="store_true", help="the cameras are registered: estimate the offset alone")
    parser.add_argument("--flow", action="store_true", help="a smooth displacement on top of the homography")
    parser.add_argument("--max-offset-ticks", type=int, metavar="N", help="search so far either side (one exposure)")
    parser.add_argument("--preview", type=Path, metavar="PNG", help="write a picture: before and after")
    parser.add_argument("--overwrite", action="store_true", help="replace the file at --preview")
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, and do not write it")
    parser.add_argument("--reset", action="store_true", help="take the alignment out of the recording")


def _align(parsed: argparse.Namespace) -> None:
    """Estimate time offset and registration of a recording's two cameras from its footage."""
    from spikevrt.align.estimate import AlignOptions, estimate_alignment, reset_alignment, write_estimate
    from spikevrt.recording.frames import WRITE_SUFFIXES
    from spikevrt.recording.recording import open_recording
    from spikevrt.recording.sidecar import SIDECAR

    start_s = time.perf_counter()
    if parsed.reset:
        if given(parsed, ("no_time", "no_space", "flow", "max_offset_ticks", "preview", "dry_run")):
            raise ValueError("--reset: takes no other option")
        open_recording(parsed.recording, apply_alignment=False)
        reset_alignment(parsed.recording)
        say_made("alignment taken out", parsed.recording / SIDECAR, start_s)
        return
    if parsed.preview is not None:
        if parsed.preview.suffix.lower() not in WRITE_SUFFIXES:
            raise ValueError(f"--preview: {parsed.preview}; allowed: a name ending in {', '.join(WRITE_SUFFIXES)}")
        if parsed.preview.exists() and not parsed.overwrite:
            raise FileExistsError(f"{parsed.preview}: exists; choose another --preview or pass --overwrite")
    options = AlignOptions(
        time=not parsed.no_time, space=not parsed.no_space, flow=parsed.flow, max_offset_ticks=parsed.max_offset_ticks
    )
    recording = open_recording(parsed.recording, apply_alignment=False)
    estimate = estimate_alignment(recording, options, preview=parsed.preview)
    print("\n".join(estimate.lines))
    if parsed.preview is not None:
        print(f"preview -> {parsed.preview}")
    if not parsed.dry_run:
        write_estimate(recording, estimate)
        say_made("alignment", parsed.recording / SIDECAR, start_s)


def _add_convert(verbs: Any) -> None:
    parser = add_verb(verbs, "convert", _convert, "spikevrt convert car.npz car.dat")
    parser.add_argument("source", type=Path, metavar="A", help="spike file or recording")
    parser.add_argument("out", type=Path, metavar="B", help="spike file; by its suffix .npy, .npz, .h5, else packed")
    parser.add_argument("--to", choices=TARGETS, help="variant of B (by its suffix)")
    parser.add_argument("--to-rows", choices=ROWS, help="order of B's rows (packed: bottom-up)")
    parser.add_argument("--start", type=int, metavar="TICK", help="first tick (0)")
    parser.add_argument("--stop", type=int, metavar="TICK", help="tick behind the last one (all)")
    parser.add_argument("--tick-rate-hz", type=float, metavar="HZ", help="for B's sidecar (what A's says)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file B")
    _add_stated(parser.add_argument_group("what A is, where neither its sidecar nor a config.yaml nor itself tells"))


def _convert(parsed: argparse.Namespace) -> None:
    """Convert spikes from one file format to another, or cut out some ticks; a sidecar tells what was written."""
    from spikevrt.formats.convert import write_stream
    from spikevrt.progress import progress_bar
    from spikevrt.recording.stream import Sps100Stream

    start_s = time.perf_counter()
    if parsed.tick_rate_hz is not None and not 0 < parsed.tick_rate_hz < float("inf"):
        raise ValueError(f"--tick-rate-hz: {parsed.tick_rate_hz}; allowed: above 0")
    stream, tick_rate_hz, sha256 = _open_source(parsed)
    if parsed.to == "packed-416" and stream.width != 400:
        raise ValueError(f"--to: packed-416 for spikes {stream.width} wide; allowed: 400 pixels and 16 tag bits a row")
    with progress_bar("ticks") as progress:
        written = write_stream(
            parsed.out, stream, _target(parsed), ticks=(parsed.start or 0, parsed.stop),
            tick_rate_hz=parsed.tick_rate_hz or tick_rate_hz, source_sha256=sha256, overwrite=parsed.overwrite,
            progress=progress,
        )  # fmt: skip
    for note in stream.notes if isinstance(stream, Sps100Stream) else ():
        print(f"{parsed.source}: {note}")
    say_made(f"{written.num_ticks} ticks ({written.format.describe()})", parsed.out, start_s)


def _open_source(parsed: argparse.Namespace) -> tuple[SpikeStream, float | None, str | None]:
    """The stream, and its tick rate and checksum where they are known."""
    from spikevrt.recording.spike_formats import find_format, find_stated, open_stream

    path = parsed.source
    if path.is_dir():
        refuse(parsed, STATED, f"{path} is a recording, which tells what its spikes are")
        from spikevrt.recording.recording import open_recording  # with torch, which a spike file does not need

        recording = open_recording(path)
        assert recording.spikes is not None, "a recording folder always has spikes"
        return recording.spikes, recording.tick_rate_hz, recording.stored_sha256
    about = _said(parsed)
    if not about:
        found = find_format(path)
        return open_stream(path), found.tick_rate_hz, found.sha256
    found = find_stated(path, about)
    return open_stream(path, found.format), found.tick_rate_hz, found.sha256


def _target(parsed: argparse.Namespace) -> StreamFormat:
    from spikevrt.recording.spike_formats import StreamFormat

    suffix = parsed.out.suffix.lower()
    target = parsed.to or kind_of(suffix)
    kind, tag_bits, axes = TARGETS[target]
    suffixes = SPIKE_KINDS[kind].suffixes
    if (suffix not in suffixes) if suffixes else (suffix in SUFFIX_KINDS):
        raise ValueError(f"--to: {target} in a file {parsed.out.name}; allowed: the suffix that belongs to it")
    bottom_up = None if parsed.to_rows is None else parsed.to_rows == "bottom-up"
    return StreamFormat(kind=kind, bottom_up=bottom_up, tag_bits=tag_bits, axes=axes)
