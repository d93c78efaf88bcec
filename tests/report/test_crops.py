"""What the page shows of frames and spikes: the right place, the right values, nothing of another recording."""

from __future__ import annotations

import base64
import dataclasses
import io

import numpy as np
import pytest

from spikevrt.evaluate.pictures import frame_path
from spikevrt.evaluate.results import read_results
from spikevrt.light import srgb_to_linear
from spikevrt.recording.alignment import Alignment
from spikevrt.recording.frames import read_image
from spikevrt.recording.recording import open_recording
from spikevrt.report import crops, data_uri
from tests.evaluate.made_results import EXPOSURE, HEIGHT, PERIOD, WIDTH


@pytest.fixture(scope="module")
def made(made_scores):
    results = read_results(made_scores)
    return results, crops.read_crops(results.recordings[0], results.methods)


def test_crops_are_cut_from_the_frames_at_the_place_they_say(made, made_scores):
    results, found = made
    assert [label for label, _ in found.images] == ["blur", "spikevrt_tiny", "vrt_tiny", "sharp"]
    top, left, height, width = found.box
    assert (height, width) == (crops.CROP_PX, crops.CROP_PX) and top % 2 == left % 2 == 0
    root = results.recordings[0].path
    kept = frame_path(made_scores, "spikevrt_tiny", "medium_astronaut", 1)
    files = {"blur": root / "blur" / "000001.png", "sharp": root / "sharp" / "000001.png", "spikevrt_tiny": kept}
    for label, image in found.images:
        if label in files:
            assert (image == read_image(files[label])[top : top + height, left : left + width]).all(), label


def test_a_method_without_kept_frames_is_read_from_its_picture(made):
    images = {label: image.astype(float) for label, image in made[1].images}
    mixed = 0.7 * images["blur"] + 0.3 * images["sharp"]
    assert np.abs(images["vrt_tiny"] - mixed).max() <= 0.5 + 1e-4  # rounded to whole levels


def test_a_method_without_any_picture_is_named(made_scores):
    results = read_results(made_scores)
    found = crops.read_crops(results.recordings[3], results.methods)  # the twin was not run on it
    assert found.without == ("vrt_tiny",) and len(found.images) == 3


def test_a_recording_that_is_gone_or_another_one_is_refused(made):
    results, _ = made
    entry = results.recordings[0]
    with pytest.raises(FileNotFoundError, match="nowhere: no such recording"):
        crops.read_crops(dataclasses.replace(entry, path=entry.path / "nowhere"), results.methods)
    with pytest.raises(ValueError, match="the results do not say where medium_astronaut lies"):
        crops.read_crops(dataclasses.replace(entry, path=None), results.methods)
    with pytest.raises(ValueError, match=r"not what was measured: \(3, 178, 142\) frames, width, height"):
        crops.read_crops(dataclasses.replace(entry, num_frames=5), results.methods)


def test_a_picture_of_another_size_is_refused_by_name(made, tmp_path):
    from spikevrt.evaluate.pictures import picture_path
    from spikevrt.recording.frames import write_image

    results, _ = made
    twin = dataclasses.replace(results.methods[2], folder=tmp_path)
    picture = picture_path(tmp_path, "vrt_tiny", "medium_astronaut")
    picture.parent.mkdir()
    write_image(picture, np.zeros((37, 41, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=rf"^{picture}: a sheet of 41x37 pixels; allowed"):
        crops.read_crops(results.recordings[0], [twin])


def test_the_error_map_is_black_without_error_and_lightest_from_64_levels_on():
    sharp = np.full((3, 5, 3), 100, dtype=np.uint8)
    image = sharp.copy()
    image[0, 1], image[1, 2], image[2, 4] = 100 + 32, 100 + 64, 0
    picture, mean = crops.error_map(image, sharp)
    assert tuple(picture[0, 0]) == crops.HEAT[0]
    assert tuple(picture[0, 1]) == crops.HEAT[2]  # half of 64 is the middle colour
    assert tuple(picture[1, 2]) == tuple(picture[2, 4]) == crops.HEAT[-1]
    assert mean == pytest.approx((32 + 64 + 100) / 15)


def test_the_profile_crosses_the_strongest_edge_from_dark_to_bright():
    sharp = np.full((41, 43, 3), 20, dtype=np.uint8)
    sharp[:, 23:] = 220  # between columns 22 and 23
    sharp[:, :5] = 60  # a weaker edge
    blur = np.full((41, 43, 3), 120, dtype=np.uint8)
    profile = crops.edge_profile([blur, sharp])
    assert profile.start[1] == profile.stop[1] and profile.start[0] < 22.5 < profile.stop[0]
    dark, bright = (float(srgb_to_linear(value)) for value in _levels(20, 220))
    values = profile.values[1]
    assert values[0] == pytest.approx(dark, abs=1e-6) and values[-1] == pytest.approx(bright, abs=1e-6)
    middle = profile.start[0] + (profile.offsets_px - profile.offsets_px[0])
    assert np.interp(22.5, middle, values) == pytest.approx((dark + bright) / 2, abs=1e-6)
    assert np.ptp(profile.values[0]) < 1e-6


def test_a_profile_fits_into_a_picture_as_small_as_five_pixels():
    noise = np.random.default_rng(3).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    profile = crops.edge_profile([noise])
    for x, y in (profile.start, profile.stop):
        assert 0 <= x <= 6 and 0 <= y <= 4


def test_a_picture_without_any_edge_has_a_profile():
    profile = crops.edge_profile([np.full((17, 19, 3), 50, dtype=np.uint8)])
    assert np.ptp(profile.values[0]) < 1e-6 and np.isfinite(profile.values[0]).all()


def _levels(*levels: int):
    import torch

    return (torch.tensor(level / 255, dtype=torch.float64) for level in levels)


def _unpacked(patch):
    _, _, num_rows, num_columns = patch["cells"]
    bits = np.unpackbits(np.frombuffer(base64.b64decode(patch["bits"]), dtype=np.uint8), bitorder="little")
    spikes = bits[: num_rows * num_columns * patch["ticks"]].reshape(num_rows, num_columns, patch["ticks"])
    rows, columns = (
        np.frombuffer(base64.b64decode(patch[key]), dtype="<u2").reshape(num_rows, num_columns).astype(int)
        for key in ("rows", "columns")
    )
    return spikes, rows, columns


def test_the_patch_holds_the_recording_s_spikes_of_exactly_those_pixels_and_ticks(made):
    _, found = made
    patch = crops.spike_patch(found)
    spikes, rows, columns = _unpacked(patch)
    start, ticks = patch["start"], patch["ticks"]
    assert (start, ticks) == (PERIOD + 2 - EXPOSURE // 2, EXPOSURE + 2 * (EXPOSURE // 2))
    stream = found.recording.spikes.read(start, start + ticks)
    assert (np.moveaxis(spikes, -1, 0) == stream[:, rows, columns]).all()
    top, left, height, width = found.box
    assert rows[0, 0] == top // 2 and columns[0, 0] == left // 2 and rows.shape == (height // 2, width // 2)
    assert [frame for *_, frame in patch["exposures"]] == [0, 1, 2]
    assert patch["exposure"] == [PERIOD + 2, PERIOD + 2 + EXPOSURE]


def test_a_patch_that_would_be_too_large_is_its_middle(made, monkeypatch):
    _, found = made
    whole, rows, columns = _unpacked(crops.spike_patch(found))
    monkeypatch.setattr(crops, "MAX_SPIKE_BYTES", 29 * 31 * whole.shape[2] // 8 + 1)
    patch = crops.spike_patch(found)
    smaller, small_rows, small_columns = _unpacked(patch)
    row, column, num_rows, num_columns = patch["cells"]
    assert num_rows == num_columns == 29 and (row, column) == (17, 17)  # (64 - 29) // 2
    here = np.s_[row : row + num_rows, column : column + num_columns]
    assert (
        (smaller == whole[here]).all() and (small_rows == rows[here]).all() and (small_columns == columns[here]).all()
    )


def test_an_aligned_recording_shows_the_pixel_that_its_cell_looks_at_and_none_beside_the_sensor(made):
    _, found = made
    shift = 5.0  # sensor pixels to the right
    homography = ((WIDTH / 2 / WIDTH, 0.0, shift), (0.0, HEIGHT / 2 / HEIGHT, 0.0), (0.0, 0.0, 1.0))
    moved = dataclasses.replace(found.recording, alignment=Alignment(homography=homography))
    left = WIDTH - crops.CROP_PX
    patch = crops.spike_patch(dataclasses.replace(found, recording=moved, box=(0, left, 128, 128)))
    spikes, rows, columns = _unpacked(patch)
    assert columns[0, 0] == left // 2 + 5 and rows[0, 0] == 0
    assert (columns[:, -5:] == crops.OUTSIDE).all() and (rows[:, -5:] == crops.OUTSIDE).all()
    assert (spikes[:, -5:] == 0).all() and columns[0, -6] == WIDTH // 2 - 1


def test_a_recording_without_spikes_has_no_patch(made):
    _, found = made
    assert (
        crops.spike_patch(dataclasses.replace(found, recording=dataclasses.replace(found.recording, spikes=None)))
        is None
    )


def test_a_lossless_picture_is_exact_and_a_whole_frame_no_wider_than_asked_for(made):
    from PIL import Image

    def opened(uri: str) -> Image.Image:
        return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))

    noise = np.random.default_rng(5).integers(0, 256, (23, 29, 3), dtype=np.uint8)
    assert (np.asarray(opened(data_uri(noise, lossless=True)).convert("RGB")) == noise).all()
    assert opened(data_uri(noise, lossless=False, max_width=17)).size == (17, 13)
    assert opened(data_uri(noise, lossless=False, max_width=37)).size == (29, 23)


def test_the_recording_is_not_changed(made):
    results, _ = made
    path = results.recordings[0].path
    assert open_recording(path).num_frames == 3 and not list(path.glob(".*"))
