"""What nothing moved in, and what has no colour, comes out as it was: the whole path, with the network that ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from spikevrt.bench.demo import ASSETS
from spikevrt.recording.frames import to_float, to_uint8, write_image
from spikevrt.restore.restorer import Restorer
from spikevrt.shipped import DEFAULT
from spikevrt.simulate.setup import SimulateOptions, sensor_preset
from spikevrt.simulate.synthesise import simulate_recording

PERIOD_TICKS = 160


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer(DEFAULT)


@pytest.mark.parametrize("sensor", ["ideal", "bright"])
@pytest.mark.parametrize("duty", [0.2, 0.5, 0.8, 1.0])
def test_a_still_scene_stays_within_a_level_and_46_db(tmp_path: Path, restorer: Restorer, duty: float, sensor: str):
    options = SimulateOptions(
        frames=2, exposure_ticks=round(duty * PERIOD_TICKS), period_ticks=PERIOD_TICKS, width=112, height=76,
        motion_px=0, num_layers=0, sensor=sensor_preset(sensor),
    )  # fmt: skip
    for photo in ("bridge", "chelsea"):
        recording = simulate_recording(ASSETS / f"{photo}.jpg", tmp_path / photo, options)
        for index, frame in enumerate(restorer.frames(recording)):
            error = (to_float(to_uint8(frame)) - to_float(recording.read_sharp(index))) * 255
            assert float(error.abs().mean()) <= 1
            assert 10 * torch.log10(255**2 / error.square().mean()) >= 46
            assert float(torch.nn.functional.avg_pool2d(error, 8).abs().max()) < 3


@pytest.mark.parametrize("duty", [0.2, 0.8])
def test_moving_stripes_without_colour_stay_without_it_in_the_dark_and_in_the_light(
    tmp_path: Path, restorer: Restorer, duty: float
):
    picture = np.full((200, 300, 3), 170, dtype=np.uint8)
    for left in range(10, 300, 30):
        picture[:, left : left + 12] = 12
    write_image(tmp_path / "stripes.png", picture)
    options = SimulateOptions(
        frames=2, exposure_ticks=round(duty * PERIOD_TICKS), period_ticks=PERIOD_TICKS, width=112, height=76,
        motion_px=12, num_layers=1,
    )  # fmt: skip
    recording = simulate_recording(tmp_path / "stripes.png", tmp_path / "out", options)
    for frame in restorer.frames(recording):
        levels = to_uint8(frame).astype(np.int16)
        assert levels.min() < 40 and np.abs(np.diff(levels, axis=2)).max() <= 1
