"""Other people's methods: how they are named, what they may return, and how their failures are told."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from spikevrt.align.health import NAMES
from spikevrt.cli import main
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


def transposed(recording: Recording) -> list[torch.Tensor]:
    return [frame.transpose(1, 2) for frame in as_floats(recording)]


def doubles(recording: Recording) -> list[np.ndarray]:
    return [frame.astype(np.int64) for frame in copied(recording)]


def levels(recording: Recording) -> list[torch.Tensor]:
    return [frame * 255 for frame in as_floats(recording)]


def as_bfloat16(recording: Recording) -> list[torch.Tensor]:
    return [frame.bfloat16() for frame in as_floats(recording)]


def out_of_memory(recording: Recording) -> Iterator[np.ndarray]:
    yield recording.read_blur(0)
    raise KeyError("no such layer")


def refuses(recording: Recording) -> list[np.ndarray]:
    raise ValueError("frames of 34x22; allowed: multiples of 8")


def leaves(recording: Recording) -> list[np.ndarray]:
    sys.exit("no GPU")


def no_frames(recording: Recording) -> None:
    return None


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
        ("not_a_number", r"mine: a, frame 0: holds NaN or infinity; allowed: floats in \[0, 1\]"),
        ("transposed", r"mine: a, frame 0: float32 of shape \(3, 34, 22\); allowed: .* or float \(3, 22, 34\)"),
        ("doubles", r"mine: a, frame 0: int64 of shape .*; allowed: uint8"),
        ("levels", r"mine: a, frame 0: floats of mean \d+.*; allowed: floats in \[0, 1\]"),
        ("out_of_memory", "mine: a: KeyError: 'no such layer'"),
        ("refuses", r"mine: a: frames of 34x22; allowed: multiples of 8"),
        ("leaves", "mine: a: SystemExit: no GPU"),
        ("no_frames", "mine: a: TypeError: 'NoneType' object is not iterable"),
    ],
)
def test_what_is_no_restored_recording_is_refused_in_one_line(subject: Subject, function: str, message: str):
    with pytest.raises(ValueError, match=message):
        scores(f"mine=tests.evaluate.test_methods:{function}", subject)


def test_a_command_that_fails_is_told_with_its_last_words(tmp_path: Path, subject: Subject):
    (tmp_path / "fail.py").write_text("import sys; sys.exit('out of luck')")
    with pytest.raises(ValueError, match="mine: a: exit status 1: out of luck"):
        scores(f"mine={sys.executable} {tmp_path}/fail.py {{recording}} {{out}}", subject)
    with pytest.raises(ValueError, match="mine: a: /no/such/program: No such file or directory"):
        scores("mine=/no/such/program {recording} {out}", subject)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine", "allowed: NAME=MODULE:FUNCTION, MODULE:FUNCTION, or NAME=COMMAND"),
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


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("restore = lambda recording: [", "SyntaxError"),
        ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing'"),
        ("raise RuntimeError('no GPU')", "RuntimeError: no GPU"),
        ("import sys; sys.exit('usage: train.py')", "SystemExit: usage: train.py"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_its_reason(tmp_path: Path, monkeypatch, source, message):
    monkeypatch.syspath_prepend(tmp_path)
    name = f"broken_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source)
    with pytest.raises(ValueError, match=f"^method: '{name}:restore': {message}"):
        other_method(f"mine={name}:restore")


def test_evaluate_scores_a_method_of_ones_own_beside_the_baselines(tmp_path: Path, capsys):
    write_recording(tmp_path / "a", seed=3)
    method, out = f"mine={__name__}:copied", tmp_path / "out"
    arguments = ["evaluate", str(tmp_path / "a"), "--out", str(out), "--weights", "--metrics", "psnr_rgb"]
    arguments += ["--ignore-health", *NAMES]
    assert main([*arguments, "--method", method]) == 0, capsys.readouterr().err
    by_name = {entry["name"]: entry for entry in json.loads((out / "results.json").read_text())["methods"]}
    assert list(by_name) == ["blur", "spike_ratio", "interval_ratio", "mine"]
    assert by_name["mine"]["mean"] == by_name["blur"]["mean"] and by_name["mine"]["source"] == f"{__name__}:copied"
    for twice in (method, f"blur={__name__}:copied"):
        assert main([*arguments, "--method", method, "--method", twice, "--overwrite"]) == 2
        assert "--method: " in capsys.readouterr().err and (out / "results.json").is_file()


def test_a_method_without_a_name_is_called_as_its_function_is(subject: Subject):
    assert other_method("tests.evaluate.test_methods:copied").name == "copied"


def test_bfloat16_frames_are_within_their_rounding_of_floats(subject: Subject):
    scored = zip(scores(f"m={__name__}:as_bfloat16", subject), scores(f"m={__name__}:copied", subject), strict=True)
    assert all(abs(one - other) < 0.1 for one, other in scored)  # 8 bits of mantissa: half a level at most


def test_a_command_is_refused_where_there_is_no_folder_to_hand_it(tmp_path: Path, subject: Subject):
    (subject.recording.root / "recording.json").unlink()
    with pytest.raises(ValueError, match="is no recording's folder .*; allowed here: MODULE:FUNCTION"):
        scores(f"mine={sys.executable} copy.py {{recording}} {{out}}", subject)


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
