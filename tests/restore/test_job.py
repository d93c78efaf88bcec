"""Restorations into files: nothing under the final name before its time, nothing lost when one is stopped.

Most use a network whose answer is its input: what matters here is when files appear, and what is in them.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from spikevrt.align.health import NAMES
from spikevrt.mux import pieces
from spikevrt.mux.join import write_video
from spikevrt.recording.alignment import Alignment, write_alignment
from spikevrt.recording.frames import list_images, read_image, write_image
from spikevrt.recording.loose import loose_recording
from spikevrt.recording.recording import open_recording
from spikevrt.recording.sidecar import Stated
from spikevrt.recording.video import iter_video, probe_video
from spikevrt.restore import job as job_module
from spikevrt.restore import writer
from spikevrt.restore.options import RestoreOptions, VideoFormat
from tests.restore.conftest import RGB, SPIKES, FakeNetwork, identity, info, restore, stand_in

SMALL = RestoreOptions(tile_px=32, overlap_px=8, clip_frames=3, device="cpu")
SMALL_REAL = RestoreOptions(tile_px=64, overlap_px=16, clip_frames=2, device="cpu")
LOSSLESS = VideoFormat("ffv1")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def fake_network(monkeypatch) -> FakeNetwork:
    network = identity()
    stand_in(lambda weights, device: (network, info(RGB)), monkeypatch.setattr)
    return network


def entries(folder: Path) -> set[str]:
    return set(os.listdir(folder))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".json"}


def stop_at(network: FakeNetwork, call: int, error: type[BaseException] | BaseException = RuntimeError) -> None:
    """The network fails in its so-many-th call from now on."""
    last = len(network.calls) + call

    def answer(blur, vox):
        if len(network.calls) == last:
            raise error
        return blur.clone()

    network.answer = answer


def go_on(network: FakeNetwork) -> None:
    network.answer = lambda blur, vox: blur.clone()


# --- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["vrt_tiny", "runs/mine.safetensors"])
def test_a_restoration_without_spikes_names_the_network_and_what_spikes_need_before_the_first_frame(
    fake_network, recording_folder, tmp_path, capsys, monkeypatch, weights
):
    told = []

    def answer(blur, vox):
        told.append(capsys.readouterr().err)
        return blur.clone()

    fake_network.answer = answer
    monkeypatch.setattr(job_module, "LONG_S", 0.0)
    frames = recording_folder / "blur"
    summary = restore(weights, loose_recording(frames, None), tmp_path / "a", SMALL)
    who = f"spikevrt: {frames}: restored without spikes, by {Path(weights).stem} (VRT)"
    gain = ": 0.3 dB above the blur, where spikes and spikefold_tiny give 5.7 (docs/results.md)"
    needs = "; with a spike camera's stream: --spikes FILE beside the frames, or a recording of both"
    assert told[0] == f"{who}{gain if weights == 'vrt_tiny' else ''}{needs}\n"
    assert summary["network"] == "VRT" and summary["spikes"] is False
    assert re.fullmatch(r"spikevrt: about 0:00:\d\d for all frames\n", told[1]) and not any(told[2:])

    told.clear()
    restore(weights, open_recording(recording_folder), tmp_path / "b", SMALL)
    assert told[0].endswith("; its spikes are not read: --weights spikefold_tiny reads them\n")


def test_a_recording_becomes_a_folder_of_all_its_frames(micro_weights, recording_folder, tmp_path):
    out = tmp_path / "new" / "restored"
    summary = restore(micro_weights, open_recording(recording_folder), out, SMALL_REAL, video=True)
    assert entries(out) == {"000000.png", "000001.png", "000002.png", "restored.json", "restored.mp4"}
    assert read_image(out / "000000.png").shape == (64, 80, 3)
    assert probe_video(out / "restored.mp4").num_frames == 3
    assert summary["spikes"] is True and summary["num_frames"] == 3
    assert summary["seconds"] > 0 and summary["peak_bytes"] > 1e6
    assert json.loads((out / "restored.json").read_text())["options"]["tile_px"] == 64
    assert entries(out.parent) == {"restored"}


def test_a_picture_in_is_a_picture_out_without_network_or_tiling_loss(fake_network, make_recording, tmp_path):
    """What is written is what was restored: grey level i stays grey level i."""
    restore(Path("w"), make_recording(7), tmp_path / "out", SMALL)
    levels = [np.unique(read_image(path)).tolist() for path in list_images(tmp_path / "out")]
    assert levels == [[i] for i in range(7)]


def test_an_out_that_ends_in_mp4_becomes_a_video_of_every_frame_with_its_summary_beside(
    fake_network, make_recording, tmp_path
):
    restore(Path("w"), make_recording(4), tmp_path / "out.mp4", SMALL)
    found = probe_video(tmp_path / "out.mp4")
    assert (found.num_frames, found.width, found.height, found.fps) == (4, 34, 22, 25.0)
    assert json.loads((tmp_path / "out.mp4.json").read_text())["num_frames"] == 4
    assert entries(tmp_path) == {"grey4", "out.mp4", "out.mp4.json"}


def test_lossless_video_of_many_pieces_holds_every_frame_at_its_time(
    fake_network, make_recording, tmp_path, monkeypatch
):
    monkeypatch.setattr(pieces, "SEGMENT_FRAMES", 4)
    restore(Path("w"), make_recording(11), tmp_path / "out.mkv", SMALL, format=LOSSLESS)
    assert [np.unique(image).tolist() for image in iter_video(tmp_path / "out.mkv")] == [[i] for i in range(11)]
    times = probe_video(tmp_path / "out.mkv").times_s
    assert times == pytest.approx([i / 25 for i in range(11)], abs=5e-4)  # Matroska counts milliseconds


@pytest.mark.parametrize("kind", ["png16", "tiff16", "exr"])
def test_frames_of_more_than_8_bits_keep_what_8_bits_lose(fake_network, make_recording, tmp_path, kind):
    pytest.importorskip("OpenEXR" if kind == "exr" else "spikevrt")
    fake_network.answer = lambda blur, vox: blur * 0.5
    restore(Path("w"), make_recording(6), tmp_path / "out", SMALL, frames=kind)
    files = writer.FrameFiles(tmp_path / "out", kind)
    assert [files.path(i).name for i in range(6)] == sorted(name for name in entries(tmp_path / "out") if "0" in name)
    for index in range(6):
        frame = files.read(index).numpy()
        np.testing.assert_allclose(frame, np.full((3, 22, 34), index / 510), atol=1.1 / 65535)


def test_a_video_beside_a_video_is_refused(fake_network, make_recording, tmp_path):
    with pytest.raises(ValueError, match=r"video: .*out\.mp4 is the video already"):
        restore(Path("w"), make_recording(2), tmp_path / "out.mp4", SMALL, video=True)


def test_a_recording_of_steady_spikes_is_skipped_and_the_summary_counts_it(make_recording, tmp_path, monkeypatch):
    """Spikes at every tick: steady, activity 0, so the frames stay as they are."""
    network = FakeNetwork(SPIKES, lambda blur, vox: blur * 2)
    stand_in(lambda weights, device: (network, info(SPIKES, mean=1.0)), monkeypatch.setattr)
    options = RestoreOptions(clip_frames=2, overlap_frames=1, skip_sharp=1.0, ignore_health=NAMES)
    summary = restore(Path("w"), make_recording(3), tmp_path / "out", options)
    assert summary["tiles"] == {"num": 2, "skipped": 2, "shared_flows": False, "activity": [0.0, 0.0, 0.0]}
    assert json.loads((tmp_path / "out" / "restored.json").read_text())["tiles"] == summary["tiles"]
    assert network.calls == []


# --- what is there already --------------------------------------------------------------------------------------------


def test_an_existing_out_is_refused_before_any_work(fake_network, make_recording, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match=r"out: exists; choose another --out or pass --overwrite"):
        restore(Path("w"), make_recording(2), tmp_path / "out", SMALL)
    assert fake_network.calls == []


def test_overwrite_replaces_an_earlier_result_and_leaves_nothing_of_it(fake_network, make_recording, tmp_path):
    out = tmp_path / "out"
    restore(Path("w"), make_recording(4), out, SMALL)
    restore(Path("w"), make_recording(2), out, SMALL, overwrite=True)
    assert [path.name for path in list_images(out)] == ["000000.png", "000001.png"]
    assert entries(tmp_path) == {"out", "grey2", "grey4"}


def test_overwrite_spares_a_folder_that_is_no_earlier_result(fake_network, make_recording, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"out: exists and holds no restored\.json, so it is not overwritten"):
        restore(Path("w"), make_recording(2), tmp_path / "out", SMALL, overwrite=True)
    assert entries(tmp_path / "out") == {"thesis.txt"}


def test_an_interrupted_overwrite_leaves_the_earlier_result(fake_network, make_recording, tmp_path):
    out = tmp_path / "out"
    restore(Path("w"), make_recording(2), out, SMALL)
    before = contents(out)
    fake_network.answer = lambda blur, vox: blur * float("nan")
    with pytest.raises(ValueError, match="not finite"):
        restore(Path("w"), make_recording(4), out, SMALL, overwrite=True)
    assert contents(out) == before


# --- stopped, and begun again -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["out", "out.mkv"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_stopped_before_anything_is_finished_nothing_at_all_is_left(
    fake_network, make_recording, tmp_path, name, error
):
    stop_at(fake_network, 1, error)
    with pytest.raises(error):
        restore(Path("w"), make_recording(7), tmp_path / name, SMALL, format=LOSSLESS)
    assert entries(tmp_path) == {"grey7"}


@pytest.mark.parametrize("name", ["out", "out.mkv"])
def test_a_stopped_job_goes_on_and_ends_as_if_it_had_not_been(
    fake_network, make_recording, tmp_path, name, monkeypatch, capsys
):
    monkeypatch.setattr(pieces, "SEGMENT_FRAMES", 4)
    recording = make_recording(13)
    whole, out = tmp_path / f"whole{Path(name).suffix}", tmp_path / name
    restore(Path("w"), recording, whole, SMALL, format=LOSSLESS)
    num_calls = len(fake_network.calls)
    stop_at(fake_network, num_calls - 4)
    with pytest.raises(RuntimeError):
        restore(Path("w"), recording, out, SMALL, format=LOSSLESS)
    assert not out.exists() and "the same command goes on from there" in capsys.readouterr().err
    go_on(fake_network)
    fake_network.calls.clear()
    summary = restore(Path("w"), recording, out, SMALL, format=LOSSLESS)
    assert summary["resumed_at"] >= 4 and len(fake_network.calls) < num_calls
    assert "goes on after" in capsys.readouterr().err
    if out.is_dir():
        assert contents(out) == contents(whole)
    else:
        assert out.read_bytes() == whole.read_bytes()
    assert not [entry for entry in entries(tmp_path) if entry.startswith(".")]


def test_a_job_goes_on_only_as_what_it_was_begun_as(fake_network, make_recording, tmp_path):
    recording = make_recording(13)
    stop_at(fake_network, 8)
    with pytest.raises(RuntimeError):
        restore(Path("w"), recording, tmp_path / "out", SMALL)
    other = dataclasses.replace(SMALL, overlap_px=16)
    with pytest.raises(
        FileExistsError, match=r"/out: an unfinished job with other options is kept beside it; .* pass --restart"
    ):
        restore(Path("w"), recording, tmp_path / "out", other)
    go_on(fake_network)
    assert restore(Path("w"), recording, tmp_path / "out", other, restart=True)["resumed_at"] == 0
    assert entries(tmp_path) == {"grey13", "out"}


def test_a_full_disk_is_told_and_what_is_finished_stays(fake_network, make_recording, tmp_path, monkeypatch):
    recording, write = make_recording(9), writer.write_pixels

    def full(path: Path, image: np.ndarray) -> None:
        if path.name == "000005.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, image)

    monkeypatch.setattr(writer, "write_pixels", full)
    with pytest.raises(
        OSError, match=r"out: no space is left on the device; what is finished \(5 files\) is kept beside it"
    ):
        restore(Path("w"), recording, tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(writer, "write_pixels", write)
    assert restore(Path("w"), recording, tmp_path / "out", SMALL)["resumed_at"] == 5
    assert len(list_images(tmp_path / "out")) == 9


def test_a_disk_that_is_full_at_the_very_end_loses_no_frame(fake_network, make_recording, tmp_path, monkeypatch):
    recording, write = make_recording(5), job_module.write_text

    def full(path: Path, text: str) -> None:
        if path.name == "restored.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, text)

    monkeypatch.setattr(job_module, "write_text", full)
    with pytest.raises(OSError, match=r"what is finished \(5 files\) is kept beside it"):
        restore(Path("w"), recording, tmp_path / "out", SMALL)
    monkeypatch.setattr(job_module, "write_text", write)
    assert restore(Path("w"), recording, tmp_path / "out", SMALL)["resumed_at"] == 5
    assert len(list_images(tmp_path / "out")) == 5 and entries(tmp_path) == {"grey5", "out"}


KILLED = """
import sys, time
from pathlib import Path
from spikevrt.recording.alignment import write_alignment
from spikevrt.recording.recording import open_recording
from spikevrt.recording.alignment import Alignment
from spikevrt.restore import job
from spikevrt.restore.options import RestoreOptions
from tests.restore.conftest import RGB, FakeNetwork, info, stand_in
def slow(blur, vox):
    time.sleep(float(sys.argv[3]))
    return blur.clone()
stand_in(lambda weights, device: (FakeNetwork(RGB, slow), info(RGB)))
options = RestoreOptions(tile_px=64, clip_frames=3)
job.restore_recording(Path("w"), open_recording(Path(sys.argv[1])), Path(sys.argv[2]), options)
"""


def start(recording: Path, out: Path, seconds: float) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    command = [sys.executable, "-c", KILLED, str(recording), str(out), str(seconds)]
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_a_killed_job_leaves_nothing_under_the_final_name_lets_nobody_in_while_it_runs_and_goes_on(
    make_recording, tmp_path
):
    recording, out, whole = make_recording(41, height=16, width=16), tmp_path / "out", tmp_path / "whole"
    process = start(recording.root, out, 3.0)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".out.job/pieces/000003.png")):
            assert time.monotonic() < deadline and process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
        second = start(recording.root, out, 0)
        assert "out: another process is making it" in second.communicate()[1]
    finally:
        process.kill()
        process.communicate()
    assert not out.exists()
    again, uninterrupted = start(recording.root, out, 0), start(recording.root, whole, 0)
    assert "goes on after" in again.communicate()[1] and "goes on" not in uninterrupted.communicate()[1]
    assert contents(out) == contents(whole) and len(contents(out)) == 41
    assert not [entry for entry in entries(tmp_path) if entry.startswith(".")]


# --- video in ---------------------------------------------------------------------------------------------------------


def test_uneven_times_and_slow_motion_between_them_are_kept(fake_network, tmp_path, uneven_video):
    """Frame i of the source at pts 0, 3, 4, 9 of 1/100 s."""
    footage = loose_recording(uneven_video, None)
    restore(Path("w"), footage, tmp_path / "out.mkv", SMALL, format=LOSSLESS)
    assert probe_video(tmp_path / "out.mkv").times_s == pytest.approx([0, 0.03, 0.04, 0.09], abs=5e-4)


def test_where_a_frame_is_missing_the_others_keep_their_times(fake_network, tmp_path, capsys):
    """Numbers 0, 1, 2, 4 and 5 at 25 frames a second."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in (0, 1, 2, 4, 5):
        write_image(folder / f"{number:06d}.png", np.full((22, 34, 3), 20 * number, np.uint8))
    footage = loose_recording(folder, None, Stated(fps=25.0))
    restore(Path("w"), footage, tmp_path / "out.mkv", SMALL, format=LOSSLESS)
    assert probe_video(tmp_path / "out.mkv").times_s == pytest.approx([0, 0.04, 0.08, 0.16, 0.2], abs=5e-4)
    assert "a frame is missing" not in capsys.readouterr().err
    restore(Path("w"), footage, tmp_path / "out", SMALL)
    assert "behind frame 2 a frame is missing; files are numbered on" in capsys.readouterr().err


def test_uneven_times_of_images_are_kept(fake_network, make_recording, tmp_path):
    """Frame 2 of 4 is exposed half a step late."""
    recording = make_recording(4)
    starts_s = [one.t0_s for one in recording.exposures]
    late_s = (starts_s[1] - starts_s[0]) / 2
    moved = [
        dataclasses.replace(one, t0_s=one.t0_s + late_s * (index == 2)) for index, one in enumerate(recording.exposures)
    ]
    uneven = dataclasses.replace(recording, exposures=tuple(moved))
    restore(Path("w"), uneven, tmp_path / "out.mp4", SMALL)
    assert probe_video(tmp_path / "out.mp4").times_s == pytest.approx([0, 0.04, 0.1, 0.12], abs=1e-4)


@pytest.mark.parametrize("out", ["own.mp4", "frames"])
def test_what_is_read_is_never_overwritten(fake_network, tmp_path, out):
    write_video(tmp_path / "own.mp4", [np.full((22, 34, 3), 90, np.uint8)] * 2, 25.0)
    restore(Path("w"), loose_recording(tmp_path / "own.mp4", None), tmp_path / "frames", SMALL)  # an earlier result
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match=f"{out}: .* what is read.*would be lost; choose another --out"):
        restore(Path("w"), loose_recording(tmp_path / out, None), tmp_path / out, SMALL, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_frames_outside_the_stream_come_out_too_restored_from_the_frames_alone(make_recording, tmp_path, monkeypatch):
    network = FakeNetwork(SPIKES, lambda blur, vox: blur.clone())
    stand_in(lambda weights, device: (network, info(SPIKES, mean=1.0)), monkeypatch.setattr)
    recording = make_recording(5)
    write_alignment(recording.root, Alignment(offset_ticks=-4))  # the first exposure now begins before the stream
    options = dataclasses.replace(SMALL, ignore_health=NAMES)
    summary = restore(Path("w"), open_recording(recording.root, keep_outside=True), tmp_path / "out", options)
    assert summary["num_frames"] == 5 and summary["without_spikes"] == [0] and summary["dropped"] == ()
    assert len(list_images(tmp_path / "out")) == 5
    assert {vox is None for _, vox in network.calls} == {True, False}
