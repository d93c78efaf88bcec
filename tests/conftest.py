"""What several test packages need: one tiny recording, one tiny network, and a command line that is called in process.

Sizes are the least that the network takes; the folders are made once per test process and copied into each test.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests import checked_shapes

if TYPE_CHECKING:
    from spikevrt.model.vrt import VRT

checked_shapes.install()

ROOT = Path(__file__).resolve().parents[1]

# The smallest network with every part in it: nine stages of one block, two channels a head.
MICRO_VRT: dict[str, Any] = {
    "window": [2, 4, 4],
    "depths": [1] * 9,
    "dims": [8] * 9,
    "num_heads": [2] * 9,
    "independent": [8],
    "drop_path": 0.0,
    "deform_groups": 2,
    "flow_widths": [4, 4, 4, 4],
}
MICRO_SPIKES: dict[str, Any] = {
    "num_bins": 16,
    "dims": [8, 8, 8, 8],
    "attention_heads": 2,
    "fusion_heads": 2,
}


def empty_twin_stages(vrt: VRT) -> None:
    """Stages 2, 3, 5 and 6 of a VRT shall change the resolution and no more, in place: what they hold besides is of the
    same classes as in stages 1, 4 and 7, and takes long to trace with free sizes."""
    from torch import nn

    for number in (2, 3, 5, 6):
        stage = vrt.stage(number)
        stage.residual_group1 = stage.residual_group2 = nn.Identity()
        stage.pa_frames = 0


def pytest_configure() -> None:
    import torch

    torch.set_num_threads(1)  # tests run in parallel processes


@pytest.fixture(autouse=True)
def _shapes_checked_anew() -> None:
    checked_shapes.num_calls.clear()


@pytest.fixture(scope="session")
def _made_photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    path = tmp_path_factory.mktemp("photo") / "photo.png"
    rows, columns = np.mgrid[0:211, 0:307]
    waves = [np.sin(rows / 5 + k) * np.cos(columns / (7 + k)) for k in range(3)]
    Image.fromarray(np.stack([127.5 + 120 * wave for wave in waves], axis=-1).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="session")
def _made_recording(_made_photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from spikevrt.simulate.setup import SimulateOptions
    from spikevrt.simulate.synthesise import simulate_recording

    options = SimulateOptions(
        frames=3, width=80, height=64, exposure_ticks=19, period_ticks=23, motion_px=3.0, num_layers=0
    )
    out = tmp_path_factory.mktemp("recordings") / "waves"
    simulate_recording(_made_photo, out, options)
    return out


@pytest.fixture
def photo(_made_photo: Path, tmp_path: Path) -> Path:
    """A small photograph of this test's own."""
    return Path(shutil.copy(_made_photo, tmp_path / "photo.png"))


@pytest.fixture
def recording_folder(_made_recording: Path, tmp_path: Path) -> Path:
    """A recording of this test's own: 3 frames of 80x64, 40x32 spikes, 19 ticks each; it may be damaged."""
    return Path(shutil.copytree(_made_recording, tmp_path / "waves"))


@pytest.fixture(scope="session")
def _made_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from spikevrt.checkpoint import WeightsInfo, save_weights
    from spikevrt.config import Config
    from spikevrt.model.spike_vrt import SpikeVRT

    config = Config.from_dict({"model": {"vrt": MICRO_VRT, "spikes": MICRO_SPIKES}}).model
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("weights") / "micro.safetensors"
    save_weights(path, SpikeVRT(config).state_dict(), WeightsInfo(config, 0.3, 0.4, {}))
    return path


@pytest.fixture
def micro_weights(_made_weights: Path, tmp_path: Path) -> Path:
    """An untrained SpikeVRT, as small as can be, in a file of this test's own."""
    return Path(shutil.copy(_made_weights, tmp_path / "micro.safetensors"))


@pytest.fixture
def micro_config() -> dict[str, Any]:
    """A run on the dataset of `recording_folder`, two steps long; each test sets data.root."""
    return {
        "model": {"vrt": MICRO_VRT, "spikes": MICRO_SPIKES},
        "data": {"clip_frames": 2, "crop_px": 64, "batch": 1},
        "loss": {"perceptual_weight": 0.0},
        "optim": {"lr": 1e-3, "steps": 2, "warmup_steps": 1},
        "train": {"precision": "fp32", "device": "cpu", "validate_every": 2, "picture_every": 2, "log_every": 1},
    }


@pytest.fixture
def shared() -> Path:
    """Recordings that must not be redistributed; the test is skipped where they are absent."""
    path = Path(os.environ.get("SPIKEVRT_SHARED", ROOT.parent / "shared"))
    if not (path / "data").is_dir():
        pytest.skip(f"no shared recordings at {path} (SPIKEVRT_SHARED)")
    return path
