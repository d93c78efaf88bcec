"""A recording: blurry frames, the spike stream beside them, and which ticks each exposure covers.

The folder: recording.json, spikes.dat, blur/000000.png ..., and optionally sharp/000000.png ... Loose files (`loose`)
and other people's dataset folders (`layouts`) become the same object.

Dimension key: T ticks of one exposure, K slices of time, h sensor rows, w sensor columns, H and W rows and columns of a
frame, h2 and w2 those of the registered grid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikevrt.light import linear_to_srgb
from spikevrt.recording.alignment import Alignment, SensorView, placed, placed_on, sensor_positions, sensor_view
from spikevrt.recording.deep_images import is_deep, is_float
from spikevrt.recording.frames import check_size, image_size, list_images, read_image, read_pixels, to_float, to_uint8
from spikevrt.recording.sidecar import (
    BLUR_FOLDER,
    FORMAT,
    ROWS,
    SHARP_FOLDER,
    SIDECAR,
    SPIKE_FILE,
    VERSION,
    Exposure,
    StreamFormat,
    check_bad_pixels,
    check_exposures,
    exposure_values,
    write_json,
)
from spikevrt.recording.spike_file import SpikeWriter
from spikevrt.recording.spike_formats import RecordedStream, find_format, open_stream
from spikevrt.recording.stream import SpikeStream
from spikevrt.recording.video import VIDEO_SUFFIXES, VideoReader
from spikevrt.typed import convert, load_json, naming, require

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, UInt, UInt8
    from torch import Tensor


@dataclass(frozen=True)
class Recording:
    """Where everything lies and how it belongs together; pixels and spikes are read when asked for.

    `spikes` is None when there are only frames; then every exposure holds no tick. `exposures` are those after the
    alignment's time offset; frames whose ticks would then lie outside the stream are in `dropped`, not in `exposures`,
    unless it was opened with `keep_outside`: reading the spikes of such a frame raises ValueError.
    With `linear`, blurry images of more than 8 bits hold linear light (65535, or 1, is white); EXR does in any case.
    """

    root: Path
    width: int
    height: int
    tick_rate_hz: float
    exposures: tuple[Exposure, ...]
    spikes: SpikeStream | None
    blur: tuple[Path, ...] | Path
    sharp: tuple[Path, ...]
    fps: float
    provenance: dict[str, Any] = field(default_factory=dict)
    stored_sha256: str | None = None  # of the spike file, as recording.json has it
    alignment: Alignment = Alignment()
    bad_pixels: tuple[tuple[int, int], ...] = ()  # (row, column) on the sensor: dead, hot or stuck
    dropped: tuple[tuple[int, str], ...] = ()  # (frame_idx, why)
    linear: bool = False
    is_checked: bool = False  # the health gate has passed it, with its bad pixels marked
    assumed: tuple[str, ...] = ()  # a line each: what nothing told, and what would
    view: SensorView | None = None  # frames are read through it (`on_sensor`)

    @property
    def name(self) -> str:
        return self.root.stem if self.root.suffix.lower() in VIDEO_SUFFIXES else self.root.resolve().name

    @property
    def num_frames(self) -> int:
        return len(self.exposures)

    @property
    def num_ticks(self) -> int:
        return 0 if self.spikes is None else self.spikes.num_ticks

    def is_inside(self, index: int) -> bool:
        """Whether exposure `index` has ticks, and the stream has all of them."""
        return self.exposures[index].is_inside(self.num_ticks)

    def chosen(self, indices: Sequence[int]) -> Recording:
        """The recording of these of its frames alone."""
        return dataclasses.replace(
            self,
            exposures=tuple(self.exposures[index] for index in indices),
            blur=self.blur if isinstance(self.blur, Path) else tuple(self.blur[index] for index in indices),
            sharp=tuple(self.sharp[index] for index in indices) if self.sharp else (),
        )

    def inside_stream(self) -> Recording:
        """The recording of those frames alone whose exposures lie inside the stream.

        Raises:
            ValueError: none does.
        """
        kept = [index for index in range(self.num_frames) if self.is_inside(index)]
        if not kept:
            raise ValueError(f"{self.root}: no exposure lies inside the {self.num_ticks} ticks of its spikes")
        return self if len(kept) == self.num_frames else self.chosen(kept)

    def read_blur(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Blurry frame `index`, counted from 0 in this recording, in display values of 8 bits."""
        assert 0 <= index < self.num_frames, index
        if isinstance(self.blur, Path):
            return self._checked(self._videos[0].read(self.exposures[index].frame_idx), self.blur)
        path = self.blur[index]
        if is_float(path) or (self.linear and is_deep(path)):
            return to_uint8(self.read_blur_deep(index))
        return self._checked(read_image(path), path)

    def read_blur_deep(self, index: int) -> Float[Tensor, "3 H W"]:
        """Blurry frame `index` in display (sRGB) values in [0, 1], at the depth that is stored; brighter is clipped.

        Of 8 bits it is exactly `to_float(read_blur(index))`. Raises ValueError where a value is not finite.
        """
        assert 0 <= index < self.num_frames, index
        if isinstance(self.blur, Path):
            return to_float(self._checked(self._videos[1].read(self.exposures[index].frame_idx), self.blur))
        path = self.blur[index]
        image = self._checked(read_pixels(path), path)
        frame = to_float(image)
        if image.dtype == np.float32 and not np.isfinite(image).all():
            raise ValueError(f"{path}: values that are NaN or infinite; allowed: finite ones")
        if image.dtype == np.uint8:
            return frame
        is_linear = self.linear or path.suffix.lower() == ".exr"
        return linear_to_srgb(frame.clamp(0.0, 1.0)).clamp(0.0, 1.0) if is_linear else frame.clamp(0.0, 1.0)

    def read_sharp(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Sharp frame `index`. Raises ValueError when the recording has none."""
        if not self.sharp:
            raise ValueError(f"{self.root}: no sharp frames in this recording")
        assert 0 <= index < self.num_frames, index
        return self._checked(read_image(self.sharp[index]), self.sharp[index])

    def read_exposure_spikes(self, index: int) -> UInt8[np.ndarray, "T h w"]:
        """The upright spikes of exposure `index` as the sensor saw them: every tick, not registered, not repaired.

        Raises ValueError when there are no spikes.
        """
        exposure = self._exposure_with_spikes(index)
        assert self.spikes is not None
        return self.spikes.read(exposure.start_tick, exposure.stop_tick)

    def count_exposure(self, index: int, edges: Sequence[int]) -> UInt[np.ndarray, "K h w"]:
        """Spikes per pixel between the edges (ticks from the start of exposure `index`); not registered, not repaired.

        Raises ValueError when there are no spikes.
        """
        exposure = self._exposure_with_spikes(index)
        assert self.spikes is not None and edges[-1] <= exposure.num_ticks, (edges[-1], exposure)
        return self.spikes.count([exposure.start_tick + edge for edge in edges])

    def bad_mask(self) -> Bool[np.ndarray, "h w"] | None:
        """True where a sensor pixel is bad; None when none is known."""
        if not self.bad_pixels or self.spikes is None:
            return None
        mask = np.zeros((self.spikes.height, self.spikes.width), dtype=bool)
        rows, columns = np.array(self.bad_pixels).T
        mask[rows, columns] = True
        return mask

    @cached_property
    def sensor_positions(self) -> Float[np.ndarray, "h2 w2 2"] | None:
        """Where each cell of the registered grid looks on the sensor (`recording.alignment`), in sensor pixels (x, y).

        None when sensor pixels are cells already: nothing was aligned, and a frame has a whole number of pixels for
        each of them. Raises FileNotFoundError or ValueError when the displacement field is missing or damaged.
        """
        return placed_on(self, sensor_positions)

    @cached_property
    def on_sensor(self) -> Recording:
        """The recording with its frames resampled (`view`) so that each sensor pixel is a whole number of theirs: what
        networks read. Itself where that is so already. Raises as `sensor_positions`."""
        view = placed_on(self, sensor_view)
        if view is None:
            return self
        height, width = view.on_frame.shape[:2]
        plain = dataclasses.replace(self.alignment, homography=None, flow=None)
        return dataclasses.replace(self, width=width, height=height, alignment=plain, view=view)

    @cached_property
    def _videos(self) -> tuple[VideoReader, VideoReader]:
        """Of 8 bits, and at the depth that is stored."""
        assert isinstance(self.blur, Path)
        return VideoReader(self.blur), VideoReader(self.blur, deep=True)

    def _exposure_with_spikes(self, index: int) -> Exposure:
        if self.spikes is None:
            raise ValueError(f"{self.root}: no spikes in this recording")
        assert 0 <= index < self.num_frames, index
        return self.exposures[index]

    def _checked(self, image: np.ndarray, path: Path) -> np.ndarray:
        stored = (self.height, self.width) if self.view is None else self.view.frame_size
        check_size(path, (image.shape[0], image.shape[1]), stored)
        return image if self.view is None else self.view.seen(image)


def open_recording(path: Path, *, apply_alignment: bool = True, keep_outside: bool = False) -> Recording:
    """Open a recording folder, and refuse one whose files contradict its recording.json or each other.

    Checked: the format, the size of every frame, as many frames as exposures, the spike file's size, exposures in order
    and inside the stream. The spike file's checksum is left to `inspect`, which reads it anyway. With `apply_alignment`
    off it is opened as it was before `spikevrt align`; `keep_outside` is for `with_alignment`.

    Raises:
        FileNotFoundError: no such folder, or a file of it is missing.
        ValueError: something contradicts; one line says what.
    """
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"{root}: no such recording")
    sidecar = root / SIDECAR
    if not sidecar.is_file():
        raise FileNotFoundError(f"{root}: no recording (it has no {SIDECAR})")
    with naming(sidecar):
        read = convert(load_json(sidecar, FORMAT, VERSION), _Sidecar)
    found = read.spikes
    find_format(root / found.file)  # refuses what contradicts recording.json
    stream = open_stream(root / found.file, found.format)
    if stream.num_ticks != found.num_ticks:
        raise ValueError(f"{stream.files[0]}: {stream.num_ticks} ticks, but {SIDECAR} says {found.num_ticks}")
    with naming(sidecar):
        check_exposures(sidecar, read.exposures, stream.num_ticks)
        check_bad_pixels(found.bad_pixels, stream.height, stream.width)
        alignment = placed(read.alignment, root) if read.alignment is not None else None
    frames, exposures = read.frames, read.exposures
    if len(exposures) != frames.count:
        raise ValueError(f"{sidecar}: {frames.count} frames, but {len(exposures)} exposures")
    size = (frames.height, frames.width)
    blur = _checked_images(root / BLUR_FOLDER, len(exposures), size)
    has_sharp = (root / SHARP_FOLDER).is_dir()
    sharp = _checked_images(root / SHARP_FOLDER, len(exposures), size) if has_sharp else ()
    recording = Recording(
        root=root,
        width=frames.width,
        height=frames.height,
        tick_rate_hz=found.tick_rate_hz,
        exposures=exposures,
        spikes=stream,
        blur=blur,
        sharp=sharp,
        fps=frames.fps,
        provenance=read.provenance,
        stored_sha256=found.sha256,
        bad_pixels=found.bad_pixels,
    )
    return recording if alignment is None or not apply_alignment else with_alignment(recording, alignment, keep_outside)


@dataclass(frozen=True)
class _Frames:
    """`frames` of recording.json."""

    width: int
    height: int
    count: int
    fps: float

    def __post_init__(self) -> None:
        require(self.fps > 0, "fps", self.fps, "above 0")


@dataclass(frozen=True)
class _Sidecar:
    """recording.json."""

    spikes: RecordedStream
    frames: _Frames
    exposures: tuple[Exposure, ...]
    provenance: dict[str, Any]
    alignment: Alignment | None = None


def with_alignment(recording: Recording, alignment: Alignment, keep_outside: bool = False) -> Recording:
    """The recording under an alignment: exposures shifted by whole ticks, frames that then lie outside dropped or kept.

    Raises:
        ValueError: the recording is aligned already, or no frame would remain.
    """
    if recording.alignment != Alignment():
        raise ValueError(f"{recording.root}: aligned already; open it without its alignment first")
    shift = round(alignment.offset_ticks)
    shift_s = shift / recording.tick_rate_hz
    moved = [
        dataclasses.replace(
            one,
            start_tick=one.start_tick + shift,
            stop_tick=one.stop_tick + shift,
            t0_s=one.t0_s + shift_s,
            t1_s=one.t1_s + shift_s,
        )
        for one in recording.exposures
    ]
    stays = [recording.spikes is None or keep_outside or one.is_inside(recording.num_ticks) for one in moved]
    kept = [index for index, does_stay in enumerate(stays) if does_stay]
    allowed = f"with an offset of {shift}; allowed: inside [0, {recording.num_ticks})"
    dropped = tuple(
        (one.frame_idx, f"its ticks are [{one.start_tick}, {one.stop_tick}) {allowed}")
        for one, does_stay in zip(moved, stays, strict=True)
        if not does_stay
    )
    if not kept:
        raise ValueError(f"{recording.root}: no frame is left: {dropped[0][1]}")
    whole = dataclasses.replace(
        recording, exposures=tuple(moved), alignment=alignment, dropped=recording.dropped + dropped
    )
    return whole.chosen(kept)


def find_recordings(paths: Iterable[str | Path]) -> list[Path]:
    """Each path is a recording or a folder of recordings; the latter are taken in the order of their names.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: a path neither is nor holds a recording.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such recording")
        inside = [path] if (path / SIDECAR).is_file() else recordings_in(path)
        if not inside:
            raise ValueError(f"{path}: neither a recording nor a folder of recordings (no {SIDECAR})")
        found += inside
    return found


def recordings_in(folder: Path) -> list[Path]:
    """The recordings that lie in a folder, by name; hidden ones, such as those in the making, are skipped."""
    return sorted(file.parent for file in folder.glob(f"*/{SIDECAR}") if not file.parent.name.startswith("."))


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
    root, geometry = Path(root), spikes.geometry
    check_exposures(root / SIDECAR, exposures, spikes.num_ticks)
    stored = StreamFormat("packed", geometry.width, geometry.height, ROWS[geometry.bottom_up], geometry.tag_bits)
    values = {
        "format": FORMAT,
        "version": VERSION,
        "spikes": {
            "file": SPIKE_FILE,
            **{name: value for name, value in stored.values().items() if name != "kind"},
            "num_ticks": spikes.num_ticks,
            "tick_rate_hz": tick_rate_hz,
            "sha256": spikes.sha256,
        },
        "frames": {"width": width, "height": height, "count": len(exposures), "fps": fps},
        "exposures": [exposure_values(exposure) for exposure in exposures],
        "provenance": provenance,
    }
    write_json(root / SIDECAR, values)


def _checked_images(folder: Path, num_frames: int, size: tuple[int, int]) -> tuple[Path, ...]:
    images = list_images(folder)
    if len(images) != num_frames:
        raise ValueError(f"{folder}: {len(images)} images for {num_frames} exposures")
    for image in images:
        check_size(image, image_size(image), size)
    return tuple(images)
