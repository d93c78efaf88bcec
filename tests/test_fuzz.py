"""Two hundred damaged files of every format, as `benchmarks/fuzz.py` makes ten thousand; and what it has found."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import random
import re
import signal
import struct
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("OpenEXR")
pytest.importorskip("h5py")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from fuzz import Case, fuzz, mutate
from fuzz_readers import READERS, make

from spikevrt.app.uploads import unpack
from spikevrt.checkpoint import load_state, save_state
from spikevrt.recording.frames import image_size, read_image, read_pixels, write_pixels
from spikevrt.recording.spike_formats import open_stream
from spikevrt.recording.time_tables import trigger_times


@pytest.mark.parametrize("name", list(READERS))
def test_damaged_files_are_read_or_refused_in_a_line(name: str) -> None:
    tally = fuzz(make(name), 200, seed=2)
    assert tally.faults == {} and tally.num == tally.read + tally.refused == 200
    assert tally.refused > 20


def test_the_same_seed_damages_alike_and_nearly_always_changes_something() -> None:
    data = random.Random(1).randbytes(997)
    for index in range(100):
        assert mutate(data, random.Random(index), [data]) == mutate(data, random.Random(index), [data])
    assert sum(mutate(data, random.Random(index), [data]) != data for index in range(100)) > 90


WHOLE = b"ggggggg"


def fault(folder: Path) -> object:
    """A reader with every fault, by the sum of the bytes."""
    data = (folder / "a").read_bytes()
    if data == WHOLE:
        return data
    kind = sum(data) % 8
    if kind == 0:
        raise KeyError("a")
    if kind == 1:
        raise ValueError("damaged")
    if kind == 2:
        raise ValueError("a: damaged\nvery")
    if kind == 3:
        return bytearray(b"x" * (120 << 20))[:1]
    if kind == 4:
        torch.zeros(1 << 34)
    if kind == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == 6:
        raise ValueError("a: damaged")
    return data


def test_every_kind_of_fault_is_told() -> None:
    told = fuzz([Case("a", {"a": WHOLE}, "a", fault, guarded=True)], 60, seed=1)
    kinds = {re.split(r"[ :(]", what)[0] for what in told.faults}
    assert kinds >= {"KeyError", "ValueError", "memory", "died", "read,"} and told.refused > 0
    assert any("RuntimeError" in what or "MemoryError" in what for what in told.faults)


def sleep(folder: Path) -> None:
    time.sleep(60 if (folder / "a").read_bytes() != b"whole" else 0)


def test_a_hang_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzz.HANG_S", 0.3)
    told = fuzz([Case("a", {"a": b"whole"}, "a", sleep)], 3, seed=1)
    assert list(told.faults) == ["hang of more than 0.3 s"]


@pytest.mark.parametrize("depth", ["uint8", "uint16"])
def test_a_png_with_one_wrong_byte_is_refused_wherever_it_lies(tmp_path: Path, depth: str) -> None:
    """Pillow and FFmpeg compare no checksum of the pictures' data; a flipped bit there made other colours."""
    path, picture = tmp_path / "a.png", np.arange(7 * 5 * 3, dtype=depth).reshape(7, 5, 3)
    write_pixels(path, picture)
    whole = path.read_bytes()
    for data in (whole, whole + b"behind the end"):
        path.write_bytes(data)
        assert np.array_equal(read_pixels(path), picture) and read_image(path).shape == (7, 5, 3)
    assert image_size(path) == (7, 5)
    for place in range(8, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        for read in (read_image, read_pixels):
            with pytest.raises(ValueError, match=r"a\.png"):
                read(path)
    path.write_bytes(whole[:-12])
    with pytest.raises(ValueError, match=r"a\.png: damaged image \(cut short, or a checksum that does not hold\)"):
        read_image(path)


def claiming(name: str, side: int) -> bytes:
    """A small file whose header claims a square picture of that side."""
    data = bytearray(next(case for case in make(name.partition(".")[2]) if case.name == name).files[name])
    if name.endswith(".png"):
        data[16:24] = struct.pack(">II", side, side)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif name.endswith(".jpg"):
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", side, side)
    else:
        order = "<" if data[:2] == b"II" else ">"
        (at,) = struct.unpack(f"{order}I", data[4:8])
        for entry in range(at + 2, at + 2 + 12 * struct.unpack(f"{order}H", data[at : at + 2])[0], 12):
            (tag,) = struct.unpack(f"{order}H", data[entry : entry + 2])
            if tag in (256, 257, 278):
                data[entry : entry + 12] = struct.pack(f"{order}HHII", tag, 4, 1, side)
    return bytes(data)


@pytest.mark.parametrize("name", ["uint8.png", "uint16.png", "uint8.jpg", "uint8.tiff", "uint16.tiff", "float32.tiff"])
def test_a_small_file_that_claims_a_picture_it_cannot_hold_is_refused_before_it_is_decoded(
    tmp_path: Path, name: str
) -> None:
    """A JPEG of 978 bytes became 12000x12000 pixels of grey, in 15 s and 2.5 GB."""
    (tmp_path / name).write_bytes(claiming(name, 12000))
    with pytest.raises(ValueError, match=rf"{name}: claims 12000x12000 pixels; allowed: at most "):
        read_pixels(tmp_path / name)
    (tmp_path / name).write_bytes(claiming(name, 26))
    with contextlib.suppress(ValueError):  # that many it may claim
        read_pixels(tmp_path / name)


def test_an_exr_whose_window_is_larger_than_any_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.exr"
    write_pixels(path, np.ones((5, 7, 3), dtype=np.float32))
    whole = path.read_bytes()
    at = whole.index(b"displayWindow\0box2i\0") + 14 + 6 + 4 + 8
    for right in (1 << 25, 1 << 28):
        path.write_bytes(whole[:at] + right.to_bytes(4, "little") + whole[at + 4 :])
        for read in (read_pixels, image_size):
            with pytest.raises(ValueError, match=rf"a\.exr: claims {right + 1}x5 pixels; allowed: at most 16777216"):
                read(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_spike_that_flips_inside_an_npz_is_found_by_the_archives_checksum(tmp_path: Path, save) -> None:
    spikes = np.random.default_rng(1).integers(0, 2, (11, 7, 13), dtype=np.uint8)
    save(tmp_path / "a.npz", spk=spikes)
    whole = (tmp_path / "a.npz").read_bytes()
    assert np.array_equal(open_stream(tmp_path / "a.npz").read(3, 5), spikes[3:5])
    at = whole.index(spikes.tobytes()[:50]) if save is np.savez else len(whole) // 2
    (tmp_path / "a.npz").write_bytes(whole[: at + 20] + bytes([whole[at + 20] ^ 1]) + whole[at + 21 :])
    with pytest.raises(ValueError, match=r"a\.npz: "):
        open_stream(tmp_path / "a.npz").read(9, 11)


def test_a_number_of_ticks_under_a_damaged_name_does_not_become_all_that_the_planes_hold(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", seq=np.ones((2, 3, 5), np.uint8), length=np.array(13))
    assert open_stream(tmp_path / "a.npz").num_ticks == 13
    whole = (tmp_path / "a.npz").read_bytes()
    at = whole.rindex(b"length.npy")  # in the list at the end; it stands before the values too
    (tmp_path / "a.npz").write_bytes(whole[:at] + b"l" + b"i" + whole[at + 2 :])
    with pytest.raises(ValueError, match=r"a\.npz: File name in directory .* differ"):
        open_stream(tmp_path / "a.npz")


def test_an_npy_whose_header_tells_of_fewer_values_than_it_has_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.zeros((10, 7, 13), dtype=np.uint8))
    (tmp_path / "a.npy").write_bytes(file.getvalue().replace(b"(10,", b"(1, "))
    with pytest.raises(ValueError, match=r"a\.npy: 1038 bytes, but an array \(1, 7, 13\) has 219"):
        open_stream(tmp_path / "a.npy")


@pytest.mark.parametrize("header", ["{'descr': '<i8', 'shape': (", "{'descr': '<i8', 'shape': (9" + "9" * 30 + ",)}"])
def test_triggers_with_a_broken_header_are_refused_in_a_line(tmp_path: Path, header: str) -> None:
    text = header.encode()
    (tmp_path / "t.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    with pytest.raises(ValueError, match=r"t\.npy: damaged array \(.+\)$"):
        trigger_times(tmp_path / "t.npy", (0, 1), 100)


def test_a_zip_with_an_offset_before_its_begin_or_a_file_without_a_name_is_refused_in_a_line(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", b"content")
    whole = bytearray((tmp_path / "a.zip").read_bytes())
    entry = whole.index(b"PK\x01\x02")
    far, nameless = bytearray(whole), bytearray(whole)
    far[-6:-2] = (entry + 9).to_bytes(4, "little")  # the directory lies farther: all offsets become negative
    nameless[entry + 28 : entry + 30], nameless[entry + 46 : entry + 47] = b"\0\0", b""
    for data in (far, nameless):
        (tmp_path / "a.zip").write_bytes(data)
        with pytest.raises(ValueError, match=r"^a\.zip: no zip, or a damaged one \(.+\)$"):
            unpack(tmp_path / "a.zip", tmp_path / "out", 1000)
        assert not (tmp_path / "out").exists()


def test_a_system_error_of_a_damaged_state_names_the_file_and_one_of_the_disk_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.state"
    save_state(path, {"step": 3})
    for error, kind in (
        (OSError(errno.EINVAL, "Invalid argument"), ValueError),
        (PermissionError(13, "no", "x"), OSError),
    ):

        def load(*_: object, error: OSError = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(torch, "load", load)  # as it does for an archive whose offsets lie before its begin
        with pytest.raises(kind, match=r"last\.state: not a complete training state|no: 'x'"):
            load_state(path)
