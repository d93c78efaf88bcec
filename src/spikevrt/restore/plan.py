"""Predict the peak memory of a restoration, and pick the largest tile that fits a budget.

The model is linear in the pixels of one tile's clip, with constants above every measurement on a CPU. Peak of the
process in MB, measured (predicted), one tile of a clip with spikes at half the resolution:

    tiny       5 x 128 x 128  fp32   988 (1382)      reference  2 x  64 x  64  fp32   592  (956)
    tiny       2 x 256 x 256  fp32   924 (1791)      reference  5 x  64 x  64  fp32   980 (1339)
    tiny       5 x 256 x 256  fp32  2058 (3427)      reference  5 x 128 x 128  fp32  2122 (3256)
    tiny       5 x 256 x 256  bf16  2360 (3427)      the same, allocator tuned: tiny 5 x 256 x 256 fp32  2872 (3427)

    unet       5 x 128 x 128  fp32   528  (874)      unet_rgb   5 x 128 x 128  fp32   545  (842)
    unet       5 x 256 x 256  fp32   906 (1395)      unet_rgb   5 x 256 x 256  fp32   923 (1269)
    unet       5 x 512 x 512  fp32  2310 (3479)      unet_rgb   5 x 512 x 512  fp32  2446 (2975)

Of the U-Nets it is the larger of both allocators; with spikes as fine as the frames, unet 5 x 512 x 512 takes 2669.

Flows of a whole picture, for tiles to share, five frames, measured (predicted), the larger of both allocators:

    tiny        512 x 768   220  (268)   720 x 1280  454  (529)
    reference   512 x 768   443  (495)   720 x 1280  634  (755)

Nothing was measured on CUDA yet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from spikevrt.config import ModelConfig

FIXED_BYTES = 700_000_000  # Python, torch, weights, and the work space of attention, which is the same for any tile
BYTES_PER_PIXEL_AND_CHANNEL = 260  # activations alive at the peak, for each channel of the widest stage
UNET_BYTES_PER_PIXEL_AND_CHANNEL = 56  # of a U-Net, for each channel at its widest level
FLOW_MAX_PIXELS = 1 << 18  # the optical flow of a whole picture is computed on so many pixels at a time
FLOW_BYTES_PER_PIXEL = 320  # pyramids of two pictures, warped ones, positions
FLOW_BYTES_PER_PIXEL_AND_CHANNEL = 12  # inside SpyNet, for each channel of two neighbouring layers
FLOW_BYTES_PER_PAIR = 22  # both directions of two frames, x and y, float32, scales 1 to 1/8; for each pixel


@dataclass(frozen=True)
class Plan:
    """The side of a tile, and whether the tiles share the optical flow of the whole picture."""

    tile_px: int
    shares_flows: bool


def predict_peak_bytes(model: ModelConfig, num_frames: int, height_px: int, width_px: int) -> int:
    """Peak memory in bytes of this process while a tile of (num_frames, height_px, width_px) is restored.

    Not in it: the clip that the tile is cut from.
    """
    num_pixels = num_frames * height_px * width_px
    if model.unet is None:
        return FIXED_BYTES + BYTES_PER_PIXEL_AND_CHANNEL * max(model.vrt.dims) * num_pixels
    unet = model.unet
    levels = range(unet.depth + 1)
    widest = max((unet.width + level * unet.growth) / (unet.unshuffle**2 * 4**level) for level in levels)
    if model.spikes is not None:
        widest = max(widest, unet.width)  # the voxels' own first layers, where they are as fine as the frames
    voxels = 0 if model.spikes is None else (1 + 2 * unet.neighbours) * model.spikes.num_bins  # at the ratio 1 at most
    return FIXED_BYTES + math.ceil((UNET_BYTES_PER_PIXEL_AND_CHANNEL * widest + 4 * voxels) * num_pixels)


def stored_flow_bytes(model: ModelConfig, num_frames: int, height_px: int, width_px: int) -> int:
    """The flows of a clip, kept while its tiles are restored."""
    pairs = sum(max(0, num_frames - distance) for distance in range(1, model.vrt.pa_frames // 2 + 1))
    return FLOW_BYTES_PER_PAIR * pairs * height_px * width_px


def predict_flow_bytes(model: ModelConfig, num_frames: int, height_px: int, width_px: int) -> int:
    """What computing the flows of a clip of whole pictures adds to a process, in bytes."""
    widths = model.vrt.flow_widths
    channels = max(a + b for a, b in zip(widths, widths[1:], strict=False))
    at_work = FLOW_BYTES_PER_PIXEL * height_px * width_px + FLOW_BYTES_PER_PIXEL_AND_CHANNEL * channels * min(
        FLOW_MAX_PIXELS, 2 * num_frames * height_px * width_px
    )
    return at_work + 2 * stored_flow_bytes(model, num_frames, height_px, width_px)  # in parts, then put together


def plan_tiles(
    model: ModelConfig,
    num_frames: int,
    height_px: int,
    width_px: int,
    *,
    tile_px: int,
    smallest_px: int,
    multiple: int,
    budget_bytes: int | None,
) -> Plan:
    """Tiles of at most `tile_px` a side, smaller where the predicted peak would exceed `budget_bytes`.

    Several tiles share flows, unless to compute these would take more memory than a tile does.

    Raises:
        ValueError: as `largest_tile_px`.
    """
    whole_px = max(height_px, width_px)
    largest_px = min(tile_px, whole_px)
    can_share = model.unet is None and model.vrt.pa_frames > 0
    flow_bytes = predict_flow_bytes(model, num_frames, height_px, width_px)

    def largest(budget_bytes: int) -> int:
        return largest_tile_px(
            model,
            num_frames,
            budget_bytes=budget_bytes,
            smallest_px=smallest_px,
            largest_px=largest_px,
            multiple=multiple,
        )

    def shares(tile_px: int) -> bool:
        return can_share and flow_bytes <= predict_peak_bytes(model, num_frames, tile_px, tile_px) - FIXED_BYTES

    if budget_bytes is None:
        return Plan(largest_px, largest_px < whole_px and shares(largest_px))
    alone_px = largest(budget_bytes)
    left_bytes = budget_bytes - stored_flow_bytes(model, num_frames, height_px, width_px)
    if alone_px < whole_px and left_bytes >= predict_peak_bytes(model, num_frames, smallest_px, smallest_px):
        beside_flows_px = largest(left_bytes)
        if shares(beside_flows_px):
            return Plan(beside_flows_px, True)
    return Plan(alone_px, False)


def largest_tile_px(
    model: ModelConfig,
    num_frames: int,
    *,
    budget_bytes: int,
    smallest_px: int,
    largest_px: int,
    multiple: int,
) -> int:
    """The largest side of a square tile, from `largest_px` down in steps of `multiple`, whose predicted peak fits.

    Raises:
        ValueError: not even `smallest_px` fits.
    """
    for tile_px in range(largest_px, smallest_px - 1, -multiple):
        if predict_peak_bytes(model, num_frames, tile_px, tile_px) <= budget_bytes:
            return tile_px
    needed_bytes = predict_peak_bytes(model, num_frames, smallest_px, smallest_px)
    raise ValueError(
        f"max_memory_gb: {budget_bytes / 1e9:.3g} GB are left beside the clip; the smallest tile of {smallest_px} px "
        f"needs {needed_bytes / 1e9:.3g} with clips of {num_frames} frames"
    )
