"""Sharp slow motion: more sharp frames than blurry ones, each at a time of its own.

A sharp frame is restored from a blurry frame and a window of spikes around the sharp frame's time. To get N frames in
the place of one, the window moves from the middle of one exposure to the middle of the next, through the exposure and
the gap behind it; the blurry frame is the nearer one. Of n blurry frames (n - 1) * N + 1 are made: none lies outside
the first and last middle. Nothing is put between frames that do not follow each other in one scene, or whose spikes
are missing. Every N-th frame is the one that there is without.

Dimension key: N = `factor`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from spikevrt import shipped
from spikevrt.checkpoint import WeightsInfo
from spikevrt.recording.recording import Recording
from spikevrt.recording.sidecar import Exposure

MAX_FACTOR = 64


def between_exposures(one: Exposure, two: Exposure, factor: int) -> Iterator[tuple[int, Exposure]]:
    """The `factor` - 1 sharp frames between the middles of two exposures that follow each other: which of the two is
    nearer (0 or 1), and that exposure with the window moved."""
    between = _middle(two) - _middle(one)
    for step in range(1, factor):
        ticks = step * between // factor
        if 2 * ticks <= between:
            yield 0, replace(one, shift_ticks=ticks)
        else:
            yield 1, replace(two, shift_ticks=ticks - between)


def check_slow_motion(info: WeightsInfo, recording: Recording, factor: int, *, without_spikes: bool) -> str | None:
    """Refuse windows off the exposures' middles for a network that cannot read them; what to warn of, else.

    Raises:
        ValueError: a factor that is not 1 to `MAX_FACTOR`, or fewer ticks from middle to middle than that; no spikes;
            the network reads counts or no spikes, or relates frames to each other.
    """
    if not 1 <= factor <= MAX_FACTOR:
        raise ValueError(f"fps_factor: {factor}; allowed: 1 to {MAX_FACTOR}")
    has_shifts = any(exposure.shift_ticks for exposure in recording.exposures)
    if factor == 1 and not has_shifts:
        return None
    if factor > 1 and has_shifts:
        raise ValueError(f"fps_factor: {factor}, but {recording.root} has shifted sharp frames already; allowed: 1")
    if factor > 1 and recording.spikes is None:
        raise ValueError(f"fps_factor: {factor}, but {recording.root} has no spikes, which tell what moved when")
    if factor > 1:
        _check_windows(recording, factor)
    spikes = info.model.spikes
    if without_spikes or spikes is None or spikes.representation != "profile" or not info.model.frame_by_frame:
        raise ValueError(
            f"{recording.root}: sharp frames off the middle of their exposures; allowed: weights that read profiles "
            f"(with spikes) and look at one frame at a time, as {shipped.DEFAULT}"
        )
    if not info.provenance.get("max_shift_ticks"):
        return "these weights never saw a time off the exposure's middle; expect poor frames between"
    return None


def _check_windows(recording: Recording, factor: int) -> None:
    for index, (one, two) in enumerate(pairwise(recording.exposures)):
        if two.frame_idx != one.frame_idx + 1 or not (
            one.is_inside(recording.num_ticks) and two.is_inside(recording.num_ticks)
        ):
            continue
        between = _middle(two) - _middle(one)
        if between < factor:
            raise ValueError(f"fps_factor: {factor}, but frame {index} has {between} ticks; allowed: at most as many")
        for nearer, moved in between_exposures(one, two, factor):
            first, last = moved.window
            if first < 0 or last > recording.num_ticks:
                raise ValueError(
                    f"{recording.root}: frame {index + nearer}: ticks [{first}, {last}) around the time "
                    f"{moved.shift_ticks} ticks after its middle; allowed: inside [0, {recording.num_ticks})"
                )


def _middle(exposure: Exposure) -> int:
    return exposure.start_tick + exposure.num_ticks // 2
