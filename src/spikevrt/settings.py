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
