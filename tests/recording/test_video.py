"""Videos: exact counts, random access, colours, and nothing half-written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from spikevrt.mux.encode import VideoTags, tags_of, write_segment
from spikevrt.mux.join import write_video
from spikevrt.recording.video import VideoReader, iter_video, probe_video
from spikevrt.restore.options import VideoFormat


def _grey_frame(level: int, height: int = 32, width: int = 48) -> np.ndarray:
    return np.full((height, width, 3), level, dtype=np.uint8)


@pytest.fixture(scope="module")
def stairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 frames; frame i is grey of level 10 i."""
    path = tmp_path_factory.mktemp("video") / "stairs.mp4"
    write_video(path, (_grey_frame(10 * i) for i in range(23)), fps=30000 / 1001)
    return path


def _level(image: np.ndarray) -> int:
    return round(float(image.mean()) / 10)


def test_probe_tells_size_rate_and_count(stairs: Path) -> None:
    info = probe_video(stairs)
    assert (info.width, info.height, info.num_frames) == (48, 32, 23)
    assert info.fps == pytest.approx(30000 / 1001, rel=1e-9)


def test_every_frame_comes_out_once_and_in_order(stairs: Path) -> None:
    assert [_level(image) for image in iter_video(stairs)] == list(range(23))


def test_a_window_of_frames_equals_the_slice(stairs: Path) -> None:
    assert [_level(image) for image in iter_video(stairs, 5, 9)] == [5, 6, 7, 8]


def test_a_reader_gives_any_frame_in_any_order(stairs: Path) -> None:
    reader = VideoReader(stairs)
    order = [3, 4, 3, 19, 17, 2, 22, 0]
    assert [_level(reader.read(index)) for index in order] == order


def test_a_frame_behind_the_end_is_refused(stairs: Path) -> None:
    with pytest.raises(ValueError, match="frame 23 asked for; the last is 22"):
        VideoReader(stairs).read(23)


def test_a_count_missing_from_the_header_is_counted_by_decoding(tmp_path: Path) -> None:
    import av

    path = tmp_path / "a.mpg"  # MPEG program streams have no header that tells
    with av.open(str(path), "w", format="mpeg") as container:
        stream = container.add_stream("mpeg1video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for i in range(7):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_grey_frame(10 * i), format="rgb24")))
        container.mux(stream.encode())
    assert probe_video(path).num_frames == 7


def test_an_odd_size_is_padded_by_repeating_the_edge(tmp_path: Path) -> None:
    write_video(tmp_path / "odd.mp4", [_grey_frame(200, 31, 47)] * 2, fps=25)
    (first, _) = iter_video(tmp_path / "odd.mp4")
    assert first.shape == (32, 48, 3)
    assert np.abs(first.astype(int) - 200).max() <= 2


def test_colours_survive_a_round_trip(tmp_path: Path) -> None:
    colours = np.array([[220, 30, 40], [30, 200, 60], [40, 50, 210], [240, 240, 20]], dtype=np.uint8)
    image = np.repeat(np.repeat(colours[None], 32, axis=0), 16, axis=1)
    write_video(tmp_path / "a.mp4", [image] * 3, fps=25, crf=4)
    decoded = next(iter_video(tmp_path / "a.mp4")).reshape(32, 4, 16, 3)[:, :, 4:12].mean(axis=(0, 2))
    np.testing.assert_allclose(decoded, colours, atol=3)  # 8-bit YUV rounds; a wrong matrix is 10 and more off


def test_a_phone_video_held_sideways_is_upright(tmp_path: Path) -> None:
    image = _grey_frame(0)
    image[:, :16] = 255  # white on the left
    path = tmp_path / "a.mp4"
    write_video(path, [image] * 2, fps=25)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    clockwise = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    data[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in clockwise)
    path.write_bytes(data)
    assert (probe_video(path).width, probe_video(path).height) == (32, 48)
    upright = next(iter_video(path))
    assert upright[:12].mean() > 240 and upright[20:].mean() < 15  # left went to the top


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def frames() -> Iterator[np.ndarray]:
        yield _grey_frame(1)
        raise RuntimeError("camera unplugged")

    with pytest.raises(RuntimeError, match="unplugged"):
        write_video(tmp_path / "a.mp4", frames(), fps=25)
    assert list(tmp_path.iterdir()) == []


def test_no_frames_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.mp4: no frames to write"):
        write_video(tmp_path / "a.mp4", [], fps=25)
    assert list(tmp_path.iterdir()) == []


def test_frames_of_different_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a frame of 40x32 after 48x32"):
        write_video(tmp_path / "a.mp4", [_grey_frame(0), _grey_frame(0, 32, 40)], fps=25)


def test_a_rate_of_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fps: 0; allowed: above 0"):
        write_video(tmp_path / "a.mp4", [_grey_frame(0)], fps=0)


def test_another_container_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot write \.avi; allowed: \.mp4"):
        write_video(tmp_path / "a.avi", [_grey_frame(0)], fps=25)


def test_a_missing_video_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.mp4: no such video"):
        probe_video(tmp_path / "a.mp4")


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("hello")
    with pytest.raises(ValueError, match=r"a\.mp4: not a video"):
        probe_video(tmp_path / "a.mp4")


def _encoded(path: Path, pts: Sequence[int], time_base: Fraction, codec: str = "libx264", **options: str) -> None:
    """Frame i is grey of level 10 i and begins at pts[i]; with pictures out of order, as cameras make them."""
    import av

    with av.open(str(path), "w") as container:
        out_of_order = {"bf": "2"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=25, options={**out_of_order, **options})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.time_base = time_base
        for index, stamp in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(_grey_frame(10 * index), format="rgb24")
            frame.pts, frame.time_base = stamp, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _decoded_pts(path: Path) -> list[int]:
    import av

    with av.open(str(path)) as container:
        return [frame.pts for frame in container.decode(video=0)]


PHONE = (0, 16610, 19609, 22608, 25606, 28700, 31604)  # of 1/90000 s: the first frame of a phone's clip lasts long
FAKE_STEADY = (0, 33, 67, 100, 133, 167, 200)  # of 1/1000 s: 30 frames a second, rounded


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_uneven_times_are_read_exactly(tmp_path: Path, name: str) -> None:
    _encoded(tmp_path / name, PHONE, Fraction(1, 90000))
    info = probe_video(tmp_path / name)
    assert (info.pts, info.time_base, info.is_variable) == (PHONE, Fraction(1, 90000), True)
    assert info.fps == pytest.approx(6 * 90000 / 31604)
    assert info.times_s[1] == 16610 / 90000
    assert [_level(image) for image in iter_video(tmp_path / name)] == list(range(7))


def test_a_steady_rate_that_was_rounded_is_not_uneven(tmp_path: Path) -> None:
    _encoded(tmp_path / "a.mkv", FAKE_STEADY, Fraction(1, 1000))
    info = probe_video(tmp_path / "a.mkv")
    assert (info.pts, info.is_variable) == (FAKE_STEADY, False)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mkv", "libx264"), ("a.mp4", "libx264"), ("a.webm", "libvpx-vp9"), ("a.webm", "libvpx")],
)
def test_times_are_those_of_the_frames_that_decoding_yields(tmp_path: Path, name: str, codec: str) -> None:
    """Also where encoders write packets that show nothing (libvpx's hidden references)."""
    options = {"auto-alt-ref": "1", "lag-in-frames": "16"} if codec.startswith("libvpx") else {}
    _encoded(tmp_path / name, range(0, 23 * 40, 40), Fraction(1, 1000), codec, **options)
    info = probe_video(tmp_path / name)
    assert info.pts == tuple(_decoded_pts(tmp_path / name))
    assert info.num_frames == 23


@pytest.mark.parametrize("name", ["a.ts", "a.avi", "a.mpg"])
def test_other_containers_are_counted_by_decoding(tmp_path: Path, name: str) -> None:
    _encoded(tmp_path / name, range(23), Fraction(1, 25), "mpeg2video" if name == "a.mpg" else "libx264")
    info = probe_video(tmp_path / name)
    assert info.num_frames == len(_decoded_pts(tmp_path / name)) == 23
    steps = np.diff(np.array(info.pts)) * float(info.time_base)
    np.testing.assert_allclose(steps, 1 / 25, atol=1e-9)
    assert not info.is_variable


def test_a_stream_without_times_is_evenly_spaced(tmp_path: Path) -> None:
    import av

    _encoded(tmp_path / "a.mp4", range(7), Fraction(1, 25))
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(tmp_path / "a.avi"), "w", format="h264") as raw:
        stream = raw.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                raw.mux(packet)
    info = probe_video(tmp_path / "a.avi")  # opened by what it holds, H.264 without a container
    assert info.num_frames == 7
    np.testing.assert_allclose(np.diff(info.times_s), 1 / info.fps, rtol=1e-4)


def test_what_an_edit_list_hides_is_not_counted(tmp_path: Path) -> None:
    _encoded(tmp_path / "a.mp4", range(0, 23 * 512, 512), Fraction(1, 12800), g="100")
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    entry = data.index(b"elst") + 4 + 8
    start = entry + 4  # media_time: where in the track the film begins
    shown_from = int.from_bytes(data[start : start + 4], "big") + 5 * 512
    data[start : start + 4] = shown_from.to_bytes(4, "big")
    (tmp_path / "b.mp4").write_bytes(data)
    info = probe_video(tmp_path / "b.mp4")
    assert info.num_frames == len(_decoded_pts(tmp_path / "b.mp4")) == 18
    assert [_level(image) for image in iter_video(tmp_path / "b.mp4")] == list(range(5, 23))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_truncated_file_is_counted_as_far_as_it_decodes_or_refused(tmp_path: Path, name: str) -> None:
    options = {"movflags": "faststart"} if name == "a.mp4" else {}
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(23)]
    import av

    with av.open(str(tmp_path / name), "w", container_options=options) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
    try:
        info = probe_video(tmp_path / name)
    except ValueError as error:
        assert f"{name}: damaged video" in str(error)
        with pytest.raises(ValueError, match="damaged video"):
            list(iter_video(tmp_path / name))
    else:
        assert 0 < info.num_frames < 23
        assert info.num_frames == sum(1 for _ in iter_video(tmp_path / name))


def test_a_video_that_ends_before_its_header_does_is_refused(tmp_path: Path, stairs: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(stairs.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"a\.mp4: no video in it"):
        probe_video(tmp_path / "a.mp4")


def test_pictures_before_the_first_key_frame_are_not_counted(tmp_path: Path) -> None:
    import av

    _encoded(tmp_path / "a.mkv", range(0, 23 * 40, 40), Fraction(1, 1000), g="8")
    with av.open(str(tmp_path / "a.mkv")) as source, av.open(str(tmp_path / "b.mkv"), "w") as cut:
        stream = cut.add_stream_from_template(source.streams.video[0], opaque=True)
        for index, packet in enumerate(source.demux(video=0)):
            if packet.size and index >= 3:
                packet.stream = stream
                cut.mux(packet)
    info = probe_video(tmp_path / "b.mkv")
    assert info.num_frames == len(_decoded_pts(tmp_path / "b.mkv"))


def test_pixel_aspect_and_colours_of_a_file_that_says_nothing_are_unspecified(tmp_path: Path) -> None:
    _encoded(tmp_path / "a.mp4", range(3), Fraction(1, 25))
    assert tags_of(probe_video(tmp_path / "a.mp4")) == VideoTags(Fraction(1), primaries=2, transfer=2)


def test_deep_reading_of_8_bits_is_the_same_uint8(stairs: Path) -> None:
    for plain, deep in zip(iter_video(stairs), iter_video(stairs, deep=True), strict=True):
        assert deep.dtype == np.uint8
        np.testing.assert_array_equal(plain, deep)
    assert probe_video(stairs).bits == 8


def test_a_deep_reader_gives_uint16_and_white_is_65535(tmp_path: Path) -> None:
    white = np.full((32, 48, 3), 65535, dtype=np.uint16)
    frames = [(0, white), (1, white // 2)]
    format = VideoFormat(bits=10, crf=1)
    write_segment(tmp_path / "a", frames, time_base=Fraction(1, 25), fps=25, format=format, tags=VideoTags())
    reader = VideoReader(tmp_path / "a", deep=True)
    assert reader.read(0).dtype == np.uint16
    assert abs(int(np.median(reader.read(0))) - 65535) <= 32  # half a step of 10 bits: FFmpeg's scaler rounds
    assert abs(int(np.median(reader.read(1))) - 32767) <= 64  # and so does the encoder
    assert probe_video(tmp_path / "a").bits == 10


def test_written_video_has_the_rate_asked_for(stairs: Path) -> None:
    info = probe_video(stairs)
    assert [pts * info.time_base for pts in info.pts] == [index * Fraction(1001, 30000) for index in range(23)]
