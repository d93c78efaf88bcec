"""Media files through PyAV: opened with one clear error, which stream is the video, and the colour codes in use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
