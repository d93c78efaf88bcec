"""Every variant of a spike file: bytes spelled out, and what they must read as; who tells a file's geometry."""

from __future__ import annotations

import io
import json
import pickle
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikevrt.recording.arrays import InflatedArray, MappedArray
from spikevrt.recording.recording import open_recording
from spikevrt.recording.sidecar import read_spikecv_config
from spikevrt.recording.spike_formats import (
    StreamFormat,
    find_format,
    find_stated,
    open_stream,
    stream_sidecar_path,
    write_stream_sidecar,
)
from spikevrt.recording.stream import SpikeStream


def picture(*rows: str) -> np.ndarray:
    """One upright tick; # is a spike."""
    return np.array([[int(pixel == "#") for pixel in row] for row in rows], dtype=np.uint8)


# Two ticks of 5 x 3 pixels. Fifteen pixels are two bytes with one bit left over.
FIRST = picture(
    "#...#",
    ".#...",
    "..##.",
)
SECOND = picture(
    "#####",
    "#####",
    ".####",
)
TICKS = np.stack([FIRST, SECOND])
UNPACKED = bytes.fromhex(  # one byte a pixel, top row first
    "0100000001" "0001000000" "0000010100"  # the first tick
    "0101010101" "0101010101" "0001010101"
)  # fmt: skip
TIME_LAST = bytes.fromhex(  # each pixel's two ticks
    "0101" "0001" "0001" "0001" "0101"
    "0001" "0101" "0001" "0001" "0001"
    "0000" "0001" "0101" "0101" "0001"
)  # fmt: skip
IN_TIME = bytes.fromhex(  # bit 0 is the first tick, bit 1 the second
    "03" "02" "02" "02" "03"
    "02" "03" "02" "02" "02"
    "00" "02" "03" "03" "02"
)  # fmt: skip


def npy(shape: tuple[int, ...], data: bytes, descr: str = "|u1", order: str = "False") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY" + bytes([1, 0, 118, 0]) + text.ljust(117) + b"\n" + data


def npz(path: Path, compression: int = zipfile.ZIP_STORED, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for key, data in members.items():
            archive.writestr(f"{key}.npy", data)
    return path


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def check(stream: SpikeStream, ticks: np.ndarray) -> None:
    assert (stream.num_ticks, stream.height, stream.width) == ticks.shape
    whole = stream.read(0, len(ticks))
    assert whole.dtype == np.uint8 and whole.flags.c_contiguous and whole.flags.writeable
    np.testing.assert_array_equal(whole, ticks)
    np.testing.assert_array_equal(stream.read(1, 2), ticks[1:2])
    assert stream.read(1, 1).shape == (0, *ticks.shape[1:])
    np.testing.assert_array_equal(stream.count([0, 1, len(ticks)]), [ticks[0], ticks[1:].sum(axis=0)])
    with pytest.raises(ValueError, match=rf"asked for; allowed: inside \[0, {len(ticks)}\)"):
        stream.read(0, len(ticks) + 1)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(stream)).read(0, 1), ticks[:1])


# --- the variants ---


def test_packed_bottom_row_first(tmp_path: Path) -> None:
    # bottom row ..##., middle .#..., top #...#, and a zero: 00110 010|00 10001 0, bit 0 first
    path = write(tmp_path / "a.dat", bytes([0b01001100, 0b01000100, 0b11111110, 0b01111111]))
    check(open_stream(path, StreamFormat("packed", 5, 3)), TICKS)


def test_packed_top_row_first(tmp_path: Path) -> None:
    # #...# .#.|.. ..##. and a zero
    path = write(tmp_path / "a.dat", bytes([0b01010001, 0b00110000, 0b11111111, 0b01111011]))
    check(open_stream(path, StreamFormat("packed", 5, 3, rows="top-down")), TICKS)


def test_packed_rows_with_tag_bits_behind_their_pixels(tmp_path: Path) -> None:
    ticks = np.stack([picture("#.......", ".......#"), picture("########", "#.#.#.#.")])
    data = bytes.fromhex("80 abcd 01 123455 ffff ff 0000")  # bottom row, its 16 tag bits, top row, its tag bits
    check(open_stream(write(tmp_path / "a.dat", data), StreamFormat("packed", 8, 2, tag_bits=16)), ticks)
    top_down = bytes.fromhex("01 1234 80 abcdff 0000 55 ffff")
    stated = StreamFormat("packed", 8, 2, rows="top-down", tag_bits=16)
    check(open_stream(write(tmp_path / "b.dat", top_down), stated), ticks)


def test_packed_rows_whose_tag_bits_begin_inside_a_byte(tmp_path: Path) -> None:
    # ..##. and 111, .#... and 010, #...# and 000: a byte a row
    data = bytes([0b11101100, 0b01000010, 0b00010001, 0b11111110, 0b00011111, 0b11111111])
    check(open_stream(write(tmp_path / "a.dat", data), StreamFormat("packed", 5, 3, tag_bits=3)), TICKS)


def test_a_tick_of_400_pixels_and_16_tag_bits_a_row_has_13000_bytes(tmp_path: Path) -> None:
    row = bytes([1] + 49 * [0]) + b"\xff\xff"
    path = write(tmp_path / "a.dat", 2 * 250 * row)
    stream = open_stream(path, StreamFormat("packed", 400, 250, tag_bits=16))
    assert (stream.num_ticks, stream.width) == (2, 400)
    counts = stream.count([0, 2])
    assert counts[0, :, 0].tolist() == 250 * [2] and counts[0, :, 1:].max() == 0


def test_one_byte_a_pixel_without_a_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.raw", UNPACKED)
    check(open_stream(path, StreamFormat("bytes", 5, 3)), TICKS)
    check(open_stream(path, StreamFormat("bytes", 5, 3, rows="bottom-up")), TICKS[:, ::-1])


def test_npy_with_time_first(tmp_path: Path) -> None:
    check(open_stream(write(tmp_path / "a.npy", npy((2, 3, 5), UNPACKED))), TICKS)
    check(open_stream(write(tmp_path / "b.npy", npy((2, 3, 5), UNPACKED, "|b1"))), TICKS)


def test_npy_with_time_last(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npy", npy((3, 5, 2), TIME_LAST))
    check(open_stream(path, StreamFormat("npy", axes="HWT")), TICKS)


def test_npy_whose_first_axis_runs_fastest(tmp_path: Path) -> None:
    data = bytes.fromhex(  # column after column; in each its rows from the top, each with its two ticks
        "0101" "0001" "0000"
        "0001" "0101" "0001"
        "0001" "0001" "0101"
        "0001" "0001" "0101"
        "0101" "0001" "0001"
    )  # fmt: skip
    check(open_stream(write(tmp_path / "a.npy", npy((2, 3, 5), data, order="True"))), TICKS)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_npz_in_the_two_orders_that_their_keys_tell(tmp_path: Path, compression: int) -> None:
    label = npy((), b"\x07")
    first = npz(tmp_path / "a.npz", compression, label=label, spk=npy((2, 3, 5), UNPACKED))
    check(open_stream(first), TICKS)
    last = npz(tmp_path / "b.npz", compression, arr_0=npy((3, 5, 2), TIME_LAST))
    check(open_stream(last), TICKS)
    kind = MappedArray if compression == zipfile.ZIP_STORED else InflatedArray
    assert isinstance(open_stream(first).array, kind) and isinstance(open_stream(last).array, kind)


def test_npz_packed_along_time(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", seq=npy((1, 3, 5), IN_TIME), length=npy((), b"\x02", "|u1"))
    check(open_stream(path), TICKS)
    check(open_stream(path, StreamFormat("packed-time")), TICKS)
    without_length = open_stream(npz(tmp_path / "b.npz", seq=npy((1, 3, 5), IN_TIME)))
    assert without_length.num_ticks == 8
    assert without_length.read(2, 8).max() == 0


def test_ticks_packed_along_time_are_cut_inside_bytes(tmp_path: Path) -> None:
    # one pixel, bits 0 to 10: 1010 0000 | 011
    data = npz(tmp_path / "a.npz", seq=npy((2, 1, 1), bytes([0b00000101, 0b00000110])), length=npy((), b"\x0b"))
    stream = open_stream(data)
    assert stream.read(0, 11).ravel().tolist() == [1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 1]
    assert stream.read(7, 10).ravel().tolist() == [0, 0, 1]
    assert stream.count([0, 3, 8, 11]).ravel().tolist() == [2, 0, 2]


def test_h5_reads_its_raw_spike_dataset_or_the_one_that_is_named(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw_spike", data=TICKS, chunks=(1, 3, 5), compression="gzip")
        file.create_dataset("group/flipped", data=np.moveaxis(TICKS[:, ::-1], 0, -1))
    check(open_stream(tmp_path / "a.h5"), TICKS)
    named = StreamFormat("h5", key="group/flipped", axes="HWT", rows="bottom-up")
    check(open_stream(tmp_path / "a.h5", named), TICKS)


# --- real files ---


def test_the_real_car_reads_upright_with_its_known_rate(shared: Path) -> None:
    path = shared / "data/real_car/car_400x250_200f.dat"
    stream = open_stream(path, StreamFormat("packed", 400, 250))
    spikes = stream.read(0, 200)
    assert spikes.mean() == pytest.approx(0.366, abs=5e-4)
    data = path.read_bytes()  # of the first tick's 250 rows of 50 bytes the second last is the second from the top
    assert data[248 * 50] == 0b00010101
    assert spikes[0, 1, :8].tolist() == [1, 0, 1, 0, 1, 0, 0, 0]
    np.testing.assert_array_equal(stream.count([0, 77, 200]).sum(axis=0), spikes.sum(axis=0))


def test_the_real_static_scene_reads_with_time_last(shared: Path) -> None:
    stream = open_stream(shared / "data/real_static/real_spike_250x400x500_HWT.npz")
    assert (stream.num_ticks, stream.height, stream.width) == (500, 250, 400)
    assert stream.read(0, 500).mean() == pytest.approx(0.22, abs=5e-4)


def test_the_real_low_light_scene_reads_with_time_first(shared: Path) -> None:
    stream = open_stream(shared / "data/real_lowlight/uhsr_200x250x250.npz")
    assert (stream.num_ticks, stream.height, stream.width) == (200, 250, 250)
    assert stream.read(0, 200).mean() == pytest.approx(0.0314, abs=5e-5)


def test_the_synthetic_stream_fires_at_six_tenths_of_its_picture(shared: Path) -> None:
    from spikevrt.recording.frames import read_image

    folder = shared / "data/synthetic_reds"
    stream = open_stream(folder / "reds_400x250_301f.dat", StreamFormat("packed", 400, 250))
    grey = read_image(folder / "reds_400x250_gt_id151.png")[..., 0] / 255.0
    rate = stream.count([130, 171])[0] / 41
    assert rate.mean() / grey.mean() == pytest.approx(0.6003, abs=0.01)
    assert np.corrcoef(rate.ravel(), grey.ravel())[0, 1] > 0.98
    assert np.corrcoef(rate[::-1].ravel(), grey.ravel())[0, 1] < 0.5


# --- who tells the geometry ---


def test_a_file_without_a_header_is_not_guessed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dat", bytes(4))
    message = f"{path}: a spike file without a header does not tell its geometry; state `width` and `height`, or see "
    with pytest.raises(ValueError) as caught:
        open_stream(path)
    assert str(caught.value) == f"{message}what fits with: spikevrt inspect {path}"


def test_a_sidecar_tells_what_a_file_holds(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dat", bytes.fromhex("01123480abcdff000055ffff"))
    stated = StreamFormat("packed", 8, 2, rows="top-down", tag_bits=16)
    sidecar = write_stream_sidecar(path, stated, num_ticks=2, tick_rate_hz=20000.0, sha256="0a")
    assert sidecar == stream_sidecar_path(path) == tmp_path / "a.dat.json"
    assert json.loads(sidecar.read_text()) == {
        "format": "spikevrt-spikes",
        "version": 1,
        "kind": "packed",
        "width": 8,
        "height": 2,
        "rows": "top-down",
        "bit_order": "lsb-first",
        "tag_bits": 16,
        "num_ticks": 2,
        "tick_rate_hz": 20000.0,
        "sha256": "0a",
    }
    found = find_format(path)
    assert (found.format, found.source, found.tick_rate_hz, found.sha256) == (stated, "a.dat.json", 20000.0, "0a")
    check(open_stream(path), np.stack([picture("#.......", ".......#"), picture("########", "#.#.#.#.")]))


def test_a_spikecv_config_tells_the_size_of_the_packed_files_beside_it(tmp_path: Path) -> None:
    lines = ["filename: cars", "spike_w: 5", "spike_h:  3 # rows", "is_labeled: false", "labeled_data_type: [0]"]
    text = "\r\n".join([*lines, "labeled_data_suffix: None", ""])
    (tmp_path / "config.yaml").write_text(text)
    path = write(tmp_path / "a.dat", bytes([0b01001100, 0b01000100, 0b11111110, 0b01111111]))
    assert find_format(path).source == "config.yaml"
    check(open_stream(path), TICKS)
    check(open_stream(write(tmp_path / "a.npy", npy((2, 3, 5), UNPACKED))), TICKS)


def test_the_recording_around_a_file_tells_its_geometry(root: Path) -> None:
    found = find_format(root / "spikes.dat")
    assert (found.source, found.tick_rate_hz, found.num_ticks) == ("recording.json", 1000.0, 37)
    assert open_stream(root / "spikes.dat").num_ticks == 37


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_ticks": 3}, r"a\.dat: 2 ticks, but a\.dat\.json says 3$"),
        ({"width": 7}, r"a\.dat: 4 bytes are no whole number of ticks of 7x3"),
        ({"width": 10**30}, r"a\.dat: 4 bytes are no whole number of ticks of 1000000000"),
        ({"width": True}, r"a\.dat\.json: width: True; allowed: int"),
        ({"width": None}, r"a\.dat\.json: width is missing"),
        ({"height": -3}, r"a\.dat\.json: height: -3; allowed: 1 or more"),
        ({"kind": "mp4"}, r"a\.dat\.json: kind: 'mp4'; allowed: packed, sps100, bytes, npy, npz, packed-time, h5"),
        ({"rows": "sideways"}, r"a\.dat\.json: rows: 'sideways'; allowed: bottom-up, top-down"),
        ({"bit_order": "msb-first"}, r"a\.dat\.json: bit_order: 'msb-first'; allowed: lsb-first"),
        ({"tick_rate_hz": float("nan")}, r"a\.dat\.json: tick_rate_hz: nan; allowed: a finite float"),
        ({"kind": "npy"}, r"a\.dat: not an \.npy array"),
    ],
    ids=str,
)
def test_a_sidecar_that_cannot_be_true_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "a.dat", bytes(4))
    sidecar = write_stream_sidecar(path, StreamFormat("packed", 5, 3), num_ticks=2, sha256="")
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        open_stream(path)


def test_a_stated_size_that_an_array_contradicts_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npy", npy((2, 3, 5), UNPACKED))
    with pytest.raises(ValueError, match=r"a\.npy: 5x3 spikes, but what was stated says 3x3$"):
        open_stream(path, StreamFormat("npy", width=3))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "dat"}, "kind: 'dat'; allowed: packed, sps100"),
        ({"width": 0}, "width: 0; allowed: 1 or more"),
        (
            {"kind": "sps100", "width": 999},
            "sps100: 999x1000; allowed: 1000 columns, and 2 to 2046 rows, an even number",
        ),
        ({"kind": "sps100", "rows": "bottom-up"}, "rows: bottom-up; allowed for sps100: top-down"),
        ({"kind": "npy", "tag_bits": 16}, "tag_bits: 16; allowed: 0, for packed streams 0 or more"),
        ({"kind": "npy", "key": "spk"}, "key: 'spk'; allowed: only for npz, packed-time and h5"),
        ({"kind": "npy", "axes": "WHT"}, "axes: 'WHT'; allowed: THW, HWT, only for npy, npz and h5"),
    ],
    ids=str,
)
def test_a_format_that_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StreamFormat(**values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spike_w: 5\n", "spike_h: 0 lines of it; allowed: one line with a whole number of pixels"),
        ("spike_w: 1e3\nspike_h: 3", "spike_w: '1e3'; allowed"),
        ("spike_w: 5\nspike_w: 5\nspike_h: 3", "spike_w: 2 lines of it; allowed"),
        ("spike_w: [5]\nspike_h: 3", r"spike_w: '\[5\]'; allowed"),
        ("a: &x 5\nspike_w: *x\nspike_h: 3", r"spike_w: '\*x'; allowed"),
        ("spike_w: !!python/object/apply:os.system ['true']\nspike_h: 3", 'spike_w: "!!python/object'),
        ("spike_w: 12345678\nspike_h: 3", "spike_w: '12345678'; allowed"),
        ("x" * 20000, "more than 16384 bytes; allowed: a SpikeCV config of fewer"),
    ],
    ids=["missing", "float", "twice", "list", "alias", "object", "huge", "long"],
)
def test_a_config_without_a_plain_size_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"config\.yaml: {message}") as caught:
        read_spikecv_config(tmp_path / "config.yaml")
    assert "\n" not in str(caught.value)


# --- arrays that are refused ---


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for name in ("a.dat", "a.npy", "a.npz", "a.h5"):
        with pytest.raises(FileNotFoundError, match=f"{name}: no such spike file"):
            open_stream(tmp_path / name)
        with pytest.raises(FileNotFoundError, match=f"{name}: no such spike file"):
            open_stream(tmp_path / name, StreamFormat("sps100"))


def test_values_other_than_zero_and_one_are_refused(tmp_path: Path) -> None:
    stream = open_stream(write(tmp_path / "a.npy", npy((2, 1, 1), b"\x01\x02")))
    assert stream.read(0, 1).item() == 1
    with pytest.raises(ValueError, match=r"a\.npy: holds 2; allowed: spikes, 0 or 1"):
        stream.read(1, 2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy((2, 3), bytes(6)), r"shape \(2, 3\); allowed: three axes of numbers, none empty"),
        (npy((2, 0, 3), b""), r"shape \(2, 0, 3\); allowed: three axes"),
        (npy((2, 3, 5), bytes(240), "<c8"), r"<c8 \(2, 3, 5\); allowed: three axes of numbers"),
        (npy((2, 3, 5), bytes(239), "<f8"), r"367 bytes, but an array \(2, 3, 5\) needs 368"),
        (npy((2, 3, 5), bytes(29)), r"157 bytes, but an array \(2, 3, 5\) needs 158"),
        (
            npy((2**59, 2, 2), bytes(29)),
            r"157 bytes, but an array \(576460752303423488, 2, 2\) needs 2305843009213694080",
        ),
        (npy((1, 1, 1), bytes(1), "|O"), r"\|O \(1, 1, 1\); allowed: three axes"),
        (b"PK", "not an .npy array"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "a header that describes no plain array"),
    ],
    ids=["two axes", "empty", "complex", "short floats", "short", "huge", "objects", "no npy", "cut"],
)
def test_an_npy_that_holds_no_spikes_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_stream(write(tmp_path / "a.npy", data))


def test_an_npz_without_a_known_key_lists_what_it_holds(tmp_path: Path) -> None:
    spikes = npy((2, 3, 5), UNPACKED)
    with pytest.raises(ValueError, match=r"a\.npz: holds x, y; state which one is meant with `key`$"):
        open_stream(npz(tmp_path / "a.npz", x=spikes, y=spikes))
    with pytest.raises(ValueError, match=r"b\.npz: holds spk, arr_0; state which one is meant with `key`$"):
        open_stream(npz(tmp_path / "b.npz", spk=spikes, arr_0=spikes))
    check(open_stream(tmp_path / "b.npz", StreamFormat("npz", key="spk")), TICKS)
    with pytest.raises(ValueError, match=r"b\.npz: no array 'spike' in it"):
        open_stream(tmp_path / "b.npz", StreamFormat("npz", key="spike"))


def test_an_npz_whose_key_tells_no_axes_asks_for_them(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", x=npy((2, 3, 5), UNPACKED))
    with pytest.raises(ValueError, match=r"a\.npz: x \(2, 3, 5\) does not tell its axes; state `axes`: THW, HWT"):
        open_stream(path)
    check(open_stream(path, StreamFormat("npz", axes="THW")), TICKS)


def test_a_length_that_the_planes_contradict_is_refused(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", seq=npy((2, 3, 5), bytes(30)), length=npy((), b"\x08"))
    with pytest.raises(ValueError, match=r"a\.npz: length 8; allowed: 9 to 16, for it has 2 planes"):
        open_stream(path)


def test_a_zip_bomb_is_refused_by_its_own_numbers(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, spk=npy((2, 3, 5), UNPACKED))
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02")
    data[place + 24 : place + 28] = (1 << 31).to_bytes(4, "little")  # the size that the directory declares
    with pytest.raises(ValueError, match=r"a\.npz: spk\.npy declares 2147483648 bytes, which \d+ bytes on disk cannot"):
        open_stream(write(tmp_path / "a.npz", bytes(data)))


def test_a_compressed_array_of_more_than_four_gigabytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"spk\.npy declares 4294967297 bytes; allowed: 4294967296 in a compressed"):
        InflatedArray(tmp_path / "a.npz", (1, 1, 2**32 + 1), "spk.npy", 128)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    data = io.BytesIO()
    np.save(data, np.array([[[print]]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"a\.npz: spk: \|O \(1, 1, 1\); allowed: three axes of numbers"):
        open_stream(npz(tmp_path / "a.npz", spk=data.getvalue()))


def test_an_h5_that_points_elsewhere_or_declares_too_much_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["link"] = h5py.ExternalLink("other.h5", "raw_spike")
        file["soft"] = h5py.SoftLink("/empty")
        file.create_dataset("external", (2, 3, 5), np.uint8, external=[("elsewhere.bin", 0, 30)])
        layout = h5py.VirtualLayout((2**40, 3, 5), np.uint8)
        layout[:2] = h5py.VirtualSource("other.h5", "raw_spike", (2, 3, 5))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("empty", (2**40, 250, 400), np.uint8, chunks=(1, 250, 400))
        file.create_dataset("complex", data=TICKS.astype(np.complex64))
    for key, message in {
        "link": "no dataset 'link' in this file",
        "soft": "no dataset 'soft' in this file",
        "nothing/here": "no dataset 'nothing/here' in this file",
        "external": "'external' is no dataset of this file's own",
        "virtual": "'virtual' is no dataset of this file's own",
        "empty": "empty declares 109951162777600000 bytes, which 0 bytes on disk cannot hold",
        "complex": r"complex: complex64 \(2, 3, 5\); allowed: three axes of numbers",
    }.items():
        with pytest.raises(ValueError, match=message):
            open_stream(tmp_path / "a.h5", StreamFormat("h5", key=key))
    with pytest.raises(ValueError, match=r"b\.h5: .*file signature not found"):
        open_stream(write(tmp_path / "b.h5", b"no HDF5"))


@pytest.mark.parametrize("dtype", ["i1", "i2", ">u2", "i4", "u8", "f2", "f4", ">f8", "?"])
def test_zeros_and_ones_of_any_type_are_spikes_and_other_values_are_told(tmp_path: Path, dtype: str) -> None:
    h5py = pytest.importorskip("h5py")
    for place, wrong in ((tmp_path / "a", None), (tmp_path / "b", np.array(-1).astype(dtype))):
        values = TICKS.astype(dtype)
        values[1, 2, 3] = values[1, 2, 3] if wrong is None else wrong
        np.save(place.with_suffix(".npy"), values)
        np.savez(place.with_suffix(".npz"), spk=values)
        np.savez_compressed(place.with_suffix(".more.npz"), spk=values)
        with h5py.File(place.with_suffix(".h5"), "w") as file:
            file.create_dataset("raw_spike", data=values, chunks=(1, 3, 5), compression="gzip")
        for path in tmp_path.glob(f"{place.name}.*"):
            stream = open_stream(path)
            assert np.array_equal(stream.read(0, 1), TICKS[:1])
            if wrong is None or dtype == "?":
                assert np.array_equal(stream.read(0, 2), TICKS)
            else:
                with pytest.raises(ValueError, match=rf"{path.name}: holds {wrong}; allowed: spikes, 0 or 1"):
                    stream.read(1, 2)


def test_an_h5_enumeration_of_two_values_is_spikes_and_one_without_spikes_says_what_it_needs(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("s", data=TICKS.astype("i2"), dtype=h5py.enum_dtype({"off": 0, "on": 1}, basetype="i2"))
    assert np.array_equal(open_stream(tmp_path / "a.h5").read(0, 2), TICKS)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["flat"], file["words"] = TICKS[0], np.full((2, 3, 5), b"x")
    with pytest.raises(ValueError, match=r"b\.h5: holds no array of three axes of numbers; allowed: spikes of rows"):
        open_stream(tmp_path / "b.h5")


def test_h5_without_its_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.h5", b"anything")
    monkeypatch.setitem(sys.modules, "h5py", None)
    for stated in (None, StreamFormat("h5", key="raw_spike")):
        with pytest.raises(ValueError) as caught:
            open_stream(path, stated)
        assert str(caught.value) == f"{path}: needs h5py; pip install 'spikevrt[formats]'"


def test_a_compressed_member_whose_checksum_differs_is_refused(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, spk=npy((2, 90, 50), bytes(9000)))  # more than its header
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 16] ^= 1  # the checksum in the archive's list of members
    stream = open_stream(write(path, bytes(data)))
    with pytest.raises(ValueError, match=r"a\.npz: Bad CRC-32"):
        stream.read(0, 1)


def test_a_compressed_member_is_unpacked_on_disk_and_not_in_memory(tmp_path: Path) -> None:
    ticks = np.zeros((64, 1000, 1000), dtype=np.uint8)  # 64 MB
    ticks[40, 3, 5] = 1
    np.savez_compressed(tmp_path / "a.npz", spk=ticks)
    del ticks
    tracemalloc.start()
    try:
        assert np.argwhere(open_stream(tmp_path / "a.npz").read(40, 41)).tolist() == [[0, 3, 5]]
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


# --- who tells it, and who contradicts ---


def contradicted(path: Path, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        open_stream(path)
    assert str(caught.value) == f"{path}: {message}; allowed: the same, or delete the one that is wrong"


def test_a_sidecar_and_the_recording_around_it_must_say_the_same(root: Path) -> None:
    path, geometry = root / "spikes.dat", StreamFormat("packed", 7, 5)
    write_stream_sidecar(path, geometry, num_ticks=37, sha256=str(find_format(path).sha256))
    assert find_format(path).source == "spikes.dat.json"  # without a rate: nobody contradicts
    assert open_recording(root).num_ticks == 37
    write_stream_sidecar(path, StreamFormat("packed", 5, 7), num_ticks=37, sha256="")
    contradicted(path, "width: spikes.dat.json says 5, recording.json says 7")
    with pytest.raises(ValueError, match=r"spikes\.dat\.json says 5, recording\.json says 7"):
        open_recording(root)
    write_stream_sidecar(path, StreamFormat("packed", 7, 5, rows="top-down"), num_ticks=37, sha256="")
    contradicted(path, "rows: spikes.dat.json says top-down, recording.json says bottom-up")
    write_stream_sidecar(path, geometry, num_ticks=37, tick_rate_hz=2000.0, sha256="")
    contradicted(path, "tick_rate_hz: spikes.dat.json says 2000.0, recording.json says 1000.0")


def test_a_sidecar_and_a_spikecv_config_must_say_the_same_size(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dat", bytes(4))
    write_stream_sidecar(path, StreamFormat("packed", 5, 3, rows="top-down"), num_ticks=2, sha256="")
    (tmp_path / "config.yaml").write_text("optimizer: adam")  # of another program
    assert find_format(path).format.width == 5
    (tmp_path / "config.yaml").write_text("spike_w: 5\nspike_h: 3\n")
    assert find_format(path).format.rows == "top-down"
    (tmp_path / "config.yaml").write_text("spike_w: 3\nspike_h: 5\n")
    contradicted(path, "width: a.dat.json says 5, config.yaml says 3")


def test_what_is_stated_fills_what_nobody_else_tells_and_contradicts_nobody(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dat", bytes(4))
    assert find_stated(path, {"width": 5, "height": 3}).format == StreamFormat("packed", 5, 3)
    (tmp_path / "config.yaml").write_text("spike_w: 5\nspike_h: 3\n")
    assert find_stated(path, {"rows": "top-down"}).format == StreamFormat("packed", 5, 3, rows="top-down")
    write_stream_sidecar(path, StreamFormat("packed", 5, 3, "top-down"), num_ticks=2, tick_rate_hz=9.0, sha256="0a")
    found = find_stated(path, {"width": 5, "height": 3})
    assert (found.format.rows, found.tick_rate_hz, found.sha256) == ("top-down", 9.0, "0a")
    with pytest.raises(ValueError, match=r"a\.dat: `width`: an option says 15, a\.dat\.json says 5; .* or delete"):
        find_stated(path, {"width": 15, "height": 1})
    with pytest.raises(FileNotFoundError, match=r"none\.dat: no such spike file"):
        find_stated(tmp_path / "none.dat", {"width": 5})
