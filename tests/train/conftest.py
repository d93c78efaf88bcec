"""A run in miniature: real loop, folder and journal over clips made in memory and a network of a few weights.

The fakes stand where `spikevrt.train.loop` finds its parts, so that a step takes milliseconds. `test_real_run` runs
the real parts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spikevrt.config import Config, ModelConfig
from spikevrt.data.dataset import DatasetInfo
from spikevrt.data.prepare import Sources, prepare
from spikevrt.data.prepare_options import PrepareOptions
from spikevrt.recording.frames import write_image
from spikevrt.represent.voxel import VoxelStats
from spikevrt.simulate.setup import SimulateOptions
from spikevrt.simulate.synthesise import simulate_recording
from spikevrt.train import loop

NUM_BINS = 3
REAL_BINS = 4


class FakeClips:
    """Clips whose content is a function of (seed, epoch, item): smooth pictures and their brightened twins."""

    def __init__(
        self, root: str, split: str, *, crop_px: int | None, clip_frames: int, seed: int, **settings: Any
    ) -> None:
        self.settings = settings
        self.info = DatasetInfo(Path(root), NUM_BINS, VoxelStats(0.25, 0.5), "hash of no data", (), ())
        self.num_items = 5 if split == "train" else 2
        self.size, self.clip_frames, self.seed, self.epoch = crop_px or 16, clip_frames, seed, 0
        self.poisoned: set[int] = set()

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    has_sharp = True
    sequences = ()

    def __len__(self) -> int:
        return self.num_items

    def __getitem__(self, item: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(self.seed + 1009 * self.epoch + item)
        sharp = torch.rand(self.clip_frames, 3, self.size, self.size, generator=generator) * 0.5
        blur = sharp + 0.25
        if item in self.poisoned:
            blur[0, 0, 0, 0] = float("nan")
        vox = torch.rand(self.clip_frames, NUM_BINS, self.size // 2, self.size // 2, generator=generator)
        frames = list(range(self.clip_frames))
        meta = {"seq": f"scene{item}", "frame_idx": frames, "t0": [0.0] * len(frames), "t1": [1.0] * len(frames)}
        sample: dict[str, Any] = {"blur": blur, "sharp": sharp, "meta": meta}
        return sample | ({"spike_vox": vox} if self.settings["spikes"] else {})


class FakeNetwork(nn.Module):
    """A colour convolution, a spike convolution, dropout (so that random numbers matter) and a residual."""

    min_size_px, pad_multiple = 8, 8

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.colour = nn.Conv2d(3, 3, 3, padding=1)
        self.spynet = nn.Conv2d(NUM_BINS, 3, 3, padding=1)
        self.drop = nn.Dropout(config.vrt.drop_path)

    def start_at_identity(self) -> None:
        pass

    def forward(
        self,
        blur: Tensor,
        spike_vox: Tensor | None = None,
        spikes_present: Tensor | None = None,
        flows: None = None,
    ) -> Tensor:
        out = self.drop(self.colour(blur.flatten(0, 1)))
        if spike_vox is not None:
            spikes = self.spynet(spike_vox.flatten(0, 1))
            out = out + nn.functional.interpolate(spikes, size=blur.shape[-2:], mode="bilinear", align_corners=False)
        return blur + out.view_as(blur)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "ClipDataset", FakeClips)
    monkeypatch.setattr(loop, "build_network", FakeNetwork)


def small_config(**changes: Any) -> Config:
    """A run of 7 steps of 2 clips of 2 frames; `changes` are dotted names with `__` for the dot."""
    values: dict[str, Any] = {
        "model": {"spikes": {"num_bins": NUM_BINS}},
        "data": {"clip_frames": 2, "crop_px": 8, "batch": 2},
        "loss": {"perceptual_weight": 0.0},
        "optim": {"lr": 1e-2, "steps": 7, "warmup_steps": 2},
        "train": {"device": "cpu", "precision": "fp32", "log_every": 1, "checkpoint_every": 3, "validate_every": 4},
    }
    for name, value in changes.items():
        section, key = name.split("__")
        values.setdefault(section, {})[key] = value
    return Config.from_dict(values)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two simulated recordings, prepared: three training clips of two frames, and three clips for validation."""
    root = tmp_path_factory.mktemp("captures")
    rng = np.random.default_rng(3)
    write_image(root / "photo.png", np.kron(rng.integers(0, 256, (24, 32, 3)), np.ones((8, 8, 1))).astype(np.uint8))
    recordings = []
    for name, frames in (("first", 4), ("second", 5)):
        options = SimulateOptions(
            frames=frames, exposure_ticks=8, period_ticks=10, width=64, height=64, num_layers=0, motion_px=6
        )
        recordings.append(simulate_recording(root / "photo.png", root / name, options))
    return prepare(Sources(recordings[:1], recordings[1:]), root / "dataset", PrepareOptions(num_bins=REAL_BINS))


def real_config(dataset: Path, **changes: Any) -> Config:
    """The smallest SpikeVRT, 3 steps of one clip; `changes` as in `small_config`."""
    eight = [8] * 11
    values: dict[str, Any] = {
        "model": {
            "vrt": {
                "window": [2, 4, 4],
                "depths": [1] * 11,
                "dims": eight,
                "num_heads": [2] * 11,
                "deform_groups": 4,
                "flow_widths": [4, 4, 4, 4],
            },
            "spikes": {"num_bins": REAL_BINS, "dims": eight[:4]},
        },
        "data": {"root": str(dataset), "clip_frames": 2, "crop_px": 64, "batch": 1},
        "loss": {"perceptual_weight": 0.0},
        "optim": {"lr": 1e-3, "steps": 3, "warmup_steps": 1},
        "train": {"device": "cpu", "precision": "fp32", "log_every": 1, "checkpoint_every": 1},
    }
    for name, value in changes.items():
        *parents, key = name.split("__")
        node = values
        for parent in parents:
            node = node.setdefault(parent, {})
        node[key] = value
    return Config.from_dict(values)
