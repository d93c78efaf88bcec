"""From a .dat to a picture: python examples/dat_to_picture.py FRAMES SPIKES.dat WIDTH HEIGHT OUT.png

FRAMES: a folder of blurry images, or a video. The spikes are split equally over the frames.
"""

import sys
from pathlib import Path

import spikevrt
from spikevrt.recording.frames import write_image

if __name__ == "__main__":
    frames, spikes, width, height, out = sys.argv[1:]
    recording = spikevrt.open_recording(frames, spikes, width=int(width), height=int(height))
    restorer = spikevrt.load("spikefold_tiny")
    write_image(Path(out), next(restorer.stream(recording)))
