"""Cut a clip into overlapping tiles that share one field of view between frames and spikes, and blend them again.

Pure functions. All padding and cropping of inputs happens here. Along one axis of `size` steps, tile i covers
[start_i, start_i + tile) and has a weight per step; at every step the weights of the tiles over it sum to one, at
the border too. The same rule serves rows, columns and frames.

Dimension key: T frames, H W frame rows and columns, K bins, h w voxel rows and columns, r ratio of H to h, hb wb rows
and columns of blocks of voxels.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spikevrt.model.flow import Flows
from spikevrt.recording.alignment import nearest_ratio
from spikevrt.represent.inputs import BLOCK

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class Tile:
    """One spatial tile, in frame pixels of the padded picture; weights are 1-D and never zero everywhere."""

    top: int
    left: int
    height: int
    width: int
    row_weights: Tensor
    column_weights: Tensor

    @property
    def rows(self) -> slice:
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        return slice(self.left, self.left + self.width)


def tile_starts(size: int, tile: int, overlap: int, *, multiple: int = 1) -> list[int]:
    """Starts of the fewest, evenly spread tiles that cover [0, size) and overlap by at least `overlap`.

    Every start is a multiple of `multiple`, and so must size and tile be; one tile is enough when size <= tile.

    Raises:
        ValueError: there is more than one tile, and overlap is negative or so large that tiles would not advance.
    """
    assert size > 0 and tile > 0 and size % multiple == tile % multiple == 0, (size, tile, multiple)
    if size <= tile:
        return [0]
    if not 0 <= overlap <= tile - multiple:
        raise ValueError(
            f"overlap: {overlap} of tiles of {tile}; allowed: 0 to {tile - multiple} (steps of {multiple})"
        )
    units, tile_units = size // multiple, tile // multiple
    num_steps = math.ceil((units - tile_units) / (tile_units - math.ceil(overlap / multiple)))
    return [i * (units - tile_units) // num_steps * multiple for i in range(num_steps + 1)]


def tile_weights(size: int, tile: int, overlap: int, *, multiple: int = 1) -> list[Float[Tensor, " tile"]]:
    """A weight per step for each tile of `tile_starts`; over every step of [0, size) they sum to one."""
    starts = tile_starts(size, tile, overlap, multiple=multiple)
    return [blend_weights(starts, min(size, tile), i) for i in range(len(starts))]


def blend_weights(starts: Sequence[int], tile: int, i: int) -> Float[Tensor, " tile"]:
    """The weight of tile `i` at each of its steps, among tiles of one length that begin at the rising `starts`.

    Weights are flat at the border of the picture and inside a tile. Across an overlap of n steps they rise linearly,
    but the outer n // 4 of them, which saw the least of their surroundings, get nothing. At every step those of all
    tiles over it sum to one. Only tiles less than two lengths away matter.
    """
    near = range(bisect_right(starts, starts[i] - 2 * tile), bisect_left(starts, starts[i] + 2 * tile))
    raw = torch.ones(len(near), tile, dtype=torch.float64)
    for row, (k, following) in enumerate(pairwise(near)):
        num_shared = max(0, starts[k] + tile - starts[following])
        rise = _rise(num_shared)
        raw[row + 1, :num_shared] = torch.minimum(raw[row + 1, :num_shared], rise)
        raw[row, tile - num_shared :] = torch.minimum(raw[row, tile - num_shared :], rise.flip(0))
    total = torch.zeros(tile, dtype=torch.float64)
    for k, weights in zip(near, raw, strict=True):
        begin, end = max(starts[k], starts[i]), min(starts[k], starts[i]) + tile
        if begin < end:
            total[begin - starts[i] : end - starts[i]] += weights[begin - starts[k] : end - starts[k]]
    assert bool((total > 0).all()), (starts, tile)
    return (raw[near.index(i)] / total).to(torch.float32)


def _rise(num_steps: int) -> Tensor:
    margin = num_steps // 4
    inner = num_steps - 2 * margin
    return ((torch.arange(num_steps, dtype=torch.float64) - margin + 1) / (inner + 1)).clamp(0.0, 1.0)


def spatial_tiles(height: int, width: int, tile_px: int, overlap_px: int, *, multiple: int) -> list[Tile]:
    """All tiles of a padded picture, row by row; `tile_px` 0 is one tile over everything."""
    axes = []
    for size in (height, width):
        tile = tile_px or size
        overlap = overlap_px if tile_px else 0
        starts = tile_starts(size, tile, overlap, multiple=multiple)
        weights = tile_weights(size, tile, overlap, multiple=multiple)
        axes.append([(start, min(size, tile), w) for start, w in zip(starts, weights, strict=True)])
    return [
        Tile(top, left, tile_height, tile_width, row_weights, column_weights)
        for top, tile_height, row_weights in axes[0]
        for left, tile_width, column_weights in axes[1]
    ]


def padded_size(size: int, *, multiple: int, minimum: int) -> int:
    """The least multiple of `multiple` that is at least `size` and at least `minimum`."""
    return math.ceil(max(size, minimum) / multiple) * multiple


def cut_voxels(voxels: Float[Tensor, "T K h w"], tile: Tile, ratio: int) -> Float[Tensor, "T K th tw"]:
    """The voxels that see what `tile` sees; the tile lies on the grid of ratio x ratio blocks."""
    edges = (tile.top, tile.height, tile.left, tile.width)
    assert not any(edge % ratio for edge in edges), (edges, ratio)
    top, height, left, width = (edge // ratio for edge in edges)
    return voxels[..., top : top + height, left : left + width]


def cut_flows(flows: Flows, tile: Tile) -> Flows:
    """What a whole picture's flows say of `tile`, at every scale; the tile lies on multiples of 8 pixels."""

    def cut(scales: list[Tensor]) -> list[Tensor]:
        return [flow[..., _slice(tile.rows, 2**s), _slice(tile.columns, 2**s)] for s, flow in enumerate(scales)]

    return Flows([cut(scales) for scales in flows.backward], [cut(scales) for scales in flows.forward])


def _slice(whole: slice, divisor: int) -> slice:
    assert whole.start % divisor == whole.stop % divisor == 0, (whole, divisor)
    return slice(whole.start // divisor, whole.stop // divisor)


def tile_activity(activity: Float[Tensor, "T hb wb"], tile: Tile, ratio: int) -> float:
    """The largest value of the blocks (`represent.inputs`) that lie in `tile` or reach into it."""
    px = ratio * BLOCK
    rows, columns = (slice(s.start // px, -(-s.stop // px)) for s in (tile.rows, tile.columns))
    return float(activity[:, rows, columns].max())


def pad_mirrored(x: Tensor, height: int, width: int) -> Tensor:
    """Grow the last two axes to (height, width) at the bottom and right by mirroring, as often as needed.

    The edge itself is repeated (a b c | c b a), so mirroring by r * p frame pixels and by p voxels keeps the same
    field of view. A tensor that already has the size is returned as it is.
    """
    for axis, size in ((-2, height), (-1, width)):
        length = x.shape[axis]
        if size != length:
            position = torch.arange(size, device=x.device) % (2 * length)
            x = x.index_select(axis, torch.minimum(position, 2 * length - 1 - position))
    return x


def voxel_ratio(height: int, width: int, voxel_height: int, voxel_width: int) -> int:
    """Frame pixels per voxel along each side: voxel (i, j) sees the r x r pixels from (r * i, r * j) on.

    Raises:
        ValueError: the voxels do not cover the frame in this way.
    """
    ratio = nearest_ratio(height, width, voxel_height, voxel_width)
    if (voxel_height, voxel_width) != (math.ceil(height / ratio), math.ceil(width / ratio)):
        raise ValueError(
            f"voxels: {voxel_width}x{voxel_height} for frames of {width}x{height}; "
            f"allowed: {math.ceil(width / ratio)}x{math.ceil(height / ratio)} (one for {ratio}x{ratio} pixels)"
        )
    return ratio
