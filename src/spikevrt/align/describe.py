"""What `inspect` shows: a line for a folder, a spike file or footage, and one picture that tells whether spikes are
upright, sharp and of the right size. Nothing is judged.

`draw_preview`: firing rate around a tick (TFP), inverse interval at that tick (TFI), mean over the whole stream; below,
when there is a recording, its blurry and sharp frame. Rates share one scale and are shown with gamma 2.2.
`draw_readings`: a numbered sheet of what a file without a header may hold.

Dimension key: T ticks, h sensor rows, w sensor columns, H and W rows and columns of a panel; sizes are told as
width x height.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from spikevrt.formats.dataset_trees import find_layout
from spikevrt.formats.layouts import NO_OPTIONS, LayoutOptions, layout_recordings
from spikevrt.light import HLG, PQ
from spikevrt.recording.alignment import Alignment
from spikevrt.recording.frames import IMAGE_SUFFIXES, image_size, list_images, write_image
from spikevrt.recording.recording import Recording, open_recording, recordings_in
from spikevrt.recording.sidecar import ROWS, SPIKE_KINDS, SPIKECV_CONFIG, SUFFIX_KINDS
from spikevrt.recording.spike_formats import Found, find_format, open_stream
from spikevrt.recording.stream import PackedStream, SpikeStream
from spikevrt.recording.video import probe_video
from spikevrt.represent.interval import tfi, tfp
from spikevrt.simulate.folders import SPLITS, FootageFolder, find_clips
from spikevrt.typed import amount

if TYPE_CHECKING:
    from jaxtyping import Float

MOST_CLIPS = 20  # of sharp footage that are told one by one
STATED = "the command line"  # the source of a format that the user states


def folder_lines(path: Path, options: LayoutOptions = NO_OPTIONS) -> list[str]:
    """Recordings, the clips of a dataset of a known layout, SpikeCV's spike files, sharp footage, or images."""
    inside = recordings_in(path) or [one for split in SPLITS for one in recordings_in(path / split)]
    if inside:
        return [summary_line(open_recording(root)) for root in inside]
    layout = find_layout(path, options)
    if layout is not None:
        parts = layout_recordings(path, options)
        notes = dict.fromkeys(note for clips in parts.values() for one in clips for note in one.notes.items())
        lines = [f"{path}: dataset of layout {layout.name}", *(f"{about}: {note}" for about, note in notes)]
        return lines + [
            f"{part}, clip {one.name}: {summary_line(one)}" for part, clips in parts.items() for one in clips
        ]
    if (path / SPIKECV_CONFIG).is_file():
        return _tell_spikecv(path)
    found = find_clips(path)
    return footage_lines(path) if found is None else _tell_clips(path, found)


def _tell_clips(path: Path, found: FootageFolder) -> list[str]:
    """How many clips there are, the first of them with their sizes, and what is no sharp footage."""
    lines = [f"{path}: sharp footage without spikes: {found.in_words()}; `spikevrt simulate` makes recordings of it"]
    for clip in found.clips[:MOST_CLIPS]:
        first, *more = footage_lines(clip.source)
        lines += [
            clip.name + first.removeprefix(str(clip.source)),
            *(line for line in more if line.startswith("warning")),
        ]
    lines += [f"and {amount(len(found.clips) - MOST_CLIPS, 'clip')} more"] if len(found.clips) > MOST_CLIPS else []
    return lines + list(found.notes)


def _tell_spikecv(path: Path) -> list[str]:
    """The spike files beside a SpikeCV config.yaml, one a line."""
    streams = sorted(file for file in path.iterdir() if file.suffix.lower() in (".dat", *SUFFIX_KINDS))
    if not streams:
        raise ValueError(f"{path}: a {SPIKECV_CONFIG} but no spike file beside it")
    lines = []
    for file in streams:
        stream, found = open_stream(file), find_format(file)
        lines.append(f"{stream_line(file, stream, found)}, {amount(stream.num_ticks, 'tick')}")
    return lines


def footage_lines(path: Path) -> list[str]:
    """A folder of images, an image or a video."""
    if path.is_dir():
        images = list_images(path)
        sizes = [image_size(image) for image in images]
        height, width = sizes[0]
        lines = [
            f"{path}: {amount(len(images), 'image')}, {width} x {height}",
            f"first {images[0].name}, last {images[-1].name}",
        ]
        num_others = sum(size != sizes[0] for size in sizes)
        return lines + ([f"warning: images of another size than the first: {num_others}"] if num_others else [])
    if path.suffix.lower() in IMAGE_SUFFIXES:
        height, width = image_size(path)
        return [f"{path}: image, {width} x {height}"]
    info = probe_video(path)
    seconds, frames = info.num_frames / info.fps, amount(info.num_frames, "frame")
    lost = [f"warning: pictures that cannot be decoded: {info.num_lost}"] if info.num_lost else []
    depth = f", {info.bits} bits" if info.bits > 8 else ""
    curve = {PQ: ", HDR (PQ)", HLG: ", HDR (HLG)"}.get(info.transfer, "")
    said = f"{info.width} x {info.height}, {frames}, {info.fps:g} fps, {seconds:.3f} s{depth}{curve}"
    return [f"{path}: video, {said}", *lost]


def summary_line(recording: Recording) -> str:
    """A recording in one line."""
    spikes = recording.spikes
    told = "no spikes" if spikes is None else f"{recording.num_ticks} ticks of {spikes.width} x {spikes.height} spikes"
    return (
        f"{recording.root}: {amount(recording.num_frames, 'frame')} of {recording.width} x {recording.height}, "
        f"{sharp_words(recording)}, exposures of {exposure_words(recording)} ticks, {told}"
    )


def sharp_words(recording: Recording) -> str:
    return "with sharp frames" if recording.sharp else "without sharp frames"


def exposure_words(recording: Recording) -> str:
    lengths = sorted({exposure.num_ticks for exposure in recording.exposures})
    return f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"


def alignment_words(alignment: Alignment) -> str:
    """What an alignment moves."""
    drift = f", drift {alignment.drift_ppm:g} ppm" if alignment.drift_ppm else ""
    where = "registered" if alignment.is_spatial else "not registered"
    return f"offset {alignment.offset_ticks:g} ticks{drift}, {where}"


def stream_line(path: Path, stream: SpikeStream, found: Found) -> str:
    """A spike file's format and size, and who says so."""
    size = f"{stream.width} x {stream.height}"
    needs_no_witness = found.source in (STATED, "the file itself")  # the user said it, or the file has a header
    said = "" if needs_no_witness else f" (says {found.source})"
    if isinstance(stream, PackedStream):
        return f"{path}: {packed_words(stream)}{said}"
    if found.format.kind == "sps100":
        return f"{path}: SPS100 half-rows, {size}, line tags right{said}"
    return f"{path}: {'bit' if SPIKE_KINDS[found.format.kind].in_bits else 'un'}packed spike stream, {size}{said}"


def packed_words(stream: PackedStream) -> str:
    geometry = stream.geometry
    tags = f", {geometry.tag_bits} tag bits a row" if geometry.tag_bits else ""
    return (
        f"packed spike stream, {geometry.width} x {geometry.height}, rows {ROWS[geometry.bottom_up]}{tags}, "
        f"{geometry.bytes_per_tick} bytes per tick"
    )


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
    """Write the picture; `read(start, stop)` gives upright ticks. Raises ValueError: the window around `centre` leaves
    the stream."""
    height, width = mean_rate.shape
    start, stop = centre - half_window, centre + half_window + 1
    if half_window < 0 or start < 0 or stop > num_ticks:
        raise ValueError(
            f"centre, half_window: {centre}, {half_window}, ticks [{start}, {stop}); allowed: inside [0, {num_ticks})"
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
