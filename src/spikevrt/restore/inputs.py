"""What enters a network for one frame of a recording: the frame or what the spikes make of it, and voxels or profiles.

Training makes the same, bit for bit, from whole frames of a prepared dataset (`data.sample`); a crop's lit frame
differs in its outermost pixel, where the ratio is resized.

Dimension key: H W frame rows and columns, K bins, h2 w2 rows and columns of the spikes on the frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spikevrt.checkpoint import WeightsInfo
from spikevrt.recording.recording import Recording
from spikevrt.represent.activity import spike_activity
from spikevrt.represent.counts import exposure_counts, window_intervals
from spikevrt.represent.profile import PROFILE_DARK_RATE, profile
from spikevrt.represent.relight import relight
from spikevrt.represent.voxel import Split, VoxelStats, normalise
from spikevrt.represent.voxel import density as voxel_density
from spikevrt.restore.options import RestoreOptions

if TYPE_CHECKING:
    from jaxtyping import Float


def reads_spikes(info: WeightsInfo, options: RestoreOptions) -> bool:
    """Whether restoring with these weights and options looks at a recording's spikes."""
    return info.model.spikes is not None and not options.without_spikes


def network_inputs(
    info: WeightsInfo, recording: Recording, index: int, options: RestoreOptions
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The frame that enters the network, voxels, activity of the spikes; None where they are not asked for."""
    frame = recording.read_blur_deep(index)
    spec = info.model.spikes
    if spec is None or options.without_spikes:
        return frame, None, None
    num_ticks = recording.exposures[index].num_ticks
    if spec.representation == "profile":
        counts, mean_rate = frame_intervals(recording, index, spec.num_bins, spec.split)
        if spec.relight:
            dark = PROFILE_DARK_RATE
            frame = relight(frame, counts, num_ticks, split=spec.split, dark=dark, mean_rate=mean_rate)
        return frame, profile(counts, num_ticks, split=spec.split, mean_rate=mean_rate), None
    counts = frame_counts(recording, index, spec.num_bins, spec.split)
    activity = None
    if options.skip_sharp is not None:
        activity = spike_activity(counts, num_ticks, split=spec.split)
    if spec.relight:
        frame = relight(frame, counts, num_ticks, split=spec.split)
    own_density = voxel_density(counts) if spec.normalize == "density" else None
    return frame, normalise(counts, VoxelStats(info.voxel_mean, info.voxel_std), density=own_density), activity


def frame_counts(recording: Recording, index: int, num_bins: int, split: Split) -> Float[Tensor, "K h2 w2"]:
    """Spikes per bin of exposure `index`, bad pixels filled, on the frame (`represent.counts`)."""
    return exposure_counts(
        lambda edges: recording.count_exposure(index, edges),
        recording.exposures[index].num_ticks,
        num_bins=num_bins,
        split=split,
        bad=recording.bad_mask(),
        positions=recording.sensor_positions,
    )


def frame_intervals(
    recording: Recording, index: int, num_bins: int, split: Split
) -> tuple[Float[Tensor, "K h2 w2"], Float[Tensor, "h2 w2"] | None]:
    """Expected spikes per bin of the window around sharp frame `index`, and the exposure's mean rate where it lies
    elsewhere (`represent.counts.window_intervals`); bad pixels filled, on the frame."""
    assert recording.spikes is not None
    exposure = recording.exposures[index]
    return window_intervals(
        torch.from_numpy(recording.spikes.read(*exposure.span)),
        exposure.shift_ticks,
        num_bins=num_bins,
        split=split,
        bad=recording.bad_mask(),
        positions=recording.sensor_positions,
    )
