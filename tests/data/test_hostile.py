"""A prepared dataset whose files hold anything: the right value, or one line; never a crash, never more memory."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikevrt.data.dataset import open_dataset
from spikevrt.data.sample import map_array

SHAPE = (3, 5, 7)
ARRAY = np.arange(105, dtype=np.uint8).reshape(SHAPE)
_file = io.BytesIO()
np.save(_file, ARRAY)
WHOLE = _file.getvalue()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
WITH_FOLDER = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def reads_or_refuses(path: Path) -> np.ndarray | None:
    try:
        return map_array(path, SHAPE, (np.uint8,))
    except ValueError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        return None


@WITH_FOLDER
@given(st.binary(max_size=300))
def test_any_bytes_are_an_array_or_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "any.npy"
    path.write_bytes(content)
    assert reads_or_refuses(path) is None


@pytest.mark.parametrize(
    "header",
    ["{'descr': (), 'fortran_order': False, 'shape': (3,)}", "-" * 5000, "(" * 5000],
    ids=lambda text: text[:9],
)
def test_a_header_that_breaks_its_reader_is_refused_in_one_line(tmp_path: Path, header: str):
    path = tmp_path / "any.npy"
    text = header.encode() + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    with pytest.raises(ValueError, match=r"any\.npy: damaged array \(.+\)$"):
        map_array(path, SHAPE, (np.uint8,))


@WITH_FOLDER
@given(st.integers(0, 127), st.binary(min_size=1, max_size=12), st.integers(0, 40))
def test_a_header_that_was_written_over_gives_the_array_or_is_refused(tmp_path: Path, at: int, new: bytes, cut: int):
    path = tmp_path / "any.npy"
    content = WHOLE[:at] + new + WHOLE[at + len(new) :]
    path.write_bytes(content[: len(content) - cut])
    array = reads_or_refuses(path)
    if array is not None:
        assert array.shape == SHAPE and array.dtype == np.uint8
        assert path.stat().st_size >= array.nbytes


@WITH_FOLDER
@given(data=st.data())
@pytest.mark.parametrize("name", ["dataset.json", "train/a/sequence.json"])
def test_a_description_with_any_value_anywhere_opens_or_is_refused(root: Path, name: str, data: st.DataObject):
    path = root / name
    original = path.read_text()
    values = json.loads(original)
    node, key = values, data.draw(st.sampled_from(sorted(values)))
    while isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans()):
        node = node[key]
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
    node[key] = data.draw(JSON)
    path.write_text(json.dumps(values))
    try:
        open_dataset(root)
    except (ValueError, FileNotFoundError) as error:
        assert str(error).startswith(str(root)) and "\n" not in str(error)
    finally:
        path.write_text(original)


@WITH_FOLDER
@given(st.binary(max_size=60))
def test_a_description_of_any_bytes_is_refused(root: Path, content: bytes):
    path = root / "dataset.json"
    original = path.read_text()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"dataset\.json: "):
        open_dataset(root)
    path.write_text(original)
