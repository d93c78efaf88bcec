"""Segments: every format decodes to the frames and times that went in; equal frames are equal bytes."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from spikevrt.mux.encode import VideoTags, rate, tags_of, write_segment
from spikevrt.recording.video import iter_video, main_video, open_media, probe_video
from spikevrt.restore.options import CODECS, CONTAINERS, VideoFormat, check_container

LOSSY = [VideoFormat(codec, bits=bits) for codec in CODECS[:3] for bits in (8, 10)]
LOSSLESS = [
    VideoFormat("h264", lossless=True, bits=8),
    VideoFormat("hevc", lossless=True, bits=8),
    VideoFormat("hevc", lossless=True, bits=10),
    VideoFormat("ffv1", bits=8),
    VideoFormat("ffv1", bits=10),
]
UNEVEN = (100, 3103, 6106, 9886, 12000)  # of 1/90000 s
BASE = Fraction(1, 90000)


def _name(format: VideoFormat) -> str:
    return f"{format.codec}-{format.bits}{'-lossless' if format.is_lossless else ''}"


def _noise(height: int, width: int, num: int = 5, dtype: type = np.uint16) -> list[np.ndarray]:
    generator = np.random.default_rng(7)
    return [generator.integers(0, np.iinfo(dtype).max + 1, (height, width, 3), dtype) for _ in range(num)]


def _ramps(height: int, width: int, num: int = 5) -> list[np.ndarray]:
    """Smooth pictures of uint16, each moved by a column against the one before."""
    rows, columns = np.mgrid[0:height, 0 : width + num]
    wide = np.stack([columns * 600, rows * 900, (rows + columns) * 400], axis=-1).astype(np.uint16)
    return [wide[:, index : index + width] for index in range(num)]


def _write(path: Path, frames: list[np.ndarray], format: VideoFormat, tags: VideoTags | None = None) -> int:
    return write_segment(
        path, zip(UNEVEN, frames, strict=True), time_base=BASE, fps=30, format=format, tags=tags or VideoTags()
    )


@pytest.mark.parametrize("format", LOSSY + LOSSLESS, ids=_name)
def test_count_and_times_are_those_that_went_in(tmp_path: Path, format: VideoFormat) -> None:
    assert _write(tmp_path / "a", _ramps(64, 96), format) == 5
    info = probe_video(tmp_path / "a")
    assert (info.pts, info.time_base, info.num_frames) == (UNEVEN, BASE, 5)
    assert (info.width, info.height, info.bits) == (96, 64, format.bits)
    assert sum(1 for _ in iter_video(tmp_path / "a")) == 5


@pytest.mark.parametrize("format", LOSSLESS, ids=_name)
def test_lossless_video_of_odd_size_comes_back_to_the_last_bit(tmp_path: Path, format: VideoFormat) -> None:
    frames = _noise(65, 95)
    _write(tmp_path / "a", frames, format)
    top = (1 << format.bits) - 1
    for image, decoded in zip(frames, iter_video(tmp_path / "a", deep=True), strict=True):
        assert decoded.dtype == (np.uint16 if format.bits == 10 else np.uint8)
        white = np.iinfo(decoded.dtype).max
        np.testing.assert_array_equal(np.round(decoded / white * top), np.round(image / 65535 * top))


def test_lossless_video_of_8_bits_is_the_very_images(tmp_path: Path) -> None:
    frames = _noise(64, 64, dtype=np.uint8)
    _write(tmp_path / "a", frames, VideoFormat(lossless=True))
    for image, decoded in zip(frames, iter_video(tmp_path / "a"), strict=True):
        np.testing.assert_array_equal(decoded, image)


@pytest.mark.parametrize("format", LOSSY, ids=_name)
def test_lossy_colours_come_back_close(tmp_path: Path, format: VideoFormat) -> None:
    frames = _ramps(64, 96)
    _write(tmp_path / "a", frames, format)
    for image, decoded in zip(frames, iter_video(tmp_path / "a", deep=True), strict=True):
        white = np.iinfo(decoded.dtype).max
        # quantisation at the default quality, and chroma of half resolution; a wrong matrix or range: 0.03 and more
        assert np.abs(decoded / white - image / 65535).mean() < 0.01


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_10_bits_tell_apart_what_8_cannot(tmp_path: Path, codec: str) -> None:
    found: dict[int, set[int]] = {8: set(), 10: set()}
    for level in (32768, 32896, 33024, 33152, 33280):  # half a step of 8 bits apart
        flat = np.full((64, 64, 3), level, dtype=np.uint16)
        for bits in (8, 10):
            format = VideoFormat(codec, bits=bits, crf=1)
            write_segment(tmp_path / "a", [(0, flat)], time_base=BASE, fps=30, format=format, tags=VideoTags())
            found[bits].add(int(np.median(next(iter_video(tmp_path / "a", deep=True)))))
    assert len(found[8]) <= 3 < len(found[10]) == 5


def test_a_video_of_10_bits_read_without_deep_is_uint8(tmp_path: Path) -> None:
    _write(tmp_path / "a", _ramps(64, 96), VideoFormat(bits=10))
    assert next(iter_video(tmp_path / "a")).dtype == np.uint8


@pytest.mark.parametrize("format", LOSSY + LOSSLESS, ids=_name)
def test_a_segment_starts_with_a_key_frame_and_keeps_its_order(tmp_path: Path, format: VideoFormat) -> None:
    _write(tmp_path / "a", _ramps(64, 96), format)
    with open_media(tmp_path / "a") as container:
        packets = [packet for packet in container.demux(main_video(container)) if packet.size]
        assert packets[0].is_keyframe
        assert [packet.dts for packet in packets] == [packet.pts for packet in packets] == list(UNEVEN)
        steps = [after - before for before, after in itertools.pairwise(UNEVEN)]
        assert [packet.duration for packet in packets] == [*steps, steps[-1]]


_IN_ANOTHER_PROCESS = """
import sys
from fractions import Fraction
import numpy as np
from pathlib import Path
from spikevrt.mux.encode import VideoTags, write_segment
from spikevrt.restore.options import VideoFormat
rows, columns = np.mgrid[0:64, 0:101]
wide = np.stack([columns * 600, rows * 900, (rows + columns) * 400], axis=-1).astype(np.uint16)
frames = ((pts, wide[:, i : i + 96]) for i, pts in enumerate((100, 3103, 6106, 9886, 12000)))
format = VideoFormat(sys.argv[2], sys.argv[3] == "True", int(sys.argv[4]))
write_segment(Path(sys.argv[1]), frames, time_base=Fraction(1, 90000), fps=30, format=format, tags=VideoTags())
"""


@pytest.mark.parametrize("format", [LOSSY[0], LOSSY[3], LOSSY[4], LOSSLESS[3]], ids=_name)
def test_equal_frames_are_equal_bytes_in_another_process_and_nothing_is_printed(
    tmp_path: Path, format: VideoFormat
) -> None:
    _write(tmp_path / "a", _ramps(64, 96), format)
    arguments = [str(tmp_path / "b"), format.codec, str(format.lossless), str(format.bits)]
    done = subprocess.run(
        [sys.executable, "-c", _IN_ANOTHER_PROCESS, *arguments], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
    first, second = (hashlib.sha256((tmp_path / name).read_bytes()).digest() for name in ("a", "b"))
    assert first == second


@pytest.mark.parametrize("format", [*LOSSY, LOSSLESS[0], LOSSLESS[3]], ids=_name)
def test_pixel_aspect_and_colour_codes_are_in_the_segment(tmp_path: Path, format: VideoFormat) -> None:
    tags = VideoTags(Fraction(4, 3), primaries=9, transfer=16)
    _write(tmp_path / "a", _ramps(64, 96), format, tags)
    assert tags_of(probe_video(tmp_path / "a")) == tags


def test_wide_colours_use_their_own_matrix_and_come_back(tmp_path: Path) -> None:
    frames = _ramps(64, 96)
    _write(tmp_path / "a", frames, VideoFormat(bits=10, crf=1), VideoTags(primaries=9, transfer=14))
    with open_media(tmp_path / "a") as container:
        first = next(container.decode(main_video(container)))
        assert (int(first.colorspace), int(first.color_range)) == (9, 1)
    decoded = next(iter_video(tmp_path / "a", deep=True))
    assert np.abs(decoded / 65535 - frames[0] / 65535).mean() < 0.005


def test_a_time_base_that_is_no_unit_fraction_keeps_the_instants(tmp_path: Path) -> None:
    base = Fraction(1001, 30000)
    frames = enumerate(_ramps(64, 96))
    write_segment(tmp_path / "a", frames, time_base=base, fps=30, format=VideoFormat(), tags=VideoTags())
    info = probe_video(tmp_path / "a")
    assert [pts * info.time_base for pts in info.pts] == [index * base for index in range(5)]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def frames() -> Iterator[tuple[int, np.ndarray]]:
        yield 0, np.zeros((64, 64, 3), dtype=np.uint8)
        yield 1, np.zeros((64, 64, 3), dtype=np.uint8)
        raise RuntimeError("camera unplugged")

    with pytest.raises(RuntimeError, match="unplugged"):
        write_segment(tmp_path / "a", frames(), time_base=BASE, fps=30, format=VideoFormat(), tags=VideoTags())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stamps", [(0, 0), (5, 4), (-1, 0)])
def test_times_that_do_not_rise_from_zero_are_refused(tmp_path: Path, stamps: tuple[int, int]) -> None:
    frames = zip(stamps, _noise(16, 16, 2), strict=True)
    with pytest.raises(ValueError, match=r"a frame at -?\d after \d; allowed: rising, from 0"):
        write_segment(tmp_path / "a", frames, time_base=BASE, fps=30, format=VideoFormat(), tags=VideoTags())


def test_a_time_base_too_fine_for_mp4_is_refused(tmp_path: Path) -> None:
    frames = enumerate(_noise(16, 16, 2))
    with pytest.raises(ValueError, match="time_base: 1/10000000000; allowed"):
        write_segment(
            tmp_path / "a",
            frames,
            time_base=Fraction(1, 10**10),
            fps=30,
            format=VideoFormat(),
            tags=VideoTags(),
        )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"codec": "vp9"}, "codec: 'vp9'; allowed: h264, hevc, av1, ffv1"),
        ({"bits": 12}, "bits: 12; allowed: 8, 10"),
        ({"codec": "av1", "lossless": True}, "lossless: not with `codec` av1"),
        ({"codec": "h264", "lossless": True, "bits": 10}, "bits: 10 with `lossless` h264"),
        ({"lossless": True, "crf": 3}, "crf: 3 with `lossless`; allowed: none"),
        ({"codec": "ffv1", "crf": 3}, "crf: 3 with `lossless`; allowed: none"),
        ({"crf": 52}, "crf: 52; allowed with h264: 1 to 51"),
        ({"codec": "av1", "crf": 0}, "crf: 0; allowed with av1: 1 to 63"),
    ],
)
def test_what_no_encoder_has_is_refused(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VideoFormat(**values)


def test_a_container_that_cannot_hold_the_format_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a\.mp4: \.mp4 does not hold ffv1; allowed: \.mkv"):
        check_container(Path("a.mp4"), VideoFormat("ffv1"))
    with pytest.raises(ValueError, match=r"a\.webm: cannot write \.webm; allowed: \.mp4, \.mov, \.mkv"):
        check_container(Path("a.webm"), VideoFormat())
    for suffix, codecs in CONTAINERS.items():
        for codec in codecs:
            check_container(Path(f"a{suffix}"), VideoFormat(codec))


@pytest.mark.parametrize("codec", ["hevc", "av1"])
def test_pictures_too_small_for_an_encoder_are_refused(tmp_path: Path, codec: str) -> None:
    with pytest.raises(ValueError, match=f"codec: {codec} of 64x63 pixels; allowed: 64x64 or larger, or h264"):
        _write(tmp_path / "a", _ramps(63, 64), VideoFormat(codec))
    assert list(tmp_path.iterdir()) == []


def test_a_single_pixel_is_a_video_in_h264(tmp_path: Path) -> None:
    _write(tmp_path / "a", _noise(1, 1), VideoFormat("h264"))
    assert [image.shape for image in iter_video(tmp_path / "a")] == [(2, 2, 3)] * 5


def test_a_rate_is_a_fraction_above_zero() -> None:
    assert rate(30000 / 1001) == Fraction(30000, 1001)
    for fps in (0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="allowed: above 0"):
            rate(fps)
