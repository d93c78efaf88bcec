"""Restore footage: tiles in space, overlapping clips in time, every frame out exactly once and in order.

Whoever runs a network on pictures (validation, evaluation, the command, the demo) does it through here. What goes
wrong in a tile stops the work with the tile's name; nothing is painted over.

Dimension key: T frames, H W frame rows and columns, K bins, h w voxel rows and columns, hb wb rows and
columns of blocks of voxels.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spikevrt import runtime
from spikevrt.checkpoint import WeightsInfo, load_weights
from spikevrt.recording.recording import Recording
from spikevrt.restore.admission import check_skip, check_spikes
from spikevrt.restore.clips import Clip, cut_clips
from spikevrt.restore.inputs import network_inputs, reads_spikes
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.pipeline import ahead
from spikevrt.restore.plan import Plan, is_out_of_memory, plan_tiles
from spikevrt.restore.slow_motion import check_slow_motion
from spikevrt.restore.tiling import (
    cut_flows,
    cut_voxels,
    pad_mirrored,
    padded_size,
    spatial_tiles,
    tile_activity,
    voxel_ratio,
)
from spikevrt.restore.work import ClipWork

if TYPE_CHECKING:
    from jaxtyping import Float

    from spikevrt.model.network import Network


READ_AHEAD = 1  # clips whose frames and spikes are read while the network works on the one before


def load_network(weights: Path, device: torch.device) -> tuple[Network, WeightsInfo]:
    """The network of a weights file, loaded strictly, in evaluation mode, on `device`.

    For a CPU this also tunes the allocator of the whole process (`runtime.tune_allocator`): faster, and more memory.

    Raises:
        FileNotFoundError, ValueError: as `load_weights`, and tensors that do not fit the file's own settings.
    """
    from spikevrt.model.weights import build_network, load_strict

    if device.type == "cpu":
        runtime.tune_allocator()
    state, info = load_weights(weights)
    network = build_network(info.model)
    load_strict(network, state, str(weights))
    return network.eval().to(device), info


def restore_clip(
    network: Network,
    frames: Float[Tensor, "T 3 H W"],
    voxels: Float[Tensor, "T K h w"] | None,
    options: RestoreOptions,
    *,
    activity: Float[Tensor, "T hb wb"] | None = None,
    tell: Callable[[ClipWork], None] | None = None,
) -> Float[Tensor, "T 3 H W"]:
    """Run the network over one clip of any size, T >= 1, tile by tile, and blend. The caller has called `eval()`.

    The result is float32 on the device of `frames` and not clamped. Frames and voxels see the same field of view and
    keep it in every tile and in the padding (mirrored at the bottom and right, cropped again). A single frame is run as
    a clip that repeats it: the network relates frames to each other. The network stays where it is: `options.device`
    matters to whoever loads it. Several tiles share the optical flow of the whole picture where memory allows (`plan`).
    With `options.skip_sharp`, `activity` is that of each frame's spikes. `tell` is called with what was done. Where
    memory runs out, the clip is begun again with tiles of half the size, which is told on stderr.

    Raises:
        ValueError: an input or a tile of the output is not finite; voxels missing for a network with spikes, or given
            to one without; a `tile_px` that the network cannot take; `skip_sharp` without `activity`.
    """
    assert not network.training, "call network.eval() first"
    _check_clip(network, frames, voxels, options)
    num_frames, _, height, width = frames.shape
    multiple: int = network.pad_multiple
    ratio = 1
    if voxels is not None:
        ratio = voxel_ratio(height, width, voxels.shape[-2], voxels.shape[-1])
        multiple *= ratio  # so that the voxels, too, can be halved as often as the frames
    padded_height = padded_size(height, multiple=multiple, minimum=network.min_size_px)
    padded_width = padded_size(width, multiple=multiple, minimum=network.min_size_px)
    min_frames = network.min_frames
    frames = _lengthened(pad_mirrored(frames, padded_height, padded_width), min_frames)
    if voxels is not None:
        voxels = _lengthened(pad_mirrored(voxels, padded_height // ratio, padded_width // ratio), min_frames)

    plan = asked = _plan(network, options, frames, multiple)
    while True:
        try:
            restored, work = _restore_tiles(network, frames, voxels, activity, options, plan, multiple, ratio)
            break
        except Exception as error:
            smaller = None if not is_out_of_memory(error) else _smaller_tile(network, options, plan, multiple)
            if smaller is None:
                raise
            told = " ".join(str(error).split())[:80] or type(error).__name__
        print(f"spikevrt: out of memory ({told}); tiles of {smaller} px instead of {plan.tile_px}", file=sys.stderr)
        plan = Plan(smaller, shares_flows=False)
    if tell is not None:
        tell(work if plan == asked else replace(work, tile_px=plan.tile_px))
    return restored[:num_frames, :, :height, :width].contiguous()


def _restore_tiles(
    network: Network,
    frames: Float[Tensor, "T 3 H W"],
    voxels: Float[Tensor, "T K h w"] | None,
    activity: Float[Tensor, "T hb wb"] | None,
    options: RestoreOptions,
    plan: Plan,
    multiple: int,
    ratio: int,
) -> tuple[Float[Tensor, "T 3 H W"], ClipWork]:
    """The padded clip, tile by tile."""
    device = next(iter(network.parameters()), frames).device
    num_frames, _, padded_height, padded_width = frames.shape
    tiles = spatial_tiles(padded_height, padded_width, plan.tile_px, options.overlap_px, multiple=multiple)
    activities: tuple[float, ...] = ()
    is_sharp = [False] * len(tiles)
    if options.skip_sharp is not None:
        if activity is None:
            raise ValueError(f"skip_sharp: {options.skip_sharp}, but the activity of the spikes was not given")
        activities = tuple(tile_activity(activity, tile, ratio) for tile in tiles)
        is_sharp = [value < options.skip_sharp for value in activities]
    num_pixels = sum(tile.height * tile.width for tile, skip in zip(tiles, is_sharp, strict=True) if not skip)
    flows = None
    if plan.shares_flows and num_pixels > padded_height * padded_width:  # else the tiles' own are less work
        with torch.no_grad():
            flows = network.clip_flows(frames[None].to(device))
    blended = torch.zeros(num_frames, 3, padded_height, padded_width, device=frames.device)
    for tile, skip in zip(tiles, is_sharp, strict=True):
        tile_frames = frames[None, :, :, tile.rows, tile.columns]
        if skip:
            output = tile_frames
        else:
            tile_voxels = None if voxels is None else cut_voxels(voxels, tile, ratio)[None].to(device)
            tile_flows = None if flows is None else cut_flows(flows, tile)
            with torch.no_grad(), runtime.autocast(device, options.precision):
                output = network(tile_frames.to(device), tile_voxels, flows=tile_flows)
        output = output[0].to(frames.device, torch.float32)
        if not bool(torch.isfinite(output).all()):
            raise ValueError(
                f"tile rows {tile.top}-{tile.top + tile.height - 1}, columns {tile.left}-{tile.left + tile.width - 1}: "
                f"the network's output is not finite (NaN or infinity, precision {options.precision})"
            )
        weights = (tile.row_weights[:, None] * tile.column_weights).to(frames.device)
        blended[:, :, tile.rows, tile.columns] += output * weights
    return blended, ClipWork(len(tiles), sum(is_sharp), flows is not None, activities)


def _smaller_tile(network: Network, options: RestoreOptions, plan: Plan, multiple: int) -> int | None:
    """Half the tile, or the smallest that is left above the overlap; None where it is that already."""
    least_px = max(
        padded_size(1, multiple=multiple, minimum=network.min_size_px),
        padded_size(options.overlap_px + multiple, multiple=multiple, minimum=1),
    )
    smaller_px = max(least_px, plan.tile_px // 2 // multiple * multiple)
    return smaller_px if smaller_px < plan.tile_px else None


def restore_frames(
    network: Network,
    info: WeightsInfo,
    recording: Recording,
    options: RestoreOptions,
    *,
    cuts: Sequence[int] = (),
    without_spikes: Collection[int] = frozenset(),
    first: int = 0,
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[ClipWork], None] | None = None,
) -> Generator[tuple[int, Float[Tensor, "3 H W"]], None, None]:
    """Restore a recording frame after frame: yields (index, frame) for every index from `first` on, on the CPU, not
    clamped.

    Memory does not grow with the length: one clip, its voxels and its result are held, and the frames of the next one,
    which a thread reads meanwhile. Where clips overlap, their results are blended; none reaches across a frame in
    `cuts` (the first of a new scene). Frames in `without_spikes`, and those whose exposure lies outside the stream, are
    restored from the frames alone. A frame does not depend on `first`. `progress(done, total)` is called with each
    frame. The checks come before the first frame, when this is called; a spike density far from the training data's is
    told on stderr in one line.

    Raises:
        ValueError: the recording has no spikes or too few ticks for a network that needs them; and as `restore_clip`.
    """
    check_skip(info, options.skip_sharp)
    warning = check_slow_motion(info, recording, without_spikes=options.without_spikes)
    if warning is not None:
        print(f"spikevrt: warning: {recording.root}: {warning}", file=sys.stderr)
    missing = set(without_spikes)
    if reads_spikes(info, options):
        if recording.spikes is not None:
            missing |= {index for index in range(recording.num_frames) if not recording.is_inside(index)}
        check_spikes(info, recording.inside_stream() if recording.spikes is not None else recording)
    clips = cut_clips(
        recording.num_frames,
        clip_frames=options.clip_frames,
        overlap_frames=options.overlap_frames,
        cuts=cuts,
        without_spikes=missing if reads_spikes(info, options) else (),
        first=first,
    )
    return _restored_frames(network, info, recording, options, clips, first, progress, tell)


def _restored_frames(
    network: Network,
    info: WeightsInfo,
    recording: Recording,
    options: RestoreOptions,
    clips: Iterator[Clip],
    first: int,
    progress: Callable[[int, int], None] | None,
    tell: Callable[[ClipWork], None] | None,
) -> Generator[tuple[int, Tensor], None, None]:
    blended: dict[int, Tensor] = {}
    for clip, inputs in ahead(_read_clips(info, recording, options, clips), READ_AHEAD):
        frames, voxels, activity = inputs
        how = options if clip.has_spikes else replace(options, without_spikes=True, skip_sharp=None, strict=False)
        work: list[ClipWork] = []
        try:
            restored = restore_clip(network, frames, voxels, how, activity=activity, tell=work.append)
        except ValueError as error:
            raise ValueError(f"{recording.name}, frames {clip.start}-{clip.stop - 1}: {error}") from None
        if work[0].tile_px is not None:  # smaller than asked for, because memory ran out: so it will again
            options = replace(options, tile_px=work[0].tile_px)
        if tell is not None:
            tell(work[0])
        for offset, frame in enumerate(restored):
            part, index = frame * clip.weights[offset], clip.start + offset
            blended[index] = blended[index] + part if index in blended else part
        for index in range(clip.start, clip.settled):
            frame = blended.pop(index)
            if index < first:
                continue
            if progress is not None:
                progress(index + 1, recording.num_frames)
            yield index, frame


def _read_clips(
    info: WeightsInfo, recording: Recording, options: RestoreOptions, clips: Iterator[Clip]
) -> Iterator[tuple[Clip, tuple[Tensor, Tensor | None, Tensor | None]]]:
    """Each clip with its frames, voxels and activity; what two clips share is read once."""
    kept: dict[int, tuple[Tensor, Tensor | None, Tensor | None]] = {}
    for clip in clips:
        how = options if clip.has_spikes else replace(options, without_spikes=True, skip_sharp=None, strict=False)
        kept = {
            i: kept[i] if i in kept else network_inputs(info, recording, i, how) for i in range(clip.start, clip.stop)
        }
        frames, voxels, activity = (_stacked(part) for part in zip(*kept.values(), strict=True))
        assert frames is not None
        yield clip, (frames, voxels, activity)


def _stacked(clip: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in clip if part is not None]
    return torch.stack(present) if present else None


def _check_clip(network: Network, frames: Tensor, voxels: Tensor | None, options: RestoreOptions) -> None:
    assert frames.ndim == 4 and frames.shape[1] == 3 and len(frames) > 0, tuple(frames.shape)
    spikes = network.config.spikes
    if spikes is None and voxels is not None:
        raise ValueError("voxels: given, but this network has no spike branch; allowed: None")
    if spikes is not None and not options.without_spikes:
        expected = f"({len(frames)}, {spikes.num_bins}, h, w)"
        if voxels is None:
            raise ValueError(f"voxels: none given, but this network reads spikes; allowed: {expected}")
        if voxels.ndim != 4 or voxels.shape[:2] != (len(frames), spikes.num_bins):
            raise ValueError(f"voxels: shape {tuple(voxels.shape)}; allowed: {expected}")
    for name, clip in (("frames", frames), ("voxels", voxels)):
        if clip is not None and not bool(torch.isfinite(clip).all()):
            bad = [i for i, frame in enumerate(clip) if not bool(torch.isfinite(frame).all())]
            raise ValueError(f"{name}: NaN or infinity in frame {bad[0]} of the clip; allowed: finite values")


def _lengthened(clip: Tensor, min_frames: int) -> Tensor:
    """The clip, its last frame repeated until there are `min_frames`."""
    missing = min_frames - len(clip)
    return torch.cat([clip, clip[-1:].expand(missing, -1, -1, -1)]) if missing > 0 else clip


def _plan(network: Network, options: RestoreOptions, frames: Tensor, multiple: int) -> Plan:
    """The tiles that the options ask for, as the network and the spike ratio can have them."""
    smallest_px = padded_size(1, multiple=multiple, minimum=network.min_size_px)
    if options.tile_px and options.tile_px < smallest_px:
        raise ValueError(f"tile_px: {options.tile_px}; this network needs {smallest_px} or more (0: the whole picture)")
    tile_px = options.tile_px // multiple * multiple or sys.maxsize
    return plan_tiles(network, len(frames), frames.shape[-2], frames.shape[-1], tile_px=tile_px)
