"""`spikevrt export`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from spikevrt import shipped
from spikevrt.verbs.options import add_out, add_verb, given

FIELDS = ("format", "frames", "height", "width", "spike_ratio", "check")  # ExportOptions


def add(verbs: Any) -> None:
    parser = add_verb(verbs, "export", _export, "spikevrt export --out spikevrt_tiny.onnx")
    parser.add_argument(
        "weights", type=Path, nargs="?", help=f"network: the name of one that ships, or a file ({shipped.REFERENCE})"
    )
    add_out(parser, "file that ends in .pt2 (torch.export), .onnx or .aoti.pt2 (AOTInductor)")
    parser.add_argument("--format", choices=("torch", "onnx", "aoti"), help="of the file (told by its name)")
    parser.add_argument("--frames", type=int, help="fix the number of frames of a clip (any)")
    parser.add_argument("--height", type=int, help="fix the rows of a picture, with --width (any multiple of 8)")
    parser.add_argument("--width", type=int, help="fix the columns")
    parser.add_argument("--spike-ratio", type=int, help="pixels to one of the spike camera, with --height (2)")
    parser.add_argument("--without-spikes", action="store_true", help="the network on the frames alone")
    parser.add_argument(
        "--check",
        action=argparse.BooleanOptionalAction,
        help="run the file at other sizes and compare it with the network (where onnxruntime is installed)",
    )


def _export(parsed: argparse.Namespace) -> None:
    """Write the network as a file that runs without SpikeVRT: torch.export, ONNX or AOTInductor."""
    from spikevrt.export import ExportOptions, export_network

    if parsed.spike_ratio is not None and parsed.height is None:
        raise ValueError("--spike-ratio: only with --height and --width; otherwise the voxels may have any size")
    options = ExportOptions(**given(parsed, FIELDS), without_spikes=parsed.without_spikes)
    start_s = time.perf_counter()
    weights = shipped.find(parsed.weights or shipped.REFERENCE)
    summary = export_network(weights, parsed.out, options, overwrite=parsed.overwrite)
    difference = summary["max_difference"]
    checked = "not compared" if difference is None else f"largest difference to the network {difference:.1e}"
    seconds, megabytes = time.perf_counter() - start_s, summary["bytes"] / 1e6
    print(f"{summary['format']} program, {checked} -> {parsed.out} ({seconds:.1f} s, {megabytes:.1f} MB)")
