"""Make recordings: blurry frames, sharp frames and the spike stream, all from the same light.

The scene is rendered once per tick, in chunks of bounded memory. A blurry frame is the mean of the linear light over
its exposure's ticks; the sharp frame is the light at its middle tick; the sensor integrates what it sees of the same
light, averaged over `ratio` x `ratio` pixels.

Dimension key: N ticks, H frame rows, W frame columns, h sensor rows, w sensor columns.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from spikevrt.atomic import complete_or_absent, refuse_existing, refuse_own_input
from spikevrt.recording.frames import IMAGE_SUFFIXES, list_images, write_image
from spikevrt.recording.recording import SIDECAR, Recording, open_recording
from spikevrt.recording.sidecar import Exposure
from spikevrt.recording.spike_file import SpikeGeometry, SpikeWriter, sha256_file
from spikevrt.recording.stored import write_sidecar
from spikevrt.simulate.folders import SHARP
from spikevrt.simulate.footage import (
    VideoScene,
    source_motion_px,
    with_own_interpolation,
    with_own_rate,
)
from spikevrt.simulate.scene import PhotoScene, Scene, photo_scene
from spikevrt.simulate.sensor import (
    FrameExposure,
    RigView,
    SpikeSensor,
    camera_seed,
    develop,
    rig_homography,
    sensor_light,
)
from spikevrt.simulate.setup import SensorConfig, SimulateOptions

CHUNK_PIXELS = 1 << 20  # light is added up in chunks of about this many pixels (12 bytes each), 16 ticks at most
LAYERS_FROM = "layer_photos_sha256"  # provenance: the photographs that layers could be cut from, in order
MOST_THREADS = 4  # torch renders ticks in parallel: a chunk is made long enough for so many threads


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
        ValueError: if a video has too few frames or too small ones, or is given `layer_photos`; if the rig looks past
            the frame; if the extra that `interpolate` needs is missing.
    """
    source, out = Path(source), Path(out)
    refuse_existing(out, marker=SIDECAR, overwrite=overwrite)
    refuse_own_input(out, [source, *layer_photos])
    if not is_photo(source):
        options = with_own_interpolation(source, with_own_rate(source, options))
    rig, view = options.true_rig, None
    if not rig.is_registered:
        view = RigView(rig, width=options.width, height=options.height, ratio=options.sensor.ratio)
    scene, origin = _open_scene(source, options, layer_photos, pad_px=0 if view is None else view.pad_px)
    beside: Scene | None = None  # the scene from where the sensor stands, if that is another
    if rig.parallax_px and not isinstance(scene, PhotoScene):
        raise ValueError(f"rig.parallax_px: {rig.parallax_px}; allowed for a video, which has no layers: 0")
    if rig.parallax_px and isinstance(scene, PhotoScene):
        beside = scene.moved_layers(rig.parallax_px)
    if not rig.is_perfect:
        truth = rig_homography(rig, width=options.width, height=options.height, ratio=options.sensor.ratio)
        origin["rig"] = {"homography": truth.tolist(), "offset_ticks": rig.offset_ticks}  # what `align` should find
    with complete_or_absent(out) as partial:
        _film((scene, beside or scene), view, partial, options, origin, progress)
    return open_recording(out)


def _open_scene(
    source: Path, options: SimulateOptions, layer_photos: Sequence[Path], *, pad_px: int
) -> tuple[Scene, dict[str, Any]]:
    """The scene, and where it came from (for the provenance)."""
    is_from_photo = is_photo(source)
    name = f"{source.parent.name}/{source.name}" if SHARP.fullmatch(source.name) else source.name  # CLIP/sharp
    origin: dict[str, Any] = {"source": name, "source_sha256": sha256_source(source)}
    if is_from_photo:
        layer_photos = tuple(Path(path) for path in layer_photos)
        scene = photo_scene(source, options, layer_photos=layer_photos, pad_px=pad_px)
        cut_from = [{"name": path.name, "sha256": sha256_source(path)} for path in scene.layer_photos]
        origin |= {"scene": "photo", "speed_px": scene.speed_px, "layers": cut_from}
        if options.num_layers:
            origin[LAYERS_FROM] = [sha256_source(path) for path in layer_photos or (source,)]
        return scene, origin
    if layer_photos:
        raise ValueError(f"layer_photos: {source} is no photograph; a video is filmed as it is, without layers")
    filmed = VideoScene(source, options)
    if filmed.num_ticks < options.num_ticks:
        raise ValueError(
            f"{source}: frames from start_frame {options.start_frame} on: {filmed.num_source_frames}; "
            f"{options.source_frames_needed} needed for {options.num_ticks} ticks at {ticks_in_words(options)}"
        )
    return filmed, origin | {"scene": "video", "source_motion_px": source_motion_px(source, options)}


def _film(
    scenes: tuple[Scene, Scene],
    view: RigView | None,
    folder: Path,
    options: SimulateOptions,
    origin: dict[str, Any],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Render every tick once; write frames, spikes and, last, recording.json. `scenes`: as each camera sees it."""
    scene, beside = scenes
    height, width, ratio, rate_hz = options.height, options.width, options.sensor.ratio, options.sensor.tick_rate_hz
    geometry = SpikeGeometry(width=width // ratio, height=height // ratio)
    sensor = SpikeSensor(geometry.height, geometry.width, options.sensor, seed=options.seed)
    noise = torch.Generator().manual_seed(camera_seed(options.seed))
    for name in ("blur", "sharp"):
        (folder / name).mkdir(parents=True)
    windows = [(start, start + options.exposure_ticks) for start in options.start_ticks]
    most = min(16, max(1, CHUNK_PIXELS // (height * width)))
    delay = options.camera.rolling_shutter_ticks // 2  # of the middle row, whose exposure stands for the frame's
    to_sharp = delay + options.exposure_ticks // 2 + options.sharp_shift_ticks
    middles = {start + to_sharp: index for index, (start, _) in enumerate(windows)}
    pending, integrating = deque(enumerate(windows)), deque[tuple[int, FrameExposure]]()
    num_ticks, pad = options.num_ticks, (scene.height - height) // 2  # a video shows nothing around the frame
    with SpikeWriter(folder / "spikes.dat", geometry) as writer, torch.no_grad():
        for first, count in _chunks(windows, num_ticks, most):
            light_N3HW = scene.light(torch.arange(first, first + count))
            sensed = light_N3HW if beside is scene else beside.light(torch.arange(first, first + count))
            writer.append(sensor.expose(_seen(sensed, view, pad, options.sensor)).numpy())
            if pad:
                light_N3HW = light_N3HW[..., pad:-pad, pad:-pad]
            while pending and pending[0][1][0] < first + count:
                index, (start, stop) = pending.popleft()
                integrating.append((index, FrameExposure(height, width, options.camera, start=start, stop=stop)))
            for low in range(0, count, most):
                for _, exposure in integrating:
                    exposure.add(first + low, light_N3HW[low : low + most])
            for tick in middles.keys() & range(first, first + count):
                image = develop(light_N3HW[tick - first], options.camera)
                write_image(folder / "sharp" / f"{middles[tick]:06d}.png", image)
            while integrating and integrating[0][1].last_tick <= first + count:
                index, exposure = integrating.popleft()
                write_image(folder / "blur" / f"{index:06d}.png", develop(exposure.mean(), options.camera, noise))
            if progress is not None:
                progress(first + count, num_ticks)
    assert not pending and not integrating, (pending, len(integrating))
    wrong_by = options.true_rig.offset_ticks - delay
    exposures = []
    for index, window in enumerate(windows):
        start, stop = (tick - wrong_by - options.drift_ticks(index) for tick in window)
        exposures.append(
            Exposure(index, start, stop, start / rate_hz, stop / rate_hz, shift_ticks=options.sharp_shift_ticks)
        )
    write_sidecar(
        folder,
        width=width,
        height=height,
        spikes=writer,
        tick_rate_hz=rate_hz,
        exposures=exposures,
        fps=rate_hz / options.period_ticks,
        provenance={"simulator": "spikevrt.simulate", **origin, "options": dataclasses.asdict(options)},
    )


def _seen(light_N3HW: torch.Tensor, view: RigView | None, pad_px: int, config: SensorConfig) -> torch.Tensor:
    """What the sensor's pixels see of the rendered light."""
    if view is None:
        return sensor_light(light_N3HW, config)
    config = dataclasses.replace(config, ratio=1)  # the view averages
    if config.bayer:
        return sensor_light(view.see(light_N3HW, pad_px=pad_px), config)
    return view.see(sensor_light(light_N3HW, config)[:, None], pad_px=pad_px)[:, 0]  # one plane to sample, not three


def _chunks(windows: Sequence[tuple[int, int]], num_ticks: int, most: int) -> Iterator[tuple[int, int]]:
    """(first tick, number of ticks) from 0 on; every chunk lies inside or outside each exposure window.

    A chunk is one run of `most` ticks, or several where that gives every thread a tick to render.
    """
    length = most * -(-min(torch.get_num_threads(), MOST_THREADS) // most)
    cuts = sorted({0, num_ticks, *(tick for window in windows for tick in window)})
    for low, high in pairwise(cuts):
        for first in range(low, high, length):
            yield first, min(length, high - first)


def is_photo(source: Path) -> bool:
    """Whether a source is one photograph; otherwise it is a video file or a folder of consecutive frames.

    Raises:
        FileNotFoundError: there is no such source.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such photograph, video or folder of frames")
    return source.is_file() and source.suffix.lower() in IMAGE_SUFFIXES


def ticks_in_words(options: SimulateOptions) -> str:
    """How a video's own frames and the ticks lie, as the options have it."""
    ticks, between = options.source_frame_ticks, ""
    if options.interpolate > 1:
        between = f", interpolate {options.interpolate}"
    if options.source_fps is None:
        return f"ticks_per_frame {options.ticks_per_frame}{between}"
    exactly = str(ticks) if ticks.denominator == 1 else f"{float(ticks):.2f} ({ticks})"
    return f"source_fps {options.source_fps}, {exactly} ticks from frame to frame{between}"


def sha256_source(source: Path) -> str:
    """The checksum of a file; of a folder of frames, the checksum of its frames' checksums."""
    if source.is_dir():
        return hashlib.sha256("".join(sha256_file(path) for path in list_images(source)).encode()).hexdigest()
    state = source.stat()
    return _sha256_once(source, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=4096)
def _sha256_once(path: Path, _mtime_ns: int, _num_bytes: int) -> str:
    """A batch asks for the same photographs again for every recording."""
    return sha256_file(path)
