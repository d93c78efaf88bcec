"""`spikevrt evaluate`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from spikevrt import shipped
from spikevrt.verbs.options import (
    add_layout_options,
    add_metrics,
    add_out,
    add_restore_options,
    add_verb,
    layout_options,
    measure_options,
    restore_options,
    say_made,
)


def add(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "evaluate",
        _evaluate,
        "spikevrt evaluate recordings --weights runs/tiny/best.safetensors --out out/scores",
        computes=True,
    )
    parser.add_argument(
        "recordings",
        nargs="+",
        type=Path,
        metavar="RECORDING",
        help="recording, folder of them, or dataset folder of a known layout (docs/datasets.md)",
    )
    add_out(parser, "folder of results.json, report.html and pictures")
    parser.add_argument(
        "--weights",
        nargs="+",
        type=Path,
        metavar="WEIGHTS",
        help=f"networks: names of shipped ones, or files ({', '.join(shipped.COMPARED)})",
    )
    parser.add_argument("--keep-frames", action="store_true", help="keep the restored frames, and videos of them")
    add_metrics(parser)
    add_restore_options(parser)
    add_layout_options(parser.add_argument_group("dataset folders (docs/datasets.md)"))


def _evaluate(parsed: argparse.Namespace) -> None:
    """Measure PSNR, SSIM, time and memory of networks on recordings that have sharp frames."""
    from spikevrt.evaluate.runner import results_folder, write_results
    from spikevrt.evaluate.scores import score_table
    from spikevrt.formats.layouts import open_recordings
    from spikevrt.report.results_page import write_page, write_videos

    start_s = time.perf_counter()
    weights = [shipped.find(name) for name in parsed.weights or shipped.COMPARED]
    options = restore_options(parsed)
    with results_folder(parsed.out, overwrite=parsed.overwrite) as folder:
        # of a dataset folder the part that nothing was trained on
        recordings = open_recordings(parsed.recordings, layout_options(parsed), part="val")
        results = write_results(
            weights, recordings, folder, options, keep_frames=parsed.keep_frames, measure=measure_options(parsed)
        )
        if parsed.keep_frames:
            write_videos(folder, recordings)
        write_page([folder], folder / "report.html", recordings=recordings)
    print(score_table(results))
    say_made("scores", parsed.out / "results.json", start_s)
