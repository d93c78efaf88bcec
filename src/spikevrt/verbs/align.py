"""`spikevrt align`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from spikevrt.verbs.options import add_verb, say_made


def add(verbs: Any) -> None:
    parser = add_verb(verbs, "align", _align, "spikevrt align recordings/street --preview aligned.png")
    parser.add_argument("recording", type=Path, help="recording folder")
    parser.add_argument("--no-time", action="store_true", help="the clocks are right: estimate the registration alone")
    parser.add_argument("--no-space", action="store_true", help="the cameras are registered: estimate the offset alone")
    parser.add_argument("--flow", action="store_true", help="a smooth displacement on top of the homography")
    parser.add_argument("--max-offset-ticks", type=int, metavar="N", help="search so far either side (one exposure)")
    parser.add_argument("--preview", type=Path, metavar="PNG", help="write a picture: before and after")
    parser.add_argument("--overwrite", action="store_true", help="replace the file at --preview")
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, and do not write it")
    parser.add_argument("--reset", action="store_true", help="take the alignment out of the recording")


def _align(parsed: argparse.Namespace) -> None:
    """Estimate time offset and registration of a recording's two cameras from its footage."""
    from spikevrt.align.estimate import AlignOptions, estimate_alignment, reset_alignment, write_estimate
    from spikevrt.recording.frames import WRITE_SUFFIXES
    from spikevrt.recording.recording import open_recording
    from spikevrt.recording.sidecar import SIDECAR

    start_s = time.perf_counter()
    others = (parsed.no_time, parsed.no_space, parsed.flow, parsed.max_offset_ticks, parsed.preview, parsed.dry_run)
    if parsed.reset:
        if any(others):
            raise ValueError("--reset: takes no other option")
        open_recording(parsed.recording, apply_alignment=False)
        reset_alignment(parsed.recording)
        say_made("alignment taken out", parsed.recording / SIDECAR, start_s)
        return
    if parsed.preview is not None:
        if parsed.preview.suffix.lower() not in WRITE_SUFFIXES:
            raise ValueError(f"--preview: {parsed.preview}; allowed: a name ending in {', '.join(WRITE_SUFFIXES)}")
        if parsed.preview.exists() and not parsed.overwrite:
            raise FileExistsError(f"{parsed.preview}: exists; choose another --preview or pass --overwrite")
    options = AlignOptions(
        time=not parsed.no_time, space=not parsed.no_space, flow=parsed.flow, max_offset_ticks=parsed.max_offset_ticks
    )
    recording = open_recording(parsed.recording, apply_alignment=False)
    estimate = estimate_alignment(recording, options, preview=parsed.preview)
    print("\n".join(estimate.lines))
    if parsed.preview is not None:
        print(f"preview -> {parsed.preview}")
    if not parsed.dry_run:
        write_estimate(recording, estimate)
        say_made("alignment", parsed.recording / SIDECAR, start_s)
