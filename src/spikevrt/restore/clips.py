"""How a recording is cut into clips: overlapping in time, never across a cut, never half with spikes and half without.

Dimension key: T frames.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor

from spikevrt.restore.tiling import tile_starts, tile_weights

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class Clip:
    """Frames [start, stop) that are restored together; `weights` are theirs in the blend with their neighbours.

    After this clip, frames up to `settled` (not included) are finished. `has_spikes`: spikes are read for it.
    """

    start: int
    stop: int
    settled: int
    weights: Float[Tensor, " T"]
    has_spikes: bool


def cut_clips(
    num_frames: int,
    *,
    clip_frames: int,
    overlap_frames: int,
    cuts: Sequence[int] = (),
    without_spikes: Collection[int] = frozenset(),
    first: int = 0,
) -> Iterator[Clip]:
    """The clips that frames `first` and later need, in order; 0 for `clip_frames` takes each stretch at once.

    A stretch ends before every index in `cuts` (first frames of new scenes) and where frames listed in `without_spikes`
    begin or end. Within one, clips are spread as tiles are (`tiling.tile_starts`), so that which clips there are does
    not depend on `first`.
    """
    missing = set(without_spikes)
    edges = {0, num_frames, *cuts}
    edges |= {i for i in range(1, num_frames) if (i in missing) != (i - 1 in missing)} if missing else set()
    for begin, end in pairwise(sorted(edges)):
        if end <= first:
            continue
        length = min(clip_frames or end - begin, end - begin)
        overlap = min(overlap_frames, length - 1)
        starts = tile_starts(end - begin, length, overlap)
        weights = tile_weights(end - begin, length, overlap)
        for start, following, its in zip(starts, [*starts[1:], end - begin], weights, strict=True):
            if begin + start + length > first:
                yield Clip(begin + start, begin + start + length, begin + following, its, begin not in missing)
