"""What the representation tests share: a device each, and a small textured scene seen at several thresholds."""

from __future__ import annotations

import pytest
import torch

from spikevrt.simulate.sensor import SpikeSensor
from spikevrt.simulate.setup import SensorConfig


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


@pytest.fixture(scope="session")
def moving_light() -> torch.Tensor:
    """Linear light of 97 ticks of 53x71 pixels: a texture between 0.05 and 0.95 that moves a quarter pixel a tick."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, 1, 17, 29, generator=generator)
    texture = 0.05 + 0.9 * torch.nn.functional.interpolate(coarse, size=(53, 113), mode="bicubic")[0, 0].clamp(0, 1)
    shift = torch.arange(97)[:, None] / 4 + torch.arange(71)
    left = shift.long()
    return torch.stack([torch.lerp(texture[:, i], texture[:, i + 1], f - i) for i, f in zip(left, shift, strict=True)])


@pytest.fixture(scope="session")
def spikes_by_threshold(moving_light: torch.Tensor) -> dict[int, torch.Tensor]:
    """56 ticks of the scene at thresholds 1, 2 and 4, from the middle of the stream."""
    height, width = moving_light.shape[1:]
    return {
        threshold: SpikeSensor(height, width, SensorConfig(threshold=threshold), seed=threshold)
        .expose(moving_light)[20:76]
        .clone()
        for threshold in (1, 2, 4)
    }
