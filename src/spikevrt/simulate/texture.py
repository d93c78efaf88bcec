"""Pictures as material for scenes: photographs loaded, cut, mirrored at their border and reduced without aliasing.

Dimension key: H rows, W columns, h, w rows and columns of a cut.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from spikevrt.recording.frames import read_image

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8
    from torch import Tensor

TEXTURE_DENSITY = 1.25  # texture pixels per view pixel, so that bilinear sampling stays crisp


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
        columns = _mirror(torch.arange(left, left + cut_width), photo_width)
        rows = _mirror(torch.arange(top, top + cut_height), photo_height)
        cut = photo[rows][:, columns]
        green = cut[::2, ::2, 1].float()
        detail = float((green[1:] - green[:-1]).abs().mean() + (green[:, 1:] - green[:, :-1]).abs().mean())
        if detail > best_detail:
            best, best_detail = cut, detail
    density = min(scale, TEXTURE_DENSITY)
    return resize(best, max(2, round(height_px * density)), max(2, round(width_px * density)))


def _mirror(index: Tensor, size: int) -> Tensor:
    """Reflect indices into 0 .. size-1, without repeating the border pixel."""
    period = max(2 * (size - 1), 1)
    index = index.remainder(period)
    return torch.minimum(index, (period - index)) if size > 1 else torch.zeros_like(index)


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
