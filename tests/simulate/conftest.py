"""Small pictures with known content."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikevrt.recording.frames import write_image
from spikevrt.simulate.footage import VideoScene
from spikevrt.simulate.setup import SensorConfig, SimulateOptions

OPTIONS = SimulateOptions(
    frames=3, exposure_ticks=22, period_ticks=31, width=46, height=34, motion_px=5.0, ticks_per_frame=7, seed=11
)


def textured(height: int, width: int, seed: int) -> np.ndarray:
    """A smooth random picture that fills 0..255, uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    planes = [
        sum(np.sin(x * rng.uniform(-0.4, 0.4) + y * rng.uniform(-0.4, 0.4) + rng.uniform(0, 6)) for _ in range(5))
        for _ in range(3)
    ]
    image = np.stack(planes, -1)
    return np.round(255 * (image - image.min()) / (image.max() - image.min())).astype(np.uint8)


def fingerprint(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def video_of(footage: Path, **changes: Any) -> VideoScene:
    """The fixture `footage` as a scene of its own size."""
    options = SimulateOptions(height=34, width=50, sensor=SensorConfig(ratio=1))
    return VideoScene(footage, replace(options, **changes))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    write_image(path, textured(149, 211, seed=1))
    return path


@pytest.fixture
def other_photo(tmp_path: Path) -> Path:
    path = tmp_path / "other.png"
    write_image(path, textured(131, 127, seed=2))
    return path


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    """A folder of 13 consecutive frames: one picture that moves by one pixel a frame."""
    folder = tmp_path / "footage"
    folder.mkdir()
    image = textured(34, 80, seed=3)
    for index in range(13):
        write_image(folder / f"{index:02d}.png", image[:, index : index + 50])
    return folder
