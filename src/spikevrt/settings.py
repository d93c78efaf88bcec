"""Settings of single verbs whose own modules load torch: here they are read before `--help` is shown, and load nothing.

A field with a help text (`Annotated`) is an option of its verb. The settings of a training run are in `config`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

Format = Literal["torch", "onnx", "aoti"]
SUFFIXES: dict[Format, str] = {"aoti": ".aoti.pt2", "torch": ".pt2", "onnx": ".onnx"}  # the first that fits counts
MAX_FRAMES = 256  # of an exported clip


@dataclass(frozen=True)
class PrepareOptions:
    """How exposures become samples, and which recordings are kept for validation.

    Validation gets whole sources at a time, chosen by `seed` (default 123), until `val_fraction` (default 0.1) of the
    recordings are there. `without_sharp` also takes recordings without sharp frames; of a split all have them, or none.
    """

    num_bins: Annotated[int, "temporal bins of one exposure"] = 32
    split: Annotated[
        Literal["whole", "fractional"], "of ticks among bins: whole, or a tick shared among the bins it overlaps"
    ] = "whole"
    frames: Annotated[Literal["npy", "png"], "npy: only the crop is read; png: smaller, decoded whole"] = "npy"
    val_fraction: Annotated[float | None, "share of the sources kept for validation (0.1)"] = None
    seed: Annotated[int | None, "of the choice of sources for validation (123)"] = None
    without_sharp: Annotated[bool, "take recordings without sharp frames too, for train --self-supervised"] = False

    def __post_init__(self) -> None:
        if self.frames not in ("npy", "png"):
            raise ValueError(f"frames: {self.frames!r}; allowed: npy, png")


@dataclass(frozen=True)
class ExportOptions:
    """What becomes of a network (`export`).

    `height` and `width` (both or none) fix the size of the pictures, and with them that of the voxels. What is None
    stays free; `check` None compares where it can.
    """

    format: Annotated[Format | None, "of the file (told by its name)"] = None
    frames: Annotated[int | None, "fix the number of frames of a clip (any)"] = None
    height: Annotated[int | None, "fix the rows of a picture, with --width (any)"] = None
    width: Annotated[int | None, "fix the columns"] = None
    spike_ratio: Annotated[int, "pixels to one of the spike camera, with --height"] = 2
    without_spikes: Annotated[bool, "the network on the frames alone"] = False
    check: Annotated[
        bool | None, "run the file at other sizes and compare it with the network (where onnxruntime is installed)"
    ] = None

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in SUFFIXES:
            raise ValueError(f"format: {self.format!r}; allowed: {', '.join(SUFFIXES)}")
        if (self.height is None) != (self.width is None):
            raise ValueError(f"height, width: {self.height}, {self.width}; allowed: both, or none for any size")
        if self.frames is not None and not 2 <= self.frames <= MAX_FRAMES:
            raise ValueError(f"frames: {self.frames}; allowed: 2 to {MAX_FRAMES}, or none for any number")
        if self.spike_ratio < 1:
            raise ValueError(f"spike_ratio: {self.spike_ratio}; allowed: 1 or more")
