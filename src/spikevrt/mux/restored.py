"""Restored frames as video: short pieces, each whole when it has its name, that are joined at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

from spikevrt.mux.encode import VideoTags, rate, tags_of, write_segment
from spikevrt.mux.join import join_segments
from spikevrt.recording.media import VideoFormat
from spikevrt.recording.recording import Recording
from spikevrt.recording.video import probe_video
from spikevrt.restore.restorer import Restored
from spikevrt.restore.writer import as_pixels

SEGMENT_FRAMES = 32


@dataclass(frozen=True)
class VideoParts:
    """Video in pieces of `SEGMENT_FRAMES` frames; `pts` (of the recording's frames) in units of `fps_factor` times
    `time_base`, between which the frames of slow motion are evenly spread."""

    folder: Path
    format: VideoFormat
    tags: VideoTags
    pts: Sequence[int]
    time_base: Fraction
    fps: float
    fps_factor: int

    def path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.mp4"

    def num_pieces(self) -> int:
        number = 0
        while self.path(number).is_file():
            number += 1
        return number

    def num_done(self) -> int:
        """How many frames from the first on are in whole pieces; the last one of all may be shorter."""
        return self.num_pieces() * SEGMENT_FRAMES

    def time(self, restored: Restored) -> int:
        """In units of `time_base`."""
        between = self.pts[restored.source + 1] - self.pts[restored.source] if restored.part else 0
        return self.pts[restored.source] * self.fps_factor + restored.part * between

    def consume(self, items: Iterator[Restored]) -> None:
        """Encode frames as they come; the first is the first of a piece."""
        kind = "png16" if self.format.bits > 8 else "png"
        for first in items:
            assert first.number % SEGMENT_FRAMES == 0, first.number
            piece = chain([first], islice(items, SEGMENT_FRAMES - 1))
            images = ((self.time(restored), as_pixels(restored.frame, kind)) for restored in piece)
            write_segment(
                self.path(first.number // SEGMENT_FRAMES), images,
                time_base=self.time_base, fps=self.fps, format=self.format, tags=self.tags,
            )  # fmt: skip

    def join(self, out: Path, source: Path | None) -> tuple[str, ...]:
        """One video of all pieces, with what `source` holds beside its pictures; returns notes on what it could not."""
        pieces = [self.path(index) for index in range(self.num_pieces())]
        return join_segments(pieces, out, fps=self.fps, format=self.format, tags=self.tags, source=source)


def video_parts(folder: Path, format: VideoFormat, recording: Recording, fps_factor: int) -> VideoParts:
    """The video of a restored recording, in pieces in `folder`, which is made.

    The times of the frames are those of the recording's own video; else they are evenly spread.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(recording.blur, Path):
        info = probe_video(recording.blur)
        pts, time_base, tags = [info.pts[one.frame_idx] for one in recording.exposures], info.time_base, tags_of(info)
    else:
        pts, time_base, tags = list(range(recording.num_frames)), 1 / rate(recording.fps), VideoTags()
    fps = recording.fps * fps_factor
    return VideoParts(folder, format, tags, pts, time_base / fps_factor, fps, fps_factor)
