"""Mirror, transpose and time-reverse a sample: frames, voxels and meta alike.

Both mirrors and the transposition together give the eight symmetries of the square, the quarter turns among them.

Dimension key: T frames, K bins, H x W colour pixels, h x w spike pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spikevrt.data.sample import Sample


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
    result: Sample = {
        "blur": _move(sample["blur"], augmentation, bins=False),
        "meta": {
            "seq": meta["seq"],
            "frame_idx": meta["frame_idx"][::step],
            "t0": meta["t0"][::step],
            "t1": meta["t1"][::step],
        },
    }
    if "sharp" in sample:
        result["sharp"] = _move(sample["sharp"], augmentation, bins=False)
    if "lit" in sample:
        result["lit"] = _move(sample["lit"], augmentation, bins=False)
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
