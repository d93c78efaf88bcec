"""Vary what a network learns from: turn a sample's frames and voxels, make its spikes worse, or take them away.

Turning: both mirrors and the transposition together give the eight symmetries of the square, the quarter turns among
them; and time runs backwards. Frames, voxels and meta move alike.

Degrading works on counts per bin, before log1p: so precomputed and raw voxels give the same tensor, and no tick is read
twice. Counts stay whole numbers. Rates and shifts are drawn once a clip; what happens to a single spike, tick or pixel
is drawn on its own.

Dimension key: T frames, K bins of an exposure, H x W colour pixels, h x w spike cells (ratio r colour pixels a side).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spikevrt.config import DataConfig, DegradeConfig
from spikevrt.data.sample import Sample
from spikevrt.represent.voxel import bin_bounds

if TYPE_CHECKING:
    from jaxtyping import Float, Real, UInt8

    from spikevrt.config import Binning


@dataclass(frozen=True)
class Augmentation:
    """What is done to a sample, in this order: transpose, mirror left-right, mirror up-down, reverse time."""

    transpose: bool = False
    mirror_columns: bool = False
    mirror_rows: bool = False
    reverse_time: bool = False


def draw_augmentation(generator: torch.Generator) -> Augmentation:
    """Each of the four with probability one half."""
    return Augmentation(*(bool(bit) for bit in torch.randint(2, (4,), generator=generator).tolist()))


def augment(sample: Sample, augmentation: Augmentation) -> Sample:
    """A new sample; the given one stays as it is.

    Time reversal turns round the frames, and inside each exposure the bins. That equals a recording played backwards
    when an exposure's ticks are a multiple of the bins; otherwise bins of unequal length trade places, by at most a
    tick. The lists of `meta` follow the frames.
    """
    meta = sample["meta"]
    step = -1 if augmentation.reverse_time else 1
    blur = _move(sample["blur"], augmentation, bins=False)
    is_blur = sample["frames"] is sample["blur"]
    result: Sample = {
        "blur": blur,
        "frames": blur if is_blur else _move(sample["frames"], augmentation, bins=False),
        "meta": {
            "seq": meta["seq"],
            "frame_idx": meta["frame_idx"][::step],
            "t0": meta["t0"][::step],
            "t1": meta["t1"][::step],
        },
    }
    if "sharp" in sample:
        result["sharp"] = _move(sample["sharp"], augmentation, bins=False)
    if "spike_vox" in sample:
        result["spike_vox"] = _move(sample["spike_vox"], augmentation, bins=True)
    if "spikes_present" in sample:
        result["spikes_present"] = sample["spikes_present"]
    return result


def _move(x_TCHW: Tensor, augmentation: Augmentation, *, bins: bool) -> Tensor:
    if augmentation.transpose:
        x_TCHW = x_TCHW.transpose(-1, -2)
    axes = [-1] * augmentation.mirror_columns + [-2] * augmentation.mirror_rows
    if augmentation.reverse_time:
        axes += [0, 1] if bins else [0]
    return x_TCHW.flip(axes).contiguous() if axes else x_TCHW.clone(memory_format=torch.contiguous_format)


@dataclass(frozen=True)
class Degradation:
    """What is done to one clip, in this order. The identity is the default.

    threshold: the sensor's threshold relative to the recorded one, 1 or more.
    noise: share of spikes missed, and of spikes that nothing caused, relative to the mean count.
    dropped_ticks: share of ticks without any spike.
    rows, columns: cells by which the sensor's picture lies too far down and right.
    shift_ticks: by which the stream is late.
    """

    threshold: float = 1.0
    noise: float = 0.0
    dropped_ticks: float = 0.0
    rows: int = 0
    columns: int = 0
    shift_ticks: float = 0.0


def check_degrade(config: DataConfig) -> None:
    """Refuse shares and ranges that make no sense. Raises ValueError (one line)."""
    degrade = config.degrade
    shares = {
        "data.spike_dropout": config.spike_dropout,
        "data.degrade.probability": degrade.probability,
        "data.degrade.dropped_ticks": degrade.dropped_ticks,
        "data.degrade.noise": degrade.noise,
    }
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: {value}; allowed: 0 to 1")
    for name in ("shift_px", "shift_ticks"):
        if not 0 <= getattr(degrade, name) < math.inf:
            raise ValueError(f"data.degrade.{name}: {getattr(degrade, name)}; allowed: 0 or more")
    low, high = degrade.threshold
    if not 1 <= low <= high < math.inf:
        raise ValueError(
            f"data.degrade.threshold: {[low, high]}; allowed: from and to, 1 or more (a lower threshold than the "
            "recorded one would need spikes that were never fired)"
        )
    if degrade != DegradeConfig() and degrade == DegradeConfig(probability=degrade.probability):
        raise ValueError("data.degrade.probability: given, but no degradation is; allowed: 0, or say what is degraded")
    if degrade.probability == 0 and degrade != DegradeConfig():
        raise ValueError("data.degrade: given, but data.degrade.probability is 0, which turns it off")


def draw_degradation(config: DegradeConfig, ratio: int, generator: torch.Generator) -> Degradation | None:
    """With `config.probability` a degradation, else None. Thresholds are uniform in their logarithm."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))

    if uniform(0, 1) >= config.probability:
        return None
    cells = int(config.shift_px / ratio)
    rows, columns = torch.randint(-cells, cells + 1, (2,), generator=generator).tolist()
    low, high = config.threshold
    return Degradation(
        threshold=math.exp(uniform(math.log(low), math.log(high))),
        noise=uniform(0, config.noise),
        dropped_ticks=uniform(0, config.dropped_ticks),
        rows=rows,
        columns=columns,
        shift_ticks=uniform(-config.shift_ticks, config.shift_ticks),
    )


def degrade(
    counts: Real[Tensor, "K h w"], how: Degradation, *, num_ticks: int, binning: Binning, generator: torch.Generator
) -> Float[Tensor, "K h w"]:
    """The counts of one exposure of `num_ticks` ticks as the worse stream would have given them, float32.

    What a higher threshold does is exact for a sensor that keeps its remainder: pixels fire every s-th time, starting
    anywhere. Missed spikes are drawn one by one. A bin that lost m of its n ticks loses each of its spikes with
    probability m / n (its spikes' own ticks are not known). Shifts are whole cells and whole bins, edges repeated.
    """
    counts = counts.to(torch.float32)
    if how.threshold > 1:
        counts = _every(counts, how.threshold, generator)
    ticks = torch.tensor(bin_bounds(num_ticks, len(counts), binning), dtype=torch.float32).diff() / len(counts)
    if how.noise > 0:
        extra = torch.poisson(torch.full_like(counts, how.noise * float(counts.double().mean())), generator=generator)
        most = ticks.ceil()[:, None, None]
        counts = torch.minimum(_thin(counts, 1 - how.noise, generator) + extra, torch.maximum(most, counts))
    if how.dropped_ticks > 0:
        whole = ticks.round().clamp(min=1)
        lost = torch.binomial(whole, torch.full_like(whole, how.dropped_ticks), generator=generator)
        counts = _thin(counts, (1 - lost / whole)[:, None, None].expand_as(counts), generator)
    bins = round(how.shift_ticks * len(counts) / num_ticks)
    for axis, step in ((0, bins), (1, how.rows), (2, how.columns)):
        if step:
            size = counts.shape[axis]
            counts = counts.index_select(axis, (torch.arange(size) - step).clamp(0, size - 1))
    return counts


def degrade_ticks(
    spikes: UInt8[Tensor, "T h w"], how: Degradation, *, generator: torch.Generator
) -> UInt8[Tensor, "T h w"]:
    """The same of the spikes themselves, 0 or 1: here every tick is lost or not. Shifts are whole cells, edges
    repeated, and whole ticks, mirrored at the edges."""
    num_ticks = len(spikes)
    if how.threshold > 1:
        start = torch.rand(spikes.shape[1:], generator=generator, dtype=torch.float64) * how.threshold
        fired = torch.floor((spikes.cumsum(0, dtype=torch.int32) + start) / how.threshold)
        spikes = fired.diff(dim=0, prepend=torch.zeros_like(fired[:1])).to(torch.uint8)
    if how.noise > 0:
        chance = torch.rand(spikes.shape, generator=generator)
        extra = chance < how.noise * float(spikes.double().mean())
        spikes = torch.where(spikes > 0, (chance >= how.noise).to(torch.uint8), extra.to(torch.uint8))
    if how.dropped_ticks > 0:
        arrives = torch.rand(num_ticks, generator=generator) >= how.dropped_ticks
        spikes = spikes * arrives.to(torch.uint8)[:, None, None]
    for axis, step in ((0, round(how.shift_ticks)), (1, how.rows), (2, how.columns)):
        if step:
            size = spikes.shape[axis]
            index = torch.arange(size) - step
            if axis == 0:  # mirrored: an edge tick that fired would fire in every tick before it
                index = torch.where(index < 0, -index, torch.where(index >= size, 2 * size - 2 - index, index))
            spikes = spikes.index_select(axis, index.clamp(0, size - 1))
    return spikes


def _every(counts: Tensor, factor: float, generator: torch.Generator) -> Tensor:
    """Every `factor`-th spike of each pixel, from a random start; `factor` need not be whole."""
    start = torch.rand(counts.shape[1:], generator=generator, dtype=torch.float64) * factor
    fired = torch.floor((counts.double().cumsum(0) + start) / factor)
    return fired.diff(dim=0, prepend=torch.zeros_like(fired[:1])).to(torch.float32)


def _thin(counts: Tensor, keep: float | Tensor, generator: torch.Generator) -> Tensor:
    """Each spike stays with probability `keep`; shares of a spike are rounded at random first."""
    whole = torch.floor(counts + torch.rand(counts.shape, generator=generator))
    probability = keep if isinstance(keep, Tensor) else torch.full_like(whole, keep)
    return torch.binomial(whole, probability, generator=generator)
