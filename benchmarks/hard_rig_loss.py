"""Where does the rig of examples/hard_rig.py lose against the perfect one? One thing after the other is made true.

`python benchmarks/hard_rig_loss.py RIG [--every 6]`, when RIG/street has been made and aligned as docs/restoration.md
says. PSNR of RGB in dB by the default weights, of every sixth frame: of whole frames, and of the pixels that the sensor
sees.
"""

import argparse
import runpy
from dataclasses import replace
from pathlib import Path

import torch

import spikevrt
from spikevrt.align.health import admit
from spikevrt.recording.frames import list_images, to_float
from spikevrt.recording.recording import Recording, open_recording
from spikevrt.simulate.sensor import rig_homography

OPTIONS = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "hard_rig.py"))["OPTIONS"]


def main(rig: Path, every: int) -> None:
    perfect = open_recording(rig / "truth" / "perfect")
    found = replace(open_recording(rig / "street"), sharp=tuple(list_images(rig / "truth" / "sharp")))
    sizes = {"width": OPTIONS.width, "height": OPTIONS.height, "ratio": OPTIONS.sensor.ratio}
    rows = tuple(map(tuple, rig_homography(OPTIONS.rig, **sizes).tolist()))
    view = found.on_sensor.view
    assert view is not None
    (x, y), (height, width) = view.on_view.unbind(-1), view.on_frame.shape[:2]
    seen = (x >= 0) & (y >= 0) & (x <= width) & (y <= height)
    print(f"the sensor sees {float(seen.float().mean()):.3f} of the frame")
    timed = replace(found, exposures=perfect.exposures)
    placed = replace(timed, alignment=replace(timed.alignment, homography=rows))  # type: ignore[arg-type]
    cases = {
        "as found": found,
        "and the true times and exposure": timed,
        "and the true registration": placed,
        "and frames without compression": replace(placed, blur=perfect.blur),
        "perfect": perfect,
    }
    for name, recording in cases.items():
        whole, inside = scores(admit(recording.chosen(range(0, recording.num_frames, every))), seen)
        print(f"{name:32} {whole:.2f} {inside:.2f}", flush=True)


def scores(recording: Recording, seen: torch.Tensor) -> tuple[float, float]:
    """Mean PSNR of whole frames, and of the pixels that are `seen`."""
    found = []
    for index, image in enumerate(spikevrt.load("spikefold_tiny").stream(recording)):
        errors = (to_float(image) - to_float(recording.read_sharp(index))).square().mean(0)
        found.append(-10 * torch.log10(torch.stack([errors.mean(), errors[seen].mean()])))
    whole, inside = torch.stack(found).mean(0).tolist()
    return whole, inside


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rig", type=Path, metavar="RIG")
    parser.add_argument("--every", type=int, default=6, metavar="N", help="frame that is scored (%(default)s)")
    parsed = parser.parse_args()
    main(parsed.rig, parsed.every)
