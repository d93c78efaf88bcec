"""Who may be restored: a sound recording, one whose broken pixels are filled, and none that the gate refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spikevrt.align.health import admit, check_health
from spikevrt.recording.alignment import Alignment
from spikevrt.recording.recording import Recording, open_recording, with_alignment
from spikevrt.recording.spike_file import SpikeWriter
from spikevrt.recording.stream import PackedStream
from spikevrt.represent.counts import frame_counts
from spikevrt.restore.job import restore_recording
from spikevrt.restore.options import RestoreOptions
from spikevrt.simulate.setup import RigConfig, SimulateOptions, sensor_preset
from spikevrt.simulate.synthesise import simulate_recording

PHOTO = Path(__file__).resolve().parents[2] / "src" / "spikevrt" / "assets" / "chelsea.jpg"


@pytest.fixture
def flipped(tmp_path: Path) -> Recording:
    """Its recording.json says that the top row is stored first, which is not so."""
    options = SimulateOptions(frames=2, width=96, height=64, exposure_ticks=32, period_ticks=32, num_layers=0)
    recording = simulate_recording(PHOTO, tmp_path / "cat", options)
    sidecar = recording.root / "recording.json"
    values = json.loads(sidecar.read_text())
    values["spikes"]["rows"] = "top-down"
    sidecar.write_text(json.dumps(values))
    return open_recording(recording.root)


@pytest.fixture
def with_a_dead_pixel(recording_folder: Path) -> Recording:
    recording = open_recording(recording_folder)
    assert isinstance(recording.spikes, PackedStream)
    spikes = recording.spikes.read(0, recording.num_ticks)
    spikes[:, 13, 17] = 0
    with SpikeWriter(recording.spikes.path, recording.spikes.geometry) as writer:
        writer.append(spikes)
    return open_recording(recording_folder)


def test_a_sound_recording_is_admitted_as_it_is(recording_folder: Path, capsys: pytest.CaptureFixture[str]):
    recording = open_recording(recording_folder)
    assert admit(recording) is recording
    assert capsys.readouterr().err == ""


def test_a_dead_pixel_is_told_and_filled_from_its_neighbours(
    with_a_dead_pixel: Recording, capsys: pytest.CaptureFixture[str]
):
    admitted = admit(with_a_dead_pixel)
    assert admitted.bad_pixels == ((13, 17),)
    assert "1 bad spike pixel, filled from the neighbours" in capsys.readouterr().err
    counts = frame_counts(admitted, 1, num_bins=1)[0].numpy()
    around = np.delete(frame_counts(with_a_dead_pixel, 1, num_bins=1)[0, 12:15, 16:19].numpy().reshape(9), 4)
    assert counts[13, 17] == pytest.approx(around.mean(), rel=1e-3)  # rounded to float16


def test_what_cannot_be_told_is_said_in_one_line_unless_it_is_ignored(
    recording_folder: Path, capsys: pytest.CaptureFixture[str]
):
    sidecar = recording_folder / "recording.json"
    values = json.loads(sidecar.read_text())
    values["spikes"]["tick_rate_hz"] /= 2
    sidecar.write_text(json.dumps(values))
    admit(open_recording(recording_folder))
    told = capsys.readouterr().err
    assert told.startswith(f"spikevrt: {recording_folder}: cannot tell: exposure times: not as long as its ticks at")
    assert told.count("\n") == 1
    admit(open_recording(recording_folder), ignore=("exposure times",))
    assert capsys.readouterr().err == ""


def test_low_light_is_no_reason_to_doubt_a_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = SimulateOptions(
        frames=2,
        width=96,
        height=64,
        exposure_ticks=64,
        period_ticks=64,
        num_layers=0,
        sensor=sensor_preset("lowlight"),
    )
    recording = simulate_recording(PHOTO, tmp_path / "cat", options)
    assert "weights trained with normalize: density" in check_health(recording).finding("gain").sentence
    admit(recording)
    assert "gain" not in capsys.readouterr().err


def test_flipped_spikes_are_refused_before_anything_is_written(flipped: Recording, micro_weights: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"cat: orientation: .*; allowed: .* or `ignore_health` orientation"):
        restore_recording(micro_weights, flipped, tmp_path / "out", RestoreOptions(device="cpu"), gate=admit)
    assert not (tmp_path / "out").exists()


def test_rows_that_are_flipped_are_mended_as_the_refusal_says(flipped: Recording):
    sidecar = flipped.root / "recording.json"
    assert (
        check_health(flipped)
        .finding("orientation")
        .sentence.endswith(f"state the other order of rows: spikes.rows in {sidecar}")
    )
    sidecar.write_text(sidecar.read_text().replace("top-down", "bottom-up"))
    assert check_health(open_recording(flipped.root)).finding("orientation").verdict == "ok"


def test_a_finding_can_be_ignored(flipped: Recording):
    assert admit(flipped, ignore=("orientation",)).num_frames == 2


def test_an_unknown_finding_is_refused_with_those_there_are(recording_folder: Path):
    with pytest.raises(ValueError, match="ignore_health: 'colour'; allowed: spikes, dead pixels, "):
        admit(open_recording(recording_folder), ignore=("colour",))


def test_strict_refuses_all_that_cannot_be_told_in_one_line_that_says_how_to_look(tmp_path: Path):
    options = SimulateOptions(
        frames=2, width=96, height=64, exposure_ticks=64, period_ticks=64, num_layers=0,
        sensor=sensor_preset("lowlight"),
    )  # fmt: skip
    recording = simulate_recording(PHOTO, tmp_path / "cat", options)
    sidecar = recording.root / "recording.json"
    values = json.loads(sidecar.read_text())
    values["spikes"]["tick_rate_hz"] /= 2
    sidecar.write_text(json.dumps(values))
    recording = open_recording(recording.root)
    with pytest.raises(ValueError) as refusal:
        admit(recording, strict=True)
    told = str(refusal.value)
    assert told.startswith(f"{recording.root}: strict: cannot tell: exposure times (") and "\n" not in told
    assert "; time offset (" in told
    assert "a recording that tells, or `ignore_health` 'exposure times' 'time offset'; " in told
    assert told.endswith(f"to look: spikevrt inspect {recording.root} --report health.html")
    assert admit(recording, ignore=("exposure times", "time offset"), strict=True).num_frames == 2


def test_strict_admits_what_is_sound_and_what_is_filled(recording_folder: Path, with_a_dead_pixel: Recording):
    assert admit(with_a_dead_pixel, strict=True).bad_pixels == ((13, 17),)


def test_a_clock_that_is_wrong_is_refused_until_it_is_aligned(tmp_path: Path):
    options = SimulateOptions(
        frames=4, width=96, height=64, exposure_ticks=64, period_ticks=80, num_layers=0,
        rig=RigConfig(offset_ticks=8, margin_ticks=48),
    )  # fmt: skip
    recording = simulate_recording(PHOTO, tmp_path / "cat", options)
    with pytest.raises(
        ValueError, match=r"cat: time offset: the spikes fit the frames [78]\.. \+- ... ticks later; run"
    ):
        admit(recording)
    assert admit(recording, ignore=("time offset",)).num_frames == 4
    assert admit(with_alignment(recording, Alignment(offset_ticks=8.0)), strict=True).num_frames == 4


def test_strict_is_refused_where_no_spikes_are_looked_at(recording_folder: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"^strict: not with `without_spikes`"):
        RestoreOptions(strict=True, without_spikes=True)
    options = RestoreOptions(device="cpu", strict=True)
    with pytest.raises(ValueError, match=r"^strict: not with .*vrt_tiny.*, a network without spikes$"):
        restore_recording("vrt_tiny", open_recording(recording_folder), tmp_path / "out", options, gate=admit)
