"""Video files through PyAV: probe, decode in order, encode to H.264.

Colour: a file's own matrix is obeyed; an untagged file of 720 rows or more is taken as BT.709, a smaller one as BT.601.
What is written is tagged BT.709, limited range.

Dimension key: H rows, W columns, 3 colours (RGB).
"""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import UInt8

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".m4v")
BT709, UNSPECIFIED, LIMITED_RANGE = 1, 2, 1  # FFmpeg's codes
# bicubic, accurate rounding, full chroma in and out (FFmpeg's SWS_ flags): without them a round trip darkens every
# colour by one or two levels of 255 and costs 3 dB
EXACT_COLOURS = 0x4 | 0x40000 | 0x2000 | 0x4000
KEPT_FRAMES = 8  # decoded frames that a reader remembers, so that overlapping clips do not decode twice


@dataclass(frozen=True)
class VideoInfo:
    """Upright size, frames per second and number of frames that decoding yields."""

    width: int
    height: int
    fps: float
    num_frames: int


def probe_video(path: Path) -> VideoInfo:
    """Measure a video; where the header does not tell the number of frames, every frame is decoded once.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a video, a damaged one, or one without a frame.
    """
    path = Path(path)
    with _open(path) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        num_frames = int(stream.frames)
    frames = iter_video(path)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{path}: a video without frames")
    if num_frames < 1:
        num_frames = 1 + sum(1 for _ in frames)
    if fps <= 0:
        raise ValueError(f"{path}: a video without a frame rate")
    height, width = first.shape[:2]
    return VideoInfo(width=width, height=height, fps=fps, num_frames=num_frames)


def iter_video(path: Path, start: int = 0, stop: int | None = None) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Frames [start, stop) in order, upright; frames before `start` are decoded and dropped, so counts are exact.

    A `stop` behind the end ends with the video.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a video, or damaged data.
    """
    from av.error import FFmpegError

    path = Path(path)
    assert start >= 0, start
    with _open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        try:
            for index, frame in enumerate(container.decode(stream)):
                if stop is not None and index >= stop:
                    return
                if index >= start:
                    yield _to_rgb(frame)
        except FFmpegError as error:
            raise ValueError(f"{path}: damaged video ({error.strerror})") from None


class VideoReader:
    """Read frames by index; going forward is cheap, going back further than a few frames starts the file again."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._frames: Iterator[np.ndarray] | None = None
        self._next = 0
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()

    def read(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Frame `index`. Raises ValueError when the video ends before it."""
        if index not in self._kept:
            if self._frames is None or index < self._next:
                self._frames, self._next = iter_video(self.path), 0
            while self._next <= index:
                frame = next(self._frames, None)
                if frame is None:
                    raise ValueError(f"{self.path}: frame {index} asked for; the video ends after {self._next} frames")
                self._kept[self._next] = frame
                self._next += 1
                while len(self._kept) > KEPT_FRAMES:
                    self._kept.popitem(last=False)
        return self._kept[index].copy()


def write_video(path: Path, frames: Iterable[UInt8[np.ndarray, "H W 3"]], fps: float, crf: int = 16) -> None:
    """Encode H.264 (yuv420p) in an MP4; odd sizes get their last row or column twice. Named only when complete.

    Raises:
        ValueError: no frames, frames of different sizes, fps not above 0, or a suffix other than .mp4.
    """
    import av

    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"{path}: cannot write {path.suffix or 'a video without suffix'}; allowed: .mp4")
    if not 0 < fps < math.inf:
        raise ValueError(f"fps: {fps}; allowed: above 0")
    partial = path.with_name(f".{path.stem}.partial-{os.getpid()}.mp4")
    try:
        size = None
        with av.open(str(partial), "w", options={"movflags": "faststart"}) as container:
            stream: Any = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            for image in frames:
                if size is None:
                    size = image.shape[:2]
                    stream.height, stream.width = size[0] + size[0] % 2, size[1] + size[1] % 2
                    stream.pix_fmt = "yuv420p"
                    stream.options = {"crf": str(crf)}
                    context = stream.codec_context
                    context.colorspace = context.color_primaries = context.color_trc = BT709
                    context.color_range = LIMITED_RANGE
                if image.shape[:2] != size:
                    raise ValueError(f"{path}: a frame of {image.shape[1]}x{image.shape[0]} after {size[1]}x{size[0]}")
                container.mux(stream.encode(_to_yuv(image)))
            if size is None:
                raise ValueError(f"{path}: no frames to write")
            container.mux(stream.encode())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _open(path: Path) -> Any:
    import av
    from av.error import FFmpegError

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such video")
    try:
        container = av.open(str(path))
    except FFmpegError:
        raise ValueError(f"{path}: not a video, or a damaged one") from None
    if not container.streams.video:
        container.close()
        raise ValueError(f"{path}: no video in it")
    return container


def _to_rgb(frame: Any) -> np.ndarray:
    untagged_hd = int(frame.colorspace) == UNSPECIFIED and frame.height >= 720
    source = BT709 if untagged_hd else None
    image = frame.to_ndarray(format="rgb24", src_colorspace=source, interpolation=EXACT_COLOURS)
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarter_turns))


def _to_yuv(image: np.ndarray) -> Any:
    import av

    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, (image.dtype, image.shape)
    height, width = image.shape[:2]
    even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
    return cast(Any, frame).reformat(
        format="yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED_RANGE, interpolation=EXACT_COLOURS
    )
