"""Two files of a rig on which everything is wrong at once, to try the way from a camera to a result with.

`python examples/hard_rig.py PHOTO OUT` writes OUT/street.mp4 (29.97 frames a second, with sound), OUT/street.dat
(packed spikes), and beside them what a lab would not have: OUT/truth/sharp, the sharp frames, and OUT/truth/perfect, a
recording of the same scene by a rig without any fault. docs/restoration.md goes on from the two files.

The cameras are turned, shifted and scaled against each other; the spike camera started earlier, and its clock is fast
by 50 millionths; dead pixels; little light; and nobody wrote down how long a frame was exposed.
"""

import os
import shutil
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from spikevrt.progress import progress_bar
from spikevrt.recording.frames import list_images, read_image
from spikevrt.simulate.setup import RigConfig, SimulateOptions, sensor_preset
from spikevrt.simulate.synthesise import simulate_recording

FPS = Fraction(30000, 1001)
PERIOD_TICKS = 667  # written by the simulator as the period; the true one, at 20 kHz, is 667.33, and 50 millionths more
DRIFT_PPM = 1e6 * (20000 / FPS * (1 + Fraction(50, 10**6)) / PERIOD_TICKS - 1)
OPTIONS = SimulateOptions(
    frames=int(os.environ.get("FRAMES", "60")), exposure_ticks=311, period_ticks=PERIOD_TICKS, width=288, height=176,
    motion_px=14.0, sensor=replace(sensor_preset("lowlight"), light_gain=0.3, dead_fraction=0.002), seed=15,
    rig=RigConfig(
        shift_x_px=6.3, shift_y_px=-4.1, rotate_deg=1.5, scale=1.02, offset_ticks=41, drift_ppm=float(DRIFT_PPM),
        margin_ticks=120,
    ),
)  # fmt: skip


def main(photo: Path, out: Path) -> None:
    made, perfect = out / "truth" / "rig", out / "truth" / "perfect"
    with progress_bar("ticks") as progress:
        simulate_recording(photo, made, OPTIONS, progress=progress)
    write_with_sound(out / "street.mp4", made / "blur")
    shutil.move(made / "spikes.dat", out / "street.dat")
    shutil.move(made / "sharp", out / "truth" / "sharp")
    shutil.rmtree(made)
    rig = RigConfig(drift_ppm=OPTIONS.rig.drift_ppm, margin_ticks=OPTIONS.rig.margin_ticks)
    with progress_bar("ticks of the perfect rig") as progress:
        simulate_recording(photo, perfect, replace(OPTIONS, rig=rig), progress=progress)


def write_with_sound(path: Path, images: Path) -> None:
    """H.264 of nearly every detail, and a tone of 440 Hz as AAC."""
    pictures = list_images(images)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", FPS, options={"crf": "10"})
        video.width, video.height, video.pix_fmt = OPTIONS.width, OPTIONS.height, "yuv420p"
        sound = container.add_stream("aac", 48000, layout="mono")
        for picture in pictures:
            container.mux(video.encode(av.VideoFrame.from_ndarray(read_image(picture), format="rgb24")))
        container.mux(video.encode())
        samples = np.arange(int(48000 * len(pictures) / FPS), dtype=np.float32)
        tone = (0.2 * np.sin(2 * np.pi * 440 / 48000 * samples)).astype(np.float32)
        for first in range(0, len(tone) - 1023, 1024):
            frame = av.AudioFrame.from_ndarray(tone[None, first : first + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, first
            container.mux(sound.encode(frame))
        container.mux(sound.encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
