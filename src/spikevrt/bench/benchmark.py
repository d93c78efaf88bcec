"""spikebench-v1: seeded test recordings, generated from footage that ships with the package, the same bytes everywhere.

Eight scenes (`SCENES`) under each of the `CONDITIONS`. Three of these are suites, by how fast things move; the others
change one thing of the suite `medium`: the sensor's threshold, noise or resolution, the exposure, how well the cameras
are registered and their clocks agree, lost ticks, no spikes at all. No photograph or video of them was trained on
(tests/bench/test_hygiene.py).

A folder of the benchmark holds one recording per condition and scene, CONDITION/SCENE, and benchmark.json with their
digests. A digest is of contents (pixels, spikes, exposures), not of files, whose compression differs between libraries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from spikevrt.atomic import complete_or_absent, write_text
from spikevrt.recording.frames import write_image
from spikevrt.recording.recording import Recording, open_recording
from spikevrt.recording.sidecar import SPIKE_FILE, Exposure
from spikevrt.recording.spike_file import SpikeGeometry, SpikeWriter
from spikevrt.recording.stored import write_sidecar
from spikevrt.simulate.exact import draw, exact_scene, exact_video, grey_light, light_levels
from spikevrt.simulate.scene import Scene
from spikevrt.simulate.sensor import FrameExposure, SpikeSensor
from spikevrt.simulate.setup import CameraConfig, sensor_preset
from spikevrt.typed import load_mapping

if TYPE_CHECKING:
    from jaxtyping import UInt8

NAME = "spikebench-v1"
INDEX = "benchmark.json"  # in a folder of the benchmark
DIGESTS = f"{NAME}.json"  # in this package: the digest of every recording
ASSETS = Path(__file__).parents[1] / "assets"
SIZE_PX, NUM_FRAMES = 192, 5
EXPOSURE_TICKS, PERIOD_TICKS, TICK_RATE_HZ = 104, 128, 20000.0
MARGIN_TICKS = 8  # before the first exposure and after the last
MARGIN_PX = 4  # around the frame: so far a sensor may look aside
CHUNK_TICKS = 16
SPEED_PX = {"slow": 6, "medium": 16, "fast": 32}  # what the camera moves by in 104 ticks, about
VIDEO_TICKS = {"slow": 32, "medium": 16, "fast": 8}  # between two frames of a video, which moves less than that


@dataclass(frozen=True)
class Condition:
    """What the cameras are like. `name` says what differs from the suite of that speed.

    suite: slow, medium or fast.
    exposure_ticks: of the colour camera, around the same instants.
    ratio: colour pixels per sensor pixel, along each side.
    threshold, sensor: of the spike camera (`simulate.sensor`).
    shift_px: the sensor looks so far aside, unknown to the reader.
    offset_ticks: the stream is so late, unknown to the reader.
    dropped: share of the ticks that arrive empty.
    spikes: without, methods get the frames alone (and the recordings are those of the suite).
    """

    name: str
    suite: str
    exposure_ticks: int = EXPOSURE_TICKS
    ratio: int = 2
    threshold: float = 1.0
    sensor: str = "ideal"
    shift_px: int = 0
    offset_ticks: int = 0
    dropped: float = 0.0
    spikes: bool = True

    @property
    def folder(self) -> str:
        """Where its recordings lie."""
        return self.name if self.spikes else self.suite

    @property
    def has_own_frames(self) -> bool:
        """Whether its frames differ from those of every condition before it: a method without spikes looks at them."""
        return self.name == self.suite or self.exposure_ticks != EXPOSURE_TICKS


_MEDIUM = Condition("medium", "medium")
CONDITIONS = (
    Condition("slow", "slow"),
    _MEDIUM,
    Condition("fast", "fast"),
    *(replace(_MEDIUM, name=f"medium_threshold_{q}", threshold=float(q)) for q in (2, 4)),
    *(replace(_MEDIUM, name=f"medium_{sensor}", sensor=sensor) for sensor in ("bright", "lowlight")),
    replace(_MEDIUM, name="medium_exposure_56", exposure_ticks=56),
    replace(_MEDIUM, name="medium_ratio_4", ratio=4),
    *(replace(_MEDIUM, name=f"medium_shift_{px}", shift_px=px) for px in (1, 2, 4)),
    *(replace(_MEDIUM, name=f"medium_offset_{ticks}", offset_ticks=ticks) for ticks in (2, 8)),
    *(replace(_MEDIUM, name=f"medium_dropped_{percent}", dropped=percent / 100) for percent in (5, 20)),
    replace(_MEDIUM, name="medium_no_spikes", spikes=False),
)


@dataclass(frozen=True)
class TestScene:
    """A scene: the photograph and those that cut-outs come from, or a video and where it is cut."""

    __test__ = False  # no test of pytest's, whatever it is called

    name: str
    source: str
    cutouts: tuple[str, ...] = ()
    corner_px: tuple[int, int] = (0, 0)  # of a video: top, left


SCENES = (
    TestScene("astronaut", "astronaut.jpg", ("coffee.jpg", "bridge.jpg")),
    TestScene("bridge_1", "bridge.jpg", ("chelsea.jpg", "clock.jpg")),
    TestScene("bridge_2", "bridge.jpg", ("astronaut.jpg", "coffee.jpg")),
    TestScene("chelsea", "chelsea.jpg", ("astronaut.jpg", "clock.jpg")),
    TestScene("city", "city.mp4", (), (100, 60)),
    TestScene("clock_1", "clock.jpg", ("bridge.jpg", "chelsea.jpg")),
    TestScene("clock_2", "clock.jpg", ("coffee.jpg", "astronaut.jpg")),
    TestScene("coffee", "coffee.jpg", ("clock.jpg", "bridge.jpg")),
)


def chosen(names: Sequence[str] | None) -> tuple[Condition, ...]:
    """The conditions of these names, in the benchmark's order; None: all. Raises ValueError (one line)."""
    known = [condition.name for condition in CONDITIONS]
    for name in names or ():
        if name not in known:
            raise ValueError(f"conditions: {name}; allowed: {', '.join(known)}")
    return tuple(condition for condition in CONDITIONS if names is None or condition.name in names)


def digests() -> dict[str, str]:
    """The digest that every recording must have, by its path CONDITION/SCENE."""
    values: dict[str, str] = json.loads(resources.files("spikevrt.bench").joinpath(DIGESTS).read_text("utf-8"))
    return values


def total_digest(found: dict[str, str]) -> str:
    """One digest of many, by their paths in order."""
    return hashlib.sha256("".join(f"{path} {found[path]}\n" for path in sorted(found)).encode()).hexdigest()


def prepare_benchmark(
    root: Path,
    conditions: Sequence[Condition] = CONDITIONS,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, str]:
    """Make what is missing of the benchmark in the folder `root`, check all of it, and return the digests by path.

    What stands there and is right is kept, so that an interrupted call is taken up by repeating it. `progress` is told
    (recordings done, recordings in all).

    Raises:
        ValueError: a recording is not the benchmark's, byte for byte; one line that names it.
        FileExistsError: `root` is a file, or a folder with something else in it.
    """
    root, expected = Path(root), digests()
    if root.exists() and (not root.is_dir() or (any(root.iterdir()) and not (root / INDEX).is_file())):
        raise FileExistsError(f"{root}: exists and holds no {INDEX}; choose another folder for the benchmark")
    root.mkdir(parents=True, exist_ok=True)
    if not (root / INDEX).is_file():
        write_text(root / INDEX, json.dumps({"name": NAME, "recordings": {}}))
    folders = {condition.folder: replace(condition, name=condition.folder, spikes=True) for condition in conditions}
    found: dict[str, str] = {}
    total = len(folders) * len(SCENES)
    for suite in SPEED_PX:
        own = [condition for condition in folders.values() if condition.suite == suite]
        for scene in SCENES:
            missing = [condition for condition in own if not (root / condition.name / scene.name).is_dir()]
            if missing:
                film(scene, suite, missing, root)
            for condition in own:
                path = f"{condition.name}/{scene.name}"
                found[path] = content_digest(open_recording(root / path))
                if found[path] != expected.get(path):
                    raise ValueError(
                        f"{root / path}: not the bytes of {NAME} (digest {found[path][:12]}, expected "
                        f"{expected.get(path, 'none')[:12]}); remove the folder to have it made again"
                    )
            if progress is not None:
                progress(len(found), total)
    known = load_mapping(root / INDEX).get("recordings", {}) | found
    values = {"name": NAME, "sha256": total_digest(known), "recordings": known}
    write_text(root / INDEX, json.dumps(values, indent=1) + "\n")
    return found


def film(scene: TestScene, suite: str, conditions: Sequence[Condition], root: Path) -> None:
    """Render a scene once and write its recording under each condition of one suite, each complete or not at all."""
    side = SIZE_PX + 2 * MARGIN_PX
    light_of = open_scene(scene, suite)
    num_ticks = 2 * MARGIN_TICKS + (NUM_FRAMES - 1) * PERIOD_TICKS + EXPOSURE_TICKS
    assert light_of.height == light_of.width == side and (light_of.num_ticks or num_ticks) >= num_ticks
    cameras = [_Camera(condition, scene, num_ticks) for condition in conditions]
    lengths = sorted({condition.exposure_ticks for condition in conditions})
    pictures = {length: [FrameExposure(SIZE_PX, SIZE_PX, CameraConfig(), start=a, stop=b) for a, b in windows(length)]
                for length in lengths}  # fmt: skip
    middles = {start + EXPOSURE_TICKS // 2: index for index, (start, _) in enumerate(windows(EXPOSURE_TICKS))}
    sharp: list[np.ndarray] = []
    inner = slice(MARGIN_PX, MARGIN_PX + SIZE_PX)
    for first in range(0, num_ticks, CHUNK_TICKS):
        light = light_of.light(torch.arange(first, min(first + CHUNK_TICKS, num_ticks)))
        for camera in cameras:
            camera.look(light)
        light = light[..., inner, inner]
        for exposures in pictures.values():
            for exposure in exposures:
                exposure.add(first, light)
        sharp += [light_levels(light[tick - first]) for tick in middles if first <= tick < first + len(light)]
    for camera in cameras:
        blur = [light_levels(exposure.mean()) for exposure in pictures[camera.condition.exposure_ticks]]
        camera.write(root / camera.condition.name / scene.name, blur, sharp)


def open_scene(scene: TestScene, suite: str) -> Scene:
    """The scene as it is before the cameras, with the margin around the frame."""
    side = SIZE_PX + 2 * MARGIN_PX
    if scene.source.endswith(".mp4"):
        top, left = scene.corner_px
        ticks = VIDEO_TICKS[suite]
        needed = (2 * MARGIN_TICKS + (NUM_FRAMES - 1) * PERIOD_TICKS + EXPOSURE_TICKS) // ticks + 2
        return exact_video(
            ASSETS / scene.source, top=top, left=left, height=side, width=side, count=needed, ticks_per_frame=ticks
        )
    return exact_scene(
        ASSETS / scene.source, [ASSETS / name for name in scene.cutouts], height=side, width=side,
        speed_px=SPEED_PX[suite], exposure_ticks=EXPOSURE_TICKS, seed=f"{NAME} {scene.name}",
    )  # fmt: skip


def windows(exposure_ticks: int) -> list[tuple[int, int]]:
    """The exposures, around the same middle ticks whatever their length, as [start, stop)."""
    starts = [
        MARGIN_TICKS + index * PERIOD_TICKS + (EXPOSURE_TICKS - exposure_ticks) // 2 for index in range(NUM_FRAMES)
    ]
    return [(start, start + exposure_ticks) for start in starts]


class _Camera:
    """The spike camera of one condition: it looks at the light, and writes the recording."""

    def __init__(self, condition: Condition, scene: TestScene, num_ticks: int) -> None:
        self.condition, self.scene = condition, scene
        side, self.seed = SIZE_PX // condition.ratio, f"{NAME} {scene.name} {condition.suite}"
        config = replace(sensor_preset(condition.sensor), threshold=condition.threshold)
        self.sensor = SpikeSensor(side, side, config, seed=draw(f"{self.seed} sensor", 0, 2**48))
        self.spikes = np.zeros((0, side, side), np.uint8)
        self.parts: list[np.ndarray] = []
        self.lost = [draw(f"{self.seed} lost {tick}", 0, 999) < 1000 * condition.dropped for tick in range(num_ticks)]

    def look(self, light: torch.Tensor) -> None:
        """The next ticks of the light, with the margin around the frame; a scene's shift is upwards or to the left."""
        shift = self.condition.shift_px
        sideways = draw(f"{self.seed} shift", 0, 1)
        top, left = MARGIN_PX - shift * (1 - sideways), MARGIN_PX - shift * sideways
        seen = light[..., top : top + SIZE_PX, left : left + SIZE_PX]
        self.parts.append(self.sensor.expose(grey_light(seen, self.condition.ratio)).numpy())

    def write(self, path: Path, blur: Sequence[UInt8[np.ndarray, "H W 3"]], sharp: Sequence[np.ndarray]) -> None:
        spikes = np.concatenate(self.parts)
        spikes[self.lost] = 0
        late = self.condition.offset_ticks
        exposures = [
            Exposure(index, start - late, stop - late, (start - late) / TICK_RATE_HZ, (stop - late) / TICK_RATE_HZ)
            for index, (start, stop) in enumerate(windows(self.condition.exposure_ticks))
        ]
        geometry = SpikeGeometry(width=spikes.shape[2], height=spikes.shape[1])
        with complete_or_absent(path) as partial:
            for kind, images in (("blur", blur), ("sharp", sharp)):
                (partial / kind).mkdir(parents=True)
                for index, image in enumerate(images):
                    write_image(partial / kind / f"{index:06d}.png", image)
            with SpikeWriter(partial / SPIKE_FILE, geometry) as writer:
                writer.append(spikes)
            write_sidecar(
                partial,
                spikes=writer,
                tick_rate_hz=TICK_RATE_HZ,
                width=SIZE_PX,
                height=SIZE_PX,
                fps=TICK_RATE_HZ / PERIOD_TICKS,
                exposures=exposures,
                provenance={"benchmark": NAME, "scene": asdict(self.scene), "condition": asdict(self.condition)},
            )


def content_digest(recording: Recording) -> str:
    """Of all pixels, spikes and exposures of a recording with sharp frames and packed spikes."""
    digest = hashlib.sha256()
    for index, exposure in enumerate(recording.exposures):
        digest.update(f"{exposure.start_tick} {exposure.stop_tick}\n".encode())
        for image in (recording.read_blur(index), recording.read_sharp(index)):
            digest.update(f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes())
    assert recording.spikes is not None
    digest.update(f"{recording.spikes.width} {recording.spikes.height} {recording.spikes.num_ticks}\n".encode())
    digest.update(np.packbits(recording.spikes.read(0, recording.spikes.num_ticks)).tobytes())
    return digest.hexdigest()
