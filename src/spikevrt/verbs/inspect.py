"""`spikevrt inspect`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from spikevrt.verbs.options import add_verb


def add(verbs: Any) -> None:
    parser = add_verb(
        verbs, "inspect", _inspect, "spikevrt inspect spikes.dat --width 400 --height 250 --out preview.png"
    )
    parser.add_argument("path", type=Path, help="recording, folder of them, .dat, .npz, .npy, frame folder or video")
    parser.add_argument("--width", type=int, help="spike columns (a .dat does not know its size)")
    parser.add_argument("--height", type=int, help="spike rows")
    parser.add_argument("--top-down", action="store_true", help="the first stored row is the top one (default: bottom)")
    parser.add_argument("--out", type=Path, metavar="PNG", help="write a preview picture")
    parser.add_argument("--overwrite", action="store_true", help="replace the file at --out")
    parser.add_argument("--centre", type=int, metavar="TICK", help="tick of the preview (the middle)")
    parser.add_argument("--half-window", type=int, metavar="TICKS", help="ticks either side (20)")


def _inspect(parsed: argparse.Namespace) -> None:
    """Tell what a recording, spike file, frame folder or video holds, and draw a preview."""
    from spikevrt.align.health import inspect

    lines = inspect(
        parsed.path, width=parsed.width, height=parsed.height, top_down=parsed.top_down, out=parsed.out,
        centre=parsed.centre, half_window=parsed.half_window, overwrite=parsed.overwrite,
    )  # fmt: skip
    print("\n".join(lines))
