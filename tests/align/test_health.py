"""The health gate: each fault, put into a simulated recording, is found and named; sound recordings pass."""

from __future__ import annotations

import dataclasses
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spikevrt.align.findings import VERDICTS
from spikevrt.align.health import NAMES, TRUSTED_FIT, HealthReport, admit, check_health
from spikevrt.align.pairing import linear_light, to_luminance
from spikevrt.recording.alignment import Alignment
from spikevrt.recording.frames import read_image, write_image
from spikevrt.recording.loose import loose_recording
from spikevrt.recording.recording import Recording, open_recording
from spikevrt.recording.sidecar import Exposure
from spikevrt.recording.spike_file import SpikeGeometry, SpikeWriter
from spikevrt.recording.stored import write_sidecar
from spikevrt.recording.stream import PackedStream
from spikevrt.simulate.setup import RigConfig, SimulateOptions
from spikevrt.simulate.synthesise import simulate_recording

ASSETS = Path(__file__).resolve().parents[2] / "src" / "spikevrt" / "assets"
PHOTOS = ("astronaut.jpg", "bridge.jpg", "chelsea.jpg", "coffee.jpg")
OPTIONS = SimulateOptions(frames=3, width=128, height=96, exposure_ticks=64, period_ticks=80, motion_px=8.0)

Change = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clean")
    return {name: simulate_recording(ASSETS / name, folder / name[:-4], OPTIONS).root for name in PHOTOS}


def _broken(
    clean: dict[str, Path],
    tmp_path: Path,
    change: Change | None = None,
    *,
    photo: str = PHOTOS[0],
    frames: Change | None = None,
) -> Recording:
    """A copy with other spikes (of any size and length) or other frames."""
    root = Path(shutil.copytree(clean[photo], tmp_path / "broken"))
    if change is not None:
        before = open_recording(root)
        assert before.spikes is not None
        spikes = change(before.spikes.read(0, before.num_ticks).copy())
        with SpikeWriter(root / "spikes.dat", SpikeGeometry(spikes.shape[2], spikes.shape[1])) as writer:
            writer.append(np.ascontiguousarray(spikes))
        values = json.loads((root / "recording.json").read_text())
        values["spikes"] |= {
            "sha256": writer.sha256, "num_ticks": len(spikes), "height": spikes.shape[1], "width": spikes.shape[2]
        }  # fmt: skip
        (root / "recording.json").write_text(json.dumps(values))
    if frames is not None:
        for folder in ("blur", "sharp"):
            for image in (root / folder).iterdir():
                write_image(image, frames(read_image(image)))
    return open_recording(root)


def _square(tmp_path: Path, seed: int = 0) -> Recording:
    """One frame of a random smooth picture, 60 x 60 spikes that fire as it says."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:60, :60] / 60
    planes = [
        sum(np.sin(x * rng.uniform(-20, 20) + y * rng.uniform(-20, 20) + rng.uniform(0, 6)) for _ in range(6))
        for _ in range(3)
    ]
    light = np.stack([0.1 + 0.8 * (p - p.min()) / (p.max() - p.min()) for p in planes], axis=-1)
    root = tmp_path / "square"
    frame = (light ** (1 / 2.2) * 255).round().astype(np.uint8)
    write_image_in(root / "blur" / "000000.png", frame)
    charge = np.floor(rng.random((60, 60)) + light @ [0.2126, 0.7152, 0.0722] * np.arange(98)[:, None, None])
    with SpikeWriter(_made(root) / "spikes.dat", SpikeGeometry(60, 60)) as writer:
        writer.append(np.diff(charge, axis=0).astype(np.uint8))
    write_sidecar(
        root, spikes=writer, tick_rate_hz=2e4, width=60,
        height=60, fps=100.0, exposures=[Exposure(0, 0, 97, 0.0, 97 / 2e4)], provenance={},
    )  # fmt: skip
    return open_recording(root)


def write_image_in(path: Path, image: np.ndarray, *, exist_ok: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=exist_ok)
    write_image(path, image)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _odd(report: HealthReport) -> dict[str, str]:
    return {finding.name: finding.verdict for finding in report.findings if finding.verdict != "ok"}


@pytest.mark.parametrize("photo", PHOTOS)
def test_a_sound_recording_passes_with_all_in_order(clean: dict[str, Path], photo: str) -> None:
    recording = open_recording(clean[photo])
    report = check_health(recording)
    assert _odd(report) == {} and report.verdict == "ok"
    assert tuple(finding.name for finding in report.findings) == NAMES
    assert report.finding("orientation").numbers["upright"] > 0.9
    assert admit(recording) is recording


def test_a_dead_block_is_found_pixel_by_pixel_and_marked_for_repair(clean: dict[str, Path], tmp_path: Path) -> None:
    def kill(spikes: np.ndarray) -> np.ndarray:
        spikes[:, 20:25, 28:35] = 0
        return spikes

    recording = _broken(clean, tmp_path, kill)
    report = check_health(recording)
    assert _odd(report) == {} and "filled from their neighbours" in report.finding("dead pixels").sentence
    dead = {(row, column) for row in range(20, 25) for column in range(28, 35)}
    assert set(report.bad_pixels) == dead and report.finding("dead pixels").numbers["num_pixels"] == 35
    passed = admit(recording)
    mask = passed.bad_mask()
    assert mask is not None and int(mask.sum()) == 35 and recording.bad_pixels == ()
    assert _odd(check_health(passed)) == {}  # what is known is not found again
    assert set(check_health(passed).bad_pixels) == dead


def test_a_hot_pixel_is_found(clean: dict[str, Path], tmp_path: Path) -> None:
    def heat(spikes: np.ndarray) -> np.ndarray:
        spikes[:, 13, 29] |= (np.random.default_rng(0).random(len(spikes)) < 0.8).astype(np.uint8)
        return spikes

    report = check_health(_broken(clean, tmp_path, heat))
    assert _odd(report) == {} and report.bad_pixels == ((13, 29),)
    assert report.finding("hot pixels").numbers["num_pixels"] == 1


def test_a_pixel_that_fires_at_every_tick_is_stuck(clean: dict[str, Path], tmp_path: Path) -> None:
    def stick(spikes: np.ndarray) -> np.ndarray:
        spikes[:, 13, 29] = 1
        return spikes

    report = check_health(_broken(clean, tmp_path, stick))
    assert _odd(report) == {} and report.bad_pixels == ((13, 29),)
    assert report.finding("stuck pixels").numbers["num_pixels"] == 1


@pytest.mark.parametrize(
    ("turn", "name"),
    [
        (lambda s: s[:, ::-1], "rows flipped"),
        (lambda s: s[:, :, ::-1], "columns flipped"),
        (lambda s: s[:, ::-1, ::-1], "turned by 180 degrees"),
    ],
)
def test_a_flipped_stream_is_refused_with_the_flip_named(
    clean: dict[str, Path], tmp_path: Path, turn: Change, name: str
) -> None:
    recording = _broken(clean, tmp_path, turn)
    finding = check_health(recording).finding("orientation")
    assert finding.verdict == "bad" and f"with {name}" in finding.sentence
    with pytest.raises(ValueError, match=f"broken: orientation: the spikes fit the frames with {name} .*ignore"):
        admit(recording)
    assert admit(recording, ignore=["orientation"]) is recording


@pytest.mark.parametrize(
    ("turn", "name"),
    [
        (lambda s: s.transpose(0, 2, 1), "transposed"),
        (lambda s: np.rot90(s, 3, (1, 2)), "turned by 90 degrees"),
        (lambda s: np.rot90(s, 1, (1, 2)), "turned by 270 degrees"),
        (lambda s: s[:, ::-1, ::-1].transpose(0, 2, 1), "transposed along the other diagonal"),
    ],
)
def test_a_transposed_stream_of_a_square_sensor_is_refused(tmp_path: Path, turn: Change, name: str) -> None:
    root = _square(tmp_path).root
    assert check_health(open_recording(root)).finding("orientation").verdict == "ok"
    finding = check_health(_broken({"square": root}, tmp_path, turn, photo="square")).finding("orientation")
    assert finding.verdict == "bad" and f"with {name} (" in finding.sentence


def test_bgr_frames_are_refused_and_grey_ones_tell_nothing(clean: dict[str, Path], tmp_path: Path) -> None:
    for photo in PHOTOS:
        report = check_health(_broken(clean, tmp_path / photo, frames=lambda image: image[:, :, ::-1], photo=photo))
        assert _odd(report) == {"channel order": "bad"}, photo
        assert report.finding("channel order").numbers["ratio"] < -0.7
        assert "exchange their first and third channel" in report.finding("channel order").sentence
    grey = _broken(clean, tmp_path, frames=lambda image: np.repeat(image[:, :, 1:2], 3, axis=2))
    finding = check_health(grey).finding("channel order")
    assert finding.verdict == "cannot tell" and not finding.matters


def test_half_of_the_ticks_emptied_is_refused_and_a_few_are_told(clean: dict[str, Path], tmp_path: Path) -> None:
    def empty(spikes: np.ndarray) -> np.ndarray:
        spikes[1::2] = 0
        return spikes

    def lose(spikes: np.ndarray) -> np.ndarray:
        spikes[[3, 4, 41]] = 0
        return spikes

    finding = check_health(_broken(clean, tmp_path, empty)).finding("empty ticks")
    assert finding.verdict == "bad" and "112 of 224 ticks, the first is tick 1" in finding.sentence
    finding = check_health(_broken(clean, tmp_path / "few", lose)).finding("empty ticks")
    assert finding.verdict == "ok" and "without a spike: 3 of 224 ticks" in finding.sentence


def test_ticks_missing_in_the_middle_are_found_where_they_are(clean: dict[str, Path], tmp_path: Path) -> None:
    def drop(spikes: np.ndarray) -> np.ndarray:
        return np.concatenate([spikes[:100], spikes[111:], spikes[:11]])  # the length stays, or opening would refuse

    finding = check_health(_broken(clean, tmp_path, drop, photo="chelsea.jpg")).finding("gaps")
    assert finding.verdict == "cannot tell" and finding.matters and "before tick 100" in finding.sentence


def test_a_doubled_gain_is_told_and_names_density(clean: dict[str, Path], tmp_path: Path) -> None:
    sensor = dataclasses.replace(OPTIONS.sensor, threshold=0.5)
    root = simulate_recording(
        ASSETS / "chelsea.jpg", tmp_path / "double", dataclasses.replace(OPTIONS, sensor=sensor)
    ).root
    report = check_health(open_recording(root))
    assert _odd(report) == {}
    assert abs(report.finding("gain").numbers["spikes_per_tick_at_full_light"] - 2) < 0.15
    assert "normalize: density" in report.finding("gain").sentence
    assert admit(open_recording(root)).bad_pixels == ()


def test_a_density_that_drifts_between_frames_cannot_be_explained(clean: dict[str, Path], tmp_path: Path) -> None:
    def fade(spikes: np.ndarray) -> np.ndarray:
        return spikes * (
            np.random.default_rng(0).random(spikes.shape) < np.linspace(1, 0.5, len(spikes))[:, None, None]
        )

    finding = check_health(_broken(clean, tmp_path, lambda s: fade(s).astype(np.uint8))).finding("density")
    assert finding.verdict == "cannot tell" and "from frame 2 to frame 0" in finding.sentence


def test_exposures_that_last_other_than_their_ticks_contradict_themselves(
    clean: dict[str, Path], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(clean[PHOTOS[0]], tmp_path / "slow"))
    values = json.loads((root / "recording.json").read_text())
    values["spikes"]["tick_rate_hz"] = 10000.0
    (root / "recording.json").write_text(json.dumps(values))
    finding = check_health(open_recording(root)).finding("exposure times")
    assert finding.verdict == "cannot tell" and "by up to 32 ticks" in finding.sentence


@pytest.mark.parametrize("columns", [1, -4])
def test_spikes_beside_the_frames_are_refused_with_how_far_and_what_mends_it(
    clean: dict[str, Path], tmp_path: Path, columns: int
) -> None:
    recording = _broken(clean, tmp_path, lambda spikes: np.roll(spikes, columns, axis=2))
    finding = check_health(recording).finding("registration")
    assert finding.verdict == "bad" and f"run `spikevrt align {recording.root}`" in finding.sentence
    assert abs(finding.numbers["right_px"] - 2 * columns) < 0.4 and abs(finding.numbers["down_px"]) < 0.4
    with pytest.raises(ValueError, match=r"broken: registration: the spikes lie \d\.\d \+- 0\.\d px beside the frames"):
        admit(recording)
    assert admit(recording, ignore=["registration", "time offset"]).num_frames == 3
    stated = Alignment(0.0, ((0.5, 0.0, columns), (0.0, 0.5, 0.0), (0.0, 0.0, 1.0)))
    aligned = check_health(dataclasses.replace(recording, alignment=stated)).finding("registration")
    assert aligned.verdict == "ok" and aligned.numbers["px"] < 0.3


@pytest.mark.parametrize("rig", [RigConfig(shift_x_px=0.3), RigConfig(rotate_deg=3.0, scale=1.04, shift_x_px=-5.0)])
def test_a_rig_is_measured_between_pixels_and_turned(tmp_path: Path, rig: RigConfig) -> None:
    """The displacement at the corners of the frame and in its middle is that of the rig."""
    recording = simulate_recording(ASSETS / "coffee.jpg", tmp_path / "rig", dataclasses.replace(OPTIONS, rig=rig))
    report = check_health(recording)
    finding = report.finding("registration")
    x, y = np.meshgrid(np.arange(128) - 63.5, np.arange(96) - 47.5)
    cos, sin = (rig.scale * f(np.radians(rig.rotate_deg)) for f in (np.cos, np.sin))
    truth = np.hypot(cos * x - sin * y - x + rig.shift_x_px, sin * x + cos * y - y)
    assert finding.numbers["px"] == pytest.approx(np.sqrt((truth**2).mean()), abs=0.4)
    assert finding.verdict == ("bad" if rig.rotate_deg else "ok")


def test_spikes_read_in_a_size_with_width_and_height_exchanged_are_refused(
    clean: dict[str, Path], tmp_path: Path
) -> None:
    recording = _broken(clean, tmp_path, lambda spikes: spikes.reshape(len(spikes), 64, 48))
    finding = check_health(recording).finding("orientation")
    assert finding.verdict == "bad" and "read as 64 x 48 pixels they fit" in finding.sentence
    turned = _broken(clean, tmp_path / "t", lambda spikes: spikes.transpose(0, 2, 1))
    assert "with transposed" in check_health(turned).finding("orientation").sentence


def test_a_scene_without_structure_cannot_tell_and_says_what_would(tmp_path: Path) -> None:
    report = check_health(_drawn(tmp_path / "plain", [PLAIN["flat"].astype(np.uint8)] * 3))
    assert report.verdict == "cannot tell"
    for name in ("orientation", "registration", "time offset"):
        finding = report.finding(name)
        assert finding.verdict == "cannot tell" and finding.sentence.endswith("would tell"), finding


def test_another_scene_is_refused_and_no_turned_one(clean: dict[str, Path], tmp_path: Path) -> None:
    other = open_recording(clean["bridge.jpg"])
    assert other.spikes is not None
    spikes = other.spikes.read(0, other.num_ticks)
    finding = check_health(_broken(clean, tmp_path, lambda _: spikes)).finding("orientation")
    assert finding.verdict == "bad" and "none of the eight orientations" in finding.sentence
    assert "far apart, run `spikevrt align " in finding.sentence  # an exposure late and 20 px aside looks the same


@pytest.mark.parametrize(("value", "words"), [(0, "no spike in 224 ticks"), (1, "so the light is not known")])
def test_a_stream_of_one_value_is_refused(clean: dict[str, Path], tmp_path: Path, value: int, words: str) -> None:
    recording = _broken(clean, tmp_path, lambda s: np.full_like(s, value))
    report = check_health(recording)
    assert report.finding("spikes").verdict == "bad" and words in report.finding("spikes").sentence
    with pytest.raises(ValueError, match="broken: spikes: "):
        admit(recording)


@pytest.mark.parametrize("num_ticks", [1, 2, 7])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 2)])
@pytest.mark.parametrize("fill", [0, 1, 2])
def test_the_smallest_recordings_are_judged_without_a_crash_or_a_nan(
    tmp_path: Path, num_ticks: int, size: tuple[int, int], fill: int
) -> None:
    height, width = size
    write_image_in(tmp_path / "blur" / "0.png", np.full((2 * height, 2 * width, 3), 90, dtype=np.uint8))
    spikes = np.full((num_ticks, height, width), fill % 2, dtype=np.uint8)
    if fill == 2:
        spikes[::2] = 1
    with SpikeWriter(tmp_path / "a.dat", SpikeGeometry(width, height)) as writer:
        writer.append(spikes)
    recording = loose_recording(tmp_path / "blur", PackedStream(tmp_path / "a.dat", SpikeGeometry(width, height)))
    report = check_health(recording)
    json.dumps([dataclasses.asdict(finding) for finding in report.findings], allow_nan=False)
    assert report.verdict in VERDICTS


def _drawn(folder: Path, frames: list[np.ndarray]) -> Recording:
    """Images of 128 x 96 and spikes of 64 x 48 that fire as they say, 64 ticks an image."""
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        write_image_in(folder / "blur" / f"{index}.png", frame, exist_ok=True)
    phase = np.random.default_rng(0).random((48, 64))
    light = [to_luminance(linear_light(frame, (48, 64))) for frame in frames]
    charge = np.concatenate([phase[None], np.repeat(np.stack(light), 64, axis=0)]).cumsum(axis=0)
    geometry = SpikeGeometry(64, 48)
    with SpikeWriter(folder / "a.dat", geometry) as writer:
        writer.append(np.diff(np.floor(charge), axis=0).astype(np.uint8))
    return loose_recording(folder / "blur", PackedStream(folder / "a.dat", geometry))


def _dotted(ground: int, dot: int) -> np.ndarray:
    """Dots of one spike pixel, ten frame pixels apart."""
    frame = np.full((96, 128, 3), ground, dtype=np.uint8)
    for row in range(6, 90, 10):
        for column in range(6, 122, 10):
            frame[row : row + 2, column : column + 2] = dot
    return frame


@pytest.mark.parametrize(("ground", "dot"), [(20, 253), (230, 3)], ids=["white dots", "black dots"])
def test_dots_of_one_pixel_that_the_frames_show_are_no_broken_pixels(tmp_path: Path, ground: int, dot: int) -> None:
    report = check_health(_drawn(tmp_path / "dots", [_dotted(ground, dot)] * 3))
    assert report.finding("orientation").numbers["upright"] > TRUSTED_FIT
    assert report.bad_pixels == ()


def test_a_hot_pixel_beside_white_dots_is_found_though_no_gain_is_known(tmp_path: Path) -> None:
    recording = _drawn(tmp_path / "dots", [_dotted(20, 253)] * 3)
    assert recording.spikes is not None
    spikes = recording.spikes.read(0, recording.num_ticks).copy()
    spikes[:, 25, 30] = 1  # the next dots are two pixels away
    with SpikeWriter(tmp_path / "hot.dat", SpikeGeometry(64, 48)) as writer:
        writer.append(spikes)
    stream = PackedStream(tmp_path / "hot.dat", SpikeGeometry(64, 48))
    report = check_health(loose_recording(tmp_path / "dots" / "blur", stream))
    assert not np.isfinite(report.evidence.gains).any() and report.bad_pixels == ((25, 30),)


def test_a_cut_between_two_scenes_makes_no_pixel_stuck(tmp_path: Path) -> None:
    one, other = (read_image(ASSETS / name)[100:196, 100:228] for name in ("astronaut.jpg", "coffee.jpg"))
    assert check_health(_drawn(tmp_path / "cut", [one, one, other, other])).bad_pixels == ()


CHECKS = np.repeat(np.where((np.indices((96, 128)) // 12).sum(axis=0) % 2, 200, 40)[..., None], 3, axis=2)
PLAIN = {"two tones": CHECKS, "flat": CHECKS * 0 + 128, "one colour": CHECKS * (1, 0, 0), "black": CHECKS * 0}


@pytest.mark.parametrize("frame", PLAIN.values(), ids=PLAIN.keys())
def test_scenes_of_hardly_any_tone_are_judged_without_a_warning(tmp_path: Path, frame: np.ndarray) -> None:
    recording = _drawn(tmp_path / "plain", [frame.astype(np.uint8)] * 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = check_health(recording)
    assert report.finding("channel order").verdict == "cannot tell"


def test_frames_without_spikes_are_refused(tmp_path: Path) -> None:
    write_image_in(tmp_path / "blur" / "0.png", np.zeros((8, 8, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="no spikes in this recording; allowed: a recording with spikes"):
        admit(loose_recording(tmp_path / "blur", None))


def test_an_unknown_finding_to_ignore_is_refused(clean: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="^ignore_health: 'gravity'; allowed: spikes, dead pixels, "):
        admit(open_recording(clean[PHOTOS[0]]), ignore=["gravity"])


def test_a_registered_recording_is_compared_where_its_homography_says(clean: dict[str, Path], tmp_path: Path) -> None:
    """Spikes moved by 9 columns fit again under the homography that says so, and dead pixels stay sensor pixels."""

    def move(spikes: np.ndarray) -> np.ndarray:
        moved = np.roll(spikes, 9, axis=2)
        moved[:, 20, 40] = 0
        return moved

    recording = _broken(clean, tmp_path, move, photo="chelsea.jpg")
    assert check_health(recording).finding("orientation").numbers["upright"] < 0.5
    aligned = dataclasses.replace(
        recording, alignment=Alignment(0.0, ((0.5, 0.0, 9.0), (0.0, 0.5, 0.0), (0.0, 0.0, 1.0)))
    )
    report = check_health(aligned)
    assert report.finding("orientation").numbers["upright"] > 0.8
    assert (20, 40) in report.bad_pixels


def test_no_more_than_the_stated_number_of_bits_is_scanned(
    clean: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spikevrt.align.health.SCAN_BITS", 64 * 48 * 60)
    report = check_health(open_recording(clean[PHOTOS[0]]))
    assert report.evidence.scan.num_ticks == 60
    assert report.evidence.scan.windows == ((22, 42), (102, 122), (182, 202))
    assert _odd(report) == {}


def test_the_recording_and_its_files_are_untouched(clean: dict[str, Path]) -> None:
    root = clean[PHOTOS[0]]
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    recording = open_recording(root)
    admit(recording)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert recording == open_recording(root)
