"""recording.json: what is read of it, and how it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spikevrt.recording.alignment import Alignment
from spikevrt.recording.sidecar import (
    FORMAT,
    ROWS,
    SIDECAR,
    SPIKE_FILE,
    VERSION,
    Exposure,
    StreamFormat,
    check_exposures,
    exposure_values,
    write_json,
)
from spikevrt.recording.spike_file import SpikeWriter
from spikevrt.recording.spike_formats import RecordedStream
from spikevrt.typed import require, require_file_name


@dataclass(frozen=True, kw_only=True)
class StoredFrames:
    """`frames` of recording.json.

    file: a video, which lies beside it; None: images in blur/. `num_bytes` and `sha256` are the video's, or `sha256`
    that of all images one after the other. linear: images of more than 8 bits hold linear light. readout_ticks: of a
    rolling shutter.
    """

    width: int
    height: int
    count: int
    fps: float
    file: str | None = None
    num_bytes: int | None = None
    sha256: str | None = None
    linear: bool = False
    readout_ticks: int = 0

    def __post_init__(self) -> None:
        require(self.fps > 0, "fps", self.fps, "above 0")
        require(self.readout_ticks >= 0, "readout_ticks", self.readout_ticks, "0 or more")
        if self.file is not None:
            require_file_name("file", self.file)


@dataclass(frozen=True)
class StoredRecording:
    """recording.json. `notes`: what was assumed when it was made of loose files, by its subject."""

    spikes: RecordedStream
    frames: StoredFrames
    exposures: tuple[Exposure, ...]
    provenance: dict[str, Any] = field(default_factory=dict)
    alignment: Alignment | None = None
    notes: dict[str, str] = field(default_factory=dict)


def write_sidecar(
    root: Path,
    *,
    spikes: SpikeWriter,
    tick_rate_hz: float,
    width: int,
    height: int,
    fps: float,
    exposures: Sequence[Exposure],
    provenance: dict[str, Any],
) -> None:
    """Write root/recording.json; spikes.dat, written by `spikes`, and blur/ (and sharp/) must already lie beside it."""
    geometry = spikes.geometry
    stored = StreamFormat("packed", geometry.width, geometry.height, ROWS[geometry.bottom_up], geometry.tag_bits)
    entry = {name: value for name, value in stored.values().items() if name != "kind"} | {
        "num_ticks": spikes.num_ticks,
        "tick_rate_hz": tick_rate_hz,
        "sha256": spikes.sha256,
    }
    for index, one in enumerate(exposures):
        if not one.is_inside(spikes.num_ticks):
            told = f"exposures[{index}]: ticks [{one.start_tick}, {one.stop_tick})"
            raise ValueError(f"{root / SIDECAR}: {told}; allowed: inside [0, {spikes.num_ticks}), not empty")
    frames = {"width": width, "height": height, "count": len(exposures), "fps": fps}
    write_stored(root, {"file": SPIKE_FILE, **entry}, frames, exposures, {"provenance": provenance})


def write_stored(
    root: Path,
    spikes: Mapping[str, Any],
    frames: Mapping[str, Any],
    exposures: Sequence[Exposure],
    more: Mapping[str, Any],
) -> None:
    """Write root/recording.json of its entries. Raises ValueError for exposures that cannot be."""
    check_exposures(root / SIDECAR, exposures)
    values = {"format": FORMAT, "version": VERSION, "spikes": dict(spikes), "frames": dict(frames)}
    write_json(root / SIDECAR, values | {"exposures": [exposure_values(one) for one in exposures], **more})
