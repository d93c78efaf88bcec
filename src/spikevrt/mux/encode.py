"""Frames -> encoded video, in segments that join without encoding again (`join`).

A segment is an MP4 whatever its name: it starts with a key frame, has no frames out of order, and states every
timestamp exactly. Threads are set by number, not by the machine, so equal frames give equal bytes.

What is written: lossy video is YUV 4:2:0 of limited range, its chroma to the left as in MPEG-2 (which the file says),
with the matrix of BT.2020 where the primaries are BT.2020's and that of BT.709 otherwise; lossless video is RGB of full
range. Primaries and transfer are tags and change no value.

Dimension key: H rows, W columns, 3 colours (RGB).
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikevrt.atomic import complete_or_absent
from spikevrt.light import BT709, BT2020, EXACT_COLOUR_WORDS, FULL_RANGE, HLG, LIMITED_RANGE, PQ, RGB
from spikevrt.recording.recording import Recording
from spikevrt.recording.video import VideoInfo
from spikevrt.restore.options import DEFAULT_CRF, MIN_SIDE, VideoFormat

if TYPE_CHECKING:
    from jaxtyping import UInt8, UInt16

NUM_THREADS = 4  # of an encoder, on every machine: H.264's bytes depend on it
GOP_FRAMES = 250
LOWER_CRF = {PQ: 6, HLG: 2}  # for files as large as those of sRGB: benchmarks/hdr_crf.py
MAX_TIMESCALE = 2**31 - 1


@dataclass(frozen=True)
class VideoTags:
    """What a file says of its upright frames: pixel aspect (width / height), and FFmpeg's codes of the colours.

    `primaries` and `transfer`: 1 is BT.709, 2 unspecified, 9 BT.2020 (primaries), 16 PQ and 18 HLG (transfer).
    """

    sample_aspect: Fraction = Fraction(1)
    primaries: int = BT709
    transfer: int = BT709


def tags_of(info: VideoInfo) -> VideoTags:
    """The tags of a video that was measured."""
    return VideoTags(info.sample_aspect, info.primaries, info.transfer)


def check_size(height: int, width: int, format: VideoFormat) -> None:
    """Raises ValueError where the encoder cannot take pictures so small."""
    if format.codec in ("hevc", "av1") and min(height, width) < MIN_SIDE:
        allowed = f"{MIN_SIDE}x{MIN_SIDE} or larger, or h264"
        raise ValueError(f"codec: {format.codec} of {width}x{height} pixels; allowed: {allowed}")


def write_segment(
    path: Path,
    frames: Iterable[tuple[int, UInt8[np.ndarray, "H W 3"] | UInt16[np.ndarray, "H W 3"]]],
    *,
    time_base: Fraction,
    fps: float,
    format: VideoFormat,
    tags: VideoTags,
) -> int:
    """Encode (pts, image) pairs as a segment, named only when complete; returns the number of frames.

    `pts` are in units of `time_base`, at least 0 and rising; `fps` is nominal (rate control, headers) and must be the
    same for all segments that will be joined. uint16 images have 65535 as white; they and uint8 images are brought to
    `format.bits`. Lossy video of odd sizes gets its last row or column twice. Equal frames give equal bytes.

    Raises:
        ValueError: no frames, frames of different sizes, or too small ones (`check_size`), timestamps that do not
            rise, a `time_base` finer than MP4 can state, or `fps` not above 0.
    """
    path = Path(path)
    with complete_or_absent(path) as partial:
        return _encode(path, partial, frames, time_base, rate(fps), format, tags)


def rate(fps: float) -> Fraction:
    """Frames a second as a fraction of a denominator up to 1001. Raises ValueError unless above 0."""
    if not 0 < fps < math.inf:
        raise ValueError(f"fps: {fps}; allowed: above 0")
    return Fraction(fps).limit_denominator(1001) or Fraction(1, 1001)


def _encode(
    path: Path,
    partial: Path,
    frames: Iterable[tuple[int, np.ndarray]],
    time_base: Fraction,
    frame_rate: Fraction,
    format: VideoFormat,
    tags: VideoTags,
) -> int:
    import av
    from av.error import FFmpegError

    if not 0 < time_base.denominator <= MAX_TIMESCALE or time_base <= 0:
        raise ValueError(f"time_base: {time_base}; allowed: above 0, with a denominator up to {MAX_TIMESCALE}")
    durations: dict[int, int] = {}
    size, num_frames = None, 0
    scale = str(time_base.denominator)
    options = {"fflags": "+bitexact", "video_track_timescale": scale, "movie_timescale": scale}
    os.environ.setdefault("SVT_LOG", "1")  # else SVT-AV1 describes itself on stderr
    with av.open(str(partial), "w", format="mp4", container_options=options) as container:
        stream: Any = None
        for pts, duration, image in _with_durations(path, frames, time_base, frame_rate):
            if size is None:
                size = (image.shape[0], image.shape[1])
                format = format.settled(side=min(size))
                check_size(*size, format)
                stream = _add_stream(container, size, frame_rate, format, tags)
                to_frame = _converter(image, format, tags)
                # numerators other than 1 (1001/30000) go into the timestamps: MP4 counts in whole fractions
                stream.codec_context.time_base = Fraction(1, time_base.denominator)
            if image.shape[:2] != size:
                raise ValueError(f"{path}: a frame of {image.shape[1]}x{image.shape[0]} after {size[1]}x{size[0]}")
            frame = to_frame(image)
            frame.pts, frame.time_base = pts * time_base.numerator, Fraction(1, time_base.denominator)
            durations[frame.pts] = duration * time_base.numerator
            num_frames += 1
            try:
                _mux(container, stream.encode(frame), durations)
            except FFmpegError as error:
                raise ValueError(f"{path}: {format} of {size[1]}x{size[0]}: {error.strerror}") from None
        if size is None:
            raise ValueError(f"{path}: no frames to write")
        _mux(container, stream.encode(), durations)
    return num_frames


def _mux(container: Any, packets: list[Any], durations: dict[int, int]) -> None:
    for packet in packets:
        packet.duration = durations.pop(packet.pts)
        container.mux(packet)


def _with_durations(
    path: Path, frames: Iterable[tuple[int, np.ndarray]], time_base: Fraction, frame_rate: Fraction
) -> Iterator[tuple[int, int, np.ndarray]]:
    """(pts, how long it is shown, image); the last one is shown as long as the one before it."""
    duration = max(1, round(1 / (frame_rate * time_base)))
    before: tuple[int, np.ndarray] | None = None
    for pts, image in frames:
        if pts < 0 or (before is not None and pts <= before[0]):
            raise ValueError(f"{path}: a frame at {pts} after {before[0] if before else 0}; allowed: rising, from 0")
        if before is not None:
            duration = pts - before[0]
            yield before[0], duration, before[1]
        before = pts, image
    if before is not None:
        yield before[0], duration, before[1]


def _add_stream(
    container: Any, size: tuple[int, int], frame_rate: Fraction, format: VideoFormat, tags: VideoTags
) -> Any:
    height, width = size if format.is_lossless else (size[0] + size[0] % 2, size[1] + size[1] % 2)
    name, pixels, options = _encoder(format, tags)
    options = {
        **options,
        "threads": str(NUM_THREADS),
        **({} if format.is_lossless else {"chroma_sample_location": "left"}),
    }
    stream: Any = container.add_stream(name, rate=frame_rate, options=options)
    stream.height, stream.width, stream.pix_fmt = height, width, pixels
    context = stream.codec_context
    context.max_b_frames, context.gop_size = 0, 1 if format.codec == "ffv1" else GOP_FRAMES
    context.sample_aspect_ratio = tags.sample_aspect
    context.color_primaries, context.color_trc = tags.primaries, tags.transfer
    context.colorspace = RGB if format.is_lossless else _matrix(tags)
    context.color_range = FULL_RANGE if format.is_lossless else LIMITED_RANGE
    return stream


def _encoder(format: VideoFormat, tags: VideoTags) -> tuple[str, str, dict[str, str]]:
    """FFmpeg's name of the encoder, its pixels, its options."""
    usual = DEFAULT_CRF.get(format.codec or "", 0) - LOWER_CRF.get(tags.transfer, 0)
    crf = {"crf": str(format.crf or usual)}
    yuv = "yuv420p10le" if format.bits == 10 else "yuv420p"
    rgb = "gbrp10le" if format.bits == 10 else "gbrp"
    if format.codec == "h264":
        fixed = {"x264-params": "sliced-threads=0:open-gop=0"}
        return ("libx264rgb", "rgb24", {"qp": "0", **fixed}) if format.lossless else ("libx264", yuv, {**crf, **fixed})
    if format.codec == "hevc":
        fixed_x265 = "log-level=none:info=0:frame-threads=1:pools=2:open-gop=0:bframes=0"
        if format.lossless:
            return "libx265", rgb, {"x265-params": f"{fixed_x265}:lossless=1"}
        return "libx265", yuv, {**crf, "x265-params": fixed_x265}
    if format.codec == "av1":
        # presets from 8 on, the encoder's default, code big changes of 10 bits wrong (a third too small at crf 4)
        return "libsvtav1", yuv, {**crf, "preset": "7", "svtav1-params": "lp=2"}
    return "ffv1", "gbrp10le" if format.bits == 10 else "bgr0", {"level": "3", "slices": "4", "slicecrc": "1"}


def _matrix(tags: VideoTags) -> int:
    return BT2020 if tags.primaries == BT2020 else BT709


def _converter(first: np.ndarray, format: VideoFormat, tags: VideoTags) -> Callable[[np.ndarray], Any]:
    """What makes frames for the encoder of images of the size and depth of `first`."""
    import av

    _, pixels, _ = _encoder(format, tags)
    if format.is_lossless:
        return lambda image: _lossless_frame(image, format, pixels)
    source = "rgb48le" if format.bits == 10 else "rgb24"
    height, width = (side + side % 2 for side in first.shape[:2])
    matrix = "bt2020" if _matrix(tags) == BT2020 else "bt709"
    scaled = f"out_chroma_loc=left:out_color_matrix={matrix}:out_range=limited:flags={EXACT_COLOUR_WORDS}"
    graph = av.filter.Graph()
    chain = [
        graph.add("buffer", f"video_size={width}x{height}:pix_fmt={source}:time_base=1/1:pixel_aspect=1/1"),
        graph.add("scale", scaled),
        graph.add("format", f"pix_fmts={pixels}"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*chain).configure()

    def to_frame(image: np.ndarray) -> Any:
        image = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge")
        image = _of_depth(image, deep=format.bits == 10)
        if format.bits == 10:  # white of the scaler's 16 bits is 255 * 256 where YUV is made of it
            image = ((image.astype(np.uint32) * 256 + 128) // 257).astype(np.uint16)
        graph.vpush(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), source))
        return graph.vpull()

    return to_frame


def _of_depth(image: np.ndarray, *, deep: bool) -> np.ndarray:
    assert image.dtype in (np.uint8, np.uint16) and image.ndim == 3 and image.shape[2] == 3, (image.dtype, image.shape)
    if deep:
        return image if image.dtype == np.uint16 else image.astype(np.uint16) * 257
    return image if image.dtype == np.uint8 else ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _lossless_frame(image: np.ndarray, format: VideoFormat, pixels: str) -> Any:
    import av

    levels = np.ascontiguousarray(_of_depth(image, deep=format.bits == 10))
    if format.bits == 10:
        ten = ((levels.astype(np.uint32) * 1023 + 32767) // 65535).astype(np.uint16)
        return av.VideoFrame.from_ndarray(ten, format=pixels)
    frame = av.VideoFrame.from_ndarray(levels, format="rgb24")
    return frame if pixels == "rgb24" else frame.reformat(format=pixels)


def shown_times(recording: Recording) -> tuple[list[int], Fraction]:
    """When each frame is shown, from 0, and the unit in seconds: whole frames of the recording's rate where the
    exposures are as evenly spaced as whole ticks can be (a missing frame leaves its time free), else ticks, of which
    the median step lasts a frame."""
    first, last = recording.exposures[0], recording.exposures[-1]
    numbers = [one.frame_idx - first.frame_idx for one in recording.exposures]
    ticks = [round((one.t0_s - first.t0_s) * recording.tick_rate_hz) for one in recording.exposures]
    period = Fraction(ticks[-1], max(1, last.frame_idx - first.frame_idx))
    if all(abs(at - number * period) <= 2 for at, number in zip(ticks, numbers, strict=True)):
        return numbers, 1 / rate(recording.fps)
    return ticks, 1 / (rate(recording.fps) * statistics.median_high(b - a for a, b in pairwise(ticks)))


def fine_enough(pts: Sequence[int], time_base: Fraction, fps_factor: int) -> Fraction:
    """By what to divide the unit of times so that all that are shown are whole numbers of it. Where an MP4 cannot state
    one so fine, a coarser one that they allow, else the source's, to which they are then rounded (1)."""
    between = [after - before for before, after in pairwise(pts)]
    common = math.gcd(pts[0] * fps_factor, *between) or 1
    for scale in (Fraction(fps_factor), Fraction(fps_factor, common)):
        if (time_base / scale).denominator <= MAX_TIMESCALE:
            return scale
    return Fraction(1)
