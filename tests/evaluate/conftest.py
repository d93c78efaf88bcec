"""Small recordings and a network that can be reasoned about, for the tests of the runner and the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from spikevrt.checkpoint import WeightsInfo
from spikevrt.config import ModelConfig
from spikevrt.evaluate import methods, runner
from spikevrt.model.network import Network
from spikevrt.recording.frames import write_image
from spikevrt.recording.recording import open_recording
from spikevrt.recording.sidecar import Exposure
from spikevrt.recording.spike_file import SpikeGeometry, SpikeWriter
from spikevrt.recording.stored import write_sidecar
from spikevrt.restore import restorer
from spikevrt.restore.restorer import RestoreOptions
from tests.evaluate.made_results import write_results

HEIGHT, WIDTH, TICKS = 22, 34, 37


def write_recording(
    root: Path, *, num_frames: int = 3, seed: int = 123, sharp: bool = True, spikes: np.ndarray | None = None
) -> Path:
    """A recording folder of noise, 34x22 pixels, spikes of 17x11; the blurry frames are off by up to 20 levels.

    `spikes` (37, 11, 17) are those of every frame; without, noise as well.
    """
    rng = np.random.default_rng(seed)
    geometry = SpikeGeometry(WIDTH // 2, HEIGHT // 2)
    root.mkdir(parents=True)
    (root / "blur").mkdir()
    if sharp:
        (root / "sharp").mkdir()
    with SpikeWriter(root / "spikes.dat", geometry) as writer:
        for index in range(num_frames):
            image = rng.integers(0, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            if sharp:
                write_image(root / "sharp" / f"{index:06d}.png", image)
            noise = rng.integers(0, 21, image.shape, dtype=np.uint8)
            write_image(root / "blur" / f"{index:06d}.png", image + noise)
            drawn = rng.integers(0, 2, (TICKS, HEIGHT // 2, WIDTH // 2), dtype=np.uint8)
            writer.append(drawn if spikes is None else spikes)
    exposures = [Exposure(i, i * TICKS, (i + 1) * TICKS, i * 0.01, (i + 1) * 0.01) for i in range(num_frames)]
    write_sidecar(
        root,
        spikes=writer,
        tick_rate_hz=3700.0,
        width=WIDTH,
        height=HEIGHT,
        fps=100.0,
        exposures=exposures,
        provenance={"seed": seed},
    )
    return root


class Offset(Network):
    """Returns its input plus a constant: 0 is the network that does nothing."""

    pad_multiple, min_size_px, min_frames = 2, 4, 2

    def __init__(self, offset: float) -> None:
        super().__init__(ModelConfig(spikes=None))
        self.offset = nn.Parameter(torch.tensor(offset))

    def forward(self, blur: torch.Tensor, spike_vox: torch.Tensor | None = None, *, flows: None = None) -> torch.Tensor:
        assert spike_vox is flows is None  # one tile shares nothing
        return blur + self.offset

    def bytes_per_pixel(self) -> float:
        return 24.0


@pytest.fixture
def offset_weights(tmp_path, monkeypatch):
    """A function: the path of a "weights file" that holds nothing but the offset of an `Offset` network."""

    def load(path: Path, device: torch.device, trust_custom: tuple[str, ...]) -> tuple[Offset, WeightsInfo]:
        network = Offset(float(path.read_text()))
        return network.eval(), WeightsInfo(network.config, 0.0, 1.0, {"seed": 5})

    monkeypatch.setattr(restorer, "load_network", load)
    monkeypatch.setattr(methods, "read_info", lambda path: WeightsInfo(ModelConfig(spikes=None), 0.0, 1.0, {"seed": 5}))

    def write(offset: float, name: str = "offset.safetensors") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(offset))
        return path

    return write


def evaluate(
    weights: Sequence[Path], recordings: Sequence[Path], out: Path, options: RestoreOptions, *, overwrite: bool = False,
    keep_frames: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Score into a new folder `out`, as `spikevrt evaluate` does, but without a page."""
    with runner.results_folder(out, overwrite=overwrite) as folder:
        opened = [open_recording(path) for path in recordings]
        return runner.write_results(weights, opened, folder, options, keep_frames=keep_frames)


@pytest.fixture(scope="session")
def made_scores(tmp_path_factory) -> Path:
    """The results folder of `made_results`; to be read only."""
    return write_results(tmp_path_factory.mktemp("made"))
