"""A recording: blurry frames, the spike stream beside them, and which ticks each exposure covers.

The folder: recording.json, spikes.dat, blur/000000.png ..., and optionally sharp/000000.png ... Loose files (a folder
of images or a video, and a packed stream) become the same object when the caller states what the files do not.

Dimension key: T ticks of one exposure, h sensor rows, w sensor columns, H and W rows and columns of a frame.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikevrt.recording.frames import image_size, list_images, read_image
from spikevrt.recording.spike_file import SpikeGeometry, count_ticks, read_spikes
from spikevrt.recording.video import VIDEO_SUFFIXES, VideoReader, probe_video

if TYPE_CHECKING:
    from jaxtyping import UInt8

FORMAT, VERSION = "spikevrt-recording", 1
SIDECAR, SPIKE_FILE, BLUR_FOLDER, SHARP_FOLDER = "recording.json", "spikes.dat", "blur", "sharp"
BIT_ORDER = "lsb-first"
ROWS = {True: "bottom-up", False: "top-down"}
ASSUMED_FPS = 25.0  # of a folder of images without spikes: nothing tells it, and nothing but a video's speed uses it


@dataclass(frozen=True)
class Exposure:
    """One frame's shutter: ticks [start_tick, stop_tick), which is [t0_s, t1_s) of the recording's clock."""

    frame_idx: int
    start_tick: int
    stop_tick: int
    t0_s: float
    t1_s: float


@dataclass(frozen=True)
class Recording:
    """Where everything lies and how it belongs together; pixels and spikes are read when asked for.

    `spike_path` is None when there are only frames; then `num_ticks` is 0 and every exposure holds no tick.
    """

    root: Path
    width: int
    height: int
    geometry: SpikeGeometry
    tick_rate_hz: float
    num_ticks: int
    exposures: tuple[Exposure, ...]
    spike_path: Path | None
    blur: tuple[Path, ...] | Path
    sharp: tuple[Path, ...]
    fps: float
    provenance: dict[str, Any] = field(default_factory=dict)
    stored_sha256: str | None = None  # of the spike file, as recording.json has it

    @property
    def name(self) -> str:
        return self.root.stem if self.root.suffix.lower() in VIDEO_SUFFIXES else self.root.resolve().name

    @property
    def num_frames(self) -> int:
        return len(self.exposures)

    def read_blur(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Blurry frame `index`, counted from 0 in this recording."""
        assert 0 <= index < self.num_frames, index
        if isinstance(self.blur, Path):
            return self._checked(self._video.read(index), self.blur)
        return self._checked(read_image(self.blur[index]), self.blur[index])

    def read_sharp(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Sharp frame `index`. Raises ValueError when the recording has none."""
        if not self.sharp:
            raise ValueError(f"{self.root}: no sharp frames in this recording")
        assert 0 <= index < self.num_frames, index
        return self._checked(read_image(self.sharp[index]), self.sharp[index])

    def read_exposure_spikes(self, index: int) -> UInt8[np.ndarray, "T h w"]:
        """The upright spikes of exposure `index`, every tick of it. Raises ValueError when there are no spikes."""
        if self.spike_path is None:
            raise ValueError(f"{self.root}: no spikes in this recording")
        assert 0 <= index < self.num_frames, index
        exposure = self.exposures[index]
        return read_spikes(self.spike_path, self.geometry, exposure.start_tick, exposure.stop_tick)

    @cached_property
    def _video(self) -> VideoReader:
        assert isinstance(self.blur, Path)
        return VideoReader(self.blur)

    def _checked(self, image: np.ndarray, path: Path) -> np.ndarray:
        _check_size(path, (image.shape[0], image.shape[1]), (self.height, self.width))
        return image


def open_recording(path: Path) -> Recording:
    """Open a recording folder, and refuse one whose files contradict its recording.json or each other.

    Checked: the format, the size of every frame, as many frames as exposures, the spike file's size, exposures in order
    and inside the stream. The spike file's checksum is left to `inspect`, which reads it anyway.

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
    try:
        values = json.loads(sidecar.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{sidecar}: not JSON ({error})") from None
    fields = _Fields(sidecar, values)
    if fields.get("format", str) != FORMAT or fields.get("version", int) != VERSION:
        raise ValueError(f"{sidecar}: not a {FORMAT} of version {VERSION}")

    rows, bit_order = fields.get("spikes.rows", str), fields.get("spikes.bit_order", str)
    if rows not in ROWS.values():
        raise ValueError(f"{sidecar}: spikes.rows: {rows!r}; allowed: {', '.join(ROWS.values())}")
    if bit_order != BIT_ORDER:
        raise ValueError(f"{sidecar}: spikes.bit_order: {bit_order!r}; allowed: {BIT_ORDER}")
    geometry = SpikeGeometry(fields.get("spikes.width", int), fields.get("spikes.height", int), rows == ROWS[True])
    spike_path = root / fields.get("spikes.file", str)
    num_ticks = count_ticks(spike_path, geometry)
    if num_ticks != fields.get("spikes.num_ticks", int):
        raise ValueError(f"{spike_path}: {num_ticks} ticks, but {SIDECAR} says {fields.get('spikes.num_ticks', int)}")

    exposures = tuple(
        Exposure(
            frame_idx=entry.get("frame_idx", int),
            start_tick=entry.get("start_tick", int),
            stop_tick=entry.get("stop_tick", int),
            t0_s=entry.get("t0_s", float),
            t1_s=entry.get("t1_s", float),
        )
        for entry in (
            _Fields(sidecar, item, f"exposures[{i}].") for i, item in enumerate(fields.get("exposures", list))
        )
    )
    _check_exposures(sidecar, exposures, num_ticks)
    if len(exposures) != fields.get("frames.count", int):
        raise ValueError(f"{sidecar}: {fields.get('frames.count', int)} frames, but {len(exposures)} exposures")
    size = (fields.get("frames.height", int), fields.get("frames.width", int))
    blur = _checked_images(root / BLUR_FOLDER, len(exposures), size)
    has_sharp = (root / SHARP_FOLDER).is_dir()
    sharp = _checked_images(root / SHARP_FOLDER, len(exposures), size) if has_sharp else ()
    return Recording(
        root=root,
        width=size[1],
        height=size[0],
        geometry=geometry,
        tick_rate_hz=fields.positive("spikes.tick_rate_hz"),
        num_ticks=num_ticks,
        exposures=exposures,
        spike_path=spike_path,
        blur=blur,
        sharp=sharp,
        fps=fields.positive("frames.fps"),
        provenance=fields.get("provenance", dict),
        stored_sha256=fields.get("spikes.sha256", str),
    )


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


def loose_recording(
    frames: Path,
    spikes: Path | None,
    *,
    spike_width: int | None = None,
    spike_height: int | None = None,
    bottom_up: bool = True,
    tick_rate_hz: float = 20000.0,
    first_tick: int = 0,
    exposure_ticks: int | None = None,
    period_ticks: int | None = None,
) -> Recording:
    """Make a recording of loose files: a folder of images or a video, and a packed stream (or None: frames alone).

    Exposure i covers `exposure_ticks` ticks from first_tick + i * period_ticks. By default the stream is split equally:
    period_ticks = ticks / frames, which must divide; and exposure_ticks = period_ticks (the shutter never closes).

    Raises:
        FileNotFoundError: no such frames or spike file.
        ValueError: no spike size given, or the exposures do not fit the stream.
    """
    frames = Path(frames)
    if frames.is_dir():
        images = list_images(frames)
        height, width = image_size(images[0])
        for image in images:
            _check_size(image, image_size(image), (height, width))
        blur: tuple[Path, ...] | Path = tuple(images)
        num_frames, fps = len(images), None
    else:
        info = probe_video(frames)
        height, width, num_frames, fps, blur = info.height, info.width, info.num_frames, info.fps, frames
    if spikes is None:
        fps = fps or ASSUMED_FPS
        exposures = tuple(Exposure(i, 0, 0, i / fps, (i + 1) / fps) for i in range(num_frames))
        geometry, num_ticks = SpikeGeometry(width, height, bottom_up), 0
    else:
        spikes = Path(spikes)
        if spike_width is None or spike_height is None:
            raise ValueError(f"{spikes}: a packed stream does not tell its size; pass spike_width and spike_height")
        if not 0 < tick_rate_hz < math.inf:
            raise ValueError(f"tick_rate_hz: {tick_rate_hz}; allowed: above 0")
        geometry = SpikeGeometry(spike_width, spike_height, bottom_up)
        num_ticks = count_ticks(spikes, geometry)
        exposures = _lay_out(spikes, num_frames, num_ticks, tick_rate_hz, first_tick, exposure_ticks, period_ticks)
        if fps is None:
            step_ticks = exposures[1].start_tick - exposures[0].start_tick if num_frames > 1 else exposures[0].stop_tick
            fps = tick_rate_hz / step_ticks
    return Recording(
        root=frames,
        width=width,
        height=height,
        geometry=geometry,
        tick_rate_hz=tick_rate_hz,
        num_ticks=num_ticks,
        exposures=exposures,
        spike_path=spikes,
        blur=blur,
        sharp=(),
        fps=fps,
        provenance={"frames": str(frames), "spikes": None if spikes is None else str(spikes)},
    )


def write_sidecar(
    root: Path,
    *,
    geometry: SpikeGeometry,
    num_ticks: int,
    tick_rate_hz: float,
    spike_sha256: str,
    width: int,
    height: int,
    fps: float,
    exposures: Sequence[Exposure],
    provenance: dict[str, Any],
) -> None:
    """Write root/recording.json; spikes.dat and blur/ (and sharp/) must already lie beside it."""
    root = Path(root)
    _check_exposures(root / SIDECAR, exposures, num_ticks)
    values = {
        "format": FORMAT,
        "version": VERSION,
        "spikes": {
            "file": SPIKE_FILE,
            "width": geometry.width,
            "height": geometry.height,
            "rows": ROWS[geometry.bottom_up],
            "bit_order": BIT_ORDER,
            "num_ticks": num_ticks,
            "tick_rate_hz": tick_rate_hz,
            "sha256": spike_sha256,
        },
        "frames": {"width": width, "height": height, "count": len(exposures), "fps": fps},
        "exposures": [vars(exposure) for exposure in exposures],
        "provenance": provenance,
    }
    partial = root / f".{SIDECAR}.partial-{os.getpid()}"
    try:
        partial.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(partial, root / SIDECAR)
    finally:
        partial.unlink(missing_ok=True)


def _lay_out(
    spikes: Path,
    num_frames: int,
    num_ticks: int,
    tick_rate_hz: float,
    first_tick: int,
    exposure_ticks: int | None,
    period_ticks: int | None,
) -> tuple[Exposure, ...]:
    if not 0 <= first_tick < num_ticks:
        raise ValueError(f"first_tick: {first_tick}; allowed: 0 to {num_ticks - 1}, {spikes} has {num_ticks} ticks")
    if period_ticks is None:
        period_ticks, remainder = divmod(num_ticks - first_tick, num_frames)
        if remainder:
            raise ValueError(
                f"{spikes}: {num_ticks - first_tick} ticks do not split equally over {num_frames} frames; "
                f"pass period_ticks"
            )
    if period_ticks < 1:
        raise ValueError(f"period_ticks: {period_ticks}; allowed: 1 or more")
    if exposure_ticks is None:
        exposure_ticks = period_ticks
    if not 1 <= exposure_ticks <= period_ticks:
        raise ValueError(f"exposure_ticks: {exposure_ticks}; allowed: 1 to period_ticks = {period_ticks}")
    needed = first_tick + (num_frames - 1) * period_ticks + exposure_ticks
    if needed > num_ticks:
        raise ValueError(f"{spikes}: {num_ticks} ticks, but {num_frames} exposures need {needed}")
    starts = [first_tick + i * period_ticks for i in range(num_frames)]
    return tuple(
        Exposure(i, start, start + exposure_ticks, start / tick_rate_hz, (start + exposure_ticks) / tick_rate_hz)
        for i, start in enumerate(starts)
    )


def _check_exposures(sidecar: Path, exposures: Sequence[Exposure], num_ticks: int) -> None:
    if not exposures:
        raise ValueError(f"{sidecar}: no exposures")
    previous: Exposure | None = None
    for index, exposure in enumerate(exposures):
        window = f"ticks [{exposure.start_tick}, {exposure.stop_tick})"
        if not 0 <= exposure.start_tick < exposure.stop_tick <= num_ticks:
            raise ValueError(f"{sidecar}: exposures[{index}]: {window}; allowed: inside [0, {num_ticks}), not empty")
        if not exposure.t0_s < exposure.t1_s:
            raise ValueError(f"{sidecar}: exposures[{index}]: t0_s {exposure.t0_s} is not before t1_s {exposure.t1_s}")
        if previous is not None and exposure.start_tick < previous.stop_tick:
            raise ValueError(f"{sidecar}: exposures[{index}]: {window} begin before the exposure before it ends")
        if previous is not None and exposure.frame_idx <= previous.frame_idx:
            raise ValueError(f"{sidecar}: exposures[{index}]: frame_idx {exposure.frame_idx} is not in rising order")
        previous = exposure


def _checked_images(folder: Path, num_frames: int, size: tuple[int, int]) -> tuple[Path, ...]:
    images = list_images(folder)
    if len(images) != num_frames:
        raise ValueError(f"{folder}: {len(images)} images for {num_frames} exposures")
    for image in images:
        _check_size(image, image_size(image), size)
    return tuple(images)


def _check_size(path: Path, size: tuple[int, int], expected: tuple[int, int]) -> None:
    if size != expected:
        raise ValueError(f"{path}: {size[1]}x{size[0]} pixels; the recording has {expected[1]}x{expected[0]}")


class _Fields:
    """Typed look-up in decoded JSON; a missing or wrong value is one line that names file and key."""

    def __init__(self, sidecar: Path, values: Any, prefix: str = "") -> None:
        self.sidecar, self.values, self.prefix = sidecar, values, prefix

    def get(self, key: str, kind: type[Any]) -> Any:
        node = self.values
        for part in key.split("."):
            if not isinstance(node, dict) or part not in node:
                raise ValueError(f"{self.sidecar}: {self.prefix}{key} is missing")
            node = node[part]
        if kind is float and isinstance(node, int) and not isinstance(node, bool):
            node = float(node)
        if not isinstance(node, kind) or isinstance(node, bool) or (kind is float and not math.isfinite(node)):
            raise ValueError(f"{self.sidecar}: {self.prefix}{key}: {node!r}; allowed: {kind.__name__}")
        return node

    def positive(self, key: str) -> float:
        value = float(self.get(key, float))
        if value <= 0:
            raise ValueError(f"{self.sidecar}: {self.prefix}{key}: {value}; allowed: above 0")
        return value
