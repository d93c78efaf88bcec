"""`spikevrt demo`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from spikevrt.verbs.options import add_verb, say_made


def add(verbs: Any) -> None:
    parser = add_verb(verbs, "demo", _demo, "spikevrt demo --out out/demo", computes=True)
    parser.add_argument("--out", type=Path, default=Path("out/demo"), metavar="PATH", help="folder (out/demo)")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --out")


def _demo(parsed: argparse.Namespace) -> None:
    """The main job on shipped footage: simulate, restore, measure, and write a report to look at."""
    from spikevrt.bench.demo import run_demo

    start_s = time.perf_counter()
    out = run_demo(parsed.out, overwrite=parsed.overwrite)
    say_made("report", out / "report.html", start_s)
