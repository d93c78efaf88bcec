"""Counting and finding jumps in time: the scan adds up, a missing stretch is found where it is, motion is not one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from spikevrt.align.defects import find_breaks_in, scan
from spikevrt.recording.stream import count_slices


@dataclass(frozen=True)
class _Stream:
    spikes: np.ndarray
    files: tuple[Path, ...] = ()

    @property
    def height(self) -> int:
        return self.spikes.shape[1]

    @property
    def width(self) -> int:
        return self.spikes.shape[2]

    @property
    def num_ticks(self) -> int:
        return len(self.spikes)

    def read(self, start_tick: int, stop_tick: int) -> np.ndarray:
        return self.spikes[start_tick:stop_tick]

    def count(self, edges: list[int]) -> np.ndarray:
        return count_slices(self.spikes[edges[0] : edges[-1]], edges)


def _steady(num_ticks: int, height: int = 31, width: int = 37) -> np.ndarray:
    """Pixels of random rate between 1/20 and 1/4 and random phase."""
    rng = np.random.default_rng(5)
    phase, light = rng.random((height, width)), rng.uniform(0.05, 0.25, (height, width))
    charge = np.floor(phase + light * np.arange(num_ticks + 1)[:, None, None])
    return np.diff(charge, axis=0).astype(np.uint8)


def test_a_scan_adds_up_to_the_stream_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    spikes = _steady(101)
    spikes[[7, 50]] = 0
    whole = scan(_Stream(spikes), [(0, 101)])
    monkeypatch.setattr("spikevrt.align.defects.CHUNK_BITS", 13 * 31 * 37)
    monkeypatch.setattr("spikevrt.align.defects.SEARCH_TICKS", 40)
    pieces = scan(_Stream(spikes), [(0, 101)])
    for found in (whole, pieces):
        assert np.array_equal(found.counts, spikes.sum(axis=0))
        assert np.array_equal(found.spikes_per_tick, spikes.sum(axis=(1, 2)))
        assert found.num_empty == 2 and found.num_ticks == 101


def test_windows_are_scanned_and_nothing_else() -> None:
    spikes = _steady(50)
    found = scan(_Stream(spikes), [(3, 10), (20, 31)])
    assert np.array_equal(found.counts, spikes[3:10].sum(axis=0) + spikes[20:31].sum(axis=0, dtype=np.int64))
    assert found.ticks.tolist() == [*range(3, 10), *range(20, 31)]


@pytest.mark.parametrize("num_missing", [3, 11, 47])
def test_a_missing_stretch_is_found_at_its_tick(num_missing: int) -> None:
    spikes = _steady(300)
    cut = np.concatenate([spikes[:150], spikes[150 + num_missing :]])
    assert scan(_Stream(cut), [(0, len(cut))]).breaks == (150,)
    assert scan(_Stream(spikes), [(0, 300)]).breaks == ()


def test_a_break_is_found_once_though_two_searches_overlap_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spikevrt.align.defects.SEARCH_TICKS", 200)
    monkeypatch.setattr("spikevrt.align.defects.CHUNK_BITS", 50 * 31 * 37)
    spikes = _steady(900)
    for first in (60, 140, 190, 200, 205, 330):
        cut = np.concatenate([spikes[:first], spikes[first + 11 :]])
        assert scan(_Stream(cut), [(0, len(cut))]).breaks == (first,), first


def test_a_slow_change_of_light_is_no_break() -> None:
    rng = np.random.default_rng(6)
    ramp = np.linspace(0.05, 0.25, 300)[:, None, None] * rng.uniform(0.5, 1, (31, 37))
    charge = np.floor(rng.random((31, 37)) + np.concatenate([np.zeros((1, 31, 37)), ramp]).cumsum(axis=0))
    assert find_breaks_in(np.diff(charge, axis=0).astype(np.uint8).reshape(300, -1))[0] == []


@pytest.mark.parametrize("value", [0, 1])
def test_streams_without_intervals_bear_no_witness(value: int) -> None:
    assert find_breaks_in(np.full((30, 7), value, dtype=np.uint8)) == ([], 0)
    assert find_breaks_in(np.zeros((0, 7), dtype=np.uint8)) == ([], 0)


def test_one_half_of_the_picture_that_jumps_is_no_break_of_time() -> None:
    whole = _steady(300)
    spikes = np.concatenate([whole[:150], whole[161:]])
    assert scan(_Stream(spikes), [(0, 289)]).breaks == (150,)
    spikes[:, :8] = whole[:289, :8]
    assert scan(_Stream(spikes), [(0, 289)]).breaks == ()
