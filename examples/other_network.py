"""A network of somebody else's: on the benchmark as it is, and trained by SpikeVRT. Run both from this folder.

    spikevrt bench --out OUT --method theirs=other_network:restore     (or `evaluate RECORDINGS`)
    spikevrt train theirs.yaml --out runs/theirs                       (where it says `custom: other_network:build`)

The network stands for any `torch.nn.Module`: here three layers whose weights are drawn from a seed, which restore
nothing, so that the example needs no download. What matters is around it. `restore` reads a recording, brings the
spikes into the form that the network was trained with, runs it and gives back its frames. `build` makes a `Network` of
it: what the loader makes of a clip goes in, and a few numbers say what tiling, training and export have to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from spikevrt.config import ModelConfig
from spikevrt.model.flow import Flows
from spikevrt.model.network import Network
from spikevrt.recording.frames import to_float
from spikevrt.recording.recording import Recording
from spikevrt.represent.interval import tfp


class TheirNetwork(nn.Module):
    """Blurry frame and firing rates in, sharp frame out."""

    def __init__(self, num_rates: int = 3, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3 + num_rates, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 3, 3, padding=1)
        )

    def forward(self, blur: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
        if rates.shape[-2:] != blur.shape[-2:]:
            rates = F.interpolate(rates, blur.shape[-2:], mode="bilinear")
        return blur + 0.01 * self.layers(torch.cat((blur, rates), 1))


def restore(recording: Recording) -> Iterator[torch.Tensor]:
    """The frames of a recording, (3, H, W) in [0, 1]."""
    torch.manual_seed(0)
    network = TheirNetwork().eval()  # their own: network.load_state_dict(torch.load(FILE, weights_only=True))
    for index in range(recording.num_frames):
        blur = to_float(recording.read_blur(index))
        spikes = torch.from_numpy(recording.read_exposure_spikes(index))  # (T, h, w), 0 or 1
        middle = len(spikes) // 2
        rates = torch.stack([tfp(spikes, middle, window) for window in (4, 8, 16)])
        with torch.no_grad():
            yield network(blur[None], rates[None])[0]


@dataclass(frozen=True)
class Options:
    """What `model.options` of a config may say; any other key is refused."""

    width: int = 16  # channels


class TheirClips(Network):
    """Their network, frame by frame, on the voxels of a clip."""

    pad_multiple = 1  # any size of frame
    min_size_px = min_free_px = 16
    min_frames = 1
    reach_px = 2  # two convolutions of 3x3: so tiles that overlap by 4 pixels have no seams

    def __init__(self, config: ModelConfig, options: Options) -> None:
        super().__init__(config)
        self.num_bins = 0 if config.spikes is None else config.spikes.num_bins
        self.width, self.frame = options.width, TheirNetwork(self.num_bins, options.width)

    def start_at_identity(self) -> None:
        for parameter in self.frame.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        blur: torch.Tensor,  # (B, T, 3, H, W)
        spike_vox: torch.Tensor | None = None,  # (B, T, K, h, w)
        spikes_present: torch.Tensor | None = None,  # (B,): False where training drops the spikes
        flows: Flows | None = None,  # those of networks that align
    ) -> torch.Tensor:
        if spike_vox is None:
            spike_vox = blur.new_zeros(*blur.shape[:2], self.num_bins, *blur.shape[-2:])
        if spikes_present is not None:
            spike_vox = spike_vox * spikes_present.view(-1, 1, 1, 1, 1)
        return self.frame(blur.flatten(0, 1), spike_vox.flatten(0, 1)).unflatten(0, blur.shape[:2])

    def bytes_per_pixel(self) -> float:
        return 4.0 * (2 * self.num_bins + 3 * self.width + 12)  # what is held at once, at most, in float32


def build(config: ModelConfig, options: Options) -> Network:
    """What `model.custom: other_network:build` names."""
    return TheirClips(config, options)
