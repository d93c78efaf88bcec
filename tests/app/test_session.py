"""What the page does, without the page: examples and uploads, results and their files, nothing outside the folder."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikevrt import cli, shipped
from spikevrt.align.estimate import Estimate, estimate_alignment
from spikevrt.align.health import admit
from spikevrt.align.settings import AlignOptions
from spikevrt.app import page, session
from spikevrt.app.turns import Cancelled
from spikevrt.bench.demo import ASSETS, SCENES
from spikevrt.mux.join import write_video
from spikevrt.recording.alignment import Alignment, write_alignment
from spikevrt.recording.frames import list_images, read_image, write_image
from spikevrt.recording.recording import Recording, open_recording
from spikevrt.recording.sidecar import Stated
from spikevrt.recording.video import probe_video
from spikevrt.report.recording_pages import restored_words
from spikevrt.restore.job import restore_recording
from spikevrt.restore.options import RestoreOptions
from spikevrt.simulate.setup import RigConfig, SimulateOptions
from spikevrt.simulate.synthesise import simulate_recording
from tests.bench.test_demo import SMALL


@pytest.fixture
def place(tmp_path: Path) -> session.Place:
    return session.make_place(tmp_path / "app", 1)


@pytest.fixture
def footage(place: session.Place, street: Path) -> session.Footage:
    job = place.folder / "jobs" / "one"
    job.mkdir()
    return session.look_at(open_recording(street), job, None)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> session.Result:
    """The result of an example, made small."""
    place = session.make_place(tmp_path_factory.mktemp("made") / "app", 1)
    return session.restore(session.take_example(place, "bridge", SMALL), "spikefold_tiny")


def uploaded(place: session.Place, name: str, content: bytes) -> Path:
    """A file where gradio puts uploads."""
    path = place.cache / "0123abcd" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def zipped(folder: Path, out: Path) -> bytes:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    return out.read_bytes()


def snapshot(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_an_example_is_simulated_once_and_looked_at(place):
    first = session.take_example(place, "bridge", SMALL)
    spikes = place.folder / "examples" / "bridge" / "spikes.dat"
    made_ns = spikes.stat().st_mtime_ns
    second = session.take_example(place, "bridge", SMALL)
    assert spikes.stat().st_mtime_ns == made_ns and first.folder != second.folder
    assert first.recording.num_frames == SMALL.frames and first.report is not None
    assert first.credit is not None and "Sander Klootwijk" in first.credit and "CC BY-SA 4.0" in first.credit
    assert read_image(first.preview).shape[2] == 3 and "Health of bridge" in first.health_page.read_text()


def test_every_example_has_a_credit():
    for asset in SCENES.values():
        assert session.credit_of(asset).startswith(f"{asset}: ")


def test_an_unknown_example_is_refused(place):
    with pytest.raises(ValueError, match=r"example: '\.\./jobs'; allowed: bridge, clock, astronaut, city"):
        session.take_example(place, "../jobs")
    with pytest.raises(ValueError, match="example: none chosen; allowed: bridge"):
        session.take_example(place, None)


def test_an_upload_is_kept_in_a_job_of_its_own(place, street, tmp_path):
    path = uploaded(place, "street.zip", zipped(street, tmp_path / "street.zip"))
    footage = session.take_upload(place, str(path), [], Stated())
    assert footage.folder.parent == place.folder / "jobs"
    assert footage.recording.root == footage.folder / "unpacked" / "street" / "street"
    assert footage.weights == shipped.NAMES and footage.refused == ()
    assert path.is_file()  # gradio's copy stays gradio's


def test_a_video_alone_can_only_be_restored_without_spikes(place, street, tmp_path):
    video = tmp_path / "blurry.mp4"
    write_video(video, [read_image(path) for path in list_images(street / "blur")], 25.0)
    footage = session.take_upload(place, uploaded(place, "blurry.mp4", video.read_bytes()), [], Stated())
    assert footage.weights == ("vrt_tiny",) and footage.report is None and footage.health_page is None
    np.testing.assert_array_equal(read_image(footage.preview), footage.recording.read_blur(0))
    np.testing.assert_array_equal(
        read_image(session.blurry_picture(footage, 2)), dataclasses.replace(footage.recording).read_blur(2)
    )


def test_a_table_of_times_is_kept_with_the_job_and_obeyed(place, street, tmp_path):
    video = tmp_path / "blurry.mp4"
    write_video(video, [read_image(path) for path in list_images(street / "blur")], 25.0)
    frames = uploaded(place, "blurry.mp4", video.read_bytes())
    spikes = uploaded(place, "car.dat", (street / "spikes.dat").read_bytes())
    table = uploaded(place, "times.csv", b"frame,start_tick,exposure_tick\n0,0,37\n1,40,37\n2,82,37\n")
    stated = Stated(spike_width=40, spike_height=32, timestamps=table, unchecked=True)
    footage = session.take_upload(place, frames, [spikes], stated)
    assert [one.start_tick for one in footage.recording.exposures] == [0, 40, 82]
    assert (footage.folder / "upload" / "times.csv").read_bytes() == table.read_bytes()


def test_what_lies_outside_the_uploads_is_refused_and_leaves_nothing(place, street, tmp_path):
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"x")
    link = place.cache / "link.mp4"
    link.symlink_to(secret)
    for path in (secret, link, place.cache / ".." / ".." / "secret.mp4", street / "spikes.dat"):
        with pytest.raises(ValueError, match=f"{path.name}: not among the files uploaded to this page"):
            session.take_upload(place, path, [], Stated())
        with pytest.raises(ValueError, match=f"{path.name}: not among the files uploaded"):
            session.take_upload(place, uploaded(place, "a.mp4", b"x"), [path], Stated())
        with pytest.raises(ValueError, match=f"{path.name}: not among the files uploaded"):
            session.take_upload(place, uploaded(place, "a.mp4", b"x"), [], Stated(timestamps=path))
    assert snapshot(place.folder / "jobs") == []


def test_an_upload_above_the_limit_is_refused(place):
    path = uploaded(place, "big.mp4", bytes((1 << 20) + 1))
    with pytest.raises(ValueError, match=r"big\.mp4: 2 MB; allowed: at most 1 MB, the limit of this page"):
        session.take_upload(place, path, [], Stated())
    with pytest.raises(ValueError, match="--max-upload-mb: 0; allowed: 1 or more"):
        session.make_place(place.folder, 0)


def test_a_bad_upload_is_told_in_one_line_without_folders_and_leaves_nothing(place):
    with pytest.raises(ValueError) as caught:
        session.take_upload(place, uploaded(place, "bad.mp4", b"no video"), [], Stated())
    assert session.one_line(caught.value, place) == "bad.mp4: not a video, or a damaged one"
    assert snapshot(place.folder / "jobs") == []
    with pytest.raises(ValueError, match="video: none given; allowed: a video, or the .zip"):
        session.take_upload(place, None, [], Stated())


def test_an_error_of_the_system_is_told_in_one_line_too(place):
    error = FileNotFoundError(2, "No such file or directory", str(place.folder / "jobs" / "one" / "upload" / "a.dat"))
    assert session.one_line(error, place) == "a.dat: No such file or directory"


def test_a_result_has_frames_films_archive_report_and_summary(made):
    assert [path.name for path in made.frames] == ["000000.png", "000001.png"]
    archived, video, report, summary = made.downloads
    with zipfile.ZipFile(archived) as archive:
        assert archive.namelist() == ["000000.png", "000001.png", "restored.json"]
        assert archive.read("000001.png") == made.frames[1].read_bytes()
    assert json.loads(summary.read_text()) == json.loads(json.dumps(made.summary)) and made.summary["num_frames"] == 2
    assert probe_video(video).fps == pytest.approx(made.footage.recording.fps, rel=1e-3)
    watched = probe_video(made.watch)
    assert watched.num_frames / watched.fps == pytest.approx(session.WATCH_S, rel=1e-3)
    assert {path.parent for path in (archived, report, made.watch)} == {made.footage.folder / "result-1"}


def test_the_result_is_that_of_the_command(made, tmp_path):
    weights = shipped.find("spikefold_tiny")
    restore_recording(weights, made.footage.recording, tmp_path / "out", RestoreOptions(), gate=admit)
    for path in made.frames:
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


def test_frames_outside_the_stream_are_restored_as_by_the_command(place, street, tmp_path):
    write_alignment(street, Alignment(offset_ticks=-4))  # the first exposure now begins before the stream
    upload = uploaded(place, "street.zip", zipped(street, tmp_path / "street.zip"))
    footage = session.take_upload(place, upload, [], Stated())
    assert footage.recording.num_frames == 3 and footage.report is not None
    everything = [finding.name for finding in footage.report.findings]
    made = session.restore(footage, shipped.DEFAULT, ignore_health=everything)
    assert made.summary["num_frames"] == 3 and made.summary["without_spikes"] == [0]
    arguments = ["restore", str(street), "--out", str(tmp_path / "out"), "--ignore-health", *everything]
    assert cli.main(arguments) == 0
    for path in made.frames:
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()
    assert ", 1 without spikes." in restored_words(made.summary)
    assert "Frames outside the stream, restored from the frames alone: 1." in page._about(footage)


def test_the_report_needs_nothing_and_tells_scores_health_and_source(made):
    text = made.downloads[2].read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    for words in (
        "restored by spikefold_tiny (U-Net on blocks of 2x2 pixels, spike-corrected frames)",
        "PSNR (RGB), dB",
        "orientation",
        "Sander Klootwijk",
        made.summary["weights"],
    ):
        assert words in text, words


def test_a_second_restoration_stands_beside_the_first(footage):
    first = session.restore(footage, "spikefold_tiny")
    second = session.restore(footage, "vrt_tiny")
    assert (first.downloads[0].parent.name, second.downloads[0].parent.name) == ("result-1", "result-2")
    assert second.summary["weights"] == "vrt_tiny.safetensors" and second.summary["network"] == "VRT"
    assert all(path.is_file() for path in first.downloads)


def cancelling(stop_at: int) -> Callable[[int, int], None]:
    """A job's progress, cancelled at its `stop_at`-th word."""
    calls = itertools.count(1)

    def progress(done: int, total: int) -> None:
        if next(calls) == stop_at:
            raise Cancelled

    return progress


@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_a_restoration_that_is_stopped_leaves_nothing_and_does_not_say_so(footage, stop_at, capfd):
    """While frames are made, at the last of them, and behind them while the files are written."""
    before = snapshot(footage.folder)
    with pytest.raises(Cancelled):
        session.restore(footage, "spikefold_tiny", progress=cancelling(stop_at))
    assert snapshot(footage.folder) == before
    assert "kept" not in capfd.readouterr().err


@pytest.fixture
def later(monkeypatch) -> Alignment:
    """What the estimate finds of any footage."""
    found = Alignment(offset_ticks=2.0)

    def estimate(recording: Recording, options: AlignOptions, *, progress: Any) -> Estimate:
        assert recording.alignment == Alignment() and options.preview is not None
        write_image(options.preview, recording.read_blur(0))
        if progress is not None:
            progress(1, 2)
        return Estimate(found, None, (f"{recording.root}: 3 of 3 frames", "residual 2.00 -> 0.30 px"))

    monkeypatch.setattr(session, "estimate_alignment", estimate)
    return found


def test_what_was_aligned_is_checked_and_restored_anew_and_the_files_stay(footage, later):
    files = {path: path.read_bytes() for path in footage.recording.root.rglob("*") if path.is_file()}
    aligned = session.align(footage, "", progress=lambda done, total: None)
    assert [one.start_tick for one in aligned.recording.exposures] == [2, 43, 84] and aligned.recording.num_frames == 3
    assert aligned.report is not None and aligned.report is not footage.report and aligned.before is footage
    assert aligned.folder == footage.folder / "aligned-1" and aligned.overlay is not None
    assert sorted(snapshot(aligned.folder)) == ["alignment.png", "health.html", "preview.png"]
    everything = [finding.name for finding in aligned.report.findings]
    made = session.restore(aligned, shipped.DEFAULT, ignore_health=everything)
    assert json.loads(made.downloads[3].read_text())["alignment"]["offset_ticks"] == 2.0
    assert "offset 2 ticks, not registered" in made.downloads[2].read_text(encoding="utf-8")
    assert {path: path.read_bytes() for path in files} == files  # of the recording nothing was changed
    again = session.align(aligned, "17")  # from what it was before, not from what was aligned
    assert again.before is footage and again.folder == footage.folder / "aligned-2"
    restored = session.restore(footage, shipped.DEFAULT, ignore_health=everything)
    assert restored.summary["alignment"] is None


def test_a_recording_that_brings_an_alignment_is_aligned_from_its_own_clock(place, street, later):
    write_alignment(street, Alignment(offset_ticks=1.0))
    job = place.folder / "jobs" / "one"
    job.mkdir()
    footage = session.look_at(open_recording(street, keep_outside=True), job, None)
    aligned = session.align(footage, "")
    assert footage.recording.exposures[0].start_tick == 1 and aligned.recording.exposures[0].start_tick == 2


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_an_alignment_that_is_stopped_changes_nothing(footage, later, stop_at):
    before = snapshot(footage.folder)
    with pytest.raises(Cancelled):
        session.align(footage, "", progress=cancelling(stop_at))
    assert snapshot(footage.folder) == before


def test_footage_that_does_not_tell_is_refused_in_a_line_and_leaves_nothing(footage, place, monkeypatch):
    flat = dataclasses.replace(footage, recording=footage.recording.chosen([0, 1]))
    monkeypatch.setattr(type(flat.recording), "read_blur", lambda self, index: np.full((64, 80, 3), 90, np.uint8))
    before = snapshot(footage.folder)
    with pytest.raises(ValueError, match="cannot be aligned: ") as caught:
        session.align(flat, "")
    told = session.one_line(caught.value, place)
    assert told.endswith("is it upright, and the same scene?") and "spikevrt" not in told
    for reach, message in (("far", "max_offset_ticks: 'far'; allowed: a whole"), ("0", "--max-offset-ticks: 0; ")):
        with pytest.raises(ValueError, match=message):
            session.align(footage, reach)
    assert snapshot(footage.folder) == before


@pytest.mark.slow
def test_a_rig_that_is_off_is_aligned_as_by_the_command_and_restored_better(place, tmp_path, monkeypatch):
    """5 frame pixels and 9 ticks of 40 off, known to nobody."""
    asked, estimates = [], []

    def once(recording, options, **more):
        asked.append((recording.exposures, recording.alignment, dataclasses.replace(options, preview=None)))
        estimates.extend([] if estimates else [estimate_alignment(recording, options, **more)])
        return estimates[0]

    monkeypatch.setattr(session, "estimate_alignment", once)
    monkeypatch.setattr("spikevrt.align.estimate.estimate_alignment", once)
    rig = RigConfig(margin_ticks=40, shift_x_px=5.0, offset_ticks=9)
    options = SimulateOptions(
        frames=3, width=128, height=96, exposure_ticks=40, period_ticks=48, motion_px=8.0, rig=rig
    )
    root = simulate_recording(ASSETS / "astronaut.jpg", tmp_path / "off", options).root
    (place.folder / "jobs" / "one").mkdir()
    footage = session.look_at(open_recording(root, keep_outside=True), place.folder / "jobs" / "one", None)
    seen: list[tuple[int, int]] = []
    aligned = session.align(footage, "", progress=lambda done, total: seen.append((done, total)))
    assert len(seen) > 5 and aligned.recording.alignment.offset_ticks == pytest.approx(9, abs=0.5)
    before, after = re.search(r"residual ([\d.]+) -> ([\d.]+) px", " ".join(aligned.lines)).groups()
    assert float(before) > 3 and float(after) < 0.6
    scores = {}
    for name, one in (("as it was", footage), ("aligned", aligned)):
        ignored = [finding.name for finding in one.report.findings]
        made = session.restore(one, shipped.DEFAULT, ignore_health=ignored)
        pairs = [(read_image(path), one.recording.read_sharp(index)) for index, path in enumerate(made.frames)]
        errors = [np.mean((a.astype(float) - b.astype(float)) ** 2) for a, b in pairs]
        scores[name] = float(np.mean([10 * np.log10(255**2 / error) for error in errors]))
    assert scores["aligned"] > scores["as it was"] + 2, scores
    assert cli.main(["align", str(root)]) == 0 and asked[1] == asked[0]
    assert open_recording(root, keep_outside=True).exposures == aligned.recording.exposures


def test_unknown_weights_are_refused(footage):
    with pytest.raises(ValueError, match=r"weights: '\.\./x'; allowed: spikefold_tiny, spikevrt_tiny, spike"):
        session.restore(footage, "../x")


def test_a_finding_that_refuses_is_named_and_can_be_overruled(place, street):
    spikes = street / "spikes.dat"
    spikes.write_bytes(bytes(spikes.stat().st_size))  # no spike at all
    job = place.folder / "jobs" / "one"
    job.mkdir()
    footage = session.look_at(open_recording(street), job, None)
    assert footage.refused == ("spikes",)
    before = snapshot(job)
    with pytest.raises(ValueError, match="spikes: no spike in"):
        session.restore(footage, "spikefold_tiny")
    with pytest.raises(ValueError, match="no spike in the exposures looked at"):  # the gate lets it pass, this does not
        session.restore(footage, "spikefold_tiny", ignore_health=["spikes"])
    assert snapshot(job) == before
    assert session.restore(footage, "vrt_tiny").summary["num_frames"] == 3


@pytest.mark.parametrize(
    ("verdicts", "kind", "words"),
    [
        ({}, "good", "In order: "),
        ({"gaps": ("cannot tell", True)}, "note", "Cannot tell whether all is in order: gaps. "),
        ({"gain": ("cannot tell", False)}, "note", "Cannot tell, which matters little: gain."),
        ({"gain": ("cannot tell", False), "gaps": ("bad", True)}, "error", "Not in order, "),
    ],
)
def test_what_cannot_be_told_is_neither_green_nor_in_order(footage, verdicts, kind, words):
    findings = [
        dataclasses.replace(one, verdict=verdict, matters=matters)
        for one in footage.report.findings
        for verdict, matters in [verdicts.get(one.name, ("ok", True))]
    ]
    report = dataclasses.replace(footage.report, findings=tuple(findings))
    told = page._about(dataclasses.replace(footage, report=report))
    assert told.startswith(f'<div class="{kind}"') and words in told and ("In order" in told) == (kind == "good")


def test_files_of_one_upload_share_their_bytes_where_the_disk_can(place, street, tmp_path):
    path = uploaded(place, "street.zip", zipped(street, tmp_path / "street.zip"))
    footage = session.take_upload(place, path, [], Stated())
    kept = footage.folder / "upload" / "street.zip"
    assert kept.read_bytes() == path.read_bytes()
    assert os.stat(kept).st_nlink in (1, 2)
