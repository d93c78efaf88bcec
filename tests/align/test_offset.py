"""A time offset is told from a few frames, each by its own motion, and what cannot be told is not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from spikevrt.align.findings import judge_offset
from spikevrt.align.health import check_health
from spikevrt.align.pairing import OffsetHint
from spikevrt.recording.alignment import Alignment
from spikevrt.recording.recording import Recording, with_alignment
from spikevrt.simulate.setup import RigConfig, SimulateOptions
from spikevrt.simulate.synthesise import simulate_recording

PHOTO = Path(__file__).resolve().parents[2] / "src" / "spikevrt" / "assets" / "coffee.jpg"


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Five frames of 128 ticks, with 80 more at either end."""
    options = SimulateOptions(frames=5, width=128, height=80, num_layers=1, rig=RigConfig(margin_ticks=80), seed=3)
    return simulate_recording(PHOTO, tmp_path_factory.mktemp("offset") / "coffee", options)


@pytest.mark.parametrize("offset", [-16, -8, 8, 16])
def test_an_offset_is_told_to_a_tick_or_two(recording: Recording, offset: int):
    finding = check_health(with_alignment(recording, Alignment(offset_ticks=-offset))).finding("time offset")
    assert finding.verdict == "warning"
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
    assert finding.verdict == "warning" and abs(finding.numbers["offset_ticks"] - 16) < 3


def test_without_ticks_beyond_the_exposures_it_cannot_be_told(recording: Recording):
    alone = dataclasses.replace(recording, exposures=recording.exposures[:1], blur=recording.blur[:1])
    early = with_alignment(alone, Alignment(offset_ticks=-80))
    assert check_health(early).finding("time offset").sentence.startswith("cannot tell")


def hint(*ticks: float, correlation: float = 0.9, at_0: float = 0.89) -> OffsetHint:
    return OffsetHint(np.array(ticks, float), 128, correlation, at_0)


def test_frames_that_do_not_agree_tell_no_offset():
    assert judge_offset(hint(8, 9, 8, 7, 8)).verdict == "warning"
    scattered = judge_offset(hint(40, -20, 10, -5, 15))
    assert scattered.verdict == "ok" and scattered.sentence.startswith("cannot tell: 8.0 +- 10.1 ticks")


def test_three_frames_must_agree_better_than_five():
    assert judge_offset(hint(10, 13, 7)).verdict == "ok"  # 10 +- 1.7
    assert judge_offset(hint(10, 13, 7, 10, 10)).verdict == "warning"  # 10 +- 0.95
    assert judge_offset(hint(10, 10.5, 9.5)).verdict == "warning"


def test_one_frame_tells_by_what_it_gains():
    assert judge_offset(hint(16, correlation=0.93)).verdict == "warning"
    assert judge_offset(hint(16)).verdict == "ok"


def test_a_thirtysecond_of_the_exposure_is_no_news():
    assert judge_offset(hint(3.9, 3.9, 3.9)).verdict == "ok"
    assert judge_offset(hint(4.1, 4.1, 4.1)).verdict == "warning"
