"""A recording read once, frame after frame, and cut into clips that cross no scene cut and no edge of lost spikes.

A segment is a run of frames that follow each other in one scene, all with usable spikes or all without. Clips overlap
inside a segment and never reach beyond it. They are spread as if the segment went on to the end of the recording, so
that they are known before its end is; where it ends earlier, the last one is moved back to end with it.

Which exposures have no usable spikes: those outside the stream, and those with too many of their ticks lost. A lost
stretch holds no spike at all; so do ticks in the dark. In the dark, empty ticks are independent of each other: one
follows a live tick (with a spike) as often as an empty one. Their probability is estimated from the ticks behind live
ones, to which a lost stretch, however long, adds only once. A run of empty ticks that is improbable under it was lost.
(A sensor all of whose pixels fire in step would be misread; pixels of real ones differ, and ours start at random
phases.)

Dimension key: T frames of a clip or ticks, H W frame rows and columns, V U those of a frame on the sensor's pixels,
K bins, h w rows and columns of the sensor, hb wb those of blocks of its pixels.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor

from spikevrt.config import SpikeInputs
from spikevrt.recording.frames import to_uint8
from spikevrt.recording.recording import Recording
from spikevrt.recording.sidecar import Exposure
from spikevrt.recording.stream import hold, live_ticks
from spikevrt.represent.counts import exposure_counts
from spikevrt.represent.inputs import bin_spikes, network_inputs, spike_activity
from spikevrt.represent.voxel import VoxelStats
from spikevrt.restore.cuts import stream_cuts
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.slow_motion import between_exposures
from spikevrt.restore.tiling import blend_weights, tile_starts

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

MAX_LOST_SHARE = 0.05  # of an exposure: six ticks of 128, which dim it by a twentieth, as a gain would
LEAST_LOST_TICKS = 4  # shorter runs are dropped ticks, one by one, however bright the scene
CHANCE = 1e-4  # probability that a dark scene has a run taken for a loss anywhere in the ticks looked at


class FrameInputs(NamedTuple):
    """What enters the network for one sharp frame, and what comes out where nothing moves; None: not asked for.

    These lie on the sensor's pixels (`Recording.on_sensor`); `recorded` is the frame itself where that is another. What
    enters is clipped to [0, 1]; `blur` and `recorded` of HDR video may be brighter.
    """

    frame: Float[Tensor, "3 V U"]
    voxels: Float[Tensor, "K h w"] | None
    blur: Float[Tensor, "3 V U"]
    activity: Float[Tensor, "hb wb"] | None = None
    recorded: Float[Tensor, "3 H W"] | None = None


@dataclass(frozen=True)
class Clip:
    """Sharp frames [start, stop) that are restored together; `weights` are theirs in the blend with their neighbours.

    After this clip, frames up to `settled` (not included) are finished. `has_spikes`: spikes were read for it.
    `places` as in `Seen`.
    """

    start: int
    settled: int
    inputs: tuple[FrameInputs, ...]
    places: tuple[tuple[int, int], ...]
    weights: Float[Tensor, " T"]
    has_spikes: bool

    @property
    def stop(self) -> int:
        return self.start + len(self.inputs)


@dataclass
class Seen:
    """What was seen so far while a recording was read, in numbers of the frames that come out.

    `cuts`: first frames of new scenes, None where they cannot be looked for; `without_spikes`: restored from the
    frames alone; `places`: for each frame its source in the recording and the step towards the next one (slow
    motion).
    """

    cuts: list[int] | None = field(default_factory=list)
    without_spikes: list[int] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)

    @property
    def num_frames(self) -> int:
        return len(self.places)


@dataclass(frozen=True)
class ReadSpec:
    """How a recording is read for a network: `spikes` and `stats` say what enters it (None: frames alone), `first` is
    the first sharp frame that is wanted."""

    options: RestoreOptions
    spikes: SpikeInputs | None
    stats: VoxelStats
    fps_factor: int = 1
    first: int = 0


def read_clips(recording: Recording, spec: ReadSpec, seen: Seen) -> Iterator[Clip]:
    """The clips that frames `spec.first` and later need, in order; `seen` grows meanwhile.

    Every frame is decoded once and every exposure's spikes are read once (half its length either side again where it
    has many empty ticks; in slow motion the window of every sharp frame). Held are the frames of two clips and those
    that the cut finder looks ahead. A clip does not depend on `first`.

    Raises:
        FileNotFoundError, ValueError: a frame or spikes that cannot be read.
    """
    segment: _Segment | None = None
    previous: tuple[_Frame, bool] | None = None
    seen_by_sensor = recording if spec.spikes is None else recording.on_sensor

    def is_wanted(ahead: int) -> bool:
        """Whether a clip that holds the frame that comes out after `ahead` others may hold a wanted one."""
        return spec.options.clip_frames == 0 or seen.num_frames + ahead > spec.first - spec.options.clip_frames

    def add(inputs: FrameInputs | None, place: tuple[int, int]) -> Iterator[Clip]:
        assert segment is not None
        segment.add(inputs, place)
        seen.places.append(place)
        yield from segment.ready()

    for source, (blur, is_cut) in enumerate(_frames(seen_by_sensor, seen)):
        frame = _Frame(blur, None if seen_by_sensor is recording else recording.read_blur_deep(source))
        exposure = recording.exposures[source]
        wanted = is_wanted(ahead=spec.fps_factor - 1)  # those between it and the frame before, if there are any
        inputs, is_usable = _read_inputs(recording, frame, exposure, spec, wanted=wanted)
        follows = previous is not None and not is_cut
        follows = follows and exposure.frame_idx == recording.exposures[source - 1].frame_idx + 1
        if follows and previous is not None and previous[1] and is_usable:
            for step, (nearer, between) in enumerate(
                between_exposures(recording.exposures[source - 1], exposure, spec.fps_factor), start=1
            ):
                near = previous[0] if nearer == 0 else frame
                moved, _ = _read_inputs(recording, near, between, spec, wanted=is_wanted(ahead=0))
                yield from add(moved, (source - 1, step))
        if segment is None or not follows or is_usable != segment.has_spikes:
            if segment is not None:
                yield from segment.close()
            room = (recording.num_frames - 1 - source) * spec.fps_factor + 1
            segment = _Segment(seen.num_frames, room, is_usable, spec)
        if is_cut and seen.cuts is not None:
            seen.cuts.append(seen.num_frames)
        if spec.spikes is not None and not is_usable:
            if not seen.without_spikes:
                print(
                    f"spikevrt: warning: {recording.root}: no usable spikes at frame {source}; restored from the frame "
                    "alone, as any other such frame",
                    file=sys.stderr,
                )
            seen.without_spikes.append(seen.num_frames)
        yield from add(inputs, (source, 0))
        previous = (frame, is_usable)
    if segment is not None:
        yield from segment.close()


class _Segment:
    """The frames since the last edge; hands out clips as soon as no later edge can change them."""

    def __init__(self, begin: int, room: int, has_spikes: bool, spec: ReadSpec) -> None:
        """`room`: frames to come, if no other edge does."""
        self.begin, self.room, self.has_spikes, self.first = begin, room, has_spikes, spec.first
        self.length = min(spec.options.clip_frames or room, room)
        self.starts = tile_starts(room, self.length, min(spec.options.overlap_frames, self.length - 1))
        self.held: deque[tuple[FrameInputs | None, tuple[int, int]]] = deque()  # from frame `dropped` on
        self.dropped = self.num_frames = self.handed = 0

    def add(self, inputs: FrameInputs | None, place: tuple[int, int]) -> None:
        self.held.append((inputs, place))
        self.num_frames += 1

    def ready(self) -> Iterator[Clip]:
        while self.handed < len(self.starts):
            stop = self.starts[self.handed] + self.length
            last = self.starts[bisect_left(self.starts, stop) - 1]  # of the clips that overlap this one
            if last + self.length > self.num_frames:
                return
            yield from self._hand_out(self.starts, self.length)

    def close(self) -> Iterator[Clip]:
        length = min(self.length, self.num_frames)
        starts = [start for start in self.starts if start + length <= self.num_frames]
        if length < self.length:
            starts = [0]
        elif starts[-1] + length < self.num_frames:
            starts.append(self.num_frames - length)
        while self.handed < len(starts):
            yield from self._hand_out(starts, length)

    def _hand_out(self, starts: list[int], length: int) -> Iterator[Clip]:
        i, start = self.handed, starts[self.handed]
        self.handed += 1
        while self.dropped < start:
            self.held.popleft()
            self.dropped += 1
        if self.begin + start + length <= self.first:
            return
        held = [self.held[k] for k in range(length)]
        inputs = tuple(one for one, _ in held if one is not None)
        assert len(inputs) == length, (len(inputs), length)
        settled = starts[i + 1] if i + 1 < len(starts) else self.num_frames
        yield Clip(
            self.begin + start, self.begin + settled, inputs, tuple(place for _, place in held),
            blend_weights(starts, length, i), self.has_spikes,
        )  # fmt: skip


def _frames(recording: Recording, seen: Seen) -> Iterator[tuple[Float[Tensor, "3 H W"], bool]]:
    """Every blurry frame, decoded once, with whether a new scene begins with it."""
    waiting: deque[Tensor] = deque()

    def small() -> Iterator[np.ndarray]:
        for index in range(recording.num_frames):
            waiting.append(recording.read_blur_deep(index))
            yield to_uint8(waiting[-1])

    cuts = stream_cuts(small())
    if cuts is None:
        seen.cuts = None
        yield from ((recording.read_blur_deep(index), False) for index in range(recording.num_frames))
        return
    for _, is_cut in cuts:
        yield waiting.popleft(), is_cut


class _Frame(NamedTuple):
    """A blurry frame, and as it was recorded where it was resampled since."""

    blur: Float[Tensor, "3 V U"]
    recorded: Float[Tensor, "3 H W"] | None


def _read_inputs(
    recording: Recording, frame: _Frame, exposure: Exposure, spec: ReadSpec, *, wanted: bool
) -> tuple[FrameInputs | None, bool]:
    """What enters the network for one frame, of the frame alone where its spikes cannot be used (None: it is not
    `wanted`), and whether they can."""
    blur, recorded = frame
    clipped = blur.clamp(max=1.0) if bool(blur.amax() > 1) else blur
    stream, alone, inputs = recording.spikes, FrameInputs(clipped, None, blur, recorded=recorded), spec.spikes
    if inputs is None or stream is None or not exposure.is_inside(recording.num_ticks):
        return alone, False
    if not wanted:
        return None, is_usable(recording, exposure, live_ticks(stream, exposure.start_tick, exposure.stop_tick))
    ticks, bad = hold(stream, *exposure.span), recording.bad_mask()
    exposed = ticks[exposure.start_tick - exposure.span[0] :][: exposure.num_ticks]
    if not is_usable(recording, exposure, exposed.live()):
        return alone, False
    is_profile, activity = inputs.representation == "profile", None
    spikes = bin_spikes(inputs, *((ticks, exposure.shift_ticks) if is_profile else (exposed, 0)), bad)
    if spec.options.skip_sharp is not None:
        counts = spikes.counts
        if is_profile:  # expected spikes tell of the light, and are steadier than single ones
            counts = exposure_counts(
                exposed.count, exposure.num_ticks, num_bins=inputs.num_bins, binning=inputs.binning, bad=bad
            )
        activity = spike_activity(counts, exposure.num_ticks, binning=inputs.binning)
    return FrameInputs(*network_inputs(inputs, spec.stats, clipped, spikes), blur, activity, recorded), True


def is_usable(recording: Recording, exposure: Exposure, live: Bool[np.ndarray, " T"]) -> bool:
    """Whether the spikes of an exposure inside the stream can be used: it holds a spike, and at most MAX_LOST_SHARE of
    its ticks were lost in stretches (`lost_ticks`).

    `live`: which of its ticks hold a spike. Half of its length either side is read only where it has too many empty
    ticks. Dark scenes are usable as long as anything fires; where hardly one tick in ten is live, a stretch of half an
    exposure can no longer be told from the dark, and is used.
    """
    most, stream = MAX_LOST_SHARE * exposure.num_ticks, recording.spikes
    if stream is None or not live.any():
        return False
    if (~live).sum() <= most:
        return True
    half = exposure.num_ticks // 2
    first, last = max(0, exposure.start_tick - half), min(stream.num_ticks, exposure.stop_tick + half)
    before = live_ticks(stream, first, exposure.start_tick)
    lost = lost_ticks(np.concatenate([before, live, live_ticks(stream, exposure.stop_tick, last)]))
    return bool(lost[len(before) : len(before) + len(live)].sum() <= most)


def lost_ticks(live: Bool[np.ndarray, " T"]) -> Bool[np.ndarray, " T"]:
    """Which ticks lie in a run of empty ones that was lost, for ticks in a row of which each is live or empty."""
    starts, stops = _empty_runs(live)
    num_live = int(live.sum())
    lost = np.zeros(len(live), dtype=bool)
    if not num_live or not len(starts):
        return lost
    share = min(len(starts) / (num_live + 1), 1.0)  # of the ticks behind a live one (or at the start), those empty
    if share == 1.0:  # every live tick stands alone: as after a flash, or all pixels in step
        return lost
    least = max(LEAST_LOST_TICKS, math.log(CHANCE / len(live)) / math.log(share))
    for start, stop in zip(starts, stops, strict=True):
        if stop - start >= least:
            lost[start:stop] = True
    return lost


def _empty_runs(live: Bool[np.ndarray, " T"]) -> tuple[Int[np.ndarray, " R"], Int[np.ndarray, " R"]]:
    """Starts and ends of the runs of empty ticks."""
    change = np.diff(np.concatenate([[1], live.astype(np.int8), [1]]))
    return np.flatnonzero(change == -1), np.flatnonzero(change == 1)
