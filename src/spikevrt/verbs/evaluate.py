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
    from spikevrt.evaluate.runner import evaluate

    start_s = time.perf_counter()
    weights = [shipped.find(name) for name in parsed.weights or shipped.COMPARED]
    options = restore_options(parsed)
    evaluate(
        weights, parsed.recordings, parsed.out, options,
        overwrite=parsed.overwrite, keep_frames=parsed.keep_frames, layout=layout_options(parsed),
        measure=measure_options(parsed),
    )  # fmt: skip
    say_made("scores", parsed.out / "results.json", start_s)
