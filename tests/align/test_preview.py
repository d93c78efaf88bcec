"""The sheet of readings: one cell each, in order, each in its own brightness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spikevrt.align.describe import LABEL_PX, SHEET_PX, draw_readings
from spikevrt.recording.frames import read_image


@pytest.mark.parametrize(("count", "size"), [(1, (1, 1)), (3, (1, 3)), (4, (1, 4)), (5, (2, 4))])
def test_the_sheet_has_four_cells_a_row(tmp_path: Path, count: int, size: tuple[int, int]) -> None:
    draw_readings(tmp_path / "a.png", [(str(index), np.full((5, 7), 0.1)) for index in range(count)])
    rows, columns = size
    assert read_image(tmp_path / "a.png").shape == (rows * (SHEET_PX + LABEL_PX), columns * SHEET_PX, 3)


def test_a_dark_picture_is_as_bright_as_a_light_one_and_stands_upright(tmp_path: Path) -> None:
    half = np.zeros((10, 10))
    half[:5] = 1.0
    draw_readings(tmp_path / "a.png", [("light", half), ("dark", 0.01 * half), ("empty", 0 * half)])
    sheet = read_image(tmp_path / "a.png")[LABEL_PX:].astype(int)
    for left in (0, SHEET_PX):
        assert sheet[10:100, left + 10 : left + 200].min() == 255
        assert sheet[140:220, left + 10 : left + 200].max() == 0
    assert sheet[:, 2 * SHEET_PX :].max() == 0


def test_the_widest_and_the_smallest_pictures_fit_their_cell(tmp_path: Path) -> None:
    draw_readings(tmp_path / "a.png", [("wide", np.ones((1, 5000))), ("point", np.ones((1, 1)))])
    assert read_image(tmp_path / "a.png").shape == (SHEET_PX + LABEL_PX, 2 * SHEET_PX, 3)
