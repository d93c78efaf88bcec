"""Videos: exact counts, random access, colours, and nothing half-written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from spikevrt.recording.video import VideoReader, iter_video, probe_video, write_video


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
    with pytest.raises(ValueError, match="frame 23 asked for; the video ends after 23 frames"):
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
