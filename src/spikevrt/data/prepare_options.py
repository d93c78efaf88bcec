"""What a dataset is made like, as settings. A field's help text is that of its option of `spikevrt prepare`.

Nothing here loads torch when imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal


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
