"""How much better than blending does the interpolating network guess a frame that was left out?

    OMP_NUM_THREADS=2 python benchmarks/bench_interpolation.py VIDEO... [--start 40] [--frames 7]

Needs the extra `interpolate`. Every second frame of a run of frames (reduced to 360 rows or columns, whichever is
fewer) is left out and made again from its two neighbours: by the network, and as their mean. PSNR in dB, RGB, 8 bits.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from spikevrt.recording.video import iter_video
from spikevrt.simulate.footage import find_weights, load_network, with_frames_between
from spikevrt.simulate.scene import fit

SHORT_SIDE_PX = 360


def psnr_db(image: np.ndarray, truth: np.ndarray) -> float:
    return float(-10 * np.log10(((image.astype(float) - truth) ** 2).mean() / 255**2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--start", type=int, default=5)
    parser.add_argument("--frames", type=int, default=7)
    parsed = parser.parse_args()
    network = load_network(find_weights())
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| video | size | network dB | blend dB | s a frame |\n| --- | --- | ---: | ---: | ---: |")
    for video in parsed.videos:
        images = []
        for image in islice(iter_video(video, parsed.start), parsed.frames):
            scale = SHORT_SIDE_PX / min(image.shape[:2])
            images.append(fit(image, round(image.shape[0] * scale), round(image.shape[1] * scale)).numpy())
        began_s = time.perf_counter()
        made = list(with_frames_between(images[::2], 2, network))[1::2]
        seconds = (time.perf_counter() - began_s) / len(made)
        left_out = images[1::2][: len(made)]
        pairs = zip(images[::2], images[2::2], strict=False)
        blends = [(before.astype(float) + after) / 2 for before, after in pairs]
        scores = [
            statistics.mean(psnr_db(guess, truth) for guess, truth in zip(guesses, left_out, strict=True))
            for guesses in (made, blends)
        ]
        height, width = images[0].shape[:2]
        print(f"| {video.name} | {width}x{height} | {scores[0]:.1f} | {scores[1]:.1f} | {seconds:.2f} |", flush=True)
