"""One clip of any size through a network: padded, cut into tiles, blended, cropped again.

What goes wrong in a tile stops the work with the tile's name; nothing is painted over.

Dimension key: T frames, H W frame rows and columns, K bins, h w voxel rows and columns, hb wb rows and columns of
blocks of voxels.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from spikevrt import runtime
from spikevrt.restore.memory import Plan, is_out_of_memory, plan_tiles
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.tiling import (
    cut_flows,
    cut_voxels,
    pad_mirrored,
    padded_size,
    spatial_tiles,
    tile_activity,
    voxel_ratio,
)

if TYPE_CHECKING:
    from jaxtyping import Float

    from spikevrt.model.network import Network


@dataclass(frozen=True)
class ClipWork:
    """What was done for one clip: its tiles, how many of them were left as they were, whether they shared flows, the
    activity of each (none without `skip_sharp`), and their side where memory ran out for larger ones."""

    num_tiles: int
    num_skipped: int
    shared_flows: bool
    activities: tuple[float, ...]
    tile_px: int | None = None


def tiles_in_all(work: Sequence[ClipWork]) -> dict[str, Any]:
    """num: tiles of all clips; skipped: left as they were; shared_flows: whether tiles shared the optical flow of whole
    pictures; with `skip_sharp` activity: the least, the median and the largest of the tiles; smaller_px: the side of
    the smallest tiles that were taken because memory ran out."""
    activities = [value for clip in work for value in clip.activities]
    summary: dict[str, Any] = {
        "num": sum(clip.num_tiles for clip in work),
        "skipped": sum(clip.num_skipped for clip in work),
        "shared_flows": any(clip.shared_flows for clip in work),
    }
    smaller = [clip.tile_px for clip in work if clip.tile_px is not None]
    if smaller:
        summary["smaller_px"] = min(smaller)
    if activities:
        summary["activity"] = [min(activities), statistics.median(activities), max(activities)]
    return summary


def restore_clip(
    network: Network,
    frames: Float[Tensor, "T 3 H W"],
    voxels: Float[Tensor, "T K h w"] | None,
    options: RestoreOptions,
    *,
    activity: Float[Tensor, "T hb wb"] | None = None,
    still: Float[Tensor, "T 3 H W"] | None = None,
    tell: Callable[[ClipWork], None] | None = None,
    first_tile: Callable[[int], None] | None = None,
) -> Float[Tensor, "T 3 H W"]:
    """Run the network over one clip of any size, T >= 1, tile by tile, and blend. The caller has called `eval()`.

    The result is float32 on the device of `frames` and not clamped. Frames and voxels see the same field of view and
    keep it in every tile and in the padding (mirrored at the bottom and right, cropped again). A single frame is run as
    a clip that repeats it: the network relates frames to each other. The network stays where it is: `options.device`
    matters to whoever loads it. Several tiles share the optical flow of the whole picture where memory allows (`plan`).
    With `options.skip_sharp`, `activity` is that of each frame's spikes, and `still` what comes out where nothing moves
    (None: `frames`). `tell` is called with what was done, `first_tile` with
    the number of tiles that the network runs on, when the first of them is done. Where memory runs out, the clip is
    begun again with tiles of half the size, which is told on stderr.

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
        beyond = (0, voxels.shape[-1] * ratio - width, 0, voxels.shape[-2] * ratio - height)
        if any(beyond):  # the last voxels are filled, so that mirrored frames and voxels stay together
            frames = F.pad(frames, beyond, mode="replicate")
            still = None if still is None else F.pad(still, beyond, mode="replicate")
    padded_height = padded_size(height, multiple=multiple, minimum=network.min_size_px)
    padded_width = padded_size(width, multiple=multiple, minimum=network.min_size_px)
    min_frames = network.min_frames
    frames = _lengthened(pad_mirrored(frames, padded_height, padded_width), min_frames)
    if still is not None:
        still = _lengthened(pad_mirrored(still, padded_height, padded_width), min_frames)
    if voxels is not None:
        voxels = _lengthened(pad_mirrored(voxels, padded_height // ratio, padded_width // ratio), min_frames)
    inputs = _Padded(frames, voxels, frames if still is None else still, activity, multiple, ratio)

    plan = asked = _plan(network, options, frames, multiple)
    while True:
        try:
            restored, work = _restore_tiles(network, inputs, options, plan, first_tile)
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


class _Padded(NamedTuple):
    """A clip that the network can take: sides are multiples of `multiple`, `ratio` frame pixels are one voxel."""

    frames: Float[Tensor, "T 3 H W"]
    voxels: Float[Tensor, "T K h w"] | None
    still: Float[Tensor, "T 3 H W"]
    activity: Float[Tensor, "T hb wb"] | None
    multiple: int
    ratio: int


def _restore_tiles(
    network: Network,
    inputs: _Padded,
    options: RestoreOptions,
    plan: Plan,
    first_tile: Callable[[int], None] | None,
) -> tuple[Float[Tensor, "T 3 H W"], ClipWork]:
    """The padded clip, tile by tile."""
    frames, voxels, still, activity, multiple, ratio = inputs
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
            output = still[None, :, :, tile.rows, tile.columns]
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
        if first_tile is not None and not skip and tile is tiles[is_sharp.index(False)]:
            first_tile(is_sharp.count(False))
    return blended, ClipWork(len(tiles), sum(is_sharp), flows is not None, activities)


def _smaller_tile(network: Network, options: RestoreOptions, plan: Plan, multiple: int) -> int | None:
    """Half the tile, or the smallest that is left above the overlap; None where it is that already."""
    least_px = max(
        padded_size(1, multiple=multiple, minimum=network.min_size_px),
        padded_size(options.overlap_px + multiple, multiple=multiple, minimum=1),
    )
    smaller_px = max(least_px, plan.tile_px // 2 // multiple * multiple)
    return smaller_px if smaller_px < plan.tile_px else None


def _check_clip(network: Network, frames: Tensor, voxels: Tensor | None, options: RestoreOptions) -> None:
    assert frames.ndim == 4 and frames.shape[1] == 3 and len(frames) > 0, tuple(frames.shape)
    spikes = network.config.spikes
    if spikes is None and voxels is not None:
        raise ValueError("voxels: given, but this network has no spike branch; allowed: none")
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
