"""`spikevrt simulate`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from spikevrt.verbs.options import add_out, add_verb, dashed, given, say_made

SIMULATE = (  # name of the field of SimulateOptions, type, help; defaults are those of the dataclass
    ("frames", int, "frames of one recording (5)"),
    ("width", int, "width of a colour frame in pixels (640)"),
    ("height", int, "height of a colour frame in pixels (360)"),
    ("exposure_ticks", int, "exposure of a frame in spike ticks (128)"),
    ("period_ticks", int, "ticks from one frame's start to the next one's (160)"),
    ("motion_px", float, "photographs: typical image motion within one exposure (12.0)"),
    ("num_layers", int, "photographs: layers that move on their own (2)"),
    ("ticks_per_frame", int, "video: spike ticks from one source frame to the next (8)"),
    ("start_frame", int, "video: first source frame (0)"),
    ("seed", int, "the same seed gives the same bytes (123)"),
)
SENSOR = (  # SensorConfig
    ("threshold", float, "light per spike, in ticks of full-scale light (1.0)"),
    ("tick_rate_hz", float, "spike read-outs per second (20000.0)"),
    ("dead_ticks", float, "light lost after each spike, in ticks (0.0)"),
    ("ratio", int, "width of a colour frame over that of the spike sensor (2)"),
)


def add(verbs: Any) -> None:
    parser = add_verb(
        verbs, "simulate", _simulate, "spikevrt simulate photo.jpg --out recordings/photo --width 320 --height 192"
    )
    parser.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="photograph, frame folder or video")
    add_out(parser, "the recording's folder; with --count, the folder of recordings")
    parser.add_argument("--count", type=int, help="make so many recordings, going round the sources")
    parser.add_argument("--workers", type=int, help="processes, with --count (1)")
    parser.add_argument("--layer-photos", nargs="+", type=Path, metavar="PHOTO", help="what the layers are cut out of")
    for name, kind, text in (*SIMULATE, *SENSOR):
        parser.add_argument(dashed(name), type=kind, help=text)


def _simulate(parsed: argparse.Namespace) -> None:
    """Make recordings (blurry frames, sharp frames, spikes) from photographs or sharp high-rate video."""
    from dataclasses import replace

    from spikevrt.restore.output import progress_bar
    from spikevrt.simulate.sensor import SensorConfig
    from spikevrt.simulate.synthesise import SimulateOptions, simulate_many, simulate_recording

    start_s = time.perf_counter()
    sensor = replace(SensorConfig(), **given(parsed, [name for name, _, _ in SENSOR]))
    options = replace(SimulateOptions(), sensor=sensor, **given(parsed, [name for name, _, _ in SIMULATE]))
    sources, out = parsed.sources, parsed.out
    if parsed.count is None:
        if len(sources) > 1:
            raise ValueError(f"SOURCE: {len(sources)} given; allowed: one, or several with --count")
        if parsed.workers is not None:
            raise ValueError("--workers: only with --count")
        _check_for_sources(parsed)
        layers = parsed.layer_photos or ()
        with progress_bar("ticks") as progress:
            made = simulate_recording(
                sources[0], out, options, overwrite=parsed.overwrite, layer_photos=layers, progress=progress
            )
        what = f"{made.num_frames} frames, {made.num_ticks} ticks"
    else:
        if parsed.layer_photos is not None:
            raise ValueError("--layer-photos: not with --count, which cuts layers out of the sources")
        _check_for_sources(parsed)
        with progress_bar("recordings") as progress:
            paths = simulate_many(
                sources, out, options, count=parsed.count, workers=parsed.workers or 1,
                overwrite=parsed.overwrite, progress=progress,
            )  # fmt: skip
        what = f"{len(paths)} recordings"
    say_made(what, out, start_s)


def _check_for_sources(parsed: argparse.Namespace) -> None:
    """Refuse what none of the sources obeys: a photograph is filmed by a moving camera, a video as it is."""
    from spikevrt.simulate.synthesise import is_photo

    photos = [is_photo(source) for source in parsed.sources]
    for names, is_obeyed, what in (
        (("motion_px", "num_layers", "layer_photos"), any(photos), "photographs"),
        (("ticks_per_frame", "start_frame"), not all(photos), "videos and folders of frames"),
    ):
        for name in given(parsed, names):
            if not is_obeyed:
                raise ValueError(f"{dashed(name)}: for {what}; not for {parsed.sources[0]}")
    if parsed.layer_photos is not None and parsed.num_layers == 0:
        raise ValueError("--layer-photos: not with --num-layers 0")
