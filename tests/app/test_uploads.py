"""Uploads become recordings, or one line that says why not; a zip cannot write, link or grow where it must not."""

from __future__ import annotations

import dataclasses
import stat
import zipfile
from pathlib import Path

import pytest

from spikevrt.align.exposure import ExposureEstimate
from spikevrt.app import uploads
from spikevrt.app.uploads import SizesWanted, open_upload, unpack
from spikevrt.mux.join import write_video
from spikevrt.recording.frames import list_images, read_image
from spikevrt.recording.recording import open_recording
from spikevrt.recording.sidecar import Stated

MOST = 10_000_000
TIMING = Stated(exposure_ticks=19, period_ticks=23, by_counting=True, unchecked=True)  # of `recording_folder`


@pytest.fixture
def packed(recording_folder: Path, tmp_path: Path) -> Path:
    """The recording as a zip, in a folder of its name."""
    out = tmp_path / "upload" / "waves.zip"
    out.parent.mkdir()
    with zipfile.ZipFile(out, "w") as archive:
        for file in sorted(recording_folder.rglob("*")):
            archive.write(file, Path("waves") / file.relative_to(recording_folder))
    return out


@pytest.fixture
def video(recording_folder: Path, tmp_path: Path) -> Path:
    """The recording's blurry frames as a video."""
    out = tmp_path / "blurry.mp4"
    write_video(out, [read_image(path) for path in list_images(recording_folder / "blur")], 25.0)
    return out


@pytest.fixture
def spikes(recording_folder: Path, tmp_path: Path) -> Path:
    """Its spikes without anything that tells their size."""
    out = tmp_path / "car.dat"
    out.write_bytes((recording_folder / "spikes.dat").read_bytes())
    return out


def make_zip(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def refused(archive: Path, tmp_path: Path, *, max_bytes: int = MOST) -> str:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError) as caught:
        unpack(archive, tmp_path / "out", max_bytes)
    assert sorted(tmp_path.rglob("*")) == before
    return str(caught.value)


def test_a_zip_of_a_recording_folder_is_that_recording(packed, recording_folder, tmp_path):
    opened = open_upload(packed, [], Stated(), tmp_path / "unpacked", MOST)
    original = open_recording(recording_folder)
    assert (opened.name, opened.exposures, opened.num_ticks) == ("waves", original.exposures, original.num_ticks)
    assert (opened.read_blur(2) == original.read_blur(2)).all()


def test_a_recording_at_the_top_of_a_zip_is_named_as_the_zip(recording_folder, tmp_path):
    archive = tmp_path / "car.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for file in sorted(recording_folder.rglob("*")):
            opened.write(file, file.relative_to(recording_folder))
    assert open_upload(archive, [], Stated(), tmp_path / "unpacked", MOST).name == "car"


def test_a_video_and_a_stated_spike_file_are_a_recording(video, spikes, recording_folder, tmp_path):
    stated = dataclasses.replace(TIMING, spike_width=40, spike_height=32)
    opened = open_upload(video, [spikes], stated, tmp_path / "unpacked", MOST)
    original = open_recording(recording_folder)
    assert opened.spikes is not None and (opened.spikes.width, opened.spikes.height) == (40, 32)
    assert [e.start_tick for e in opened.exposures] == [e.start_tick for e in original.exposures]
    assert (opened.read_exposure_spikes(1) == original.read_exposure_spikes(1)).all()


def test_a_zip_of_images_and_a_spike_file_are_a_recording(recording_folder, spikes, tmp_path):
    archive = tmp_path / "frames.zip"
    images = {path.name: path.read_bytes() for path in list_images(recording_folder / "blur")}
    make_zip(archive, {**images, "__MACOSX/._000000.png": b"x", ".DS_Store": b"x"})
    stated = dataclasses.replace(TIMING, spike_width=40, spike_height=32)
    opened = open_upload(archive, [spikes], stated, tmp_path / "unpacked", MOST)
    assert (opened.num_frames, opened.width, opened.height) == (3, 80, 64)
    assert sorted(path.name for path in opened.root.iterdir()) == ["000000.png", "000001.png", "000002.png"]


def test_top_down_turns_the_rows(video, spikes, tmp_path):
    stated = dataclasses.replace(TIMING, spike_width=40, spike_height=32)
    bottom_up = open_upload(video, [spikes], stated, tmp_path / "a", MOST)
    top_down = open_upload(video, [spikes], dataclasses.replace(stated, top_down=True), tmp_path / "b", MOST)
    assert (top_down.read_exposure_spikes(0) == bottom_up.read_exposure_spikes(0)[:, ::-1]).all()


def test_a_sidecar_beside_the_spike_file_tells_its_size(video, spikes, tmp_path):
    from spikevrt.recording.sidecar import StreamFormat
    from spikevrt.recording.spike_file import sha256_file
    from spikevrt.recording.spike_formats import write_stream_sidecar

    num_ticks = spikes.stat().st_size * 8 // (40 * 32)
    sidecar = write_stream_sidecar(
        spikes, StreamFormat("packed", 40, 32), num_ticks=num_ticks, tick_rate_hz=1000.0, sha256=sha256_file(spikes)
    )
    opened = open_upload(video, [spikes, sidecar], TIMING, tmp_path / "unpacked", MOST)
    assert opened.tick_rate_hz == 1000.0 and opened.num_ticks == num_ticks


def test_a_video_alone_is_a_recording_without_spikes(video, tmp_path):
    opened = open_upload(video, [], Stated(), tmp_path / "unpacked", MOST)
    assert opened.spikes is None and opened.num_frames == 3


@pytest.mark.parametrize("stated", [Stated(), Stated(spike_width=40), Stated(top_down=True)])
def test_of_a_spike_file_without_a_size_those_that_fit_are_listed(video, spikes, tmp_path, stated):
    with pytest.raises(
        SizesWanted, match=r"car\.dat: does not tell its size: choose one of the sizes that fit, "
    ) as caught:
        open_upload(video, [spikes], stated, tmp_path / "unpacked", MOST)
    first = caught.value.readings[0].format  # by the frame: rows are bottom-up, and a pixel is two of the frame's
    assert (first.width, first.height, first.is_bottom_up) == (40, 32, True)


def test_where_no_size_fits_that_is_told(video, spikes, tmp_path):
    spikes.write_bytes(bytes(10_007))
    with pytest.raises(SizesWanted, match="none of the sizes that are known fits; or state ") as caught:
        open_upload(video, [spikes], Stated(), tmp_path / "unpacked", MOST)
    assert caught.value.readings == ()


def test_a_table_of_times_says_when_frames_were_exposed(video, spikes, tmp_path):
    table = tmp_path / "times.csv"
    table.write_text("start_tick,exposure_tick\n4,11\n20,11\n43,11\n")
    stated = Stated(spike_width=40, spike_height=32, timestamps=table)
    opened = open_upload(video, [spikes], stated, tmp_path / "unpacked", MOST)
    assert [(one.start_tick, one.num_ticks) for one in opened.exposures] == [(4, 11), (20, 11), (43, 11)]


def test_an_exposure_that_nobody_states_is_estimated_and_told(video, spikes, tmp_path, monkeypatch):
    monkeypatch.setattr("spikevrt.align.exposure.estimate_exposure", lambda recording: ExposureEstimate(17.2, 0.6))
    stated = Stated(spike_width=40, spike_height=32, period_ticks=23, by_counting=True)
    opened = open_upload(video, [spikes], stated, tmp_path / "unpacked", MOST)
    assert {one.num_ticks for one in opened.exposures} == {17}
    assert opened.notes["exposure"].startswith("estimated from the footage: 17 +- 1 ticks")


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (Stated(spike_width=40, spike_height=31), "car.dat: "),
        (
            Stated(spike_width=40, spike_height=32, exposure_ticks=99, period_ticks=23, by_counting=True),
            "exposure_ticks: 99; allowed: ",
        ),
    ],
)
def test_what_cannot_be_is_told(video, spikes, tmp_path, stated, message):
    with pytest.raises(ValueError) as caught:
        open_upload(video, [spikes], stated, tmp_path / "unpacked", MOST)
    assert message in str(caught.value)


def test_fields_without_a_spike_file_are_refused(video, tmp_path):
    with pytest.raises(ValueError, match="period_ticks: only with a spike file"):
        open_upload(video, [], Stated(period_ticks=23), tmp_path / "unpacked", MOST)


def test_spikes_beside_a_recording_are_refused(packed, spikes, tmp_path):
    with pytest.raises(ValueError, match=r"a spike file: not with waves\.zip, a recording with spikes of its own"):
        open_upload(packed, [spikes], Stated(), tmp_path / "a", MOST)
    with pytest.raises(ValueError, match=r"first_tick: not with waves\.zip"):
        open_upload(packed, [], Stated(first_tick=0), tmp_path / "b", MOST)


def test_two_spike_files_are_refused(video, spikes, tmp_path):
    with pytest.raises(ValueError, match="spike file: 2 given; allowed: one"):
        open_upload(video, [spikes, spikes], Stated(), tmp_path / "unpacked", MOST)


def test_another_kind_of_file_is_refused(tmp_path):
    other = tmp_path / "notes.txt"
    other.write_text("x")
    with pytest.raises(ValueError, match=r"notes\.txt: no video and no zip; allowed: \.mp4"):
        open_upload(other, [], Stated(), tmp_path / "unpacked", MOST)


def test_a_zip_of_neither_is_refused(tmp_path):
    archive = make_zip(tmp_path / "notes.zip", {"a/notes.txt": b"x"})
    with pytest.raises(ValueError, match=r"notes\.zip: holds no recording\.json and no images; allowed: "):
        open_upload(archive, [], Stated(), tmp_path / "unpacked", MOST)


@pytest.mark.parametrize(
    "name", ["../outside.txt", "a/../../outside.txt", "/etc/outside", "a\\..\\outside", "C:/outside", "a\nb"]
)
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    archive = make_zip(tmp_path / "slip.zip", {"good.txt": b"x", name: b"x"})
    assert refused(archive, tmp_path) == f"slip.zip: {name!r}: leads out of the folder; allowed: names inside it"


def test_a_link_is_refused(tmp_path):
    archive = tmp_path / "link.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        entry = zipfile.ZipInfo("passwords")
        entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        opened.writestr(entry, "/etc/passwd")
    assert refused(archive, tmp_path) == "link.zip: 'passwords': a link or a special file; allowed: plain files"


def test_a_zip_that_grows_too_large_is_refused_and_gone(tmp_path):
    archive = make_zip(tmp_path / "bomb.zip", {"a": b"x", "zeros": bytes(5_000_000)})
    assert archive.stat().st_size < 10_000
    text = refused(archive, tmp_path, max_bytes=4_000_000)
    assert text == "bomb.zip: more than 4000000 bytes when unpacked; allowed: fewer"


def test_a_zip_whose_header_lies_about_a_size_is_refused(tmp_path):
    archive = make_zip(tmp_path / "lie.zip", {"zeros": bytes(3_000_000)})
    data = archive.read_bytes()
    assert data.count((3_000_000).to_bytes(4, "little")) == 2
    archive.write_bytes(data.replace((3_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    assert refused(archive, tmp_path).startswith("lie.zip: no zip, or a damaged one")


def test_a_zip_of_too_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_ZIP_FILES", 6)
    archive = make_zip(tmp_path / "many.zip", {f"{i}.txt": b"" for i in range(7)})
    assert refused(archive, tmp_path) == "many.zip: 7 files; allowed: at most 6"


def test_an_encrypted_zip_is_refused(tmp_path):
    archive = make_zip(tmp_path / "locked.zip", {"a.txt": b"x"})
    data = bytearray(archive.read_bytes())
    data[6] |= 1  # the flag in the file's own header, and in the directory at the end
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    assert refused(archive, tmp_path) == "locked.zip: 'a.txt': encrypted; allowed: a zip without password"


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04" + bytes(50)])
def test_what_is_no_zip_is_refused(tmp_path, content):
    archive = tmp_path / "no.zip"
    archive.write_bytes(content)
    assert refused(archive, tmp_path).startswith("no.zip: no zip, or a damaged one (")


def test_a_damaged_zip_is_refused(packed, tmp_path):
    data = bytearray(packed.read_bytes())
    data[len(data) // 3] ^= 0xFF
    packed.write_bytes(data)
    assert refused(packed, tmp_path).startswith("waves.zip: no zip, or a damaged one (")
