"""Writing: every variant reads back as what was written, says what it is, and appears whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikevrt.formats import convert
from spikevrt.formats.convert import write_stream
from spikevrt.recording.sidecar import StreamFormat
from spikevrt.recording.spike_file import sha256_file
from spikevrt.recording.spike_formats import find_format, open_stream, stream_sidecar_path

ROOT = Path(__file__).resolve().parents[2]
NUM_TICKS = 37
FORMATS = {
    "a.dat": StreamFormat("packed"),
    "top.dat": StreamFormat("packed", rows="top-down"),
    "tags.dat": StreamFormat("packed", tag_bits=16),
    "a.raw": StreamFormat("bytes"),
    "flipped.raw": StreamFormat("bytes", rows="bottom-up"),
    "a.npy": StreamFormat("npy"),
    "last.npy": StreamFormat("npy", axes="HWT"),
    "flipped.npy": StreamFormat("npy", rows="bottom-up"),
    "a.npz": StreamFormat("npz"),
    "last.npz": StreamFormat("npz", axes="HWT"),
    "named.npz": StreamFormat("npz", key="mine"),
    "packed.npz": StreamFormat("packed-time"),
    "a.h5": StreamFormat("h5"),
    "sps100.dat": StreamFormat("sps100"),
}


def spikes_of(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 2, (NUM_TICKS, height, width), dtype=np.uint8)


@pytest.fixture(params=FORMATS, ids=str)
def name(request: pytest.FixtureRequest) -> str:
    if request.param.endswith(".h5"):
        pytest.importorskip("h5py")
    return str(request.param)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a stream of a few ticks goes through in several pieces."""
    monkeypatch.setattr(convert, "CHUNK_BYTES", 1)


@pytest.mark.usefixtures("small_pieces")
def test_what_is_written_reads_back_through_its_sidecar(tmp_path: Path, name: str) -> None:
    spikes = spikes_of(1000, 2) if "sps100" in name else spikes_of(13, 7)
    np.save(tmp_path / "source.npy", spikes)
    steps: list[tuple[int, int]] = []
    written = write_stream(
        tmp_path / name,
        open_stream(tmp_path / "source.npy"),
        FORMATS[name],
        ticks=(3, None),
        tick_rate_hz=20000.0,
        progress=lambda done, total: steps.append((done, total)),
    )
    np.testing.assert_array_equal(open_stream(tmp_path / name).read(0, 34), spikes[3:])
    found = find_format(tmp_path / name)
    assert found.source == f"{name}.json"
    assert (found.format, found.num_ticks, found.tick_rate_hz) == (written.format, 34, 20000.0)
    assert found.sha256 == written.sha256 == sha256_file(tmp_path / name)
    assert steps == [(8, 34), (16, 34), (24, 34), (32, 34), (34, 34)]
    assert {path.name for path in tmp_path.iterdir()} == {"source.npy", name, f"{name}.json"}


def test_an_array_file_reads_without_its_sidecar_too(tmp_path: Path) -> None:
    spikes = spikes_of(13, 7)
    np.save(tmp_path / "source.npy", spikes)
    source = open_stream(tmp_path / "source.npy")
    for name in ("a.npy", "a.npz", "last.npz", "packed.npz"):
        stream_sidecar_path(write_stream(tmp_path / name, source, FORMATS[name]).path).unlink()
        np.testing.assert_array_equal(open_stream(tmp_path / name).read(0, NUM_TICKS), spikes)
    with np.load(tmp_path / "packed.npz") as archive:
        assert archive["seq"].shape == (5, 7, 13) and archive["length"] == NUM_TICKS
    with np.load(tmp_path / "last.npz") as archive:
        np.testing.assert_array_equal(archive["arr_0"], np.moveaxis(spikes, 0, -1))


def test_equal_spikes_give_equal_bytes(tmp_path: Path) -> None:
    np.save(tmp_path / "source.npy", spikes_of(13, 7))
    source = open_stream(tmp_path / "source.npy")
    for name in ("a.npz", "packed.npz", "a.dat"):
        first = write_stream(tmp_path / name, source, FORMATS[name])
        assert write_stream(tmp_path / f"again.{name}", source, FORMATS[name]).sha256 == first.sha256


def test_a_file_is_replaced_only_when_told_and_its_sidecar_with_it(tmp_path: Path) -> None:
    np.save(tmp_path / "source.npy", spikes_of(13, 7))
    source = open_stream(tmp_path / "source.npy")
    write_stream(tmp_path / "a.dat", source, StreamFormat())
    with pytest.raises(FileExistsError, match=r"a\.dat: exists; choose another name or pass --overwrite"):
        write_stream(tmp_path / "a.dat", source, StreamFormat(), ticks=(0, 5))
    write_stream(tmp_path / "a.dat", source, StreamFormat(), ticks=(0, 5), overwrite=True)
    assert (
        open_stream(tmp_path / "a.dat").num_ticks == json.loads((tmp_path / "a.dat.json").read_text())["num_ticks"] == 5
    )
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileExistsError, match="folder: exists; choose another name$"):
        write_stream(tmp_path / "folder", source, StreamFormat(), overwrite=True)
    with pytest.raises(FileExistsError, match=r"source\.npy: is what is read, .* choose another name$"):
        write_stream(tmp_path / "source.npy", source, FORMATS["a.npy"], ticks=(0, 5), overwrite=True)
    assert open_stream(tmp_path / "source.npy").num_ticks == 37


@pytest.mark.usefixtures("small_pieces")
def test_a_source_that_breaks_off_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    width, height = (1000, 2) if "sps100" in name else (13, 7)
    spikes = spikes_of(width, height)
    spikes[30] = 2
    np.save(tmp_path / "source.npy", spikes)
    (tmp_path / name).write_bytes(b"before")
    with pytest.raises(ValueError, match=r"source\.npy: holds 2; allowed: spikes, 0 or 1"):
        write_stream(tmp_path / name, open_stream(tmp_path / "source.npy"), FORMATS[name], overwrite=True)
    assert (tmp_path / name).read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir()} == {"source.npy", name}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ticks": (5, 5)}, r"source\.npy: ticks \[5, 5\) are none; allowed: one or more"),
        ({"ticks": (0, 38)}, r"source\.npy: ticks \[0, 38\) asked for; allowed: inside \[0, 37\)"),
        ({"format": StreamFormat(width=14)}, r"14x7 is stated, but the spikes have 13x7"),
        ({"format": StreamFormat("sps100")}, "sps100: 13x7; allowed: 1000 columns"),
        ({"format": StreamFormat("h5", axes="HWT")}, "axes: 'HWT'; allowed for writing h5: 'THW'"),
    ],
    ids=str,
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    np.save(tmp_path / "source.npy", spikes_of(13, 7))
    with pytest.raises(ValueError, match=message):
        write_stream(tmp_path / "b", open_stream(tmp_path / "source.npy"), **{"format": StreamFormat(), **options})
    assert not (tmp_path / "b").exists()


def test_real_files_go_to_packed_and_back_without_loss(tmp_path: Path, shared: Path) -> None:
    source = open_stream(shared / "data/real_lowlight/uhsr_200x250x250.npz")
    write_stream(tmp_path / "a.dat", source, StreamFormat())
    assert (tmp_path / "a.dat").stat().st_size == 200 * 7813  # 62,500 bits and four that fill no pixel
    write_stream(tmp_path / "b.npz", open_stream(tmp_path / "a.dat"), StreamFormat("npz"))
    with np.load(shared / "data/real_lowlight/uhsr_200x250x250.npz") as before, np.load(tmp_path / "b.npz") as after:
        np.testing.assert_array_equal(before["spk"], after["spk"])


def test_reading_and_writing_spikes_loads_no_torch() -> None:
    script = "import sys, spikevrt.formats.convert; print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert (answer.returncode, answer.stdout) == (0, "False\n"), answer.stderr


FULL_DISK = """
import resource, sys
from pathlib import Path
from tests.formats.test_convert import FORMATS, open_stream, write_stream
folder = Path(sys.argv[1])
source = open_stream(folder / "source.npy")
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for name in sys.argv[2:]:
    try:
        write_stream(folder / name, source, FORMATS[name])
        print("written", name)
    except OSError as error:
        print(type(error).__name__, error.filename)
"""


def test_a_disk_that_gets_full_is_an_error_that_names_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    """HDF5 and a mapped file would end the process."""
    pytest.importorskip("h5py")
    spikes = np.random.default_rng(5).integers(0, 2, (100, 64, 64), dtype=np.uint8)  # 51,200 bytes packed
    np.save(tmp_path / "source.npy", spikes)
    names = [name for name in FORMATS if "sps100" not in name]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path), *names]
    answer = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert answer.returncode == 0 and answer.stderr == "", (answer.returncode, answer.stderr)
    assert answer.stdout.splitlines() == [f"OSError {tmp_path / name}" for name in names]
    assert [path.name for path in tmp_path.iterdir()] == ["source.npy"]


def test_the_spikes_of_a_recording_are_never_written_over(tmp_path: Path, root: Path) -> None:
    np.save(tmp_path / "source.npy", spikes_of(7, 5))
    before = (root / "spikes.dat").read_bytes()
    with pytest.raises(
        FileExistsError, match=r"spikes\.dat: .*recording\.json names it as its spikes; choose another name"
    ):
        write_stream(root / "spikes.dat", open_stream(tmp_path / "source.npy"), StreamFormat(), overwrite=True)
    assert (root / "spikes.dat").read_bytes() == before
    write_stream(root / "other.dat", open_stream(tmp_path / "source.npy"), StreamFormat())  # not named there


def test_a_source_whose_checksum_differs_is_refused_where_all_of_it_is_asked_for(tmp_path: Path) -> None:
    np.save(tmp_path / "source.npy", spikes_of(13, 7))
    stream, right = open_stream(tmp_path / "source.npy"), sha256_file(tmp_path / "source.npy")
    write_stream(tmp_path / "a.dat", stream, StreamFormat(), source_sha256=right)
    with pytest.raises(ValueError, match=r"source\.npy: sha256 [0-9a-f]{12}\.\.\., but 000000000000\.\.\. is written"):
        write_stream(tmp_path / "b.dat", stream, StreamFormat(), source_sha256="0" * 64)
    assert not (tmp_path / "b.dat").exists()
    write_stream(tmp_path / "c.dat", stream, StreamFormat(), ticks=(0, 36), source_sha256="0" * 64)


def test_a_sidecar_of_the_file_before_is_gone_when_the_new_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "source.npy", spikes_of(13, 7))
    source = open_stream(tmp_path / "source.npy")
    write_stream(tmp_path / "a.dat", source, StreamFormat())

    def fails(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(convert, "write_stream_sidecar", fails)
    with pytest.raises(OSError, match="no space left"):
        write_stream(tmp_path / "a.dat", source, StreamFormat(), ticks=(0, 5), overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"source.npy", "a.dat"}
