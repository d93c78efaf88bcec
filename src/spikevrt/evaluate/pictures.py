"""Labelled pictures of restored frames, and where the files of a results folder lie.

A results folder: results.json, report.html, pictures/, and where frames are kept frames/<method>/<recording>/ and
videos/.

Dimension key: H rows, W columns. Pictures are uint8 (H, W, 3), RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spikevrt.recording.frames import to_uint8, write_image

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

LABEL_PX = 20
GAP_PX = 4
DETAIL = 6  # a detail's side is the picture's over this, and it is magnified as much


def frame_path(folder: Path, method: str, recording: str, index: int) -> Path:
    """Where a restored frame lies in a results folder."""
    return folder / "frames" / method / recording / f"{index:06d}.png"


def picture_path(folder: Path, method: str, recording: str) -> Path:
    """Where the three-column picture of a method and recording lies in a results folder."""
    return folder / "pictures" / f"{recording}_{method}.png"


def video_path(folder: Path, method: str, recording: str) -> Path:
    """Where a restored video lies; the method "side_by_side" is all of them beside each other."""
    return folder / "videos" / f"{recording}_{method}.mp4"


def write_three_columns(
    path: Path,
    blur: Float[Tensor, "3 H W"],
    restored: Float[Tensor, "3 H W"],
    sharp: Float[Tensor, "3 H W"],
    method: str,
) -> None:
    """Write the picture of `three_columns` from frames in [0, 1]; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, three_columns(to_uint8(blur), to_uint8(restored), to_uint8(sharp), method))


def three_columns(
    blur: UInt8[np.ndarray, "H W 3"],
    restored: UInt8[np.ndarray, "H W 3"],
    sharp: UInt8[np.ndarray, "H W 3"],
    method: str,
) -> UInt8[np.ndarray, "H2 W2 3"]:
    """blurry | restored | sharp under their labels, and below them one detail, magnified: where the blur is worst.

    `method` names the weights (or what else) that restored the frame, in its label.
    """
    box, labels = _detail_box(blur, sharp), ["blurry", f"restored by {method}", "sharp (truth)"]
    return np.concatenate(
        [
            columns([_framed(image, box) for image in (blur, restored, sharp)], labels),
            columns([_detail(image, box) for image in (blur, restored, sharp)], None),
        ]
    )


def restored_column(
    sheet: UInt8[np.ndarray, "H2 W2 3"], blur: UInt8[np.ndarray, "H W 3"], sharp: UInt8[np.ndarray, "H W 3"]
) -> UInt8[np.ndarray, "H W 3"]:
    """The restored frame out of a sheet of `three_columns`, exactly: what the red box covers is in the detail.

    Raises:
        ValueError: the sheet is not one of frames of this size.
    """
    height, width = blur.shape[:2]
    top, left, box_height, box_width = _detail_box(blur, sharp)
    times = width // box_width
    detail_top = LABEL_PX + height + GAP_PX
    size = (detail_top + box_height * times + GAP_PX, 3 * (width + GAP_PX) - GAP_PX)
    if sheet.shape[:2] != size:
        raise ValueError(f"a sheet of {sheet.shape[1]}x{sheet.shape[0]} pixels; allowed: {size[1]}x{size[0]}")
    first = width + GAP_PX
    restored = sheet[LABEL_PX : LABEL_PX + height, first : first + width].copy()
    detail = sheet[detail_top : detail_top + box_height * times : times, first + (width - box_width * times) // 2 :]
    restored[top : top + box_height, left : left + box_width] = detail[:, : box_width * times : times]
    return restored


def columns(images: Sequence[UInt8[np.ndarray, "H W 3"]], labels: Sequence[str] | None) -> UInt8[np.ndarray, "H2 W2 3"]:
    """Pictures of one size beside each other, each under its label; the pixels are not changed."""
    height, width = images[0].shape[:2]
    top = LABEL_PX if labels else 0
    sheet = np.full((top + height + GAP_PX, len(images) * (width + GAP_PX) - GAP_PX, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        assert image.shape == (height, width, 3), (image.shape, height, width)
        left = index * (width + GAP_PX)
        sheet[top : top + height, left : left + width] = image
        if labels:
            sheet[:top, left : left + width] = _label(labels[index], width)
    return sheet


def _detail_box(blur: np.ndarray, sharp: np.ndarray) -> tuple[int, int, int, int]:
    return worst_box(blur, sharp, *(max(size // DETAIL, 1) for size in blur.shape[:2]))


def worst_box(
    blur: UInt8[np.ndarray, "H W 3"], sharp: UInt8[np.ndarray, "H W 3"], height: int, width: int
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the box of that size in which the blurry frame's squared error is largest."""
    error = np.square(blur.astype(np.float64) - sharp).sum(axis=2)
    integral = np.pad(error.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    summed_rows = integral[height:] - integral[:-height]
    sums = summed_rows[:, width:] - summed_rows[:, :-width]
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(top), int(left), height, width


def _framed(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    top, left, height, width = box
    framed = image.copy()
    framed[[top, top + height - 1], left : left + width] = (255, 0, 0)
    framed[top : top + height, [left, left + width - 1]] = (255, 0, 0)
    return framed


def _detail(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """The box, its pixels repeated to fill the column as far as whole pixels go, centred on white."""
    top, left, height, width = box
    times = image.shape[1] // width
    magnified = image[top : top + height, left : left + width].repeat(times, axis=0).repeat(times, axis=1)
    sheet = np.full((magnified.shape[0], image.shape[1], 3), 255, dtype=np.uint8)
    start = (sheet.shape[1] - magnified.shape[1]) // 2
    sheet[:, start : start + magnified.shape[1]] = magnified
    return sheet


def _label(text: str, width: int) -> UInt8[np.ndarray, "H W 3"]:
    from PIL import Image, ImageDraw, ImageFont

    strip = Image.new("RGB", (width, LABEL_PX), "white")
    ImageDraw.Draw(strip).text((2, 2), text, fill="black", font=ImageFont.load_default(size=14))
    return np.asarray(strip)
