"""Optical flow between neighbouring frames (SpyNet), warping, and the alignment of the input pictures.

Dimension key: N pictures, B samples, D frames, C channels, H rows, W columns, S scales. A flow's channel 0 is x
(columns), channel 1 is y (rows), in pixels of its own scale; it is the field that warps `supp` onto `ref`.
Source: Ranjan and Black, Optical Flow Estimation using a Spatial Pyramid Network, CVPR 2017.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float

NUM_SCALES = 4
LEVEL_REACH_PX = 15  # five convolutions of 7x7 see so far


@dataclass(frozen=True)
class Flows:
    """Flows of one clip. `backward[k][s]` (B,D-1-k,2,H/2^s,W/2^s) at index t brings frame t+k+1 to frame t;
    `forward[k][s]` brings frame t to frame t+k+1."""

    backward: list[list[Tensor]]
    forward: list[list[Tensor]]


def at_least_float32(x: Tensor) -> Tensor:
    """Positions and warps need the precision of float32, whatever the network around them runs in."""
    return x if x.dtype == torch.float64 else x.float()


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Switches mixed precision off. (The meta device, where shapes are counted, knows none.)"""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def sampling_positions(flow: Float[Tensor, "N 2 H W"]) -> tuple[Float[Tensor, "N H W"], Float[Tensor, "N H W"]]:
    """Where each pixel reads from: column and row positions, in pixels."""
    height, width = flow.shape[-2:]
    columns = torch.arange(width, dtype=flow.dtype, device=flow.device)
    rows = torch.arange(height, dtype=flow.dtype, device=flow.device)
    return columns + flow[:, 0], rows[:, None] + flow[:, 1]


def sample(
    x: Float[Tensor, "N C H W"],
    columns: Float[Tensor, "N h w"],
    rows: Float[Tensor, "N h w"],
    mode: Literal["bilinear", "nearest"] = "bilinear",
    padding: Literal["zeros", "border"] = "zeros",
) -> Float[Tensor, "N C h w"]:
    """Read `x` at positions in pixels.

    Where the same bits are asked for (`train.deterministic`) a GPU goes by index: grid_sample's gradient adds up there
    in any order, and torch refuses it.
    """
    if x.is_cuda and torch.are_deterministic_algorithms_enabled():
        return sample_by_index(x, columns, rows, mode, padding)
    height, width = x.shape[-2:]
    grid = torch.stack((2 * columns / max(width - 1, 1) - 1, 2 * rows / max(height - 1, 1) - 1), -1)
    if padding == "border":
        grid = without_nan(grid)
    return F.grid_sample(x, grid, mode=mode, padding_mode=padding, align_corners=True)


def without_nan(grid: Tensor) -> Tensor:
    """The grid with 0 for NaN, at which torch's gradient for padding "border" reads outside its memory on a CPU.

    The NaN does not vanish from what is learnt: SpyNet adds to the flow that it came from.
    """
    return grid.nan_to_num(nan=0.0, posinf=math.inf, neginf=-math.inf)


def sample_by_index(
    x: Float[Tensor, "N C H W"],
    columns: Float[Tensor, "N h w"],
    rows: Float[Tensor, "N h w"],
    mode: Literal["bilinear", "nearest"] = "bilinear",
    padding: Literal["zeros", "border"] = "zeros",
) -> Float[Tensor, "N C h w"]:
    """The plain twin of `sample`: pixels are picked by their index, and its gradient is the same in every run.

    `sample` rounds positions when it normalises them, by about 1e-6 pixels; this does not. What is read at a position
    that is not finite is NaN (nearest: zero).
    """
    height, width = x.shape[-2:]
    if padding == "border":
        columns, rows = _into(columns, width - 1), _into(rows, height - 1)
    if mode == "nearest":
        return _pixels(x, columns.round(), rows.round())
    left, top = columns.detach().floor(), rows.detach().floor()
    across, down = (columns - left)[:, None], (rows - top)[:, None]
    upper = _pixels(x, left, top) * (1 - across) + _pixels(x, left + 1, top) * across
    lower = _pixels(x, left, top + 1) * (1 - across) + _pixels(x, left + 1, top + 1) * across
    return upper * (1 - down) + lower * down


def _into(positions: Tensor, last: int) -> Tensor:
    """Positions brought to [0, last]; those on or beyond an end get no gradient, as in grid_sample."""
    return torch.where((positions <= 0) | (positions >= last), positions.detach().clamp(0, last), positions)


def _pixels(x: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """The pixels at whole positions, zero outside the picture."""
    height, width = x.shape[-2:]
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    column, row = (torch.where(inside, positions, 0).long() for positions in (columns, rows))
    picture = torch.arange(x.shape[0], device=x.device).view(-1, 1, 1)
    return x.permute(0, 2, 3, 1)[picture, row, column].permute(0, 3, 1, 2).contiguous() * inside[:, None]


def flow_warp(
    x: Float[Tensor, "N C H W"],
    flow: Float[Tensor, "N 2 H W"],
    padding: Literal["zeros", "border"] = "zeros",
) -> Float[Tensor, "N C H W"]:
    """Backward warp: out(p) = x(p + flow(p)), bilinear. Computed in float32 whatever the precision around it."""
    columns, rows = sampling_positions(at_least_float32(flow))
    return sample(at_least_float32(x), columns, rows, "bilinear", padding)


def nearest4(x: Float[Tensor, "N C H W"], flow: Float[Tensor, "N 2 H W"]) -> Float[Tensor, "N 4*C H W"]:
    """The four pixels around each sampling position, unblended: (floor x, floor y), (floor x, ceil y),
    (ceil x, floor y), (ceil x, ceil y). No gradient reaches the flow."""
    columns, rows = sampling_positions(at_least_float32(flow.detach()))
    left, right, top, bottom = columns.floor(), columns.ceil(), rows.floor(), rows.ceil()
    corners = ((left, top), (left, bottom), (right, top), (right, bottom))
    return torch.cat([sample(at_least_float32(x), cx, cy, "nearest") for cx, cy in corners], 1)


def align_neighbours(
    frames: Float[Tensor, "B D C H W"], flows: Flows
) -> tuple[Float[Tensor, "B D 4*C H W"], Float[Tensor, "B D 4*C H W"]]:
    """Pixels of the next and of the previous frame, brought to each frame; zeros where there is none."""
    b, d, c, h, w = frames.shape
    from_next = nearest4(frames[:, 1:].flatten(0, 1), flows.backward[0][0].flatten(0, 1))
    from_previous = nearest4(frames[:, :-1].flatten(0, 1), flows.forward[0][0].flatten(0, 1))
    nothing = frames.new_zeros(b, 1, 4 * c, h, w)
    shape = (b, d - 1, 4 * c, h, w)
    return torch.cat((from_next.view(shape), nothing), 1), torch.cat((nothing, from_previous.view(shape)), 1)


class SpyNetLevel(nn.Module):
    """Five 7x7 convolutions that refine the flow of one pyramid level."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        sizes = (8, *widths, 2)
        layers: list[nn.Module] = []
        for index in range(5):
            layers += [nn.Conv2d(sizes[index], sizes[index + 1], 7, padding=3), nn.ReLU()]
        self.basic_module = nn.Sequential(*layers[:-1])

    def forward(self, x: Float[Tensor, "N 8 H W"], max_pixels: int | None = None) -> Float[Tensor, "N 2 H W"]:
        """Of a picture with more than `max_pixels` one band of rows at a time, with the rows around it that it sees."""
        height = x.shape[2]
        rows = height if max_pixels is None else max(1, max_pixels // x.shape[3])
        if rows >= height:
            return self.basic_module(x)
        bands = []
        for top in range(0, height, rows):
            first = max(0, top - LEVEL_REACH_PX)
            band = self.basic_module(x[:, :, first : top + rows + LEVEL_REACH_PX])
            bands.append(band[:, :, top - first :][:, :, :rows])
        return torch.cat(bands, 2)


class SpyNet(nn.Module):
    """Coarse-to-fine flow over six levels; the four finest are returned, finest first."""

    mean: Tensor
    std: Tensor

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.basic_module = nn.ModuleList(SpyNetLevel(widths) for _ in range(6))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(
        self, ref: Float[Tensor, "N 3 H W"], supp: Float[Tensor, "N 3 H W"], max_pixels: int | None = None
    ) -> list[Float[Tensor, "N 2 h w"]]:
        """Flow at scales 1, 1/2, 1/4, 1/8. Pictures are RGB in [0, 1], larger than 32 x 32."""
        height, width = ref.shape[-2:]
        if min(height, width) <= 32:
            raise ValueError(f"pictures of {width}x{height}: optical flow needs more than 32 rows and columns")
        full_height, full_width = (height + 31) // 32 * 32, (width + 31) // 32 * 32
        refs, supps = [self._prepare(ref, full_height, full_width)], [self._prepare(supp, full_height, full_width)]
        for _ in range(5):
            refs.insert(0, F.avg_pool2d(refs[0], 2, 2))
            supps.insert(0, F.avg_pool2d(supps[0], 2, 2))
        flow = ref.new_zeros(ref.shape[0], 2, full_height // 32, full_width // 32)
        finest_first: list[Tensor] = []
        for level, net in enumerate(self.basic_module):
            up = flow
            if level > 0:
                up = 2 * F.interpolate(flow, refs[level].shape[-2:], mode="bilinear", align_corners=True)
            warped = flow_warp(supps[level], up, "border")
            flow = up + net(torch.cat((refs[level], warped, up), 1), max_pixels)
            if level >= 2:
                scale = 2 ** (5 - level)
                finest_first.insert(0, _resize_flow(flow, height, width, full_height, full_width, scale))
        return finest_first

    def _prepare(self, picture: Tensor, height: int, width: int) -> Tensor:
        if torch.compiler.is_exporting() or picture.shape[-2:] != (height, width):
            picture = F.interpolate(picture, (height, width), mode="bilinear", align_corners=False)
        return (picture - self.mean) / self.std


def _resize_flow(flow: Tensor, height: int, width: int, full_height: int, full_width: int, scale: int) -> Tensor:
    h, w = height // scale, width // scale
    if torch.compiler.is_exporting() or flow.shape[-2:] != (h, w):
        flow = F.interpolate(flow, (h, w), mode="bilinear", align_corners=False)
    return torch.cat((flow[:, :1] * (w / (full_width // scale)), flow[:, 1:] * (h / (full_height // scale))), 1)


def clip_flows(
    spynet: SpyNet, frames: Float[Tensor, "B D 3 H W"], pa_frames: int, max_pixels: int | None = None
) -> Flows:
    """Flows between all frames at distance 1 to pa_frames/2; longer ones are chained from neighbours'.

    `max_pixels` bounds SpyNet's work space: it takes as many pictures at a time as have so many, or bands of one.
    """
    b, d = frames.shape[:2]
    first, second = frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1)
    both = _in_parts(spynet, torch.cat((first, second)), torch.cat((second, first)), max_pixels)
    backward, forward = [], []
    for flow in both:
        back, forth = flow.view(2, b, d - 1, *flow.shape[1:])
        backward.append(back)
        forward.append(forth)
    flows = Flows([backward], [forward])
    for distance in range(2, pa_frames // 2 + 1):
        flows.backward.append([])
        flows.forward.append([])
        for scale in range(NUM_SCALES):
            step = flows.backward[0][scale]
            shorter = flows.backward[distance - 2][scale]
            count = d - distance
            back = shorter[:, :count] + _warp_flows(step[:, distance - 1 :], shorter[:, :count])
            step, shorter = flows.forward[0][scale], flows.forward[distance - 2][scale]
            forth = shorter[:, 1:] + _warp_flows(step[:, :count], shorter[:, 1:])
            flows.backward[-1].append(back)
            flows.forward[-1].append(forth)
    return flows


def _in_parts(spynet: SpyNet, ref: Tensor, supp: Tensor, max_pixels: int | None) -> list[Tensor]:
    if max_pixels is None:
        return spynet(ref, supp)
    num = max(1, max_pixels // (ref.shape[2] * ref.shape[3]))
    parts = [spynet(r, s, max_pixels) for r, s in zip(ref.split(num), supp.split(num), strict=True)]
    return [torch.cat(scale) for scale in zip(*parts, strict=True)]


def _warp_flows(flow: Tensor, by: Tensor) -> Tensor:
    return flow_warp(flow.flatten(0, 1), by.flatten(0, 1)).view(flow.shape)
