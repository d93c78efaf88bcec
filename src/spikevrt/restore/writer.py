"""What a restoration has finished, on the disk: one file a frame; video is `mux`'s.

Every file takes its name only when it is complete, so what is there after a crash is whole.

Dimension key: H rows, W columns, 3 colours (RGB).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from torch import Tensor

from spikevrt.atomic import refuse_existing
from spikevrt.light import linear_to_srgb, srgb_to_linear
from spikevrt.recording.frames import read_pixels, to_float, to_uint8, to_uint16, write_pixels
from spikevrt.restore.options import FRAME_KINDS, is_video
from spikevrt.restore.restorer import Restored

if TYPE_CHECKING:
    from jaxtyping import Float, Float32, UInt8, UInt16

SUMMARY_FILE = "restored.json"  # marks a folder as ours


class Pieces(Protocol):
    """What is finished of an output, piece by piece."""

    @property
    def folder(self) -> Path: ...

    def num_done(self) -> int:
        """How many frames from the first on are there."""
        ...

    def consume(self, items: Iterator[Restored]) -> None:
        """Write frames as they come; the first is the one behind those that are done."""
        ...


class JoinedPieces(Pieces, Protocol):
    """Pieces that become one video at the end."""

    def join(self, out: Path, source: Path | None) -> tuple[str, ...]:
        """One video of all pieces, with what `source` holds beside its pictures; returns notes on what it could not."""
        ...


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

    def consume(self, items: Iterator[Restored]) -> None:
        """Write frames as they come."""
        for restored in items:
            write_pixels(self.path(restored.number), as_pixels(restored.frame, self.kind, linear=self.linear))


def as_pixels(
    frame: Float[Tensor, "3 H W"], kind: str, *, linear: bool = False
) -> UInt8[np.ndarray, "H W 3"] | UInt16[np.ndarray, "H W 3"] | Float32[np.ndarray, "H W 3"]:
    """A frame of display values as the array that `write_pixels` takes for a file of that kind: clipped to [0, 1], for
    an EXR at 0 alone.

    Raises:
        ValueError: NaN or infinity.
    """
    if kind == "png":
        return to_uint8(frame)
    if kind == "exr":
        return np.ascontiguousarray(srgb_to_linear(frame.clamp_min(0)).permute(1, 2, 0).numpy())
    return to_uint16(srgb_to_linear(frame.clamp(0, 1)) if linear else frame)


def summary_path(out: Path, place: Path) -> Path:
    """The summary's file: inside the folder at `place`, which will be `out`; beside `out`, where that is a video."""
    return out.with_name(f"{out.name}.json") if is_video(out) else place / SUMMARY_FILE


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse an `out` that exists, unless `overwrite`, which replaces a video or a folder of restored frames alone.

    Raises:
        FileExistsError: one line that says which of the two.
    """
    if overwrite and is_video(out) and out.is_file():
        return
    refuse_existing(out, marker=SUMMARY_FILE, overwrite=overwrite)
