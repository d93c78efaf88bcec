"""Labelled pictures of restored frames."""

from __future__ import annotations

import numpy as np
import pytest

from spikevrt.evaluate import pictures
from spikevrt.recording.frames import read_image, to_float


def _noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (36, 60, 3), dtype=np.uint8)


def test_columns_show_the_pictures_unchanged_in_the_order_given():
    images = [_noise(seed) for seed in (2, 3, 5)]
    sheet = pictures.columns(images, ["a", "b", "c"])
    assert sheet.shape == (pictures.LABEL_PX + 36 + pictures.GAP_PX, 3 * 60 + 2 * pictures.GAP_PX, 3)
    for index, image in enumerate(images):
        left = index * (60 + pictures.GAP_PX)
        assert (sheet[pictures.LABEL_PX :][:36, left : left + 60] == image).all()


def test_labels_are_drawn():
    sheet = pictures.columns([_noise(2)], ["blur"])
    assert sheet[: pictures.LABEL_PX].min() < 100


def test_the_label_names_the_network_that_restored():
    images = [np.zeros((36, 240, 3), dtype=np.uint8)] * 3
    one, other = (pictures.three_columns(*images, name) for name in ("spikefold_tiny", "vrt_tiny"))
    label = slice(0, pictures.LABEL_PX), slice(240 + pictures.GAP_PX, 480 + pictures.GAP_PX)
    assert (one[label] != other[label]).any() and (one[pictures.LABEL_PX :] == other[pictures.LABEL_PX :]).all()


def test_the_detail_shows_where_the_blur_is_worst_magnified_six_times():
    sharp = np.full((36, 60, 3), 128, dtype=np.uint8)
    blur, restored = sharp.copy(), sharp.copy()
    blur[13:19, 41:51] = 0  # exactly one box of 6 x 10 pixels
    restored[13:19, 41:51] = 50
    sheet = pictures.three_columns(blur, restored, sharp, "net")
    details = sheet[pictures.LABEL_PX + 36 + pictures.GAP_PX :][:36]
    for index, level in enumerate((0, 50, 128)):
        left = index * (60 + pictures.GAP_PX)
        assert (details[:, left : left + 60] == level).all()


def test_the_pictures_are_untouched():
    images = [_noise(seed) for seed in (2, 3, 5)]
    pictures.three_columns(*images, "net")
    assert all((image == _noise(seed)).all() for image, seed in zip(images, (2, 3, 5), strict=True))


def test_float_frames_are_written_as_the_same_picture(tmp_path):
    images = [_noise(seed) for seed in (2, 3, 5)]
    path = tmp_path / "new" / "picture.png"
    pictures.write_three_columns(path, *map(to_float, images), "net")
    assert (read_image(path) == pictures.three_columns(*images, "net")).all()


def test_the_restored_frame_comes_out_of_the_three_columns_unchanged():
    for shape in ((36, 60, 3), (37, 53, 3)):
        blur, restored, sharp = (
            np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8) for seed in (2, 3, 5)
        )
        sheet = pictures.three_columns(blur, restored, sharp, "net")
        assert (pictures.restored_column(sheet, blur, sharp) == restored).all()


def test_a_sheet_of_frames_of_another_size_is_refused():
    sheet = pictures.three_columns(*(_noise(seed) for seed in (2, 3, 5)), "net")
    smaller = _noise(2)[:30]
    with pytest.raises(ValueError, match=r"a sheet of 188x100 pixels; allowed: 188x"):
        pictures.restored_column(sheet, smaller, smaller)
