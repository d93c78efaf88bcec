"""What may be said to `inspect` and `align`.

A field with a help text (`Annotated`) is an option of the verb, so nothing here loads torch or NumPy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from spikevrt.atomic import refuse_existing_file
from spikevrt.formats.dataset_trees import NO_OPTIONS, LayoutOptions
from spikevrt.recording.sidecar import HEADERLESS, SPIKE_KINDS, TICK_RATE_HZ, StreamFormat

HALF_WINDOW_TICKS = 20  # of a preview's firing rate


@dataclass(frozen=True)
class InspectOptions:
    """What may be said with a path; None and empty: not said.

    stated: the format of a spike file, which then is not looked for. sizes: more (width, height) that may fit a file
    without a header. rgb: a picture, folder or video. confirm: a reading's number; it is written into <file>.json, with
    tick_rate_hz. report: where the caller will write the page; checked here. layout: how to read a dataset folder.

    Raises:
        ValueError: an option without the one that it serves, or half a size.
        FileExistsError: `out` or `report` exists and `overwrite` is not set.
    """

    stated: StreamFormat | None = None
    sizes: tuple[tuple[int, int], ...] = ()
    rgb: Annotated[Path | None, "frames of the same scene, to see which reading fits"] = None
    confirm: Annotated[int | None, "the listed reading is right: write FILE.json", "NUMBER"] = None
    tick_rate_hz: Annotated[float | None, f"kept by --confirm ({TICK_RATE_HZ:g})", "HZ"] = None
    out: Annotated[Path | None, "write a preview picture, or a sheet of the readings", "PNG"] = None
    report: Annotated[Path | None, "write the health page of a recording", "HTML"] = None
    overwrite: Annotated[bool, "replace what --out, --report or --confirm writes"] = False
    centre: Annotated[int | None, "tick of the preview (the middle)", "TICK"] = None
    half_window: Annotated[int | None, f"ticks either side ({HALF_WINDOW_TICKS})", "TICKS"] = None
    layout: LayoutOptions = NO_OPTIONS

    def __post_init__(self) -> None:
        stated = self.stated
        if stated is not None and stated.kind in HEADERLESS and SPIKE_KINDS[stated.kind].size is None:
            if stated.width is None or stated.height is None:
                needed = "a file without a header needs both; allowed: both, or none to see what fits"
                raise ValueError(f"width, height: {needed}")
        if self.out is None:
            for name, value in (("centre", self.centre), ("half_window", self.half_window)):
                if value is not None:
                    raise ValueError(f"{name}: is for the preview; allowed: only with `out`")
        if self.overwrite and self.out is None and self.report is None and self.confirm is None:
            raise ValueError("overwrite: is for the preview; allowed: only with `out`, `report` or `confirm`")
        if self.tick_rate_hz is not None and self.confirm is None:
            raise ValueError("tick_rate_hz: is kept in the sidecar; allowed: only with `confirm`")
        if self.tick_rate_hz is not None and not 0 < self.tick_rate_hz < math.inf:
            raise ValueError(f"tick_rate_hz: {self.tick_rate_hz}; allowed: above 0")
        for path, option in ((self.out, "--out"), (self.report, "--report")):
            if path is not None:
                refuse_existing_file(path, overwrite=self.overwrite, other=option)


@dataclass(frozen=True)
class AlignOptions:
    """What to estimate.

    time, space: the offset, the homography. max_offset_ticks: how far the clocks may be apart. max_frames: how many
    frames are used.

    Raises:
        ValueError: options that contradict each other.
        FileExistsError: `preview` exists and `overwrite` is not set.
    """

    time: Annotated[bool, "the clocks are right: estimate the registration alone"] = True
    space: Annotated[bool, "the cameras are registered: estimate the offset alone"] = True
    flow: Annotated[bool, "a smooth displacement on top of the homography"] = False
    max_offset_ticks: Annotated[int | None, "search so far either side (one exposure)"] = None
    preview: Annotated[Path | None, "write a picture: before and after", "PNG"] = None
    overwrite: Annotated[bool, "replace the file at --preview"] = False
    max_frames: int = 8

    def __post_init__(self) -> None:
        if not self.time and not self.space:
            raise ValueError("--no-time, --no-space: nothing is left to estimate; give one of them at most")
        if self.flow and not self.space:
            raise ValueError("--flow: not with --no-space")
        if self.max_offset_ticks is not None and not self.time:
            raise ValueError("--max-offset-ticks: not with --no-time")
        if self.max_offset_ticks is not None and self.max_offset_ticks < 1:
            raise ValueError(f"--max-offset-ticks: {self.max_offset_ticks}; allowed: 1 or more")
        if self.max_frames < 1:
            raise ValueError(f"max_frames: {self.max_frames}; allowed: 1 or more")
        if self.preview is not None:
            refuse_existing_file(self.preview, overwrite=self.overwrite, other="--preview")
