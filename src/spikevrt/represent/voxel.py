"""Turn a window of ticks into the voxels that the network reads: count per bin, log1p, standardise.

Counts are sums of whole numbers (in thirds, fifths, ... of a spike where a tick is shared), so that however they are
reached, from unpacked spikes or from a source that counts packed ones, the bits are the same.

Dimension key: T ticks of one window, K bins, S segments (runs of ticks counted together), H sensor rows, W sensor
columns; `...` any leading axes, such as batch and frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from spikevrt.config import Binning

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Integer, Shaped, UInt8


@dataclass(frozen=True)
class VoxelSpec:
    """How an exposure becomes voxels.

    num_bins: bins per exposure (K).
    binning: "whole", a tick belongs to the last bin that it overlaps; "start", to the one in which it starts; both
        need a tick for every bin. "fractional", a tick that lies in several bins is shared among them by overlap in
        time, which works for any number of ticks.
    """

    num_bins: int = 32
    binning: Binning = "whole"

    def __post_init__(self) -> None:
        _check_num_bins(self.num_bins)
        _check_binning(self.binning)


@dataclass(frozen=True)
class VoxelStats:
    """Mean and standard deviation of log1p(counts) over a training set."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean) or not math.isfinite(self.std) or self.std <= 0:
            raise ValueError(f"voxel stats: mean {self.mean}, std {self.std}; allowed: finite, std above 0")


def bin_edges(num_ticks: int, num_bins: int, binning: Literal["whole", "start"] = "whole") -> list[int]:
    """The K + 1 edges of a binning that divides no tick: bin k covers ticks [edges[k], edges[k+1]).

    whole: floor(k * T / K). start: ceil(k * T / K), which puts tick t into bin int(t * K / T). Where K divides T the
    two are the same; otherwise the bins of one are those of the other with time reversed.

    Raises:
        ValueError: num_bins is below 1, or there are fewer ticks than bins (some bins would always be empty).
    """
    _check_num_bins(num_bins)
    if num_ticks < num_bins:
        raise ValueError(
            f"num_bins: {num_bins} bins for {num_ticks} ticks; "
            f"allowed: at most one bin per tick, or binning: fractional, which shares ticks among bins"
        )
    round_up = num_bins - 1 if binning == "start" else 0
    return [(k * num_ticks + round_up) // num_bins for k in range(num_bins + 1)]


def bin_bounds(num_ticks: int, num_bins: int, binning: Binning) -> list[int]:
    """The K + 1 edges of any binning, in K-ths of a tick: bin k covers [bounds[k], bounds[k+1]).

    Raises:
        ValueError: as `bin_edges` unless binning is "fractional"; num_bins is below 1, or there is no tick; an unknown
            binning.
    """
    _check_binning(binning)
    if binning != "fractional":
        return [edge * num_bins for edge in bin_edges(num_ticks, num_bins, binning)]
    _check_num_bins(num_bins)
    if num_ticks < 1:
        raise ValueError(f"num_ticks: {num_ticks}; allowed: 1 or more")
    return [k * num_ticks for k in range(num_bins + 1)]


def voxelise(
    spikes_THW: UInt8[Tensor, "... T H W"], *, num_bins: int, binning: Binning = "whole"
) -> Float[Tensor, "... {num_bins} H W"]:
    """Count the spikes (0 or 1) of each pixel in `num_bins` contiguous slices of time.

    whole: bin k covers ticks [floor(k*T/K), floor((k+1)*T/K)): bins differ by at most one tick, and every tick is
    counted exactly once. Values are whole numbers, 0 to the number of ticks of the bin.

    start: the same with ticks [ceil(k*T/K), ceil((k+1)*T/K)).

    fractional: bin k covers the time [k*T/K, (k+1)*T/K), in ticks; a tick's spike is shared among the bins that it
    overlaps, in proportion. Values are whole multiples of 1/K, 0 to T/K, and sum to the number of spikes. All three
    agree where K divides T.

    Raises:
        ValueError: num_bins is below 1; whole or start, with fewer ticks than bins; fractional, with no tick.
    """
    assert spikes_THW.ndim >= 3 and spikes_THW.dtype == torch.uint8, (spikes_THW.dtype, tuple(spikes_THW.shape))

    def count(start: int, stop: int) -> Tensor:
        dtype = torch.uint8 if stop - start < 1 << 8 else torch.int16 if stop - start < 1 << 15 else torch.int32
        return spikes_THW[..., start:stop, :, :].sum(dim=-3, dtype=dtype)  # the narrower, the faster on a CPU

    num_ticks = spikes_THW.shape[-3]
    shape = (*spikes_THW.shape[:-3], num_bins, *spikes_THW.shape[-2:])
    edges = _segment_edges(num_ticks, num_bins, binning)
    counts = torch.empty(shape, dtype=torch.float32, device=spikes_THW.device)
    if binning != "fractional":
        for k in range(num_bins):
            counts[..., k, :, :] = count(edges[k], edges[k + 1])
        return counts
    segments = [count(a, b) for a, b in pairwise(edges)]
    return _share(segments, edges, counts)


def count_bins(
    count: Callable[[Sequence[int]], Integer[np.ndarray, "S H W"]],
    num_ticks: int,
    *,
    num_bins: int,
    binning: Binning = "whole",
) -> Float[Tensor, "{num_bins} H W"]:
    """`voxelise`, bit for bit, of one exposure from a source that counts spikes itself, such as a packed file.

    `count(edges)` returns the spikes per pixel of each run of ticks [edges[j], edges[j+1]) of this exposure, of any
    integer type; edges rise from 0 to `num_ticks`. It is called once: whole or start, with the K + 1 edges of the bins;
    fractional, with at most 2 K + 1 edges, so that each run lies in one bin or is a single tick.

    Raises ValueError as `voxelise` does.
    """
    edges = _segment_edges(num_ticks, num_bins, binning)
    segments = count(edges)
    assert segments.ndim == 3 and len(segments) == len(edges) - 1 and segments.dtype.kind in "iu", segments.shape
    if binning != "fractional":
        return torch.from_numpy(segments.astype(np.float32))
    counts = torch.empty((num_bins, *segments.shape[1:]), dtype=torch.float32)
    return _share([torch.from_numpy(segment.astype(np.int32)) for segment in segments], edges, counts)


def density(counts: Tensor) -> Float64[Tensor, ...]:
    """Mean of log1p(counts) of each exposure: over the last three axes (K, H, W) of the WHOLE frame, before any crop.

    In float64, so that a file that keeps it, keeps the same value.
    """
    return _log1p(counts).mean(dim=(-3, -2, -1), dtype=torch.float64)


def normalise(
    counts: Shaped[Tensor, "*KHW"], stats: VoxelStats, *, density: float | Tensor | None = None
) -> Float[Tensor, "*KHW"]:
    """Raw counts to network input: log1p, then (x - mean) / std. Every loading path goes through here.

    With `density`, the frame's own (one number, or one for each of the leading axes), log1p(counts) is first
    multiplied by mean / density, which gives it the training set's mean; a frame without spikes (0) stays as it is.
    Every step is pointwise: the crop of a normalised frame is the normalised crop. Counts stored as bytes go through
    a table of their 256 values, which on one device are the same bits as those of the same counts in float32.

    Raises:
        ValueError: a density is negative or not finite.
    """
    if counts.dtype != torch.uint8:
        return _standardise(torch.log1p(counts.to(torch.float32)), stats, density)
    table = _log1p(torch.arange(256, device=counts.device, dtype=torch.float32))
    if not isinstance(density, Tensor) or density.ndim == 0:
        return _look_up(_standardise(table, stats, density), counts)
    return _standardise(_look_up(table, counts), stats, density)


def _segment_edges(num_ticks: int, num_bins: int, binning: Binning) -> list[int]:
    """Edges of the runs of ticks that are counted together: each run lies in one bin, or is one tick."""
    bounds = bin_bounds(num_ticks, num_bins, binning)
    return sorted({bound // num_bins for bound in bounds} | {-(-bound // num_bins) for bound in bounds})


def _share(segments: Sequence[Tensor], edges: Sequence[int], counts: Tensor) -> Tensor:
    """Fill `counts` (..., K, H, W) from the spikes of each run: K times a share is whole; K divides at the end."""
    num_bins = counts.shape[-3]
    bounds = bin_bounds(edges[-1], num_bins, "fractional")
    dtype = torch.int16 if edges[-1] < 1 << 15 else torch.int32  # a bin holds T / K spikes at most, a total T
    first = 0  # the first run that reaches into bin k
    for k, (start, stop) in enumerate(pairwise(bounds)):
        while edges[first + 1] * num_bins <= start:
            first += 1
        total = torch.zeros_like(segments[0], dtype=dtype)
        for j in range(first, len(segments)):
            a, b = edges[j] * num_bins, edges[j + 1] * num_bins
            if a >= stop:
                break
            overlap = min(b, stop) - max(a, start)
            total += segments[j].to(dtype) * (overlap // (edges[j + 1] - edges[j]))
        counts[..., k, :, :] = total.to(torch.float32) / num_bins
    return counts


def _log1p(counts: Tensor) -> Tensor:
    if counts.dtype == torch.uint8:
        return _look_up(torch.log1p(torch.arange(256, device=counts.device, dtype=torch.float32)), counts)
    return torch.log1p(counts.to(torch.float32))


def _look_up(table: Float[Tensor, " 256"], counts: UInt8[Tensor, ...]) -> Tensor:
    return table.index_select(0, counts.reshape(-1).to(torch.int32)).view(counts.shape)


def _standardise(logs: Tensor, stats: VoxelStats, density: float | Tensor | None) -> Tensor:
    """In place: `logs` is always a new tensor, and fresh memory costs more than the arithmetic."""
    if density is not None:
        measured = torch.as_tensor(density, dtype=torch.float64, device=logs.device)
        if not bool((measured.isfinite() & (measured >= 0)).all()):
            raise ValueError(f"density: {measured.tolist()}; allowed: 0 or more, finite")
        factor = torch.where(measured > 0, stats.mean / measured, 1.0).to(torch.float32)
        logs *= factor[..., None, None, None] if factor.ndim else factor
    return logs.sub_(stats.mean).div_(stats.std)


def _check_num_bins(num_bins: int) -> None:
    if num_bins < 1:
        raise ValueError(f"num_bins: {num_bins}; allowed: 1 or more")


def _check_binning(binning: str) -> None:
    if binning not in get_args(Binning):
        raise ValueError(f"binning: {binning!r}; allowed: {', '.join(get_args(Binning))}")
