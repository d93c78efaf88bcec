"""How well the exposure is estimated from footage that does not state it.

`python benchmarks/exposure.py PHOTO... [--width N --height N]` simulates each photograph with exposures of 128 and 40
of 160 ticks and 300 of 667, in bright and in low light, on a rig that is turned by a degree, 3.4 px off and 21 ticks
late; throws the stated exposure away, and estimates it. Prints a Markdown table: found, error, and how many standard
deviations off; "cannot tell" where nothing is told.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

from spikevrt.align.exposure import estimate_exposure
from spikevrt.recording.recording import Recording
from spikevrt.simulate.setup import RigConfig, SimulateOptions, sensor_preset
from spikevrt.simulate.synthesise import simulate_recording

CASES = ((128, 160, 12.0), (40, 160, 5.0), (300, 667, 12.0))
RIG = RigConfig(shift_x_px=3.4, shift_y_px=-1.2, rotate_deg=1.0, offset_ticks=21, margin_ticks=80)


def always_open(recording: Recording) -> Recording:
    """As if the shutter never closed."""
    starts = [one.start_tick for one in recording.exposures]
    period = starts[1] - starts[0]
    kept = [dataclasses.replace(one, stop_tick=one.start_tick + period) for one in recording.exposures[:-1]]
    return dataclasses.replace(recording.chosen(range(len(kept))), exposures=tuple(kept))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--height", type=int, default=128)
    parsed = parser.parse_args()
    print("| photograph | light | true ticks | found | off by | standard deviations | processor s |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for photo in parsed.photos:
        for light in ("bright", "lowlight"):
            for exposure, period, motion in CASES:
                options = SimulateOptions(
                    frames=7, exposure_ticks=exposure, period_ticks=period, width=parsed.width, height=parsed.height,
                    motion_px=motion, sensor=sensor_preset(light), rig=RIG,
                )  # fmt: skip
                with tempfile.TemporaryDirectory() as folder:
                    recording = simulate_recording(photo, Path(folder) / "made", options)
                    start_s = time.process_time()
                    found = estimate_exposure(always_open(recording))
                    spent_s = time.process_time() - start_s
                words = "cannot tell | |"
                if found is not None:
                    off = found.ticks - exposure
                    words = f"{found.ticks:.0f} | {100 * off / exposure:+.0f} % | {off / found.sigma_ticks:+.1f}"
                print(f"| {photo.stem} | {light} | {exposure} of {period} | {words} | {spent_s:.0f} |", flush=True)


if __name__ == "__main__":
    main()
