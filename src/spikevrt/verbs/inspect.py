"""`spikevrt inspect`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikevrt.verbs.options import add_layout_options, add_verb, given, layout_options

if TYPE_CHECKING:
    from spikevrt.recording.spike_formats import StreamFormat

KINDS = ("packed", "sps100", "bytes", "npy", "npz", "packed-time", "h5")
HEADERLESS = ("packed", "sps100", "bytes")


def add(verbs: Any) -> None:
    parser = add_verb(verbs, "inspect", _inspect, "spikevrt inspect spikes.dat --rgb frames --out readings.png")
    parser.add_argument("path", type=Path, help="recording, folder of them, dataset, spike file, frame folder or video")
    parser.add_argument("--width", type=int, help="spike columns (a .dat does not know its size)")
    parser.add_argument("--height", type=int, help="spike rows")
    parser.add_argument("--rows", choices=("bottom-up", "top-down"), help="order of the rows (packed: bottom-up)")
    parser.add_argument("--top-down", dest="rows", action="store_const", const="top-down", help="--rows top-down")
    parser.add_argument("--kind", choices=KINDS, help="how the spikes are stored (packed, or by the suffix)")
    parser.add_argument("--tag-bits", type=int, metavar="N", help="bits behind the pixels of each packed row (0)")
    parser.add_argument("--key", help="the array of an .npz or .h5 file")
    parser.add_argument("--axes", choices=("THW", "HWT"), help="order of an array's axes")
    parser.add_argument("--size", action="append", type=_size, metavar="WxH", help="one more size that may fit")
    parser.add_argument("--rgb", type=Path, metavar="PATH", help="frames of the same scene, to see which reading fits")
    parser.add_argument("--confirm", type=int, metavar="NUMBER", help="the listed reading is right: write FILE.json")
    parser.add_argument("--tick-rate-hz", type=float, metavar="HZ", help="kept by --confirm (20000)")
    parser.add_argument("--out", type=Path, metavar="PNG", help="write a preview picture, or a sheet of the readings")
    parser.add_argument("--report", type=Path, metavar="HTML", help="write the health page of a recording")
    parser.add_argument("--overwrite", action="store_true", help="replace what --out, --report or --confirm writes")
    parser.add_argument("--centre", type=int, metavar="TICK", help="tick of the preview (the middle)")
    parser.add_argument("--half-window", type=int, metavar="TICKS", help="ticks either side (20)")
    add_layout_options(parser.add_argument_group("dataset folders (docs/datasets.md)"))


def _inspect(parsed: argparse.Namespace) -> None:
    """Tell what a recording, spike file, dataset, frame folder or video holds, and whether it is sound; draw it."""
    from spikevrt.align.inspect import InspectOptions, inspect
    from spikevrt.recording.recording import open_recording
    from spikevrt.report.recording_pages import write_health_page

    inspection = inspect(
        parsed.path,
        InspectOptions(
            stated=_stated(parsed), sizes=tuple(parsed.size or ()), rgb=parsed.rgb, confirm=parsed.confirm,
            tick_rate_hz=parsed.tick_rate_hz, out=parsed.out, centre=parsed.centre, half_window=parsed.half_window,
            report=parsed.report, overwrite=parsed.overwrite, layout=layout_options(parsed),
        ),
    )  # fmt: skip
    print("\n".join(inspection.lines), flush=True)
    if parsed.report is not None and inspection.health is not None:
        write_health_page(parsed.report, open_recording(parsed.path), inspection.health)
        print(f"report -> {parsed.report}")
    if inspection.refusal is not None:
        raise ValueError(inspection.refusal)


def _stated(parsed: argparse.Namespace) -> StreamFormat | None:
    """The format that the options state; None when they state none."""
    from spikevrt.recording.spike_formats import SUFFIX_KINDS, StreamFormat

    if not given(parsed, ("width", "height", "rows", "kind", "tag_bits", "key", "axes")):
        return None
    kind = parsed.kind or SUFFIX_KINDS.get(parsed.path.suffix.lower(), "packed")
    if kind in HEADERLESS and kind != "sps100" and (parsed.width is None or parsed.height is None):
        raise ValueError(
            "--width, --height: a file without a header needs both; allowed: both, or none to see what fits"
        )
    return StreamFormat(
        kind, parsed.width, parsed.height, None if parsed.rows is None else parsed.rows == "bottom-up",
        parsed.tag_bits or 0, parsed.key, parsed.axes,
    )  # fmt: skip


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: WIDTHxHEIGHT, for example 400x250")
    return int(match[1]), int(match[2])
