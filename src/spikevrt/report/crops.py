"""The pictures of the results page: the same crop of every method, how far it is from the truth, one edge, some
spikes, and the videos that were kept.

Dimension key: H and W rows and columns of a frame, h and w those of a crop, N points of a profile, R and C rows and
columns of a patch of sensor cells, T ticks.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spikevrt.evaluate.pictures import frame_path, picture_path, restored_column, video_path, worst_box
from spikevrt.evaluate.results import Results, ScoredMethod, ScoredRecording
from spikevrt.light import image_to_linear, luminance
from spikevrt.recording.alignment import nearest_ratio, read_at
from spikevrt.recording.frames import check_size, read_image
from spikevrt.recording.recording import Recording, open_recording
from spikevrt.report import data_of, data_uri, render
from spikevrt.report.charts import Chart, Curve, line_chart

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8

CROP_PX = 128
WHOLE_PX = 520  # the widest that a whole frame is stored
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


def gallery(
    results: Results,
    entry: ScoredRecording,
    index: int,
    frames: Chart,
    ranking: Sequence[str],
    recording: Recording | None = None,
) -> str:
    """The HTML of one recording, the page's `index`-th; the slider opens on the blurry input and the best method of
    `ranking`. Where the recording cannot be opened, or differs, a line says why.
    """
    try:
        crops = read_crops(entry, results.methods, recording)
        patch = spike_patch(crops)
    except (ValueError, OSError) as error:
        problem = " ".join(str(error).split())
        return render("gallery.html", name=entry.name, problem=problem, frames=frames)
    labels, sharp = [label for label, _ in crops.images], crops.images[-1][1]
    top, left, height, width = crops.box
    rows, num_columns = crops.whole.shape[:2]
    profile = edge_profile([image for _, image in crops.images])
    names = [method.name for method in results.methods]
    curves = [
        Curve(label, None if k == len(labels) - 1 else names.index(label) if label in names else 0,
              tuple(zip(profile.offsets_px.tolist(), profile.values[k].tolist(), strict=True)))
        for k, label in enumerate(labels)
    ]  # fmt: skip
    views = []
    for label, image in crops.images:
        errors, mean_error = error_map(image, sharp)
        views.append({"label": label, "picture": data_uri(image, lossless=True),
                      "error": data_uri(errors, lossless=True), "mean_error": mean_error})  # fmt: skip
    (x0, y0), (x1, y1) = ([value + 0.5 for value in point] for point in (profile.start, profile.stop))
    videos = [video_path(method.folder, "side_by_side", entry.name) for method in results.methods]
    video = next((path for path in videos if path.is_file()), None)
    return render(
        "gallery.html",
        name=entry.name, problem=None, frames=frames, index=index,
        intro=_intro(entry, crops.frame, crops.box, crops.without), width=width, height=height, views=views,
        edge_path=f"M{x0:.2f} {y0:.2f}L{x1:.2f} {y1:.2f}",
        best=next((labels.index(name) for name in ranking if name in labels[1:]), len(labels) - 1),
        whole=data_uri(crops.whole, lossless=False, max_width=WHOLE_PX),
        box=f"left: {100 * left / num_columns:.2f}%; top: {100 * top / rows:.2f}%; "
            f"width: {100 * width / num_columns:.2f}%; height: {100 * height / rows:.2f}%",
        edge=line_chart(curves, title="Across the strongest edge, along the yellow line in the crop",
                        along="px along the line", upward="linear luminance", spec=".3f", marks=False),
        heat=", ".join(f"rgb{colour}" for colour in HEAT), error_levels=ERROR_LEVELS,
        video=None if video is None else data_of(video.read_bytes(), "video/mp4"),
        video_columns=", ".join(["blur", *(m.name for m in results.methods if m.is_network), "sharp"]),
        patch=None if patch is None else {**patch, "outside": OUTSIDE},
        patch_box=_patch_box(patch, height, width), shutters=_shutters(patch),
    )  # fmt: skip


def _intro(entry: ScoredRecording, frame: int, box: tuple[int, int, int, int], without: Sequence[str]) -> str:
    top, left, height, width = box
    text = f"Frame {frame}, counted from 0, of {entry.num_frames}; its {width} x {height} pixels from column "
    text += f"{left} and row {top} on, where the blurry frame is furthest from the sharp one."
    if entry.captured is not None:
        text += f" Condition {entry.captured.name}: "
        text += ", ".join(f"{key} {value}" for key, value in entry.captured.values.items()) + "."
    return text + (f" No frame was kept of {', '.join(without)}." if without else "")


def _patch_box(patch: dict[str, Any] | None, height: int, width: int) -> tuple[int, int, int, int] | None:
    """Where the spikes are, (x, y, width, height) in pixels of the crop; None where that is the whole crop."""
    if patch is None:
        return None
    row, column, rows, num_columns = (value * patch["ratio"] for value in patch["cells"])
    return None if rows >= height and num_columns >= width else (column, row, num_columns, rows)


def _shutters(patch: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The exposures over the ticks of a patch, as shares of its length."""
    if patch is None:
        return []
    start, ticks = patch["start"], patch["ticks"]
    return [
        {"left": (a - start) / ticks, "width": (b - a) / ticks, "frame": frame, "is_this": [a, b] == patch["exposure"]}
        for a, b, frame in patch["exposures"]
    ]


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
