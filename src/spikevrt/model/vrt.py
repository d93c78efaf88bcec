"""VRT, the video restoration transformer: an encoder of four stages, a bottleneck, a decoder, and a last stage.

Dimension key: B samples, D frames, C channels, H rows, W columns. Input and output are (B, D, C, H, W); features inside
are (B, D, H, W, C). Parameter names are those of the published checkpoints.
Source: Liang et al., VRT: A Video Restoration Transformer, 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevrt.config import STAGES, VrtConfig
from spikevrt.model.blocks import RTMSA, BlockSettings, Window
from spikevrt.model.flow import Flows, SpyNet, align_neighbours, at_least_float32, clip_flows, full_precision
from spikevrt.model.linear import Linear
from spikevrt.model.stage import Stage, as_features, as_pictures

if TYPE_CHECKING:
    from jaxtyping import Float

SCALES = (1, 2, 4, 8, 4, 2, 1)  # resolution divisor of stages 1 to 7
NUM_ENCODER_STAGES, LAST_STAGE = 4, 8
UPSAMPLE_DIM = 64

Fuse = Callable[[int, Tensor], Tensor]


def conv_per_frame(conv: nn.Conv3d, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N E H W"]:
    """A convolution with kernel (1, 3, 3) is a 2-D one on every frame, which is the faster way to run it."""
    return F.conv2d(x, conv.weight[:, :, 0], conv.bias, padding=(conv.kernel_size[1] // 2, conv.kernel_size[2] // 2))


class VRT(nn.Module):
    """The network that `config` describes: deblurring, super-resolution, denoising, or (pa_frames 0) interpolation."""

    def __init__(
        self, config: VrtConfig, checkpoint: tuple[str, ...] = (), checkpoint_stages: tuple[int, ...] = STAGES
    ) -> None:
        super().__init__()
        self.config = config
        dims, depths = config.dims, config.depths
        rates = torch.linspace(0, config.drop_path, sum(depths)).tolist()
        first_rate = [sum(depths[:i]) for i in range(len(depths))]

        def drop_rates(index: int) -> list[float]:
            return rates[first_rate[index] : first_rate[index] + depths[index]]

        aligned = 8 * config.in_channels if config.pa_frames else 0
        noise_map = 1 if config.nonblind_denoising else 0
        self.conv_first = nn.Conv3d(config.in_channels + aligned + noise_map, dims[0], (1, 3, 3), padding=(0, 1, 1))
        if config.pa_frames:
            self.spynet = SpyNet(config.flow_widths)

        def settings(index: int, window: Window) -> BlockSettings:
            stage = min(index + 1, LAST_STAGE)
            parts = checkpoint if stage in checkpoint_stages else ()
            return BlockSettings(dims[index], window, config.num_heads[index], config.mlp_ratio, parts)

        for index in range(7):
            stage = Stage(
                dims[max(index - 1, 0)],
                settings(index, config.window),
                drop_rates(index),
                reshape="none" if index == 0 else "down" if index < NUM_ENCODER_STAGES else "up",
                scale=SCALES[index],
                mutual_ratio=config.mutual_ratio,
                pa_frames=config.pa_frames,
                deform_groups=config.deform_groups,
            )
            self.add_module(f"stage{index + 1}", stage)
        last: list[nn.Module] = [nn.Sequential(nn.Identity(), nn.LayerNorm(dims[6]), Linear(dims[6], dims[7]))]
        for index in range(7, len(depths)):
            window = (1, *config.window[1:]) if index in config.independent else config.window
            last.append(RTMSA(settings(index, window), drop_rates(index)))
        self.stage8 = nn.ModuleList(last)
        self.norm = nn.LayerNorm(dims[-1])
        self.conv_after_body = Linear(dims[-1], dims[0])
        self._build_head()

    def _build_head(self) -> None:
        config, dim = self.config, self.config.dims[0]
        if not config.pa_frames:
            self.linear_fuse = nn.Conv2d(dim * config.clip_frames, UPSAMPLE_DIM, 1)
            self.conv_last: nn.Conv2d | nn.Conv3d = nn.Conv2d(UPSAMPLE_DIM, config.out_channels, 7)
        elif config.upscale == 1:
            self.conv_last = nn.Conv3d(dim, config.out_channels, (1, 3, 3), padding=(0, 1, 1))
        else:
            self.conv_before_upsample = nn.Sequential(
                nn.Conv3d(dim, UPSAMPLE_DIM, (1, 3, 3), padding=(0, 1, 1)), nn.LeakyReLU()
            )
            self.upsample = Upsample(config.upscale, UPSAMPLE_DIM)
            self.conv_last = nn.Conv3d(UPSAMPLE_DIM, config.out_channels, (1, 3, 3), padding=(0, 1, 1))

    def stage(self, number: int) -> Stage:
        """Stage 1 to 7."""
        return self.get_submodule(f"stage{number}")  # type: ignore[return-value]

    def forward(
        self, frames: Float[Tensor, "B D C H W"], fuse: Fuse | None = None, flows: Flows | None = None
    ) -> Float[Tensor, "B D c h w"]:
        """Restore a clip with values in [0, 1]; H and W are multiples of 8 and at least 8 windows.

        `fuse(i, features)` replaces the output of encoder stage i+1, both for the next stage and as skip connection.
        `flows` stand in for SpyNet's.
        """
        _, num_frames, _, height, width = frames.shape
        if height % 8 or width % 8:
            raise ValueError(f"frames of {width}x{height}: both sides must be multiples of 8")
        rgb = frames[:, :, : self.config.in_channels]
        if not self.config.pa_frames:
            return self._interpolate(rgb, fuse)
        if num_frames < 1 + self.config.pa_frames // 2:
            raise ValueError(f"a clip of {num_frames} frames: at least {1 + self.config.pa_frames // 2} are needed")
        if flows is None:
            flows = self.clip_flows(rgb)
        noise_map = frames[:, :, self.config.in_channels :]
        aligned = torch.cat((rgb, *align_neighbours(rgb, flows), noise_map), 2)
        x = conv_per_frame(self.conv_first, aligned.flatten(0, 1))
        x = as_features(x, num_frames)
        x = x + self.conv_after_body(self.norm(self.body(x, flows, fuse)))
        return self._head(as_pictures(x), rgb)

    def clip_flows(self, rgb: Float[Tensor, "B D C H W"], max_pixels: int | None = None) -> Flows:
        """The flows that `forward` computes where it is given none; in float32 whatever the precision around it."""
        with full_precision(rgb.device):
            return clip_flows(self.spynet, at_least_float32(rgb), self.config.pa_frames, max_pixels)

    def body(
        self, x: Float[Tensor, "B D H W C"], flows: Flows | None, fuse: Fuse | None
    ) -> Float[Tensor, "B D H W C_out"]:
        """Stages 1 to 8 with their skip connections, before the last norm."""
        skips = []
        for index in range(NUM_ENCODER_STAGES):
            x = self.stage(index + 1)(x, flows)
            if fuse is not None:
                x = fuse(index, x)
            skips.append(x)
        x = self.stage(5)(x, flows)
        x = self.stage(6)(x + skips[2], flows)
        x = self.stage(7)(x + skips[1], flows)
        x = x + skips[0]
        for layer in self.stage8:
            x = layer(x)
        return x

    def _head(self, x: Tensor, rgb: Tensor) -> Tensor:
        assert isinstance(self.conv_last, nn.Conv3d)
        b, num_frames = rgb.shape[:2]
        base = rgb
        if self.config.upscale > 1:
            before = self.conv_before_upsample[0]
            assert isinstance(before, nn.Conv3d)
            x = self.upsample(F.leaky_relu(conv_per_frame(before, x), 0.01))
            base = F.interpolate(rgb.flatten(0, 1), x.shape[-2:], mode="bilinear", align_corners=False)
            base = base.unflatten(0, (b, num_frames))
        return conv_per_frame(self.conv_last, x).unflatten(0, (b, num_frames)) + base

    def _interpolate(self, frames: Tensor, fuse: Fuse | None) -> Tensor:
        """Frame interpolation: no flow; all frames are fused into the missing ones."""
        b, num_frames = frames.shape[:2]
        if num_frames != self.config.clip_frames:
            raise ValueError(f"a clip of {num_frames} frames: interpolation takes exactly {self.config.clip_frames}")
        mean = frames.mean((1, 3, 4), keepdim=True)
        x = as_features(conv_per_frame(self.conv_first, (frames - mean).flatten(0, 1)), num_frames)
        x = x + self.conv_after_body(self.norm(self.body(x, None, fuse)))
        x = x.permute(0, 1, 4, 2, 3).flatten(1, 2)
        x = F.pad(F.leaky_relu(self.linear_fuse(x), 0.2), (3, 3, 3, 3), mode="reflect")
        return self.conv_last(x).unflatten(1, (-1, self.config.in_channels)) + mean


class Upsample(nn.ModuleDict):
    """Pixel-shuffle upsampling by 2^n or 3, frame by frame; keys are those of the published checkpoints."""

    def __init__(self, scale: int, dim: int) -> None:
        if scale != 3 and scale & (scale - 1):
            raise ValueError(f"model.vrt.upscale: {scale}; allowed: powers of two and 3")
        self.shuffle = 3 if scale == 3 else 2
        times = 1 if scale == 3 else scale.bit_length() - 1
        widths = [dim * self.shuffle**2] * times + [dim]
        convs = {str(5 * i): nn.Conv3d(dim, width, (1, 3, 3), padding=(0, 1, 1)) for i, width in enumerate(widths)}
        super().__init__(convs)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C h w"]:
        *shuffled, last = self.values()
        for conv in shuffled:
            assert isinstance(conv, nn.Conv3d)
            x = F.leaky_relu(F.pixel_shuffle(conv_per_frame(conv, x), self.shuffle), 0.1)
        assert isinstance(last, nn.Conv3d)
        return conv_per_frame(last, x)
