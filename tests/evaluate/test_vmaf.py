from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from spikevrt.evaluate import metrics
from spikevrt.evaluate.metrics import FFMPEG_VARIABLE, find_ffmpeg, vmaf_neg

FRAMES = 3


def clip(seed: int) -> torch.Tensor:
    """Smooth noise, 3 frames of 96 x 128 pixels."""
    coarse = torch.rand(FRAMES, 3, 24, 32, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (96, 128), mode="bilinear")


def program(path: Path, body: str) -> str:
    path.write_text(f"#!{sys.executable}\nimport json, sys\nfrom pathlib import Path\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that says it has libvmaf, keeps what it was given, and gives frame t the value 10 (t + 1)."""
    frames = [{"frameNum": t, "metrics": {"vmaf": 10.0 * (t + 1)}} for t in range(FRAMES)]
    body = f"""
if "-filters" in sys.argv:
    print(" ... libvmaf           VV->V      Calculate the VMAF")
    sys.exit()
kept = Path({str(tmp_path)!r})
(kept / "arguments.json").write_text(json.dumps(sys.argv[1:]))
for name in ("restored.rgb", "sharp.rgb"):
    (kept / name).write_bytes(Path(name).read_bytes())
Path("vmaf.json").write_text(json.dumps({{"frames": {frames!r}}}))
"""
    monkeypatch.setenv(FFMPEG_VARIABLE, program(tmp_path / "fake", body))
    return tmp_path


def test_the_values_are_those_of_the_log_frame_by_frame(fake: Path):
    assert vmaf_neg(clip(1), clip(2)).tolist() == [10.0, 20.0, 30.0]


def test_the_restored_clip_is_the_first_input_and_both_are_lossless(fake: Path):
    restored, sharp = clip(1), clip(2)
    vmaf_neg(restored, sharp)
    arguments = json.loads((fake / "arguments.json").read_text())
    assert [arguments[i + 1] for i, word in enumerate(arguments) if word == "-i"] == ["restored.rgb", "sharp.rgb"]
    assert arguments.count("128x96") == 2 and "model=version=vmaf_v0.6.1neg" in arguments[arguments.index("-lavfi") + 1]
    for name, frames in (("restored", restored), ("sharp", sharp)):
        raw = np.fromfile(fake / f"{name}.rgb", np.uint8).reshape(FRAMES, 96, 128, 3)
        assert np.array_equal(raw, (255 * frames).round().byte().permute(0, 2, 3, 1).numpy())


def test_what_ffmpeg_says_against_the_clips_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    body = "print(' libvmaf ') if '-filters' in sys.argv else sys.exit('first line\\nno such model')"
    monkeypatch.setenv(FFMPEG_VARIABLE, program(tmp_path / "fails", body))
    with pytest.raises(ValueError, match=r"fails: libvmaf refuses clips of 128x96: no such model$"):
        vmaf_neg(clip(1), clip(2))


def test_a_named_program_without_libvmaf_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in (program(tmp_path / "plain", "print(' scale ')"), str(tmp_path / "nothing")):
        monkeypatch.setenv(FFMPEG_VARIABLE, name)
        with pytest.raises(ValueError, match=rf"SPIKEVRT_FFMPEG: {name} is no ffmpeg with libvmaf"):
            find_ffmpeg()


def test_where_there_is_none_the_three_places_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(FFMPEG_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs an ffmpeg with libvmaf: on PATH, named by SPIKEVRT_FFMPEG, or of the"):
        find_ffmpeg()


@pytest.fixture
def real() -> None:
    try:
        assert os.path.isabs(find_ffmpeg())
    except ValueError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("real")
def test_equal_clips_are_near_100_and_blur_lowers_every_frame():
    sharp = clip(1)
    blurred = torch.nn.functional.avg_pool2d(sharp, 7, 1, 3, count_include_pad=False)
    same, worse = vmaf_neg(sharp, sharp), vmaf_neg(blurred, sharp)
    assert same.shape == (FRAMES,) and same.min() > 95
    assert (worse < same - 10).all()


@pytest.mark.usefixtures("real")
def test_sharpening_gains_nothing():
    sharp = clip(1)
    blurred = torch.nn.functional.avg_pool2d(sharp, 3, 1, 1, count_include_pad=False)
    sharpened = (sharp + (sharp - blurred)).clamp(0, 1)
    assert vmaf_neg(sharpened, sharp).mean() <= vmaf_neg(sharp, sharp).mean() + 0.5
