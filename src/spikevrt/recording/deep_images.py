"""Image files of more than 8 bits a colour: 16-bit PNG (PyAV), 16-bit and float TIFF (OpenCV), EXR (OpenEXR).

Grey is repeated, transparency dropped. The packages of TIFF and EXR are extras; without them the files are refused with
the extra's name.

Dimension key: H rows, W columns, 3 colours (RGB).
"""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float32, Shaped, UInt16

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_IMAGE_BYTES = 3 << 28  # decoded; a header that claims more is taken for damage, not for a picture
ANY_PIXELS, PIXELS_A_BYTE = 1 << 24, 8320  # what any file may claim; of black and white, deflate's most from a byte
WIDTH, HEIGHT = 256, 257  # TIFF's tags
TIFF_SUFFIXES = (".tif", ".tiff")
BITS_PER_SAMPLE, SAMPLE_FORMAT, FLOAT_SAMPLES = 258, 339, 3  # TIFF's tags, and a value of the second


def is_deep(path: Path) -> bool:
    """Whether the header says more than 8 bits a colour. A damaged file is not deep; reading it raises the error."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".exr":
        return True
    if suffix == ".png":
        with path.open("rb") as file:
            head = file.read(25)
        return head.startswith(PNG_SIGNATURE) and len(head) == 25 and head[24] == 16
    if suffix in TIFF_SUFFIXES:
        return _tiff_tags(path)[0] > 8
    return False


def is_float(path: Path) -> bool:
    """Whether the file holds floating point: EXR, and TIFF whose header says so."""
    path = Path(path)
    if path.suffix.lower() == ".exr":
        return True
    return path.suffix.lower() in TIFF_SUFFIXES and _tiff_tags(path)[1] == FLOAT_SAMPLES


def check_claim(path: Path, width: int, height: int, pixel_bytes: int = 3) -> None:
    """Raises ValueError where a header claims more pixels than a picture may have, or than so many bytes can hold."""
    held = max(ANY_PIXELS, PIXELS_A_BYTE * path.stat().st_size)
    most = min(MAX_IMAGE_BYTES // pixel_bytes, held)
    if width * height > most:
        raise ValueError(f"{path}: claims {width}x{height} pixels; allowed: at most {most}")


def check_png(path: Path) -> None:
    """Raises ValueError where a PNG ends too early, or a chunk's checksum is not that of the chunk: decoders of the
    pictures' data do not compare them all."""
    data = memoryview(path.read_bytes() if path.is_file() else b"")
    if data[:8] != PNG_SIGNATURE:
        return
    at, kind = 8, b""
    while kind != b"IEND":
        kind, end = bytes(data[at + 4 : at + 8]), at + 8 + int.from_bytes(data[at : at + 4], "big")
        if len(data[end:]) < 4 or zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ValueError(f"{path}: damaged image (cut short, or a checksum that does not hold)")
        at = end + 4


def read_png16(path: Path) -> UInt16[np.ndarray, "H W 3"]:
    """A PNG of 16 bits as it is stored, not turned upright. Raises ValueError for a damaged one."""
    import av
    from av.error import FFmpegError

    try:
        container: Any = av.open(io.BytesIO(Path(path).read_bytes()), format="png_pipe")
        with container:
            frame = next(container.decode(video=0))
    except (FFmpegError, StopIteration, ValueError):
        raise ValueError(f"{path}: damaged image") from None
    plane: Any = frame.planes[0]
    words = np.frombuffer(plane, dtype=">u2").reshape(frame.height, plane.line_size // 2)
    num_channels = len(frame.format.components)
    samples = words[:, : frame.width * num_channels].reshape(frame.height, frame.width, num_channels)
    return _as_rgb(samples.astype(np.uint16), path)


def encode_png16(image: UInt16[np.ndarray, "H W 3"]) -> bytes:
    """The bytes of a PNG of 16 bits."""
    import av

    height, width = image.shape[:2]
    context: Any = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt = width, height, "rgb48be"
    context.time_base, context.thread_count, context.options = Fraction(1), 1, {"pred": "mixed"}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb48be")
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def read_tiff(path: Path) -> Shaped[np.ndarray, "H W 3"]:
    """A TIFF as uint8, uint16 or float32, upright. Raises ValueError for a damaged one, or samples of another kind."""
    bits, _, width, height = _tiff_tags(path)
    check_claim(path, width, height, 3 * max(1, bits // 8))
    with _opencv(path) as cv2:
        data = np.frombuffer(Path(path).read_bytes(), dtype=np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR) if data.size else None
        if image is None and data.size:
            image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)  # what it does not bring to three colours: grey float
    if image is None:
        raise ValueError(f"{path}: damaged image, or samples other than 8 or 16 bits or 32-bit float")
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise ValueError(f"{path}: {image.dtype} samples; allowed: 8 or 16 bits, or 32-bit float")
    samples = image if image.ndim == 3 else image[:, :, None]
    if samples.shape[2] >= 3:
        samples = samples[:, :, [2, 1, 0, *range(3, samples.shape[2])]]  # OpenCV's order is BGR
    return _as_rgb(samples, path)


def encode_tiff(path: Path, image: Shaped[np.ndarray, "H W 3"]) -> bytes:
    """The bytes of a TIFF of uint8, uint16 or float32."""
    with _opencv(path) as cv2:
        is_encoded, data = cv2.imencode(".tiff", np.ascontiguousarray(image[:, :, ::-1]))
    assert is_encoded
    return bytes(data)


def tiff_size(path: Path) -> tuple[int, int]:
    """(height, width) of a TIFF that Pillow does not read (float); all of it is decoded."""
    image = read_tiff(path)
    return image.shape[0], image.shape[1]


def read_exr(path: Path) -> Float32[np.ndarray, "H W 3"]:
    """The display window of an EXR's first part: R, G, B or Y; black where no data lies.

    Values are as stored: linear light, 1 is white, brighter is possible. Raises ValueError for a damaged file, or one
    without those channels.
    """
    channels, (top, left, height, width), (data_top, data_left) = _read_exr(path)
    names = ("R", "G", "B") if {"R", "G", "B"} <= channels.keys() else ("Y",) * 3
    if names[0] not in channels:
        raise ValueError(f"{path}: channels {', '.join(channels)}; allowed: R, G, B or Y")
    planes = [channels[name] for name in names]
    if any(plane is None or plane.ndim != 2 or plane.shape != planes[0].shape for plane in planes):
        raise ValueError(f"{path}: damaged image")
    data = np.stack(planes, axis=-1).astype(np.float32)
    if data.shape[:2] == (height, width) and (data_top, data_left) == (top, left):
        return data
    shown = np.zeros((height, width, 3), dtype=np.float32)
    row, column = data_top - top, data_left - left
    rows = slice(max(row, 0), min(row + data.shape[0], height))
    columns = slice(max(column, 0), min(column + data.shape[1], width))
    if rows.start < rows.stop and columns.start < columns.stop:
        shown[rows, columns] = data[rows.start - row : rows.stop - row, columns.start - column : columns.stop - column]
    return shown


def exr_size(path: Path) -> tuple[int, int]:
    """(height, width) of an EXR's display window, from its header."""
    _, (_, _, height, width), _ = _read_exr(path, header_only=True)
    return height, width


def write_exr(partial: Path, path: Path, image: Float32[np.ndarray, "H W 3"]) -> None:
    """Write an EXR of 32-bit float (ZIP, lossless) as `partial`; `path` is what errors name."""
    openexr = _openexr(path)
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    with openexr.File(header, {"RGB": np.ascontiguousarray(image)}) as file:
        file.write(str(partial))


def _as_rgb(samples: np.ndarray, path: Path) -> np.ndarray:
    """(H, W, C) of grey, grey and alpha, RGB or RGB and alpha -> RGB."""
    num_channels = samples.shape[2]
    if num_channels not in (1, 2, 3, 4):
        raise ValueError(f"{path}: {num_channels} channels; allowed: 1 to 4")
    colours = samples[:, :, :3] if num_channels >= 3 else np.repeat(samples[:, :, :1], 3, axis=2)
    return np.ascontiguousarray(colours)


def _tiff_tags(path: Path) -> tuple[int, int, int, int]:
    """(bits, sample format, width, height) of a TIFF's header. Pillow knows tags even of what it does not decode."""
    from PIL import TiffImagePlugin

    try:
        with Path(path).open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
            wanted = ((BITS_PER_SAMPLE, 1), (SAMPLE_FORMAT, 1), (WIDTH, 0), (HEIGHT, 0))
            bits, form, width, height = (int(np.max(tags.get(tag, value))) for tag, value in wanted)
            return bits, form, width, height
    except Exception:  # Pillow raises many types of error for a damaged file
        return 8, 1, 0, 0


@contextmanager
def _opencv(path: Path) -> Iterator[Any]:
    """OpenCV, which is kept from writing to stderr of damaged files."""
    try:
        import cv2
    except ModuleNotFoundError:
        raise ValueError(f"{path}: needs opencv; pip install 'spikevrt[tiff]'") from None
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield cv2
    except cv2.error:
        raise ValueError(f"{path}: damaged image") from None
    finally:
        cv2.utils.logging.setLogLevel(level)


def _openexr(path: Path) -> Any:
    try:
        import OpenEXR
    except ModuleNotFoundError:
        raise ValueError(f"{path}: needs OpenEXR; pip install 'spikevrt[exr]'") from None
    return OpenEXR


def _read_exr(
    path: Path, header_only: bool = False
) -> tuple[dict[str, Any], tuple[int, int, int, int], tuple[int, int]]:
    """Channels by name; (top, left, height, width) of the display window; (top, left) of the data."""
    openexr = _openexr(path)
    try:
        with openexr.File(str(path), separate_channels=True, header_only=header_only) as file:
            header = file.header()
            (left, top), (right, bottom) = (corner.tolist() for corner in header["displayWindow"])
            data_left, data_top = header["dataWindow"][0].tolist()
            channels = {} if header_only else {name: channel.pixels for name, channel in file.channels().items()}
    except Exception as error:  # pybind's errors are of many types
        text = " ".join(str(error).split())
        raise ValueError(f"{path}: not an EXR, or a damaged one ({text[:80]})") from None
    height, width = bottom - top + 1, right - left + 1
    check_claim(path, width, height, 12)
    return channels, (top, left, height, width), (data_top, data_left)
