"""A time offset is told from a few frames, each by its own motion, and what cannot be told is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from spikevrt.align.findings import Finding, judge_offset
from spikevrt.align.health import check_health
from spikevrt.align.misfit import TimeOffset
from spikevrt.recording.alignment import Alignment
from spikevrt.recording.recording import Recording, with_alignment
from spikevrt.recording.stream import SpikeStream
from spikevrt.simulate.setup import RigConfig, SimulateOptions
from spikevrt.simulate.synthesise import simulate_recording

PHOTO = Path(__file__).resolve().parents[2] / "src" / "spikevrt" / "assets" / "coffee.jpg"


@dataclasses.dataclass(frozen=True)
class Cut:
    """The ticks of a stream from `first` to `last`, alone."""

    whole: SpikeStream
    first: int
    last: int
    files: tuple[Path, ...] = ()

    @property
    def height(self) -> int:
        return self.whole.height

    @property
    def width(self) -> int:
        return self.whole.width

    @property
    def num_ticks(self) -> int:
        return self.last - self.first

    def read(self, start_tick: int, stop_tick: int) -> np.ndarray:
        return self.whole.read(self.first + start_tick, self.first + stop_tick)

    def count(self, edges: Sequence[int]) -> np.ndarray:
        return self.whole.count([self.first + edge for edge in edges])


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Five frames of 128 ticks, with 80 more at either end."""
    options = SimulateOptions(frames=5, width=128, height=80, num_layers=1, rig=RigConfig(margin_ticks=80), seed=3)
    return simulate_recording(PHOTO, tmp_path_factory.mktemp("offset") / "coffee", options)


@pytest.mark.parametrize("offset", [-16, -8, 8, 16])
def test_an_offset_is_told_to_a_tick_or_two(recording: Recording, offset: int):
    finding = check_health(with_alignment(recording, Alignment(offset_ticks=-offset))).finding("time offset")
    assert finding.verdict == "bad" and "run `spikevrt align" in finding.sentence
    assert abs(finding.numbers["offset_ticks"] - offset) < 2
    assert finding.numbers["error_ticks"] < 2
    assert ("later" if offset > 0 else "earlier") in finding.sentence


def test_clocks_that_agree_are_no_finding(recording: Recording):
    finding = check_health(recording).finding("time offset")
    assert finding.verdict == "ok" and abs(finding.numbers["offset_ticks"]) < 1


def test_cameras_that_are_two_pixels_apart_do_not_hide_an_offset(recording: Recording, monkeypatch: pytest.MonkeyPatch):
    read = Recording.read_blur
    monkeypatch.setattr(Recording, "read_blur", lambda self, index: np.roll(read(self, index), 4, axis=1))
    finding = check_health(with_alignment(recording, Alignment(offset_ticks=-16))).finding("time offset")
    assert finding.verdict == "bad" and abs(finding.numbers["offset_ticks"] - 16) < 3


def told_earlier(recording: Recording, ticks: Sequence[int]) -> Recording:
    """Each exposure is said to begin so many ticks too early."""
    moved = tuple(
        dataclasses.replace(one, start_tick=one.start_tick - by, stop_tick=one.stop_tick - by)
        for one, by in zip(recording.exposures, ticks, strict=True)
    )
    return dataclasses.replace(recording, exposures=moved)


@pytest.mark.parametrize("growth", [-48, 32])
def test_an_offset_that_grows_is_told_though_its_mean_is_zero(recording: Recording, growth: int):
    wrong = told_earlier(recording, [round(growth * (index / 4 - 0.5)) for index in range(5)])
    finding = check_health(wrong).finding("time offset")
    assert finding.verdict == "bad" and "the offset grows by" in finding.sentence
    assert abs(finding.numbers["growth_ticks"] - growth) < 4 and abs(finding.numbers["offset_ticks"]) < 3


@pytest.mark.parametrize("ticks", [(0, 0, 48, 48, 48), (0, 40, 0, 40, 0), (0, 0, 0, -50, 0)])
def test_single_frames_at_wrong_times_are_refused(recording: Recording, ticks: tuple[int, ...]):
    finding = check_health(told_earlier(recording, ticks)).finding("time offset")
    assert finding.verdict == "bad" and "missing, doubled or timed wrongly" in finding.sentence, finding


def test_without_ticks_beyond_the_exposures_a_recording_tells_by_shorter_windows(recording: Recording):
    assert recording.spikes is not None
    exposures = (recording.exposures[0], *recording.exposures[3:])
    first = exposures[0].start_tick

    def moved(by: int) -> Finding:
        """Three exposures with a stream that begins with the first of them and ends with the last."""
        cut = dataclasses.replace(recording, spikes=Cut(recording.spikes, first, exposures[-1].stop_tick))
        there = [dataclasses.replace(e, start_tick=e.start_tick - by, stop_tick=e.stop_tick - by) for e in exposures]
        kept = dataclasses.replace(cut, exposures=tuple(there), blur=(recording.blur[0], *recording.blur[3:]))
        return check_health(kept).finding("time offset")

    assert moved(first).numbers["offset_ticks"] == pytest.approx(0, abs=4)


def test_one_frame_cannot_tell_an_offset_and_says_what_could(recording: Recording):
    finding = check_health(with_alignment(recording.chosen([2]), Alignment(offset_ticks=-16))).finding("time offset")
    assert (
        finding.verdict == "cannot tell" and "three or more, each with another motion, would tell" in finding.sentence
    )


def judged(*ticks: float, correlation_at_0: float = 0.89) -> Finding:
    frames = tuple(range(len(ticks)))
    found = TimeOffset(np.array(ticks, float), frames, np.array(frames) * 160.0, 128, 0.9, correlation_at_0)
    return judge_offset(found, "align")


def test_frames_that_do_not_agree_tell_no_offset():
    assert judged(8, 9, 8, 7, 8).verdict == "bad"
    scattered = judged(40, -20, 10, -5, 15)
    assert scattered.verdict == "cannot tell" and "8.0 +- 10.1 ticks later" in scattered.sentence
    assert judged(40, -20, 10, -5, 15, correlation_at_0=0.87).verdict == "bad"  # 0.03 of the 0.1 that 0.9 lacks


def test_the_fewer_frames_the_better_they_must_agree():
    assert judged(10, 13, 7).verdict == "cannot tell"  # 10 +- 1.7
    assert judged(10, 13, 7, 10, 10).verdict == "bad"  # 10 +- 0.95
    assert judged(10, 10.5, 9.5).verdict == "bad"
    assert judged(10, 10.5).verdict == "cannot tell" and judged(10, 10.05).verdict == "bad"
    assert judged(0, 0).verdict == "cannot tell" and judged(0, 0, 0).verdict == "ok"


def test_a_thirtysecond_of_the_exposure_is_tolerated():
    assert judged(3.9, 3.9, 3.9).verdict == "ok"
    assert judged(4.1, 4.1, 4.1).verdict == "bad"


def test_two_agreeing_halves_of_a_growing_offset_are_bad_and_a_scatter_that_grows_by_chance_is_not():
    assert (
        judged(-20, -10, 0, 10, 20).verdict == "bad" and "grows by 40.0 +- 0.0" in judged(-20, -10, 0, 10, 20).sentence
    )
    assert judged(-4, 3, -2, 2, 4).verdict == "ok"
