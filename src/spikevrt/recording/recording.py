"""A recording: blurry frames, the spike stream beside them, and which ticks each exposure covers.

The folder: recording.json, spikes.dat, blur/000000.png ..., and optionally sharp/000000.png ... Loose files (`loose`)
and other people's dataset folders (`layouts`) become the same object.

Dimension key: T ticks of one exposure, K slices of time, h sensor rows, w sensor columns, H and W rows and columns of a
frame, h2 and w2 those of the registered grid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikevrt.light import linear_to_srgb
from spikevrt.recording.alignment import (
    Alignment,
    SensorView,
    frame_rows,
    placed,
    placed_on,
    sensor_positions,
    sensor_view,
)
from spikevrt.recording.deep_images import is_deep, is_float
from spikevrt.recording.frames import check_size, image_size, list_images, read_image, read_pixels, to_float, to_uint8
from spikevrt.recording.sidecar import (
    BLUR_FOLDER,
    FORMAT,
    SHARP_FOLDER,
    SIDECAR,
    VERSION,
    Exposure,
    check_bad_pixels,
    check_exposures,
)
from spikevrt.recording.spike_formats import find_format, open_stream
from spikevrt.recording.stored import StoredRecording
from spikevrt.recording.stream import RolledStream, SpikeStream
from spikevrt.recording.video import VIDEO_SUFFIXES, VideoReader
from spikevrt.typed import amount, convert, load_json, naming

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
    frames_sha256: str | None = None  # of the video, or of all images one after the other, likewise
    alignment: Alignment = Alignment()
    bad_pixels: tuple[tuple[int, int], ...] = ()  # (row, column) on the sensor: dead, hot or stuck
    dropped: tuple[tuple[int, str], ...] = ()  # (frame_idx, why)
    notes: Mapping[str, str] = field(default_factory=dict)  # what was assumed or seen, by its subject
    linear: bool = False
    is_checked: bool = False  # the health gate has passed it, with its bad pixels marked
    voxel_bins: int | None = None  # bins of an exposure that the spikes were made from: finer in time nothing is known
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

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read: frames, sharp ones and spikes; of images the first stands for their folder."""
        blur = (self.blur,) if isinstance(self.blur, Path) else self.blur[:1]
        return (*blur, *self.sharp[:1], *(self.spikes.files if self.spikes is not None else ()))

    @property
    def readout_ticks(self) -> int:
        """Of a rolling shutter, from the start of the first row to that of the last; 0: all rows at once."""
        return self.spikes.readout_ticks if isinstance(self.spikes, RolledStream) else 0

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

    def noting(self, **notes: str) -> Recording:
        """The recording with these notes, by their subjects."""
        return dataclasses.replace(self, notes={**self.notes, **notes})

    def inside_stream(self) -> Recording:
        """The recording of those frames alone whose exposures lie inside the stream; the others are in `dropped`.

        Raises:
            ValueError: none does.
        """
        if self.spikes is None:
            return self
        kept = [index for index in range(self.num_frames) if self.is_inside(index)]
        if len(kept) == self.num_frames:
            return self
        offset = self.alignment.offset_ticks
        allowed = f"{f' with an offset of {offset:g}' if offset else ''}; allowed: inside [0, {self.num_ticks})"
        dropped = tuple(
            (one.frame_idx, f"its ticks are [{one.start_tick}, {one.stop_tick}){allowed}")
            for index, one in enumerate(self.exposures)
            if not self.is_inside(index)
        )
        if not kept:
            raise ValueError(f"{self.root}: no frame is left: {dropped[0][1]}")
        return dataclasses.replace(self, dropped=self.dropped + dropped).chosen(kept)

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
        """Blurry frame `index` in display (sRGB) values, at the depth that is stored: in [0, 1], of images brighter is
        clipped; of HDR video (PQ, where 1 is `light.HDR_WHITE_NITS`) it is above 1.

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

    Checked: the format, the size of every image, as many frames as exposures, the sizes of the spike file and of a
    video, exposures in order. Checksums are left to `inspect`, which reads the files anyway. Frames whose exposures lie
    outside the stream are dropped, or kept with `keep_outside`. With `apply_alignment` off it is opened as it was
    before `spikevrt align`.

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
        read = convert(load_json(sidecar, FORMAT, VERSION), StoredRecording)
    found, frames, exposures = read.spikes, read.frames, read.exposures
    _present(root / found.file)
    find_format(root / found.file)  # refuses what contradicts recording.json
    stream = open_stream(root / found.file, found.format)
    if stream.num_ticks != found.num_ticks:
        raise ValueError(f"{stream.files[0]}: {amount(stream.num_ticks, 'tick')}, but {SIDECAR} says {found.num_ticks}")
    with naming(sidecar):
        check_exposures(sidecar, exposures)
        check_bad_pixels(found.bad_pixels, stream.height, stream.width)
        alignment = placed(read.alignment, root) if read.alignment is not None else None
    if len(exposures) != frames.count:
        raise ValueError(f"{sidecar}: {amount(frames.count, 'frame')}, but {amount(len(exposures), 'exposure')}")
    size = (frames.height, frames.width)
    blur: tuple[Path, ...] | Path
    if frames.file is None:
        blur = _checked_images(root / BLUR_FOLDER, len(exposures), size)
    else:
        blur = _present(root / frames.file)
        if frames.num_bytes not in (None, blur.stat().st_size):
            told = f"{blur.stat().st_size} bytes, but {SIDECAR} says {frames.num_bytes}"
            raise ValueError(f"{blur}: {told}; is it another video?")
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
        frames_sha256=frames.sha256,
        bad_pixels=found.bad_pixels,
        linear=frames.linear,
        notes=read.notes,
    )
    recording = with_readout(recording, frames.readout_ticks)
    if alignment is not None and apply_alignment:
        return with_alignment(recording, alignment, keep_outside)
    return recording if keep_outside else recording.inside_stream()


def _present(path: Path) -> Path:
    """The path of a recording's file. Raises FileNotFoundError, which says where a link leads that leads nowhere."""
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(f"{path}: a link to {path.readlink()}, where there is nothing; was it moved?")
    return path


def with_alignment(recording: Recording, alignment: Alignment, keep_outside: bool = False) -> Recording:
    """The recording under an alignment: exposures shifted by whole ticks, frames that then lie outside dropped or kept.

    Raises:
        ValueError: the recording is aligned already, or no frame would remain.
    """
    if recording.alignment != Alignment():
        raise ValueError(f"{recording.root}: aligned already; open it without its alignment first")
    moved = []
    for one in recording.exposures:
        shift = alignment.later_ticks(one.start_tick)
        shift_s = shift / recording.tick_rate_hz
        start, stop, t0_s, t1_s = one.start_tick + shift, one.stop_tick + shift, one.t0_s + shift_s, one.t1_s + shift_s
        moved.append(dataclasses.replace(one, start_tick=start, stop_tick=stop, t0_s=t0_s, t1_s=t1_s))
    whole = dataclasses.replace(recording, exposures=tuple(moved), alignment=alignment)
    if isinstance(recording.spikes, RolledStream):  # whose rows meet the frame's where the cameras are registered
        inner = dataclasses.replace(whole, spikes=recording.spikes.stream)
        whole = with_readout(inner, recording.spikes.readout_ticks)
    return whole if keep_outside else whole.inside_stream()


def with_readout(recording: Recording, readout_ticks: int) -> Recording:
    """The recording of a colour camera whose last row opens `readout_ticks` after the first (rolling shutter).

    The spikes of each row of the frame are read so much later, so that all else sees a shutter that opens at once; the
    restored frame has every row at its own time.
    """
    if not readout_ticks or recording.spikes is None:
        return recording
    stream = recording.spikes
    assert not isinstance(stream, RolledStream), "rolled already"
    sizes = {"sensor_width": stream.width, "sensor_height": stream.height}
    rows = frame_rows(recording.alignment, width=recording.width, height=recording.height, **sizes)
    last = max(recording.height - 1, 1)
    delays = np.rint(np.clip(rows / last, 0, 1) * readout_ticks).astype(np.int64)
    return dataclasses.replace(recording, spikes=RolledStream(stream, delays, readout_ticks))


def find_recordings(paths: Iterable[str | Path], advise: Callable[[Path], str] | None = None) -> list[Path]:
    """Each path is a recording or a folder of recordings; the latter are taken in the order of their names. What
    `advise` says of a path that is neither ends the line that refuses it.

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
            raise ValueError(
                f"{path}: neither a recording nor a folder of recordings (no {SIDECAR}){advise(path) if advise else ''}"
            )
        found += inside
    return found


def recordings_in(folder: Path) -> list[Path]:
    """The recordings that lie in a folder, by name; hidden ones, such as those in the making, are skipped."""
    return sorted(file.parent for file in folder.glob(f"*/{SIDECAR}") if not file.parent.name.startswith("."))


def _checked_images(folder: Path, num_frames: int, size: tuple[int, int]) -> tuple[Path, ...]:
    images = list_images(folder)
    if len(images) != num_frames:
        raise ValueError(f"{folder}: {amount(len(images), 'image')} for {amount(num_frames, 'exposure')}")
    for image in images:
        check_size(image, image_size(image), size)
    return tuple(images)
