"""Any bytes, any size, any sidecar: the right spikes or one line, never another exception and never more memory.

Examples are derived from the test's name, not from chance, so that a green run stays green.
"""

from __future__ import annotations

import json
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikevrt.formats.convert import write_stream
from spikevrt.recording.recording import open_recording
from spikevrt.recording.sidecar import HEADERLESS, KINDS, StreamFormat, read_spikecv_config
from spikevrt.recording.spike_formats import open_stream, write_stream_sidecar
from spikevrt.recording.stream import SpikeStream

# folders are made once a test and written over by every example
ANY = settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FREE_BYTES = 2_000_000  # what opening and refusing may take whatever the file's size: Python's own
SIZES = st.one_of(
    st.integers(-3, 20), st.sampled_from([10**30, -(10**30), 2**31, 2**63, 2**64, 1000, 400, 250, 10**400])
)
NUMBERS = st.one_of(SIZES, st.booleans(), st.none(), st.floats(), st.text(max_size=5))
JSON = st.recursive(
    NUMBERS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


def right_or_one_line(read: Callable[[], object]) -> bool:
    """Whether it could be read; anything but the two errors of a user, or a second line, is a failure."""
    try:
        read()
    except (ValueError, FileNotFoundError) as error:
        assert not isinstance(error, UnicodeError | json.JSONDecodeError), repr(error)
        assert len(str(error).splitlines()) == 1, repr(error)
        return False
    return True


def read_all(path: Path, format: StreamFormat | None = None) -> SpikeStream:
    """Open and read a window from either end; what comes must be spikes of the size that the stream declares."""
    stream = open_stream(path, format)
    for start, stop in ((0, min(3, stream.num_ticks)), (max(0, stream.num_ticks - 3), stream.num_ticks)):
        spikes = stream.read(start, stop)
        assert spikes.shape == (stop - start, stream.height, stream.width) and spikes.dtype == np.uint8
        assert spikes.size == 0 or spikes.max() <= 1
        stream.count([start, stop])
    return stream


@st.composite
def damage(draw: st.DrawFn, data: bytes) -> bytes:
    """Some bytes replaced, some cut out, some put in."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(changed) - 1, 0)))
        kind = draw(st.sampled_from(["replace", "replace", "cut", "insert", "end"]))
        if kind == "replace" and changed:
            changed[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del changed[place : place + draw(st.integers(1, 40))]
        elif kind == "insert":
            changed[place:place] = draw(st.binary(min_size=1, max_size=9))
        elif kind == "end":
            del changed[place:]
    return bytes(changed)


def intact(folder: Path, kind: str) -> bytes:
    spikes = np.random.default_rng(1).integers(0, 2, (9, 4, 1000 if kind == "sps100" else 11), dtype=np.uint8)
    np.save(folder / "source.npy", spikes)
    write_stream(folder / "intact", open_stream(folder / "source.npy"), StreamFormat(kind), overwrite=True)
    (folder / "intact.json").unlink()
    return (folder / "intact").read_bytes()


@ANY
@given(data=st.binary(max_size=3000), kind=st.sampled_from(KINDS), width=SIZES, height=SIZES, tag_bits=SIZES)
def test_any_bytes_of_any_size(tmp_path: Path, data: bytes, kind: str, width: int, height: int, tag_bits: int) -> None:
    path = tmp_path / "a.dat"
    path.write_bytes(data)
    right_or_one_line(lambda: read_all(path, StreamFormat(kind, width, height, tag_bits=tag_bits)))
    right_or_one_line(lambda: read_all(path, StreamFormat(kind, width, height)))
    right_or_one_line(lambda: read_all(path, StreamFormat(kind)))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("packed", "bytes")])
@ANY
@given(choice=st.data())
def test_any_damage_of_a_file_with_structure(tmp_path: Path, kind: str, choice: st.DataObject) -> None:
    if kind == "h5":
        pytest.importorskip("h5py")
    data = intact(tmp_path, kind) if not (tmp_path / "intact").exists() else (tmp_path / "intact").read_bytes()
    (tmp_path / "damaged").write_bytes(choice.draw(damage(data)))
    size = (1000, 4) if kind in HEADERLESS else (None, None)
    right_or_one_line(lambda: read_all(tmp_path / "damaged", StreamFormat(kind, *size)))


@ANY
@given(
    shape=st.lists(SIZES, max_size=4), descr=st.sampled_from(["|u1", "|b1", "<f8", "|O", "|V9", "x"]), tail=st.binary()
)
def test_any_npy_header(tmp_path: Path, shape: list[int], descr: str, tail: bytes) -> None:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {tuple(shape)}, }}\n".encode()
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + tail)
    right_or_one_line(lambda: read_all(tmp_path / "a.npy"))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "a.npy", "spk.npy")
        archive.write(tmp_path / "a.npy", "length.npy")
        archive.write(tmp_path / "a.npy", "seq.npy")
    for key in ("spk", "seq", None):
        right_or_one_line(lambda key=key: read_all(tmp_path / "a.npz", StreamFormat("npz", key=key)))


@ANY
@given(
    changes=st.dictionaries(
        st.sampled_from(
            ["kind", "width", "height", "rows", "bit_order", "tag_bits", "num_ticks", "key", "axes", "format"]
        ),
        st.sampled_from([*KINDS, "bottom-up", "top-down", "THW", "spikevrt-spikes"]) | NUMBERS | JSON,
        max_size=4,
    ),
    text=st.binary(max_size=40),
)
def test_any_sidecar_of_a_spike_file(tmp_path: Path, changes: dict[str, Any], text: bytes) -> None:
    path = tmp_path / "a.dat"
    path.write_bytes(bytes(64))
    sidecar = write_stream_sidecar(path, StreamFormat("packed", 8, 4), num_ticks=16, sha256="")
    values = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**values, **changes}))
    right_or_one_line(lambda: read_all(path))
    sidecar.write_bytes(text)
    assert not right_or_one_line(lambda: read_all(path))


@ANY
@given(data=st.data())
def test_any_damage_of_a_sidecar(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a.dat"
    path.write_bytes(bytes(64))
    sidecar = write_stream_sidecar(path, StreamFormat("packed", 8, 4), num_ticks=16, sha256="")
    sidecar.write_bytes(data.draw(damage(sidecar.read_bytes())))
    right_or_one_line(lambda: read_all(path))


def places(values: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a value stands in decoded JSON: every path of keys and indices."""
    entries = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return [above] * bool(above) + [place for key, value in entries for place in places(value, (*above, key))]


@ANY
@given(data=st.data())
def test_any_recording_json(root: Path, data: st.DataObject) -> None:
    kept = root.with_name("kept.json")
    if not kept.exists():
        values = json.loads((root / "recording.json").read_text())
        values["spikes"]["bad_pixels"] = [[1, 2], [4, 6]]
        matrix = [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 1.0]]
        values["alignment"] = {"offset_ticks": 1.5, "homography": matrix, "flow": None, "quality": {"score": 1}}
        kept.write_text(json.dumps(values))
    values = json.loads(kept.read_text())
    all_places = places(values)
    for _ in range(data.draw(st.integers(1, 2))):
        *above, last = data.draw(st.sampled_from(all_places))
        node = values
        for key in above:
            node = node[key] if isinstance(node, dict | list) and len(node) else None
        if isinstance(node, dict) and last in node or isinstance(node, list) and last < len(node):
            node[last] = data.draw(
                NUMBERS | JSON | st.sampled_from(["../a", "/etc/passwd", "blur", "\0", "a\nb", "\ud800"])
            )
    (root / "recording.json").write_text(json.dumps(values))

    def read() -> None:
        recording = open_recording(root)
        for index in range(recording.num_frames):
            recording.read_exposure_spikes(index)
            recording.count_exposure(index, [0, recording.exposures[index].num_ticks])
        recording.bad_mask()
        assert recording.sensor_positions is None or recording.sensor_positions.ndim == 3

    right_or_one_line(read)


@ANY
@given(data=st.data())
def test_any_damage_of_a_recording_json(root: Path, data: st.DataObject) -> None:
    kept = root.with_name("kept.json")
    if not kept.exists():
        shutil.copy(root / "recording.json", kept)
    (root / "recording.json").write_bytes(data.draw(damage(kept.read_bytes())))
    right_or_one_line(lambda: open_recording(root))


@pytest.mark.parametrize("name", ["../spikes.dat", "/etc/passwd", "..", "", "a/b", "a\\b", "a\0b", "a\nb", 5])
def test_a_recording_names_no_file_outside_itself(root: Path, name: object) -> None:
    values = json.loads((root / "recording.json").read_text())
    values["spikes"]["file"] = name
    (root / "recording.json").write_text(json.dumps(values))
    with pytest.raises(
        ValueError, match=r"recording\.json: spikes\.file: .*; allowed: (the name of a file beside it|str)"
    ):
        open_recording(root)
    values["spikes"]["file"] = "spikes.dat"
    values["alignment"] = {"offset_ticks": 0.0, "homography": None, "flow": name}
    (root / "recording.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"alignment\.flow: .*; allowed: (the name of a file beside it|str)"):
        open_recording(root)


@ANY
@given(shape=st.lists(SIZES, max_size=4), descr=st.sampled_from(["<f4", "<f8", "|O"]), tail=st.binary(max_size=99))
def test_any_displacement_field(root: Path, shape: list[int], descr: str, tail: bytes) -> None:
    values = json.loads((root / "recording.json").read_text())
    values["alignment"] = {"offset_ticks": 0.0, "homography": None, "flow": "flow.npy"}
    (root / "recording.json").write_text(json.dumps(values))
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {tuple(shape)}, }}\n".encode()
    (root / "flow.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + tail)
    right_or_one_line(lambda: open_recording(root).sensor_positions)


@ANY
@given(
    text=st.one_of(
        st.text(max_size=60),
        st.binary(max_size=60).map(lambda data: data.decode("latin-1")),
        st.lists(
            st.sampled_from(
                ["spike_w", "spike_h", ":", " ", "\n", "- ", "[", "]", "{", "}", "&a", "*a", "<<", "!!int", "5", "'"]
            ),
            max_size=30,
        ).map("".join),
    )
)
def test_any_spikecv_config(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    (tmp_path / "a.dat").write_bytes(bytes(64))
    right_or_one_line(lambda: read_all(tmp_path / "a.dat"))


def doubling(first: str, form: str) -> str:
    """Nine levels, each made of nine references to the one before."""
    levels = [f"{name}: &{name} {form.format(', '.join(9 * [f'*{below}']))}" for below, name in pairwise("abcdefghij")]
    return "\n".join([f"a: &a {first}", *levels])


@pytest.mark.parametrize(
    "text",
    [
        doubling("[x]", "[{}]"),
        doubling("{x: 1}", "{{<<: [{}]}}"),
        "[" * 16000,
        "spike_w: " + "9" * 16000,
        '"\\UFFFFFFFF"',
        "%YAML 1.99999999999999999999\n---\nspike_w: 5",
    ],
    ids=["aliases", "merges", "nesting", "digits", "escape", "directive"],
)  # fmt: skip
def test_a_yaml_bomb_is_one_line_and_no_memory(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    tracemalloc.start()
    try:
        assert not right_or_one_line(lambda: read_spikecv_config(tmp_path / "config.yaml"))
        assert tracemalloc.get_traced_memory()[1] < FREE_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 200_000, "9" * 100_000, '"\\ud800"', "NaN", "\xff", "[1e999]"]
)
def test_json_that_nests_or_overflows_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.dat").write_bytes(bytes(64))
    (tmp_path / "a.dat.json").write_bytes(text.encode("latin-1"))
    assert not right_or_one_line(lambda: open_stream(tmp_path / "a.dat"))


def test_a_declared_size_takes_no_memory_before_the_file_is_seen_to_hold_it(tmp_path: Path) -> None:
    """A megabyte of zeros shrinks to a thousand bytes; the header declares a thousand times as much again."""
    text = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000, 1000, 1000), }".ljust(117) + b"\n"
    head = b"\x93NUMPY" + bytes([1, 0, 118, 0]) + text
    (tmp_path / "a.npy").write_bytes(head + bytes(1_000_000))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "a.npy", "spk.npy")
    tracemalloc.start()
    try:
        for name in ("a.npy", "a.npz"):
            assert not right_or_one_line(lambda name=name: read_all(tmp_path / name))
        assert tracemalloc.get_traced_memory()[1] < FREE_BYTES
    finally:
        tracemalloc.stop()
