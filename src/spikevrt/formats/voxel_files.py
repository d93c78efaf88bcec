"""Precomputed voxels (spike_vox/NNNNNN.npy, one file an exposure) as a stream that counts to exactly these values.

A file holds K x h x w numbers: the counts of each bin, log1p of them, counts over a fixed number (a rate), or one of
these standardised with a mean and a standard deviation that are stated. What it does not tell is when within its bin a
spike fell. A bin becomes `ticks_per_bin` ticks of which as many fire as were counted, evenly spread; so everything that
counts per bin (training, restoring, the health gate) sees the user's own values, to the last bit.

Dimension key: K bins, T ticks (K x ticks per bin), S slices of time, h sensor rows, w sensor columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spikevrt.recording.arrays import load_npy
from spikevrt.recording.spike_file import check_window, counts_dtype
from spikevrt.recording.stream import check_edges

if TYPE_CHECKING:
    from jaxtyping import Float, Num, UInt, UInt8, UInt32

MOST_TICKS = 4096  # of an exposure
MOST_RATE = 64  # counts over a number up to this are told
LOOKED_AT = 5  # files of a clip that tell what its values are
TOLERANCE = 0.01  # of a count + 1: what float16 leaves of log1p


@dataclass(frozen=True)
class VoxelValues:
    """What `mean + std * value` is: a count, a rate (a count over `per`, where that is not 1), or log1p of a count."""

    is_log: bool
    per: int = 1
    mean: float = 0.0
    std: float = 1.0

    def __str__(self) -> str:
        told = "log1p of counts" if self.is_log else "counts" if self.per == 1 else f"counts over {self.per}"
        return told if (self.mean, self.std) == (0, 1) else f"{told}, standardised with {self.mean:g} and {self.std:g}"

    def counts(self, values: Num[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """The counts; they are whole where the values are what `self` says."""
        plain = values.astype(np.float64) * self.std + self.mean
        return np.expm1(plain) if self.is_log else plain * self.per


@dataclass(frozen=True)
class VoxelStream:
    """One file of voxels as ticks; `values` says what they are."""

    path: Path
    values: VoxelValues
    shape: tuple[int, int, int]  # K, h, w
    ticks_per_bin: int
    bottom_up: bool = False

    @property
    def height(self) -> int:
        return self.shape[1]

    @property
    def width(self) -> int:
        return self.shape[2]

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    @property
    def num_ticks(self) -> int:
        return self.shape[0] * self.ticks_per_bin

    def read(self, start_tick: int, stop_tick: int) -> UInt8[np.ndarray, "T h w"]:
        """Raises ValueError outside the file, and where a value in the window is no count."""
        check_window(str(self.path), start_tick, stop_tick, self.num_ticks)
        ticks = np.zeros((stop_tick - start_tick, self.height, self.width), dtype=np.uint8)
        fired = self._fired(range(start_tick, stop_tick + 1))
        for tick, (before, behind) in zip(ticks, pairwise(fired), strict=True):
            np.subtract(behind, before, out=tick, casting="unsafe")
        return ticks

    def count(self, edges: Sequence[int]) -> UInt[np.ndarray, "S h w"]:
        check_edges(edges)
        check_window(str(self.path), edges[0], edges[-1], self.num_ticks)
        slices = [behind - before for before, behind in pairwise(self._fired(edges))]
        return np.stack(slices).astype(counts_dtype(edges))

    def _fired(self, ticks: Sequence[int]) -> Iterator[UInt32[np.ndarray, "h w"]]:
        """The spikes of each pixel before each of these rising ticks, from the bin of the first one on.

        Of the M ticks of a bin with c spikes, floor((j c + p) / M) have fired before tick j. The phase p, 0 to M - 1,
        differs from pixel to pixel, so that no tick is emptier than the others.
        """
        first, last = ticks[0] // self.ticks_per_bin, -(-ticks[-1] // self.ticks_per_bin)
        counts = self._counts(first, last).astype(np.uint32)
        phase = (5 * np.arange(self.height)[:, None] + 3 * np.arange(self.width)) % self.ticks_per_bin
        total, bin_ = np.zeros((self.height, self.width), dtype=np.uint32), 0
        for tick in ticks:
            whole, rest = divmod(tick - first * self.ticks_per_bin, self.ticks_per_bin)
            total = total + counts[bin_:whole].sum(axis=0, dtype=np.uint32)
            bin_ = whole
            yield total + (rest * counts[whole] + phase.astype(np.uint32)) // self.ticks_per_bin if rest else total

    def _counts(self, first: int, last: int) -> UInt8[np.ndarray, "K h w"]:
        found = self.values.counts(_load(self.path)[first:last])
        counts = np.rint(found)
        if not np.isfinite(found).all() or (np.abs(found - counts) > TOLERANCE * (1 + counts)).any():
            raise ValueError(f"{self.path}: values that are not {self.values}, as those of the files looked at are")
        if counts.min(initial=0) < 0 or counts.max(initial=0) > self.ticks_per_bin:
            raise ValueError(
                f"{self.path}: {counts.min():g} to {counts.max():g} spikes in a bin; allowed: 0 to "
                f"{self.ticks_per_bin}, half as many again as the files looked at hold"
            )
        return (counts[:, ::-1] if self.bottom_up else counts).astype(np.uint8)


def open_voxels(
    paths: Sequence[Path], *, mean: float = 0.0, std: float = 1.0, bottom_up: bool = False
) -> tuple[VoxelStream, ...]:
    """The files of one clip, all of the first one's shape; a few of them, read whole, tell what the values are.

    Raises:
        ValueError: a file that is damaged or of another shape, or values that are neither counts nor made of them.
    """
    shape = voxel_shape(paths[0])
    looked_at = [paths[round(i)] for i in np.linspace(0, len(paths) - 1, min(len(paths), LOOKED_AT))]
    values, most = _told(looked_at, mean, std)
    ticks_per_bin = most + max(1, most // 2)  # a little more than was seen: there may be brighter exposures
    if shape[0] * ticks_per_bin > MOST_TICKS:
        raise ValueError(
            f"{paths[0]}: up to {most} spikes in each of {shape[0]} bins; allowed: {2 * MOST_TICKS // 3 // shape[0]}. "
            "Packed bits that were read as bytes look so; read the spike files (--voxels raw), or make the voxels again"
        )
    return tuple(VoxelStream(path, values, shape, ticks_per_bin, bottom_up) for path in paths)


def voxel_shape(path: Path) -> tuple[int, int, int]:
    """(K, h, w) of a file of voxels, from its head. Raises ValueError."""
    shape = load_npy(path).shape
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"{path}: voxels of shape {shape}; allowed: (bins, height, width)")
    return shape[0], shape[1], shape[2]


def _told(paths: Sequence[Path], mean: float, std: float) -> tuple[VoxelValues, int]:
    """What the values of these files are, and their largest count."""
    arrays = [_load(path) for path in paths]
    kinds = [VoxelValues(False, 1, mean, std), VoxelValues(True, 1, mean, std)]
    kinds += [VoxelValues(False, per, mean, std) for per in range(2, MOST_RATE + 1)]
    seen = np.unique(np.concatenate([np.unique(array[:, ::7, ::5]) for array in arrays]))
    for kind in kinds:
        if kind.per > 1 and seen.max() * std + mean > 1:  # a rate is at most 1
            break
        if not _is_whole(kind.counts(seen)):
            continue
        counts = [kind.counts(array) for array in arrays]
        if all(map(_is_whole, counts)):
            return kind, round(max(float(one.max()) for one in counts))
    lowest, highest = (getattr(np, end)([getattr(array, end)() for array in arrays]) for end in ("min", "max"))
    told = "" if (mean, std) == (0, 1) else f" (times {std:g}, plus {mean:g})"
    raise ValueError(
        f"{paths[0]}: values from {lowest:g} to {highest:g}{told} are neither counts, nor log1p of counts, nor counts "
        "over a number; allowed: one of these. Where they were standardised, state how (--voxel-mean, --voxel-std: "
        "DATA.NORM of the old config); else make them again, or use the spike files"
    )


def _is_whole(counts: np.ndarray) -> bool:
    whole = np.rint(counts)
    return bool(
        np.isfinite(counts).all() and whole.min() >= 0 and (np.abs(counts - whole) <= TOLERANCE * (1 + whole)).all()
    )


def _load(path: Path) -> np.ndarray:
    """The file, mapped. Raises ValueError when it is damaged or holds no numbers."""
    array = load_npy(path)
    if array.dtype.kind not in "fiub" or array.ndim != 3:
        raise ValueError(f"{path}: {array.dtype} of shape {array.shape}; allowed: numbers of (bins, height, width)")
    return array
