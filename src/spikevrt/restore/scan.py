"""One look through a recording before a long run: where scenes begin, and which frames have no usable spikes.

Every frame is decoded once, so that a damaged one is found now and not after hours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spikevrt.recording.recording import Recording
from spikevrt.restore.cuts import stream_cuts
from spikevrt.restore.gaps import has_usable_spikes


@dataclass(frozen=True)
class Scan:
    """Numbers of frames: the first ones of new scenes, and those without usable spikes."""

    cuts: tuple[int, ...]
    without_spikes: tuple[int, ...]


def scan_recording(
    recording: Recording, *, with_spikes: bool, progress: Callable[[int, int], None] | None = None
) -> Scan:
    """Look through all frames and, `with_spikes`, through the ticks of all exposures. Memory does not grow.

    Raises:
        FileNotFoundError, ValueError: a frame that cannot be read.
    """
    total = recording.num_frames
    cuts, without = list[int](), list[int]()
    frames = (recording.read_blur(index) for index in range(total))
    for index, (_, is_cut) in enumerate(stream_cuts(frames)):
        if is_cut:
            cuts.append(index)
        if with_spikes and not has_usable_spikes(recording, index):
            without.append(index)
        if progress is not None:
            progress(index + 1, total)
    return Scan(tuple(cuts), tuple(without))
