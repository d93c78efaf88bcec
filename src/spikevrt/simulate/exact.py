"""Scenes that every machine renders to the same bits.

Floating point gives other bits where a sum is taken in another order or a product is fused with it, as processors and
libraries do. So nothing here is ever rounded but on purpose: places, textures, covers and light are whole multiples of
a small power of two, and every sum and product of them fits a float without a rest. What is no such number (a root, the
sRGB curve) is rounded to one at once. Random choices are digests of the seed, not draws of a generator.

`exact_scene` puts a photograph under a swaying camera, with cut-outs that move before it; `exact_video` films a video.

Coordinates: view pixels from the view's top left pixel, x to the right, y down. Light: 1 is the brightest white.
Dimension key: N ticks, H view rows, W view columns, h, w texture rows and columns.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from spikevrt.light import srgb_to_linear
from spikevrt.recording.frames import read_image
from spikevrt.simulate.scene import mirror

if TYPE_CHECKING:
    from jaxtyping import Float, Int, UInt8
    from torch import Tensor

TEXTURE = 1 << 13  # levels of a texture's light
COVER = 1 << 8  # levels of how much a cut-out covers
STEP = 1 << 5  # places between two pixels, along each axis
LIGHT = 1 << 16  # levels of the light that comes out
TURN = 1 << 20  # one over the smallest turn or zoom
PLACE = 1 << 12  # one over the smallest distance on a path
SMALL_PHOTO_PX = 700  # a photograph with a longer side is halved until it is no longer
GREY = (54, 183, 19)  # of 256: what a sensor without colour filter sees of red, green and blue light (BT.709)
SPEEDS = (0.8, 1.25)  # a cut-out's speed over the camera's


def draw(seed: str, low: int, high: int) -> int:
    """A whole number from low to high, both included, from the digest of `seed`."""
    return low + int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") % (high - low + 1)


@dataclass(frozen=True)
class Sway:
    """A value that swings between -amplitude and amplitude, along parabolas: its speed changes without a jump.

    `amplitude` in units of the caller's, `period` in ticks, `phase` in ticks.
    """

    amplitude: int
    period: int
    phase: int

    def at(self, tick: int) -> int:
        """The value at a tick, rounded down to a whole unit."""
        # the period's two halves are parabolas: 4 u (1 - u) up, then the same down; u = position / half a period
        position, half = 2 * ((tick + self.phase) % self.period), self.period
        sign = 1 if position < half else -1
        position %= half
        return sign * (self.amplitude * 4 * position * (half - position) // (half * half))


@dataclass(frozen=True)
class Motion:
    """Where a plane lies at a tick: shift in 1/PLACE px, turn and zoom in 1/TURN."""

    x: tuple[Sway, ...]
    y: tuple[Sway, ...]
    turn: Sway
    zoom: Sway

    def at(self, tick: int) -> tuple[int, int, int, int]:
        """(x, y, turn, zoom)."""
        return sum(s.at(tick) for s in self.x), sum(s.at(tick) for s in self.y), self.turn.at(tick), self.zoom.at(tick)


def sway_motion(seed: str, speed_px: float, *, exposure_ticks: int, turning: bool) -> Motion:
    """Sways that move by about `speed_px` on average in the time of one exposure, a slow sweep and a faster tremor.

    A sway goes through four amplitudes a period.
    """

    def sway(name: str, px_per_exposure: float, periods: tuple[int, int], unit: int) -> Sway:
        period = draw(f"{seed} {name} period", periods[0] * exposure_ticks, periods[1] * exposure_ticks)
        amplitude = round(px_per_exposure * unit) * period // (4 * exposure_ticks)
        return Sway(amplitude, period, draw(f"{seed} {name} phase", 0, period - 1))

    direction = draw(f"{seed} direction", 0, 63)
    along_x, along_y = (round(64 * f(direction * math.pi / 32)) / 64 for f in (math.cos, math.sin))
    tremor = speed_px / 4
    turn_px = speed_px / 5 if turning else 0.0  # at 64 px from the centre
    return Motion(
        (sway("x", along_x * speed_px, (5, 9), PLACE), sway("tremor x", tremor, (2, 3), PLACE)),
        (sway("y", along_y * speed_px, (5, 9), PLACE), sway("tremor y", tremor, (2, 3), PLACE)),
        sway("turn", turn_px / 64, (5, 9), TURN),
        sway("zoom", turn_px / 64, (6, 9), TURN),
    )


@dataclass(frozen=True)
class Cutout:
    """A piece of a photograph: its light, how much it covers, and its motion; its centre rests at `centre_xy`."""

    light_3hw: Float[Tensor, "3 h w"]
    cover_hw: Float[Tensor, "h w"]
    centre_xy: tuple[int, int]
    motion: Motion


@dataclass(frozen=True)
class ExactScene:
    """A photograph under a moving camera, with cut-outs that move independently before it."""

    height: int
    width: int
    light_3hw: Float[Tensor, "3 h w"]
    motion: Motion
    cutouts: tuple[Cutout, ...]
    num_ticks: int | None = None

    def light(self, ticks: Tensor) -> Float[Tensor, "N 3 H W"]:
        """Linear RGB light in [0, 1] at each of the N ticks, in whole multiples of 1/LIGHT."""
        return torch.stack([self._light(int(tick)) for tick in ticks])

    def _light(self, tick: int) -> Float[Tensor, "3 H W"]:
        _, h, w = self.light_3hw.shape
        seen = (slice(0, self.height), slice(0, self.width))
        at = _places(
            self.motion.at(tick), seen, ((self.width - 1) / 2, (self.height - 1) / 2), ((w - 1) / 2, (h - 1) / 2)
        )
        light = _to_light(_sample(self.light_3hw, at, mirrored=True).double())
        for cutout in self.cutouts:
            _, h, w = cutout.light_3hw.shape
            x, y, turn, zoom = cutout.motion.at(tick)
            centre_x, centre_y = cutout.centre_xy[0] + x / PLACE, cutout.centre_xy[1] + y / PLACE
            reach = math.hypot(h, w) / 2 * 1.2 + 2
            rows = slice(max(0, math.floor(centre_y - reach)), min(self.height, math.ceil(centre_y + reach) + 1))
            columns = slice(max(0, math.floor(centre_x - reach)), min(self.width, math.ceil(centre_x + reach) + 1))
            if rows.start >= rows.stop or columns.start >= columns.stop:
                continue
            at = _places((0, 0, turn, zoom), (rows, columns), (centre_x, centre_y), ((w - 1) / 2, (h - 1) / 2))
            cover = _sample(cutout.cover_hw[None], at, mirrored=False).double()
            front = _sample(cutout.light_3hw, at, mirrored=True).double()
            light[:, rows, columns] = _to_light(light[:, rows, columns] * (1 - cover) + front * cover)
        return light.float()


@dataclass(frozen=True)
class ExactVideo:
    """A video filmed as it is: `ticks_per_frame` (a power of two) ticks fade from each frame to the next."""

    frames: UInt8[np.ndarray, "F H W 3"]
    ticks_per_frame: int

    @property
    def height(self) -> int:
        return int(self.frames.shape[1])

    @property
    def width(self) -> int:
        return int(self.frames.shape[2])

    @property
    def num_ticks(self) -> int | None:
        return (len(self.frames) - 1) * self.ticks_per_frame

    def light(self, ticks: Tensor) -> Float[Tensor, "N 3 H W"]:
        """Linear RGB light in [0, 1] at each of the N ticks, in whole multiples of 1/LIGHT."""
        found = []
        for tick in ticks.tolist():
            index, late = divmod(tick, self.ticks_per_frame)
            first, second = (
                image_light(self.frames[i]).double() for i in (index, min(index + 1, len(self.frames) - 1))
            )
            found.append(_to_light(first + (second - first) * (late / self.ticks_per_frame)).float())
        return torch.stack(found)


def exact_scene(
    photo: Path,
    cutout_photos: Sequence[Path],
    *,
    height: int,
    width: int,
    speed_px: float,
    exposure_ticks: int,
    seed: str,
) -> ExactScene:
    """A scene of `height` x `width` pixels; the camera moves it by about `speed_px` in the time of one exposure.

    One cut-out from each of `cutout_photos`. Photographs continue mirrored at their border. The seed decides places,
    shapes and the form and period of paths; `speed_px` how far they reach in that time.
    """
    picture = _load(photo)
    h, w = picture.shape[:2]
    # the part of the photograph around which the camera sways
    left = draw(f"{seed} left", min(0, w - width), max(0, w - width)) - (w - width) // 2
    top = draw(f"{seed} top", min(0, h - height), max(0, h - height)) - (h - height) // 2
    rows, columns = mirror(torch.arange(h) + top, h), mirror(torch.arange(w) + left, w)
    motion = sway_motion(f"{seed} camera", speed_px, exposure_ticks=exposure_ticks, turning=True)
    cutouts = tuple(
        _cutout(path, f"{seed} cutout {index}", height, width, speed_px, exposure_ticks)
        for index, path in enumerate(cutout_photos)
    )
    return ExactScene(height, width, image_light(picture)[:, rows][:, :, columns].contiguous(), motion, cutouts)


def exact_video(
    path: Path, *, top: int, left: int, height: int, width: int, count: int, ticks_per_frame: int
) -> ExactVideo:
    """The first `count` frames of a video file, cut to one part of the picture.

    The decoder's own planes are turned into RGB here, in whole numbers (BT.601, studio range; colour at half the size,
    repeated): H.264 says every bit of the planes, and nothing about the colours that a library makes of them.

    Raises:
        ValueError: another pixel format than yuv420p, or too few frames.
    """
    import av

    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if frame.format.name != "yuv420p":
                raise ValueError(f"{path}: pixels are {frame.format.name}; allowed: yuv420p")
            picture = _rgb(frame.to_ndarray(), frame.height, frame.width)
            frames.append(picture[top : top + height, left : left + width])
            if len(frames) == count:
                return ExactVideo(np.stack(frames), ticks_per_frame)
    raise ValueError(f"{path}: {len(frames)} frames; {count} needed")


def image_light(image: UInt8[np.ndarray, "H W 3"] | UInt8[Tensor, "H W 3"]) -> Float[Tensor, "3 H W"]:
    """An 8-bit sRGB picture -> linear light in [0, 1], in whole multiples of 1/TEXTURE."""
    table = (srgb_to_linear(torch.arange(256, dtype=torch.float64) / 255) * TEXTURE).round().float() / TEXTURE
    return table[torch.as_tensor(image).permute(2, 0, 1).long()]


def light_levels(light: Float[Tensor, "3 H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Linear light -> the nearest 8-bit sRGB levels, by comparing with the light half way between two levels."""
    between = srgb_to_linear((torch.arange(255, dtype=torch.float64) + 0.5) / 255)
    levels = torch.bucketize(light.permute(1, 2, 0).double().contiguous(), between, right=True)
    return levels.to(torch.uint8).numpy()


def grey_light(light_N3HW: Float[Tensor, "N 3 H W"], ratio: int) -> Float[Tensor, "N h w"]:
    """What the pixels of a sensor see: grey light averaged over `ratio` x `ratio` (a power of two) pixels."""
    grey = sum(light_N3HW[:, c].double() * weight for c, weight in enumerate(GREY)) / 256
    assert isinstance(grey, torch.Tensor)
    grey = _to_light(grey).unfold(1, ratio, ratio).unfold(2, ratio, ratio)
    return (grey.sum((3, 4)) / ratio**2).float()


def _rgb(planes: UInt8[np.ndarray, "H2 W"], height: int, width: int) -> UInt8[np.ndarray, "H W 3"]:
    """Y, U and V of one frame, one under the other as PyAV gives them, as RGB."""
    y = planes[:height].astype(np.int32)
    u, v = planes[height:].reshape(2, height // 2, width // 2).astype(np.int32).repeat(2, axis=1).repeat(2, axis=2)
    y, u, v = 298 * (y - 16) + 128, u - 128, v - 128
    rgb = np.stack((y + 409 * v, y - 100 * u - 208 * v, y + 516 * u), axis=-1) >> 8
    return rgb.clip(0, 255).astype(np.uint8)


def _to_light(exact: Tensor) -> Tensor:
    return torch.floor(exact * LIGHT + 0.5) / LIGHT


def _load(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """A photograph, halved (in whole levels) while it is larger than needed."""
    picture = read_image(path)
    while max(picture.shape[:2]) > SMALL_PHOTO_PX:
        h, w = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
        four = picture[:h, :w].astype(np.uint16)
        four = four[::2, ::2] + four[1::2, ::2] + four[::2, 1::2] + four[1::2, 1::2]
        picture = ((four + 2) // 4).astype(np.uint8)
    return picture


def _places(
    pose: tuple[int, int, int, int], seen: tuple[slice, slice], centre: tuple[float, float], middle: tuple[float, float]
) -> tuple[Int[Tensor, "H W"], Int[Tensor, "H W"]]:
    """Texture places, in 1/STEP px, of the view's rows and columns: turned and zoomed about `centre`, then shifted.

    `middle` is where the centre rests in the texture. All numbers are halves or multiples of 1/PLACE and 1/TURN.
    """
    shift_x, shift_y, turn, zoom = pose
    y = torch.arange(seen[0].start, seen[0].stop, dtype=torch.float64)[:, None] - centre[1]
    x = torch.arange(seen[1].start, seen[1].stop, dtype=torch.float64)[None, :] - centre[0]
    scale, skew = 1 + zoom / TURN, turn / TURN
    at_x = (scale * x - skew * y) + (middle[0] + shift_x / PLACE)
    at_y = (skew * x + scale * y) + (middle[1] + shift_y / PLACE)
    return torch.floor(at_x * STEP + 0.5).int(), torch.floor(at_y * STEP + 0.5).int()


def _sample(texture: Float[Tensor, "C h w"], at: tuple[Tensor, Tensor], *, mirrored: bool) -> Float[Tensor, "C H W"]:
    """Bilinear samples; beyond its border a texture continues mirrored, or is zero."""
    channels, h, w = texture.shape
    (x, fx), (y, fy) = ((place // STEP, place.remainder(STEP).float() / STEP) for place in at)
    flat, total = texture.reshape(channels, h * w), None
    for step_y, weight_y in ((0, 1 - fy), (1, fy)):
        for step_x, weight_x in ((0, 1 - fx), (1, fx)):
            row, column, weight = y + step_y, x + step_x, weight_y * weight_x
            if mirrored:
                row, column = mirror(row, h), mirror(column, w)
            else:
                weight = weight * ((row >= 0) & (row < h) & (column >= 0) & (column < w))
                row, column = row.clamp(0, h - 1), column.clamp(0, w - 1)
            part = flat.index_select(1, (row * w + column).reshape(-1)).view(channels, *row.shape) * weight
            total = part if total is None else total + part
    assert total is not None
    return total


def _cutout(path: Path, seed: str, height: int, width: int, speed_px: float, exposure_ticks: int) -> Cutout:
    """A disc or a polygon of four to seven sides, some with soft edges, from a random place of a photograph."""
    side = draw(f"{seed} side", min(height, width) // 4, min(height, width) // 2)
    picture = _load(path)
    h, w = picture.shape[:2]
    rows = mirror(torch.arange(side) + draw(f"{seed} top", 0, max(0, h - side)), h)
    columns = mirror(torch.arange(side) + draw(f"{seed} left", 0, max(0, w - side)), w)
    light = image_light(torch.from_numpy(picture)[rows][:, columns])
    unit = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    y, x = unit[:, None], unit[None, :]
    num_sides = draw(f"{seed} sides", 3, 7)
    if num_sides == 3:  # a disc; a root is rounded the same everywhere
        distance = torch.sqrt(x * x + y * y)
    else:
        first = draw(f"{seed} lean", 0, 63)
        normals = [(first + 64 * k // num_sides) * math.pi / 32 for k in range(num_sides)]
        sides = [x * (round(64 * math.cos(n)) / 64) + y * (round(64 * math.sin(n)) / 64) for n in normals]
        distance = torch.stack(sides).amax(0)
    soft_px = (1, 1, 2, 4)[draw(f"{seed} soft", 0, 3)]
    radius = side / 2 - 1 - soft_px if num_sides == 3 else side * 3 / 8 - soft_px
    cover = torch.floor(((radius - distance) / soft_px + 0.5).clamp(0, 1) * COVER + 0.5) / COVER
    centre = (draw(f"{seed} x", width // 5, width * 4 // 5), draw(f"{seed} y", height // 5, height * 4 // 5))
    speed_px *= draw(f"{seed} speed", *(round(64 * speed) for speed in SPEEDS)) / 64
    motion = sway_motion(seed, speed_px, exposure_ticks=exposure_ticks, turning=False)
    return Cutout(light, cover.float(), centre, motion)
