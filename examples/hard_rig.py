"""Two files of a rig on which everything is wrong at once, to try the way from a camera to a result with.

`python examples/hard_rig.py OUT` writes OUT/street.mp4 (29.97 frames a second, with sound), OUT/street.dat (packed
spikes), and beside them what a lab would not have: OUT/truth/sharp, the sharp frames, and OUT/truth/perfect, a
recording of the same scene by the same two cameras, perfectly placed, with every time known exactly. It takes some six
minutes of processor time. docs/restoration.md goes on from the two files.

The cameras are turned, shifted and scaled against each other; the spike camera started earlier, and its clock is fast
by 50 ppm; dead pixels; little light; and nobody wrote down how long a frame was exposed.
"""

import argparse
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from spikevrt.progress import progress_bar
from spikevrt.recording.frames import list_images, read_image
from spikevrt.recording.loose import keep_recording, open_beside, with_sharp
from spikevrt.recording.sidecar import Stated
from spikevrt.simulate.sensor import RigView
from spikevrt.simulate.setup import RigConfig, SimulateOptions, sensor_preset
from spikevrt.simulate.synthesise import _film, _open_scene, simulate_recording

PHOTO = Path(__file__).parents[1] / "src/spikevrt/assets/bridge.jpg"
FPS = Fraction(30000, 1001)
TICK_RATE_HZ = 20001  # what the spike camera's clock, fast by 50 ppm, really reads out; 20000 is what everybody thinks
EXPOSURE_TICKS, MARGIN_TICKS = 311, 120
PERIOD_TICKS = 667  # the simulator knows whole ticks; the 0.37 that the true period has more, it films as a drift
DRIFT_PPM = 1e6 * (TICK_RATE_HZ / FPS / PERIOD_TICKS - 1)
OPTIONS = SimulateOptions(
    exposure_ticks=EXPOSURE_TICKS, period_ticks=PERIOD_TICKS, width=288, height=176, motion_px=14.0, seed=15,
    sensor=replace(sensor_preset("lowlight"), light_gain=0.3, dead_fraction=0.002),
    rig=RigConfig(
        shift_x_px=6.3, shift_y_px=-4.1, rotate_deg=1.5, scale=1.02, offset_ticks=41, drift_ppm=float(DRIFT_PPM),
        margin_ticks=MARGIN_TICKS,
    ),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that must not exist yet")
    parser.add_argument("--photo", type=Path, default=PHOTO, help="what is filmed (bridge.jpg of the package)")
    parser.add_argument("--frames", type=int, default=60, metavar="N", help="of the video (%(default)s)")
    parsed = parser.parse_args()
    if parsed.out.exists():
        parser.error(f"{parsed.out}: exists; allowed: a new folder")
    write_rig(parsed.photo, parsed.out, replace(OPTIONS, frames=parsed.frames))


def write_rig(photo: Path, out: Path, options: SimulateOptions) -> None:
    made = out / "truth" / "rig"
    with progress_bar("ticks") as progress:
        simulate_recording(photo, made, options, progress=progress)
    write_with_sound(out / "street.mp4", made / "blur")
    shutil.move(made / "spikes.dat", out / "street.dat")
    shutil.move(made / "sharp", out / "truth" / "sharp")
    shutil.rmtree(made)
    write_perfect(photo, out / "truth" / "perfect", options)


def write_perfect(photo: Path, out: Path, options: SimulateOptions) -> None:
    """The very same scene, as a rig films it whose cameras see the same field, with the exact times."""
    made, stated = out.with_name("rig"), exactly(options)
    sizes = {"width": options.width, "height": options.height, "ratio": options.sensor.ratio}
    # how far the sensor sees beyond the frame decides what of the photograph is filmed
    scene, origin = _open_scene(photo, options, (), pad_px=RigView(options.rig, **sizes).pad_px)
    with progress_bar("ticks of the perfect rig") as progress:
        _film((scene, scene), RigView(RigConfig(), **sizes), made, options, origin, progress)
    exact = with_sharp(open_beside(made / "blur", made / "spikes.dat", stated), made / "sharp")
    keep_recording(exact, out, stated, copy=True)
    shutil.rmtree(made)


def exactly(options: SimulateOptions) -> Stated:
    """What a lab would say to `spikevrt record` that knew all of the times."""
    return Stated(
        tick_rate_hz=TICK_RATE_HZ, fps=FPS, first_tick=MARGIN_TICKS, exposure=f"{options.exposure_ticks}ticks",
        spike_width=options.width // 2, spike_height=options.height // 2,
    )  # fmt: skip


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
    main()
