"""A run in miniature: real loop, folder and journal over clips made in memory and a network of a few weights.

The fakes stand where `spikevrt.train.loop` finds its parts, so that a step takes milliseconds. `test_real_run` runs
the real parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spikevrt.checkpoint import load_weights
from spikevrt.config import Config, DataConfig, ModelConfig, PrepareOptions, SpikeInputs
from spikevrt.data.dataset import DatasetInfo
from spikevrt.data.prepare import Sources, prepare
from spikevrt.model.network import Network
from spikevrt.recording.frames import to_uint8, write_image
from spikevrt.recording.recording import Recording
from spikevrt.recording.sidecar import Exposure
from spikevrt.recording.stream import count_slices
from spikevrt.represent.voxel import VoxelStats
from spikevrt.simulate.setup import SimulateOptions
from spikevrt.simulate.synthesise import simulate_recording
from spikevrt.train import loop

NUM_BINS = 3
REAL_BINS = 4
MICRO_UNET = {"width": 5, "growth": 3, "depth": 2, "blocks": 1}


@dataclass(frozen=True)
class FakeRecording(Recording):
    """Whole frames made in memory, with their sharp twins, and spikes made in memory."""

    def _pictures(self, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(7 + 1009 * int(self.name[-1]) + index)
        return torch.rand(3, self.height, self.width, generator=generator) * 0.5

    def read_blur_deep(self, index: int) -> Tensor:
        return self._pictures(index) + 0.25

    def read_blur(self, index: int) -> np.ndarray:
        return to_uint8(self.read_blur_deep(index))

    def read_sharp(self, index: int) -> np.ndarray:
        return to_uint8(self._pictures(index))


class FakeStream:
    """Spikes of 8 x 8 pixels, a third of which fire in any tick: two bins of three hold a spike."""

    height = width = 8
    files = ()

    def __init__(self, num_ticks: int) -> None:
        self.num_ticks = num_ticks

    def read(self, first: int, last: int) -> np.ndarray:
        rows, columns = np.indices((8, 8))
        return np.stack([((rows + columns + tick) % 3 == 0).astype(np.uint8) for tick in range(first, last)])

    def count(self, edges: Sequence[int]) -> np.ndarray:
        return count_slices(self.read(edges[0], edges[-1]), edges)


@dataclass(frozen=True)
class FakeSequence:
    """A sequence for validation: two frames."""

    name: str
    has_sharp: bool = True
    exposures: tuple[Exposure, ...] = tuple(Exposure(i, 6 * i, 6 * i + 6, i / 10, i / 10 + 0.05) for i in range(2))

    def as_recording(self) -> Recording:
        paths = (Path("0.png"), Path("1.png"))
        spikes: Any = FakeStream(12)
        return FakeRecording(Path(self.name), 16, 16, 2e4, self.exposures, spikes, paths, paths, 10.0)


VALIDATED = (FakeSequence("scene0"), FakeSequence("scene1"))


class FakeClips:
    """Clips whose content is a function of (seed, epoch, item): smooth pictures and their brightened twins."""

    def __init__(self, data: DataConfig, spikes: SpikeInputs | None, *, seed: int, **settings: Any) -> None:
        validated: Any = VALIDATED
        self.info = DatasetInfo(Path(data.root), NUM_BINS, VoxelStats(0.25, 0.5), "hash of no data", (), validated)
        self.num_items, self.spikes = 5, spikes
        self.size, self.clip_frames, self.seed, self.epoch = data.crop_px, data.clip_frames, seed, 0
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
        sample: dict[str, Any] = {"blur": blur, "frames": blur, "sharp": sharp, "meta": meta}
        return sample | ({} if self.spikes is None else {"spike_vox": vox})


class FakeNetwork(Network):
    """A colour convolution, a spike convolution, dropout (so that random numbers matter) and a residual."""

    min_size_px, pad_multiple, min_frames = 8, 8, 2

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.colour = nn.Conv2d(3, 3, 3, padding=1)
        self.spynet = nn.Conv2d(NUM_BINS, 3, 3, padding=1)
        self.drop = nn.Dropout(config.vrt.drop_path)

    def start_at_identity(self) -> None:
        pass

    def bytes_per_pixel(self) -> float:
        return 60.0

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
    eight = [8] * 9
    values: dict[str, Any] = {
        "model": {
            "vrt": {
                "window": [2, 4, 4],
                "depths": [1] * 9,
                "dims": eight,
                "num_heads": [2] * 9,
                "independent": [8],
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


def unet_config(dataset: Path | str, **changes: Any) -> Config:
    """The smallest U-Net with spikes, 3 steps of one clip; `changes` as in `real_config`."""
    spikes = {"num_bins": REAL_BINS}
    return real_config(
        Path(dataset), **({"model__vrt": {}, "model__spikes": spikes, "model__unet": MICRO_UNET} | changes)
    )


def assert_resumed_equals_whole(config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path | None:
    """A run that fails in step three and is resumed has the weights of one that never stopped; returns its best ones.
    The runs are `whole` and `halves` in the folder."""
    loop.train(config, folder / "whole")
    take_step = loop.Run.take_step

    def crash_in_step_three(self: Any, micro_batches: Any) -> Any:
        if self.step == 2:
            raise RuntimeError("power cut")
        return take_step(self, micro_batches)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "take_step", crash_in_step_three)
        with pytest.raises(RuntimeError, match="power cut"):
            loop.train(config, folder / "halves")
    best = loop.train(config, folder / "halves", resume=True)
    whole, halves = (load_weights(folder / name / "last.safetensors")[0] for name in ("whole", "halves"))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
    return best
