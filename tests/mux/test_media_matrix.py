"""A slice of benchmarks/media_matrix.py: videos of every kind come out as they went in, or are refused or told."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NUM_CASES = 24


@pytest.fixture
def matrix(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("media_matrix")


@pytest.fixture
def plain(matrix: Any) -> Any:
    """A file as phones make them."""
    return matrix.Case(
        "mp4", "h264", 8, "limited", "bt709", "420", False, "sdr", "96x64", "25", 0, "1", "progressive", "aac", "0",
        "from 0", "default",
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"container": "webm", "codec": "av1", "sound": "opus"},  # of what the file leaves unsaid: where chroma lies
        {"container": "mkv", "codec": "vp9", "chroma": "422"},
        {"container": "mov", "codec": "prores", "bits": 10, "chroma": "422"},
        {"codec": "hevc", "bits": 10, "chroma": "422"},
        {"container": "mkv", "codec": "ffv1", "bits": 10, "range": "full", "chroma": "444"},
        {"codec": "hevc", "bits": 12, "range": "full", "chroma": "420"},
        {"codec": "hevc", "bits": 10, "matrix": "bt2020nc", "transfer": "PQ", "rotation": 90, "aspect": "4/3"},
        {"container": "mkv", "codec": "ffv1", "alpha": True},
        {"container": "mkv", "codec": "ffv1", "scan": "interlaced"},
        {"container": "ts", "codec": "mpeg2", "clock": "wraps", "offset": "1/4"},
        {"container": "avi", "sound": "wma", "rate": "60000/1001"},
        {"codec": "hevc", "bits": 10, "written": "av1"},
    ],
    ids=lambda changes: ", ".join(map(str, changes.values())),
)
def test_what_once_failed_comes_out_as_it_went_in(matrix: Any, plain: Any, changes: dict[str, Any]) -> None:
    assert matrix.run([dataclasses.replace(plain, **changes)]) == [[]]


@pytest.mark.slow
def test_a_slice_of_all_pairs_comes_out_as_it_went_in(matrix: Any) -> None:
    cases, _ = matrix.covering()
    chosen = cases[:: len(cases) // NUM_CASES][:NUM_CASES]
    assert [one for one in zip(chosen, matrix.run(chosen), strict=True) if one[1]] == []


def test_every_pair_of_values_that_can_be_had_is_in_a_file_that_can_be_made(matrix: Any) -> None:
    files = importlib.import_module("media_files")
    cases, impossible = matrix.covering(1)
    assert all(files.why_not(case) is None for case in cases) and len(cases) < 150
    covered = {pair for case in cases for pair in files.pairs_of(dataclasses.asdict(case))}
    every = set().union(*(group.pairs() for group in files.groups()))
    assert covered == every and impossible.total() > 50
    values = [(name, value) for name, of in files.DIMENSIONS.items() for value in of]
    num_pairs = sum(one[0] < other[0] for one in values for other in values)
    assert len(every) + impossible.total() == num_pairs


MOVED = {  # what is done to a result, and the check that must see it
    "frames": lambda seen: seen.frames.reverse(),
    "times": lambda seen: seen.times.__setitem__(3, seen.times[3] + 1),
    "sound": lambda seen: setattr(seen, "beep", seen.beep + 1),
    "geometry": lambda seen: setattr(seen, "frames", [frame[::-1, ::-1] for frame in seen.frames]),
    "colour": lambda seen: setattr(seen, "frames", [frame * 0.98 for frame in seen.frames]),
    "chroma": lambda seen: setattr(seen, "frames", [_half_a_pixel_later(frame) for frame in seen.frames]),
    "tags": lambda seen: setattr(seen, "transfer", 16),
    "aspect": lambda seen: setattr(seen, "aspect", seen.aspect * 2),
    "depth": lambda seen: setattr(seen, "bits", 7),
}


def _half_a_pixel_later(frame: np.ndarray) -> np.ndarray:
    return (frame + np.roll(frame, 1, axis=1)) / 2


@pytest.mark.parametrize("check", MOVED)
def test_the_matrix_sees_each_kind_of_fault(matrix: Any, plain: Any, tmp_path: Path, check: str) -> None:
    path = tmp_path / "a.mp4"
    matrix.make_file(plain, path)
    source, out = matrix.look(path), matrix.look(path)
    assert matrix.compare(plain, source, out, 25.0, "", is_lossy=True) == []
    change: Callable[[Any], None] = MOVED[check]
    change(out)
    assert {name for name, _ in matrix.compare(plain, source, out, 25.0, "", is_lossy=True)} == {check}
