"""`spikevrt bench`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from spikevrt import shipped
from spikevrt.verbs.options import (
    add_metrics,
    add_restore_options,
    add_verb,
    measure_options,
    restore_options,
    say_made,
)


def add(verbs: Any) -> None:
    parser = add_verb(verbs, "bench", _bench, "spikevrt bench --out out/bench", computes=True)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="PATH", help="folder of results.json; taken up again"
    )
    parser.add_argument(
        "--weights",
        nargs="*",
        type=Path,
        metavar="WEIGHTS",
        help=f"networks: names of shipped ones, or files ({', '.join(shipped.COMPARED)})",
    )
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
    add_restore_options(parser, gated=False)


def _bench(parsed: argparse.Namespace) -> None:
    """Score methods on spikebench-v1, a benchmark that is generated here and is the same everywhere."""
    from spikevrt.bench.benchmark import chosen
    from spikevrt.bench.run import RESULTS, run_benchmark

    start_s = time.perf_counter()
    weights = [shipped.find(name) for name in (shipped.COMPARED if parsed.weights is None else parsed.weights)]
    run_benchmark(
        parsed.out, weights, parsed.method, chosen(parsed.conditions), restore_options(parsed), measure_options(parsed),
        recordings=parsed.recordings,
    )  # fmt: skip
    say_made("results", parsed.out / RESULTS, start_s)
