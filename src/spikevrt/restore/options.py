"""How footage is cut up, and on what it runs: the settings of a restoration.

Dimension key: T frames, H W frame rows and columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

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
