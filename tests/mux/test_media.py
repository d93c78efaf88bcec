"""Opening media: one clear error, and the stream that is the video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spikevrt.recording.video import main_video, open_media


def test_a_cover_picture_before_the_video_is_not_the_video(tmp_path: Path) -> None:
    import av
    from av.stream import Disposition

    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
        cover.disposition = int(Disposition.attached_pic)
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 32, 48, "yuv420p"
        for stream, shape in ((cover, (16, 16, 3)), (video, (48, 32, 3))):
            frame = av.VideoFrame.from_ndarray(np.zeros(shape, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
    with open_media(tmp_path / "a.mp4") as container:
        assert len(container.streams.video) == 2
        assert (main_video(container).width, main_video(container).height) == (32, 48)


def test_a_file_with_sound_alone_is_refused(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(ValueError, match=r"a\.wav: no video in it"):
        open_media(tmp_path / "a.wav")


def test_a_folder_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such video"):
        open_media(tmp_path)
