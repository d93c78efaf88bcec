"""The pictures of the report page: the same crop of every method, how far it is from the truth, one edge, some spikes.

Dimension key: H and W rows and columns of a frame, h and w those of a crop, N points of a profile, R and C rows and
columns of a patch of sensor cells, T ticks.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spikevrt.bilinear import read_at
from spikevrt.evaluate.pictures import frame_path, picture_path, restored_column, worst_box
from spikevrt.evaluate.results import ScoredMethod, ScoredRecording
from spikevrt.light import image_to_linear, luminance
from spikevrt.recording.frames import check_size, read_image
from spikevrt.recording.recording import Recording, nearest_ratio, open_recording

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8

CROP_PX = 128
ERROR_LEVELS = 64  # an error of so many of 255 levels is shown white
HEAT = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))  # the colours of rising error
REACH_PX, STEP_PX = 12, 0.5  # of the edge's profile to either side, and between its points
OUTSIDE = 65535  # a cell that looks beside the sensor
MAX_SPIKE_BYTES = 128 * 1024  # of one patch, before base64
TICKS_AT_ONCE = 32
BLUR, SHARP = "blur", "sharp"


@dataclass(frozen=True)
class Crops:
    """One box of one frame: `images` as (label, picture) in the order blur, methods, sharp; `without`: methods of which
    there is no picture. `box` is (top, left, height, width) in pixels of the frame, `whole` the blurry frame.
    """

    recording: Recording
    frame: int
    box: tuple[int, int, int, int]
    whole: UInt8[np.ndarray, "H W 3"]
    images: tuple[tuple[str, UInt8[np.ndarray, "h w 3"]], ...]
    without: tuple[str, ...]


def read_crops(entry: ScoredRecording, methods: Sequence[ScoredMethod], recording: Recording | None = None) -> Crops:
    """Crops of the middle frame, where the blur is worst; a method's frame is the kept one, or comes out of the picture
    that `evaluate` always writes. Without `recording` the one is opened that the results name.

    Raises:
        FileNotFoundError, ValueError: the recording is not there any more, or is another one; or a picture is damaged.
    """
    if recording is None:
        if entry.path is None:
            raise ValueError(f"the results do not say where {entry.name} lies")
        recording = open_recording(entry.path)
    now, then = (recording.num_frames, recording.width, recording.height), (entry.num_frames, entry.width, entry.height)
    if now != then or not recording.sharp:
        raise ValueError(f"{entry.path}: not what was measured: {now} frames, width, height; the results have {then}")
    frame = recording.num_frames // 2
    blur, sharp = recording.read_blur(frame), recording.read_sharp(frame)
    images, without = [(BLUR, blur)], []
    for method in methods:
        if method.name == BLUR and not method.is_network:
            continue
        restored = _restored(method, entry.name, frame, blur, sharp)
        if restored is None:
            without.append(method.name)
        else:
            images.append((method.name, restored))
    images.append((SHARP, sharp))
    height, width = min(CROP_PX, blur.shape[0]), min(CROP_PX, blur.shape[1])
    top, left, height, width = worst_box(blur, sharp, height, width)
    ratio = _ratio(recording)
    top, left = top // ratio * ratio, left // ratio * ratio  # whole cells of the sensor
    box = (top, left, height, width)
    cut = tuple((label, image[top : top + height, left : left + width]) for label, image in images)
    return Crops(recording, frame, box, blur, cut, tuple(without))


def error_map(
    image: UInt8[np.ndarray, "h w 3"], sharp: UInt8[np.ndarray, "h w 3"]
) -> tuple[UInt8[np.ndarray, "h w 3"], float]:
    """|image - sharp|, mean of the channels, from black to light over `ERROR_LEVELS`; and its mean in levels."""
    error = np.abs(image.astype(np.float64) - sharp).mean(axis=2)
    places = np.clip(error / ERROR_LEVELS, 0, 1)
    stops = np.linspace(0, 1, len(HEAT))
    colours = [np.interp(places, stops, [colour[k] for colour in HEAT]) for k in range(3)]
    return np.stack(colours, axis=2).round().astype(np.uint8), float(error.mean())


@dataclass(frozen=True)
class EdgeProfile:
    """Linear luminance along a line across an edge: `values[k]` of picture k at `offsets_px` from its middle."""

    start: tuple[float, float]  # (x, y) in pixels of the crop; 0 is the centre of the first pixel
    stop: tuple[float, float]
    offsets_px: Float[np.ndarray, " N"]
    values: tuple[Float[np.ndarray, " N"], ...]


def edge_profile(images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> EdgeProfile:
    """Across the strongest edge of the last picture, the sharp one, along its gradient, from dark to bright.

    The edge is where the luminance changes most from pixel to pixel after a 3 x 3 mean, so far inside that the line
    fits; read bilinearly.
    """
    lights = [luminance(image_to_linear(image)[None])[0].numpy().astype(np.float64) for image in images]
    height, width = lights[-1].shape
    reach = float(min(REACH_PX, (height - 1) // 2 - 1, (width - 1) // 2 - 1))
    assert reach >= 1, (height, width)
    padded = np.pad(lights[-1], 1, mode="edge")
    around = np.stack([padded[i : i + height, j : j + width] for i in range(3) for j in range(3)])
    down, along = np.gradient(around.mean(axis=0))
    strength = np.hypot(down, along)
    inside = np.zeros_like(strength, dtype=bool)
    margin = int(np.ceil(reach))
    inside[margin : height - margin, margin : width - margin] = True
    y, x = np.unravel_index(int(np.where(inside, strength, -1.0).argmax()), strength.shape)
    length = float(strength[y, x])
    dx, dy = (float(along[y, x]) / length, float(down[y, x]) / length) if length > 0 else (1.0, 0.0)
    offsets = np.arange(-reach, reach + STEP_PX / 2, STEP_PX)
    line = torch.from_numpy(np.stack([x + offsets * dx, y + offsets * dy], axis=-1) + 0.5)
    values = tuple(read_at(torch.from_numpy(light)[None], line)[0].numpy() for light in lights)
    ends = [(float(x + t * dx), float(y + t * dy)) for t in (-reach, reach)]
    return EdgeProfile(ends[0], ends[1], offsets, values)


def spike_patch(crops: Crops) -> dict[str, Any] | None:
    """The spikes under a crop, for the page's raster, as plain values; None where the recording has none.

    From half an exposure before the frame's to half an exposure after it, as far as the stream goes. `cells` is (first
    row, first column, rows, columns) of the patch in cells from the crop's corner, a cell being `ratio` x `ratio`
    pixels; smaller than the crop where all of it would take more than `MAX_SPIKE_BYTES`. `rows` and `columns` say where
    on the sensor each cell looks (65535: beside it), little-endian uint16 in base64; `bits` holds cell after cell, all
    ticks of each, the first in the lowest bit.
    """
    recording = crops.recording
    if recording.spikes is None:
        return None
    exposure, ratio = recording.exposures[crops.frame], _ratio(recording)
    around = exposure.num_ticks // 2
    start, stop = max(exposure.start_tick - around, 0), min(exposure.stop_tick + around, recording.num_ticks)
    top, left, height, width = crops.box
    rows, columns = _sensor_cells(recording, top // ratio, left // ratio, -(-height // ratio), -(-width // ratio))
    side = max(int((MAX_SPIKE_BYTES * 8 / (stop - start)) ** 0.5), 1)
    num_rows, num_columns = min(rows.shape[0], side), min(rows.shape[1], side)
    first_row, first_column = (rows.shape[0] - num_rows) // 2, (rows.shape[1] - num_columns) // 2
    rows = rows[first_row : first_row + num_rows, first_column : first_column + num_columns]
    columns = columns[first_row : first_row + num_rows, first_column : first_column + num_columns]
    is_inside = rows != OUTSIDE
    at = np.where(is_inside, rows, 0), np.where(is_inside, columns, 0)
    pieces = []
    for first in range(start, stop, TICKS_AT_ONCE):
        pieces.append(recording.spikes.read(first, min(first + TICKS_AT_ONCE, stop))[:, at[0], at[1]])
    spikes_TRC = np.concatenate(pieces) * is_inside
    bits = np.packbits(np.moveaxis(spikes_TRC, 0, -1).reshape(-1), bitorder="little")
    return {
        "ratio": ratio,
        "cells": [first_row, first_column, num_rows, num_columns],
        "start": start,
        "ticks": stop - start,
        "rate_hz": recording.tick_rate_hz,
        "exposures": [
            [max(e.start_tick, start), min(e.stop_tick, stop), e.frame_idx]
            for e in recording.exposures
            if e.start_tick < stop and e.stop_tick > start
        ],
        "exposure": [exposure.start_tick, exposure.stop_tick],
        "rows": _base64(rows.astype("<u2").tobytes()),
        "columns": _base64(columns.astype("<u2").tobytes()),
        "bits": _base64(bits.tobytes()),
    }


def data_uri(image: UInt8[np.ndarray, "h w 3"], *, lossless: bool, max_width: int | None = None) -> str:
    """A picture inside the page: lossless WebP, or JPEG (quality 80) made no wider than `max_width`."""
    from PIL import Image

    picture, buffer = Image.fromarray(np.ascontiguousarray(image)), io.BytesIO()
    if max_width is not None and picture.width > max_width:
        picture = picture.resize((max_width, max(round(picture.height * max_width / picture.width), 1)))
    if lossless:
        picture.save(buffer, format="WEBP", lossless=True, quality=100, method=4)
    else:
        picture.save(buffer, format="JPEG", quality=80)
    return f"data:image/{'webp' if lossless else 'jpeg'};base64,{_base64(buffer.getvalue())}"


def _restored(
    method: ScoredMethod, name: str, frame: int, blur: np.ndarray, sharp: np.ndarray
) -> UInt8[np.ndarray, "H W 3"] | None:
    kept, sheet = frame_path(method.folder, method.name, name, frame), picture_path(method.folder, method.name, name)
    if kept.is_file():
        restored = read_image(kept)
        check_size(kept, (restored.shape[0], restored.shape[1]), (blur.shape[0], blur.shape[1]))
        return restored
    if sheet.is_file():
        try:
            return restored_column(read_image(sheet), blur, sharp)
        except ValueError as error:
            raise ValueError(str(error) if str(sheet) in str(error) else f"{sheet}: {error}") from None
    return None


def _ratio(recording: Recording) -> int:
    if recording.spikes is None:
        return 1
    return nearest_ratio(recording.height, recording.width, recording.spikes.height, recording.spikes.width)


def _sensor_cells(recording: Recording, top: int, left: int, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """The sensor's (rows, columns) under cells of the frame's grid, the nearest pixel each; `OUTSIDE` beside it."""
    assert recording.spikes is not None
    positions = recording.sensor_positions
    if positions is None:
        y, x = np.mgrid[top : top + rows, left : left + columns]
    else:
        cells = positions[top : top + rows, left : left + columns]
        x, y = (np.floor(cells[..., k]).astype(np.int64) for k in (0, 1))
    is_inside = (x >= 0) & (y >= 0) & (x < recording.spikes.width) & (y < recording.spikes.height)
    return np.where(is_inside, y, OUTSIDE), np.where(is_inside, x, OUTSIDE)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
