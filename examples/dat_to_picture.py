"""From a .dat to a picture: python examples/dat_to_picture.py FRAMES SPIKES.dat WIDTH HEIGHT FPS EXPOSURE OUT.png

FRAMES: a folder of blurry images, FPS of them a second, each exposed for EXPOSURE (6.4ms, 1/125s, 180deg).
"""

import sys
from fractions import Fraction
from pathlib import Path

import spikevrt
from spikevrt.recording.frames import write_image

if __name__ == "__main__":
    frames, spikes, width, height, fps, exposure, out = sys.argv[1:]
    size = {"width": int(width), "height": int(height)}
    recording = spikevrt.open_recording(frames, spikes, **size, fps=Fraction(fps), exposure=exposure)
    restorer = spikevrt.load("spikefold_tiny")
    write_image(Path(out), next(restorer.stream(recording)))
