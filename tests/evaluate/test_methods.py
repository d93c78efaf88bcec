"""Other people's methods: how they are named, what they may return, and how their failures are told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from spikevrt.evaluate.methods import blur_method, interval_ratio_method, other_method, spike_ratio_method
from spikevrt.evaluate.runner import DEFAULT_MEASURE, Subject, score
from spikevrt.recording.frames import to_float
from spikevrt.recording.recording import Recording, open_recording
from spikevrt.represent.inputs import spike_ratio
from tests.evaluate.conftest import write_recording

COPY = """
import shutil, sys, pathlib
for index, path in enumerate(sorted((pathlib.Path(sys.argv[1]) / "blur").iterdir())):
    shutil.copy(path, pathlib.Path(sys.argv[2]) / f"{index:06d}.png")
"""


def copied(recording: Recording) -> Iterator[np.ndarray]:
    """A method that returns its input, as bytes."""
    return (recording.read_blur(index) for index in range(recording.num_frames))


def as_floats(recording: Recording) -> list[torch.Tensor]:
    return [to_float(frame) for frame in copied(recording)]


def one_too_few(recording: Recording) -> list[np.ndarray]:
    return list(copied(recording))[:-1]


def one_too_many(recording: Recording) -> list[np.ndarray]:
    return [*copied(recording), recording.read_blur(0)]


def half_size(recording: Recording) -> list[np.ndarray]:
    return [frame[::2] for frame in copied(recording)]


def not_a_number(recording: Recording) -> list[torch.Tensor]:
    return [frame * torch.nan for frame in as_floats(recording)]


no_function = 3


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    recording = open_recording(write_recording(tmp_path / "a", seed=3))
    return Subject("a", recording)


def scores(text: str, subject: Subject) -> list[float]:
    entry = score(other_method(text), [subject], DEFAULT_MEASURE, advance=lambda: None)
    return [frame["psnr_rgb"] for frame in entry["sequences"][0]["frames"]]


@pytest.mark.parametrize("function", ["copied", "as_floats"])
def test_a_function_that_returns_its_input_scores_as_the_blurry_input(subject: Subject, function: str):
    blur = score(blur_method(), [subject], DEFAULT_MEASURE, advance=lambda: None)
    expected = [frame["psnr_rgb"] for frame in blur["sequences"][0]["frames"]]
    assert scores(f"mine=tests.evaluate.test_methods:{function}", subject) == expected


def test_a_command_that_copies_its_input_scores_as_the_blurry_input(tmp_path: Path, subject: Subject):
    (tmp_path / "copy it.py").write_text(COPY)
    blur = score(blur_method(), [subject], DEFAULT_MEASURE, advance=lambda: None)
    expected = [frame["psnr_rgb"] for frame in blur["sequences"][0]["frames"]]
    assert scores(f"mine={sys.executable} '{tmp_path}/copy it.py' {{recording}} {{out}}", subject) == expected


def test_the_spike_ratio_is_the_identity_of_its_name_on_every_frame(subject: Subject):
    recording = subject.recording
    frames = list(spike_ratio_method().ready().restore(recording))
    assert len(frames) == recording.num_frames
    exposure = recording.exposures[1]
    assert recording.spikes is not None
    spikes = torch.from_numpy(recording.spikes.read(exposure.start_tick, exposure.stop_tick)).float()
    half, middle = exposure.num_ticks // 16, exposure.num_ticks // 2
    expected = spike_ratio(
        to_float(recording.read_blur(1)), spikes[middle - half : middle + half + 1].mean(0), spikes.mean(0)
    )
    torch.testing.assert_close(frames[1], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("one_too_few", r"mine: a: 2 frames came out; allowed: 3"),
        ("one_too_many", r"mine: a: more frames came out; allowed: 3"),
        ("half_size", r"mine: a, frame 0: uint8 of shape .*; allowed: uint8 \("),
        ("not_a_number", r"a, frame 0: .*not finite|a, frame 0: .*NaN"),
    ],
)
def test_what_is_no_restored_recording_is_refused_in_one_line(subject: Subject, function: str, message: str):
    with pytest.raises(ValueError, match=message):
        scores(f"mine=tests.evaluate.test_methods:{function}", subject)


def test_a_command_that_fails_is_told_with_its_last_words(tmp_path: Path, subject: Subject):
    (tmp_path / "fail.py").write_text("import sys; sys.exit('out of luck')")
    with pytest.raises(ValueError, match="mine: a: exit status 1: out of luck"):
        scores(f"mine={sys.executable} {tmp_path}/fail.py {{recording}} {{out}}", subject)
    with pytest.raises(ValueError, match="mine: /no/such/program: No such file or directory"):
        scores("mine=/no/such/program {recording} {out}", subject)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine", "allowed: NAME=MODULE:FUNCTION, or NAME=COMMAND"),
        ("blur=tests.evaluate.test_methods:copied", "allowed: NAME=MODULE:FUNCTION"),
        ("../x=tests.evaluate.test_methods:copied", "allowed: NAME=MODULE:FUNCTION"),
        ("mine=run {recording}", "allowed: NAME=MODULE:FUNCTION"),
        ("mine=tests.evaluate.test_methods:nothing", "has no attribute 'nothing'"),
        ("mine=no_such_module:f", "No module named 'no_such_module'"),
        ("mine=tests.evaluate.test_methods:no_function", "no_function is no function"),
    ],
)
def test_what_names_no_method_is_refused(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        other_method(text)


def test_rates_from_intervals_know_a_steady_light_better_than_counts_do(tmp_path: Path):
    """Light that does not change, seen with few spikes: the frame should stay as it is."""
    spikes = np.zeros((37, 11, 17), np.uint8)
    for row in range(11):
        spikes[row % 7 :: 7, row] = 1  # every seventh tick, in every phase
    errors = {}
    recording = open_recording(write_recording(tmp_path / "steady", num_frames=1, spikes=spikes))
    for method in (spike_ratio_method(), interval_ratio_method()):
        (frame,) = method.ready().restore(recording)
        errors[method.name] = float((frame - to_float(recording.read_blur(0))).abs().mean())
    assert errors["interval_ratio"] < errors["spike_ratio"] / 2, errors
