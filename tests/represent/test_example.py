"""The script behind docs/representations.md runs, and the page shows what it prints."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "representations.py"


def _rows(text: str) -> list[list[str]]:
    """The cells of the rows of the two tables of thresholds."""
    return re.findall(r"^\| (counts|interval_voxels) \| (.+) \|$", text, flags=re.MULTILINE)


def test_the_page_shows_the_figures_that_the_script_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = _rows(capsys.readouterr().out)
    shown = _rows((ROOT / "docs" / "representations.md").read_text())
    assert len(printed) == len(shown) == 12
    for (name, values), (shown_name, shown_values) in zip(printed, shown, strict=True):
        numbers = [float(number) for number in re.findall(r"[\d.]+", values)]
        assert name == shown_name
        assert numbers == pytest.approx([float(n) for n in re.findall(r"[\d.]+", shown_values)], abs=0.02)


def test_the_script_draws_every_picture_of_the_page_below_120_kilobytes(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from spikevrt.recording.spike_file import read_spikes

    names = runpy.run_path(str(SCRIPT))
    path = shared / "data" / "real_car" / names["FILE"]
    names["draw"](torch.from_numpy(read_spikes(path, names["SpikeGeometry"](width=400, height=250))), tmp_path)
    drawn = {file.name for file in tmp_path.iterdir()}
    page = (ROOT / "docs" / "representations.md").read_text()
    assert drawn == set(re.findall(r"images/(represent_\w+\.png)", page))
    assert all(file.stat().st_size < 120_000 for file in tmp_path.iterdir())
