"""Loose files, a folder of images or a video and a spike stream beside it, as a recording.

Nothing is copied: what the files do not tell, the caller states.
"""

from __future__ import annotations

import math
from pathlib import Path

from spikevrt.recording.exposure import Exposure
from spikevrt.recording.frames import image_size, list_images
from spikevrt.recording.recording import Recording, check_size
from spikevrt.recording.stream import SpikeStream
from spikevrt.recording.video import probe_video

ASSUMED_FPS = 25.0  # of a folder of images without spikes: nothing tells it, and nothing but a video's speed uses it
DEFAULT_TICK_RATE_HZ = 20000.0


def loose_recording(
    frames: Path,
    spikes: SpikeStream | None,
    *,
    tick_rate_hz: float = DEFAULT_TICK_RATE_HZ,
    first_tick: int = 0,
    exposure_ticks: int | None = None,
    period_ticks: int | None = None,
    keep_outside: bool = False,
) -> Recording:
    """Make a recording of loose files: a folder of images or a video, and a stream (or None: frames alone).

    Exposure i covers `exposure_ticks` ticks from first_tick + i * period_ticks. By default the stream is split equally:
    period_ticks = ticks / frames, which must divide; and exposure_ticks = period_ticks (the shutter never closes).
    With `keep_outside` frames before the stream (a negative `first_tick`) and behind it are kept, without spikes.

    Raises:
        FileNotFoundError: no such frames.
        ValueError: the exposures do not fit the stream; with `keep_outside`, none of them lies inside it.
    """
    frames = Path(frames)
    if frames.is_dir():
        images = list_images(frames)
        height, width = image_size(images[0])
        for image in images:
            check_size(image, image_size(image), (height, width))
        blur: tuple[Path, ...] | Path = tuple(images)
        num_frames, fps = len(images), None
    else:
        info = probe_video(frames)
        height, width, num_frames, fps, blur = info.height, info.width, info.num_frames, info.fps, frames
    if spikes is None:
        fps = fps or ASSUMED_FPS
        exposures = tuple(Exposure(i, 0, 0, i / fps, (i + 1) / fps) for i in range(num_frames))
    else:
        if not 0 < tick_rate_hz < math.inf:
            raise ValueError(f"tick_rate_hz: {tick_rate_hz}; allowed: above 0")
        exposures, step_ticks = _lay_out(
            spikes, num_frames, tick_rate_hz, first_tick, exposure_ticks, period_ticks, keep_outside
        )
        fps = fps or tick_rate_hz / step_ticks
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
        provenance={"frames": str(frames), "spikes": None if spikes is None else [str(p) for p in spikes.files]},
    )


def _lay_out(
    spikes: SpikeStream,
    num_frames: int,
    tick_rate_hz: float,
    first_tick: int,
    exposure_ticks: int | None,
    period_ticks: int | None,
    keep_outside: bool,
) -> tuple[tuple[Exposure, ...], int]:
    """The exposures, and the ticks from one to the next."""
    name, num_ticks = spikes.files[0], spikes.num_ticks
    if not (0 <= first_tick < num_ticks or keep_outside):
        raise ValueError(f"first_tick: {first_tick}; allowed: 0 to {num_ticks - 1}, {name} has {num_ticks} ticks")
    if period_ticks is None:
        period_ticks, remainder = divmod(num_ticks - first_tick, num_frames)
        if remainder:
            raise ValueError(
                f"{name}: {num_ticks - first_tick} ticks do not split equally over {num_frames} frames; "
                f"pass period_ticks"
            )
    if period_ticks < 1:
        raise ValueError(f"period_ticks: {period_ticks}; allowed: 1 or more")
    if exposure_ticks is None:
        exposure_ticks = period_ticks
    if not 1 <= exposure_ticks <= period_ticks:
        raise ValueError(f"exposure_ticks: {exposure_ticks}; allowed: 1 to period_ticks = {period_ticks}")
    needed = first_tick + (num_frames - 1) * period_ticks + exposure_ticks
    if needed > num_ticks and not keep_outside:
        raise ValueError(f"{name}: {num_ticks} ticks, but {num_frames} exposures need {needed}")
    starts = [first_tick + i * period_ticks for i in range(num_frames)]
    if not any(0 <= start <= num_ticks - exposure_ticks for start in starts):
        raise ValueError(f"{name}: no exposure of {exposure_ticks} ticks from {first_tick} on lies in its {num_ticks}")
    return tuple(
        Exposure(i, start, start + exposure_ticks, start / tick_rate_hz, (start + exposure_ticks) / tick_rate_hz)
        for i, start in enumerate(starts)
    ), period_ticks
