"""`spikevrt convert`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikevrt.verbs.options import add_verb, dashed, given, say_made

if TYPE_CHECKING:
    from spikevrt.recording.spike_formats import StreamFormat
    from spikevrt.recording.stream import SpikeStream

ABOUT_SOURCE = ("kind", "width", "height", "rows", "tag_bits", "key", "axes")


def add(verbs: Any) -> None:
    from spikevrt.recording.spike_kinds import KINDS, TARGETS

    parser = add_verb(verbs, "convert", _convert, "spikevrt convert car.npz car.dat")
    parser.add_argument("source", type=Path, metavar="A", help="spike file or recording")
    parser.add_argument("out", type=Path, metavar="B", help="spike file; by its suffix .npy, .npz, .h5, else packed")
    parser.add_argument("--to", choices=TARGETS, help="variant of B (by its suffix)")
    parser.add_argument("--to-rows", choices=("bottom-up", "top-down"), help="order of B's rows (packed: bottom-up)")
    parser.add_argument("--start", type=int, metavar="TICK", help="first tick (0)")
    parser.add_argument("--stop", type=int, metavar="TICK", help="tick behind the last one (all)")
    parser.add_argument("--tick-rate-hz", type=float, help="read-outs per second, for B's sidecar (what A's says)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file B")
    source = parser.add_argument_group("what A is, where neither its sidecar nor a config.yaml nor itself tells")
    source.add_argument("--kind", choices=KINDS, help="variant (by its suffix, else packed)")
    source.add_argument("--width", type=int, help="spike columns, without tag bits")
    source.add_argument("--height", type=int, help="spike rows")
    source.add_argument("--rows", choices=("bottom-up", "top-down"), help="order of the rows (packed: bottom-up)")
    source.add_argument("--tag-bits", type=int, help="bits behind the pixels of each row: 16 in 416-wide rows (0)")
    source.add_argument("--key", help="array of an .npz or .h5")
    source.add_argument("--axes", choices=("THW", "HWT"), help="order of an array's axes")


def _convert(parsed: argparse.Namespace) -> None:
    """Convert spikes from one file format to another, or cut out some ticks; a sidecar tells what was written."""
    from spikevrt.formats.convert import write_stream
    from spikevrt.progress import progress_bar
    from spikevrt.recording.stream import Sps100Stream

    start_s = time.perf_counter()
    if parsed.tick_rate_hz is not None and not 0 < parsed.tick_rate_hz < float("inf"):
        raise ValueError(f"--tick-rate-hz: {parsed.tick_rate_hz}; allowed: above 0")
    stream, tick_rate_hz, sha256 = _open_source(parsed)
    if parsed.to == "packed-416" and stream.width != 400:
        raise ValueError(f"--to: packed-416 for spikes {stream.width} wide; allowed: 400 pixels and 16 tag bits a row")
    with progress_bar("ticks") as progress:
        written = write_stream(
            parsed.out, stream, _target(parsed), ticks=(parsed.start or 0, parsed.stop),
            tick_rate_hz=parsed.tick_rate_hz or tick_rate_hz, source_sha256=sha256, overwrite=parsed.overwrite,
            progress=progress,
        )  # fmt: skip
    for note in stream.notes if isinstance(stream, Sps100Stream) else ():
        print(f"{parsed.source}: {note}")
    say_made(f"{written.num_ticks} ticks ({written.format.describe()})", parsed.out, start_s)


def _open_source(parsed: argparse.Namespace) -> tuple[SpikeStream, float | None, str | None]:
    """The stream, and its tick rate and checksum where they are known."""
    from spikevrt.recording.spike_formats import find_format, find_stated, open_stream

    about = given(parsed, ABOUT_SOURCE)
    path = parsed.source
    if path.is_dir():
        if about:
            raise ValueError(f"{dashed(next(iter(about)))}: {path} is a recording, which tells what its spikes are")
        from spikevrt.recording.recording import open_recording  # with torch, which a spike file does not need

        recording = open_recording(path)
        assert recording.spikes is not None, "a recording folder always has spikes"
        return recording.spikes, recording.tick_rate_hz, recording.stored_sha256
    if not about:
        found = find_format(path)
        return open_stream(path), found.tick_rate_hz, found.sha256
    if "rows" in about:
        about["bottom_up"] = about.pop("rows") == "bottom-up"
    found = find_stated(path, about)
    return open_stream(path, found.format), found.tick_rate_hz, found.sha256


def _target(parsed: argparse.Namespace) -> StreamFormat:
    from spikevrt.recording.spike_formats import StreamFormat
    from spikevrt.recording.spike_kinds import SPIKE_KINDS, SUFFIX_KINDS, TARGETS, kind_of

    suffix = parsed.out.suffix.lower()
    target = parsed.to or kind_of(suffix)
    kind, tag_bits, axes = TARGETS[target]
    suffixes = SPIKE_KINDS[kind].suffixes
    if (suffix not in suffixes) if suffixes else (suffix in SUFFIX_KINDS):
        raise ValueError(f"--to: {target} in a file {parsed.out.name}; allowed: the suffix that belongs to it")
    bottom_up = None if parsed.to_rows is None else parsed.to_rows == "bottom-up"
    return StreamFormat(kind=kind, bottom_up=bottom_up, tag_bits=tag_bits, axes=axes)
