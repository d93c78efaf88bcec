"""Single images: list, measure, read and write them, and those of a video as RGB; the one conversion between images
and float frames.

Dimension key: H rows, W columns, 3 colours (RGB, never BGR). Images are uint8 (H, W, 3), at full depth also uint16 or
float32 (`read_pixels`); frames are float32 (3, H, W).
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from spikevrt.atomic import complete_or_absent
from spikevrt.light import BT709, EXACT_COLOURS, FULL_RANGE, HDR_TRANSFERS, LIMITED_RANGE, UNSPECIFIED, hdr_table
from spikevrt.recording import deep_images
from spikevrt.recording.arrays import load_npy

if TYPE_CHECKING:
    from jaxtyping import Float, Float32, Shaped, UInt8, UInt16
    from PIL.Image import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".exr")
WRITE_SUFFIXES = (".png", ".jpg", ".jpeg")
# what `write_pixels` writes, by suffix
DEPTHS = {
    ".png": ("uint8", "uint16"),
    ".jpg": ("uint8",),
    ".jpeg": ("uint8",),
    ".tif": ("uint8", "uint16", "float32"),
    ".tiff": ("uint8", "uint16", "float32"),
    ".exr": ("float32",),
}
EXIF_ORIENTATION = 0x0112


def list_images(folder: Path) -> list[Path]:
    """The images of a folder in natural order (2.png before 10.png); hidden files are skipped.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: the folder holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    images = [
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".") and entry.is_file()
    ]
    if not images:
        raise ValueError(f"{folder}: no images in it; allowed: {', '.join(IMAGE_SUFFIXES)}")
    return sorted(images, key=_natural_key)


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of the upright image, read from the header alone.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image; an EXR or float TIFF without the package that reads it.
    """
    if deep_images.is_float(path) and Path(path).is_file():
        return deep_images.exr_size(path) if Path(path).suffix.lower() == ".exr" else deep_images.tiff_size(path)
    with _opened(Path(path)) as image:
        width, height = image.size
        if _orientation_in(image) >= 5:
            width, height = height, width
    return height, width


def read_image(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Decode one image to RGB: upright (EXIF), transparency dropped, grey repeated, 16 bits cut to 8.

    An .npy holds uint8 (H, W, 3) as it is: a frame of a prepared dataset.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is truncated, damaged, or no image of 8 or 16 bits.
    """
    from PIL import ImageOps

    path = Path(path)
    if path.suffix == ".npy" and path.is_file():
        return _read_npy(path)
    if path.suffix.lower() == ".exr" and path.is_file():
        raise ValueError(f"{path}: an EXR; allowed: 8 or 16 bits a colour")
    deep_images.check_png(path)
    with _opened(path) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):
            grey = (np.asarray(upright) >> 8).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
        if upright.mode in ("I", "F"):
            raise ValueError(f"{path}: {upright.mode} pixels; allowed: 8 or 16 bits a colour")
        return np.array(upright.convert("RGB"))


def _read_npy(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    array = np.array(load_npy(path))
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"{path}: {array.dtype} of shape {array.shape}; allowed: uint8 (H, W, 3)")
    return array


def read_pixels(
    path: Path,
) -> UInt8[np.ndarray, "H W 3"] | UInt16[np.ndarray, "H W 3"] | Float32[np.ndarray, "H W 3"]:
    """Decode one image to upright RGB at the depth that is stored: uint8, uint16 (PNG, TIFF) or float32 (TIFF, EXR).

    Images of 8 bits are those of `read_image`. Float values are as stored, beyond [0, 1] too.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as `read_image`; an EXR or deep TIFF without the package that reads it (extras `exr`, `tiff`).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image")
    if not deep_images.is_deep(path):
        return read_image(path)
    if path.suffix.lower() == ".exr":
        return deep_images.read_exr(path)
    if path.suffix.lower() in deep_images.TIFF_SUFFIXES:
        return deep_images.read_tiff(path)
    deep_images.check_png(path)
    with _opened(path) as image:
        orientation = _orientation_in(image)
    return _upright(deep_images.read_png16(path), orientation)


def video_pixels(
    frame: Any, quarter_turns: int, *, deep: bool
) -> UInt8[np.ndarray, "H W 3"] | UInt16[np.ndarray, "H W 3"] | Float32[np.ndarray, "H W 3"]:
    """A decoded frame of a video (PyAV's) as RGB, turned anticlockwise; of which depth: as `video.iter_video`."""
    bits = max(component.bits for component in frame.format.components)
    is_hdr = int(frame.color_trc) in HDR_TRANSFERS
    convert = _grey if frame.format.name.startswith("gray") else _colours
    image = convert(frame, bits, deep=is_hdr or (deep and bits > 8))
    if is_hdr:
        image = hdr_table(int(frame.color_trc))[image]
        image = image if deep else np.round(image.clip(0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.rot90(image, quarter_turns))


def _colours(frame: Any, bits: int, *, deep: bool) -> np.ndarray:
    untagged_hd = int(frame.colorspace) == UNSPECIFIED and frame.height >= 720
    source = BT709 if untagged_hd else None
    if not deep:
        return frame.to_ndarray(format="rgb24", src_colorspace=source, interpolation=EXACT_COLOURS)
    if frame.format.name in ("gbrp10le", "gbrp12le"):  # as they are: the scaler would round
        top = (1 << bits) - 1
        return ((frame.to_ndarray().astype(np.uint32) * 65535 + top // 2) // top).astype(np.uint16)
    image = frame.to_ndarray(format="rgb48le", src_colorspace=source, interpolation=EXACT_COLOURS)
    if frame.format.is_rgb:
        return image
    # white of the scaler's 16 bits where it comes from YUV
    top = ((1 << bits) - 1) << (16 - bits) if int(frame.color_range) == FULL_RANGE else 255 << 8
    return np.minimum((image.astype(np.uint32) * 65535 + top // 2) // top, 65535).astype(np.uint16)


def _grey(frame: Any, bits: int, *, deep: bool) -> np.ndarray:
    """A picture of luma alone, whose range FFmpeg's scaler does not obey."""
    levels = frame.to_ndarray().astype(np.float64)
    black, white = 0.0, float((1 << bits) - 1)
    if int(frame.color_range) == LIMITED_RANGE:
        black, white = 16.0 * 2 ** (bits - 8), 235.0 * 2 ** (bits - 8)
    top, kind = (65535, np.uint16) if deep else (255, np.uint8)
    grey = np.round(((levels - black) / (white - black)).clip(0, 1) * top).astype(kind)
    return np.repeat(grey[:, :, None], 3, axis=2)


def check_size(path: Path, size: tuple[int, int], expected: tuple[int, int]) -> None:
    """(height, width) of a picture against what it must be. Raises ValueError."""
    if size != expected:
        raise ValueError(f"{path}: {size[1]}x{size[0]} pixels; the recording has {expected[1]}x{expected[0]}")


def write_pixels(path: Path, image: Shaped[np.ndarray, "H W 3"]) -> None:
    """Write an image at its own depth (`DEPTHS`) under its final name only when it is complete; float without loss.
    Raises ValueError: a suffix or depth that is not written, or a package that is not installed (extras `exr`,
    `tiff`)."""
    path = Path(path)
    suffix, depth = path.suffix.lower(), str(image.dtype)
    if suffix not in DEPTHS:
        raise ValueError(f"{path}: cannot write {suffix or 'a file without suffix'}; allowed: {', '.join(DEPTHS)}")
    if depth not in DEPTHS[suffix]:
        fitting = [name for name, depths in DEPTHS.items() if depth in depths]
        raise ValueError(f"{path}: {depth} in {suffix}; allowed: {', '.join(DEPTHS[suffix])} (or {', '.join(fitting)})")
    assert image.ndim == 3 and image.shape[2] == 3, image.shape
    if depth == "uint8" and suffix in WRITE_SUFFIXES:
        write_image(path, image)
        return
    with complete_or_absent(path) as partial:
        if suffix == ".exr":
            deep_images.write_exr(partial, path, image)
        else:
            partial.write_bytes(
                deep_images.encode_png16(image) if suffix == ".png" else deep_images.encode_tiff(path, image)
            )


def write_image(path: Path, image: UInt8[np.ndarray, "H W 3"]) -> None:
    """Write a PNG or JPEG (quality 95) under its final name only when it is complete. Raises ValueError: the suffix is
    neither .png nor .jpg/.jpeg."""
    from PIL import Image

    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITE_SUFFIXES:
        raise ValueError(
            f"{path}: cannot write {suffix or 'a file without suffix'}; allowed: {', '.join(WRITE_SUFFIXES)}"
        )
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, (image.dtype, image.shape)
    with complete_or_absent(path) as partial:
        picture = Image.fromarray(np.ascontiguousarray(image))
        if suffix == ".png":
            picture.save(partial, format="PNG", compress_level=3)
        else:
            picture.save(partial, format="JPEG", quality=95, subsampling=0)


def to_float(images: Shaped[np.ndarray, "... H W 3"]) -> Float[Tensor, "... 3 H W"]:
    """Images to float32 frames: uint8 and uint16 to [0, 1], float32 as it is; where 255 and 65535 become 1."""
    assert images.dtype in (np.uint8, np.uint16, np.float32) and images.shape[-1] == 3, (images.dtype, images.shape)
    planes = np.moveaxis(images, -1, -3).copy(order="C")
    if planes.dtype == np.float32:
        return torch.from_numpy(planes)
    return torch.from_numpy(planes).to(torch.float32).div_(float(np.iinfo(planes.dtype).max))


def to_uint8(frames: Float[Tensor, "... 3 H W"]) -> UInt8[np.ndarray, "... H W 3"]:
    """Float frames to uint8 images: clamp to [0, 1], times 255, round to nearest. Raises ValueError: a value is NaN or
    infinite; it is never replaced by a colour."""
    levels = (_finite(frames).clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    return levels.movedim(-3, -1).contiguous().numpy()


def to_uint16(frames: Float[Tensor, "... 3 H W"]) -> UInt16[np.ndarray, "... H W 3"]:
    """Float frames to uint16 images: clamp to [0, 1], times 65535, round to nearest. Raises as `to_uint8`."""
    levels = (_finite(frames).clamp(0.0, 1.0) * 65535.0).round().to(torch.int32)
    return levels.movedim(-3, -1).contiguous().numpy().astype(np.uint16)


def _finite(frames: Tensor) -> Tensor:
    assert frames.ndim >= 3 and frames.shape[-3] == 3, tuple(frames.shape)
    values = frames.detach().to("cpu", torch.float32)
    if not torch.isfinite(values).all():
        num_bad = int((~torch.isfinite(values)).sum())
        raise ValueError(
            f"frames: {num_bad} of {values.numel()} values are NaN or infinite; no image can be made of them"
        )
    return values


def _orientation_in(image: Image) -> int:
    """EXIF's number for how the picture lies, 1 to 8 (1: upright; of a TIFF always, Pillow turns it)."""
    # asking a PNG without EXIF for it would decode the whole picture
    return int(image.getexif().get(EXIF_ORIENTATION, 1)) if "exif" in image.info else 1


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """The picture turned as its EXIF orientation says."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """A picture. What Pillow raises or warns of for a damaged one, of many types, is one line with its name here."""
    from PIL import Image

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(path)
        except Exception as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise  # not to be opened at all
            raise ValueError(f"{path}: not an image, or a damaged one") from None
        with image:
            deep_images.check_claim(path, image.width, image.height)
            try:
                yield image
            except Exception as error:
                text = " ".join(str(error).split()) or type(error).__name__
                raise ValueError(text if text.startswith(str(path)) else f"{path}: damaged image ({text})") from None


def _natural_key(path: Path) -> tuple[list[str | int], str]:
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], path.name
