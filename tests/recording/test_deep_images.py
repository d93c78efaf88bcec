"""Image files of more than 8 bits: every value survives; other programs read and write the same."""

from __future__ import annotations

import builtins
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import OpenEXR
import pytest
from PIL import Image

from spikevrt.recording import deep_images as deep
from spikevrt.recording.frames import image_size, read_image, read_pixels, write_pixels

U16 = np.random.default_rng(1).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
F32 = (np.random.default_rng(2).standard_normal((5, 7, 3)) * 3).astype(np.float32)
F32[0, 0] = (1e-7, 65504.0, 0.0)
U8 = (U16 >> 8).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("a.png", U16),
        ("a.png", U8),
        ("a.tif", U16),
        ("a.tiff", U8),
        ("a.tif", F32),
        ("a.exr", F32),
        ("a.exr", np.zeros((1, 1, 3), dtype=np.float32)),
        ("a.png", np.array([[[0, 257, 65535]]], dtype=np.uint16)),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.dtype}{value.shape[0]}",
)
def test_every_value_comes_back(tmp_path: Path, name: str, image: np.ndarray) -> None:
    before = image.copy()
    write_pixels(tmp_path / name, image)
    found = read_pixels(tmp_path / name)
    assert found.dtype == image.dtype
    np.testing.assert_array_equal(found, image)
    np.testing.assert_array_equal(image, before)
    assert image_size(tmp_path / name) == image.shape[:2]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    first = (tmp_path / name).read_bytes()
    write_pixels(tmp_path / name, image)
    assert (tmp_path / name).read_bytes() == first


def test_a_png_of_16_bits_is_what_opencv_reads_and_writes(tmp_path: Path) -> None:
    write_pixels(tmp_path / "ours.png", U16)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "ours.png"), cv2.IMREAD_UNCHANGED)[:, :, ::-1], U16)
    cv2.imwrite(str(tmp_path / "theirs.png"), U16[:, :, ::-1])
    np.testing.assert_array_equal(read_pixels(tmp_path / "theirs.png"), U16)
    np.testing.assert_array_equal(read_image(tmp_path / "theirs.png"), U8)  # the 8 bits of a PNG are its high bytes


def test_grey_float_tiff_is_repeated(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.tif"), F32[:, :, 0])
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.tif"), np.repeat(F32[:, :, :1], 3, axis=2))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_grey_is_repeated_and_transparency_dropped(tmp_path: Path, suffix: str) -> None:
    cv2.imwrite(str(tmp_path / f"grey{suffix}"), U16[:, :, 0])
    np.testing.assert_array_equal(read_pixels(tmp_path / f"grey{suffix}"), np.repeat(U16[:, :, :1], 3, axis=2))
    see_through = np.concatenate([U16[:, :, ::-1], U16[:, :, :1]], axis=2)
    cv2.imwrite(str(tmp_path / f"alpha{suffix}"), see_through)
    np.testing.assert_array_equal(read_pixels(tmp_path / f"alpha{suffix}"), U16)


def test_grey_with_transparency_of_16_bits_is_grey(tmp_path: Path) -> None:
    import av

    context: Any = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt, context.time_base = 7, 5, "ya16be", Fraction(1)
    frame = av.VideoFrame(7, 5, "ya16be")
    plane = frame.planes[0]
    lines = np.zeros((5, plane.line_size // 2), dtype=">u2")
    lines[:, :14] = U16[:, :, :2].reshape(5, 14)
    plane.update(lines.tobytes())
    (tmp_path / "a.png").write_bytes(b"".join(bytes(packet) for packet in context.encode(frame)))
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png"), np.repeat(U16[:, :, :1], 3, axis=2))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_deep_picture_lies_as_pillow_would_turn_it(tmp_path: Path, orientation: int, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(U8).save(tmp_path / name, exif=exif)
    upright = read_image(tmp_path / name)
    if name == "a.png":  # put the chunk of the turned picture into a deep one
        write_pixels(tmp_path / "deep.png", U8.astype(np.uint16) * 257)
        data, turned = (tmp_path / "deep.png").read_bytes(), (tmp_path / name).read_bytes()
        start = turned.index(b"eXIf") - 4
        chunk = turned[start : start + 12 + int.from_bytes(turned[start : start + 4], "big")]
        (tmp_path / "deep.png").write_bytes(data[:33] + chunk + data[33:])
        found = read_pixels(tmp_path / "deep.png")
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found >> 8, upright)
        assert image_size(tmp_path / "deep.png") == upright.shape[:2]
    np.testing.assert_array_equal(read_pixels(tmp_path / name), upright)
    assert image_size(tmp_path / name) == upright.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_deep_tiff_lies_as_pillow_would_turn_it(tmp_path: Path, orientation: int) -> None:
    number = np.arange(35, dtype=np.uint8).reshape(5, 7)
    colours = np.repeat(number[:, :, None], 3, axis=2)  # Pillow 13 turns colours, and forgets to turn grey
    Image.fromarray(colours).save(tmp_path / "shallow.tif", tiffinfo={0x0112: orientation})
    upright = read_image(tmp_path / "shallow.tif")
    assert upright.shape == ((7, 5, 3) if orientation >= 5 else (5, 7, 3))
    Image.fromarray(number * np.uint16(1001)).save(tmp_path / "deep.tif", tiffinfo={0x0112: orientation})
    np.testing.assert_array_equal(read_pixels(tmp_path / "deep.tif"), upright * np.uint16(1001))
    assert image_size(tmp_path / "deep.tif") == upright.shape[:2]


def _write_exr(path: Path, channels: dict[str, np.ndarray], **header: Any) -> None:
    whole = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, **header}
    with OpenEXR.File(whole, channels) as file:
        file.write(str(path))


@pytest.mark.parametrize(
    "compression",
    [OpenEXR.NO_COMPRESSION, OpenEXR.RLE_COMPRESSION, OpenEXR.ZIPS_COMPRESSION, OpenEXR.PIZ_COMPRESSION],
    ids=str,
)
def test_half_floats_of_any_lossless_compression_are_read_exactly(tmp_path: Path, compression: Any) -> None:
    half = F32.astype(np.float16)
    _write_exr(tmp_path / "a.exr", {"RGB": half}, compression=compression)
    found = read_pixels(tmp_path / "a.exr")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, half.astype(np.float32))


def test_grey_exr_is_repeated_and_other_channels_do_not_disturb(tmp_path: Path) -> None:
    _write_exr(tmp_path / "grey.exr", {"Y": F32[:, :, 0].copy()})
    np.testing.assert_array_equal(read_pixels(tmp_path / "grey.exr"), np.repeat(F32[:, :, :1], 3, axis=2))
    _write_exr(tmp_path / "depth.exr", {"RGB": F32, "Z": F32[:, :, 0].copy()})
    np.testing.assert_array_equal(read_pixels(tmp_path / "depth.exr"), F32)
    _write_exr(tmp_path / "z.exr", {"Z": F32[:, :, 0].copy()})
    with pytest.raises(ValueError, match=r"z\.exr: channels Z; allowed: R, G, B or Y"):
        read_pixels(tmp_path / "z.exr")


def test_data_that_lie_beside_the_display_window_are_put_where_they_belong(tmp_path: Path) -> None:
    window = {
        "dataWindow": (np.array([2, -1], dtype=np.int32), np.array([8, 3], dtype=np.int32)),  # columns 2-8, rows -1-3
        "displayWindow": (np.array([0, 0], dtype=np.int32), np.array([5, 5], dtype=np.int32)),
    }
    _write_exr(tmp_path / "a.exr", {"RGB": F32}, **window)
    expected = np.zeros((6, 6, 3), dtype=np.float32)
    expected[0:4, 2:6] = F32[1:5, 0:4]
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.exr"), expected)
    assert image_size(tmp_path / "a.exr") == (6, 6)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.exr"])
def test_a_truncated_file_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    image = np.random.default_rng(0).integers(0, 65536, (64, 64, 3), dtype=np.uint16)
    write_pixels(tmp_path / name, image if name != "a.exr" else image.astype(np.float32))
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=f"{name}: ") as caught:
        read_pixels(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.exr"])
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not a picture at all, but long enough for a header")
    with pytest.raises(ValueError, match=f"{name}: not an "):
        read_pixels(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="gone: no such image"):
        read_pixels(tmp_path / "gone")


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        ("a.exr", U16, r"a\.exr: uint16 in \.exr; allowed: float32 \(or \.png, \.tif, \.tiff\)"),
        ("a.png", F32, r"a\.png: float32 in \.png; allowed: uint8, uint16 \(or \.tif, \.tiff, \.exr\)"),
        ("a.jpg", U16, r"uint16 in \.jpg; allowed: uint8"),
        ("a.webp", U8, r"cannot write \.webp; allowed: \.png"),
    ],
)
def test_what_a_format_does_not_hold_is_not_written(tmp_path: Path, name: str, image: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_pixels(tmp_path / name, image)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "package", "extra"), [("a.exr", "OpenEXR", "exr"), ("a.tif", "cv2", "tiff")])
def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str, extra: str
) -> None:
    write_pixels(tmp_path / name, F32)
    honest = builtins.__import__

    def without(module: str, *arguments: Any, **options: Any) -> Any:
        if module == package:
            raise ModuleNotFoundError(name=module)
        return honest(module, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    for call in (lambda: read_pixels(tmp_path / name), lambda: write_pixels(tmp_path / f"b{name}", F32)):
        with pytest.raises(ValueError, match=rf"needs .*; pip install 'spikevrt\[{extra}\]'"):
            call()


def test_depth_is_told_by_the_header(tmp_path: Path) -> None:
    for name, image, is_deep, is_float in (
        ("a.png", U8, False, False),
        ("b.png", U16, True, False),
        ("a.tif", U8, False, False),
        ("b.tif", U16, True, False),
        ("c.tif", F32, True, True),
        ("a.exr", F32, True, True),
        ("a.jpg", U8, False, False),
    ):
        write_pixels(tmp_path / name, image)
        assert (deep.is_deep(tmp_path / name), deep.is_float(tmp_path / name)) == (is_deep, is_float), name
