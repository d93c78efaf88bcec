"""What every network is to the rest of the package: SpikeVRT (and its twin VRT) and the U-Net stand behind this.

Dimension key: B samples, T frames, K bins, H x W pixels of the colour camera, h x w pixels of the spike camera.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevrt.config import ModelConfig, SpikeConfig
from spikevrt.light import LUMINANCE
from spikevrt.model.flow import Flows

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


class Network(nn.Module):
    """A network that restores a clip. `config.spikes` (`SpikeInputs`) says what enters it, `config.name` how it is
    called; the other attributes say what tiling, planning and export have to know of it."""

    pad_multiple: int  # H and W of the input must be multiples of this
    min_size_px: int  # the smallest H and W
    min_frames: int  # the shortest clip
    window_frames = 1  # frames that are worked on together, to which a shorter clip is padded inside
    min_free_px: int  # the smallest H and W of an exported program that takes any
    reach_px: int | None = None  # how far off, at most, a pixel of the input counts; None: there is no bound
    shares_flows = False  # whether tiles can share the optical flow of the whole picture (`clip_flows`)
    probe_scale = 1  # memory is measured on tiles of so many times the smallest size, and twice that

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def forward(
        self,
        blur: Float[Tensor, "B T 3 H W"],
        spike_vox: Float[Tensor, "B T K h w"] | None = None,
        spikes_present: Bool[Tensor, " B"] | None = None,
        flows: Flows | None = None,
    ) -> Float[Tensor, "B T 3 H W"]:
        """Restore a clip of what `represent.inputs` makes of frames and spikes: values in [0, 1], not clamped after.

        Without `spike_vox`, and for a sample whose `spikes_present` is False, the spikes add nothing. `flows` stand in
        for those that the network would compute.

        Raises:
            ValueError: sizes that the network cannot take; voxels of another shape than it reads.
        """
        raise NotImplementedError

    def start_at_identity(self) -> None:
        """For training from scratch: the restored clip starts as the one that entered."""
        raise NotImplementedError

    def bytes_per_pixel(self) -> float:
        """Memory that restoring a tile takes at its peak, at most, for each pixel of each frame."""
        raise NotImplementedError

    def clip_flows(self, blur: Float[Tensor, "B T 3 H W"]) -> Flows:
        """The optical flows of a clip of whole pictures, in bounded memory; where `shares_flows`."""
        raise NotImplementedError

    def frame_flow(self, first: Float[Tensor, "N 3 H W"], second: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 2 H W"]:
        """The optical flow that the network sees, in pixels: the field that brings `second` to `first`. A U-Net has
        none: training refuses settings that would ask for it (train/start.py)."""
        raise NotImplementedError

    def flow_bytes(self, num_frames: int, height_px: int, width_px: int) -> int:
        """What computing the flows of a clip of whole pictures adds to a process, in bytes; where `shares_flows`."""
        raise NotImplementedError

    def check_exportable(self) -> None:
        """Raises ValueError where this network cannot become a program (`export`)."""


def check_voxels(spikes: SpikeConfig | None, blur: Tensor, spike_vox: Tensor) -> SpikeConfig:
    """Refuse voxels that a network with these `spikes` does not read; returns them. Raises ValueError (one line)."""
    if spikes is None:
        raise ValueError("spike_vox: this network has no spike branch (model.spikes is null)")
    if spike_vox.ndim != 5 or spike_vox.shape[:2] != blur.shape[:2] or spike_vox.shape[2] != spikes.num_bins:
        raise ValueError(
            f"spike_vox: shape {tuple(spike_vox.shape)}; expected "
            f"({blur.shape[0]}, {blur.shape[1]}, {spikes.num_bins}, rows, columns)"
        )
    return spikes


def within_colours(restored: Float[Tensor, "B T 3 H W"], frames: Float[Tensor, "B T 3 H W"]) -> Tensor:
    """The restored clip with no colour (R - Y, B - Y) that the frames do not hold within 4 pixels, at the same Y: relit
    frames have their colours near where they belong, and spikes are grey; others are made up, and show in the dark.
    What keeps to them keeps its bits. Temporal antialiasing clamps so (Karis, SIGGRAPH 2014)."""
    y = torch.tensor(LUMINANCE, device=frames.device).view(3, 1, 1)
    held, found = (clip[:, ::2] - (y * clip).sum(1, True) for clip in (frames.flatten(0, 1), restored.flatten(0, 1)))
    around = F.pad(torch.cat((held, -held), 1), (4, 4, 4, 4), mode="replicate")
    for px in (1, 2, 4, 1):  # the maximum of 2, 4, 8, 9 pixels a side: far faster than `max_pool2d` on a CPU
        around = torch.maximum(around[..., px:, :], around[..., :-px, :])
        around = torch.maximum(around[..., px:], around[..., :-px])
    red, blue = (torch.minimum(torch.maximum(found, -around[:, 2:]), around[:, :2]) - found).split(1, 1)
    green = (LUMINANCE[0] * red + LUMINANCE[2] * blue) / -LUMINANCE[1]
    return restored + torch.cat((red, green, blue), 1).unflatten(0, restored.shape[:2])
