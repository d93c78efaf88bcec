"""What stands before the cameras: a source of linear light for any tick.

`PhotoScene` moves a camera over a photograph while cut-outs move on paths of their own, so that true light exists at
every instant. (`footage` films a sharp video instead.)

Coordinates: view pixels from the view's centre, x to the right, y down. Time: ticks; paths think in exposures.
Dimension key: N ticks, H view rows, W view columns, h, w rows and columns of a texture, C path components, S sinusoids,
4 = premultiplied RGB and cover.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn import functional as F

from spikevrt.light import image_to_linear
from spikevrt.recording.frames import read_image

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, UInt8
    from torch import Tensor

    from spikevrt.simulate.setup import SimulateOptions

SPEED_RANGE = (0.5, 1.5)  # a recording's speed, relative to motion_px
MOST_VIEWS = 16  # the camera sees at most so many view sides of the photograph along each axis
LEAST_VIEW_PX = 64  # a smaller view counts as this one
TICKS_AT_ONCE = 4096  # of a camera's path, so that memory does not grow with a recording's length
TEXTURE_DENSITY = 1.25  # texture pixels per view pixel, so that bilinear sampling stays crisp


class Scene(Protocol):
    """Linear light at any tick below `num_ticks` (None: endless)."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def num_ticks(self) -> int | None: ...

    def light(self, ticks: Tensor) -> Float[Tensor, "N 3 H W"]:
        """Linear RGB light in [0, 1] at each of the N ticks; ticks in order are fastest."""
        ...


@dataclass(frozen=True)
class SmoothPath:
    """Sums of sinusoids: smooth, bounded, and different for every seed."""

    amplitude_CS: Tensor
    cycles_per_tick_CS: Tensor
    phase_CS: Tensor

    def at(self, ticks: Tensor) -> Float[Tensor, "N C"]:
        """The C components at each tick, in float64."""
        angle_NCS = 2 * math.pi * self.cycles_per_tick_CS * ticks.double()[:, None, None] + self.phase_CS
        return (self.amplitude_CS * angle_NCS.sin()).sum(-1)


def smooth_path(
    steps: Sequence[float], *, exposure_ticks: int, num_ticks: int, generator: torch.Generator
) -> SmoothPath:
    """A path whose component c moves by `steps[c]` in the time of one exposure.

    That is the RMS over the recording, or over its first six exposures if it is shorter.
    """
    num = len(steps)

    def draw_CS(low: Sequence[float], high: Sequence[float]) -> Tensor:
        bounds_S2 = torch.tensor([low, high], dtype=torch.float64)
        draw = torch.rand((num, len(low)), generator=generator, dtype=torch.float64)
        return bounds_S2[0] + draw * (bounds_S2[1] - bounds_S2[0])

    period_CS = draw_CS((4.0, 1.8, 0.7), (9.0, 4.0, 1.8)) * exposure_ticks  # slow sweep, sway, tremor
    speed_CS = draw_CS((1.0, 0.0, 0.0), (1.0, 0.6, 0.3))
    path = SmoothPath(speed_CS * period_CS, 1 / period_CS, draw_CS((0.0,) * 3, (2 * math.pi,) * 3))
    start_ticks = torch.linspace(0, max(num_ticks, 6 * exposure_ticks) - exposure_ticks, 64)
    moved_NC = path.at(start_ticks + exposure_ticks) - path.at(start_ticks)
    scale_C = torch.tensor(steps, dtype=torch.float64) / moved_NC.square().mean(0).sqrt()
    return SmoothPath(path.amplitude_CS * scale_C[:, None], path.cycles_per_tick_CS, path.phase_CS)


@dataclass(frozen=True)
class Layer:
    """A cut-out before the photograph: premultiplied linear RGB and cover, moving in view coordinates."""

    texture_4: Float[Tensor, "4 side side"]
    centre_xy: tuple[float, float]
    radius_px: float
    path: SmoothPath  # x, y (view pixels), rotation (rad), log zoom

    def patch(
        self, ticks: Tensor, *, height: int, width: int
    ) -> tuple[slice, slice, Float[Tensor, "N 4 rows columns"]] | None:
        """The rows and columns of the view that the layer can reach at these ticks, and what it shows there."""
        x, y, angle, log_zoom = self.path.at(ticks).unbind(-1)
        x, y = x + self.centre_xy[0], y + self.centre_xy[1]
        reach_px = self.radius_px * math.exp(float(log_zoom.max())) + 2
        left = max(0, math.floor(float(x.min()) - reach_px + (width - 1) / 2))
        right = min(width, math.ceil(float(x.max()) + reach_px + (width - 1) / 2) + 1)
        top = max(0, math.floor(float(y.min()) - reach_px + (height - 1) / 2))
        bottom = min(height, math.ceil(float(y.max()) + reach_px + (height - 1) / 2) + 1)
        if left >= right or top >= bottom:
            return None
        # view -> layer: undo the shift, the rotation and the zoom; the layer's square is [-1, 1]
        cos, sin = angle.cos() / log_zoom.exp(), angle.sin() / log_zoom.exp()
        last = torch.zeros_like(cos)
        rows = [cos, sin, -(cos * x + sin * y), -sin, cos, sin * x - cos * y, last, last, last + self.radius_px]
        matrix_N33 = torch.stack(rows, -1).view(-1, 3, 3) / self.radius_px
        columns_W = torch.arange(left, right) - (width - 1) / 2
        rows_H = torch.arange(top, bottom) - (height - 1) / 2
        patch_N4 = sample(self.texture_4, matrix_N33, rows_H, columns_W)
        return slice(top, bottom), slice(left, right), patch_N4


def sample(
    texture: Float[Tensor, "C h w"], matrix_N33: Tensor, rows_H: Tensor, columns_W: Tensor
) -> Float[Tensor, "N C H W"]:
    """Bilinear samples of a texture whose square is [-1, 1], seen through N homographies; zero outside.

    The homography maps (x, y, 1) in view pixels to texture coordinates.
    """
    x_W, y_H = columns_W.float(), rows_H.float()
    matrix_N33 = matrix_N33.float()

    def linear(row: int) -> Tensor:
        a, b, c = (matrix_N33[:, row, column, None] for column in range(3))
        return (a * x_W)[:, None, :] + (b * y_H + c)[:, :, None]

    scale_NHW = linear(2).reciprocal_()
    grid = torch.empty(*scale_NHW.shape, 2)
    torch.mul(linear(0), scale_NHW, out=grid[..., 0])
    torch.mul(linear(1), scale_NHW, out=grid[..., 1])
    return F.grid_sample(texture.expand(len(matrix_N33), -1, -1, -1), grid, align_corners=True)


@dataclass(frozen=True)
class PhotoScene:
    """A photograph under a moving camera, with cut-outs that move independently."""

    height: int
    width: int
    num_ticks: int
    texture: Float[Tensor, "3 h w"]  # the part of the photograph that the camera sees, linear light
    bounds: tuple[float, float, float, float]  # of it: left, top, right, bottom, in view pixels of the rest pose
    camera: SmoothPath  # x, y (px), rotation (rad), log zoom, perspective x, y (1/px)
    layers: tuple[Layer, ...]
    speed_px: float  # RMS image motion over one exposure
    layer_photos: tuple[Path, ...]  # where the layers were cut from

    def light(self, ticks: Tensor) -> Float[Tensor, "N 3 H W"]:
        """Linear RGB light in [0, 1] at each of the N ticks."""
        left, top, right, bottom = self.bounds
        unit_33 = torch.tensor(
            [[2 / (right - left), 0, -(left + right) / (right - left)],
             [0, 2 / (bottom - top), -(top + bottom) / (bottom - top)],
             [0, 0, 1]], dtype=torch.float64)  # fmt: skip
        matrix_N33 = unit_33 @ camera_matrix(self.camera.at(ticks))
        rows_H = torch.arange(self.height) - (self.height - 1) / 2
        columns_W = torch.arange(self.width) - (self.width - 1) / 2
        light_N3HW = sample(self.texture, matrix_N33, rows_H, columns_W)
        for layer in self.layers:
            patch = layer.patch(ticks, height=self.height, width=self.width)
            if patch is not None:
                rows, columns, patch_N4 = patch
                light_N3HW[:, :, rows, columns].mul_(1 - patch_N4[:, 3:]).add_(patch_N4[:, :3])
        return light_N3HW

    def moved_layers(self, right_px: float) -> PhotoScene:
        """The same scene with every layer so much further right: what a camera to its left sees of what is nearer."""
        moved = (replace(one, centre_xy=(one.centre_xy[0] + right_px, one.centre_xy[1])) for one in self.layers)
        return replace(self, layers=tuple(moved))


def camera_matrix(pose_N6: Float[Tensor, "N 6"]) -> Float[Tensor, "N 3 3"]:
    """Homographies from the view to the rest pose: rotate and zoom, tilt, then shift."""
    x, y, angle, log_zoom, tilt_x, tilt_y = pose_N6.unbind(-1)
    cos, sin, one = angle.cos() * log_zoom.exp(), angle.sin() * log_zoom.exp(), torch.ones_like(x)
    rows = [cos + x * tilt_x, -sin + x * tilt_y, x, sin + y * tilt_x, cos + y * tilt_y, y, tilt_x, tilt_y, one]
    return torch.stack(rows, -1).view(-1, 3, 3)


def photo_scene(
    photo: Path, options: SimulateOptions, *, layer_photos: Sequence[Path] = (), pad_px: int = 0
) -> PhotoScene:
    """Build a scene from a photograph; every choice (speed, path, crop, layers) follows from the options' seed.

    This scene's own speed is drawn between 0.5 and 1.5 times `motion_px`. Layers are cut from `layer_photos`, or from
    the photograph itself without them. A photograph too small for the view and its motion continues mirrored at its
    border. The scene shows `pad_px` more on every side than the view of height x width, which alone decides what
    happens in it.

    Raises:
        ValueError: the motion is so large that the camera would see a multiple of what any photograph holds.
    """
    height, width, num_ticks = options.height, options.width, options.num_ticks
    generator = torch.Generator().manual_seed(options.seed)
    speed_px = options.motion_px * uniform(generator, *SPEED_RANGE)
    radius_px = math.sqrt((height**2 + width**2) / 12)  # RMS distance of a view pixel from the centre
    direction = uniform(generator, 0, 2 * math.pi)
    share = torch.tensor([uniform(generator, low, high) for low, high in ((0.5, 1), (0, 0.8), (0, 0.6), (0, 0.2))])
    shift, turn, zoom, tilt = (share / share.norm() * speed_px).tolist()
    steps = (
        shift * math.cos(direction), shift * math.sin(direction), turn / radius_px, zoom / radius_px,
        tilt / radius_px**2 / math.sqrt(2), tilt / radius_px**2 / math.sqrt(2),
    )  # fmt: skip
    camera = smooth_path(steps, exposure_ticks=options.exposure_ticks, num_ticks=num_ticks, generator=generator)
    camera.amplitude_CS[4:].clamp_(-0.08 / radius_px, 0.08 / radius_px)  # the horizon stays out of the view

    edge_x, edge_y = torch.meshgrid(
        torch.linspace(-1, 1, 9, dtype=torch.float64) * (width + 2 * pad_px) / 2,
        torch.linspace(-1, 1, 9, dtype=torch.float64) * (height + 2 * pad_px) / 2,
        indexing="xy",
    )
    points_3P = torch.stack((edge_x, edge_y, torch.ones_like(edge_x))).view(3, -1)
    low_2, high_2 = torch.full((2,), math.inf).double(), torch.full((2,), -math.inf).double()
    for ticks in torch.arange(num_ticks).split(TICKS_AT_ONCE):
        seen_N3P = camera_matrix(camera.at(ticks)) @ points_3P
        seen_N2P = seen_N3P[:, :2] / seen_N3P[:, 2:]
        low_2, high_2 = torch.minimum(low_2, seen_N2P.amin((0, 2))), torch.maximum(high_2, seen_N2P.amax((0, 2)))
    bounds = (float(low_2[0]) - 2, float(low_2[1]) - 2, float(high_2[0]) + 2, float(high_2[1]) + 2)
    seen_px, most_px = max(bounds[2] - bounds[0], bounds[3] - bounds[1]), MOST_VIEWS * max(height, width, LEAST_VIEW_PX)
    if not seen_px <= most_px:  # nan too
        raise ValueError(
            f"motion_px: {options.motion_px}; leads a view of {width}x{height} over {seen_px:.3g} pixels; "
            f"allowed: {most_px}"
        )
    max_side_px = max(1280, 4 * max(height, width))
    texture = cut_texture(
        load_photo(photo, max_side_px), width_px=bounds[2] - bounds[0], height_px=bounds[3] - bounds[1],
        field=(0.3, 1.0), generator=generator,
    )  # fmt: skip
    layers, cut_from = [], []
    for _ in range(options.num_layers):
        source = layer_photos[integer(generator, len(layer_photos))] if layer_photos else photo
        cut_from.append(source)
        layers.append(_cut_layer(load_photo(source, max_side_px), options, speed_px, generator))
    return PhotoScene(
        height + 2 * pad_px, width + 2 * pad_px, num_ticks, image_to_linear(texture), bounds, camera, tuple(layers),
        speed_px, tuple(cut_from),
    )  # fmt: skip


def _cut_layer(photo: Tensor, options: SimulateOptions, speed_px: float, generator: torch.Generator) -> Layer:
    """A cut-out with a random outline (blob, polygon or bar), speed and place."""
    height, width = options.height, options.width
    radius_px = min(height, width) * uniform(generator, 0.12, 0.38)
    texture = cut_texture(photo, width_px=2 * radius_px, height_px=2 * radius_px, field=(0.2, 0.9), generator=generator)
    light = image_to_linear(texture) * uniform(generator, 0.5, 1.0)
    side = light.shape[-1]
    unit = torch.linspace(-1, 1, side)
    y, x = torch.meshgrid(unit, unit, indexing="ij")
    lean = uniform(generator, 0, 2 * math.pi)
    x, y = math.cos(lean) * x + math.sin(lean) * y, math.cos(lean) * y - math.sin(lean) * x
    aspect = 1.0 if uniform(generator, 0, 1) < 0.5 else uniform(generator, 1.5, 6.0)
    azimuth, distance = torch.atan2(y * aspect, x), torch.hypot(x, y * aspect)
    if uniform(generator, 0, 1) < 0.5:  # blob: a few harmonics
        outline = torch.full_like(azimuth, 0.75)
        for order in range(2, 6):
            phase = uniform(generator, 0, 2 * math.pi)
            outline += uniform(generator, 0, 0.12) * (order * azimuth + phase).cos()
    else:  # polygon with straight sides: the distance along each side's normal
        num_sides = 3 + integer(generator, 5)
        start = uniform(generator, 0, 2 * math.pi)
        normals = [start + (k + uniform(generator, -0.25, 0.25)) * 2 * math.pi / num_sides for k in range(num_sides)]
        sides = torch.stack([(azimuth - normal).cos() / uniform(generator, 0.45, 0.8) for normal in normals])
        outline = sides.max(0).values.clamp_min(1e-3).reciprocal()
    outline = outline.clamp_max(0.95)
    soft_px = 1.5 if uniform(generator, 0, 1) < 0.7 else uniform(generator, 2.0, 6.0)
    slope = torch.hypot(x, y * aspect**2) / distance.clamp_min(1e-6)  # so that the edge is even all round
    cover = ((outline - distance) / slope.clamp_min(1e-6) * (side / 2) / soft_px + 0.5).clamp(0, 1)
    speed_px *= uniform(generator, 0.6, 1.6)
    direction = uniform(generator, 0, 2 * math.pi)
    turn = uniform(generator, 0, 0.5) * speed_px / max(radius_px, 1)
    steps = (
        speed_px * math.cos(direction), speed_px * math.sin(direction), turn,
        uniform(generator, 0, 0.3) * speed_px / max(radius_px, 1),
    )  # fmt: skip
    path = smooth_path(steps, exposure_ticks=options.exposure_ticks, num_ticks=options.num_ticks, generator=generator)
    path.amplitude_CS[3].clamp_(-0.3, 0.3)
    centre_xy = (uniform(generator, -0.4, 0.4) * width, uniform(generator, -0.4, 0.4) * height)
    return Layer(torch.cat((light * cover, cover[None])), centre_xy, radius_px, path)


def load_photo(path: Path, max_side_px: int) -> UInt8[Tensor, "H W 3"]:
    """A photograph, reduced (antialiased) so that its long side has at most `max_side_px` pixels.

    The last 32 are kept, as long as their files do not change; the caller must not write into them.
    """
    return _load_photo(path, max_side_px, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _load_photo(path: Path, max_side_px: int, _mtime_ns: int) -> Tensor:
    image = read_image(path)
    scale = max_side_px / max(image.shape[:2])
    if scale >= 1:
        return torch.from_numpy(image)
    return resize(image, max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale)))


def resize(image: np.ndarray | Tensor, height: int, width: int) -> UInt8[Tensor, "H W 3"]:
    """Resize an 8-bit picture, antialiased."""
    planes = torch.as_tensor(image).permute(2, 0, 1)[None]
    if planes.shape[-2:] == (height, width):
        return planes[0].permute(1, 2, 0)
    planes = F.interpolate(planes, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return planes[0].permute(1, 2, 0)


def cut_texture(
    photo: Tensor, *, width_px: float, height_px: float, field: tuple[float, float], generator: torch.Generator
) -> UInt8[Tensor, "h w 3"]:
    """Cut `width_px` x `height_px` view pixels from a photograph, at a random place and scale.

    The scale takes a share of the photograph drawn from `field` (1: as much as fits), never so little that it would be
    enlarged. Of four places the one with most detail is taken. Beyond its border the photograph continues mirrored.
    """
    photo_height, photo_width, _ = photo.shape
    fits = min(photo_width / width_px, photo_height / height_px)  # photo pixels per view pixel, at most
    low, high = (math.log(max(share * fits, TEXTURE_DENSITY)) for share in field)
    scale = math.exp(uniform(generator, low, high))
    cut_width, cut_height = max(2, round(width_px * scale)), max(2, round(height_px * scale))
    best, best_detail = photo, -1.0
    for _ in range(4):
        left = round(uniform(generator, 0, 1) * (photo_width - cut_width))  # negative: mirrored on both sides
        top = round(uniform(generator, 0, 1) * (photo_height - cut_height))
        columns = mirror(torch.arange(left, left + cut_width), photo_width)
        rows = mirror(torch.arange(top, top + cut_height), photo_height)
        cut = photo[rows][:, columns]
        green = cut[::2, ::2, 1].float()
        detail = float((green[1:] - green[:-1]).abs().mean() + (green[:, 1:] - green[:, :-1]).abs().mean())
        if detail > best_detail:
            best, best_detail = cut, detail
    density = min(scale, TEXTURE_DENSITY)
    return resize(best, max(2, round(height_px * density)), max(2, round(width_px * density)))


def mirror(index: Tensor, size: int) -> Tensor:
    """Reflect indices into 0 .. size-1, without repeating the border pixel."""
    period = max(2 * (size - 1), 1)
    index = index.remainder(period)
    return torch.minimum(index, period - index)


def fit(image: np.ndarray, height: int, width: int) -> UInt8[Tensor, "H W 3"]:
    """Cut the middle of a picture to the wanted shape of view, then resize it, antialiased."""
    scale = min(image.shape[0] / height, image.shape[1] / width)
    cut_height, cut_width = min(round(height * scale), image.shape[0]), min(round(width * scale), image.shape[1])
    top, left = (image.shape[0] - cut_height) // 2, (image.shape[1] - cut_width) // 2
    return resize(image[top : top + cut_height, left : left + cut_width], height, width)


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """One number in [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def integer(generator: torch.Generator, stop: int) -> int:
    """One of 0 .. stop - 1."""
    return int(torch.randint(stop, (), generator=generator))
