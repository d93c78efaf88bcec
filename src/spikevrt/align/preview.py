"""One picture that tells whether spikes are upright, sharp and of the right size.

`draw_preview`: firing rate around a tick (TFP), inverse interval at that tick (TFI), mean over the whole stream; below,
when there is a recording, its blurry and sharp frame. Rates share one scale and are shown with gamma 2.2.
`draw_readings`: a numbered sheet of what a file without a header may hold.

Dimension key: T ticks, h sensor rows, w sensor columns, H and W rows and columns of a panel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from spikevrt.recording.frames import write_image
from spikevrt.recording.recording import Recording
from spikevrt.represent.interval import tfi
from spikevrt.represent.rate import tfp

if TYPE_CHECKING:
    from jaxtyping import Float

SHEET_COLUMNS, SHEET_PX = 4, 240  # of the sheet of readings: cells a row, a cell's width
INTERVAL_BITS = 1 << 26  # pixels times ticks that are searched for the two spikes around the tick
MAX_INTERVAL_TICKS = 512
MIN_PANEL_PX = 320
LABEL_PX = 16


def draw_preview(
    out: Path,
    read: Callable[[int, int], np.ndarray],
    mean_rate: Float[np.ndarray, "h w"],
    *,
    num_ticks: int,
    centre: int,
    half_window: int,
    recording: Recording | None,
) -> None:
    """Write the picture; `read(start, stop)` gives upright ticks.

    Raises:
        ValueError: the window around `centre` leaves the stream.
    """
    height, width = mean_rate.shape
    start, stop = centre - half_window, centre + half_window + 1
    if half_window < 0 or start < 0 or stop > num_ticks:
        raise ValueError(
            f"centre {centre}, half_window {half_window}: ticks [{start}, {stop}); allowed: inside [0, {num_ticks})"
        )
    rate = tfp(torch.from_numpy(read(start, stop)), half_window, half_window).numpy()
    reach = max(1, min(MAX_INTERVAL_TICKS, INTERVAL_BITS // (2 * height * width)))
    first, last = max(0, centre - reach), min(num_ticks, centre + reach)
    interval = tfi(torch.from_numpy(read(first, last)), centre - first).numpy()
    white = max(float(np.percentile(mean_rate, 99.5)), 1e-6)
    panels = [
        (f"TFP, ticks {start} to {stop - 1}", _grey(rate, white)),
        (f"TFI, tick {centre}", _grey(interval, white)),
        (f"mean of {num_ticks} ticks", _grey(mean_rate, white)),
    ]
    if recording is not None:
        middles = [abs(exposure.start_tick + exposure.stop_tick - 2 * centre) for exposure in recording.exposures]
        index = int(np.argmin(middles))
        panels.append((f"blurry frame {index}", recording.read_blur(index)))
        if recording.sharp:
            panels.append((f"sharp frame {index}", recording.read_sharp(index)))
    write_image(out, _compose(panels, height, width))


def draw_readings(out: Path, readings: Sequence[tuple[str, Float[np.ndarray, "h w"]]]) -> None:
    """Write one picture with a cell for each (label, mean rate), in the order given, four a row; each cell has its own
    brightness and fills a square."""
    from PIL import Image, ImageDraw

    num_rows = -(-len(readings) // SHEET_COLUMNS)
    num_columns = min(len(readings), SHEET_COLUMNS)
    sheet = Image.new("RGB", (num_columns * SHEET_PX, num_rows * (SHEET_PX + LABEL_PX)))
    draw = ImageDraw.Draw(sheet)
    for index, (label, picture) in enumerate(readings):
        left, top = index % SHEET_COLUMNS * SHEET_PX, index // SHEET_COLUMNS * (SHEET_PX + LABEL_PX)
        scale = (SHEET_PX - 4) / max(picture.shape)
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        white = max(float(np.percentile(picture, 99.5)), 1e-6)
        resampling = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
        sheet.paste(Image.fromarray(_grey(picture, white)).resize(size, resampling), (left + 2, top + LABEL_PX))
        draw.text((left + 4, top + 2), label, fill=(255, 255, 255))
    write_image(out, np.asarray(sheet))


def _grey(rate: np.ndarray, white: float) -> np.ndarray:
    levels = (np.clip(rate / white, 0.0, 1.0) ** (1 / 2.2) * 255).round().astype(np.uint8)
    return np.repeat(levels[:, :, None], 3, axis=2)


def _compose(panels: Sequence[tuple[str, np.ndarray]], height: int, width: int) -> np.ndarray:
    """Three panels a row, each `scale` times the sensor's size, a label above it."""
    from PIL import Image, ImageDraw

    scale = -(-MIN_PANEL_PX // width)
    height, width = height * scale, width * scale
    num_rows = -(-len(panels) // 3)
    sheet = Image.new("RGB", (3 * width, num_rows * (height + LABEL_PX)))
    draw = ImageDraw.Draw(sheet)
    for index, (label, image) in enumerate(panels):
        left, top = index % 3 * width, index // 3 * (height + LABEL_PX)
        enlarges = image.shape[1] <= width
        resampling = Image.Resampling.NEAREST if enlarges else Image.Resampling.BOX
        sheet.paste(Image.fromarray(image).resize((width, height), resampling), (left, top + LABEL_PX))
        draw.text((left + 4, top + 2), label, fill=(255, 255, 255))
    return np.asarray(sheet)
