"""Make recordings: blurry frames, sharp frames and the spike stream, all from the same light.

The scene is rendered once per tick, in chunks of bounded memory. A blurry frame is the mean of the linear light over
its exposure's ticks; the sharp frame is the light at tick `start + exposure_ticks // 2`; the sensor integrates the
luminance of the same light, averaged over `ratio` x `ratio` pixels.

Dimension key: N ticks, H frame rows, W frame columns, h sensor rows, w sensor columns.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from spikevrt.recording.atomic import complete_or_absent, refuse_existing
from spikevrt.recording.frames import IMAGE_SUFFIXES, list_images, to_uint8, write_image
from spikevrt.recording.recording import SIDECAR, Exposure, Recording, open_recording, write_sidecar
from spikevrt.recording.spike_file import SpikeGeometry, SpikeWriter, sha256_file
from spikevrt.recording.video import probe_video
from spikevrt.simulate.exposure import linear_to_srgb, luminance
from spikevrt.simulate.scene import Scene, photo_scene, video_scene
from spikevrt.simulate.sensor import SensorConfig, SpikeSensor

CHUNK_PIXELS = 1 << 20  # light is rendered in chunks of about this many pixels (12 bytes each), 16 ticks at most


@dataclass(frozen=True)
class SimulateOptions:
    """How a recording is simulated.

    A photograph is filmed under a moving camera: `motion_px` is the typical image motion over one exposure (each
    recording draws its own speed between 0.5 and 1.5 times that) and `num_layers` cut-outs move before it. A video is
    filmed as it is: `ticks_per_frame` ticks lie between two of its frames, and recording begins at `start_frame`.
    """

    frames: int = 5
    exposure_ticks: int = 128
    period_ticks: int = 160
    width: int = 640
    height: int = 360
    motion_px: float = 12.0
    num_layers: int = 2
    ticks_per_frame: int = 8
    start_frame: int = 0
    seed: int = 123
    sensor: SensorConfig = field(default_factory=SensorConfig)

    def __post_init__(self) -> None:
        for name in ("frames", "exposure_ticks", "width", "height", "ticks_per_frame"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}; must be 1 or more")
        for name in ("num_layers", "start_frame"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)}; must be 0 or more")
        if not 0 <= self.motion_px < float("inf"):
            raise ValueError(f"motion_px: {self.motion_px}; must be 0 or more")
        if self.period_ticks < self.exposure_ticks:
            raise ValueError(
                f"period_ticks: {self.period_ticks}; must be at least exposure_ticks = {self.exposure_ticks}"
            )
        for name in ("width", "height"):
            if getattr(self, name) % self.sensor.ratio:
                raise ValueError(f"{name}: {getattr(self, name)}; must be a multiple of ratio = {self.sensor.ratio}")

    @property
    def num_ticks(self) -> int:
        """Length of the stream: from the first exposure's start to the last one's end."""
        return (self.frames - 1) * self.period_ticks + self.exposure_ticks


def simulate_recording(
    source: Path,
    out: Path,
    options: SimulateOptions,
    *,
    overwrite: bool = False,
    layer_photos: Sequence[Path] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Recording:
    """Simulate one recording from a photograph, a video file, or a folder of consecutive sharp frames.

    `layer_photos` are the photographs that cut-outs come from (the source itself without them); `progress` is told
    (ticks done, ticks in all). The same source and options give the same bytes. `out` appears only when complete;
    `overwrite` replaces a recording and nothing else.

    Raises:
        FileNotFoundError: if the source does not exist.
        FileExistsError: if `out` exists and `overwrite` is false, or `out` is no recording.
        ValueError: if a video has too few frames or too small ones, or is given `layer_photos`.
    """
    source, out = Path(source), Path(out)
    refuse_existing(out, marker=SIDECAR, overwrite=overwrite)
    scene, origin = _open_scene(source, options, layer_photos)
    with complete_or_absent(out) as partial:
        _film(scene, partial, options, origin, progress)
    return open_recording(out)


def _open_scene(source: Path, options: SimulateOptions, layer_photos: Sequence[Path]) -> tuple[Scene, dict[str, Any]]:
    """The scene, and where it came from (for the provenance)."""
    is_from_photo = is_photo(source)
    origin: dict[str, Any] = {"source": source.name, "source_sha256": _sha256(source)}
    if is_from_photo:
        scene = photo_scene(
            source, height=options.height, width=options.width, num_ticks=options.num_ticks,
            motion_px=options.motion_px, exposure_ticks=options.exposure_ticks, num_layers=options.num_layers,
            layer_photos=tuple(Path(path) for path in layer_photos), seed=options.seed,
        )  # fmt: skip
        cut_from = [{"name": path.name, "sha256": _sha256(path)} for path in scene.layer_photos]
        return scene, origin | {"scene": "photo", "speed_px": scene.speed_px, "layers": cut_from}
    if layer_photos:
        raise ValueError(f"layer_photos: {source} is no photograph; a video is filmed as it is, without layers")
    filmed = video_scene(
        source, height=options.height, width=options.width, ticks_per_frame=options.ticks_per_frame,
        start_frame=options.start_frame,
    )  # fmt: skip
    assert filmed.num_ticks is not None
    if filmed.num_ticks < options.num_ticks:
        raise ValueError(
            f"{source}: {filmed.num_ticks // options.ticks_per_frame + 1} frames from start_frame "
            f"{options.start_frame} on; {_frames_needed(options)} needed for {options.num_ticks} ticks at "
            f"ticks_per_frame {options.ticks_per_frame}"
        )
    return filmed, origin | {"scene": "video"}


def _film(
    scene: Scene,
    folder: Path,
    options: SimulateOptions,
    origin: dict[str, Any],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Render every tick once; write frames, spikes and, last, recording.json."""
    ratio, rate_hz = options.sensor.ratio, options.sensor.tick_rate_hz
    geometry = SpikeGeometry(width=options.width // ratio, height=options.height // ratio)
    sensor = SpikeSensor(geometry.height, geometry.width, options.sensor, seed=options.seed)
    for name in ("blur", "sharp"):
        (folder / name).mkdir(parents=True)
    exposures = []
    with SpikeWriter(folder / "spikes.dat", geometry) as writer, torch.no_grad():
        for index in range(options.frames):
            start = index * options.period_ticks
            stop = start + options.exposure_ticks
            until = stop if index == options.frames - 1 else start + options.period_ticks
            exposures.append(Exposure(index, start, stop, start / rate_hz, stop / rate_hz))
            integrated_3HW = torch.zeros(3, options.height, options.width)
            for ticks_N in _chunks(start, stop, until, options.height * options.width):
                light_N3HW = scene.light(ticks_N)
                grey_Nhw = F.avg_pool2d(luminance(light_N3HW)[:, None], ratio)[:, 0]
                writer.append(sensor.expose(grey_Nhw).numpy())
                first = int(ticks_N[0])
                if first < stop:
                    integrated_3HW += light_N3HW.sum(0)
                centre = start + options.exposure_ticks // 2 - first
                if 0 <= centre < len(ticks_N):
                    write_image(folder / "sharp" / f"{index:06d}.png", _develop(light_N3HW[centre]))
                if progress is not None:
                    progress(first + len(ticks_N), options.num_ticks)
            mean_3HW = integrated_3HW / options.exposure_ticks
            write_image(folder / "blur" / f"{index:06d}.png", _develop(mean_3HW))
    write_sidecar(
        folder,
        width=options.width,
        height=options.height,
        geometry=geometry,
        num_ticks=options.num_ticks,
        tick_rate_hz=rate_hz,
        spike_sha256=writer.sha256,
        exposures=exposures,
        fps=rate_hz / options.period_ticks,
        provenance={"simulator": "spikevrt.simulate", **origin, "options": dataclasses.asdict(options)},
    )


def _chunks(start: int, stop: int, until: int, pixels: int) -> Iterator[torch.Tensor]:
    """Consecutive ticks from start to until, cut at `stop` too, so that a chunk lies inside or outside the exposure."""
    most = min(16, max(1, CHUNK_PIXELS // pixels))
    for low, high in ((start, stop), (stop, until)):
        for first in range(low, high, most):
            yield torch.arange(first, min(first + most, high))


def _develop(light_3HW: torch.Tensor) -> Any:
    return to_uint8(linear_to_srgb(light_3HW))


def simulate_many(
    sources: Sequence[Path],
    out: Path,
    options: SimulateOptions,
    *,
    count: int,
    workers: int = 1,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Simulate `count` recordings, `out/<stem>_<number>`, taking the sources in turn.

    Each recording has a seed of its own, derived from `options.seed` and its number; a video longer than needed starts
    at a place drawn from that seed. Cut-outs come from the photographs among the sources. A recording that already
    stands complete with the same settings is kept, so that an interrupted call is taken up by repeating it.
    `progress` is told (recordings done, recordings in all).

    Raises:
        ValueError: if there are no sources, or `count` or `workers` is below 1.
        FileNotFoundError: if a source does not exist.
        FileExistsError: if a recording stands that was made otherwise, and `overwrite` is false.
    """
    if not sources:
        raise ValueError("sources: none given")
    for name, value in (("count", count), ("workers", workers)):
        if value < 1:
            raise ValueError(f"{name}: {value}; must be 1 or more")
    sources, out = [Path(source) for source in sources], Path(out)
    photos = tuple(source for source in sources if is_photo(source))
    jobs = []
    for number in range(count):
        source = sources[number % len(sources)]
        own = _own_options(source, options, number)
        path = out / f"{source.stem}_{number:03d}"
        if path.exists() and not overwrite:
            if not _made_with(path, source, own):
                raise FileExistsError(f"{path}: exists, made otherwise; choose another --out or pass --overwrite")
            continue
        jobs.append((source, path, own, photos))
    jobs.sort(key=lambda job: sources.index(job[0]))  # a photograph is decoded once
    run = functools.partial(_run_job, overwrite=overwrite)
    if workers == 1:
        _count(map(run, jobs), count - len(jobs), count, progress)
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
            _count(pool.map(run, jobs), count - len(jobs), count, progress)
    return [out / f"{sources[number % len(sources)].stem}_{number:03d}" for number in range(count)]


def _count(results: Iterable[None], kept: int, count: int, progress: Callable[[int, int], None] | None) -> None:
    """Wait for every result and tell `progress` of each."""
    for done, _ in enumerate(results, kept + 1):
        if progress is not None:
            progress(done, count)


def _run_job(job: tuple[Path, Path, SimulateOptions, tuple[Path, ...]], *, overwrite: bool) -> None:
    source, path, options, photos = job
    simulate_recording(source, path, options, overwrite=overwrite, layer_photos=photos if is_photo(source) else ())


def _one_thread() -> None:
    torch.set_num_threads(1)


def _own_options(source: Path, options: SimulateOptions, number: int) -> SimulateOptions:
    """The options of recording `number`: its seed, and the place where a video starts."""
    digest = hashlib.sha256(f"{options.seed}:{number}".encode()).digest()
    seed = int.from_bytes(digest[:6], "big")
    start_frame = options.start_frame
    if not is_photo(source):
        num_frames = len(list_images(source)) if source.is_dir() else probe_video(source).num_frames
        spare = num_frames - start_frame - _frames_needed(options)
        start_frame += int.from_bytes(digest[6:12], "big") % (spare + 1) if spare > 0 else 0
    return dataclasses.replace(options, seed=seed, start_frame=start_frame)


def _frames_needed(options: SimulateOptions) -> int:
    return -(-options.num_ticks // options.ticks_per_frame) + 1


def _made_with(path: Path, source: Path, options: SimulateOptions) -> bool:
    """Whether the recording at `path` is complete and was made from this source with these options."""
    try:
        provenance = open_recording(path).provenance
    except (OSError, ValueError):
        return False
    wanted = json.loads(json.dumps(dataclasses.asdict(options)))
    return provenance.get("options") == wanted and provenance.get("source_sha256") == _sha256(source)


def is_photo(source: Path) -> bool:
    """Whether a source is one photograph; otherwise it is a video file or a folder of consecutive frames.

    Raises:
        FileNotFoundError: there is no such source.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such photograph, video or folder of frames")
    return source.is_file() and source.suffix.lower() in IMAGE_SUFFIXES


def _sha256(source: Path) -> str:
    """The checksum of a file; of a folder of frames, the checksum of its frames' checksums."""
    if source.is_dir():
        return hashlib.sha256("".join(sha256_file(path) for path in list_images(source)).encode()).hexdigest()
    return sha256_file(source)
