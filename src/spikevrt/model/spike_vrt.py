"""SpikeVRT: a VRT whose four encoder stages are fused with a spike pyramid by cross-attention over time.

Dimension key: B samples, T frames, K bins, H x W pixels of the colour camera, h x w pixels of the spike camera.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spikevrt.config import ModelConfig
from spikevrt.model.flow import Flows, SpyNetLevel
from spikevrt.model.network import Network, check_voxels
from spikevrt.model.spike_branch import (
    SpikeEncoder3D,
    SpikeTemporalSA,
    TemporalCrossAttnFuse,
    over_pixels,
    resize_features,
)
from spikevrt.model.vrt import VRT

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

FLOW_MIN_SIZE_PX = 64  # SpyNet needs more than 32 pixels
BYTES_PER_PIXEL_AND_CHANNEL = 260  # activations of a tile at the peak, for each channel of the widest stage, at most
FLOW_MAX_PIXELS = 1 << 18  # the optical flow of a whole picture is computed on so many pixels at a time
FLOW_BYTES_PER_PIXEL = 320  # pyramids of two pictures, warped ones, positions
FLOW_BYTES_PER_PIXEL_AND_CHANNEL = 12  # inside SpyNet, for each channel of two neighbouring layers
FLOW_BYTES_PER_PAIR = 22  # both directions of two frames, x and y, float32, scales 1 to 1/8; for each pixel


class SpikeVRT(Network):
    """The network of `config`. Without a spike branch (`config.spikes` None) it is its spike-less twin, VRT alone."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        widest_window = max(config.vrt.window[1:])
        self.pad_multiple = 8
        self.min_size_px = max(FLOW_MIN_SIZE_PX, 8 * widest_window)  # one window at 1/8 of the resolution
        self.min_free_px = max(self.min_size_px, 8 * (widest_window + 1))  # torch traces one window as another program
        self.min_frames = max(2, 1 + config.vrt.pa_frames // 2)
        self.window_frames = config.vrt.window[0]
        self.shares_flows = config.vrt.pa_frames > 0
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

    def clip_flows(self, blur: Float[Tensor, "B T 3 H W"]) -> Flows:
        """SpyNet's flows of a clip, on `FLOW_MAX_PIXELS` at a time."""
        return self.vrt.clip_flows(blur, FLOW_MAX_PIXELS)

    def bytes_per_pixel(self) -> float:
        return BYTES_PER_PIXEL_AND_CHANNEL * max(self.config.vrt.dims)

    def stored_flow_bytes(self, num_frames: int, height_px: int, width_px: int) -> int:
        """The flows of a clip, kept while its tiles are restored."""
        pairs = sum(max(0, num_frames - distance) for distance in range(1, self.config.vrt.pa_frames // 2 + 1))
        return FLOW_BYTES_PER_PAIR * pairs * height_px * width_px

    def flow_bytes(self, num_frames: int, height_px: int, width_px: int) -> int:
        """Counted from the sizes of things, with constants above what was measured.

        Flows of a whole picture, five frames, MB measured (counted), the larger of both allocators:

            tiny        512 x 768   220  (268)   720 x 1280  454  (529)
            reference   512 x 768   443  (495)   720 x 1280  634  (755)
        """
        widths = self.config.vrt.flow_widths
        channels = max(a + b for a, b in zip(widths, widths[1:], strict=False))
        at_work = FLOW_BYTES_PER_PIXEL * height_px * width_px + FLOW_BYTES_PER_PIXEL_AND_CHANNEL * channels * min(
            FLOW_MAX_PIXELS, 2 * num_frames * height_px * width_px
        )
        return at_work + 2 * self.stored_flow_bytes(num_frames, height_px, width_px)  # in parts, then put together

    def check_exportable(self) -> None:
        vrt = self.config.vrt
        if vrt.pa_frames == 0 or vrt.upscale != 1 or vrt.in_channels != 3:
            raise ValueError("only networks that deblur are exported (pa_frames above 0, upscale 1, RGB)")

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
