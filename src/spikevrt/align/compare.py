"""How well a frame and the spikes lie on each other: the residual in pixels, a smooth correction, a picture.

Everything happens on the registered grid, a sensor-sized picture that lies on the frame.

Dimension key: N frames, H and W rows and columns of a frame, h and w those of the sensor and of the registered grid,
r and c those of a displacement field.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from spikevrt.align.registration import Cameras, features, resized
from spikevrt.light import LUMINANCE, image_to_linear
from spikevrt.recording.alignment import apply_homography, read_at
from spikevrt.recording.frames import write_image

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8

LEAST_PATCH_PX, PATCH_PX = 24, 48  # side of a patch, in pixels of the registered grid: a third of the shorter side
BROAD_SIGMA_PX = 4.0  # slower than this is shading, not structure
MIN_RESPONSE = 0.08  # of a patch's phase correlation; below it nothing was recognised
FLOW_STEP_PX = 8  # cells of the displacement field, in pixels of the registered grid
FLOW_SIGMA = 1 / 16  # of the grid's longer side: how smooth the field is
LUMINANCE_3 = np.array(LUMINANCE, dtype=np.float32)


def linear_luminance(image: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W"]:
    """The light of an sRGB picture (IEC 61966-2-1), in [0, 1]: what a sensor without colour filter would see."""
    return np.asarray(image_to_linear(image).permute(1, 2, 0).contiguous().numpy() @ LUMINANCE_3)


def grid_positions(
    cameras: Cameras,
    homography: Float[np.ndarray, "3 3"],
    flow: Float[np.ndarray, "2 r c"] | None = None,
) -> Float[np.ndarray, "h w 2"]:
    """Where on the sensor each cell of a sensor-sized grid over the frame looks (x, y)."""
    rows, columns = np.mgrid[0 : cameras.sensor_height, 0 : cameras.sensor_width] + 0.5
    to_frame = [cameras.width / cameras.sensor_width, cameras.height / cameras.sensor_height]
    positions = apply_homography(homography, np.stack([columns, rows], axis=-1) * to_frame)
    if flow is not None:
        positions = positions + np.moveaxis(resized(flow, cameras.sensor_height, cameras.sensor_width), 0, -1)
    return positions


def registered(
    brightness: Float[np.ndarray, "N h w"], positions: Float[np.ndarray, "h w 2"]
) -> Float[np.ndarray, "N h w"]:
    """The sensor's pictures on the grid."""
    return read_at(torch.from_numpy(brightness.astype(np.float32)), torch.from_numpy(positions)).numpy()


@dataclass(frozen=True)
class Residual:
    """Displacements that are left, in frame pixels: the median of their lengths, the share that is shorter than two
    sensor pixels, and how many patches were looked at and recognised."""

    median_px: float
    near_share: float
    num_patches: int
    num_recognised: int


def residual_px(
    cameras: Cameras,
    light: Float[np.ndarray, "N H W"],
    brightness: Float[np.ndarray, "N h w"],
    positions: Float[np.ndarray, "h w 2"],
    *,
    root: bool = True,
) -> Residual:
    """Local phase correlation between frames and registered spikes.

    Patches of about a third of the sensor's shorter side (24 to 48 grid pixels), half overlapping, under a Hann window,
    of pictures freed of slow shading; a patch counts where it lies inside the sensor. The median is over the patches
    that were recognised (response of at least 0.08); without one it is infinite. What is left below half a grid pixel
    reads up to a sixth too small, for the window draws it towards zero.
    """
    import cv2

    third = min(cameras.sensor_height, cameras.sensor_width) // 3
    side = int(np.clip(third // 8 * 8, LEAST_PATCH_PX, PATCH_PX))  # of an odd side OpenCV's answer is half a pixel off
    inside = _inside(cameras, positions)
    window = cv2.createHanningWindow((side, side), cv2.CV_32F)
    wanted, seen = structure(cameras, light, brightness, positions, root=root)
    gaps, num_patches = [], 0
    for top in range(0, cameras.sensor_height - side + 1, side // 2):
        for left in range(0, cameras.sensor_width - side + 1, side // 2):
            part = slice(top, top + side), slice(left, left + side)
            if inside[part].mean() < 0.98:
                continue
            for a, b in zip(wanted, seen, strict=True):
                gap, response = _patch_gap(a[part], b, top, left, window)
                num_patches += 1
                if response >= MIN_RESPONSE:
                    gaps.append(gap * cameras.ratio)
    median = float(np.median(gaps)) if gaps else float("inf")
    near = float(np.mean(np.array(gaps) < 2 * cameras.ratio)) if gaps else 0.0
    return Residual(median, near, num_patches, len(gaps))


def _patch_gap(a: np.ndarray, b_whole: np.ndarray, top: int, left: int, window: np.ndarray) -> tuple[float, float]:
    """How far (grid pixels) patch `a` is displaced in `b_whole`, measured anew from where it lies; and the response."""
    import cv2

    side = len(window)
    # OpenCV multiplies what it is given by the window, hence the copies
    (x, y), response = cv2.phaseCorrelate(a.copy(), b_whole[top : top + side, left : left + side].copy(), window)
    right, down = round(x), round(y)
    top, left = top + down, left + right
    is_there = 0 <= top <= b_whole.shape[0] - side and 0 <= left <= b_whole.shape[1] - side
    if (right or down) and is_there:
        (x, y), response = cv2.phaseCorrelate(a.copy(), b_whole[top : top + side, left : left + side].copy(), window)
        x, y = x + right, y + down
    return float(np.hypot(x, y)), response


def structure(
    cameras: Cameras,
    light: Float[np.ndarray, "N H W"],
    brightness: Float[np.ndarray, "N h w"],
    positions: Float[np.ndarray, "h w 2"],
    *,
    root: bool,
) -> tuple[Float[np.ndarray, "N h w"], Float[np.ndarray, "N h w"]]:
    """Frames and registered spikes on the grid, freed of slow shading."""
    on_grid = resized(light, cameras.sensor_height, cameras.sensor_width)
    return _band(features(on_grid, root=root)), _band(features(registered(brightness, positions), root=root))


def _band(pictures: np.ndarray) -> np.ndarray:
    import cv2

    return np.stack([one - cv2.GaussianBlur(one, (0, 0), BROAD_SIGMA_PX) for one in pictures])


def _inside(cameras: Cameras, positions: np.ndarray) -> np.ndarray:
    x, y = np.moveaxis(positions, -1, 0)
    return (x >= 0.5) & (y >= 0.5) & (x <= cameras.sensor_width - 0.5) & (y <= cameras.sensor_height - 0.5)


def smooth_flow(
    cameras: Cameras,
    light: Float[np.ndarray, "N H W"],
    brightness: Float[np.ndarray, "N h w"],
    homography: Float[np.ndarray, "3 3"],
    *,
    root: bool = True,
) -> Float[np.ndarray, "2 r c"]:
    """What a homography cannot say: a smooth displacement field on the sensor, in sensor pixels, float32.

    Dense flow (OpenCV's DIS) from each frame to the registered spikes, averaged over the frames and smoothed, both
    weighted by the local contrast, so that plain surfaces take over what structure around them says.
    """
    import cv2

    positions = grid_positions(cameras, homography)
    wanted, seen = structure(cameras, light, brightness, positions, root=root)
    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    sigma = FLOW_SIGMA * max(cameras.sensor_height, cameras.sensor_width)
    total, weights = np.zeros((2, *wanted.shape[1:])), np.full(wanted.shape[1:], 1e-12)
    inside = _inside(cameras, positions)
    for a, b in zip(wanted, seen, strict=True):
        flow_hw2 = finder.calc(_as_bytes(a), _as_bytes(b), np.zeros((*a.shape, 2), dtype=np.float32))
        weight = np.minimum(cv2.GaussianBlur(a * a, (0, 0), 2.0), cv2.GaussianBlur(b * b, (0, 0), 2.0)) * inside
        total += np.moveaxis(flow_hw2, -1, 0) * weight
        weights += weight
    blurred = [cv2.GaussianBlur(one, (0, 0), sigma) for one in (*total, weights)]
    flow_2hw = np.stack(blurred[:2]) / blurred[2]
    rows, columns = np.mgrid[0 : cameras.sensor_height, 0 : cameras.sensor_width] + 0.5
    moved = np.stack([columns + flow_2hw[0], rows + flow_2hw[1]], axis=-1)
    to_frame = [cameras.width / cameras.sensor_width, cameras.height / cameras.sensor_height]
    shift_2hw = np.moveaxis(apply_homography(homography, moved * to_frame) - positions, -1, 0)
    cells = (-(-cameras.sensor_height // FLOW_STEP_PX), -(-cameras.sensor_width // FLOW_STEP_PX))
    return resized(shift_2hw, *cells)


def _as_bytes(picture: np.ndarray) -> np.ndarray:
    spread = max(float(np.percentile(np.abs(picture), 99)), 1e-9)
    return (np.clip(picture / spread * 0.5 + 0.5, 0, 1) * 255).astype(np.uint8)


def write_overlay(
    path: Path,
    cameras: Cameras,
    light: Float[np.ndarray, "H W"],
    before: tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w 2"]],
    after: tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w 2"]],
) -> None:
    """Frame in red, spikes in cyan, before (left) and after: grey where they agree, coloured fringes where not.

    `before` and `after` are the spikes' brightness and the positions at which the grid reads it.
    """
    scale = max(1, round(640 / cameras.sensor_width))
    size = (cameras.sensor_height * scale, cameras.sensor_width * scale)
    frame = _display(resized(light[None], *size)[0])
    panels = []
    for brightness, positions in (before, after):
        spikes = _display(resized(registered(brightness[None], positions), *size)[0])
        panels.append(np.stack([frame, spikes, spikes], axis=-1))
    write_image(path, np.concatenate(panels, axis=1))


def _display(light: np.ndarray) -> np.ndarray:
    """Percentiles 1 and 99 to black and white, with gamma 2.2: gain and offset of the two cameras drop out."""
    low, high = np.percentile(light, [1, 99])
    return (np.clip((light - low) / max(high - low, 1e-9), 0, 1) ** (1 / 2.2) * 255).round().astype(np.uint8)
