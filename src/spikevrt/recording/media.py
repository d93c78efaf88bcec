"""Media files: the formats of video that are written, and files opened through PyAV with one clear error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

BT709, UNSPECIFIED, BT2020, RGB = (
    1,
    2,
    9,
    0,
)  # FFmpeg's codes of matrices; BT709, UNSPECIFIED, BT2020: of primaries, too
LIMITED_RANGE, FULL_RANGE = 1, 2
# bicubic, accurate rounding, full chroma in and out (FFmpeg's SWS_ flags): without them a round trip darkens every
# colour by one or two levels of 255 and costs 3 dB
EXACT_COLOURS = 0x4 | 0x40000 | 0x2000 | 0x4000
CODECS = ("h264", "hevc", "av1", "ffv1")
CONTAINERS = {".mp4": ("h264", "hevc", "av1"), ".mov": ("h264", "hevc"), ".mkv": CODECS}
DEFAULT_CRF = {"h264": 16, "hevc": 16, "av1": 18}
MAX_CRF = {"h264": 51, "hevc": 51, "av1": 63}


@dataclass(frozen=True)
class VideoFormat:
    """How video is encoded. `crf` (quality, lower is better) is of lossy video; ffv1 is lossless whatever is said.

    Raises:
        ValueError: a value or a combination that no encoder here has, with what is allowed.
    """

    codec: Annotated[str, "of video: h264, hevc, av1, or ffv1, which needs .mkv"] = "h264"
    lossless: Annotated[bool, "video whose pixels are those restored"] = False
    bits: Annotated[int, "of video: 8 or 10"] = 8
    crf: Annotated[int | None, "quality of lossy video, lower is better (16; av1 18)"] = None

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise ValueError(f"codec: {self.codec!r}; allowed: {', '.join(CODECS)}")
        if self.bits not in (8, 10):
            raise ValueError(f"bits: {self.bits}; allowed: 8, 10")
        if self.lossless and self.codec == "av1":
            raise ValueError("lossless: not with codec av1, whose encoder has no RGB; allowed: h264, hevc, ffv1")
        if self.lossless and self.codec == "h264" and self.bits == 10:
            raise ValueError("bits: 10 with lossless h264, whose encoder has RGB of 8 bits only; allowed: hevc, ffv1")
        if self.crf is not None and self.is_lossless:
            raise ValueError(f"crf: {self.crf} with lossless video; allowed: none")
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
