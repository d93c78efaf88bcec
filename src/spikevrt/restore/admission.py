"""Who may be restored: the health gate, and whether a recording's spikes are what a network learnt to read."""

from __future__ import annotations

import sys
from collections.abc import Collection

from spikevrt.align import health
from spikevrt.checkpoint import WeightsInfo
from spikevrt.recording.recording import Recording, nearest_ratio
from spikevrt.represent.voxel import Split
from spikevrt.represent.voxel import density as voxel_density
from spikevrt.restore.inputs import frame_counts

NO_SPIKES = "{}: no spikes, but these weights read them; choose weights without spikes, or --without-spikes"
MAX_DENSITY_RATIO = 2.0  # beyond this, a recording's spikes are unlike those that the network learnt from
NUM_DENSITY_SAMPLES = 5


def admit(recording: Recording, ignore_health: Collection[str] = (), strict: bool = False) -> Recording:
    """The recording with its broken pixels marked, told on stderr; or a refusal: `align.health.admit`.

    Raises:
        ValueError: there are no spikes, or a finding that is not in `ignore_health` refuses; with `strict` also where
            one warns.
    """
    if recording.spikes is None:
        raise ValueError(NO_SPIKES.format(recording.root))
    return health.admit(recording, ignore=ignore_health, strict=strict)


def tell_without_spikes(info: WeightsInfo, weights: str) -> None:
    """Without spikes a network that never learnt to do without them restores badly: one line on stderr.

    Raises:
        ValueError: the network reads none anyway.
    """
    if info.model.spikes is None:
        raise ValueError(f"without_spikes: {weights} is a network without spikes; allowed: false")
    if not info.provenance.get("config", {}).get("data", {}).get("spike_dropout", 0):
        print(
            f"spikevrt: warning: {weights} was not trained to do without spikes (data.spike_dropout 0); "
            "expect poor frames",
            file=sys.stderr,
        )


def check_skip(info: WeightsInfo, skip_sharp: float | None) -> None:
    """Refuse `skip_sharp` where a network reads no spikes, which tell what moves, or all of them in one bin."""
    if skip_sharp is None:
        return
    if info.model.spikes is None:
        raise ValueError(f"skip_sharp: {skip_sharp}; allowed for weights without spikes: none (spikes tell what moves)")
    if info.model.spikes.num_bins < 2:
        raise ValueError(f"skip_sharp: {skip_sharp}; allowed for weights that read a single bin: none")
    if info.model.spikes.relight or info.model.spikes.representation != "counts":
        raise ValueError(f"skip_sharp: {skip_sharp}; allowed for weights that read lit frames or profiles: none")


def check_spikes(info: WeightsInfo, recording: Recording) -> None:
    """Refuse what cannot work; say what will work badly, once, on stderr."""
    assert info.model.spikes is not None
    if recording.spikes is None:
        raise ValueError(NO_SPIKES.format(recording.root))
    spec = info.model.spikes
    for index, exposure in enumerate(recording.exposures):
        if exposure.num_ticks < (spec.num_bins if spec.split == "whole" else 1):
            raise ValueError(
                f"{recording.root}: frame {index} has {exposure.num_ticks} ticks; these weights need {spec.num_bins} "
                f"or more"
            )
    height, width = recording.spikes.height, recording.spikes.width
    ratio = nearest_ratio(recording.height, recording.width, height, width)
    if not recording.alignment.is_spatial and (height * ratio, width * ratio) != (recording.height, recording.width):
        print(
            f"spikevrt: warning: {recording.root}: frames of {recording.width}x{recording.height} are no multiple "
            f"of {width}x{height} spikes, which are resampled to 1/{ratio} of the frames",
            file=sys.stderr,
        )
    density = spike_density(recording, spec.num_bins, spec.split)
    if spec.normalize == "density" or spec.representation == "profile":  # either evens out how many spikes there are
        if density == 0:
            raise ValueError(f"{recording.root}: no spike in the exposures looked at; is the stream dead?")
    elif not info.voxel_mean / MAX_DENSITY_RATIO <= density <= info.voxel_mean * MAX_DENSITY_RATIO:
        print(
            f"spikevrt: warning: {recording.root}: spike density {density:.3g} (mean log1p count of a bin) against "
            f"{info.voxel_mean:.3g} in training; expect poor frames (wrong exposure ticks, threshold or rows?)",
            file=sys.stderr,
        )


def spike_density(recording: Recording, num_bins: int, split: Split = "whole") -> float:
    """Mean of log1p(spikes in a bin) over a few exposures spread over the recording."""
    step = max(1, recording.num_frames // NUM_DENSITY_SAMPLES)
    means = [
        voxel_density(frame_counts(recording, index, num_bins, split)).item()
        for index in range(step // 2, recording.num_frames, step)
    ]
    return sum(means) / len(means)
