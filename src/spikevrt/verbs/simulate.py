"""`spikevrt simulate`."""

from __future__ import annotations

import argparse
import os
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
    ("ticks_per_frame", int, "video: spike ticks from one (interpolated) frame to the next (8)"),
    ("start_frame", int, "video: first source frame (0)"),
    ("interpolate", int, "video: frames made by RIFE in the place of each: 2, 4, 8 ... (1)"),
    ("sharp_shift_ticks", int, "the sharp frame is that of so many ticks after the exposure's middle (0)"),
    ("seed", int, "the same seed gives the same bytes (123)"),
)
SENSOR = (  # SensorConfig; the defaults are those of --sensor ideal
    ("threshold", float, "light per spike, in ticks of full-scale light (1.0)"),
    ("tick_rate_hz", float, "spike read-outs per second (20000.0)"),
    ("dead_ticks", float, "light lost after each spike, in ticks (0.0)"),
    ("ratio", int, "width of a colour frame over that of the spike sensor (2)"),
    ("light_gain", float, "the light is multiplied by it, below 1 in low light (1.0)"),
    ("photons_per_tick", float, "photons in a full-scale tick, 0: no shot noise (0.0)"),
    ("dark_current", float, "light per tick that every pixel sees in the dark (0.0)"),
    ("dark_cv", float, "spread of the dark current between pixels, relative (0.0)"),
    ("gain_cv", float, "spread of the response between pixels, relative (0.0)"),
    ("threshold_cv", float, "spread of the threshold between pixels, relative (0.0)"),
    ("threshold_jitter", float, "noise of each tick's comparison, in thresholds (0.0)"),
    ("dead_fraction", float, "share of pixels that never fire (0.0)"),
    ("hot_fraction", float, "share of pixels with the hot current (0.0)"),
    ("hot_current", float, "light per tick that a hot pixel sees in the dark (0.03)"),
    ("missed_fraction", float, "share of read-outs that are lost (0.0)"),
    ("pattern_seed", int, "seed of what differs between pixels; none: the recording's (none)"),
    ("response", float, "weights of linear red, green and blue (0.2126, 0.7152, 0.0722)"),
    ("bayer", str, "colour filter: BGGR, RGGB, GRBG or GBRG (none)"),
)
CAMERA = (  # CameraConfig
    ("exposure_gain", float, "the light is multiplied by it, then cut off at full scale (1.0)"),
    ("full_well_electrons", float, "electrons of a full-scale pixel, 0: no shot noise (0.0)"),
    ("read_noise", float, "standard deviation, in full scales of linear light (0.0)"),
    ("curve", str, "from light to levels: srgb, 2.2 or linear (srgb)"),
    ("bits", int, "the picture has 2 ** bits levels (8)"),
    ("rolling_shutter_ticks", int, "the last row is exposed so many ticks after the first (0)"),
)
RIG = (  # RigConfig; the option of shift_x_px is --rig-shift-x-px
    ("shift_x_px", float, "the scene lies so many frame pixels further right on the sensor (0.0)"),
    ("shift_y_px", float, "... further down (0.0)"),
    ("rotate_deg", float, "... turned clockwise about the centre (0.0)"),
    ("scale", float, "... so much larger (1.0)"),
    ("tilt_x", float, "perspective: 1 + tilt divides the right edge (0.0)"),
    ("tilt_y", float, "perspective: 1 + tilt divides the lower edge (0.0)"),
    ("offset_ticks", int, "true exposures begin so many ticks later than recorded (0)"),
    ("margin_ticks", int, "ticks before the first true exposure and after the last (0)"),
    ("random", bool, "draw all but the margin from each recording's seed (false)"),
)


def add(verbs: Any) -> None:
    parser = add_verb(
        verbs, "simulate", _simulate, "spikevrt simulate photo.jpg --out recordings/photo --width 320 --height 192"
    )
    parser.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="photograph, frame folder or video")
    add_out(parser, "the recording's folder; with --count, the folder of recordings")
    parser.add_argument("--count", type=int, help="make so many recordings, going round the sources")
    parser.add_argument("--workers", type=int, help="recordings at a time, with --count (1)")
    parser.add_argument("--engine", help="with --count: processes, or ray (processes)")
    parser.add_argument("--ray-address", metavar="HOST:PORT", help="with --engine ray: a cluster that shares the files")
    parser.add_argument("--layer-photos", nargs="+", type=Path, metavar="PHOTO", help="what the layers are cut out of")
    _add_options(parser, SIMULATE)
    group = parser.add_argument_group("spike camera")
    group.add_argument("--sensor", metavar="PRESET", help="ideal, bright or lowlight; what follows changes it (ideal)")
    _add_options(group, SENSOR)
    _add_options(parser.add_argument_group("colour camera"), CAMERA)
    _add_options(parser.add_argument_group("rig: a known misalignment, told in the provenance alone"), RIG, "rig_")


def _add_options(parser: Any, table: tuple[tuple[str, type, str], ...], prefix: str = "") -> None:
    for name, kind, text in table:
        option = dashed(prefix + name)
        if kind is bool:
            parser.add_argument(option, action="store_true", default=None, help=text)
        else:
            letter = {int: "N", float: "X", str: "NAME"}[kind]
            parser.add_argument(option, type=kind, nargs=3 if name == "response" else None, metavar=letter, help=text)


def _simulate(parsed: argparse.Namespace) -> None:
    """Make recordings (blurry frames, sharp frames, spikes) from photographs or sharp high-rate video."""
    # before torch is loaded: many short parallel steps, and threads that spin between them lose to any busy neighbour
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from dataclasses import replace

    from spikevrt.engine import Engine
    from spikevrt.progress import progress_bar
    from spikevrt.simulate.collection import simulate_many
    from spikevrt.simulate.setup import CameraConfig, RigConfig, SimulateOptions, sensor_preset
    from spikevrt.simulate.synthesise import simulate_recording

    start_s = time.perf_counter()
    sensor = replace(sensor_preset(parsed.sensor or "ideal"), **given(parsed, [name for name, _, _ in SENSOR]))
    camera = CameraConfig(**given(parsed, [name for name, _, _ in CAMERA]))
    rig = {name.removeprefix("rig_"): v for name, v in given(parsed, [f"rig_{name}" for name, _, _ in RIG]).items()}
    options = SimulateOptions(
        sensor=sensor, camera=camera, rig=RigConfig(**rig), **given(parsed, [name for name, _, _ in SIMULATE])
    )
    sources, out = parsed.sources, parsed.out
    if parsed.count is None:
        if len(sources) > 1:
            raise ValueError(f"SOURCE: {len(sources)} given; allowed: one, or several with --count")
        for name in given(parsed, ("workers", "engine", "ray_address")):
            raise ValueError(f"{dashed(name)}: only with --count")
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
        workers = 1 if parsed.workers is None else parsed.workers
        engine = Engine(parsed.engine or "processes", workers, parsed.ray_address)
        with progress_bar("recordings") as progress:
            paths = simulate_many(
                sources, out, options, count=parsed.count, engine=engine, overwrite=parsed.overwrite, progress=progress
            )  # fmt: skip
        what = f"{len(paths)} recordings"
    say_made(what, out, start_s)


def _check_for_sources(parsed: argparse.Namespace) -> None:
    """Refuse what none of the sources obeys: a photograph is filmed by a moving camera, a video as it is."""
    from spikevrt.simulate.synthesise import is_photo

    photos = [is_photo(source) for source in parsed.sources]
    for names, is_obeyed, what in (
        (("motion_px", "num_layers", "layer_photos"), any(photos), "photographs"),
        (("ticks_per_frame", "start_frame", "interpolate"), not all(photos), "videos and folders of frames"),
    ):
        for name in given(parsed, names):
            if not is_obeyed:
                raise ValueError(f"{dashed(name)}: for {what}; not for {parsed.sources[0]}")
    if parsed.layer_photos is not None and parsed.num_layers == 0:
        raise ValueError("--layer-photos: not with --num-layers 0")
