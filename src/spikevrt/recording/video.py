"""Video files through PyAV: which formats are written, and files opened, measured, and decoded in order.

Colour: a file's own matrix is obeyed; an untagged file of 720 rows or more is taken as BT.709, a smaller one as BT.601.
Importing it loads neither torch nor NumPy (`VideoFormat` holds options).

Dimension key: H rows, W columns, 3 colours (RGB).
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8, UInt16


# FFmpeg's codes of matrices; BT709, UNSPECIFIED, BT2020: of primaries, too
BT709, UNSPECIFIED, BT2020, RGB = 1, 2, 9, 0
LIMITED_RANGE, FULL_RANGE = 1, 2
# bicubic, accurate rounding, full chroma in and out (FFmpeg's SWS_ flags): without them a round trip darkens every
# colour by one or two levels of 255 and costs 3 dB
EXACT_COLOURS = 0x4 | 0x40000 | 0x2000 | 0x4000
CODECS = ("h264", "hevc", "av1", "ffv1")
CONTAINERS = {".mp4": ("h264", "hevc", "av1"), ".mov": ("h264", "hevc"), ".mkv": CODECS}
DEFAULT_CRF = {"h264": 16, "hevc": 16, "av1": 18}
CRF_WORDS = ", ".join(f"{codec} {crf}" for codec, crf in DEFAULT_CRF.items())
MAX_CRF = {"h264": 51, "hevc": 51, "av1": 63}


@dataclass(frozen=True)
class VideoFormat:
    """How video is encoded. `crf` (quality, lower is better) is of lossy video; ffv1 is lossless whatever is said.
    Raises ValueError: a value or a combination that no encoder here has, with what is allowed."""

    codec: Annotated[str, "of video: h264, hevc, av1, or ffv1, which needs .mkv"] = "h264"
    lossless: Annotated[bool, "video whose pixels are those restored"] = False
    bits: Annotated[int, "of video: 8 or 10"] = 8
    crf: Annotated[int | None, f"quality of lossy video, lower is better ({CRF_WORDS})"] = None

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise ValueError(f"codec: {self.codec!r}; allowed: {', '.join(CODECS)}")
        if self.bits not in (8, 10):
            raise ValueError(f"bits: {self.bits}; allowed: 8, 10")
        if self.lossless and self.codec == "av1":
            raise ValueError("lossless: not with `codec` av1, whose encoder has no RGB; allowed: h264, hevc, ffv1")
        if self.lossless and self.codec == "h264" and self.bits == 10:
            raise ValueError("bits: 10 with `lossless` h264, whose encoder has RGB of 8 bits only; allowed: hevc, ffv1")
        if self.crf is not None and self.is_lossless:
            raise ValueError(f"crf: {self.crf} with `lossless`; allowed: none")
        if self.crf is not None and not 0 < self.crf <= MAX_CRF[self.codec]:
            raise ValueError(f"crf: {self.crf}; allowed with {self.codec}: 1 to {MAX_CRF[self.codec]}")

    @property
    def is_lossless(self) -> bool:
        """Whether RGB of `bits` bits comes back as it went in."""
        return self.lossless or self.codec == "ffv1"


def check_container(path: Path, format: VideoFormat) -> None:
    """Raises ValueError unless the suffix of `path` is a container that can hold the format."""
    suffix = Path(path).suffix.lower()
    if suffix not in CONTAINERS:
        raise ValueError(f"{path}: cannot write {suffix or 'a video without suffix'}; allowed: {', '.join(CONTAINERS)}")
    if format.codec not in CONTAINERS[suffix]:
        fitting = [name for name, codecs in CONTAINERS.items() if format.codec in codecs]
        raise ValueError(f"{path}: {suffix} does not hold {format.codec}; allowed: {', '.join(fitting)}")


def open_media(path: Path) -> Any:
    """The file as a PyAV container, to be closed by the caller (a context manager).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a video, a damaged one, or a file without a video stream.
    """
    import av
    from av.error import FFmpegError

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such video")
    try:
        container = av.open(str(path))
    except (FFmpegError, ValueError):
        raise ValueError(f"{path}: not a video, or a damaged one") from None
    if not container.streams.video:
        container.close()
        raise ValueError(f"{path}: no video in it")
    return container


def main_video(container: Any) -> Any:
    """The first video stream that is no cover picture; where there are only those, the first."""
    from av.stream import Disposition

    streams = container.streams.video
    return next((stream for stream in streams if not stream.disposition & Disposition.attached_pic), streams[0])


VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".m4v", ".ts", ".mts", ".m2ts", ".wmv")
KEPT_FRAMES = 8  # decoded frames that a reader remembers, so that overlapping clips do not decode twice
# where one packet is one shown frame and states its time, so that frames can be counted without decoding them
COUNTED_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
COUNTED_CODECS = ("h264", "hevc", "av1", "vp9", "mjpeg", "png", "ffv1", "prores", "dnxhd")


@dataclass(frozen=True)
class VideoInfo:
    """Upright size, frames per second, and the frames that decoding yields, with their times.

    `pts` has one entry a frame, rising from 0 or more, in units of `time_base` seconds. `bits` are those of a colour
    (or of luma and chroma) in the file. `sample_aspect` is width / height of an upright pixel; `primaries` and
    `transfer` are FFmpeg's codes of the colours (`UNSPECIFIED` where the file says nothing).
    """

    width: int
    height: int
    fps: float
    num_frames: int
    pts: tuple[int, ...]
    time_base: Fraction
    bits: int
    sample_aspect: Fraction
    primaries: int
    transfer: int

    @property
    def is_variable(self) -> bool:
        """Whether the frames are unevenly spaced: by more than the one unit that rounding explains."""
        steps = [after - before for before, after in itertools.pairwise(self.pts)]
        return len(steps) > 0 and max(steps) - min(steps) > 1

    @property
    def times_s(self) -> tuple[float, ...]:
        """When each frame begins, in seconds of the file's clock."""
        return tuple(float(pts * self.time_base) for pts in self.pts)


def probe_video(path: Path) -> VideoInfo:
    """Measure a video: by its packets where those tell its frames exactly, otherwise every frame is decoded once.

    A frame without a time, or with one that does not rise, gets one: all of them evenly by the frame rate, or one unit
    after the frame before. A file whose first frame lies before zero is taken to begin at zero. Of unevenly spaced
    frames `fps` is the mean.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a video, a damaged one, or one without a frame or frame rate.
    """
    path = Path(path)
    with open_media(path) as container:
        stream = main_video(container)
        stated = stream.average_rate or stream.guessed_rate or Fraction(0)
        time_base: Fraction = stream.time_base
        aspect = stream.sample_aspect_ratio or Fraction(1)
    with contextlib.closing(_decoded(path)) as frames:
        first = next(frames, None)
        if first is None:
            raise ValueError(f"{path}: a video without frames")
        found = _packet_pts(path)
        if found is None:
            found = [first.pts, *(frame.pts for frame in frames)]
        turned = _quarter_turns(first) % 2 == 1
        height, width = (first.width, first.height) if turned else (first.height, first.width)
        bits = max(component.bits for component in first.format.components)
        colours = int(first.color_primaries) or UNSPECIFIED, int(first.color_trc) or UNSPECIFIED
    pts = _rising(path, found, time_base, stated)
    aspect = 1 / aspect if turned else aspect
    info = VideoInfo(width, height, float(stated), len(pts), pts, time_base, bits, aspect, *colours)
    if stated <= 0 or info.is_variable:
        span = float((pts[-1] - pts[0]) * time_base)
        if span <= 0:
            raise ValueError(f"{path}: a video without a frame rate")
        return dataclasses.replace(info, fps=(len(pts) - 1) / span)
    return info


def iter_video(
    path: Path, start: int = 0, stop: int | None = None, *, deep: bool = False
) -> Iterator[UInt8[np.ndarray, "H W 3"] | UInt16[np.ndarray, "H W 3"]]:
    """Frames [start, stop) in order, upright; frames before `start` are decoded and dropped, so counts are exact.

    A `stop` behind the end ends with the video. With `deep`, a video of more than 8 bits gives uint16 (65535 is white);
    one of 8 bits gives uint8 in any case.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a video, or damaged data.
    """
    assert start >= 0, start
    for index, frame in enumerate(_decoded(Path(path))):
        if stop is not None and index >= stop:
            return
        if index >= start:
            yield _to_rgb(frame, deep)


class VideoReader:
    """Read frames by index; going forward is cheap, going back further than a few frames starts the file again."""

    def __init__(self, path: Path, *, deep: bool = False) -> None:
        self.path = Path(path)
        self.deep = deep
        self._frames: Iterator[np.ndarray] | None = None
        self._next = 0
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()

    def read(self, index: int) -> UInt8[np.ndarray, "H W 3"] | UInt16[np.ndarray, "H W 3"]:
        """Frame `index`, as `iter_video` gives it. Raises ValueError when the video ends before it."""
        if index not in self._kept:
            if self._frames is None or index < self._next:
                self._frames, self._next = iter_video(self.path, deep=self.deep), 0
            while self._next <= index:
                frame = next(self._frames, None)
                if frame is None:
                    raise ValueError(f"{self.path}: frame {index} asked for; the last is {self._next - 1}")
                self._kept[self._next] = frame
                self._next += 1
                while len(self._kept) > KEPT_FRAMES:
                    self._kept.popitem(last=False)
        return self._kept[index].copy()


def _decoded(path: Path) -> Generator[Any, None, None]:
    from av.error import FFmpegError

    with open_media(path) as container:
        stream = main_video(container)
        stream.thread_type = "AUTO"
        try:
            yield from container.decode(stream)
        except FFmpegError as error:
            raise ValueError(f"{path}: damaged video ({error.strerror})") from None


def _packet_pts(path: Path) -> list[int] | None:
    """Times of the frames in the order they are shown, from the packets; None where those might not be the frames."""
    from av.error import FFmpegError

    with open_media(path) as container:
        stream = main_video(container)
        context = stream.codec_context
        is_progressive = int(context.field_order) in (0, 1)  # two fields may be two packets
        if (
            container.format.name not in COUNTED_CONTAINERS
            or context.codec.canonical_name not in COUNTED_CODECS
            or not is_progressive
        ):
            return None
        found: list[int] = []
        try:
            for packet in container.demux(stream):
                if packet.size == 0:
                    continue
                starts_well = bool(found) or packet.is_keyframe
                if packet.pts is None or packet.is_discard or packet.is_corrupt or not starts_well:
                    return None
                found.append(packet.pts)
        except FFmpegError:
            return None
    if not found or min(found) != found[0] or len(set(found)) != len(found):
        return None  # pictures before the first key frame cannot be decoded
    return sorted(found)


def _rising(path: Path, found: Sequence[int | None], time_base: Fraction, stated: Fraction) -> tuple[int, ...]:
    if any(pts is None for pts in found):
        if stated <= 0:
            raise ValueError(f"{path}: a video without timestamps and without a frame rate")
        return tuple(round(index / (stated * time_base)) for index in range(len(found)))
    stamps = [pts for pts in found if pts is not None]
    shift = -min(0, stamps[0])
    return tuple(itertools.accumulate((pts + shift for pts in stamps), lambda before, pts: max(before + 1, pts)))


def _quarter_turns(frame: Any) -> int:
    return round(frame.rotation / 90) % 4


def _to_rgb(frame: Any, deep: bool) -> np.ndarray:
    import numpy as np

    untagged_hd = int(frame.colorspace) == UNSPECIFIED and frame.height >= 720
    source = BT709 if untagged_hd else None
    bits = max(component.bits for component in frame.format.components)
    if not deep or bits <= 8:
        image = frame.to_ndarray(format="rgb24", src_colorspace=source, interpolation=EXACT_COLOURS)
    elif frame.format.name in ("gbrp10le", "gbrp12le"):  # as they are: the scaler would round
        top = (1 << bits) - 1
        image = ((frame.to_ndarray().astype(np.uint32) * 65535 + top // 2) // top).astype(np.uint16)
    else:
        image = frame.to_ndarray(format="rgb48le", src_colorspace=source, interpolation=EXACT_COLOURS)
    return np.ascontiguousarray(np.rot90(image, _quarter_turns(frame)))
