"""SpikeVRT: a VRT whose four encoder stages are fused with a spike pyramid by cross-attention over time.

Dimension key: B samples, T frames, K bins, H x W pixels of the colour camera, h x w pixels of the spike camera.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spikevrt.config import ModelConfig, SpikeConfig
from spikevrt.model.flow import Flows, SpyNetLevel
from spikevrt.model.frame_attention_plain import over_pixels
from spikevrt.model.fusion import TemporalCrossAttnFuse, resize_features
from spikevrt.model.spike_encoder import SpikeEncoder3D, SpikeTemporalSA
from spikevrt.model.vrt import VRT

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

FLOW_MIN_SIZE_PX = 64  # SpyNet needs more than 32 pixels


class SpikeVRT(nn.Module):
    """The network of `config`. Without a spike branch (`config.spikes` None) it is its spike-less twin, VRT alone."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.vrt = VRT(config.vrt, config.checkpoint, config.checkpoint_stages)
        spikes = config.spikes
        if spikes is not None:
            recomputed = tuple(self._recomputes("spikes", index) for index in range(len(spikes.dims)))
            self.spike_encoder = SpikeEncoder3D(spikes.num_bins, spikes.dims, spikes.num_blocks, recomputed)
            self.spike_attention = nn.ModuleList(
                SpikeTemporalSA(dim, spikes.attention_heads, spikes.attention_mlp_ratio) for dim in spikes.dims
            )
            self.fusion = nn.ModuleList(
                TemporalCrossAttnFuse(dim, spikes.fusion_heads, spikes.fusion_mlp_ratio, spikes.fusion_time_bias)
                for dim in spikes.dims
            )

    @property
    def pad_multiple(self) -> int:
        """H and W of the input must be multiples of this."""
        return 8

    @property
    def min_size_px(self) -> int:
        """The smallest H and W: one window at 1/8 of the resolution, and what the optical flow needs."""
        return max(FLOW_MIN_SIZE_PX, 8 * max(self.config.vrt.window[1:]))

    def start_at_identity(self) -> None:
        """For training from scratch: the restored clip starts as the blurry one, the optical flow as no motion.

        A random last convolution costs hundreds of steps, and a random flow misaligns what it should align.
        """
        levels = [module for module in self.vrt.modules() if isinstance(module, SpyNetLevel)]
        for end in (self.vrt.conv_last, *(level.basic_module[-1] for level in levels)):
            for parameter in end.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self,
        blur: Float[Tensor, "B T 3 H W"],
        spike_vox: Float[Tensor, "B T K h w"] | None = None,
        spikes_present: Bool[Tensor, " B"] | None = None,
        flows: Flows | None = None,
    ) -> Float[Tensor, "B T 3 H W"]:
        """Restore a clip with values in [0, 1]; the output is not clamped. Without spikes it runs as VRT.

        A sample whose `spikes_present` is False runs as VRT too, whatever its voxels; None: all samples have spikes.
        `flows` stand in for those that the network would compute from `blur` (`clip_flows`).

        Raises:
            ValueError: spikes for a network without a spike branch, or voxels of another shape than it reads.
        """
        if spike_vox is None:
            return self.vrt(blur, flows=flows)
        pyramid = self._spike_pyramid(blur, spike_vox)

        def fuse(index: int, rgb: Tensor) -> Tensor:
            fused = self._fuse(index, rgb, pyramid[index])
            if spikes_present is None:
                return fused
            return torch.where(spikes_present.view(-1, 1, 1, 1, 1), fused, rgb)

        return self.vrt(blur, fuse=fuse, flows=flows)

    def clip_flows(self, blur: Float[Tensor, "B T 3 H W"], max_pixels: int | None = None) -> Flows:
        """The optical flows of a clip, SpyNet at work on `max_pixels` at a time (None: on all of them)."""
        return self.vrt.clip_flows(blur, max_pixels)

    def _recomputes(self, part: str, index: int) -> bool:
        return part in self.config.checkpoint and index + 1 in self.config.checkpoint_stages

    def _spike_pyramid(self, blur: Tensor, spike_vox: Tensor) -> list[Tensor]:
        spikes = check_voxels(self.config.spikes, blur, spike_vox)
        max_tokens, scales = spikes.max_tokens, zip(self.spike_attention, self.spike_encoder(spike_vox), strict=True)
        return [
            over_pixels(attention, features, max_tokens=max_tokens, recomputed=self._recomputes("spikes", index))
            for index, (attention, features) in enumerate(scales)
        ]

    def _fuse(self, index: int, rgb: Tensor, spikes: Tensor) -> Tensor:
        assert self.config.spikes is not None
        spikes = resize_features(spikes, rgb.shape[2], rgb.shape[3])
        max_tokens, recomputed = self.config.spikes.max_tokens, self._recomputes("fusion", index)
        return over_pixels(self.fusion[index], rgb, spikes, max_tokens=max_tokens, recomputed=recomputed)


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
