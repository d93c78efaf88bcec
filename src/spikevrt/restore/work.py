"""What a restoration did, tile by tile: told clip by clip, added up at the end."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ClipWork:
    """What was done for one clip: its tiles, how many of them were left as they were, whether they shared flows, the
    activity of each (none without `skip_sharp`), and their side where memory ran out for larger ones."""

    num_tiles: int
    num_skipped: int
    shared_flows: bool
    activities: tuple[float, ...]
    tile_px: int | None = None


def tiles_in_all(work: Sequence[ClipWork]) -> dict[str, Any]:
    """num: tiles of all clips; skipped: left as they were; shared_flows: whether tiles shared the optical flow of whole
    pictures; with `skip_sharp` activity: the least, the median and the largest of the tiles; smaller_px: the side of
    the smallest tiles that were taken because memory ran out."""
    activities = [value for clip in work for value in clip.activities]
    summary: dict[str, Any] = {
        "num": sum(clip.num_tiles for clip in work),
        "skipped": sum(clip.num_skipped for clip in work),
        "shared_flows": any(clip.shared_flows for clip in work),
    }
    smaller = [clip.tile_px for clip in work if clip.tile_px is not None]
    if smaller:
        summary["smaller_px"] = min(smaller)
    if activities:
        summary["activity"] = [min(activities), statistics.median(activities), max(activities)]
    return summary
