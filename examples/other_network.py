"""A network of somebody else's on the benchmark: `spikevrt bench --out OUT --method theirs=other_network:restore`

Run it from this folder. The network stands for any `torch.nn.Module` with weights of its own: here three layers whose
weights are drawn from a seed, which restore nothing, so that the example needs no download. What matters is around it:
read a recording, bring the spikes into the form that the network was trained with, run it, give back its frames.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from spikevrt.recording.frames import to_float
from spikevrt.recording.recording import Recording
from spikevrt.represent.interval import tfp


class TheirNetwork(nn.Module):
    """Blurry frame and three firing rates in, sharp frame out."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(6, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1))

    def forward(self, blur: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
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
