"""The examples of docs/evaluation.md are methods; no example or benchmark imports what no longer exists."""

from __future__ import annotations

import re
import runpy
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from spikevrt.evaluate.methods import Function
from spikevrt.recording.frames import to_float
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


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: f"{script.parent.name}/{script.stem}")
def test_a_script_imports_what_exists(script: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(script.parent))  # as `python benchmarks/x.py` has it
    runpy.run_path(str(script), run_name="imported")
