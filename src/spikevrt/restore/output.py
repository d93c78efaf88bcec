"""Where restored footage goes: what is written, and which folder may be replaced."""

from __future__ import annotations

from pathlib import Path

from spikevrt.atomic import refuse_existing
from spikevrt.mux.encode import VideoTags, rate, tags_of
from spikevrt.recording.recording import Recording
from spikevrt.recording.video import probe_video
from spikevrt.restore.options import Output, is_video
from spikevrt.restore.parts import FrameFiles, VideoParts
from spikevrt.restore.slow_motion import frame_times

SUMMARY_FILE = "restored.json"  # marks a folder as ours


def summary_path(out: Path, place: Path) -> Path:
    """The summary's file: inside the folder at `place`, which will be `out`; beside `out`, where that is a video."""
    return out.with_name(f"{out.name}.json") if is_video(out) else place / SUMMARY_FILE


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse an `out` that exists, unless `overwrite`, which replaces a video or a folder of restored frames alone.

    Raises:
        FileExistsError: one line that says which of the two.
    """
    if overwrite and is_video(out) and out.is_file():
        return
    refuse_existing(out, marker=SUMMARY_FILE, overwrite=overwrite)


def open_parts(
    folder: Path, out: Path, output: Output, footage: Recording, recording: Recording, fps_factor: int
) -> FrameFiles | VideoParts:
    """What makes `out` of `footage`, the slow motion of `recording`, part by part in `folder`.

    The times of a video's frames are those of the recording's own video; else they are evenly spread.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not is_video(out):
        return FrameFiles(folder, output.frames, linear=recording.linear)
    if isinstance(recording.blur, Path):
        info = probe_video(recording.blur)
        tags = tags_of(info)
        pts, time_base = [info.pts[exposure.frame_idx] for exposure in recording.exposures], info.time_base
    else:
        pts, time_base, tags = list(range(recording.num_frames)), 1 / rate(recording.fps), VideoTags()
    times = frame_times(footage, pts, fps_factor)
    return VideoParts(folder, output.format, tags, times, time_base / fps_factor, footage.fps)
