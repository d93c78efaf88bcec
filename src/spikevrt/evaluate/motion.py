"""What is measured along motion, with OpenCV: the width of edges where it changes, blurring again along it, and tOF.

The width of edges is a definition of ours (docs/evaluation.md): 10-90 % rise widths, of the restored frames and of the
truth; no two groups measure the sharpness of motion boundaries alike.

Dimension key: T frames, H rows, W columns, N edge pixels, P places along an edge's normal; the 3 channels are R, G, B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from spikevrt.evaluate.metrics import eight_bit, psnr_rgb
from spikevrt.light import LUMINANCE
from spikevrt.losses import dis_flow, exposure_duty, frame_motion, reblur
from spikevrt.recording.alignment import read_at

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, UInt8

    from spikevrt.recording.sidecar import Exposure


MOTION_STEP_PX = 1.0  # a motion boundary: within 5 x 5 pixels the motion differs by at least this much a frame
MOTION_STEP_SHARE = 0.5  # and by this share of the fastest motion there: flows are smooth and wrong in proportion
BAND_PX = 5  # as far from such a place, along rows and columns, edges are measured
REACH_PX = 10.0  # a profile goes this far to both sides of its edge
STEP_PX = 0.25  # from one place of a profile to the next
MIN_CONTRAST = 0.1 * 255  # of an edge of the truth, in levels
PLATEAU_SHARE = 0.1  # falling back by this share of the truth's contrast ends a rise
RESOLVED_SHARE = 0.5  # a rise of less than this share of the truth's contrast is no edge any more
MIN_SLOPE = 0.015 * 255  # levels a pixel, of the slightly smoothed truth: less cannot become an edge; saves time
MIN_EDGES = 20  # fewer at motion boundaries say nothing: all edges of the frame are measured instead


@dataclass(frozen=True)
class EdgeRise:
    """Mean rise width of each frame's edges in pixels, between 0 and 20; NaN where the truth has no strong edge."""

    restored_px: Float[Tensor, " T"]
    sharp_px: Float[Tensor, " T"]
    num_edges: tuple[int, ...]  # edge pixels that the means go over
    at_boundaries: tuple[bool, ...]  # False: too few at motion boundaries, so all strong edges of that frame


def edge_rise(restored: Float[Tensor, "T 3 H W"], sharp: Float[Tensor, "T 3 H W"]) -> EdgeRise:
    """Rise widths at the motion boundaries of the sharp clip; which places are measured depends on the truth alone.

    The edges of a sharp frame within `BAND_PX` of a motion boundary (`motion_boundaries`) are found (`_edges`); at each
    the luma (0.2126, 0.7152, 0.0722, of the 8-bit picture) of both frames is read along the edge's normal, and the
    width of the rise measured (`rise_width_px`). A frame with fewer than `MIN_EDGES` such edge pixels, a clip of one
    frame included, is measured at all of its edges.

    Raises:
        ValueError: the shapes differ, a value is not finite, or OpenCV is not installed.
    """
    restored, sharp = eight_bit(restored, sharp)
    if len(sharp) > 1:
        bands = motion_boundaries((sharp / 255).float()).numpy()
    else:
        bands = np.zeros((1, *sharp.shape[2:]), bool)
    luma = [
        np.einsum("tchw,c->thw", clip.numpy(), np.array(LUMINANCE)).astype(np.float32) for clip in (restored, sharp)
    ]
    widths, counts, at_boundaries = [], [], []
    for found, true, band in zip(*luma, bands, strict=True):
        pair = _widths(found, true, band)
        at_boundaries.append(len(pair[0]) >= MIN_EDGES)
        if not at_boundaries[-1]:
            pair = _widths(found, true, np.ones_like(band))
        counts.append(len(pair[0]))
        widths.append([float(side.mean()) if len(side) else float("nan") for side in pair])
    means = torch.tensor(widths, dtype=torch.float64)
    return EdgeRise(means[:, 0], means[:, 1], tuple(counts), tuple(at_boundaries))


def motion_boundaries(sharp: Float[Tensor, "T 3 H W"]) -> Bool[Tensor, "T H W"]:
    """True within `BAND_PX`, along rows and columns, of where the motion changes from pixel to nearby pixel.

    Motion as the re-blurring takes it (`losses.frame_motion`): of frames in [0, 1], by OpenCV's DIS, pixels a frame.
    How much it changes is the length of (range of its x, range of its y) in a window of 5 x 5 pixels; a boundary is
    where that is `MOTION_STEP_PX` or more, and `MOTION_STEP_SHARE` or more of the highest speed in the window.

    Raises:
        ValueError: clips of one frame, or OpenCV is not installed.
    """
    motion = frame_motion(sharp[None], dis_flow)[0].numpy()
    import cv2  # after `dis_flow`, which says what to install

    window, band = np.ones((5, 5), np.uint8), np.ones((2 * BAND_PX + 1, 2 * BAND_PX + 1), np.uint8)
    found = []
    for frame in motion:
        ranges = [cv2.dilate(part, window) - cv2.erode(part, window) for part in frame]
        fastest = cv2.dilate(np.hypot(*frame), window)
        changes = np.hypot(*ranges) >= np.maximum(MOTION_STEP_PX, MOTION_STEP_SHARE * fastest)
        found.append(cv2.dilate(changes.astype(np.uint8), band).astype(bool))
    return torch.from_numpy(np.stack(found))


def rise_width_px(profiles: Float[np.ndarray, "N P"], contrast: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """10-90 % rise width of profiles that rise through their middle, `STEP_PX` from place to place.

    From the middle the rise is followed upwards until it falls back by `PLATEAU_SHARE` of `contrast`, and downwards
    until it climbs by as much, or to the profile's ends: the highest and the lowest value met are the edge's two
    plateaus. The width is that from the last place at or below 10 % of the way between them to the first behind it at
    or above 90 %, linear between places. A way of less than `RESOLVED_SHARE` of `contrast` (that of the true edge) is
    no edge any more and counts as the profile's whole length. A width is above 0 and at most that length.
    """
    middle = profiles.shape[1] // 2
    high, top = _plateau(profiles[:, middle:], PLATEAU_SHARE * contrast)
    low, bottom = _plateau(-profiles[:, middle::-1], PLATEAU_SHARE * contrast)
    low, places = -low, np.arange(profiles.shape[1])
    resolved = high - low >= np.maximum(RESOLVED_SHARE * contrast, 1e-6)
    width = np.full(len(profiles), (profiles.shape[1] - 1) * STEP_PX)
    rows, high, low = profiles[resolved], high[resolved], low[resolved]
    begin, end = (middle - bottom)[resolved, None], (middle + top)[resolved, None]
    tenth, nine_tenths = (low + share * (high - low) for share in (0.1, 0.9))
    below = (rows <= tenth[:, None]) & (places >= begin) & (places <= end)
    start = rows.shape[1] - 1 - below[:, ::-1].argmax(1)
    above = (rows >= nine_tenths[:, None]) & (places > start[:, None])
    stop = above.argmax(1)
    width[resolved] = STEP_PX * (_crossing(rows, stop - 1, nine_tenths) - _crossing(rows, start, tenth))
    return width


def _widths(
    found: Float[np.ndarray, "H W"], true: Float[np.ndarray, "H W"], mask: Bool[np.ndarray, "H W"]
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Rise widths in both pictures at the strong edges of the true one inside the mask."""
    x, y, normal_x, normal_y = _edges(true, mask)
    along = np.arange(-REACH_PX, REACH_PX + STEP_PX / 2, STEP_PX, dtype=np.float32)
    x, y = x[:, None] + normal_x[:, None] * along, y[:, None] + normal_y[:, None] * along
    profiles = _read(true, x, y)
    middle, fall = len(along) // 2, np.full(len(profiles), PLATEAU_SHARE * MIN_CONTRAST, np.float32)
    contrast = _plateau(profiles[:, middle:], fall)[0] + _plateau(-profiles[:, middle::-1], fall)[0]
    strong = contrast >= MIN_CONTRAST
    contrast = contrast[strong]
    return rise_width_px(_read(found, x[strong], y[strong]), contrast), rise_width_px(profiles[strong], contrast)


def _edges(true: Float[np.ndarray, "H W"], mask: Bool[np.ndarray, "H W"]) -> tuple[np.ndarray, ...]:
    """(x, y, normal's x, normal's y) of the pixels in the mask on the crest of the slope; normals point upwards.

    The slope is Scharr's, of the picture smoothed by a Gaussian of 1 pixel; on its crest it is nowhere smaller than one
    pixel further along the normal on either side.
    """
    import cv2

    border = cv2.BORDER_REPLICATE
    smooth = cv2.GaussianBlur(true, (0, 0), 1.0, borderType=border)
    slope_x, slope_y = (cv2.Scharr(smooth, cv2.CV_32F, dx, 1 - dx, scale=1 / 32, borderType=border) for dx in (1, 0))
    slope = np.hypot(slope_x, slope_y)
    rows, columns = np.nonzero((slope >= MIN_SLOPE) & mask)
    here = slope[rows, columns]
    x, y, normal_x, normal_y = columns, rows, slope_x[rows, columns] / here, slope_y[rows, columns] / here
    ahead, behind = (_read(slope, x + side * normal_x, y + side * normal_y) for side in (1, -1))
    crest = (here >= ahead) & (here > behind)
    return tuple(part[crest].astype(np.float32) for part in (x, y, normal_x, normal_y))


def _plateau(side: Float[np.ndarray, "N P"], fall: Float[np.ndarray, " N"]) -> tuple[np.ndarray, np.ndarray]:
    """(highest value, its place) of each row before it falls back from its highest value so far by `fall`."""
    highest = np.maximum.accumulate(side, axis=1)
    ended = np.logical_or.accumulate(side < highest - fall[:, None], axis=1)
    place = np.where(ended, -np.inf, side).argmax(1)
    return side[np.arange(len(side)), place], place


def _crossing(rows: Float[np.ndarray, "N P"], place: np.ndarray, level: Float[np.ndarray, " N"]) -> np.ndarray:
    """Where each row reaches its level between `place` and the place behind it."""
    index = np.arange(len(rows))
    first, second = rows[index, place], rows[index, place + 1]
    share: np.ndarray = place + (level - first) / (second - first)
    return share


def _read(image: Float[np.ndarray, "H W"], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The picture at any places, counted from the centre of its first pixel; beyond the border, the border's value."""
    positions = torch.from_numpy(np.stack([x + 0.5, y + 0.5], axis=-1))
    value: np.ndarray = read_at(torch.from_numpy(image).double()[None], positions)[0].numpy()
    return value


CHUNK_FRAMES = 16  # blurred at a time: memory does not grow with the clip


@torch.no_grad()
def reblur_psnr(
    restored: Float[Tensor, "T 3 H W"], blur: Float[Tensor, "T 3 H W"], exposures: Sequence[Exposure]
) -> Float[Tensor, " T"]:
    """PSNR in dB (as `psnr_rgb`) between each restored frame, blurred as its exposure would blur it, and the input.

    `losses.reblur` with 9 moments of the exposure in linear light; the motion is that between the restored frames
    themselves, by OpenCV's DIS, taken as steady through an exposure. It needs no sharp frames. More is not always
    better: where that motion is wrong, sharp frames blur to something else, and frames near the input, which blur
    little, score more than the truth. Read it against the truth's own value.

    Raises:
        ValueError: the shapes differ, a value is not finite, clips of one frame, or OpenCV is not installed.
    """
    assert len(exposures) == len(restored), (len(exposures), len(restored))
    if restored.shape != blur.shape:
        raise ValueError(f"reblur_psnr: restored {tuple(restored.shape)} and blur {tuple(blur.shape)} differ")
    if len(restored) < 2:
        raise ValueError("reblur_psnr of a clip of 1 frame; allowed: 2 or more, motion is seen between neighbours")
    pictures = (eight_bit(restored, blur)[0] / 255).float()
    duty = exposure_duty([[e.t0_s for e in exposures]], [[e.t1_s for e in exposures]])
    values = []
    for start in range(0, len(pictures), CHUNK_FRAMES):
        stop = min(start + CHUNK_FRAMES, len(pictures))
        first, last = (
            max(start - 1, 0),
            min(stop + 1, len(pictures)),
        )  # with a neighbour on each side, where there is one
        again = reblur(pictures[None, first:last], dis_flow, duty[:, first:last])[0, start - first : stop - first]
        values.append(psnr_rgb(again, blur[start:stop]))
    return torch.cat(values)


def tof(restored: Float[Tensor, "T 3 H W"], sharp: Float[Tensor, "T 3 H W"]) -> Float[Tensor, " T-1"]:
    """How far the motion from each frame to the next is from the true motion: mean over the pixels, in pixels a frame.

    At each pixel, the length of the difference of two optical flows: that of the restored frames, and that of the sharp
    ones. Flow: Farnebäck's, of the 8-bit pictures in grey (BT.601), by OpenCV with pyramid scale 0.5, 3 levels, window
    15, 3 iterations, polynomials over 5 pixels with sigma 1.2. Nothing is cut, no frame left out, nothing scaled.

    Raises:
        ValueError: the shapes differ, a value is not finite, clips of one frame, or OpenCV is not installed.

    Source: Chu et al., TecoGAN, SIGGRAPH 2020. Its code leaves out borders and the first and last two frames.
    """
    try:
        import cv2
    except ImportError:
        raise ValueError("tof needs OpenCV; install spikevrt[metrics]") from None
    if len(restored) < 2:
        raise ValueError("tof of a clip of 1 frame; allowed: 2 or more, it compares neighbours")
    grey = [[_grey(cv2, frame) for frame in clip] for clip in eight_bit(restored, sharp)]
    values = []
    for t in range(len(restored) - 1):
        found, true = (
            cv2.calcOpticalFlowFarneback(clip[t], clip[t + 1], np.zeros((*clip[t].shape, 2), np.float32), **FARNEBACK)
            for clip in grey
        )
        values.append(float(np.linalg.norm(found - true, axis=-1).mean(dtype=np.float64)))
    return torch.tensor(values, dtype=torch.float64)


FARNEBACK: dict[str, Any] = {
    "pyr_scale": 0.5,
    "levels": 3,
    "winsize": 15,
    "iterations": 3,
    "poly_n": 5,
    "poly_sigma": 1.2,
    "flags": 0,
}


def _grey(cv2: Any, frame: Float[Tensor, "3 H W"]) -> UInt8[np.ndarray, "H W"]:
    image = frame.permute(1, 2, 0).byte().contiguous().numpy()
    grey: np.ndarray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return grey
