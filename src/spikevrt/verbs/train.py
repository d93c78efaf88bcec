"""`spikevrt train`."""

from __future__ import annotations

import argparse
import os
import shlex
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
        computes=True,
    )
    parser.add_argument("config", type=Path, help="YAML file; its keys are those of spikevrt.config")
    add_out(parser, "the run's folder")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="override settings")
    parser.add_argument(
        "--resume", nargs="?", const=True, default=False, choices=(True, "auto"), metavar="auto",
        help="go on from the state in --out; auto: start where there is none yet, as a scheduler needs",
    )  # fmt: skip
    parser.add_argument("--parallel", choices=("ddp", "fsdp"), help="under torchrun: train.parallel (ddp)")
    parser.add_argument(
        "--self-supervised", action="store_true", help="no sharp frames, the re-blur term alone: train.self_supervised"
    )
    parser.add_argument("--dry-run", action="store_true", help="build all, run one step, report, write nothing")


def _train(parsed: argparse.Namespace) -> None:
    """Train a network from a config; under torchrun, on several devices."""
    from spikevrt.config import load_config

    for name in ("resume", "overwrite"):
        if parsed.dry_run and getattr(parsed, name):
            raise ValueError(f"--{name}: not with --dry-run, which reads and writes nothing in --out")
    settings: list[str] = []
    if parsed.parallel is not None:
        settings.append(f"train.parallel={parsed.parallel}")
    if parsed.self_supervised:
        settings += ["train.self_supervised=true", "loss.perceptual_weight=0", "loss.reblur_weight=1"]
    config = load_config(parsed.config, settings + parsed.set)  # before torch is loaded: a typing error answers at once
    from spikevrt.report.curves import draw_run
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
