"""`spikevrt prepare`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from spikevrt.verbs.options import add_out, add_verb, dashed, given, say_made


def add(verbs: Any) -> None:
    parser = add_verb(verbs, "prepare", _prepare, "spikevrt prepare recordings --out data/dataset")
    parser.add_argument("recordings", nargs="+", type=Path, metavar="RECORDING", help="recording, or folder of them")
    add_out(parser, "the dataset's folder")
    parser.add_argument("--num-bins", type=int, default=32, help="temporal bins of one exposure (32)")
    parser.add_argument("--val-fraction", type=float, help="share of the sources kept for validation (0.1)")
    parser.add_argument("--val", nargs="+", type=Path, metavar="RECORDING", help="exactly these for validation instead")
    parser.add_argument("--seed", type=int, help="of the split (123)")


def _prepare(parsed: argparse.Namespace) -> None:
    """Turn recordings into a training set: voxels, alignment log, mean and standard deviation."""
    from spikevrt.data.dataset import open_dataset
    from spikevrt.data.prepare import prepare
    from spikevrt.restore.output import progress_bar

    split = given(parsed, ("val_fraction", "seed"))
    if parsed.val is not None and split:
        raise ValueError(f"{dashed(next(iter(split)))}: not with --val, which says what is for validation")
    start_s = time.perf_counter()
    with progress_bar("recordings") as progress:
        root = prepare(
            parsed.recordings, parsed.out, num_bins=parsed.num_bins, val=parsed.val or (), overwrite=parsed.overwrite,
            progress=progress, **split,
        )  # fmt: skip
    info = open_dataset(root)
    dropped = f", {info.num_dropped} dropped (each sequence's dropped.log says why)" if info.num_dropped else ""
    say_made(f"{info.num_frames} frames{dropped}", root, start_s)
