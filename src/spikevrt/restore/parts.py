"""What a restoration has finished, on the disk: one file a frame, or short pieces of video that are joined at the end.

Every file takes its name only when it is complete, so what is there after a crash is whole.

Dimension key: H rows, W columns, 3 colours (RGB).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from spikevrt.light import linear_to_srgb, srgb_to_linear
from spikevrt.mux.encode import VideoTags, write_segment
from spikevrt.mux.join import join_segments
from spikevrt.recording.frames import read_pixels, to_float, to_uint8, to_uint16, write_pixels
from spikevrt.recording.media import VideoFormat
from spikevrt.restore.options import FRAME_KINDS

if TYPE_CHECKING:
    from jaxtyping import Float, Float32, UInt8, UInt16

SEGMENT_FRAMES = 32


@dataclass(frozen=True)
class FrameFiles:
    """Frames as 000000.png ...; `kind` is of `FRAME_KINDS`: 8 or 16 bits of display values, or EXR: linear light.

    `linear`: 16-bit files hold linear light too, as what they were restored from.
    """

    folder: Path
    kind: str
    linear: bool = False

    def path(self, index: int) -> Path:
        return self.folder / f"{index:06d}{FRAME_KINDS[self.kind]}"

    def num_done(self) -> int:
        """How many frames from the first on are there."""
        index = 0
        while self.path(index).is_file():
            index += 1
        return index

    def read(self, index: int) -> Float[Tensor, "3 H W"]:
        """A finished frame, in display values."""
        frame = to_float(read_pixels(self.path(index)))
        is_linear = self.kind == "exr" or (self.linear and self.kind != "png")
        return linear_to_srgb(frame) if is_linear else frame

    def consume(self, items: Iterator[tuple[int, Float[Tensor, "3 H W"]]]) -> None:
        """Write frames (index, values in display space) as they come."""
        for index, frame in items:
            write_pixels(self.path(index), as_pixels(frame, self.kind, linear=self.linear))


@dataclass(frozen=True)
class VideoParts:
    """Video in pieces of `SEGMENT_FRAMES` frames; `times` (one for each frame of the whole) in units of `time_base`."""

    folder: Path
    format: VideoFormat
    tags: VideoTags
    times: Sequence[int]
    time_base: Fraction
    fps: float

    def path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.mp4"

    def num_done(self) -> int:
        """How many frames from the first on are in whole pieces."""
        number = 0
        while self.path(number).is_file():
            number += 1
        return min(number * SEGMENT_FRAMES, len(self.times))

    def consume(self, items: Iterator[tuple[int, Float[Tensor, "3 H W"]]]) -> None:
        """Encode frames as they come; the first is the first of a piece."""
        deep = self.format.bits > 8
        for first in items:
            assert first[0] % SEGMENT_FRAMES == 0, first[0]
            piece = chain([first], islice(items, SEGMENT_FRAMES - 1))
            images = ((self.times[index], as_pixels(frame, "png16" if deep else "png")) for index, frame in piece)
            write_segment(
                self.path(first[0] // SEGMENT_FRAMES), images,
                time_base=self.time_base, fps=self.fps, format=self.format, tags=self.tags,
            )  # fmt: skip

    def join(self, out: Path, source: Path | None) -> tuple[str, ...]:
        """One video of all pieces, with what `source` holds beside its pictures; returns notes on what it could not."""
        number = -(-len(self.times) // SEGMENT_FRAMES)
        pieces = [self.path(index) for index in range(number)]
        return join_segments(pieces, out, fps=self.fps, format=self.format, tags=self.tags, source=source)


def as_pixels(
    frame: Float[Tensor, "3 H W"], kind: str, *, linear: bool = False
) -> UInt8[np.ndarray, "H W 3"] | UInt16[np.ndarray, "H W 3"] | Float32[np.ndarray, "H W 3"]:
    """A frame of display values in [0, 1] as the array that `write_pixels` takes for a file of that kind.

    Raises:
        ValueError: NaN or infinity.
    """
    if kind == "png":
        return to_uint8(frame)
    if kind == "exr":
        return np.ascontiguousarray(srgb_to_linear(frame.clamp(0, 1)).permute(1, 2, 0).numpy())
    return to_uint16(srgb_to_linear(frame.clamp(0, 1)) if linear else frame)
