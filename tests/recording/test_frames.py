"""Images: listing, reading, writing, and the one uint8 <-> float conversion."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikevrt.recording.frames import (
    image_size,
    list_images,
    read_image,
    to_float,
    to_uint8,
    to_uint16,
    write_image,
)


def _image(height: int = 5, width: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_images_are_listed_in_natural_order_and_hidden_or_foreign_files_are_not(tmp_path: Path) -> None:
    for name in ("10.png", "9.png", "a2.jpg", "a10.jpg", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["9.png", "10.png", "a2.jpg", "a10.jpg"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone: no such folder"):
        list_images(tmp_path / "gone")


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images in it; allowed: .png"):
        list_images(tmp_path)


def test_png_write_then_read_is_identity_in_rgb_order(tmp_path: Path) -> None:
    image = _image()
    write_image(tmp_path / "a.png", image)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)
    assert image_size(tmp_path / "a.png") == (5, 7)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_red_jpeg_reads_red(tmp_path: Path) -> None:
    red = np.zeros((16, 16, 3), dtype=np.uint8)
    red[..., 0] = 255
    write_image(tmp_path / "red.jpg", red)
    assert np.abs(read_image(tmp_path / "red.jpg").astype(int) - red).max() <= 2


def test_a_suffix_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot write \.gif; allowed: \.png, \.jpg, \.jpeg"):
        write_image(tmp_path / "a.gif", _image())


def test_size_and_pixels_agree_when_the_camera_was_held_sideways(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    image = _image()
    Image.fromarray(image).save(tmp_path / "a.png", exif=exif)
    assert image_size(tmp_path / "a.png") == (7, 5)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(image, -1))


def test_sixteen_bit_grey_keeps_its_upper_eight_bits(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0, :, 1], [0, 1, 255])


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((3, 2), dtype=np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match="F pixels; allowed: 8 or 16 bits"):
        read_image(tmp_path / "a.tiff")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_truncated_image_is_one_line_that_names_the_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, _image(67, 71))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ValueError, match=f"a{suffix}: damaged image") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(ValueError, match=r"a\.png: not an image"):
        read_image(tmp_path / "a.png")


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.png: no such image"):
        image_size(tmp_path / "a.png")


def test_every_byte_survives_the_way_to_float_and_back() -> None:
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    frames = to_float(levels)
    assert frames.shape == (1, 3, 16, 16) and frames.dtype == torch.float32
    assert frames.min() == 0.0 and frames.max() == 1.0
    np.testing.assert_array_equal(to_uint8(frames), levels)


def test_conversion_leaves_its_inputs_alone() -> None:
    images = _image()
    images.flags.writeable = False
    frames = to_float(images)
    before = frames.clone()
    frames_out_of_range = frames * 3 - 1
    kept = frames_out_of_range.clone()
    to_uint8(frames_out_of_range)
    torch.testing.assert_close(frames, before, rtol=0, atol=0)
    torch.testing.assert_close(frames_out_of_range, kept, rtol=0, atol=0)


def test_out_of_range_values_clamp_and_halves_round() -> None:
    frames = torch.tensor([-0.5, 2.0, 1.6 / 255]).view(3, 1, 1)
    np.testing.assert_array_equal(to_uint8(frames).reshape(-1), [0, 255, 2])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_never_becomes_a_colour(bad: float) -> None:
    frames = torch.zeros(3, 2, 2)
    frames[0, 1, 1] = bad
    with pytest.raises(ValueError, match="1 of 12 values are NaN or infinite"):
        to_uint8(frames)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp", ".ppm"])
def test_a_picture_with_any_wrong_bytes_is_read_or_named_in_one_line(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "street"
    path, random = tmp_path / f"a{suffix}", np.random.default_rng(7)
    Image.fromarray(_image(24, 40)).save(path, **({} if suffix in (".bmp", ".ppm") else {"exif": exif}))
    right = path.read_bytes()
    for _ in range(300):
        wrong = bytearray(right)
        for _ in range(random.integers(1, 6)):
            wrong[random.integers(min(len(wrong), random.choice([60, 200, len(wrong)])))] = random.integers(256)
        path.write_bytes(wrong)
        for read in (image_size, read_image):
            try:
                read(path)
            except ValueError as error:
                assert str(error).startswith(f"{path}: ") and len(str(error).splitlines()) == 1, repr(error)


@pytest.mark.parametrize("error", [SyntaxError("not a TIFF"), struct.error("too\nshort"), OSError("broken")], ids=repr)
def test_whatever_pillow_raises_for_a_damaged_picture_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(_image()).save(tmp_path / "a.png", exif=exif)
    monkeypatch.setattr(Image.Image, "getexif", fails)
    text = " ".join(str(error).split())
    for read in (image_size, read_image):
        with pytest.raises(ValueError, match=rf"a\.png: damaged image \({text}\)$"):
            read(tmp_path / "a.png")


def test_16_bits_and_back_is_identity_for_every_level() -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    images = np.stack([levels, levels.T, levels[::-1]], axis=-1)
    frames = to_float(images)
    assert frames.dtype == torch.float32 and frames.shape == (3, 256, 256)
    assert (float(frames.min()), float(frames.max())) == (0.0, 1.0)
    np.testing.assert_array_equal(to_uint16(frames), images)


def test_the_same_colour_in_8_and_16_bits_is_the_same_float() -> None:
    levels = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    assert torch.equal(to_float(levels), to_float(levels.astype(np.uint16) * 257))


def test_float_images_stay_as_they_are() -> None:
    image = np.array([[[-0.5, 0.25, 7.0]]], dtype=np.float32)
    assert to_float(image).flatten().tolist() == [-0.5, 0.25, 7.0]


def test_to_uint16_clamps_rounds_and_refuses_what_is_not_finite() -> None:
    frame = torch.tensor([-1.0, 0.5, 2.0]).view(3, 1, 1)
    assert to_uint16(frame).flatten().tolist() == [0, 32768, 65535]
    frame[1] = float("nan")
    with pytest.raises(ValueError, match="1 of 3 values are NaN or infinite"):
        to_uint16(frame)
