"""How footage is cut up, and on what it runs: the settings of a restoration.

Dimension key: T frames, H W frame rows and columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from spikevrt.recording.recording import Recording

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class RestoreOptions:
    """How footage is cut up. Tiles are at most `tile_px` a side (rounded down to what the network and the spike ratio
    can divide) and share `overlap_px` or more; clips have `clip_frames` frames and share `overlap_frames` or more.

    0 for `tile_px` or `clip_frames` takes the whole picture or recording at once. `ignore_health` names findings of the
    health gate (`align.health.NAMES`) that shall not refuse a recording; with `strict` its warnings refuse too.
    `without_spikes` runs a network that reads spikes on the frames alone, as one trained with `data.spike_dropout` has
    learnt to. `skip_sharp` leaves a tile of a clip as it is where its spikes' activity (`represent.activity`: 1 for a
    still scene) is below it; None: it runs everywhere.
    """

    tile_px: int = 256
    overlap_px: int = 32
    clip_frames: int = 5
    overlap_frames: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "fp32"
    ignore_health: tuple[str, ...] = ()
    without_spikes: bool = False
    skip_sharp: float | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        if self.tile_px < 0:
            raise ValueError(f"tile_px: {self.tile_px}; allowed: 0 (the whole picture) or more")
        if self.clip_frames < 0 or self.clip_frames == 1:
            raise ValueError(f"clip_frames: {self.clip_frames}; allowed: 0 (the whole recording), 2 or more")
        if self.overlap_px < 0 or 0 < self.tile_px <= self.overlap_px:
            raise ValueError(f"overlap_px: {self.overlap_px}; allowed: 0 or more, and less than tile_px {self.tile_px}")
        if self.overlap_frames < 0 or 0 < self.clip_frames <= self.overlap_frames:
            allowed = f"0 or more, and less than clip_frames {self.clip_frames}"
            raise ValueError(f"overlap_frames: {self.overlap_frames}; allowed: {allowed}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device: {self.device!r}; allowed: auto, cpu, cuda")
        if self.precision not in ("fp32", "bf16", "fp16"):
            raise ValueError(f"precision: {self.precision!r}; allowed: fp32, bf16, fp16")
        if self.skip_sharp is not None and not 0 < self.skip_sharp < math.inf:
            raise ValueError(f"skip_sharp: {self.skip_sharp}; allowed: above 0 (a still scene reads about 1)")
        if self.strict and self.without_spikes:
            raise ValueError("strict: true; allowed with without_spikes: false (the spikes are not looked at)")
        if self.skip_sharp is not None and self.without_spikes:
            raise ValueError(
                f"skip_sharp: {self.skip_sharp}; allowed with without_spikes: none (spikes tell what moves)"
            )


FRAME_KINDS = {"png": ".png", "png16": ".png", "tiff16": ".tiff", "exr": ".exr"}
VIDEO_SUFFIXES_OUT = (".mp4", ".mov", ".mkv")


class VideoMaker(Protocol):
    """Writes restored frames as video (`mux.restored.RestoredVideo`), a frozen dataclass of settings."""

    def check(self, name: Path) -> None:
        """Raises ValueError where a video of that name cannot be made."""
        ...

    def parts(self, folder: Path, recording: Recording, fps_factor: int) -> Any:
        """The video of a restored `recording` in pieces in `folder` (`writer.Parts`)."""
        ...


@dataclass(frozen=True)
class Output:
    """What is written: `frames` is of FRAME_KINDS; with `video` also a video beside the frames; `maker` makes any."""

    frames: str = "png"
    video: bool = False
    maker: VideoMaker | None = None

    def __post_init__(self) -> None:
        if self.frames not in FRAME_KINDS:
            raise ValueError(f"frames: {self.frames!r}; allowed: {', '.join(FRAME_KINDS)}")

    def check(self, out: Path) -> None:
        """Raises ValueError where `out` cannot be what is asked for."""
        if is_video(out) and self.video:
            raise ValueError(f"video: {out} is the video already; allowed: false, or a folder for frames")
        if is_video(out) or self.video:
            if self.maker is None:
                raise ValueError(f"{out}: a video, but nothing that makes one was handed in; allowed: a folder")
            self.maker.check(out if is_video(out) else Path("restored.mp4"))


@dataclass(frozen=True)
class JobOptions:
    """How a restoration is delivered. `fps_factor`: sharp frames in the place of one (`slow_motion`). `memory`: what
    the process may hold, as "6GiB"; None: what is free. `restart` throws away what an unfinished job has. `made_with`:
    what the caller will know the result by (`batch`)."""

    fps_factor: int = 1
    memory: str | None = None
    restart: bool = False
    overwrite: bool = False
    output: Output = Output()
    made_with: dict[str, Any] | None = None


def is_video(out: Path) -> bool:
    """Whether that name is a video's, by its suffix; else it is a folder of frames."""
    return out.suffix.lower() in VIDEO_SUFFIXES_OUT
