"""The four real pairs of an RGB frame and a spike camera's intensity (NeurImg-HDR) as files that go through `record`.

`python benchmarks/real_pairs.py PAIRS OUT` writes OUT/frames, a frame of each pair, and OUT/spikes.npy: each intensity,
scaled so that its brightest 0.5 % fire 0.6 times a tick, integrated over 128 ticks, one after the other. Then

    spikevrt record OUT/frames --spikes OUT/spikes.npy --fps 156.25 --exposure 100% --first-tick 0 \\
        --tick-rate-hz 20000 --unchecked --out OUT/rig
    spikevrt inspect OUT/rig
    spikevrt align OUT/rig --no-time
    spikevrt inspect OUT/rig
"""

import shutil
import sys
from pathlib import Path

import numpy as np

NUM_TICKS, BRIGHTEST_RATE = 128, 0.6


def main(pairs: Path, out: Path) -> None:
    (out / "frames").mkdir(parents=True)
    spikes = []
    for number, path in enumerate(sorted(pairs.glob("*.intensity.npy"))):
        shutil.copy(
            path.with_name(path.name.replace(".intensity.npy", ".rgb.jpg")), out / "frames" / f"{number:06d}.jpg"
        )
        light = np.load(path).astype(np.float64)
        rate = BRIGHTEST_RATE * np.clip(light / np.percentile(light, 99.5), 0, 1)
        begun = np.random.default_rng(number).random(rate.shape)  # of a spike, at the first tick
        upto = np.floor(begun + rate * np.arange(NUM_TICKS + 1)[:, None, None])
        spikes.append(np.diff(upto, axis=0).astype(np.uint8))
    np.save(out / "spikes.npy", np.concatenate(spikes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
