"""Restore footage: tiles in space, overlapping clips in time, every frame out exactly once and in order.

Whoever runs a network on pictures (validation, evaluation, the command, the demo) does it through here. What goes
wrong in a tile stops the work with the tile's name; nothing is painted over.

Dimension key: T frames, H W frame rows and columns, K bins, h w voxel rows and columns, hb wb rows and
columns of blocks of voxels.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from spikevrt import runtime
from spikevrt.checkpoint import WeightsInfo, load_weights
from spikevrt.recording.atomic import complete_or_absent
from spikevrt.recording.frames import list_images, read_image, to_uint8, write_image
from spikevrt.recording.recording import Recording
from spikevrt.recording.video import write_video
from spikevrt.restore.admission import admit, check_skip, check_spikes, tell_without_spikes
from spikevrt.restore.inputs import network_inputs, reads_spikes
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.output import SUMMARY_FILE, check_out, progress_bar
from spikevrt.restore.plan import FLOW_MAX_PIXELS, Plan, plan_tiles
from spikevrt.restore.slow_motion import check_slow_motion
from spikevrt.restore.tiling import (
    cut_flows,
    cut_voxels,
    pad_mirrored,
    padded_size,
    spatial_tiles,
    tile_activity,
    tile_starts,
    tile_weights,
    voxel_ratio,
)
from spikevrt.restore.work import ClipWork, tiles_in_all

if TYPE_CHECKING:
    from jaxtyping import Float

    from spikevrt.model.build import Network
    from spikevrt.model.network import SpikeVRT


def load_network(weights: Path, device: torch.device) -> tuple[Network, WeightsInfo]:
    """The network of a weights file, loaded strictly, in evaluation mode, on `device`.

    For a CPU this also tunes the allocator of the whole process (`runtime.tune_allocator`): faster, and more memory.

    Raises:
        FileNotFoundError, ValueError: as `load_weights`, and tensors that do not fit the file's own settings.
    """
    from spikevrt.model.build import build_network
    from spikevrt.model.weights import load_strict

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
    With `options.skip_sharp`, `activity` is that of each frame's spikes. `tell` is called with what was done.

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
    min_frames = max(2, 1 + network.config.vrt.pa_frames // 2)
    frames = _lengthened(pad_mirrored(frames, padded_height, padded_width), min_frames)
    if voxels is not None:
        voxels = _lengthened(pad_mirrored(voxels, padded_height // ratio, padded_width // ratio), min_frames)

    device = next(iter(network.parameters()), frames).device
    plan = _plan(network, options, frames, voxels, multiple)
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
            spikevrt = cast("SpikeVRT", network)  # of no other network does a plan share flows
            flows = spikevrt.clip_flows(frames[None].to(device), FLOW_MAX_PIXELS)
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
        output = output[0, :num_frames].to(frames.device, torch.float32)
        if not bool(torch.isfinite(output).all()):
            raise ValueError(
                f"tile rows {tile.top}-{tile.top + tile.height - 1}, columns {tile.left}-{tile.left + tile.width - 1}: "
                f"the network's output is not finite (NaN or infinity, precision {options.precision})"
            )
        weights = (tile.row_weights[:, None] * tile.column_weights).to(frames.device)
        blended[:, :, tile.rows, tile.columns] += output * weights
    if tell is not None:
        tell(ClipWork(len(tiles), sum(is_sharp), flows is not None, activities))
    return blended[:, :, :height, :width].contiguous()


def restore_frames(
    network: Network,
    info: WeightsInfo,
    recording: Recording,
    options: RestoreOptions,
    *,
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[ClipWork], None] | None = None,
) -> Iterator[tuple[int, Float[Tensor, "3 H W"]]]:
    """Restore a recording frame after frame: yields (index, frame) for every index from 0, on the CPU, not clamped.

    Memory does not grow with the length: one clip, its voxels and its result are held. Where clips overlap, their
    results are blended. `progress(done, total)` is called with each frame. The checks come before the first frame,
    when this is called; a spike density far from the training data's is told on stderr in one line.

    Raises:
        ValueError: the recording has no spikes or too few ticks for a network that needs them; and as `restore_clip`.
    """
    check_skip(info, options.skip_sharp)
    warning = check_slow_motion(info, recording, without_spikes=options.without_spikes)
    if warning is not None:
        print(f"spikevrt: warning: {recording.root}: {warning}", file=sys.stderr)
    if reads_spikes(info, options):
        check_spikes(info, recording)
    return _restored_frames(network, info, recording, options, progress, tell)


def _restored_frames(
    network: Network,
    info: WeightsInfo,
    recording: Recording,
    options: RestoreOptions,
    progress: Callable[[int, int], None] | None,
    tell: Callable[[ClipWork], None] | None,
) -> Iterator[tuple[int, Tensor]]:
    total = recording.num_frames
    clip = min(options.clip_frames or total, total)
    starts = tile_starts(total, clip, options.overlap_frames)
    weights = tile_weights(total, clip, options.overlap_frames)
    inputs: dict[int, tuple[Tensor, Tensor | None, Tensor | None]] = {}
    blended: dict[int, Tensor] = {}
    for start, next_start, clip_weights in zip(starts, [*starts[1:], total], weights, strict=True):
        inputs = {
            i: inputs[i] if i in inputs else network_inputs(info, recording, i, options)
            for i in range(start, start + clip)
        }
        frames, voxels, activity = (_stacked(clip) for clip in zip(*inputs.values(), strict=True))
        assert frames is not None
        try:
            restored = restore_clip(network, frames, voxels, options, activity=activity, tell=tell)
        except ValueError as error:
            raise ValueError(f"{recording.name}, frames {start}-{start + clip - 1}: {error}") from None
        for offset, frame in enumerate(restored):
            part = frame * clip_weights[offset]
            blended[start + offset] = blended[start + offset] + part if start + offset in blended else part
        for index in range(start, next_start):
            if progress is not None:
                progress(index + 1, total)
            yield index, blended.pop(index)


def restore_recording(
    weights: Path,
    recording: Recording,
    out: Path,
    options: RestoreOptions,
    *,
    overwrite: bool = False,
    video: bool | None = None,
) -> dict[str, Any]:
    """Restore a recording into files; nothing stands under the name `out` before all of it is there.

    `out` is a video where it ends in .mp4; otherwise a folder of 000000.png ..., restored.json and, with `video`,
    restored.mp4. A progress bar is shown on a terminal. A recording whose spikes are to be read passes the health gate
    first (`admit`). Returns the summary (in the folder: restored.json): num_frames, dropped (frame_idx and why),
    seconds, peak_bytes (of CUDA, else of this process), tiles (as `tiles_in_all`), fps, recording, weights, options,
    environment.

    Raises:
        FileExistsError: `out` exists, and `overwrite` is off or it is no earlier result of this function.
        FileNotFoundError, ValueError: as `load_network` and `restore_frames`.
    """
    out, weights = Path(out), Path(weights)
    as_video = out.suffix.lower() == ".mp4"
    if as_video and video is False:
        raise ValueError(f"{out}: a name that ends in .mp4 is a video; choose a folder for frames")
    check_out(out, overwrite=overwrite)
    device = runtime.pick_device(options.device)
    runtime.autocast(device, options.precision)  # refused now rather than after the loading
    runtime.reset_peak_memory(device)
    start_s = time.perf_counter()
    network, info = load_network(weights, device)
    if reads_spikes(info, options):
        recording = admit(recording, options.ignore_health)
    elif options.without_spikes:
        tell_without_spikes(info, str(weights))
    if recording.dropped:
        frame_idx, why = recording.dropped[0]
        more = f", and {len(recording.dropped) - 1} more" if len(recording.dropped) > 1 else ""
        print(f"spikevrt: {recording.root}: frame {frame_idx} left out: {why}{more}", file=sys.stderr)
    with complete_or_absent(out) as partial, progress_bar(f"restoring {recording.name}") as progress:
        work: list[ClipWork] = []
        restored = restore_frames(network, info, recording, options, progress=progress, tell=work.append)
        if as_video:
            write_video(partial, (to_uint8(frame) for _, frame in restored), recording.fps)
        else:
            partial.mkdir()
            for index, frame in restored:
                write_image(partial / f"{index:06d}.png", to_uint8(frame))
            if video:
                write_video(partial / "restored.mp4", map(read_image, list_images(partial)), recording.fps)
        runtime.synchronise(device)
        summary = {
            "num_frames": recording.num_frames,
            "dropped": recording.dropped,
            "seconds": time.perf_counter() - start_s,
            "peak_bytes": runtime.peak_memory_bytes(device),
            "tiles": tiles_in_all(work),
            "fps": recording.fps,
            "recording": recording.name,
            "weights": weights.name,
            "options": asdict(options),
            "environment": runtime.environment(device),
        }
        if not as_video:
            (partial / SUMMARY_FILE).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


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


def _plan(network: Network, options: RestoreOptions, frames: Tensor, voxels: Tensor | None, multiple: int) -> Plan:
    """The tiles that the options ask for, as the network and the spike ratio can have them."""
    smallest_px = padded_size(1, multiple=multiple, minimum=network.min_size_px)
    if options.tile_px and options.tile_px < smallest_px:
        raise ValueError(f"tile_px: {options.tile_px}; this network needs {smallest_px} or more (0: the whole picture)")
    budget_bytes = None
    if options.max_memory_gb is not None:
        smallest_px = max(smallest_px, padded_size(options.overlap_px + multiple, multiple=multiple, minimum=1))
        num_values = 4 * frames.numel() + (0 if voxels is None else 2 * voxels.numel())  # read, padded, blended, result
        budget_bytes = int(options.max_memory_gb * 1e9) - 4 * num_values
    return plan_tiles(
        network.config,
        len(frames),
        frames.shape[-2],
        frames.shape[-1],
        tile_px=options.tile_px // multiple * multiple or sys.maxsize,
        smallest_px=smallest_px,
        multiple=multiple,
        budget_bytes=budget_bytes,
    )
