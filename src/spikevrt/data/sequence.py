"""One prepared sequence on disk: its folder, its files, its description.

A sequence folder is `ROOT/{train,val}/SEQ/{blur,sharp,spike,spike_vox}/NNNNNN.*` plus `sequence.json`; without sharp
frames there is no `sharp`. NNNNNN is the frame's index in its recording, so a dropped frame leaves a gap and no clip
runs across it. Arrays (.npy) are mapped: only the pages under the crop are read, nothing is kept, and loader workers
share what the system caches.

Dimension key: H x W colour pixels, h x w spike pixels (H = ratio * h, W = ratio * w; the frames of a registered
recording were resampled so: `Recording.on_sensor`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spikevrt.config import FrameKind
from spikevrt.recording.arrays import load_npy
from spikevrt.recording.recording import Recording
from spikevrt.recording.sidecar import ROWS, Exposure, Rows, check_bad_pixels, exposure_values
from spikevrt.recording.spike_file import SpikeGeometry
from spikevrt.recording.stream import JoinedStream, PackedStream
from spikevrt.typed import convert, load_json, naming, require

if TYPE_CHECKING:
    from jaxtyping import Bool

SEQUENCE_FILE = "sequence.json"
SEQUENCE_FORMAT = "spikevrt-sequence"
SEQUENCE_VERSION = 2
PREPARE_AGAIN = "; run `spikevrt prepare` again"
NO_SHARP = "none"  # frames.sharp of a sequence without sharp frames; the others have no such key


@dataclass(frozen=True)
class PreparedSequence:
    """A prepared sequence: its folder, its sizes and the exposures that were kept, in time order.

    `geometry` is the sensor's, of the packed ticks. `densities`: mean log1p(count) of each exposure, whole frame.
    """

    folder: Path
    width: int
    height: int
    ratio: int  # colour pixels per spike cell, the same in both directions
    geometry: SpikeGeometry
    tick_rate_hz: float
    exposures: tuple[Exposure, ...]
    densities: tuple[float, ...]
    frames: FrameKind = "npy"
    bad_pixels: tuple[tuple[int, int], ...] = ()
    has_sharp: bool = True

    @property
    def name(self) -> str:
        return self.folder.name

    def path(self, kind: Literal["blur", "sharp", "spike", "spike_vox"], frame_idx: int) -> Path:
        suffix = {"blur": self.frames, "sharp": self.frames, "spike": "dat", "spike_vox": "npy"}[kind]
        return self.folder / kind / f"{frame_idx:06d}.{suffix}"

    def runs(self) -> list[range]:
        """Positions in `exposures` grouped into stretches without a dropped frame between them."""
        indices = [exposure.frame_idx for exposure in self.exposures]
        starts = [i for i in range(len(indices)) if i == 0 or indices[i] != indices[i - 1] + 1]
        return [range(a, b) for a, b in zip(starts, [*starts[1:], len(indices)], strict=True)]

    @cached_property
    def bad_mask(self) -> Bool[np.ndarray, "sensor_h sensor_w"] | None:
        """True where a sensor pixel is bad; None when none is known."""
        if not self.bad_pixels:
            return None
        mask = np.zeros((self.geometry.height, self.geometry.width), dtype=bool)
        mask[tuple(np.array(self.bad_pixels).T)] = True
        return mask

    def as_recording(self) -> Recording:
        """The whole frames that were kept, and the ticks of their exposures one after the other: to be restored."""
        exposures, start = [], 0
        for one in self.exposures:
            first = start + max(0, -one.shift_ticks)
            exposures.append(replace(one, start_tick=first, stop_tick=first + one.num_ticks))
            start += one.num_ticks + abs(one.shift_ticks)
        spikes = [PackedStream(self.path("spike", one.frame_idx), self.geometry) for one in self.exposures]
        for part, one in zip(spikes, self.exposures, strict=True):
            check_ticks(part, one)
        return Recording(
            root=self.folder,
            width=self.width,
            height=self.height,
            tick_rate_hz=self.tick_rate_hz,
            exposures=tuple(exposures),
            spikes=JoinedStream(tuple(spikes)),
            blur=tuple(self.path("blur", one.frame_idx) for one in self.exposures),
            sharp=tuple(self.path("sharp", one.frame_idx) for one in self.exposures) if self.has_sharp else (),
            fps=1.0,
            bad_pixels=self.bad_pixels,
            is_checked=True,
        )


def check_ticks(stream: PackedStream, exposure: Exposure) -> None:
    """Raises ValueError unless the file holds the ticks of the exposure and of the window that it is read in."""
    num_ticks = exposure.num_ticks + abs(exposure.shift_ticks)
    if stream.num_ticks != num_ticks:
        raise ValueError(f"{stream.path}: {stream.num_ticks} ticks; allowed: {num_ticks}")


def write_sequence(sequence: PreparedSequence, recording: dict[str, Any]) -> None:
    """Write `sequence.json` into the sequence's folder; `recording` says where the frames come from."""
    exposures = zip(sequence.exposures, sequence.densities, strict=True)
    values = {
        "format": SEQUENCE_FORMAT,
        "version": SEQUENCE_VERSION,
        "frames": {
            "width": sequence.width,
            "height": sequence.height,
            "count": len(sequence.exposures),
            "format": sequence.frames,
            **({} if sequence.has_sharp else {"sharp": NO_SHARP}),
        },
        "spikes": {
            "width": sequence.geometry.width,
            "height": sequence.geometry.height,
            "rows": ROWS[sequence.geometry.bottom_up],
            "tick_rate_hz": sequence.tick_rate_hz,
            "ratio": sequence.ratio,
            "cells": "sensor",
            "bad_pixels": [list(pixel) for pixel in sequence.bad_pixels],
        },
        "exposures": [exposure_values(exposure) | {"density": density} for exposure, density in exposures],
        "recording": recording,
    }
    (sequence.folder / SEQUENCE_FILE).write_text(json.dumps(values, indent=1, allow_nan=False) + "\n")


def open_sequence(folder: Path) -> PreparedSequence:
    """Read `sequence.json`.

    Raises:
        FileNotFoundError: the folder holds none.
        ValueError: it is not a sequence of this version, or an entry is missing or wrong.
    """
    path = folder / SEQUENCE_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no such sequence ({SEQUENCE_FILE} is missing)")
    with naming(path):
        read = convert(load_json(path, SEQUENCE_FORMAT, SEQUENCE_VERSION, PREPARE_AGAIN), _Description)
        frames, spikes = read.frames, read.spikes
        require(len(read.exposures) > 0, "exposures", [], "one or more")
        check_bad_pixels(spikes.bad_pixels, spikes.height, spikes.width)
    return PreparedSequence(
        folder=folder,
        width=frames.width,
        height=frames.height,
        ratio=spikes.ratio,
        geometry=SpikeGeometry(spikes.width, spikes.height, spikes.rows == ROWS[True]),
        tick_rate_hz=spikes.tick_rate_hz,
        exposures=tuple(
            Exposure(one.frame_idx, one.start_tick, one.stop_tick, one.t0_s, one.t1_s, one.shift_ticks)
            for one in read.exposures
        ),
        densities=tuple(one.density for one in read.exposures),
        frames=frames.format,
        bad_pixels=spikes.bad_pixels,
        has_sharp=frames.sharp is None,
    )


@dataclass(frozen=True)
class _PreparedFrames:
    width: int
    height: int
    format: FrameKind
    sharp: Literal["none"] | None = None

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")


@dataclass(frozen=True)
class _PreparedSpikes:
    width: int
    height: int
    rows: Rows
    tick_rate_hz: float
    ratio: int
    cells: str
    bad_pixels: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        for name in ("width", "height", "ratio"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(self.tick_rate_hz > 0, "tick_rate_hz", self.tick_rate_hz, "above 0")
        require(self.cells == "sensor", "cells", self.cells, f"sensor{PREPARE_AGAIN}")  # others were no sensor pixels


@dataclass(frozen=True, kw_only=True)
class _PreparedExposure(Exposure):
    density: float


@dataclass(frozen=True)
class _Description:
    """sequence.json."""

    frames: _PreparedFrames
    spikes: _PreparedSpikes
    exposures: tuple[_PreparedExposure, ...]


def map_array(path: Path, shape: tuple[int, ...], dtypes: tuple[type, ...]) -> np.ndarray:
    """An array file, mapped and not read: only what is then indexed is.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: it is damaged, cut short, or holds another shape or type.
    """
    try:
        array = load_npy(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; run `spikevrt prepare` again") from None
    if array.shape != shape or array.dtype not in dtypes or not array.flags.c_contiguous:
        names = " or ".join(np.dtype(dtype).name for dtype in dtypes)
        raise ValueError(f"{path}: {array.dtype} of shape {array.shape}; allowed: {names} of shape {shape}")
    return array
