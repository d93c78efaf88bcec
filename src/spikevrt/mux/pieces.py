"""A restored video in the making: segments of 32 frames, joined at the end (`restore.job` writes and reads them)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from spikevrt.atomic import named
from spikevrt.light import HDR_TRANSFERS, linear_to_hdr, srgb_to_linear
from spikevrt.mux.encode import VideoTags, fine_enough, shown_times, tags_of, write_segment
from spikevrt.mux.join import join_segments
from spikevrt.recording.recording import Recording
from spikevrt.recording.video import probe_video
from spikevrt.restore.options import VideoFormat
from spikevrt.restore.restorer import Restored
from spikevrt.restore.writer import as_pixels

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

SEGMENT_FRAMES = 32


@dataclass(frozen=True)
class VideoPieces:
    """Video in pieces of `SEGMENT_FRAMES` frames; `pts` (of the recording's frames) in units of `time_base`, between
    which the `fps_factor` - 1 frames of slow motion are evenly spread. `source_bits`: of a colour in the recording."""

    folder: Path
    format: VideoFormat
    tags: VideoTags
    pts: Sequence[Fraction]
    time_base: Fraction
    fps: float
    fps_factor: int
    source_bits: int
    last_s: Fraction

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
        begin = self.pts[restored.source]
        between = self.pts[restored.source + 1] - begin if restored.step else 0
        return round(begin + Fraction(restored.step, self.fps_factor) * between)

    def coded(self, frame: Float[Tensor, "3 H W"]) -> Float[Tensor, "3 H W"]:
        """A frame of display values by the video's own curve."""
        if self.tags.transfer not in HDR_TRANSFERS:
            return frame
        return linear_to_hdr(srgb_to_linear(frame.clamp_min(0)), self.tags.transfer)

    def consume(self, items: Iterator[Restored]) -> None:
        """Encode frames as they come; the first is the first of a piece."""
        kind = "png16" if self.format.bits == 10 else "png"
        for first in items:
            assert first.number % SEGMENT_FRAMES == 0, first.number
            piece = chain([first], islice(items, SEGMENT_FRAMES - 1))
            images = ((self.time(restored), as_pixels(self.coded(restored.frame), kind)) for restored in piece)
            write_segment(
                self.path(first.number // SEGMENT_FRAMES), images,
                time_base=self.time_base, fps=self.fps, format=self.format, tags=self.tags,
            )  # fmt: skip

    def join(self, out: Path, source: Path | None) -> tuple[str, ...]:
        """One video of all pieces, with what `source` holds beside its pictures; returns notes on what it could not."""
        pieces = [self.path(index) for index in range(self.num_pieces())]
        notes = join_segments(
            pieces, out, fps=self.fps, format=self.format, tags=self.tags, source=source, last_s=self.last_s
        )
        if self.source_bits > (self.format.bits or 8):
            whose = "" if source is None else f" in {source.name}"
            notes = (*notes, f"{named(out).name}: {self.format.bits} bits a colour, of {self.source_bits}{whose}")
        return notes


def video_pieces(folder: Path, format: VideoFormat, recording: Recording, fps_factor: int) -> VideoPieces:
    """The video of a restored recording, in pieces in `folder`, which is made.

    The times of the frames are those of the recording's own video; of images those at which they were exposed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bits, last_s = 8, Fraction(0)
    if isinstance(recording.blur, Path):
        info = probe_video(recording.blur)
        last_s = info.last_s if recording.exposures[-1].frame_idx == info.num_frames - 1 else last_s
        pts, time_base, tags = [info.pts[one.frame_idx] for one in recording.exposures], info.time_base, tags_of(info)
        bits = info.bits
    else:
        (pts, time_base), tags = shown_times(recording), VideoTags()
    format = format.settled(bits, min(recording.height, recording.width))
    scale, fps = fine_enough(pts, time_base, fps_factor), recording.fps * fps_factor
    return VideoPieces(
        folder, format, tags, [stamp * scale for stamp in pts], time_base / scale, fps, fps_factor, bits, last_s
    )
