"""Predict the peak memory of a restoration, and pick the largest tile that fits a budget.

The model is linear in the pixels of one tile's clip, with constants above every measurement on a CPU. Peak of the
process in MB, measured (predicted), one tile of a clip with spikes at half the resolution:

    tiny       5 x 128 x 128  fp32   988 (1382)      reference  2 x  64 x  64  fp32   592  (956)
    tiny       2 x 256 x 256  fp32   924 (1791)      reference  5 x  64 x  64  fp32   980 (1339)
    tiny       5 x 256 x 256  fp32  2058 (3427)      reference  5 x 128 x 128  fp32  2122 (3256)
    tiny       5 x 256 x 256  bf16  2360 (3427)      the same, allocator tuned: tiny 5 x 256 x 256 fp32  2872 (3427)

Nothing was measured on CUDA yet.
"""

from __future__ import annotations

from spikevrt.config import ModelConfig

FIXED_BYTES = 700_000_000  # Python, torch, weights, and the work space of attention, which is the same for any tile
BYTES_PER_PIXEL_AND_CHANNEL = 260  # activations alive at the peak, for each channel of the widest stage


def predict_peak_bytes(model: ModelConfig, num_frames: int, height_px: int, width_px: int) -> int:
    """Peak memory in bytes of this process while a tile of (num_frames, height_px, width_px) is restored.

    Not in it: the clip that the tile is cut from.
    """
    return FIXED_BYTES + BYTES_PER_PIXEL_AND_CHANNEL * max(model.vrt.dims) * num_frames * height_px * width_px


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
