"""One small recording, made anew for each test, and what is in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spikevrt.recording.frames import write_image
from spikevrt.recording.sidecar import Exposure
from spikevrt.recording.spike_file import SpikeGeometry, SpikeWriter
from spikevrt.recording.stored import write_sidecar

GEOMETRY = SpikeGeometry(7, 5)
NUM_FRAMES, EXPOSURE_TICKS, PERIOD_TICKS = 3, 11, 13
NUM_TICKS = (NUM_FRAMES - 1) * PERIOD_TICKS + EXPOSURE_TICKS
SPIKES = np.random.default_rng(0).integers(0, 2, (NUM_TICKS, 5, 7), dtype=np.uint8)


def frame_of(index: int) -> np.ndarray:
    return np.full((10, 14, 3), 20 * index, dtype=np.uint8)


def make_recording(root: Path, *, sharp: bool = True) -> Path:
    (root / "blur").mkdir(parents=True)
    for index in range(NUM_FRAMES):
        write_image(root / "blur" / f"{index:06d}.png", frame_of(index))
    if sharp:
        (root / "sharp").mkdir()
        for index in range(NUM_FRAMES):
            write_image(root / "sharp" / f"{index:06d}.png", frame_of(index) + 100)
    with SpikeWriter(root / "spikes.dat", GEOMETRY) as writer:
        writer.append(SPIKES)
    starts = [index * PERIOD_TICKS for index in range(NUM_FRAMES)]
    write_sidecar(
        root,
        spikes=writer,
        tick_rate_hz=1000.0,
        width=14,
        height=10,
        fps=1000 / PERIOD_TICKS,
        exposures=[
            Exposure(i, start, start + EXPOSURE_TICKS, start / 1000, (start + EXPOSURE_TICKS) / 1000)
            for i, start in enumerate(starts)
        ],
        provenance={"seed": 3},
    )
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_recording(tmp_path / "street")
