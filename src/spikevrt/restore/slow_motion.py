"""Sharp slow motion: more sharp frames than blurry ones, each at a time of its own.

A sharp frame is restored from a blurry frame and a window of spikes around the sharp frame's time. To get N frames in
the place of one, the window moves from the middle of one exposure to the middle of the next, through the exposure and
the gap behind it; the blurry frame is the nearer one. Every N-th frame is the one that there is without.

Dimension key: N = `factor`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import pairwise

from spikevrt.checkpoint import WeightsInfo
from spikevrt.recording.exposure import Exposure
from spikevrt.recording.recording import Recording

MAX_FACTOR = 64


def slow_motion(recording: Recording, factor: int, *, apart: Collection[int] = ()) -> Recording:
    """The recording with `factor` sharp frames from the middle of each exposure to the next one's; 1: as it is.

    Of n frames (n - 1) * factor + 1 are made: none lies outside the first and last middle. Nothing is put between
    frames that do not follow each other (one was dropped), nor before the frames listed in `apart` (a new scene begins
    with them, or spikes are missing). Frames per second are `factor` times as many; sharp frames that were recorded are
    left out, because there are none of the times between.

    Raises:
        ValueError: a factor that is not 1 to `MAX_FACTOR`, or fewer ticks from middle to middle than that; no spikes.
    """
    if not 1 <= factor <= MAX_FACTOR:
        raise ValueError(f"fps_factor: {factor}; allowed: 1 to {MAX_FACTOR}")
    if factor == 1:
        return recording
    if any(exposure.shift_ticks for exposure in recording.exposures):
        raise ValueError(f"fps_factor: {factor}, but {recording.root} has shifted sharp frames already; allowed: 1")
    if recording.spikes is None:
        raise ValueError(f"fps_factor: {factor}, but {recording.root} has no spikes, which tell what moved when")
    places: list[tuple[int, int]] = []  # position of the blurry frame, shift in ticks
    for index, (one, two) in enumerate(pairwise(recording.exposures)):
        places.append((index, 0))
        if two.frame_idx != one.frame_idx + 1 or index + 1 in apart:
            continue
        between = _middle(two) - _middle(one)
        if between < factor:
            raise ValueError(f"fps_factor: {factor}, but frame {index} has {between} ticks; allowed: at most as many")
        for j in range(1, factor):
            ticks = j * between // factor
            places.append((index, ticks) if 2 * ticks <= between else (index + 1, ticks - between))
    places.append((recording.num_frames - 1, 0))
    exposures = tuple(_shifted(recording, index, shift) for index, shift in places)
    blur = recording.blur
    return replace(
        recording,
        exposures=exposures,
        blur=tuple(blur[index] for index, _ in places) if isinstance(blur, tuple) else blur,
        sharp=(),
        fps=recording.fps * factor,
    )


def middle_frames(recording: Recording, factor: int) -> list[int]:
    """Where the frames of the recording that `slow_motion` made another of, with `factor`, stand in that other one."""
    every = range(recording.num_frames)
    return list(every) if factor == 1 else [i for i in every if recording.exposures[i].shift_ticks == 0]


def frame_times(recording: Recording, pts: Sequence[int], factor: int) -> list[int]:
    """A time for each frame of what `slow_motion` made with `factor`, in units `factor` times as fine as those of
    `pts`, which are the times of the frames that it was made of: those between are spread evenly."""
    times: list[int] = []
    steps = zip(pairwise(middle_frames(recording, factor)), pairwise(pts), strict=True)
    for (here, there), (one, two) in steps:
        times += [one * factor + j * (two - one) for j in range(there - here)]
    return [*times, pts[-1] * factor]


def check_slow_motion(info: WeightsInfo, recording: Recording, *, without_spikes: bool) -> str | None:
    """Refuse windows off the exposures' middles for a network that cannot read them; what to warn of, else.

    Raises:
        ValueError: the network reads counts or no spikes, or relates frames to each other.
    """
    if not any(exposure.shift_ticks for exposure in recording.exposures):
        return None
    spikes = info.model.spikes
    if without_spikes or spikes is None or spikes.representation != "profile" or not info.model.frame_by_frame:
        raise ValueError(
            f"{recording.root}: sharp frames off the middle of their exposures; allowed: weights that read profiles "
            "(with spikes) and look at one frame at a time, as spikefold_tiny"
        )
    if not info.provenance.get("max_shift_ticks"):
        return "these weights never saw a time off the exposure's middle; expect poor frames between"
    return None


def _middle(exposure: Exposure) -> int:
    return exposure.start_tick + exposure.num_ticks // 2


def _shifted(recording: Recording, index: int, shift_ticks: int) -> Exposure:
    moved = replace(recording.exposures[index], shift_ticks=shift_ticks)
    first, last = moved.window
    if shift_ticks and (first < 0 or last > recording.num_ticks):
        raise ValueError(
            f"{recording.root}: frame {index}: ticks [{first}, {last}) around the time {shift_ticks} ticks after its "
            f"middle; allowed: inside [0, {recording.num_ticks})"
        )
    return moved
