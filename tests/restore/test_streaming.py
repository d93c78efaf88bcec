"""The page docs/python.md and the example: they run as they stand, on a recording simulated for it."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import spikevrt
from spikevrt.recording.frames import read_image
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.restorer import Restorer
from spikevrt.simulate.setup import SimulateOptions
from spikevrt.simulate.synthesise import simulate_recording

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "src" / "spikevrt" / "assets" / "clock.jpg"
CODE = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recordings/street, 4 frames of 96x64, and the same as loose files: blurry/ and spikes.dat."""
    base = tmp_path_factory.mktemp("street")
    options = SimulateOptions(frames=4, exposure_ticks=128, period_ticks=160, width=96, height=64, motion_px=6.0)
    recording = simulate_recording(PHOTO, base / "recordings" / "street", options)
    (base / "blurry").symlink_to(recording.root / "blur")
    (base / "spikes.dat").write_bytes((recording.root / "spikes.dat").read_bytes())
    return base


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return spikevrt.load(options=RestoreOptions(device="cpu"))


@pytest.mark.parametrize("number", range(len(CODE)))
def test_the_page_runs_as_it_stands(street: Path, monkeypatch: pytest.MonkeyPatch, number: int):
    monkeypatch.chdir(street)
    code = CODE[number].replace("width=400, height=250", "width=48, height=32")  # the size of the spikes that are there
    names: dict[str, object] = {}
    exec(code, names)
    if "pictures" in names:
        pictures = names["pictures"]
        assert isinstance(pictures, list) and len(pictures) == (4 - 1) * 4 + 1 - 2
    if "summary" in names:
        assert names["summary"]["num_frames"] == 7 and len(list((street / "out").glob("*.png"))) == 7  # type: ignore[index]


@pytest.mark.slow
def test_from_a_dat_to_a_picture(street: Path, restorer: Restorer):
    stream = street / "spikes.dat"
    script = ROOT / "examples" / "dat_to_picture.py"
    assert len([line for line in script.read_text().splitlines() if line and not line.startswith('"""')]) <= 13
    told = ["48", "32", "125", "6.4ms", str(street / "out.png")]
    command = [sys.executable, str(script), str(street / "blurry"), str(stream), *told]
    subprocess.run(command, check=True, env={"PYTHONPATH": str(ROOT / "src"), "PATH": ""})
    recording = spikevrt.open_recording(street / "blurry", stream, width=48, height=32, fps=125, exposure="6.4ms")
    assert np.array_equal(read_image(street / "out.png"), next(restorer.stream(recording)))


def test_frames_come_one_at_a_time_and_are_those_of_any_start(street: Path, restorer: Restorer):
    recording = spikevrt.open_recording(street / "recordings" / "street")
    every = list(restorer.stream(recording))
    assert len(every) == 4 and every[0].dtype == np.uint8 and every[0].shape == (64, 96, 3)
    assert all(
        np.array_equal(one, two) for one, two in zip(restorer.stream(recording, first=2), every[2:], strict=True)
    )


def test_every_second_frame_of_slow_motion_is_the_one_without(street: Path, restorer: Restorer):
    recording = spikevrt.open_recording(street / "recordings" / "street")
    alone = spikevrt.load(options=RestoreOptions(device="cpu", clip_frames=2, overlap_frames=0))
    plain, slow = list(alone.stream(recording)), list(restorer.stream(recording, fps_factor=2))
    assert len(slow) == 7
    for one, two in zip(plain, slow[::2], strict=True):
        assert np.abs(one.astype(int) - two).max() <= 1  # the network sees one frame at a time; roundings


def test_a_recording_without_spikes_is_refused_by_a_network_that_reads_them_unless_told(
    street: Path, restorer: Restorer
):
    recording = replace(spikevrt.open_recording(street / "recordings" / "street"), spikes=None)
    with pytest.raises(ValueError, match="street: no spikes, but these weights read them"):
        restorer.stream(recording)
    alone = restorer.with_options(RestoreOptions(device="cpu", without_spikes=True))
    assert len(list(alone.stream(recording))) == 4


def test_what_cannot_be_opened_or_loaded_is_told_in_a_line(street: Path):
    with pytest.raises(
        FileNotFoundError, match=r"spikefold: no such weights file; allowed: a file, or spikefold_tiny, .*vrt_tiny"
    ):
        spikevrt.load("spikefold")
    with pytest.raises(FileNotFoundError, match="nowhere: no such recording"):
        spikevrt.open_recording(street / "nowhere")
    with pytest.raises(ValueError, match="street: a recording says all of itself"):
        spikevrt.open_recording(street / "recordings" / "street", first_tick=3)
    with pytest.raises(ValueError, match=r"spikes\.dat"):
        spikevrt.open_recording(street / "blurry", street / "spikes.dat")
