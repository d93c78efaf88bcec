"""Loose files, a folder of images or a video and a spike stream beside it, as a recording.

Nothing is copied: what the files do not tell, the caller states. The frames of a video of uneven rate meet the spikes
by their timestamps, those of all else by counting.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from spikevrt.recording.frames import check_size, image_size, list_images
from spikevrt.recording.recording import Recording
from spikevrt.recording.sidecar import NOTHING_STATED, ROWS, TICK_RATE_HZ, Exposure, Stated, StreamFormat, kind_of
from spikevrt.recording.spike_formats import find_format, is_headerless, open_stream
from spikevrt.recording.stream import SpikeStream
from spikevrt.recording.video import VideoInfo, probe_video

ASSUMED_FPS = 25.0  # of a folder of images without spikes: nothing tells it, and nothing but a video's speed uses it


def open_beside(frames: Path, spikes: Path, stated: Stated = NOTHING_STATED) -> Recording:
    """`loose_recording` of frames and a spike file, of which the file itself or the caller tells size and rows.

    Where none of the three is stated, the file tells them (or its sidecar), and its read-outs a second, unless these
    are stated.

    Raises:
        FileNotFoundError, ValueError: as `loose_recording` and `open_stream`; or half a size for a file without one.
    """
    width, height = stated.spike_width, stated.spike_height
    given = [name for name in ("spike_width", "spike_height", "top_down") if getattr(stated, name) not in (None, False)]
    if not given:
        if stated.tick_rate_hz is None:
            stated = replace(stated, tick_rate_hz=find_format(spikes).tick_rate_hz)
        return loose_recording(frames, open_stream(spikes), stated)
    if is_headerless(spikes) and (width is None or height is None):
        raise ValueError(f"{given[0]}: only with both spike_width and spike_height")
    form = StreamFormat(kind_of(spikes.suffix), width, height, rows=ROWS[False] if stated.top_down else None)
    return loose_recording(frames, open_stream(spikes, form), stated)


def loose_recording(frames: Path, spikes: SpikeStream | None, stated: Stated = NOTHING_STATED) -> Recording:
    """Make a recording of loose files: a folder of images or a video, and a stream (or None: frames alone).

    Exposure i covers `exposure_ticks` ticks from first_tick + i * period_ticks. By default the stream is split equally:
    period_ticks = ticks / frames, which must divide; and exposure_ticks = period_ticks (the shutter never closes).

    With `by_timestamps`, and for a video of uneven rate without `period_ticks`, exposure i starts at first_tick plus
    the ticks from the first frame's timestamp to its own, rounded; and exposure_ticks is by default the smallest
    distance of two frames. Size and rows of the spikes are those of the stream, whatever is stated.

    Raises:
        FileNotFoundError: no such frames.
        ValueError: the exposures do not fit the stream; timestamps or linear light asked of what has none.
    """
    tick_rate_hz = TICK_RATE_HZ if stated.tick_rate_hz is None else stated.tick_rate_hz
    frames = Path(frames)
    info: VideoInfo | None = None
    if frames.is_dir():
        images = list_images(frames)
        height, width = image_size(images[0])
        for image in images:
            check_size(image, image_size(image), (height, width))
        blur: tuple[Path, ...] | Path = tuple(images)
        num_frames, fps = len(images), None
        if stated.by_timestamps:
            raise ValueError(f"by_timestamps: {frames} is a folder of images, without timestamps; allowed: a video")
    else:
        info = probe_video(frames)
        height, width, num_frames, fps, blur = info.height, info.width, info.num_frames, info.fps, frames
        if stated.linear:
            raise ValueError(f"linear: {frames} is a video, of display values; allowed: a folder of images")
    if stated.by_timestamps and stated.period_ticks is not None:
        raise ValueError(f"period_ticks: {stated.period_ticks}, but the timestamps tell it; allowed: one of the two")
    if spikes is None:
        fps = fps or ASSUMED_FPS
        exposures = _without_ticks(num_frames, fps, info)
    else:
        if not 0 < tick_rate_hz < math.inf:
            raise ValueError(f"tick_rate_hz: {tick_rate_hz}; allowed: above 0")
        first_tick = stated.first_tick or 0
        if not 0 <= first_tick < spikes.num_ticks:
            last = spikes.num_ticks - 1
            raise ValueError(
                f"first_tick: {first_tick}; allowed: 0 to {last}, {spikes.files[0]} has {spikes.num_ticks} ticks"
            )
        if info is not None and (stated.by_timestamps or (info.is_variable and stated.period_ticks is None)):
            exposures = _by_timestamps(spikes, info, tick_rate_hz, first_tick, stated.exposure_ticks)
        else:
            exposures, step_ticks = _lay_out(spikes, num_frames, tick_rate_hz, first_tick, stated)
            fps = fps or tick_rate_hz / step_ticks
        assert fps is not None
    return Recording(
        root=frames,
        width=width,
        height=height,
        tick_rate_hz=tick_rate_hz,
        exposures=exposures,
        spikes=spikes,
        blur=blur,
        sharp=(),
        fps=fps,
        linear=stated.linear,
        provenance={"frames": str(frames), "spikes": None if spikes is None else [str(p) for p in spikes.files]},
    )


def _without_ticks(num_frames: int, fps: float, info: VideoInfo | None) -> tuple[Exposure, ...]:
    """Exposures of frames alone: evenly spaced, or as the timestamps say; each lasts until the next."""
    if info is None or not info.is_variable:
        return tuple(Exposure(i, 0, 0, i / fps, (i + 1) / fps) for i in range(num_frames))
    starts_s = [time_s - info.times_s[0] for time_s in info.times_s]
    starts_s.append(2 * starts_s[-1] - starts_s[-2])
    return tuple(Exposure(i, 0, 0, t0_s, t1_s) for i, (t0_s, t1_s) in enumerate(itertools.pairwise(starts_s)))


def _by_timestamps(
    spikes: SpikeStream,
    info: VideoInfo,
    tick_rate_hz: float,
    first_tick: int,
    exposure_ticks: int | None,
) -> tuple[Exposure, ...]:
    """Exposures that start when the video's clock says, `first_tick` being that of its first frame."""
    name, num_ticks = spikes.files[0], spikes.num_ticks
    ticks_per_unit = info.time_base * Fraction(tick_rate_hz)
    starts = [first_tick + round((pts - info.pts[0]) * ticks_per_unit) for pts in info.pts]
    steps = [after - before for before, after in itertools.pairwise(starts)]
    smallest = min(steps, default=num_ticks - first_tick)
    if smallest < 1:
        one = steps.index(smallest)
        raise ValueError(f"tick_rate_hz: {tick_rate_hz}; by their timestamps frames {one} and {one + 1} share a tick")
    exposure_ticks = smallest if exposure_ticks is None else exposure_ticks
    if not 1 <= exposure_ticks <= smallest:
        raise ValueError(f"exposure_ticks: {exposure_ticks}; allowed: 1 to {smallest}, the least from frame to frame")
    if starts[-1] + exposure_ticks > num_ticks:
        raise ValueError(
            f"{name}: {num_ticks} ticks, but by its timestamps the video needs {starts[-1] + exposure_ticks} "
            f"at {tick_rate_hz:g} Hz from tick {first_tick}"
        )
    return _exposures(starts, exposure_ticks, tick_rate_hz)


def _exposures(starts: Sequence[int], exposure_ticks: int, tick_rate_hz: float) -> tuple[Exposure, ...]:
    return tuple(
        Exposure(i, start, start + exposure_ticks, start / tick_rate_hz, (start + exposure_ticks) / tick_rate_hz)
        for i, start in enumerate(starts)
    )


def _lay_out(
    spikes: SpikeStream,
    num_frames: int,
    tick_rate_hz: float,
    first_tick: int,
    stated: Stated,
) -> tuple[tuple[Exposure, ...], int]:
    """The exposures, and the ticks from one to the next."""
    name, num_ticks, period_ticks = spikes.files[0], spikes.num_ticks, stated.period_ticks
    if period_ticks is None:
        period_ticks, remainder = divmod(num_ticks - first_tick, num_frames)
        if remainder:
            raise ValueError(
                f"{name}: {num_ticks - first_tick} ticks do not split equally over {num_frames} frames; "
                f"pass period_ticks"
            )
    if period_ticks < 1:
        raise ValueError(f"period_ticks: {period_ticks}; allowed: 1 or more")
    exposure_ticks = period_ticks if stated.exposure_ticks is None else stated.exposure_ticks
    if not 1 <= exposure_ticks <= period_ticks:
        raise ValueError(f"exposure_ticks: {exposure_ticks}; allowed: 1 to period_ticks = {period_ticks}")
    needed = first_tick + (num_frames - 1) * period_ticks + exposure_ticks
    if needed > num_ticks:
        raise ValueError(f"{name}: {num_ticks} ticks, but {num_frames} exposures need {needed}")
    starts = [first_tick + i * period_ticks for i in range(num_frames)]
    return _exposures(starts, exposure_ticks, tick_rate_hz), period_ticks
