"""Verbs that measure: `evaluate`, `bench`, `report`, `accept`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from spikevrt.formats.dataset_trees import LayoutOptions
from spikevrt.restore.options import RestoreOptions
from spikevrt.verbs.arguments import (
    DATASET_GROUP,
    add_compared_weights,
    add_fields,
    add_metrics,
    add_out,
    add_recordings,
    add_verb,
    compared_weights,
    layout_options,
    measure_options,
    restore_options,
    say_made,
)


def add(verbs: Any) -> None:
    parser = add_verb(
        verbs, "evaluate", _evaluate,
        "spikevrt evaluate recordings --weights runs/tiny/best.safetensors --out out/scores", computes=True,
    )  # fmt: skip
    add_recordings(parser)
    add_out(parser, "folder of results.json, report.html and pictures")
    add_compared_weights(parser, "+")
    parser.add_argument("--keep-frames", action="store_true", help="keep the restored frames, and videos of them")
    add_metrics(parser)
    add_fields(parser, RestoreOptions)
    add_fields(parser.add_argument_group(DATASET_GROUP), LayoutOptions)

    parser = add_verb(verbs, "bench", _bench, "spikevrt bench --out out/bench", computes=True)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="PATH", help="folder of results.json; taken up again"
    )
    add_compared_weights(parser, "*")
    parser.add_argument(
        "--method",
        action="append",
        default=[],
        metavar="NAME=...",
        help="one more method: NAME=MODULE:FUNCTION or NAME='COMMAND {recording} {out}' (docs/evaluation.md)",
    )
    parser.add_argument(
        "--conditions", nargs="+", metavar="NAME", help="those alone: medium, medium_threshold_4 ... (all)"
    )
    parser.add_argument("--recordings", type=Path, metavar="PATH", help="where the recordings lie (OUT/recordings)")
    add_metrics(parser)
    add_fields(parser, RestoreOptions, without=("ignore_health", "strict"))  # its recordings pass no health gate

    parser = add_verb(verbs, "report", _report, "spikevrt report out/scores --out report.html")
    parser.add_argument(
        "results", nargs="+", type=Path, metavar="RESULTS", help="results.json of `evaluate`, or its folder"
    )
    add_out(parser, "the page, one file that needs nothing beside it")
    parser.add_argument(
        "--pictures", type=int, metavar="N", help="recordings shown with pictures (up to 4, as 6 MB allow)"
    )

    parser = add_verb(verbs, "accept", _accept, "spikevrt accept --spike out/scores:spikefold_tiny --twin out/scores")
    text = "results.json of `evaluate --metrics all`, or its folder; with :METHOD where it holds several such networks"
    parser.add_argument("--spike", required=True, metavar="RUN", help=f"the network with spikes: {text}")
    parser.add_argument("--twin", required=True, metavar="RUN", help="the network without: likewise")


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
        # of a dataset folder the part that nothing was trained on
        recordings = open_recordings(parsed.recordings, layout_options(parsed), part="val", keep_outside=True)
        results = write_results(
            weights, recordings, folder, options, keep_frames=parsed.keep_frames, measure=measure_options(parsed),
            gate=admit,
        )  # fmt: skip
        if parsed.keep_frames:
            write_videos(folder, recordings)
        write_page([folder], folder / "report.html", recordings=recordings)
    print(score_table(results))
    say_made("scores", parsed.out / "results.json", start_s)


def _bench(parsed: argparse.Namespace) -> None:
    """Score methods on spikebench-v1, a benchmark that is generated here and is the same everywhere."""
    from spikevrt.bench.benchmark import chosen
    from spikevrt.bench.run import RESULTS, run_benchmark

    start_s = time.perf_counter()
    run_benchmark(
        parsed.out, compared_weights(parsed), parsed.method, chosen(parsed.conditions), restore_options(parsed),
        measure_options(parsed), recordings=parsed.recordings,
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
