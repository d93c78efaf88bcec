"""`spikevrt align`, from footage to sidecar and back: what was put in is found, written, applied and taken out."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from spikevrt.align.drift import _line
from spikevrt.align.estimate import FLOW_FILE, Estimate, estimate_alignment
from spikevrt.align.registration import Cameras
from spikevrt.align.settings import AlignOptions
from spikevrt.cli import main
from spikevrt.recording.alignment import Alignment
from spikevrt.recording.frames import image_size, read_image, write_image
from spikevrt.recording.recording import Recording, open_recording
from spikevrt.simulate.setup import RigConfig, SimulateOptions
from spikevrt.simulate.synthesise import simulate_recording

ASSETS = Path(__file__).resolve().parents[2] / "src" / "spikevrt" / "assets"
OPTIONS = SimulateOptions(
    frames=4, width=256, height=144, exposure_ticks=32, period_ticks=40, motion_px=8.0, num_layers=1, seed=4,
    rig=RigConfig(
        shift_x_px=-7.0, shift_y_px=4.0, rotate_deg=1.0, scale=1.03, tilt_x=0.01, offset_ticks=-9, margin_ticks=32
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_recording(ASSETS / "astronaut.jpg", tmp_path_factory.mktemp("rig") / "street", OPTIONS).root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "street"))


def _sidecar(root: Path) -> dict[str, object]:
    values: dict[str, object] = json.loads((root / "recording.json").read_text())
    return values


def _corner_error_px(root: Path, alignment: Alignment) -> float:
    recording = open_recording(root, apply_alignment=False)
    assert recording.spikes is not None
    cameras = Cameras(recording.width, recording.height, recording.spikes.width, recording.spikes.height)
    found = cameras.homography(np.zeros(8)) if alignment.homography is None else np.array(alignment.homography)
    return cameras.corner_gap_px(found, np.array(recording.provenance["rig"]["homography"]))


@pytest.mark.slow
def test_the_rig_is_found_written_applied_found_again_and_taken_out(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, made = [], []

    def once(recording: Recording, options: AlignOptions) -> Estimate:
        asked.append((recording.exposures, recording.alignment, dataclasses.replace(options, preview=None)))
        made.extend([] if made else [estimate_alignment(recording, options)])
        return made[0]

    monkeypatch.setattr("spikevrt.align.estimate.estimate_alignment", once)
    before = _sidecar(root)
    preview = tmp_path / "aligned.png"
    assert main(["align", str(root), "--preview", str(preview)]) == 0
    said = capsys.readouterr().out
    assert f"{root}: 4 of 4 frames, 32 ticks each\n" in said
    assert "earlier than written" in said and f"preview -> {preview}\n" in said
    assert f"alignment -> {root / 'recording.json'}" in said
    assert image_size(preview) == (144 * 5 // 2, 2 * 256 * 5 // 2)  # two panels of five times the sensor

    recording = open_recording(root)
    alignment = recording.alignment
    assert alignment.offset_ticks == pytest.approx(-9, abs=0.5)
    assert _corner_error_px(root, alignment) < 0.5
    assert alignment.quality["offset"] == "estimated"
    assert alignment.quality["residual_after_px"] < 0.5 < 3 < alignment.quality["residual_before_px"]
    starts = [exposure.start_tick for exposure in open_recording(root, apply_alignment=False).exposures]
    assert [exposure.start_tick for exposure in recording.exposures] == [start - 9 for start in starts]
    assert recording.sensor_positions is not None and recording.sensor_positions.shape == (72, 128, 2)

    first = _sidecar(root)
    assert main(["align", str(root)]) == 0  # begins where the first began: not on top of it
    assert asked[1] == asked[0] and _sidecar(root) == first

    capsys.readouterr()
    assert main(["align", str(root), "--reset"]) == 0
    assert capsys.readouterr().out.startswith(f"alignment taken out -> {root / 'recording.json'}")
    assert _sidecar(root) == before


def test_a_dry_run_writes_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _sidecar(root)
    assert main(["align", str(root), "--dry-run", "--no-time"]) == 0
    assert "alignment ->" not in capsys.readouterr().out
    assert _sidecar(root) == before


def test_a_flow_lies_beside_the_sidecar_and_goes_with_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spikevrt.align.estimate.MIN_FLOW_GAIN", 100.0)  # keep it, whatever it is worth
    assert main(["align", str(root), "--no-time", "--flow"]) == 0
    stored = open_recording(root)
    assert stored.alignment.flow == root / FLOW_FILE
    assert np.load(root / FLOW_FILE).shape == (2, 9, 16)
    assert stored.sensor_positions is not None
    assert main(["align", str(root), "--reset"]) == 0
    assert not (root / FLOW_FILE).exists()


def test_registered_cameras_get_an_offset_and_no_homography(tmp_path: Path) -> None:
    options = SimulateOptions(
        frames=3, width=192, height=128, exposure_ticks=32, period_ticks=40, motion_px=8.0,
        rig=RigConfig(offset_ticks=5, margin_ticks=32),
    )  # fmt: skip
    recording = simulate_recording(ASSETS / "coffee.jpg", tmp_path / "clock", options)
    estimate = estimate_alignment(recording, AlignOptions(space=False, max_offset_ticks=12))
    assert estimate.alignment.offset_ticks == pytest.approx(5, abs=0.5)
    assert estimate.alignment.homography is None


@pytest.mark.slow
def test_a_still_scene_is_registered_and_keeps_its_clock(tmp_path: Path) -> None:
    options = SimulateOptions(
        frames=3, width=192, height=128, exposure_ticks=32, period_ticks=40, motion_px=0.0, num_layers=0,
        rig=RigConfig(shift_x_px=6.0, offset_ticks=5, margin_ticks=32),
    )  # fmt: skip
    recording = simulate_recording(ASSETS / "coffee.jpg", tmp_path / "still", options)
    estimate = estimate_alignment(recording, AlignOptions(max_offset_ticks=12))
    assert estimate.alignment.offset_ticks == 0
    assert estimate.alignment.quality["offset"] == "not observable"
    assert any(line.startswith("time: not observable") for line in estimate.lines)
    assert _corner_error_px(recording.root, estimate.alignment) < 0.5


def test_frames_of_another_scene_are_refused_and_nothing_is_written(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = read_image(ASSETS / "coffee.jpg")[20:164, 30:286]
    for image in (root / "blur").iterdir():
        write_image(image, other)
    before = _sidecar(root)
    preview = tmp_path / "aligned.png"
    assert main(["align", str(root), "--no-time", "--preview", str(preview)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"spikevrt: {root}: cannot be aligned: ") and error.count("\n") == 1
    assert _sidecar(root) == before and not preview.exists()


def test_a_recording_without_spikes_is_refused(root: Path) -> None:
    blind = dataclasses.replace(open_recording(root), spikes=None)
    with pytest.raises(ValueError, match=r"street: no spikes in this recording$"):
        estimate_alignment(blind, AlignOptions())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--no-time", "--no-space"], "--no-time, --no-space: nothing is left to estimate; give one of them at most"),
        (["--no-space", "--flow"], "--flow: not with --no-space"),
        (["--no-time", "--max-offset-ticks", "9"], "--max-offset-ticks: not with --no-time"),
        (["--max-offset-ticks", "0"], "--max-offset-ticks: 0; allowed: 1 or more"),
        (["--reset", "--dry-run"], "--reset: takes no other option"),
        (["--preview", "a.txt"], "--preview: a.txt; allowed: a name ending in .png, .jpg, .jpeg"),
    ],
)
def test_options_that_cannot_be_obeyed_are_refused(
    arguments: list[str], message: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["align", str(root), *arguments]) == 2
    assert capsys.readouterr().err == f"spikevrt: {message}\n"


def test_a_preview_is_not_replaced_unless_told(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preview = tmp_path / "aligned.png"
    preview.write_bytes(b"mine")
    assert main(["align", str(root), "--preview", str(preview)]) == 2
    assert capsys.readouterr().err == (f"spikevrt: {preview}: exists; choose another --preview or pass --overwrite\n")
    assert preview.read_bytes() == b"mine"


def test_a_missing_recording_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["align", str(tmp_path / "stret")]) == 2
    assert capsys.readouterr().err == f"spikevrt: {tmp_path / 'stret'}: no such recording\n"


@pytest.mark.slow
def test_a_clock_that_runs_fast_is_found_and_applied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rig = RigConfig(offset_ticks=9, drift_ppm=3000.0, margin_ticks=40)
    options = SimulateOptions(
        frames=14, width=128, height=96, exposure_ticks=64, period_ticks=160, motion_px=8.0, num_layers=1, rig=rig
    )
    root = simulate_recording(ASSETS / "chelsea.jpg", tmp_path / "street", options).root
    assert main(["align", str(root)]) == 0
    assert "drift: " in capsys.readouterr().out
    aligned, written = open_recording(root), open_recording(root, apply_alignment=False)
    assert aligned.alignment.offset_ticks == pytest.approx(9, abs=1)
    assert aligned.alignment.drift_ppm == pytest.approx(3000, abs=500)
    true = [one.start_tick + 9 + options.drift_ticks(i) for i, one in enumerate(written.exposures)]
    np.testing.assert_allclose([one.start_tick for one in aligned.exposures], true, atol=1)


def test_a_drift_within_chance_is_no_drift_and_frames_far_off_the_line_do_not_bend_it() -> None:
    starts = 1e4 * np.arange(8)
    line = _line(starts, 5 + 5e-5 * starts + [0.1, -0.1, 0.1, -0.1, -0.1, 0.1, -0.1, 30.0])
    assert line is not None and line.is_significant
    assert line.per_tick == pytest.approx(5e-5, abs=1e-5) and line.offset_ticks == pytest.approx(5, abs=0.3)
    chance = _line(starts, 5 + np.array([1.0, -1.0, 2.0, -2.0, 1.0, 1.0, -1.0, 0.0]))
    assert chance is not None and not chance.is_significant
    assert _line(starts[:3], starts[:3]) is None
