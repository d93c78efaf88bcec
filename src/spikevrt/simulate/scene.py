"""What stands before the cameras: a source of linear light for any tick.

`PhotoScene` moves a camera over a photograph while cut-outs move on paths of their own, so that true light exists at
every instant; `VideoScene` interpolates between the frames of a sharp video.

Coordinates: view pixels from the view's centre, x to the right, y down. Time: ticks; paths think in exposures.
Dimension key: N ticks, H view rows, W view columns, 4 = premultiplied RGB and cover.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn import functional as F

from spikevrt.recording.frames import image_size, list_images, read_image
from spikevrt.recording.video import iter_video, probe_video
from spikevrt.simulate.exposure import image_to_linear
from spikevrt.simulate.path import SmoothPath, smooth_path
from spikevrt.simulate.texture import cut_texture, fit, integer, load_photo, uniform

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float
    from torch import Tensor

SPEED_RANGE = (0.5, 1.5)  # a recording's speed, relative to motion_px


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
    bounds: tuple[
        float, float, float, float
    ]  # of the texture: left, top, right, bottom, in view pixels of the rest pose
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


def camera_matrix(pose_N6: Float[Tensor, "N 6"]) -> Float[Tensor, "N 3 3"]:
    """Homographies from the view to the rest pose: rotate and zoom, tilt, then shift."""
    x, y, angle, log_zoom, tilt_x, tilt_y = pose_N6.unbind(-1)
    cos, sin, one = angle.cos() * log_zoom.exp(), angle.sin() * log_zoom.exp(), torch.ones_like(x)
    rows = [cos + x * tilt_x, -sin + x * tilt_y, x, sin + y * tilt_x, cos + y * tilt_y, y, tilt_x, tilt_y, one]
    return torch.stack(rows, -1).view(-1, 3, 3)


def photo_scene(
    photo: Path,
    *,
    height: int,
    width: int,
    num_ticks: int,
    motion_px: float,
    exposure_ticks: int,
    num_layers: int,
    layer_photos: Sequence[Path] = (),
    seed: int,
) -> PhotoScene:
    """Build a scene from a photograph; every choice (speed, path, crop, layers) follows from `seed`.

    `motion_px` is the typical motion of the image over one exposure, in view pixels; this scene's own speed is drawn
    between 0.5 and 1.5 times that. Layers are cut from `layer_photos`, or from the photograph itself without them. A
    photograph too small for the view and its motion continues mirrored at its border.
    """
    generator = torch.Generator().manual_seed(seed)
    speed_px = motion_px * uniform(generator, *SPEED_RANGE)
    radius_px = math.sqrt((height**2 + width**2) / 12)  # RMS distance of a view pixel from the centre
    direction = uniform(generator, 0, 2 * math.pi)
    share = torch.tensor([uniform(generator, low, high) for low, high in ((0.5, 1), (0, 0.8), (0, 0.6), (0, 0.2))])
    shift, turn, zoom, tilt = (share / share.norm() * speed_px).tolist()
    steps = (
        shift * math.cos(direction), shift * math.sin(direction), turn / radius_px, zoom / radius_px,
        tilt / radius_px**2 / math.sqrt(2), tilt / radius_px**2 / math.sqrt(2),
    )  # fmt: skip
    camera = smooth_path(steps, exposure_ticks=exposure_ticks, num_ticks=num_ticks, generator=generator)
    camera.amplitude_CS[4:].clamp_(-0.08 / radius_px, 0.08 / radius_px)  # the horizon stays out of the view

    edge_x, edge_y = torch.meshgrid(
        torch.linspace(-1, 1, 9, dtype=torch.float64) * width / 2,
        torch.linspace(-1, 1, 9, dtype=torch.float64) * height / 2,
        indexing="xy",
    )
    points_3P = torch.stack((edge_x, edge_y, torch.ones_like(edge_x))).view(3, -1)
    seen_N3P = camera_matrix(camera.at(torch.arange(num_ticks))) @ points_3P
    seen_x, seen_y = seen_N3P[:, 0] / seen_N3P[:, 2], seen_N3P[:, 1] / seen_N3P[:, 2]
    bounds = tuple(float(v) for v in (seen_x.min() - 2, seen_y.min() - 2, seen_x.max() + 2, seen_y.max() + 2))
    max_side_px = max(1280, 4 * max(height, width))
    texture = cut_texture(
        load_photo(photo, max_side_px), width_px=bounds[2] - bounds[0], height_px=bounds[3] - bounds[1],
        field=(0.3, 1.0), generator=generator,
    )  # fmt: skip
    layers, cut_from = [], []
    for _ in range(num_layers):
        source = layer_photos[integer(generator, len(layer_photos))] if layer_photos else photo
        cut_from.append(source)
        layers.append(
            _cut_layer(
                load_photo(source, max_side_px), height=height, width=width, num_ticks=num_ticks,
                speed_px=speed_px, exposure_ticks=exposure_ticks, generator=generator,
            )
        )  # fmt: skip
    assert len(bounds) == 4
    return PhotoScene(
        height, width, num_ticks, image_to_linear(texture), bounds, camera, tuple(layers), speed_px, tuple(cut_from)
    )


def _cut_layer(
    photo: Tensor, *, height: int, width: int, num_ticks: int, speed_px: float, exposure_ticks: int,
    generator: torch.Generator,
) -> Layer:  # fmt: skip
    """A cut-out with a random outline (blob, polygon or bar), speed and place."""
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
    slope = torch.hypot(x, y * aspect**2) / distance.clamp_min(
        1e-6
    )  # of `distance`, so that the edge is even all round
    cover = ((outline - distance) / slope.clamp_min(1e-6) * (side / 2) / soft_px + 0.5).clamp(0, 1)
    speed_px *= uniform(generator, 0.6, 1.6)
    direction = uniform(generator, 0, 2 * math.pi)
    turn = uniform(generator, 0, 0.5) * speed_px / max(radius_px, 1)
    steps = (
        speed_px * math.cos(direction), speed_px * math.sin(direction), turn,
        uniform(generator, 0, 0.3) * speed_px / max(radius_px, 1),
    )  # fmt: skip
    path = smooth_path(steps, exposure_ticks=exposure_ticks, num_ticks=num_ticks, generator=generator)
    path.amplitude_CS[3].clamp_(-0.3, 0.3)
    centre_xy = (uniform(generator, -0.4, 0.4) * width, uniform(generator, -0.4, 0.4) * height)
    return Layer(torch.cat((light * cover, cover[None])), centre_xy, radius_px, path)


class VideoScene:
    """A sharp video as light: interpolated, in linear light, between frames that are `ticks_per_frame` apart."""

    def __init__(
        self, name: str, open_at: Callable[[int], Iterator[np.ndarray]], *, height: int, width: int, num_frames: int,
        ticks_per_frame: int,
    ) -> None:  # fmt: skip
        self.height, self.width = height, width
        self.num_ticks: int | None = (num_frames - 1) * ticks_per_frame
        self._name, self._open_at = name, open_at
        self._num_frames, self._ticks_per_frame = num_frames, ticks_per_frame
        self._frames: dict[int, Tensor] = {}  # the two newest, linear light
        self._reader: Iterator[np.ndarray] = iter(())
        self._next = -1  # the frame that `_reader` gives next; -1: not open

    def light(self, ticks: Tensor) -> Float[Tensor, "N 3 H W"]:
        """Linear RGB light in [0, 1] at each of the N ticks; going back in time re-opens the video."""
        mixed = []
        for tick in ticks.tolist():
            index, rest = divmod(tick, self._ticks_per_frame)
            first = self._frame(int(index))
            weight = rest / self._ticks_per_frame
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
                raise ValueError(f"{self._name}: ends after {self._next} frames of {self._num_frames}")
            self._next += 1
            if self._next > index:
                break
        self._frames = {k: v for k, v in self._frames.items() if k == index - 1}
        self._frames[index] = image_to_linear(fit(image, self.height, self.width))
        return self._frames[index]


def video_scene(
    source: Path, *, height: int | None = None, width: int | None = None, ticks_per_frame: int, start_frame: int = 0
) -> VideoScene:
    """Open a video file or a folder of pictures; `height` and `width` default to its own size.

    Raises:
        ValueError: if fewer than two frames are left at `start_frame`, the pictures differ in size, or the view is
            larger than they are.
    """
    if source.is_dir():
        images = list_images(source)
        num_frames, (own_height, own_width) = len(images), image_size(images[0])
        for path in images:
            if image_size(path) != (own_height, own_width):
                raise ValueError(f"{path}: size differs from {images[0].name}; frames of one video must be of one size")

        def open_at(index: int) -> Iterator[np.ndarray]:
            return (read_image(path) for path in images[start_frame + index :])

    else:
        info = probe_video(source)
        num_frames, own_height, own_width = info.num_frames, info.height, info.width

        def open_at(index: int) -> Iterator[np.ndarray]:
            return iter_video(source, start_frame + index)

    height, width = height or own_height, width or own_width
    if height > own_height or width > own_width:
        raise ValueError(
            f"{source}: frames of {own_width}x{own_height} pixels are smaller than the view of {width}x{height}; "
            f"allowed: a view no larger than the frames, which are never enlarged"
        )
    if not 0 <= start_frame <= num_frames - 2:
        raise ValueError(f"start_frame: {start_frame}; {source} has {num_frames} frames, two must be left")
    return VideoScene(
        str(source), open_at, height=height, width=width, num_frames=num_frames - start_frame,
        ticks_per_frame=ticks_per_frame,
    )  # fmt: skip
