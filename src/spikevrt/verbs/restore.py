"""`spikevrt restore`."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikevrt import shipped
from spikevrt.verbs.options import (
    LAYOUT_FIELDS,
    add_layout_choice,
    add_out,
    add_restore_options,
    add_verb,
    dashed,
    given,
    layout_options,
    restore_options,
)

if TYPE_CHECKING:
    from spikevrt.formats.layouts import LayoutOptions
    from spikevrt.recording.recording import Recording
    from spikevrt.restore.output import Output


def add(verbs: Any) -> None:
    parser = add_verb(verbs, "restore", _restore, "spikevrt restore recordings/street --out out/street", computes=True)
    parser.add_argument(
        "recording", type=Path, help="recording, folder of them, dataset folder, or frames or a video with --spikes"
    )
    add_out(parser, "folder of frames, or a file that ends in .mp4, .mkv or .mov; of many, the folder of their folders")
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="WEIGHTS",
        help=f"network: the name of one that ships, or a file ({shipped.DEFAULT}; without spikes {shipped.TWIN})",
    )
    parser.add_argument("--fps-factor", type=int, metavar="N", help="slow motion: N sharp frames for one (1)")
    parser.add_argument("--memory", metavar="SIZE", help="of this process at most, as 6GiB (what is free)")
    parser.add_argument("--restart", action="store_true", help="throw away what an unfinished job has")
    written = parser.add_argument_group("what is written")
    written.add_argument("--frames", metavar="KIND", help="png, png16, tiff16 or exr (png)")
    written.add_argument("--video", action="store_true", default=None, help="beside the frames, a video of them")
    written.add_argument("--codec", metavar="NAME", help="of video: h264, hevc, av1 or ffv1 (h264; ffv1 needs .mkv)")
    written.add_argument("--lossless", action="store_true", default=None, help="video whose pixels are those restored")
    written.add_argument("--bits", type=int, help="of video: 8 or 10 (8)")
    written.add_argument("--crf", type=int, metavar="N", help="quality of lossy video, lower is better (16; av1 18)")
    parser.add_argument("--clip", metavar="NAME", help="of a dataset folder of a known layout (docs/datasets.md)")
    add_layout_choice(parser)
    spikes = parser.add_argument_group("frames and spikes that are no recording; * of a dataset folder, too")
    spikes.add_argument("--spikes", type=Path, metavar="FILE", help="spike file beside RECORDING's frames")
    spikes.add_argument("--spike-width", type=int, help="* spike columns (a packed file without sidecar has no size)")
    spikes.add_argument("--spike-height", type=int, help="* spike rows")
    spikes.add_argument("--top-down", action="store_true", default=None, help="the first stored row is the top one")
    spikes.add_argument("--tick-rate-hz", type=float, help="spike read-outs per second (20000)")
    spikes.add_argument("--first-tick", type=int, help="tick at which the first exposure starts (0)")
    spikes.add_argument("--exposure-ticks", type=int, help="* exposure of a frame (the period; the layout's)")
    spikes.add_argument("--period-ticks", type=int, help="ticks from frame to frame (all ticks over all frames)")
    spikes.add_argument(
        "--by-timestamps", action="store_true", default=None, help="a video's own times say when exposures start"
    )
    parser.add_argument(
        "--linear", action="store_true", default=None, help="images of more than 8 bits hold linear light (EXR: always)"
    )
    many = parser.add_argument_group("a folder of recordings")
    many.add_argument("--workers", type=int, metavar="N", help="recordings at a time (one a GPU; without any, 1)")
    many.add_argument("--engine", help="processes, or ray (processes)")
    many.add_argument("--ray-address", metavar="HOST:PORT", help="with --engine ray: a cluster that shares the files")
    add_restore_options(parser)


def _restore(parsed: argparse.Namespace) -> int:
    """Restore a recording, many of them, or frames plus a spike file, to sharp frames or video."""
    from spikevrt.checkpoint import read_info
    from spikevrt.recording.recording import recordings_in
    from spikevrt.recording.sidecar import SIDECAR
    from spikevrt.restore.job import restore_recording

    output = _output(parsed)
    if parsed.recording.is_dir() and not (parsed.recording / SIDECAR).is_file() and recordings_in(parsed.recording):
        return _restore_many(parsed, output)
    for name in given(parsed, ("workers", "engine", "ray_address")):
        raise ValueError(f"{dashed(name)}: only with a folder of recordings, which {parsed.recording} is not")
    options = restore_options(parsed)
    recording = _open_footage(parsed)
    with_spikes = shipped.DEFAULT if options.skip_sharp is None else shipped.REFERENCE  # which can leave tiles out
    weights = shipped.find(parsed.weights or (with_spikes if recording.spikes else shipped.TWIN))
    if parsed.spikes is not None and options.without_spikes:
        raise ValueError("--spikes: not with --without-spikes")
    if parsed.spikes is not None and read_info(weights).model.spikes is None:
        raise ValueError(
            f"--spikes: {weights} is a network without spikes; leave --spikes out or choose other --weights"
        )
    summary = restore_recording(
        weights, recording, parsed.out, options, overwrite=parsed.overwrite, output=output,
        fps_factor=1 if parsed.fps_factor is None else parsed.fps_factor, memory=parsed.memory, restart=parsed.restart,
    )  # fmt: skip
    for note in summary["notes"]:
        print(f"spikevrt: {note}", file=sys.stderr)
    more = [f"peak {summary['peak_bytes'] / 1e9:.1f} GB"]
    if options.skip_sharp is not None:
        more.append(f"{summary['tiles']['skipped']} of {summary['tiles']['num']} tiles skipped")
    if summary["without_spikes"]:
        more.append(f"{len(summary['without_spikes'])} frames without spikes")
    print(f"{summary['num_frames']} frames -> {parsed.out} ({summary['seconds']:.1f} s, {', '.join(more)})")
    return 0


def _output(parsed: argparse.Namespace) -> Output:
    """What is to be written. Options that nothing would obey are refused."""
    from spikevrt.mux.encode import VideoFormat
    from spikevrt.restore.output import Output, is_video

    format = given(parsed, ("codec", "lossless", "bits", "crf"))
    if is_video(parsed.out):
        for name in given(parsed, ("video", "frames")):
            raise ValueError(f"{dashed(name)}: not with --out {parsed.out}, which is a video")
    elif format and not parsed.video:
        raise ValueError(f"{dashed(next(iter(format)))}: of a video; allowed with --video, or an --out that is one")
    return Output(**given(parsed, ("frames", "video")), format=VideoFormat(**format))


def _restore_many(parsed: argparse.Namespace, output: Output) -> int:
    """A table and a last line; status 1 where a recording failed."""
    from spikevrt.progress import progress_bar
    from spikevrt.recording.sidecar import SIDECAR
    from spikevrt.restore.batch import BATCH_FILE, Outcome, restore_many
    from spikevrt.restore.output import is_video

    for name in ("clip", "linear", "layout", "blur", "spikes", *_ABOUT_SPIKES):
        if getattr(parsed, name) is not None:
            raise ValueError(f"{dashed(name)}: not with {parsed.recording}, a folder of recordings")
    if is_video(parsed.out):
        raise ValueError(f"--out: {parsed.out}; allowed for a folder of recordings: a folder (--video adds videos)")
    others = [path.name for path in sorted(parsed.recording.iterdir()) if path.is_dir() and path.name[0] != "."]
    others = [name for name in others if not (parsed.recording / name / SIDECAR).is_file()]
    if others:
        named = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        print(f"spikevrt: {parsed.recording}: left out, for they have no {SIDECAR}: {named}", file=sys.stderr)
    start_s = time.perf_counter()
    options = restore_options(parsed)
    weights = shipped.find(parsed.weights or (shipped.DEFAULT if options.skip_sharp is None else shipped.REFERENCE))
    with progress_bar("recordings") as progress:

        def tell(outcome: Outcome, done: int, total: int) -> None:
            sys.stderr.write(outcome.told)
            if outcome.error is not None:
                print(f"spikevrt: {outcome.name}: {outcome.error}", file=sys.stderr)
            progress(done, total)

        outcomes = restore_many(
            weights, parsed.recording, parsed.out, options, workers=parsed.workers,
            engine=parsed.engine or "processes", ray_address=parsed.ray_address, overwrite=parsed.overwrite,
            output=output, fps_factor=1 if parsed.fps_factor is None else parsed.fps_factor, memory=parsed.memory,
            restart=parsed.restart, tell=tell,
        )  # fmt: skip
    longest = max(len("recording"), *(len(one.name) for one in outcomes))
    print(f"{'recording':{longest}}  frames  seconds  status")
    for one in outcomes:
        frames = "-" if one.num_frames is None else one.num_frames
        print(f"{one.name:{longest}}  {frames:>6}  {one.seconds:7.1f}  {one.status}")
    counts = Counter(one.status for one in outcomes)
    parts = ", ".join(f"{counts[status]} {status}" for status in ("restored", "kept", "failed") if counts[status])
    print(f"{len(outcomes)} recordings: {parts} -> {parsed.out} ({time.perf_counter() - start_s:.1f} s)", end="")
    failed = [one for one in outcomes if one.error is not None]
    if failed:
        more = f"; and {len(failed) - 1} more in {parsed.out / BATCH_FILE}" if len(failed) > 1 else ""
        print(f"; {failed[0].name}: {failed[0].error}{more}", end="")
    print()
    return 1 if failed else 0


_ABOUT_SPIKES = (
    "spike_width", "spike_height", "top_down", "tick_rate_hz", "first_tick", "exposure_ticks", "period_ticks",
    "by_timestamps"
)  # fmt: skip


def _open_footage(parsed: argparse.Namespace) -> Recording:
    """The recording at the given path, or one made up from loose frames and what the user said of the spikes."""
    from spikevrt.formats.layouts import find_layout
    from spikevrt.recording.loose import loose_recording, open_beside
    from spikevrt.recording.recording import open_recording, recordings_in
    from spikevrt.recording.sidecar import SIDECAR

    path, about = parsed.recording, given(parsed, _ABOUT_SPIKES)
    is_footage = path.exists() and not (path / SIDECAR).is_file() and not recordings_in(path)
    linear = given(parsed, ("linear",))
    layout = layout_options(parsed) if is_footage and parsed.spikes is None else None
    if layout is not None and find_layout(path, layout) is not None:
        for name in about:
            if name not in LAYOUT_FIELDS:
                raise ValueError(f"{dashed(name)}: only with --spikes; {path} is a dataset folder")
        if linear:
            raise ValueError(f"--linear: only with a folder of images; {path} is a dataset folder")
        return _chosen_clip(path, parsed.clip, layout)
    if parsed.spikes is None and about:
        name = next(iter(about))
        raise ValueError(f"{dashed(name)}: only with --spikes{' or a dataset folder' * (name in LAYOUT_FIELDS)}")
    for name in given(parsed, ("layout", "blur")):
        raise ValueError(f"{dashed(name)}: only with a dataset folder; {path} is none, or is given --spikes")
    if linear and not is_footage:
        raise ValueError(f"--linear: only with a folder of images; {path} is none")
    if not path.exists() or (path / SIDECAR).is_file():
        recording = open_recording(path, keep_outside=True)
        if parsed.clip is not None:
            raise ValueError(f"--clip: {path} is a recording, one clip")
        if parsed.spikes is not None:
            raise ValueError(f"--spikes: {path} is a recording, with spikes of its own")
        return recording
    if parsed.clip is not None:
        raise ValueError(f"--clip: {path} is no dataset folder of a known layout")
    if parsed.spikes is None:
        return loose_recording(path, None, **linear)
    return open_beside(path, parsed.spikes, **about, **linear)


def _chosen_clip(root: Path, name: str | None, layout: LayoutOptions) -> Recording:
    from spikevrt.formats.layouts import open_recordings

    clips = {clip.name: clip for clip in open_recordings([root], layout)}
    if name is None and len(clips) == 1:
        return next(iter(clips.values()))
    if name not in clips:
        what = "a dataset folder; name one of its clips with --clip" if name is None else f"no clip {name!r}"
        raise ValueError(f"{root}: {what}; allowed: {', '.join(list(clips)[:20])}{', ...' if len(clips) > 20 else ''}")
    return clips[name]
