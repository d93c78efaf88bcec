"""The verbs, one a stage of the data flow: the options of each, and a thin call into its package.

Everything heavy is imported inside the verb, so that `--help` never loads torch. An option that a verb cannot obey
is refused here or by the package that it is meant for.
"""

from __future__ import annotations

import argparse
import functools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spikevrt.recording.recording import Recording
    from spikevrt.restore.restorer import RestoreOptions

LAYOUT = functools.partial(argparse.RawDescriptionHelpFormatter, max_help_position=32, width=110)


def add_verbs(verbs: Any) -> None:
    """Add every verb's parser to the sub-parsers `verbs`, in the order of the data flow. Imports nothing of ours."""
    _add_simulate(verbs)
    _add_inspect(verbs)
    _add_prepare(verbs)
    _add_train(verbs)
    _add_restore(verbs)
    _add_evaluate(verbs)
    _add_demo(verbs)


def _verb(verbs: Any, name: str, run: Callable[[argparse.Namespace], None], example: str) -> argparse.ArgumentParser:
    """A parser that calls `run`, whose docstring is the verb's help."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=run.__doc__, description=run.__doc__, epilog=f"example:\n  {example}", allow_abbrev=False,
        formatter_class=LAYOUT,
    )  # fmt: skip
    parser.set_defaults(run=run, parser=parser)
    return parser


def _add_out(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help=what)
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --out")


def _given(parsed: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The options that the user gave: the defaults live in the dataclasses, not here."""
    return {name: getattr(parsed, name) for name in names if getattr(parsed, name) is not None}


def _dashed(name: str) -> str:
    """The option of a field: --tile-px of tile_px."""
    return f"--{name.replace('_', '-')}"


def _say_made(what: str, where: Path, start_s: float) -> None:
    print(f"{what} -> {where} ({time.perf_counter() - start_s:.1f} s)")


_SIMULATE = (  # name of the field of SimulateOptions, type, help; defaults are those of the dataclass
    ("frames", int, "frames of one recording (5)"),
    ("width", int, "width of a colour frame in pixels (640)"),
    ("height", int, "height of a colour frame in pixels (360)"),
    ("exposure_ticks", int, "exposure of a frame in spike ticks (128)"),
    ("period_ticks", int, "ticks from one frame's start to the next one's (160)"),
    ("motion_px", float, "photographs: typical image motion within one exposure (12.0)"),
    ("num_layers", int, "photographs: layers that move on their own (2)"),
    ("ticks_per_frame", int, "video: spike ticks from one source frame to the next (8)"),
    ("start_frame", int, "video: first source frame (0)"),
    ("seed", int, "the same seed gives the same bytes (123)"),
)
_SENSOR = (  # SensorConfig
    ("threshold", float, "light per spike, in ticks of full-scale light (1.0)"),
    ("tick_rate_hz", float, "spike read-outs per second (20000.0)"),
    ("dead_ticks", float, "light lost after each spike, in ticks (0.0)"),
    ("ratio", int, "width of a colour frame over that of the spike sensor (2)"),
)


def _add_simulate(verbs: Any) -> None:
    parser = _verb(
        verbs, "simulate", _simulate, "spikevrt simulate photo.jpg --out recordings/photo --width 320 --height 192"
    )
    parser.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="photograph, frame folder or video")
    _add_out(parser, "the recording's folder; with --count, the folder of recordings")
    parser.add_argument("--count", type=int, help="make so many recordings, going round the sources")
    parser.add_argument("--workers", type=int, help="processes, with --count (1)")
    parser.add_argument("--layer-photos", nargs="+", type=Path, metavar="PHOTO", help="what the layers are cut out of")
    for name, kind, text in (*_SIMULATE, *_SENSOR):
        parser.add_argument(_dashed(name), type=kind, help=text)


def _simulate(parsed: argparse.Namespace) -> None:
    """Make recordings (blurry frames, sharp frames, spikes) from photographs or sharp high-rate video."""
    from dataclasses import replace

    from spikevrt.restore.output import progress_bar
    from spikevrt.simulate.sensor import SensorConfig
    from spikevrt.simulate.synthesise import SimulateOptions, simulate_many, simulate_recording

    start_s = time.perf_counter()
    sensor = replace(SensorConfig(), **_given(parsed, [name for name, _, _ in _SENSOR]))
    options = replace(SimulateOptions(), sensor=sensor, **_given(parsed, [name for name, _, _ in _SIMULATE]))
    sources, out = parsed.sources, parsed.out
    if parsed.count is None:
        if len(sources) > 1:
            raise ValueError(f"SOURCE: {len(sources)} given; allowed: one, or several with --count")
        if parsed.workers is not None:
            raise ValueError("--workers: only with --count")
        _check_for_sources(parsed)
        layers = parsed.layer_photos or ()
        with progress_bar("ticks") as progress:
            made = simulate_recording(
                sources[0], out, options, overwrite=parsed.overwrite, layer_photos=layers, progress=progress
            )
        what = f"{made.num_frames} frames, {made.num_ticks} ticks"
    else:
        if parsed.layer_photos is not None:
            raise ValueError("--layer-photos: not with --count, which cuts layers out of the sources")
        _check_for_sources(parsed)
        with progress_bar("recordings") as progress:
            paths = simulate_many(
                sources, out, options, count=parsed.count, workers=parsed.workers or 1,
                overwrite=parsed.overwrite, progress=progress,
            )  # fmt: skip
        what = f"{len(paths)} recordings"
    _say_made(what, out, start_s)


def _check_for_sources(parsed: argparse.Namespace) -> None:
    """Refuse what none of the sources obeys: a photograph is filmed by a moving camera, a video as it is."""
    from spikevrt.simulate.synthesise import is_photo

    photos = [is_photo(source) for source in parsed.sources]
    for names, is_obeyed, what in (
        (("motion_px", "num_layers", "layer_photos"), any(photos), "photographs"),
        (("ticks_per_frame", "start_frame"), not all(photos), "videos and folders of frames"),
    ):
        for name in _given(parsed, names):
            if not is_obeyed:
                raise ValueError(f"{_dashed(name)}: for {what}; not for {parsed.sources[0]}")
    if parsed.layer_photos is not None and parsed.num_layers == 0:
        raise ValueError("--layer-photos: not with --num-layers 0")


def _add_inspect(verbs: Any) -> None:
    parser = _verb(verbs, "inspect", _inspect, "spikevrt inspect spikes.dat --width 400 --height 250 --out preview.png")
    parser.add_argument("path", type=Path, help="recording, folder of them, .dat, .npz, .npy, frame folder or video")
    parser.add_argument("--width", type=int, help="spike columns (a .dat does not know its size)")
    parser.add_argument("--height", type=int, help="spike rows")
    parser.add_argument("--top-down", action="store_true", help="the first stored row is the top one (default: bottom)")
    parser.add_argument("--out", type=Path, metavar="PNG", help="write a preview picture")
    parser.add_argument("--overwrite", action="store_true", help="replace the file at --out")
    parser.add_argument("--centre", type=int, metavar="TICK", help="tick of the preview (the middle)")
    parser.add_argument("--half-window", type=int, metavar="TICKS", help="ticks either side (20)")


def _inspect(parsed: argparse.Namespace) -> None:
    """Tell what a recording, spike file, frame folder or video holds, and draw a preview."""
    from spikevrt.align.health import inspect

    lines = inspect(
        parsed.path, width=parsed.width, height=parsed.height, top_down=parsed.top_down, out=parsed.out,
        centre=parsed.centre, half_window=parsed.half_window, overwrite=parsed.overwrite,
    )  # fmt: skip
    print("\n".join(lines))


def _add_prepare(verbs: Any) -> None:
    parser = _verb(verbs, "prepare", _prepare, "spikevrt prepare recordings --out data/dataset")
    parser.add_argument("recordings", nargs="+", type=Path, metavar="RECORDING", help="recording, or folder of them")
    _add_out(parser, "the dataset's folder")
    parser.add_argument("--num-bins", type=int, default=32, help="temporal bins of one exposure (32)")
    parser.add_argument("--val-fraction", type=float, help="share of the sources kept for validation (0.1)")
    parser.add_argument("--val", nargs="+", type=Path, metavar="RECORDING", help="exactly these for validation instead")
    parser.add_argument("--seed", type=int, help="of the split (123)")


def _prepare(parsed: argparse.Namespace) -> None:
    """Turn recordings into a training set: voxels, alignment log, mean and standard deviation."""
    from spikevrt.data.dataset import open_dataset
    from spikevrt.data.prepare import prepare
    from spikevrt.restore.output import progress_bar

    split = _given(parsed, ("val_fraction", "seed"))
    if parsed.val is not None and split:
        raise ValueError(f"{_dashed(next(iter(split)))}: not with --val, which says what is for validation")
    start_s = time.perf_counter()
    with progress_bar("recordings") as progress:
        root = prepare(
            parsed.recordings, parsed.out, num_bins=parsed.num_bins, val=parsed.val or (), overwrite=parsed.overwrite,
            progress=progress, **split,
        )  # fmt: skip
    info = open_dataset(root)
    dropped = f", {info.num_dropped} dropped (each sequence's dropped.log says why)" if info.num_dropped else ""
    _say_made(f"{info.num_frames} frames{dropped}", root, start_s)


def _add_train(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "train",
        _train,
        "spikevrt train configs/tiny.yaml --out runs/tiny --set data.root=data/dataset optim.steps=2000",
    )
    parser.add_argument("config", type=Path, help="YAML file; its keys are those of spikevrt.config")
    _add_out(parser, "the run's folder")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="override settings")
    parser.add_argument("--resume", action="store_true", help="go on from the state in --out")
    parser.add_argument("--dry-run", action="store_true", help="build all, run one step, report, write nothing")


def _train(parsed: argparse.Namespace) -> None:
    """Train a network from a config; under torchrun, on several devices."""
    from spikevrt.config import load_config

    for name in ("resume", "overwrite"):
        if parsed.dry_run and getattr(parsed, name):
            raise ValueError(f"--{name}: not with --dry-run, which reads and writes nothing in --out")
    config = load_config(parsed.config, parsed.set)  # before torch is loaded: a typing error answers at once
    from spikevrt.train.loop import train

    start_s = time.perf_counter()
    best = train(config, parsed.out, resume=parsed.resume, dry_run=parsed.dry_run, overwrite=parsed.overwrite)
    if best is not None and os.environ.get("RANK", "0") == "0":
        _say_made("weights", best, start_s)


_RESTORE = (  # RestoreOptions
    ("tile_px", int, "side of a spatial tile, 0: the whole picture (256)"),
    ("overlap_px", int, "overlap of spatial tiles (32)"),
    ("clip_frames", int, "frames restored together, 0: all (5)"),
    ("overlap_frames", int, "frames that two clips share (1)"),
    ("max_memory_gb", float, "smaller tiles where the predicted peak would exceed it (none)"),
)


def _add_restore_options(parser: argparse.ArgumentParser) -> None:
    for name, kind, text in _RESTORE:
        parser.add_argument(_dashed(name), type=kind, help=text)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="auto takes a GPU where there is one (auto)")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help="of the network's arithmetic (fp32)")


def _restore_options(parsed: argparse.Namespace) -> RestoreOptions:
    from dataclasses import replace

    from spikevrt.restore.restorer import RestoreOptions

    if parsed.tile_px == 0 and parsed.overlap_px and parsed.max_memory_gb is None:
        raise ValueError("--overlap-px: not with --tile-px 0, one tile over the whole picture")
    if parsed.clip_frames == 0 and parsed.overlap_frames:
        raise ValueError("--overlap-frames: not with --clip-frames 0, one clip over the whole recording")
    return replace(RestoreOptions(), **_given(parsed, [name for name, _, _ in _RESTORE] + ["device", "precision"]))


def _shipped_weights(name: str) -> Path:
    return Path(__file__).with_name("weights") / f"{name}.safetensors"


def _add_restore(verbs: Any) -> None:
    parser = _verb(verbs, "restore", _restore, "spikevrt restore recordings/street --out out/street")
    parser.add_argument("recording", type=Path, help="recording; or frame folder or video, with --spikes")
    _add_out(parser, "folder of frames, or a file that ends in .mp4")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="trained network (the shipped tiny one)")
    parser.add_argument("--video", action="store_true", default=None, help="beside the frames, a video of them")
    spikes = parser.add_argument_group("frames and spikes that are no recording")
    spikes.add_argument("--spikes", type=Path, metavar="DAT", help="packed spike file beside RECORDING's frames")
    spikes.add_argument("--spike-width", type=int, help="spike columns")
    spikes.add_argument("--spike-height", type=int, help="spike rows")
    spikes.add_argument("--top-down", action="store_true", default=None, help="the first stored row is the top one")
    spikes.add_argument("--tick-rate-hz", type=float, help="spike read-outs per second (20000)")
    spikes.add_argument("--first-tick", type=int, help="tick at which the first exposure starts (0)")
    spikes.add_argument("--exposure-ticks", type=int, help="exposure of a frame (the period)")
    spikes.add_argument("--period-ticks", type=int, help="ticks from frame to frame (all ticks over all frames)")
    _add_restore_options(parser)


def _restore(parsed: argparse.Namespace) -> None:
    """Restore a recording, or frames plus a spike file, to sharp frames or video."""
    from spikevrt.checkpoint import read_info
    from spikevrt.restore.restorer import restore_recording

    if parsed.video and parsed.out.suffix.lower() == ".mp4":
        raise ValueError(f"--video: not with --out {parsed.out}, which is the video")
    options = _restore_options(parsed)
    recording = _open_footage(parsed)
    weights = parsed.weights or _shipped_weights("spikevrt_tiny" if recording.spike_path else "vrt_tiny")
    if parsed.spikes is not None and weights.is_file() and read_info(weights).model.spikes is None:
        raise ValueError(
            f"--spikes: {weights} is a network without spikes; leave --spikes out or choose other --weights"
        )
    summary = restore_recording(weights, recording, parsed.out, options, overwrite=parsed.overwrite, video=parsed.video)
    peak_gb = summary["peak_bytes"] / 1e9
    print(f"{summary['num_frames']} frames -> {parsed.out} ({summary['seconds']:.1f} s, peak {peak_gb:.1f} GB)")


_ABOUT_SPIKES = (
    "spike_width", "spike_height", "top_down", "tick_rate_hz", "first_tick", "exposure_ticks", "period_ticks"
)  # fmt: skip


def _open_footage(parsed: argparse.Namespace) -> Recording:
    """The recording at the given path, or one made up from loose frames and what the user said of the spikes."""
    from spikevrt.recording.recording import SIDECAR, loose_recording, open_recording, recordings_in

    about = _given(parsed, _ABOUT_SPIKES)
    path = parsed.recording
    if parsed.spikes is None and about:
        raise ValueError(f"{_dashed(next(iter(about)))}: only with --spikes")
    if not path.exists() or (path / SIDECAR).is_file():
        recording = open_recording(path)
        if parsed.spikes is not None:
            raise ValueError(f"--spikes: {path} is a recording, with spikes of its own")
        return recording
    if recordings_in(path):
        raise ValueError(f"{path}: a folder of recordings; name one of them")
    if parsed.spikes is not None and not about.keys() >= {"spike_width", "spike_height"}:
        raise ValueError("--spikes: needs --spike-width and --spike-height, for a spike file does not know its size")
    about["bottom_up"] = not about.pop("top_down", False)
    return loose_recording(path, parsed.spikes, **about)


def _add_evaluate(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "evaluate",
        _evaluate,
        "spikevrt evaluate recordings --weights runs/tiny/best.safetensors --out out/scores",
    )
    parser.add_argument("recordings", nargs="+", type=Path, metavar="RECORDING", help="recording, or folder of them")
    _add_out(parser, "folder of results.json, report.html and pictures")
    parser.add_argument("--weights", nargs="+", type=Path, metavar="FILE", help="networks (the two shipped ones)")
    parser.add_argument("--keep-frames", action="store_true", help="keep the restored frames, and videos of them")
    _add_restore_options(parser)


def _evaluate(parsed: argparse.Namespace) -> None:
    """Measure PSNR, SSIM, time and memory of networks on recordings that have sharp frames."""
    from spikevrt.evaluate.runner import evaluate

    start_s = time.perf_counter()
    weights = parsed.weights or [_shipped_weights("vrt_tiny"), _shipped_weights("spikevrt_tiny")]
    options = _restore_options(parsed)
    evaluate(
        weights, parsed.recordings, parsed.out, options, overwrite=parsed.overwrite, keep_frames=parsed.keep_frames
    )
    _say_made("scores", parsed.out / "results.json", start_s)


def _add_demo(verbs: Any) -> None:
    parser = _verb(verbs, "demo", _demo, "spikevrt demo --out out/demo")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), metavar="PATH", help="folder (out/demo)")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --out")


def _demo(parsed: argparse.Namespace) -> None:
    """The main job on shipped footage: simulate, restore, measure, and write a report to look at."""
    from spikevrt.demo.job import run_demo

    start_s = time.perf_counter()
    out = run_demo(parsed.out, overwrite=parsed.overwrite)
    _say_made("report", out / "report.html", start_s)
