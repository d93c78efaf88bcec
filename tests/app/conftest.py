"""A recording that the shipped weights can read: 32 ticks an exposure or more."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from spikevrt.simulate.setup import SimulateOptions
from spikevrt.simulate.synthesise import simulate_recording


@pytest.fixture(scope="session")
def _made_street(_made_photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = SimulateOptions(
        frames=3, width=80, height=64, exposure_ticks=37, period_ticks=41, motion_px=3.0, num_layers=0
    )
    out = tmp_path_factory.mktemp("recordings") / "street"
    simulate_recording(_made_photo, out, options)
    return out


@pytest.fixture
def street(_made_street: Path, tmp_path: Path) -> Path:
    """A recording of this test's own: 3 frames of 80x64, 40x32 spikes, 37 ticks each; it may be damaged."""
    return Path(shutil.copytree(_made_street, tmp_path / "street"))
