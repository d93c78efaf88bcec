"""Networks whose answer is known without arithmetic, and recordings made for one claim each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spikevrt.checkpoint import WeightsInfo
from spikevrt.config import ModelConfig, SpikeConfig
from spikevrt.model.flow import Flows
from spikevrt.model.network import Network
from spikevrt.mux.encode import VideoTags, write_segment
from spikevrt.mux.join import join_segments
from spikevrt.mux.pieces import video_pieces
from spikevrt.recording.frames import write_image
from spikevrt.recording.recording import Recording, open_recording
from spikevrt.recording.sidecar import Exposure
from spikevrt.recording.spike_file import SpikeGeometry, SpikeWriter
from spikevrt.recording.stored import write_sidecar
from spikevrt.restore import job as job_module
from spikevrt.restore import restorer as restorer_module
from spikevrt.restore.options import JobOptions, Output, RestoreOptions, VideoFormat
from spikevrt.restore.restorer import LoadedNetwork, Restorer

NUM_BINS = 3
RGB = ModelConfig(spikes=None)
SPIKES = ModelConfig(spikes=SpikeConfig(num_bins=NUM_BINS))


class FakeNetwork(Network):
    """Returns `answer(blur, spike_vox)` and remembers what it was given."""

    pad_multiple = 8
    min_size_px = 16
    min_frames = 2
    shares_flows = True

    def __init__(self, config: ModelConfig, answer: Callable[[Tensor, Tensor | None], Tensor]) -> None:
        super().__init__(config)
        self.answer = answer
        self.calls: list[tuple[Tensor, Tensor | None]] = []
        self.flows: list[Flows | None] = []
        self.flow_calls = 0
        self.eval()

    def bytes_per_pixel(self) -> float:
        return 1.0

    def flow_bytes(self, num_frames: int, height_px: int, width_px: int) -> int:
        return 0

    def clip_flows(self, blur: Tensor) -> Flows:
        """At every scale, where each pixel lies: x and y in pixels of the picture."""
        self.flow_calls += 1
        assert blur.ndim == 5 and blur.shape[-1] % 8 == blur.shape[-2] % 8 == 0
        scales = []
        for s in (1, 2, 4, 8):
            rows, columns = torch.arange(0.0, blur.shape[-2], s), torch.arange(0.0, blur.shape[-1], s)
            place = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))
            scales.append(place.expand(1, blur.shape[1] - 1, 2, len(rows), len(columns)))
        return Flows([scales], [scales])

    def forward(self, blur: Tensor, spike_vox: Tensor | None = None, *, flows: Flows | None = None) -> Tensor:
        assert blur.shape[-1] % 8 == blur.shape[-2] % 8 == 0 and min(blur.shape[-2:]) >= 16 and blur.shape[1] >= 2
        self.calls.append((blur, spike_vox))
        self.flows.append(flows)
        return self.answer(blur, spike_vox)


def identity() -> FakeNetwork:
    """Answers with its frames."""
    return FakeNetwork(RGB, lambda blur, vox: blur.clone())


def voxels_as_frames() -> FakeNetwork:
    """Answers with the voxels, each as a block of the pixels that it covers: shows what the network sees."""

    def answer(blur: Tensor, vox: Tensor | None) -> Tensor:
        assert vox is not None and blur.shape[-1] * vox.shape[-2] == blur.shape[-2] * vox.shape[-1]
        ratio = blur.shape[-1] // vox.shape[-1]
        return vox.repeat_interleave(ratio, -1).repeat_interleave(ratio, -2)

    return FakeNetwork(SPIKES, answer)


def info(config: ModelConfig, mean: float = 0.5) -> WeightsInfo:
    return WeightsInfo(config, mean, 1.0)


def stand_in(load: Callable[..., tuple[nn.Module, WeightsInfo]], patch: Callable[..., None] = setattr) -> None:
    """Whatever weights are named, restoring loads what `load(weights, device)` returns."""
    patch(restorer_module, "load_network", lambda weights, device, _trusted: load(weights, device))
    patch(restorer_module, "find", Path)
    patch(job_module, "find", Path)
    patch(job_module, "sha256_file", lambda path: "0")


def restore(weights: Path, recording: Recording, out: Path, options: RestoreOptions, **job: Any) -> dict[str, Any]:
    """`restore_recording` with these fields of `JobOptions` and `Output`, and what makes videos."""
    output = Output(**{name: job.pop(name) for name in ("frames", "video", "format") if name in job})
    how = JobOptions(output=output, video_pieces=video_pieces, **job)
    return job_module.restore_recording(weights, recording, out, options, how)


def restore_frames(
    network: nn.Module,
    description: WeightsInfo,
    recording: Recording,
    options: RestoreOptions,
    *,
    first: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """(index, frame) of a network that is in memory, through the one door; what refuses does so before the first."""
    plan = Restorer(LoadedNetwork(network, description, "fake"), options).plan(recording)
    return ((restored.number, restored.frame) for restored in plan.run(first=first, progress=progress))


def mark_cuts(monkeypatch: pytest.MonkeyPatch, cuts: Collection[int]) -> None:
    """Scenes begin with these frames, whatever is seen."""
    monkeypatch.setattr(
        "spikevrt.restore.segments.stream_cuts", lambda frames: ((frame, i in cuts) for i, frame in enumerate(frames))
    )


@pytest.fixture
def make_recording(tmp_path: Path) -> Callable[..., Recording]:
    """make(num_frames, ...) writes and opens a recording: frame i has the grey level i, spikes are `spikes`; in the
    exposures of the frames in `dead` nothing fires."""

    def make(
        num_frames: int,
        *,
        height: int = 22,
        width: int = 34,
        ticks: int = 6,
        spikes: np.ndarray | None = None,
        dead: Collection[int] = (),
    ) -> Recording:
        root = tmp_path / f"grey{num_frames}"
        (root / "blur").mkdir(parents=True)
        geometry = SpikeGeometry(width // 2, height // 2)
        for i in range(num_frames):
            write_image(root / "blur" / f"{i:06d}.png", np.full((height, width, 3), i, np.uint8))
        with SpikeWriter(root / "spikes.dat", geometry) as writer:
            for i in range(num_frames):
                blank = np.full((ticks, height // 2, width // 2), i not in dead, np.uint8)
                writer.append(blank if spikes is None else spikes)
        exposures = [
            Exposure(i, i * ticks, (i + 1) * ticks, i * ticks / 1e4, (i + 1) * ticks / 1e4) for i in range(num_frames)
        ]
        write_sidecar(
            root,
            spikes=writer,
            tick_rate_hz=1e4,
            width=width,
            height=height,
            fps=25.0,
            exposures=exposures,
            provenance={},
        )
        return open_recording(root)

    return make


@pytest.fixture
def noise() -> torch.Generator:
    return torch.Generator().manual_seed(11)


@pytest.fixture
def uneven_video(tmp_path: Path) -> Path:
    """A video of grey levels 0, 60, 120, 180 at 0, 3, 4 and 9 hundredths of a second."""
    path = tmp_path / "uneven.mkv"
    frames = [(pts, np.full((32, 48, 3), 60 * i, np.uint8)) for i, pts in enumerate((0, 3, 4, 9))]
    segment, format = tmp_path / "segment.mp4", VideoFormat("ffv1")
    write_segment(segment, frames, time_base=Fraction(1, 100), fps=25.0, format=format, tags=VideoTags())
    join_segments([segment], path, fps=25.0, format=format, tags=VideoTags())
    return path
