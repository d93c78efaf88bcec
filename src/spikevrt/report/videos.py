"""Videos of the frames in a results folder: one a method and recording, and one of all methods beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spikevrt.evaluate.pictures import columns, frame_path, video_path
from spikevrt.evaluate.results import read_results
from spikevrt.recording.frames import read_image
from spikevrt.recording.recording import Recording
from spikevrt.recording.video import write_video

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

PLAYBACK_FPS = 5.0  # recordings are milliseconds long; their videos play slowed down to this


def write_videos(folder: Path, recordings: Sequence[Recording]) -> None:
    """From results.json and the kept frames of the networks: one video a network and recording, and one of all.

    Raises:
        FileNotFoundError: a frame is not there.
    """
    methods = [method.name for method in read_results(folder).methods if method.is_network]
    (folder / "videos").mkdir()
    for recording in recordings:
        name = recording.name
        for method in methods:
            restored = (read_image(frame_path(folder, method, name, i)) for i in range(recording.num_frames))
            write_video(video_path(folder, method, name), restored, PLAYBACK_FPS)
        write_video(video_path(folder, "side_by_side", name), _side_by_side(folder, methods, recording), PLAYBACK_FPS)


def _side_by_side(folder: Path, methods: Sequence[str], recording: Recording) -> Iterator[UInt8[np.ndarray, "H2 W2 3"]]:
    for index in range(recording.num_frames):
        restored = [read_image(frame_path(folder, method, recording.name, index)) for method in methods]
        yield columns([recording.read_blur(index), *restored, recording.read_sharp(index)], ["blur", *methods, "sharp"])
