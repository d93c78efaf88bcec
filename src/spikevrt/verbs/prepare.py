"""`spikevrt prepare`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from spikevrt.verbs.options import (
    add_ignore_health,
    add_layout_options,
    add_out,
    add_verb,
    dashed,
    given,
    layout_options,
    say_made,
)


def add(verbs: Any) -> None:
    parser = add_verb(verbs, "prepare", _prepare, "spikevrt prepare recordings --out data/dataset")
    parser.add_argument(
        "recordings", nargs="+", type=Path, metavar="RECORDING",
        help="recording, folder of them, or dataset folder of a known layout (docs/datasets.md)",
    )  # fmt: skip
    add_out(parser, "the dataset's folder")
    parser.add_argument("--num-bins", type=int, default=32, help="temporal bins of one exposure (32)")
    parser.add_argument(
        "--split", choices=("whole", "fractional"), default="whole",
        help="of ticks among bins: whole, or a tick shared among the bins it overlaps (whole)",
    )  # fmt: skip
    parser.add_argument(
        "--frames",
        choices=("npy", "png"),
        default="npy",
        help="npy: only the crop is read; png: smaller, decoded whole (npy)",
    )
    parser.add_argument("--val-fraction", type=float, help="share of the sources kept for validation (0.1)")
    parser.add_argument("--val", nargs="+", type=Path, metavar="RECORDING", help="exactly these for validation instead")
    parser.add_argument("--seed", type=int, help="of the choice of sources for validation (123)")
    parser.add_argument(
        "--without-sharp",
        action="store_true",
        help="take recordings that have no sharp frames too, for train --self-supervised",
    )
    add_ignore_health(parser)
    add_layout_options(parser)


def _prepare(parsed: argparse.Namespace) -> None:
    """Turn recordings into a training set: voxels, alignment log, mean and standard deviation."""
    import functools

    from spikevrt.align.health import admit_readable
    from spikevrt.data.dataset import open_dataset
    from spikevrt.data.prepare import prepare
    from spikevrt.data.prepare_options import PrepareOptions
    from spikevrt.formats.layouts import open_sources
    from spikevrt.progress import progress_bar

    chosen = given(parsed, ("val_fraction", "seed"))
    if parsed.val is not None and chosen:
        raise ValueError(f"{dashed(next(iter(chosen)))}: not with --val, which says what is for validation")
    options = PrepareOptions(
        num_bins=parsed.num_bins, split=parsed.split, frames=parsed.frames, without_sharp=parsed.without_sharp, **chosen
    )
    start_s = time.perf_counter()
    sources = open_sources(parsed.recordings, parsed.val or (), layout_options(parsed), options)
    admit = functools.partial(admit_readable, ignore=parsed.ignore_health or ())
    with progress_bar("recordings") as progress:
        root = prepare(sources, parsed.out, options, admit=admit, overwrite=parsed.overwrite, progress=progress)
    info = open_dataset(root)
    dropped = f", {info.num_dropped} dropped (each sequence's dropped.log says why)" if info.num_dropped else ""
    lacking = [part for part in ("train", "val") if any(not s.has_sharp for s in info.sequences(part))]
    without = f", without sharp frames: {' and '.join(lacking)}" if lacking else ""
    say_made(f"{info.num_frames} frames{without}{dropped}", root, start_s)
