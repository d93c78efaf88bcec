"""Pictures, videos and the page."""

from __future__ import annotations

import html
import re
from urllib.parse import unquote

import numpy as np
import pytest

from spikevrt.evaluate import runner
from spikevrt.recording.frames import read_image, to_float
from spikevrt.report import pictures as report
from spikevrt.restore.restorer import RestoreOptions
from tests.evaluate.conftest import write_recording


def _noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (36, 60, 3), dtype=np.uint8)


def test_columns_show_the_pictures_unchanged_in_the_order_given():
    images = [_noise(seed) for seed in (2, 3, 5)]
    sheet = report.columns(images, ["a", "b", "c"])
    assert sheet.shape == (report.LABEL_PX + 36 + report.GAP_PX, 3 * 60 + 2 * report.GAP_PX, 3)
    for index, image in enumerate(images):
        left = index * (60 + report.GAP_PX)
        assert (sheet[report.LABEL_PX :][:36, left : left + 60] == image).all()


def test_labels_are_drawn():
    sheet = report.columns([_noise(2)], ["blur"])
    assert sheet[: report.LABEL_PX].min() < 100


def test_the_detail_shows_where_the_blur_is_worst_magnified_six_times():
    sharp = np.full((36, 60, 3), 128, dtype=np.uint8)
    blur, restored = sharp.copy(), sharp.copy()
    blur[13:19, 41:51] = 0  # exactly one box of 6 x 10 pixels
    restored[13:19, 41:51] = 50
    sheet = report.three_columns(blur, restored, sharp)
    details = sheet[report.LABEL_PX + 36 + report.GAP_PX :][:36]
    for index, level in enumerate((0, 50, 128)):
        left = index * (60 + report.GAP_PX)
        assert (details[:, left : left + 60] == level).all()


def test_the_pictures_are_untouched():
    images = [_noise(seed) for seed in (2, 3, 5)]
    report.three_columns(*images)
    assert all((image == _noise(seed)).all() for image, seed in zip(images, (2, 3, 5), strict=True))


def test_everything_the_page_refers_to_lies_beside_it(tmp_path, offset_weights):
    recordings = [write_recording(tmp_path / "a"), write_recording(tmp_path / "b & <c> #2")]
    out = tmp_path / "out"
    runner.evaluate([offset_weights(0.0)], recordings, out, RestoreOptions(device="cpu"), keep_frames=True)
    page = (out / "report.html").read_text()
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 4  # a picture and a video for each recording
    for source in sources:
        assert "#" not in source and (out / unquote(html.unescape(source))).is_file(), source
    assert "<h2>b &amp; &lt;c&gt; #2</h2>" in page
    assert "psnr_rgb" in page and "http" not in page


def test_float_frames_are_written_as_the_same_picture(tmp_path):
    images = [_noise(seed) for seed in (2, 3, 5)]
    path = tmp_path / "new" / "picture.png"
    report.write_three_columns(path, *map(to_float, images))
    assert (read_image(path) == report.three_columns(*images)).all()


def test_the_restored_frame_comes_out_of_the_three_columns_unchanged():
    for shape in ((36, 60, 3), (37, 53, 3)):
        blur, restored, sharp = (
            np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8) for seed in (2, 3, 5)
        )
        sheet = report.three_columns(blur, restored, sharp)
        assert (report.restored_column(sheet, blur, sharp) == restored).all()


def test_a_sheet_of_frames_of_another_size_is_refused():
    sheet = report.three_columns(*(_noise(seed) for seed in (2, 3, 5)))
    smaller = _noise(2)[:30]
    with pytest.raises(ValueError, match=r"a sheet of 188x100 pixels; allowed: 188x"):
        report.restored_column(sheet, smaller, smaller)
