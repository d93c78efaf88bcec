"""The only way from a recording to sharp frames: command, page, Python, evaluation and validation go through it.

The health gate, the memory plan, scene cuts and exposures without usable spikes are inside; every frame comes out
exactly once and in order, with memory that does not grow with the length.

Dimension key: T frames, H W frame rows and columns, 3 colours (RGB).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from spikevrt import runtime
from spikevrt.checkpoint import WeightsInfo
from spikevrt.recording.frames import to_uint8
from spikevrt.recording.recording import Recording
from spikevrt.recording.stream import live_ticks
from spikevrt.represent.counts import frame_counts
from spikevrt.represent.voxel import VoxelStats
from spikevrt.represent.voxel import density as voxel_density
from spikevrt.restore.clip import ClipWork, restore_clip
from spikevrt.restore.memory import fit_into_memory
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.prefetch import ahead
from spikevrt.restore.segments import Clip, ReadSpec, Seen, read_clips
from spikevrt.restore.slow_motion import check_slow_motion
from spikevrt.restore.tiling import tile_starts
from spikevrt.shipped import find

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, UInt8

    from spikevrt.model.network import Network

READ_AHEAD = 1  # clips whose frames and spikes are read while the network works on the one before
NO_SPIKES = "{}: no spikes, but these weights read them; choose weights without spikes, or --without-spikes"
MAX_DENSITY_RATIO = 2.0  # beyond this, a recording's spikes are unlike those that the network learnt from
NUM_DENSITY_SAMPLES = 5


class Gate(Protocol):
    """The health gate, which lies outside the core and is handed in: `align.health.admit`."""

    def __call__(self, recording: Recording, *, ignore: Collection[str], strict: bool) -> Recording:
        """The recording with its bad pixels marked. Raises ValueError for a finding that refuses and is not ignored,
        with `strict` also for one that warns."""
        ...


@dataclass(frozen=True)
class LoadedNetwork:
    """A network in evaluation mode on its device, what its weights say of it, and what messages call it."""

    network: Network
    info: WeightsInfo
    name: str


class Restored(NamedTuple):
    """One sharp frame, on the CPU, not clamped: `number` of those that come out, `step` of `fps_factor` steps
    after frame `source` of the recording."""

    number: int
    frame: Float[Tensor, "3 H W"]
    source: int
    step: int


def load_network(
    weights: Path, device: torch.device, trust_custom: Collection[str] = ()
) -> tuple[Network, WeightsInfo]:
    """The network of a weights file, loaded strictly, in evaluation mode, on `device`.

    For a CPU this also tunes the allocator of the whole process (`runtime.tune_allocator`): faster, and more memory.
    Raises FileNotFoundError, ValueError: as `model.network_of_weights`.
    """
    from spikevrt.model import network_of_weights

    if device.type == "cpu":
        runtime.tune_allocator()
    network, info, _ = network_of_weights(weights, trust_custom)
    return network.eval().to(device), info


def reads_spikes(info: WeightsInfo, options: RestoreOptions) -> bool:
    """Whether restoring with these weights and options looks at a recording's spikes."""
    return info.model.spikes is not None and not options.without_spikes


class Restorer:
    """A network with its weights, and how it is run.

    Args:
        weights: the name of weights that ship, a file, or a network that is in memory already.
        options: how footage is cut up, and on what it runs.
        gate: the health gate that recordings with spikes pass first, unless they have passed it already
            (`Recording.is_checked`); None: there is none.

    Raises:
        FileNotFoundError, ValueError: no such weights, or weights or options that cannot be used.
    """

    def __init__(
        self,
        weights: str | Path | LoadedNetwork,
        options: RestoreOptions = RestoreOptions(),  # noqa: B008 (immutable)
        *,
        gate: Gate | None = None,
    ) -> None:
        if not isinstance(weights, LoadedNetwork):
            device = runtime.pick_device(options.device)
            runtime.autocast(device, options.precision)  # refused now rather than after the loading
            path = find(weights)
            weights = LoadedNetwork(*load_network(path, device, options.trust_custom), str(path))
        self.network, self.info, self.name = weights.network, weights.info, weights.name
        self.options, self.gate = options, gate
        if options.strict and not self.reads_spikes:
            raise ValueError(f"strict: not with {self.name}, a network without spikes")
        check_skip(self.info, options.skip_sharp)
        if options.without_spikes:
            self._warn_without_spikes()

    @property
    def device(self) -> torch.device:
        return next((parameter.device for parameter in self.network.parameters()), torch.device("cpu"))

    @property
    def reads_spikes(self) -> bool:
        return reads_spikes(self.info, self.options)

    def with_options(self, options: RestoreOptions) -> Restorer:
        """The same network run in another way."""
        return Restorer(LoadedNetwork(self.network, self.info, self.name), options, gate=self.gate)

    def frames(
        self,
        recording: Recording,
        *,
        fps_factor: int = 1,
        first: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Float[Tensor, "3 H W"]]:
        """The sharp frames of a recording from number `first` on, in order, each as soon as it is finished: float32 on
        the CPU, display values, not clamped (of HDR video beyond 1 where it is brighter than `light.HDR_WHITE_NITS`).
        `fps_factor`: sharp frames in the place of one (`slow_motion`).

        Raises ValueError as `plan`, before the first frame.
        """
        plan = self.plan(recording, fps_factor=fps_factor)
        return (restored.frame for restored in plan.run(first=first, progress=progress))

    def stream(
        self, recording: Recording, *, fps_factor: int = 1, first: int = 0
    ) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """`frames` as pictures of 8 bits."""
        return (to_uint8(frame) for frame in self.frames(recording, fps_factor=fps_factor, first=first))

    def plan(
        self,
        recording: Recording,
        *,
        fps_factor: int = 1,
        memory: str | None = None,
        fitted: tuple[RestoreOptions, int | None] | None = None,
    ) -> Restoration:
        """Everything that is settled before the first frame: what refuses, what is told, what fits into memory.

        `memory`: what the process may hold, as "6GiB"; None: what is free; tile, clip and precision are lowered until
        they fit. `fitted`: options and predicted peak of an earlier plan, to be taken as they are. Raises ValueError:
        the recording has no spikes or too few ticks for a network that needs them; the health gate refuses; nothing
        fits into the memory; slow motion that the network or the recording cannot do.
        """
        if self.reads_spikes and recording.spikes is None:
            raise ValueError(NO_SPIKES.format(recording.root))
        # First, while the process holds nothing but the network: small tiles would fit unseen into what it has freed.
        seen = recording.on_sensor if self.reads_spikes else recording
        options, predicted = fitted or fit_into_memory(self.network, self.info, seen, self.options, memory)
        if self.reads_spikes:
            recording = admitted(recording, options, self.gate)
            check_spikes(self.info, recording.inside_stream())
        warning = check_slow_motion(self.info, recording, fps_factor, without_spikes=options.without_spikes)
        if warning is not None:
            print(f"spikevrt: warning: {recording.root}: {warning}", file=sys.stderr)
        return Restoration(self, recording, options, fps_factor, predicted)

    def _warn_without_spikes(self) -> None:
        """Without spikes a network that never learnt to do without them restores badly: one line on stderr."""
        if self.info.model.spikes is None:
            raise ValueError(f"without_spikes: {self.name} is a network without spikes; allowed: false")
        if not self.info.provenance.get("config", {}).get("data", {}).get("spike_dropout", 0):
            print(
                f"spikevrt: warning: {self.name} was not trained to do without spikes (data.spike_dropout 0); "
                "expect poor frames",
                file=sys.stderr,
            )


@dataclass
class Restoration:
    """One recording on its way through a network; `seen` and `work` are complete when the last frame has come."""

    restorer: Restorer
    recording: Recording
    options: RestoreOptions
    fps_factor: int = 1
    predicted_peak_bytes: int | None = None
    seen: Seen = field(default_factory=Seen)
    work: list[ClipWork] = field(default_factory=list)

    @property
    def most_frames(self) -> int:
        """How many sharp frames come out where no scene ends and no spikes are missing; never more."""
        return (self.recording.num_frames - 1) * self.fps_factor + 1

    def run(
        self,
        *,
        first: int = 0,
        progress: Callable[[int, int], None] | None = None,
        expect: Callable[[float], None] | None = None,
    ) -> Generator[Restored, None, None]:
        """Every sharp frame from number `first` on, in order; a frame does not depend on `first`.

        Where clips overlap, their results are blended; none reaches across a scene cut. Frames without usable spikes
        are restored from the frames alone. `progress(done, most_frames)` is called with each frame, `expect` with the
        seconds that all will take about, when the first tile is done. Raises FileNotFoundError, ValueError: a frame or
        spikes that cannot be read; an input or output that is not finite.
        """
        restorer, options, total = self.restorer, self.options, self.most_frames
        info = restorer.info
        self.seen, self.work = Seen(), []
        spikes = info.model.spikes if restorer.reads_spikes else None
        stats = VoxelStats(info.voxel_mean, info.voxel_std)
        spec = ReadSpec(options, spikes, stats, self.fps_factor, first)
        blended: dict[int, Tensor] = {}
        length = min(options.clip_frames or total, total)
        num_clips = len(tile_starts(max(total - first, 1), length, min(options.overlap_frames, length - 1)))
        start_s = time.perf_counter()

        def first_tile(num_tiles: int) -> None:
            if expect is not None and not self.work:
                expect((time.perf_counter() - start_s) * num_tiles * num_clips)

        for clip in ahead(read_clips(self.recording, spec, self.seen), READ_AHEAD):
            how = options
            if not self.work:
                start_s = time.perf_counter()
            if not clip.has_spikes and restorer.reads_spikes:
                how = replace(options, without_spikes=True, skip_sharp=None, strict=False)
            restored, work = self._restore(clip, how, first_tile)
            if work.tile_px is not None:  # smaller than asked for, because memory ran out: so it will again
                options = replace(options, tile_px=work.tile_px)
            self.work.append(work)
            for offset, frame in enumerate(restored):
                part, index = frame * clip.weights[offset], clip.start + offset
                blended[index] = blended[index] + part if index in blended else part
            for index in range(clip.start, clip.settled):
                frame = blended.pop(index)
                if index < first:
                    continue
                if progress is not None:
                    progress(index + 1, total)
                yield Restored(index, frame, *clip.places[index - clip.start])

    def _restore(
        self, clip: Clip, options: RestoreOptions, first_tile: Callable[[int], None]
    ) -> tuple[Float[Tensor, "T 3 H W"], ClipWork]:
        work: list[ClipWork] = []
        frames, voxels, blur, activity, recorded = (_stacked(part) for part in zip(*clip.inputs, strict=True))
        assert frames is not None and blur is not None
        seen = blur.clamp(max=1.0) if bool(blur.amax() > 1) else blur
        try:
            restored = restore_clip(
                self.restorer.network, frames, voxels, options,
                activity=activity, still=seen if options.skip_sharp is not None else None, tell=work.append,
                first_tile=first_tile,
            )  # fmt: skip
        except ValueError as error:
            raise ValueError(f"{self.recording.name}, frames {clip.start}-{clip.stop - 1}: {error}") from None
        if recorded is not None:  # the frames, changed as theirs were that the network saw
            view = self.recording.on_sensor.view
            assert view is not None
            changes = restored - seen
            restored = torch.stack([view.applied(*pair) for pair in zip(recorded, changes, strict=True)])
        elif seen is not blur:
            restored = restored + (blur - seen)  # what of HDR video is brighter than any network has seen
        return restored, work[0]


def _stacked(clip: Collection[Tensor | None]) -> Tensor | None:
    present = [part for part in clip if part is not None]
    return torch.stack(present) if present else None


def admitted(recording: Recording, options: RestoreOptions, gate: Gate | None) -> Recording:
    """The recording behind the health gate, its bad pixels marked; as it is where it has passed already, has no spikes,
    or there is no gate. Frames outside the stream are not looked at, and stay. Raises ValueError: the gate refuses, or
    no frame lies inside the stream."""
    if gate is None or recording.is_checked or recording.spikes is None:
        return recording
    sound = gate(recording.inside_stream(), ignore=options.ignore_health, strict=options.strict)
    return replace(recording, bad_pixels=sound.bad_pixels, is_checked=True)


def check_skip(info: WeightsInfo, skip_sharp: float | None) -> None:
    """Refuse `skip_sharp` where a network reads no spikes, which tell what moves, or all of them in one bin."""
    if skip_sharp is None:
        return
    if info.model.spikes is None:
        raise ValueError(f"skip_sharp: {skip_sharp}; allowed for weights without spikes: none (spikes tell what moves)")
    if info.model.spikes.num_bins < 2:
        raise ValueError(f"skip_sharp: {skip_sharp}; allowed for weights that read a single bin: none")


def check_spikes(info: WeightsInfo, recording: Recording) -> None:
    """Refuse what cannot work; say what will work badly, once, on stderr. A few exposures are read for it."""
    spec = info.model.spikes
    assert spec is not None and recording.spikes is not None
    if recording.voxel_bins is not None and recording.voxel_bins % spec.num_bins:
        allowed = f"allowed for weights that read {spec.num_bins}: as many or a multiple, or spike files"
        raise ValueError(f"{recording.root}: voxels of {recording.voxel_bins} bins; {allowed}")
    for index, exposure in enumerate(recording.exposures):
        if exposure.num_ticks < (1 if spec.binning == "fractional" else spec.num_bins):
            raise ValueError(
                f"{recording.root}: frame {index} has {exposure.num_ticks} ticks; these weights need {spec.num_bins} "
                f"or more"
            )
    height, width = recording.spikes.height, recording.spikes.width
    seen = recording.on_sensor
    if not recording.alignment.is_spatial and seen is not recording:
        print(
            f"spikevrt: warning: {recording.root}: frames of {recording.width}x{recording.height} are no multiple "
            f"of {width}x{height} spikes; they are resampled to {seen.width}x{seen.height} and back",
            file=sys.stderr,
        )
    step = max(1, recording.num_frames // NUM_DENSITY_SAMPLES)
    looked_at = range(step // 2, recording.num_frames, step)
    if spec.normalize == "density" or spec.representation == "profile":  # either evens out how many spikes there are
        windows = [(recording.exposures[i].start_tick, recording.exposures[i].stop_tick) for i in looked_at]
        if not any(live_ticks(recording.spikes, *window).any() for window in windows):
            raise ValueError(f"{recording.root}: no spike in the exposures looked at; is the stream dead?")
        return
    means = [
        voxel_density(frame_counts(recording, index, num_bins=spec.num_bins, binning=spec.binning)).item()
        for index in looked_at
    ]
    density = sum(means) / len(means)
    if info.voxel_mean == 0:  # of converted weights, whose training set nobody measured
        return
    if not info.voxel_mean / MAX_DENSITY_RATIO <= density <= info.voxel_mean * MAX_DENSITY_RATIO:
        print(
            f"spikevrt: warning: {recording.root}: spike density {density:.3g} (mean log1p count of a bin) against "
            f"{info.voxel_mean:.3g} in training; expect poor frames (wrong exposure ticks, threshold or rows?)",
            file=sys.stderr,
        )
