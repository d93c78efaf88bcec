"""Verbs on the way to weights (`prepare`, `config import`, `train`, `runs`), and those that measure (`evaluate`,
`bench`, `report`, `accept`).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from spikevrt.atomic import refuse_existing_file, refuse_own_input
from spikevrt.config import PrepareOptions, Split, TrainConfig
from spikevrt.evaluate.scores import Measure
from spikevrt.formats.dataset_trees import NO_OPTIONS, LayoutOptions
from spikevrt.recording.sidecar import Stated
from spikevrt.restore.options import RestoreOptions
from spikevrt.typed import amount
from spikevrt.verbs import (
    DATASET_GROUP,
    HELP_LAYOUT,
    OF_DATASETS,
    add_compared_weights,
    add_fields,
    add_loose,
    add_out,
    add_recordings,
    add_sharp,
    add_verb,
    chosen,
    compared_weights,
    folder,
    open_loose,
    options_of,
    refuse,
    restore_options,
    say_made,
    settled,
)

if TYPE_CHECKING:
    from spikevrt.recording.recording import Recording

DEFAULT_FOLDER = Path("runs")


def add(verbs: Any) -> None:
    _add_prepare(verbs)
    about = "Convert configs of an older VRT+Spike."
    parser = verbs.add_parser("config", help=about, description=about, allow_abbrev=False, formatter_class=HELP_LAYOUT)
    parser.set_defaults(parser=parser)
    _add_import(parser.add_subparsers(title="actions", metavar="ACTION", required=True))
    _add_train(verbs)
    _add_runs(verbs)


def _add_prepare(verbs: Any) -> None:
    parser = add_verb(verbs, "prepare", _prepare, "spikevrt prepare recordings --out data/dataset")
    add_recordings(parser)
    add_out(parser, "the dataset's folder")
    add_fields(parser, PrepareOptions)
    parser.add_argument("--val", nargs="+", type=Path, metavar="RECORDING", help="exactly these for validation instead")
    add_fields(parser, RestoreOptions, only=("ignore_health",))
    add_fields(parser, LayoutOptions)


def _prepare(parsed: argparse.Namespace) -> None:
    """Turn recordings into a training set: voxels, alignment log, mean and standard deviation."""
    if parsed.val is not None:
        refuse(parsed, ("val_fraction", "seed"), "not with --val, which says what is for validation")
    from spikevrt.align.health import admit_readable, check_names
    from spikevrt.data.dataset import open_dataset
    from spikevrt.data.prepare import prepare
    from spikevrt.formats.layouts import open_sources
    from spikevrt.progress import progress_bar

    start_s = time.perf_counter()
    options, ignore = options_of(PrepareOptions, parsed), parsed.ignore_health or ()
    check_names(ignore)
    sources = open_sources(parsed.recordings, parsed.val or (), options_of(LayoutOptions, parsed), options)
    for about, note in dict.fromkeys(note for one, _ in sources.presplit for note in one.notes.items()):
        print(f"spikevrt: {about}: {note}", file=sys.stderr)
    admit = functools.partial(admit_readable, ignore=ignore)
    with progress_bar("recordings") as progress:
        root = prepare(sources, parsed.out, options, admit=admit, overwrite=parsed.overwrite, progress=progress)
    info = open_dataset(root)
    dropped = f", {info.num_dropped} dropped (each sequence's dropped.log says why)" if info.num_dropped else ""
    lacking = [split for split in get_args(Split) if any(not s.has_sharp for s in info.sequences(split))]
    without = f", without sharp frames: {' and '.join(lacking)}" if lacking else ""
    say_made(f"{amount(info.num_frames, 'frame')}{without}{dropped}", root, start_s)


def _add_import(actions: Any) -> None:
    parser = add_verb(actions, "import", _import, "spikevrt config import OLD.yaml --out configs/new.yaml")
    parser.add_argument("old", type=Path, metavar="OLD.yaml", help="upper-case YAML of an older VRT+Spike")
    parser.add_argument("--out", type=Path, metavar="YAML", help="write the new config (only tell)")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --out")
    parser.add_argument("--partial", action="store_true", help="write it without the refused keys, which it names")
    text = "checkpoint of that run: its weights are written beside --out, and training starts from them"
    parser.add_argument("--checkpoint", type=Path, metavar="OLD.pth", help=text)


def _import(parsed: argparse.Namespace) -> None:
    """Tell what becomes of every key of an upper-case config; write the config that it makes."""
    from spikevrt.migrate.config_file import import_config, read_old_config, standardisation, write_config

    out: Path | None = parsed.out
    if out is None:
        refuse(parsed, ("overwrite", "partial", "checkpoint"), "only with --out")
    else:
        refuse_own_input(out, [parsed.old])
        refuse_existing_file(out, overwrite=parsed.overwrite)
    old = read_old_config(parsed.old)
    imported = import_config(old, with_checkpoint=parsed.checkpoint is not None)
    for line in imported.lines:
        print(line)
    count = f"{len(imported.refused)} of {amount(len(imported.lines), 'key')} refused"
    if imported.refused and not parsed.partial:
        partial = ", or pass --partial to write it without them" if out is not None else ""
        raise ValueError(f"{parsed.old}: {count} (listed above); change or remove them{partial}")
    weights = None if out is None or parsed.checkpoint is None else out.with_suffix(".safetensors")
    if weights is not None:
        refuse_existing_file(weights, overwrite=parsed.overwrite)
        from spikevrt.migrate.old_checkpoint import convert_checkpoint

        norm = standardisation(old)
        told = convert_checkpoint(parsed.checkpoint, weights, imported.config.model, **norm, partial=parsed.partial)
        print("\n".join([*told, f"weights, which read log1p counts ({norm['mean']:g}, {norm['std']:g}) -> {weights}"]))
    for command in imported.commands("NEW.yaml" if out is None else str(out)):
        print(f"next: {command}")
    if out is None:
        print(f"{amount(len(imported.lines), 'key')}, none refused")
        return
    write_config(out, parsed.old, imported, weights)
    print(f"{count}; all that is not named has its default -> {out}")


def _add_train(verbs: Any) -> None:
    example = "spikevrt train configs/tiny.yaml --out runs/tiny --set data.root=data/dataset optim.steps=2000"
    parser = add_verb(verbs, "train", _train, example, computes=True)
    parser.add_argument("config", type=Path, help="YAML file; its keys are those of spikevrt.config")
    add_out(parser, "the run's folder")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="override settings")
    parser.add_argument(
        "--resume", nargs="?", const=True, default=False, choices=(True, "auto"), metavar="auto",
        help="go on from the state in --out; auto: start where there is none yet, as a scheduler needs",
    )  # fmt: skip
    add_fields(parser, TrainConfig)
    parser.add_argument("--dry-run", action="store_true", help="build all, run one step, report, write nothing")


def _train(parsed: argparse.Namespace) -> None:
    """Train a network from a config; under torchrun, on several devices."""
    from spikevrt.config import load_config

    if parsed.dry_run:
        refuse(parsed, ("resume", "overwrite"), "not with --dry-run, which reads and writes nothing in --out")
    settings = [f"train.{name}={value}" for name, value in chosen(TrainConfig, parsed).items()]
    if parsed.self_supervised:
        settings += ["loss.perceptual_weight=0", "loss.reblur_weight=1"]
    config = load_config(parsed.config, settings + parsed.set)  # before torch is loaded: a typing error answers at once
    from spikevrt.report.charts import draw_run
    from spikevrt.train.loop import train

    start_s = time.perf_counter()
    best = train(
        config, parsed.out, resume=parsed.resume, dry_run=parsed.dry_run, overwrite=parsed.overwrite,
        resume_command=_resume_command(parsed), after_validation=draw_run,
    )  # fmt: skip
    if best is not None and os.environ.get("RANK", "0") == "0":
        say_made("weights", best, start_s)


def _resume_command(parsed: argparse.Namespace) -> str:
    """What to type to go on with this run."""
    words = ["spikevrt", "train", str(parsed.config), "--out", str(parsed.out)]
    words += ["--set", *parsed.set] if parsed.set else []
    words += ["--parallel", parsed.parallel] if parsed.parallel else []
    words += ["--self-supervised"] if parsed.self_supervised else []
    words += ["--resume", *(["auto"] if parsed.resume == "auto" else [])]
    world, local = os.environ.get("WORLD_SIZE", "1"), os.environ.get("LOCAL_WORLD_SIZE", "1")
    if world != "1":
        words[:1] = ["torchrun", f"--nproc-per-node={local}", "-m", "spikevrt"]
    return shlex.join(words)


def _add_runs(verbs: Any) -> None:
    parser = add_verb(verbs, "runs", _runs, "spikevrt runs --compare runs/tiny runs/tiny_rgb --plot curves.png")
    text = f"run, or folder of runs ({DEFAULT_FOLDER})"
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help=text)
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="two runs instead of a list")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="with --compare: draw the curves of both")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --plot")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")


def _runs(parsed: argparse.Namespace) -> None:
    """List training runs, the best first; or compare two: settings, environment, scores, curves."""
    if parsed.compare is None:
        refuse(parsed, ("plot",), "only with --compare A B")
    elif parsed.folders:
        raise ValueError(f"{parsed.folders[0]}: no folder besides the two of --compare")
    if parsed.plot is None:
        refuse(parsed, ("overwrite",), "only with --plot")
    else:
        refuse_existing_file(parsed.plot, overwrite=parsed.overwrite, other="--plot")
        if parsed.plot.suffix.lower() != ".png":
            raise ValueError(f"--plot: {parsed.plot}; allowed: a name that ends in .png")
    from spikevrt.train.runs import compare, list_runs, listed, told

    if parsed.compare is None:
        folders = parsed.folders or [DEFAULT_FOLDER]
        runs = list_runs(folders)
        values: dict[str, Any] = {"runs": [dataclasses.asdict(run) for run in runs]}
        lines = listed(runs) or [f"no runs in {', '.join(map(str, folders))}"]
    else:
        comparison = compare(*parsed.compare)
        values, lines = comparison.values(), told(comparison)
    if parsed.plot is not None:
        from spikevrt.report.charts import draw_comparison
        from spikevrt.train.journal import read_journal

        parsed.plot.parent.mkdir(parents=True, exist_ok=True)
        draw_comparison([(str(path), read_journal(path)) for path in parsed.compare], parsed.plot)
        lines.append(f"curves -> {parsed.plot}")
    print(json.dumps(values, indent=2, default=str) if parsed.json else "\n".join(lines))


def add_scores(verbs: Any) -> None:
    parser = add_verb(
        verbs, "evaluate", _evaluate,
        "spikevrt evaluate recordings --weights runs/tiny/best.safetensors --out out/scores", computes=True,
    )  # fmt: skip
    add_recordings(parser)
    add_out(parser, "folder of results.json, report.html and pictures")
    add_compared_weights(parser, "*")
    _add_method(parser)
    parser.add_argument("--keep-frames", action="store_true", help="keep the restored frames, and videos of them")
    add_fields(parser, Measure)
    add_fields(parser, RestoreOptions)
    add_fields(parser.add_argument_group(DATASET_GROUP), LayoutOptions, only=OF_DATASETS)
    add_loose(parser)
    add_sharp(parser)

    parser = add_verb(verbs, "bench", _bench, "spikevrt bench --out out/bench", computes=True)
    text = "folder of results.json; taken up again"
    parser.add_argument("--out", type=folder, required=True, metavar="PATH", help=text)
    add_compared_weights(parser, "*")
    _add_method(parser)
    text = "those alone: medium, medium_threshold_4 ... (all)"
    parser.add_argument("--conditions", nargs="+", metavar="NAME", help=text)
    parser.add_argument("--recordings", type=folder, metavar="PATH", help="where the recordings lie (OUT/recordings)")
    add_fields(parser, Measure)
    add_fields(parser, RestoreOptions, without=("ignore_health", "strict"))  # its gate refuses nothing

    parser = add_verb(verbs, "report", _report, "spikevrt report out/scores --out report.html")
    text = "results.json of `evaluate`, or its folder"
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help=text)
    add_out(parser, "the page, one file that needs nothing beside it", Path)
    text = "recordings shown with pictures (a few, as the size of a page allows)"
    parser.add_argument("--pictures", type=int, metavar="N", help=text)

    parser = add_verb(verbs, "accept", _accept, "spikevrt accept --spike out/scores:spikefold_tiny --twin out/scores")
    text = "results.json of `evaluate --metrics all`, or its folder; with :METHOD where it holds several such networks"
    parser.add_argument("--spike", required=True, metavar="RUN", help=f"the network with spikes: {text}")
    parser.add_argument("--twin", required=True, metavar="RUN", help="the network without: likewise")


def _add_method(parser: argparse.ArgumentParser) -> None:
    text = "one more method: NAME=MODULE:FUNCTION or NAME='COMMAND {recording} {out}' (docs/evaluation.md)"
    parser.add_argument("--method", action="append", default=[], metavar="NAME=...", help=text)


def _evaluate(parsed: argparse.Namespace) -> None:
    """Measure PSNR, SSIM, time and memory of networks on recordings that have sharp frames."""
    from spikevrt.align.health import admit
    from spikevrt.evaluate.runner import results_folder, write_results
    from spikevrt.evaluate.scores import score_table
    from spikevrt.formats.layouts import open_recordings
    from spikevrt.report.results_page import write_page, write_videos

    start_s = time.perf_counter()
    weights, options = compared_weights(parsed), restore_options(parsed)
    with results_folder(parsed.out, overwrite=parsed.overwrite) as folder:
        if parsed.spikes is not None:
            recordings = [_loose_with_truth(parsed)]
        else:
            refuse(parsed, ("sharp", *(chosen(Stated, parsed).keys() - vars(NO_OPTIONS))), "only with --spikes")
            layout = options_of(LayoutOptions, parsed)  # of a dataset folder the split that nothing was trained on
            recordings = open_recordings(parsed.recordings, layout, split="val", keep_outside=True)
        results = write_results(
            weights, recordings, folder, options, others=parsed.method, keep_frames=parsed.keep_frames,
            measure=options_of(Measure, parsed), gate=admit,
        )  # fmt: skip
        if parsed.keep_frames:
            write_videos(folder, recordings)
        write_page([folder], folder / "report.html", recordings=recordings)
    print(score_table(results))
    say_made("scores", parsed.out / "results.json", start_s)


def _loose_with_truth(parsed: argparse.Namespace) -> Recording:
    from spikevrt.recording.loose import with_sharp

    if len(parsed.recordings) != 1 or parsed.sharp is None:
        raise ValueError("--spikes: with one video or folder of frames, and with --sharp, the truth to score against")
    if any("{recording}" in method for method in parsed.method):
        raise ValueError("--method: a command reads a recording's folder; make one with `spikevrt record`")
    return settled(with_sharp(open_loose(parsed.recordings[0], parsed), parsed.sharp), parsed)


def _bench(parsed: argparse.Namespace) -> None:
    """Score methods on spikebench-v1, a benchmark that is generated here and is the same everywhere."""
    from spikevrt.bench.benchmark import chosen
    from spikevrt.bench.run import RESULTS, run_benchmark

    start_s = time.perf_counter()
    run_benchmark(
        parsed.out, compared_weights(parsed), parsed.method, chosen(parsed.conditions), restore_options(parsed),
        options_of(Measure, parsed), recordings=parsed.recordings,
    )  # fmt: skip
    say_made("results", parsed.out / RESULTS, start_s)


def _report(parsed: argparse.Namespace) -> None:
    """Put results on one page that can be sent: tables, stress curves, crops to compare, error maps, spikes."""
    from spikevrt.report.results_page import write_page

    start_s = time.perf_counter()
    write_page(parsed.results, parsed.out, num_pictures=parsed.pictures, overwrite=parsed.overwrite)
    say_made("report", parsed.out, start_s)


def _accept(parsed: argparse.Namespace) -> int:
    """Check SpikeVRT against its spike-less twin; exit status 0, or the sum of 1 PSNR, 4 LPIPS, 8 edges not met."""
    from spikevrt.evaluate.accept import accept, told

    acceptance = accept(parsed.spike, parsed.twin)
    print("\n".join(told(acceptance)))
    return acceptance.status
