"""`spikevrt train`."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from spikevrt.verbs.options import add_out, add_verb, say_made


def add(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "train",
        _train,
        "spikevrt train configs/tiny.yaml --out runs/tiny --set data.root=data/dataset optim.steps=2000",
    )
    parser.add_argument("config", type=Path, help="YAML file; its keys are those of spikevrt.config")
    add_out(parser, "the run's folder")
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
        say_made("weights", best, start_s)
