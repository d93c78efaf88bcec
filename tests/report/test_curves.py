"""Pictures of journals: what is drawn is what the rows say; the file is whole or not there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spikevrt.report import charts
from spikevrt.report.charts import draw_comparison, draw_curves, draw_run
from spikevrt.train.journal import score_name, series


def train_row(step: int, **values: Any) -> dict[str, Any]:
    return {"kind": "train", "step": step, "loss": 1.0 / step, "lr": 1e-3, "grad_norm": 2.0, "skipped": 0} | values


def validation_row(step: int, psnr_rgb: float | None, **values: Any) -> dict[str, Any]:
    row = {"kind": "validation", "step": step, "psnr_rgb": psnr_rgb, "psnr_rgb_blur": 20.0, "best": True}
    return row | values


def journal() -> list[dict[str, Any]]:
    rows = [train_row(step, loss_charbonnier=0.5 / step, loss_fft=0.1) for step in (1, 2, 3, 4)]
    return [*rows[:2], validation_row(2, 21.0), *rows[2:], validation_row(4, 23.0)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The panels of every figure that is saved, to look at their lines."""
    seen: list[Any] = []
    save = charts._save

    def look(figure: Any, panels: Any, path: Any, title: str) -> Path:
        seen.extend(panels)
        return save(figure, panels, path, title)

    monkeypatch.setattr(charts, "_save", look)
    return seen


def line_of(panel: Any, label: str) -> Any:
    return next(line for line in panel.lines if line.get_label() == label)


def labels(panel: Any) -> list[str]:
    return [line.get_label() for line in panel.lines if not line.get_label().startswith("_")]


def test_a_run_is_drawn_as_a_picture_with_something_on_it(tmp_path: Path):
    assert draw_curves(journal(), tmp_path / "curves.png") == tmp_path / "curves.png"
    picture = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB"))
    assert picture.shape[0] > 500 and picture.shape[1] > 800
    assert picture.std() > 5
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_the_lines_are_the_rows(tmp_path: Path, drawn: list[Any]):
    draw_curves(journal(), tmp_path / "curves.png")
    loss, score, lr, norm = drawn
    np.testing.assert_array_equal(line_of(loss, "loss").get_xydata(), [[1, 1], [2, 1 / 2], [3, 1 / 3], [4, 1 / 4]])
    assert labels(loss) == ["charbonnier", "fft", "loss"]
    np.testing.assert_array_equal(line_of(score, "psnr_rgb").get_xydata(), [[2, 21], [4, 23]])
    assert labels(score) == ["psnr_rgb", "best 23.00, step 4", "blurry input 20.00"]
    assert list(lr.lines[0].get_ydata()) == [1e-3] * 4
    assert list(norm.lines[0].get_ydata()) == [2.0] * 4


def test_the_loss_is_drawn_as_it_was_and_as_its_running_mean(tmp_path: Path, drawn: list[Any]):
    losses = [3.0 * (step % 3) for step in range(20)]  # 0, 3, 6, 0, ...: 3 on average
    draw_curves([train_row(step, loss=loss) for step, loss in enumerate(losses, start=1)], tmp_path / "curves.png")
    as_it_was, mean = drawn[0].lines
    assert list(as_it_was.get_ydata()) == losses
    assert list(mean.get_ydata()) == [1.5, *[3.0] * 18, 1.5]
    assert labels(drawn[0]) == ["loss"]


def test_every_axis_says_what_it_shows(tmp_path: Path, drawn: list[Any]):
    draw_curves(journal(), tmp_path / "curves.png")
    assert {panel.get_xlabel() for panel in drawn} == {"step"}
    assert [panel.get_ylabel() for panel in drawn] == [
        "training loss",
        "validation psnr_rgb, dB",
        "learning rate",
        "gradient norm before clipping",
    ]


def test_the_best_is_the_highest_and_not_the_last(tmp_path: Path, drawn: list[Any]):
    draw_curves([validation_row(1, 25.0), validation_row(2, 24.0)], tmp_path / "curves.png")
    assert "best 25.00, step 1" in labels(drawn[1])


def test_a_self_supervised_run_is_judged_by_its_reblurring(tmp_path: Path, drawn: list[Any]):
    rows = [train_row(1), {"kind": "validation", "step": 1, "reblur_psnr": 30.0}]
    draw_curves(rows, tmp_path / "curves.png")
    assert drawn[1].get_ylabel() == "validation reblur_psnr, dB"
    assert labels(drawn[1]) == ["reblur_psnr", "best 30.00, step 1"]


def test_a_run_that_was_not_validated_yet_says_so(tmp_path: Path, drawn: list[Any]):
    draw_curves([train_row(1)], tmp_path / "curves.png")
    assert [text.get_text() for text in drawn[1].texts] == ["not validated yet"]


def test_a_journal_without_rows_can_be_drawn(tmp_path: Path):
    assert draw_curves([], tmp_path / "curves.png") is not None


def test_numbers_that_were_not_finite_are_left_out(tmp_path: Path, drawn: list[Any]):
    draw_curves([train_row(1), train_row(2, loss=None, grad_norm=None, skipped=1), train_row(3)], tmp_path / "c.png")
    assert list(line_of(drawn[0], "loss").get_xdata()) == [1, 3]
    assert list(line_of(drawn[3], "skipped steps: 1").get_xdata()) == [2]


def test_a_long_journal_is_thinned_to_means_and_largest_norms(tmp_path: Path, drawn: list[Any]):
    rows = [train_row(step, loss=float(step), grad_norm=float(step)) for step in range(1, 801)]
    draw_curves(rows, tmp_path / "curves.png")
    np.testing.assert_array_equal(drawn[0].lines[0].get_xydata()[:2], [[2, 1.5], [4, 3.5]])
    np.testing.assert_array_equal(drawn[3].lines[0].get_xydata()[:2], [[2, 2], [4, 4]])
    assert len(drawn[0].lines[0].get_xdata()) == 400


def test_the_rows_are_left_untouched(tmp_path: Path):
    rows = journal()
    draw_curves(rows, tmp_path / "curves.png")
    assert rows == journal()


def test_the_same_rows_give_the_same_bytes(tmp_path: Path):
    for name in ("a.png", "b.png"):
        draw_curves(journal(), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "curves.png").write_text("the old one")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        draw_curves(journal(), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_text() == "the old one"
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_drawing_leaves_no_global_figure_behind(tmp_path: Path):
    import matplotlib.pyplot

    draw_curves(journal(), tmp_path / "curves.png")
    assert matplotlib.pyplot.get_fignums() == []


def test_two_runs_are_drawn_over_the_same_steps(tmp_path: Path, drawn: list[Any]):
    other = [train_row(1, loss=3.0), validation_row(1, 22.0)]
    draw_comparison([("runs/a", journal()), ("runs/b", other)], tmp_path / "both.png")
    loss, score = drawn
    assert labels(loss) == ["runs/a", "runs/b"]
    assert labels(score) == ["runs/a", "runs/b", "blurry input 20.00"]
    assert [text.get_text() for text in score.texts] == ["23.00", "22.00"]
    assert list(line_of(score, "runs/b").get_ydata()) == [22.0]


def test_blurry_inputs_that_differ_have_a_line_each(tmp_path: Path, drawn: list[Any]):
    other = [validation_row(1, 22.0, psnr_rgb_blur=19.0)]
    draw_comparison([("a", journal()), ("b", other)], tmp_path / "both.png")
    assert labels(drawn[1])[2:] == ["blurry input 20.00 (a)", "blurry input 19.00 (b)"]


def test_scores_of_two_kinds_are_named(tmp_path: Path, drawn: list[Any]):
    other = [{"kind": "validation", "step": 1, "reblur_psnr": 30.0}]
    draw_comparison([("a", journal()), ("b", other)], tmp_path / "both.png")
    assert drawn[1].get_ylabel() == "validation score, dB"
    assert labels(drawn[1])[:2] == ["a (psnr_rgb)", "b (reblur_psnr)"]


def test_runs_without_scores_can_be_compared(tmp_path: Path, drawn: list[Any]):
    draw_comparison([("a", [train_row(1)]), ("b", [])], tmp_path / "both.png")
    assert [text.get_text() for text in drawn[1].texts] == ["not validated yet"]


def test_a_run_goes_on_where_its_curves_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any) -> None:
        raise OSError("no space left")

    (tmp_path / "journal.jsonl").write_text("\n".join(map(json.dumps, journal())) + "\n")
    monkeypatch.setattr(os, "replace", full)
    draw_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["journal.jsonl"]


def test_the_score_of_a_run_is_psnr_rgb_where_it_has_one():
    assert score_name(journal()) == "psnr_rgb"
    assert score_name([{"kind": "validation", "step": 1, "reblur_psnr": 30.0}]) == "reblur_psnr"
    assert score_name([train_row(1), validation_row(1, None)]) is None


def test_a_series_holds_numbers_alone():
    rows = [train_row(1), train_row(2, loss=None), train_row(3, loss="high"), validation_row(4, 20.0)]
    assert series(rows, "train", "loss") == [(1, 1.0)]
