"""Verbs that put a network to use: `restore`, `export`, `demo`, `app`."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikevrt import shipped
from spikevrt.config import ExportOptions
from spikevrt.engine import Engine
from spikevrt.formats.dataset_trees import LayoutOptions
from spikevrt.recording.sidecar import Stated
from spikevrt.restore.options import CONTAINERS, JobOptions, Output, RestoreOptions, VideoFormat, is_video
from spikevrt.typed import amount
from spikevrt.verbs import (
    OF_DATASETS,
    add_fields,
    add_loose,
    add_out,
    add_verb,
    chosen,
    folder,
    open_loose,
    options_of,
    refuse,
    restore_options,
    say_made,
    settled,
    spelled,
)

if TYPE_CHECKING:
    from spikevrt.recording.recording import Recording

ABOUT_SPIKES = tuple(field.name for field in fields(Stated) if field.name not in ("linear", "fps"))
ABOUT_DATASETS = ("exposure_ticks", "spike_width", "spike_height")  # of dataset folders, and of spikes beside frames


def add_restore(verbs: Any) -> None:
    parser = add_verb(verbs, "restore", _restore, "spikevrt restore recordings/street --out out/street", computes=True)
    text = "recording, folder of them, dataset folder, or frames or a video with --spikes"
    parser.add_argument("recording", type=Path, help=text)
    text = f"folder of frames, or a file ({', '.join(CONTAINERS)}); of many, the folder of their folders"
    add_out(parser, text, Path)
    text = f"network: the name of one that ships, or a file ({shipped.DEFAULT}; {shipped.TWIN} without spikes)"
    parser.add_argument("--weights", metavar="WEIGHTS", help=text)
    add_fields(parser, JobOptions)
    written = parser.add_argument_group("what is written")
    add_fields(written, Output)
    add_fields(written, VideoFormat)
    parser.add_argument("--clip", metavar="NAME", help="of a dataset folder of a known layout (docs/datasets.md)")
    add_fields(parser, LayoutOptions, only=OF_DATASETS)
    add_loose(parser)
    add_fields(parser.add_argument_group("a folder of recordings"), Engine)
    add_fields(parser, RestoreOptions)


def _restore(parsed: argparse.Namespace) -> int:
    """Restore a recording, many of them, or frames plus a spike file, to sharp frames or video."""
    from spikevrt.align.health import admit
    from spikevrt.checkpoint import read_info
    from spikevrt.recording.recording import recordings_in
    from spikevrt.recording.sidecar import SIDECAR
    from spikevrt.restore.job import restore_recording

    output = _output(parsed)
    if parsed.recording.is_dir() and not (parsed.recording / SIDECAR).is_file() and recordings_in(parsed.recording):
        return _restore_many(parsed, output)
    refuse(parsed, chosen(Engine, parsed), f"only with a folder of recordings, which {parsed.recording} is not")
    options = restore_options(parsed)
    recording = _open_footage(parsed)
    weights = shipped.find(parsed.weights or (shipped.DEFAULT if recording.spikes else shipped.TWIN))
    if parsed.spikes is not None and options.without_spikes:
        raise ValueError("--spikes: not with --without-spikes")
    if parsed.spikes is not None and read_info(weights).model.spikes is None:
        raise ValueError(
            f"--spikes: {weights} is a network without spikes; leave --spikes out or choose other --weights"
        )
    if parsed.spikes is not None:
        recording = settled(recording, parsed)
    summary = restore_recording(weights, recording, parsed.out, options, _job(parsed, output), gate=admit)
    for note in summary["notes"]:
        print(f"spikevrt: {note}", file=sys.stderr)
    more = [f"peak {summary['peak_bytes'] / 1e9:.1f} GB"]
    if options.skip_sharp is not None:
        more.append(f"{summary['tiles']['skipped']} of {amount(summary['tiles']['num'], 'tile')} skipped")
    if summary["without_spikes"]:
        more.append(f"{amount(len(summary['without_spikes']), 'frame')} without spikes")
    print(f"{amount(summary['num_frames'], 'frame')} -> {parsed.out} ({summary['seconds']:.1f} s, {', '.join(more)})")
    return 0


def _job(parsed: argparse.Namespace, output: Output) -> JobOptions:
    from spikevrt.mux.pieces import video_pieces

    return options_of(JobOptions, parsed, overwrite=parsed.overwrite, output=output, video_pieces=video_pieces)


def _output(parsed: argparse.Namespace) -> Output:
    """What is to be written. Options that nothing would obey are refused."""
    if is_video(parsed.out):
        refuse(parsed, ("video", "frames"), f"not with --out {parsed.out}, which is a video")
    elif not parsed.video:
        refuse(parsed, chosen(VideoFormat, parsed), "of a video; allowed with --video, or an --out that is one")
    output = options_of(Output, parsed, format=options_of(VideoFormat, parsed))
    output.check(parsed.out)
    return output


def _restore_many(parsed: argparse.Namespace, output: Output) -> int:
    """A table and a last line; status 1 where a recording failed."""
    from spikevrt.align.health import admit
    from spikevrt.progress import progress_bar
    from spikevrt.recording.sidecar import SIDECAR
    from spikevrt.restore.batch import Outcome, restore_many, told

    names = ("clip", "linear", "layout", "blur", "spikes", *ABOUT_SPIKES)
    refuse(parsed, names, f"not with {parsed.recording}, a folder of recordings")
    if is_video(parsed.out):
        raise ValueError(f"--out: {parsed.out}; allowed for a folder of recordings: a folder (--video adds videos)")
    folders = [path for path in sorted(parsed.recording.iterdir()) if path.is_dir() and path.name[0] != "."]
    if others := [path.name for path in folders if not (path / SIDECAR).is_file()]:
        named = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        print(f"spikevrt: {parsed.recording}: left out, for they have no {SIDECAR}: {named}", file=sys.stderr)
    start_s = time.perf_counter()
    options = restore_options(parsed)
    weights = shipped.find(parsed.weights or shipped.DEFAULT)
    with progress_bar("recordings") as progress:

        def tell(outcome: Outcome, done: int, total: int) -> None:
            sys.stderr.write(outcome.told)
            if outcome.error is not None:
                print(f"spikevrt: {outcome.name}: {spelled(outcome.error, parsed.parser, ())}", file=sys.stderr)
            progress(done, total)

        outcomes = restore_many(
            weights, parsed.recording, parsed.out, options, _job(parsed, output), engine=options_of(Engine, parsed),
            gate=admit, tell=tell,
        )  # fmt: skip
    lines = told(outcomes, parsed.out, time.perf_counter() - start_s)
    print("\n".join(spelled(line, parsed.parser, ()) for line in lines))
    return 1 if any(one.error is not None for one in outcomes) else 0


def _open_footage(parsed: argparse.Namespace) -> Recording:
    """The recording at the given path, or one made up from loose frames and what the user said of the spikes."""
    from spikevrt.formats.layouts import find_layout, open_clip
    from spikevrt.recording.recording import open_recording
    from spikevrt.recording.sidecar import SIDECAR

    path = parsed.recording
    is_recording = not path.exists() or (path / SIDECAR).is_file()
    if not is_recording and parsed.spikes is None and find_layout(path, options_of(LayoutOptions, parsed)) is not None:
        names = [name for name in ABOUT_SPIKES if name not in ABOUT_DATASETS]
        refuse(parsed, names, f"only with --spikes; {path} is a dataset folder")
        refuse(parsed, ("linear",), f"only with a folder of images; {path} is a dataset folder")
        return settled(open_clip(path, parsed.clip, options_of(LayoutOptions, parsed)), parsed)
    if parsed.spikes is None:
        refuse(parsed, ABOUT_DATASETS, "only with --spikes or a dataset folder")
        refuse(parsed, ABOUT_SPIKES, "only with --spikes")
    refuse(parsed, OF_DATASETS, f"only with a dataset folder; {path} is none, or is given --spikes")
    if is_recording:
        refuse(parsed, ("linear", "fps"), f"only with a folder of images; {path} is none")
        recording = open_recording(path, keep_outside=True)
        refuse(parsed, ("clip",), f"{path} is a recording, one clip")
        refuse(parsed, ("spikes",), f"{path} is a recording, with spikes of its own")
        return recording
    refuse(parsed, ("clip",), f"{path} is no dataset folder of a known layout")
    return open_loose(path, parsed)


def add_export(verbs: Any) -> None:
    parser = add_verb(verbs, "export", _export, f"spikevrt export --out {shipped.DEFAULT}.onnx")
    text = f"network: the name of one that ships, or a file ({shipped.DEFAULT})"
    parser.add_argument("weights", nargs="?", help=text)
    add_out(parser, "file that ends in .pt2 (torch.export), .onnx or .aoti.pt2 (AOTInductor)", Path)
    add_fields(parser, ExportOptions)


def _export(parsed: argparse.Namespace) -> None:
    """Write the network as a file that runs without SpikeVRT: torch.export, ONNX or AOTInductor."""
    if parsed.height is None:
        refuse(parsed, ("spike_ratio",), "only with --height and --width; otherwise the voxels may have any size")
    options = options_of(ExportOptions, parsed)
    from spikevrt.export import export_network

    start_s = time.perf_counter()
    weights = shipped.find(parsed.weights or shipped.DEFAULT)
    summary = export_network(weights, parsed.out, options, overwrite=parsed.overwrite)
    difference = summary["max_difference"]
    checked = "not compared" if difference is None else f"largest difference to the network {difference:.1e}"
    seconds, megabytes = time.perf_counter() - start_s, summary["bytes"] / 1e6
    print(f"{summary['format']} program, {checked} -> {parsed.out} ({seconds:.1f} s, {megabytes:.1f} MB)")


def add_demo(verbs: Any) -> None:
    parser = add_verb(verbs, "demo", _demo, "spikevrt demo --out out/demo", computes=True)
    parser.description = f"{parser.description}\nNetworks: {', '.join(shipped.COMPARED)}."
    parser.add_argument("--out", type=folder, default=Path("out/demo"), metavar="PATH", help="folder (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --out")


def _demo(parsed: argparse.Namespace) -> None:
    """The main job on shipped footage: simulate, restore, measure, and write a report to look at."""
    from spikevrt.bench.demo import run_demo

    start_s = time.perf_counter()
    out = run_demo(parsed.out, overwrite=parsed.overwrite)
    say_made("report", out / "report.html", start_s)


def add_app(verbs: Any) -> None:
    parser = add_verb(verbs, "app", _app, "spikevrt app --open", computes=True)
    parser.description = f"{parser.description}\nThe network is {shipped.DEFAULT}, or another that ships."
    text = "for uploads and results (%(default)s)"
    parser.add_argument("--folder", type=folder, default=Path("out/app"), metavar="PATH", help=text)
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="where it listens (%(default)s)")
    parser.add_argument("--port", type=int, default=7860, metavar="N", help="0: any that is free (%(default)s)")
    parser.add_argument("--max-upload-mb", type=int, default=2000, metavar="MB", help="largest upload (%(default)s)")
    parser.add_argument("--open", action="store_true", help="open it in the browser of this machine")


def _app(parsed: argparse.Namespace) -> None:
    """The web page: upload footage or choose an example, look at it, restore it, compare, download."""
    from spikevrt.app.serving import serve

    serve(
        parsed.folder, host=parsed.host, port=parsed.port, max_upload_mb=parsed.max_upload_mb, open_browser=parsed.open
    )
