"""The examples of docs/evaluation.md are methods; no example or benchmark imports what no longer exists."""

from __future__ import annotations

import dataclasses
import re
import runpy
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spikevrt.evaluate.methods import Function
from spikevrt.recording.frames import to_float, write_image
from spikevrt.recording.loose import open_beside
from spikevrt.recording.recording import open_recording
from tests.evaluate.conftest import write_recording

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted([*ROOT.glob("benchmarks/*.py"), *ROOT.glob("examples/*.py")])


def frames(function: Any, tmp_path: Path) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """(restored, blurry) of a small recording."""
    recording = open_recording(write_recording(tmp_path / "a", seed=3))
    restored = list(Function("example", function, "example").restore(recording))
    return restored, [to_float(recording.read_blur(index)) for index in range(recording.num_frames)]


def test_the_example_of_a_foreign_network_gives_every_frame_near_its_input(tmp_path: Path):
    restored, blur = frames(runpy.run_path(str(ROOT / "examples" / "other_network.py"))["restore"], tmp_path)
    assert len(restored) == len(blur) == 3
    for one, other in zip(restored, blur, strict=True):
        assert 0 < float((one - other).abs().max()) < 0.05


def test_the_function_in_the_page_runs_as_it_stands(tmp_path: Path):
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    module = types.ModuleType("my_module")
    exec(code, module.__dict__)
    restored, blur = frames(module.brightest, tmp_path)
    assert len(restored) == len(blur)
    for one, other in zip(restored, blur, strict=True):  # half of all ticks fire, so four times that is full light
        torch.testing.assert_close(one, other, rtol=0, atol=1 / 255)


def test_the_perfect_rig_films_the_scene_of_the_hard_one_and_says_when_each_frame_was_really_exposed(tmp_path: Path):
    rig = runpy.run_path(str(ROOT / "examples" / "hard_rig.py"))
    filmed = dataclasses.replace(rig["OPTIONS"], frames=60)
    for index in range(filmed.frames):
        write_image(tmp_path / "blur" / f"{index:06d}.png", np.zeros((2, 2, 3), np.uint8))
    with (tmp_path / "spikes.dat").open("wb") as stream:
        stream.truncate(filmed.num_ticks * filmed.width * filmed.height // 4 // 8)
    exposures = open_beside(tmp_path / "blur", tmp_path / "spikes.dat", rig["exactly"](filmed)).exposures
    assert [one.start_tick for one in exposures] == filmed.start_ticks
    assert filmed.start_ticks[-1] == 120 + 59 * 667 + 22  # 59 periods of 667.37
    assert {one.num_ticks for one in exposures} == {311}
    small = dataclasses.replace(filmed, frames=1, exposure_ticks=31, width=32, height=32)
    rig["write_rig"](rig["PHOTO"], tmp_path / "rig", small)
    sharp, again = (tmp_path / "rig" / "truth" / part / "000000.png" for part in ("sharp", "perfect/sharp"))
    assert sharp.read_bytes() == again.read_bytes()  # the same scene


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: f"{script.parent.name}/{script.stem}")
def test_a_script_imports_what_exists(script: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(script.parent))  # as `python benchmarks/x.py` has it
    runpy.run_path(str(script), run_name="imported")
