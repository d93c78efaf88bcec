"""Look before you compute: what a file holds, whether its geometry is right, and which pixels are broken.

Dimension key: T ticks, h sensor rows, w sensor columns, H and W rows and columns of a frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spikevrt.align.preview import draw_preview
from spikevrt.recording.frames import IMAGE_SUFFIXES, image_size, list_images
from spikevrt.recording.recording import Recording, open_recording, recordings_in
from spikevrt.recording.sidecar import ROWS, SIDECAR
from spikevrt.recording.spike_file import (
    UNPACKED_SUFFIXES,
    SpikeGeometry,
    count_ticks,
    read_spikes,
    read_unpacked,
    sha256_file,
)
from spikevrt.recording.stream import PackedStream
from spikevrt.recording.video import VIDEO_SUFFIXES, probe_video

if TYPE_CHECKING:
    from jaxtyping import Float, Int

# (width, height) of the sensors and datasets that we know of; only ever offered, never assumed
KNOWN_SIZES = (
    *((400, 250), (416, 250), (1000, 1000), (1024, 1000), (800, 500), (1280, 720), (640, 360), (320, 180)),
    *((480, 270), (240, 136), (512, 512), (384, 384), (256, 256), (250, 250), (128, 128), (96, 96)),
)
ASSUMED_TICK_RATE_HZ = 20000.0  # of a loose stream: only its duration in seconds depends on it
CHUNK_BITS = 1 << 25  # pixels times ticks that are unpacked at once
HALF_WINDOW_TICKS = 20  # of the preview's firing rate
PROBE_TICKS = 256  # ticks that decide how likely a geometry is
DEAD_MIN_EXPECTED = 10  # spikes that the neighbourhood must fire before silence counts as death
HOT_FACTOR = 3.0
SATURATED_RATE = 0.99
POOR_CORRELATION = 0.3


@dataclass(frozen=True)
class SpikeStream:
    """Any source of upright ticks: `read(start, stop)` gives uint8 (T, h, w)."""

    name: str
    num_ticks: int
    height: int
    width: int
    read: Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class SpikeHealth:
    """Counts per pixel over the whole stream, and what they say."""

    counts: Int[np.ndarray, "h w"]
    num_ticks: int
    num_empty_ticks: int
    num_dead: int
    num_hot: int
    num_saturated: int
    row_correlation: float

    @property
    def rate(self) -> Float[np.ndarray, "h w"]:
        return self.counts / self.num_ticks


def inspect(
    path: Path,
    *,
    width: int | None = None,
    height: int | None = None,
    top_down: bool = False,
    out: Path | None = None,
    centre: int | None = None,
    half_window: int | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Describe a recording folder, a packed or unpacked spike file, a folder of images or a video, one fact a line;
    a folder of recordings, one recording a line.

    `width`, `height` and `top_down` belong to packed streams, which do not know them. `out` is the preview's path
    (none: no picture); `centre` (a tick; the middle) and `half_window` (ticks; 20) choose what it shows, and
    `overwrite` lets it replace a file.

    Raises:
        FileNotFoundError: no such path.
        FileExistsError: `out` exists and `overwrite` is not set.
        ValueError: a packed stream without a size (the message lists the sizes that fit), a size that does not fit, an
            option that this kind of file does not have, or a broken file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such recording, spike file, image folder or video")
    for name, is_given in (
        ("centre", centre is not None),
        ("half_window", half_window is not None),
        ("overwrite", overwrite),
    ):
        if out is None and is_given:
            raise ValueError(f"{name}: is for the preview; allowed: only with out")
    if out is not None and Path(out).exists() and not (overwrite and Path(out).is_file()):
        hint = " or pass --overwrite" if Path(out).is_file() else ""
        raise FileExistsError(f"{out}: exists; choose another --out{hint}")
    suffix = path.suffix.lower()
    is_folder, is_recording = path.is_dir(), (path / SIDECAR).is_file()
    is_footage = not is_recording and (is_folder or suffix in VIDEO_SUFFIXES + IMAGE_SUFFIXES)
    is_packed = not is_folder and not is_footage and suffix not in UNPACKED_SUFFIXES
    if not is_packed and (width is not None or height is not None or top_down):
        raise ValueError(f"{path}: width, height and top_down are for packed spike files; this one tells them itself")
    if is_footage:
        inside = recordings_in(path)
        if out is not None:
            what = "a folder of recordings; name one of them" if inside else "plain footage"
            raise ValueError(f"{path}: out is for spikes; this is {what}")
        return [_summary_line(open_recording(root)) for root in inside] or _footage_lines(path)

    recording = open_recording(path) if is_recording else None
    if recording is not None:
        stream, lines = _recording_stream(recording), _recording_lines(recording)
        if centre is None:
            middle = recording.exposures[recording.num_frames // 2]
            centre = (middle.start_tick + middle.stop_tick) // 2
    elif is_packed:
        stream, lines = _packed_stream(path, width, height, top_down)
    else:
        stream = _unpacked_stream(path)
        lines = [f"{path}: unpacked spike stream, {stream.width} x {stream.height}"]
    health = measure_health(stream)
    lines += _health_lines(health, recording.tick_rate_hz if recording is not None else None)
    if recording is not None:
        lines += _pairing_lines(recording)
    if is_packed:
        lines += _doubt_lines(path, SpikeGeometry(stream.width, stream.height, not top_down))
    if out is not None:
        draw_preview(
            Path(out),
            stream.read,
            health.rate,
            num_ticks=stream.num_ticks,
            centre=stream.num_ticks // 2 if centre is None else centre,
            half_window=HALF_WINDOW_TICKS if half_window is None else half_window,
            recording=recording,
        )
        lines.append(f"preview -> {out}")
    return lines


def measure_health(stream: SpikeStream) -> SpikeHealth:
    """One pass over the stream in bounded memory.

    Dead: a pixel that never fires while the median of its 5 x 5 neighbourhood fires at least 10 times. Hot: one that
    fires more than 3 times as often (and 10 spikes more) as all but one of its 8 neighbours. Saturated: it fires in
    99 % of all ticks, so that its light is not known.
    """
    counts = np.zeros((stream.height, stream.width), dtype=np.int64)
    num_empty = 0
    step = min(max(1, CHUNK_BITS // (stream.height * stream.width)), np.iinfo(np.uint16).max)
    for start in range(0, stream.num_ticks, step):
        spikes = stream.read(start, min(start + step, stream.num_ticks))
        counts += spikes.sum(axis=0, dtype=np.uint16)
        num_empty += int((~spikes.any(axis=(1, 2))).sum())
    dead = (counts == 0) & (_neighbourhood(counts, 2, lambda values: np.median(values, axis=-1)) >= DEAD_MIN_EXPECTED)
    # of the 3 x 3 values (the pixel among them) the third largest is the second largest neighbour of a hot pixel
    second = _neighbourhood(counts, 1, lambda values: np.partition(values, -3, axis=-1)[..., -3])
    hot = counts > HOT_FACTOR * second + DEAD_MIN_EXPECTED
    return SpikeHealth(
        counts=counts,
        num_ticks=stream.num_ticks,
        num_empty_ticks=num_empty,
        num_dead=int(dead.sum()),
        num_hot=int(hot.sum()),
        num_saturated=int((counts >= SATURATED_RATE * stream.num_ticks).sum()),
        row_correlation=row_correlation(counts),
    )


def row_correlation(image: np.ndarray) -> float:
    """Correlation of each row with the next one: near 1 for a scene, near 0 when the width is wrong; NaN if flat."""
    if image.shape[0] < 2:
        return float("nan")
    return _correlation(image[:-1], image[1:])


def plausible_sizes(path: Path, *, bottom_up: bool = True) -> list[tuple[int, int, int, float]]:
    """(width, height, num_ticks, row correlation) of every known size that fits the file, the likeliest first."""
    num_bytes = path.stat().st_size
    found = []
    for width, height in KNOWN_SIZES:
        geometry = SpikeGeometry(width, height, bottom_up)
        num_ticks, remainder = divmod(num_bytes, geometry.bytes_per_tick)
        if num_ticks and not remainder:
            rate = read_spikes(path, geometry, 0, min(num_ticks, PROBE_TICKS)).sum(axis=0, dtype=np.int64)
            found.append((width, height, num_ticks, row_correlation(rate)))
    return sorted(found, key=lambda entry: -np.nan_to_num(entry[3]))


def _packed_stream(path: Path, width: int | None, height: int | None, top_down: bool) -> tuple[SpikeStream, list[str]]:
    if width is None or height is None:
        sizes = plausible_sizes(path, bottom_up=not top_down)
        listed = ", ".join(f"{w}x{h} ({ticks} ticks, row correlation {score:.2f})" for w, h, ticks, score in sizes)
        raise ValueError(
            f"{path}: {path.stat().st_size} bytes of packed spikes do not tell their size; pass width and height; "
            f"known sizes that fit, likeliest first: {listed or 'none'}"
        )
    geometry = SpikeGeometry(width, height, not top_down)
    stream = SpikeStream(
        path.name,
        count_ticks(path, geometry),
        height,
        width,
        lambda start, stop: read_spikes(path, geometry, start, stop),
    )
    rows = ROWS[geometry.bottom_up]
    return stream, [
        f"{path}: packed spike stream, {width} x {height}, rows {rows}, {geometry.bytes_per_tick} bytes per tick"
    ]


def _unpacked_stream(path: Path) -> SpikeStream:
    spikes = read_unpacked(path)
    num_ticks, height, width = spikes.shape
    if not spikes.size:
        raise ValueError(f"{path}: no spikes in it, shape {spikes.shape}")
    return SpikeStream(path.name, num_ticks, height, width, lambda start, stop: spikes[start:stop])


def _recording_stream(recording: Recording) -> SpikeStream:
    spikes = recording.spikes
    assert spikes is not None, "a recording folder always has spikes"
    return SpikeStream(recording.name, recording.num_ticks, spikes.height, spikes.width, spikes.read)


def _footage_lines(path: Path) -> list[str]:
    if path.is_dir():
        images = list_images(path)
        sizes = [image_size(image) for image in images]
        height, width = sizes[0]
        lines = [
            f"{path}: {len(images)} images, {width} x {height}",
            f"first {images[0].name}, last {images[-1].name}",
        ]
        num_others = sum(size != sizes[0] for size in sizes)
        return lines + ([f"warning: {num_others} images have another size than the first"] if num_others else [])
    if path.suffix.lower() in IMAGE_SUFFIXES:
        height, width = image_size(path)
        return [f"{path}: image, {width} x {height}"]
    info = probe_video(path)
    seconds = info.num_frames / info.fps
    return [f"{path}: video, {info.width} x {info.height}, {info.num_frames} frames, {info.fps:g} fps, {seconds:.3f} s"]


def _summary_line(recording: Recording) -> str:
    assert recording.spikes is not None
    return (
        f"{recording.root}: {recording.num_frames} frames of {recording.width} x {recording.height}, "
        f"{_sharp(recording)}, exposures of {_exposure_ticks(recording)} ticks, "
        f"{recording.num_ticks} ticks of {recording.spikes.width} x {recording.spikes.height} spikes"
    )


def _sharp(recording: Recording) -> str:
    return "with sharp frames" if recording.sharp else "without sharp frames"


def _exposure_ticks(recording: Recording) -> str:
    lengths = sorted({exposure.stop_tick - exposure.start_tick for exposure in recording.exposures})
    return f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"


def _recording_lines(recording: Recording) -> list[str]:
    assert isinstance(recording.spikes, PackedStream)
    geometry, first = recording.spikes.geometry, recording.exposures[0]
    return [
        f"{recording.root}: recording, {recording.num_frames} frames of {recording.width} x {recording.height}, "
        f"{recording.fps:g} fps, {_sharp(recording)}",
        f"spikes {geometry.width} x {geometry.height}, rows {ROWS[geometry.bottom_up]}, "
        f"{geometry.bytes_per_tick} bytes per tick",
        f"exposures of {_exposure_ticks(recording)} ticks, the first from tick {first.start_tick}, "
        f"{first.t0_s:.6f} s to {first.t1_s:.6f} s",
    ]


def _health_lines(health: SpikeHealth, tick_rate_hz: float | None) -> list[str]:
    hz = tick_rate_hz or ASSUMED_TICK_RATE_HZ
    assumed = "" if tick_rate_hz else " (assumed)"
    low, high = np.percentile(health.rate, [1, 99])
    lines = [
        f"{health.num_ticks} ticks, {health.num_ticks / hz:.6f} s at {hz:g} Hz{assumed}",
        f"mean rate {health.rate.mean():.4f} spikes per tick, 1 % of pixels below {low:.4f}, 1 % above {high:.4f}",
        f"pixels: {health.num_dead} dead, {health.num_hot} hot, {health.num_saturated} saturated, "
        f"of {health.counts.size}",
    ]
    if not health.counts.any():
        lines.append("warning: no spike at all")
    elif health.num_empty_ticks:
        lines.append(f"warning: {health.num_empty_ticks} ticks without any spike")
    lines.append(f"row correlation {health.row_correlation:.3f}")
    if health.row_correlation < POOR_CORRELATION:
        lines.append("warning: neighbouring rows do not resemble each other; are width and height right?")
    return lines


def _doubt_lines(path: Path, geometry: SpikeGeometry) -> list[str]:
    """Warn when a known size fits the file and explains it better than the size given."""
    sizes = plausible_sizes(path, bottom_up=geometry.bottom_up)
    num_ticks = min(count_ticks(path, geometry), PROBE_TICKS)
    given = np.nan_to_num(row_correlation(read_spikes(path, geometry, 0, num_ticks).sum(axis=0, dtype=np.int64)))
    if sizes and sizes[0][3] > given + 0.1:
        width, height, _, score = sizes[0]
        return [f"warning: {width} x {height} fits better (row correlation {score:.3f} against {given:.3f})"]
    return []


def _pairing_lines(recording: Recording) -> list[str]:
    """Do the spikes show what the frames show: checksum, orientation, gain."""
    assert recording.spikes is not None
    index = recording.num_frames // 2
    rate = recording.read_exposure_spikes(index).mean(axis=0, dtype=np.float64)
    light = _approximate_light(recording.read_blur(index), rate.shape)
    turns = {
        "upright": rate,
        "rows flipped": rate[::-1],
        "columns flipped": rate[:, ::-1],
        "turned by 180 degrees": rate[::-1, ::-1],
    }
    scores = {name: _correlation(turned, light) for name, turned in turns.items()}
    best = max(scores, key=lambda name: np.nan_to_num(scores[name], nan=-1.0))
    gain = rate.mean() / max(light.mean(), 1e-9)
    lines = [f"spikes against blurry frame {index}: correlation {scores['upright']:.3f}, gain about {gain:.2f}"]
    if best != "upright" and scores[best] > np.nan_to_num(scores["upright"], nan=-1.0) + 0.05:
        lines.append(f"warning: the spikes fit the frame better with {best} (correlation {scores[best]:.3f})")
    stored = recording.stored_sha256
    if stored and sha256_file(recording.spikes.files[0]) != stored:
        lines.append(f"warning: {recording.spikes.files[0]} is not the file that was recorded (sha256 differs)")
    return lines


def _approximate_light(image: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Linear luminance (gamma 2.2), averaged down to the sensor's size: good enough to compare, not to simulate."""
    from PIL import Image

    luminance = ((image / 255.0) ** 2.2 @ np.array([0.2126, 0.7152, 0.0722])).astype(np.float32)
    return np.asarray(Image.fromarray(luminance).resize((size[1], size[0]), Image.Resampling.BOX), dtype=np.float64)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale > 0 else float("nan")


def _neighbourhood(values: np.ndarray, radius: int, reduce: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Reduce the (2 radius + 1)^2 values around each pixel (mirrored at the border), 64 rows at a time."""
    size = 2 * radius + 1
    padded = np.pad(values, radius, mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size))
    blocks = [windows[row : row + 64].reshape(-1, values.shape[1], size * size) for row in range(0, len(values), 64)]
    return np.concatenate([reduce(block) for block in blocks])
