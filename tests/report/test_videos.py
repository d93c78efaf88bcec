"""Videos of kept frames."""

from __future__ import annotations

import pytest

from spikevrt.evaluate.pictures import video_path
from spikevrt.recording.recording import open_recording
from spikevrt.recording.video import probe_video
from spikevrt.report.results_page import write_videos
from spikevrt.restore.restorer import RestoreOptions
from tests.evaluate.conftest import evaluate, write_recording


def test_every_network_is_filmed_alone_and_beside_the_others(tmp_path, offset_weights):
    recording = write_recording(tmp_path / "a")
    out = tmp_path / "out"
    evaluate([offset_weights(0.0)], [recording], out, RestoreOptions(device="cpu"), keep_frames=True)
    write_videos(out, [open_recording(recording)])
    one, all_of_them = (probe_video(video_path(out, name, "a")) for name in ("offset", "side_by_side"))
    assert (one.num_frames, all_of_them.num_frames) == (3, 3) and all_of_them.width > 3 * 34


def test_frames_that_were_not_kept_cannot_be_filmed(tmp_path, offset_weights):
    recording = write_recording(tmp_path / "a")
    evaluate([offset_weights(0.0)], [recording], tmp_path / "out", RestoreOptions(device="cpu"))
    with pytest.raises(FileNotFoundError):
        write_videos(tmp_path / "out", [open_recording(recording)])
