"""`spikevrt report`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from spikevrt.verbs.options import add_out, add_verb, say_made


def add(verbs: Any) -> None:
    parser = add_verb(verbs, "report", _report, "spikevrt report out/scores --out report.html")
    parser.add_argument(
        "results", nargs="+", type=Path, metavar="RESULTS", help="results.json of `evaluate`, or its folder"
    )
    add_out(parser, "the page, one file that needs nothing beside it")
    parser.add_argument(
        "--pictures", type=int, metavar="N", help="recordings shown with pictures (up to 4, as 6 MB allow)"
    )


def _report(parsed: argparse.Namespace) -> None:
    """Put results on one page that can be sent: tables, stress curves, crops to compare, error maps, spikes."""
    from spikevrt.report.results_page import write_page

    start_s = time.perf_counter()
    write_page(parsed.results, parsed.out, num_pictures=parsed.pictures, overwrite=parsed.overwrite)
    say_made("report", parsed.out, start_s)
