"""How much memory a restoration takes, told before it begins, and the tile, clip and precision that fit.

What a tile takes is measured: the network is run on two small tiles, and a straight line through their peaks tells any
other (`measure_needs`; benchmarks/plan_cpu_*.md has the errors). Whether tiles share the optical flow of the whole
picture needs no more than the size of things: that the network counts (`Network.flow_bytes`).
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from spikevrt import runtime
from spikevrt.checkpoint import WeightsInfo
from spikevrt.config import Precision, SpikeInputs
from spikevrt.recording.alignment import nearest_ratio
from spikevrt.recording.recording import Recording
from spikevrt.recording.stream import READ_BITS
from spikevrt.represent.interval import MAX_INT16_TICKS, STRIP_VALUES
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.tiling import padded_size

if TYPE_CHECKING:
    from spikevrt.model.network import Network

FIXED_BYTES = 300_000_000  # code of the kernels, and their work space, which is the same for any tile
MARGIN = 0.1  # share of the free memory that is left alone
WARM_RUNS = 2  # of each small tile: the second shows what the allocator keeps
LEAST_TILE_PX = 128  # smaller tiles are mostly overlap: a shorter clip comes first
SUFFIXES = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


@dataclass(frozen=True)
class Plan:
    """The side of a tile, and whether the tiles share the optical flow of the whole picture."""

    tile_px: int
    shares_flows: bool


def plan_tiles(network: Network, num_frames: int, height_px: int, width_px: int, *, tile_px: int) -> Plan:
    """Tiles of at most `tile_px` a side. Several share flows, unless to compute these takes more than a tile does."""
    whole_px = max(height_px, width_px)
    tile_px = min(tile_px, whole_px)
    if not network.shares_flows or tile_px == whole_px:
        return Plan(tile_px, False)
    at_work = network.bytes_per_pixel() * num_frames * tile_px**2
    return Plan(tile_px, network.flow_bytes(num_frames, height_px, width_px) <= at_work)


@dataclass(frozen=True)
class Needs:
    """What a process holds with its network, and a straight line through what two tiles of a clip added to it."""

    held_bytes: int
    offset_bytes: float
    bytes_per_pixel: float  # of a tile, for each frame of the clip

    def peak_bytes(self, num_frames: int, tile_px: int, *, beside_bytes: int = 0) -> int:
        """The peak of the process; `beside_bytes`: frames and spikes of clips that are held at the same time."""
        line = self.offset_bytes + self.bytes_per_pixel * num_frames * tile_px**2
        return round(self.held_bytes + line + beside_bytes)


def measure_needs(network: Network, *, ratio: int, num_frames: int, precision: Precision) -> Needs:
    """Run the network on two small tiles (`Network.probe_scale`) and take the peaks.

    `ratio`: frame pixels per spike pixel. The process grows to the larger peak, which a restoration then uses.
    """
    device = next(network.parameters()).device
    multiple = network.pad_multiple * ratio
    small_px = padded_size(1, multiple=multiple, minimum=network.min_size_px)
    small_px *= network.probe_scale
    held, peaks = runtime.held_bytes(device), list[tuple[int, int]]()
    for side_px in (small_px, 2 * small_px):
        frames, voxels = torch.full((1, num_frames, 3, side_px, side_px), 0.5, device=device), None
        if network.config.spikes is not None:
            shape = (1, num_frames, network.config.spikes.num_bins, side_px // ratio, side_px // ratio)
            voxels = torch.zeros(shape, device=device)
        runtime.reset_peak_memory(device)
        for _ in range(WARM_RUNS):
            with torch.no_grad(), runtime.autocast(device, precision):
                network(frames, voxels)
        runtime.synchronise(device)
        peaks.append((num_frames * side_px**2, runtime.peak_memory_bytes(device) - held))
    (few, low), (many, high) = peaks
    slope = max(high - low, 0) / (many - few)
    return Needs(held, max(low - slope * few, 0.0), slope)


@dataclass(frozen=True)
class FootageSize:
    """What is restored: frames, frame pixels per spike pixel along a side, bytes of one frame's voxels, of one as it
    was recorded where it was resampled since, and those that making voxels takes meanwhile (`reading_bytes`)."""

    num_frames: int
    height_px: int
    width_px: int
    ratio: int = 1
    voxel_bytes: int = 0
    recorded_bytes: int = 0
    reading_bytes: int = 0


def clip_bytes(options: RestoreOptions, size: FootageSize) -> int:
    """Frames and spikes that are held beside a tile: those that were read for two clips and wait for a third, a clip
    stacked, padded, blended and done; and what is read meanwhile."""
    frame_bytes = 4 * 3 * size.height_px * size.width_px
    clip = min(options.clip_frames or size.num_frames, size.num_frames)
    held = clip * (8 * frame_bytes + 5 * size.voxel_bytes + 6 * size.recorded_bytes)
    return held + size.reading_bytes


def reading_bytes(recording: Recording, spec: SpikeInputs) -> int:
    """The longest exposure as bits, and the larger of what is unpacked at a time: a run of ticks while it is read; for
    profiles some rows, of which every tick keeps the spike before it (two bytes, or four)."""
    assert recording.spikes is not None
    num_ticks = max(exposure.span[1] - exposure.span[0] for exposure in recording.exposures)
    height, width = recording.spikes.height, recording.spikes.width
    unpacked = min(num_ticks * height * width, READ_BITS)
    if spec.representation == "profile":
        strip = min(num_ticks * height * width, max(STRIP_VALUES, num_ticks * width))
        unpacked = strip * (3 if num_ticks <= MAX_INT16_TICKS else 5)
    return num_ticks * height * -(-width // 8) + unpacked


def choose(
    network: Network,
    options: RestoreOptions,
    size: FootageSize,
    *,
    budget_bytes: int,
    precisions: Sequence[Precision],
) -> tuple[RestoreOptions, int]:
    """The options with the largest tile that fits the budget, and the predicted peak in bytes.

    Tried in this order, until tiles of `LEAST_TILE_PX` (or the whole picture) fit: the clip as asked for, in each of
    the `precisions`; then clips of 3 and of 2 frames; then the smallest tiles that there are. Raises ValueError:
    nothing fits.
    """
    multiple = network.pad_multiple * size.ratio
    clip = min(options.clip_frames or size.num_frames, size.num_frames)
    least_px = max(
        padded_size(1, multiple=multiple, minimum=network.min_size_px),
        padded_size(options.overlap_px + multiple, multiple=multiple, minimum=1) if options.tile_px else 0,
    )
    whole_px = padded_size(max(size.height_px, size.width_px), multiple=multiple, minimum=network.min_size_px)
    most_px = min(options.tile_px // multiple * multiple or whole_px, whole_px)
    needs = {
        name: measure_needs(network, ratio=size.ratio, num_frames=max(2, clip), precision=name) for name in precisions
    }
    lengths = [clip, *(length for length in (3, 2) if length < clip)]
    for wanted_px in (min(LEAST_TILE_PX, most_px), least_px):
        for length in lengths:
            for name in precisions:
                changed = replace(
                    options, precision=name, clip_frames=length if length < clip else options.clip_frames,
                    overlap_frames=min(options.overlap_frames, length - 1) if length > 1 else options.overlap_frames,
                )  # fmt: skip
                beside = clip_bytes(changed, size)
                for tile_px in range(most_px, max(wanted_px, least_px) - 1, -multiple):
                    peak = needs[name].peak_bytes(max(2, length), tile_px, beside_bytes=beside)
                    if peak <= budget_bytes:
                        return replace(
                            changed, tile_px=0 if tile_px == whole_px and not options.tile_px else tile_px
                        ), peak
    raise ValueError(
        f"memory: {budget_bytes / 1e9:.3g} GB; the smallest tile of {least_px} px with clips of {lengths[-1]} frames "
        f"needs about {peak / 1e9:.3g}"
    )


def fit_into_memory(
    network: Network, info: WeightsInfo, recording: Recording, options: RestoreOptions, memory: str | None
) -> tuple[RestoreOptions, int | None]:
    """`choose` for a recording, and the predicted peak; None where all surely fits into what is free, or nothing tells
    that. `memory`: the budget of the process, as `parse_bytes` reads it. Raises ValueError: nothing fits, or a `memory`
    that is none."""
    device = runtime.pick_device(options.device)
    budget = memory_budget(memory, device)
    if budget is None:
        return options, None
    ratio, voxel_bytes, reading = 1, 0, 0
    spec, stream = info.model.spikes, recording.spikes
    if spec is not None and stream is not None and not options.without_spikes:
        ratio = nearest_ratio(recording.height, recording.width, stream.height, stream.width)
        voxel_bytes = 4 * spec.num_bins * -(-recording.height // ratio) * -(-recording.width // ratio)
        reading = reading_bytes(recording, spec)
    recorded = 0 if recording.view is None else 4 * 3 * math.prod(recording.view.frame_size)
    size = FootageSize(recording.num_frames, recording.height, recording.width, ratio, voxel_bytes, recorded, reading)
    if memory is None:
        side = min(options.tile_px or sys.maxsize, max(recording.height, recording.width))
        most = most_bytes(network, min(options.clip_frames or recording.num_frames, recording.num_frames), side)
        if runtime.held_bytes(device) + most + clip_bytes(options, size) <= budget:
            return options, None
    precisions: list[Precision] = [options.precision]
    if options.precision == "fp32" and device.type == "cuda":  # on a CPU it saves little and takes longer
        precisions.append("bf16")
    return choose(network, options, size, budget_bytes=budget, precisions=precisions)


def most_bytes(network: Network, num_frames: int, tile_px: int) -> int:
    """More than a tile of a clip was ever seen to take."""
    return FIXED_BYTES + round(network.bytes_per_pixel() * max(2, num_frames) * tile_px**2)


def memory_budget(text: str | None, device: torch.device) -> int | None:
    """Bytes that the process may hold: as said (`parse_bytes`), else what it holds and most of what is free; None where
    the system does not tell. Raises ValueError: as `parse_bytes`."""
    if text is not None:
        return parse_bytes(text)
    free = runtime.free_bytes(device)
    return None if free is None else runtime.held_bytes(device) + round((1 - MARGIN) * free)


def parse_bytes(text: str) -> int:
    """Bytes of "6GiB", "800 MB", "6e9": powers of 1024 with an i, of 1000 without. Raises ValueError: anything else."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?(?:e[0-9]+)?)\s*([kmg]i?b)?", text.strip().lower())
    num_bytes = 0 if match is None else round(float(match[1]) * SUFFIXES[match[2] or ""])
    if num_bytes < 1:
        raise ValueError(f"memory: {text!r}; allowed: a number of bytes, or with a unit as 6GiB, 800MB")
    return num_bytes


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch's says that memory ran out, on a GPU or a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    told = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in told or "not enough memory" in told)
