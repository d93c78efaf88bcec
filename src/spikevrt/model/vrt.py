"""VRT, the video restoration transformer: an encoder of four stages, a bottleneck, a decoder, and a last stage.

A stage changes the resolution, then comes attention, mutual and self, then parallel warping of neighbouring frames.

Dimension key: B samples, D frames, C channels, H rows, W columns. Input and output are (B, D, C, H, W); features inside
are (B, D, H, W, C). Parameter names are those of the published checkpoints.
Source: Liang et al., VRT: A Video Restoration Transformer, 2022; stages: sections 3.1 and 3.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevrt.config import STAGES, VrtConfig
from spikevrt.model.blocks import RTMSA, TMSAG, BlockSettings, Window, recompute
from spikevrt.model.deformable_alignment import DeformAlign
from spikevrt.model.flow import Flows, SpyNet, align_neighbours, at_least_float32, clip_flows, flow_warp, full_precision
from spikevrt.model.layers import Geglu, Linear

if TYPE_CHECKING:
    from jaxtyping import Float


def as_pictures(x: Float[Tensor, "B D H W C"]) -> Float[Tensor, "B*D C H W"]:
    """A view for convolutions: the frames as pictures in channels_last memory."""
    return x.flatten(0, 1).permute(0, 3, 1, 2)


def as_features(x: Float[Tensor, "B*D C H W"], num_frames: int) -> Float[Tensor, "B D H W C"]:
    """The inverse of `as_pictures`."""
    return x.permute(0, 2, 3, 1).unflatten(0, (-1, num_frames))


class SpaceToDepth(nn.Module):
    """Every 2x2 block of pixels becomes channels, ordered (column, row, channel)."""

    def forward(self, x: Float[Tensor, "B D H W C"]) -> Float[Tensor, "B D H/2 W/2 4*C"]:
        b, d, h, w, c = x.shape
        return x.view(b, d, h // 2, 2, w // 2, 2, c).permute(0, 1, 2, 4, 5, 3, 6).reshape(b, d, h // 2, w // 2, 4 * c)


class DepthToSpace(nn.Module):
    """The inverse of `SpaceToDepth`."""

    def forward(self, x: Float[Tensor, "B D H W C"]) -> Float[Tensor, "B D 2*H 2*W C/4"]:
        b, d, h, w, c = x.shape
        x = x.view(b, d, h, w, 2, 2, c // 4).permute(0, 1, 2, 5, 3, 4, 6)
        return x.reshape(b, d, 2 * h, 2 * w, c // 4)


class Stage(nn.Module):
    """Stages 1 to 7. `scale` is the stage's resolution as a divisor of the input's."""

    plain = False  # align frame by frame

    def __init__(
        self,
        dim_in: int,
        settings: BlockSettings,
        drop_path_rates: Sequence[float],
        *,
        reshape: Literal["none", "down", "up"],
        scale: int,
        mutual_ratio: float,
        pa_frames: int,
        deform_groups: int,
    ) -> None:
        super().__init__()
        dim = settings.dim
        if reshape == "none":
            self.reshape = nn.Sequential(nn.Identity(), nn.LayerNorm(dim))
        elif reshape == "down":
            self.reshape = nn.Sequential(SpaceToDepth(), nn.LayerNorm(4 * dim_in), Linear(4 * dim_in, dim))
        else:
            self.reshape = nn.Sequential(DepthToSpace(), nn.LayerNorm(dim_in // 4), Linear(dim_in // 4, dim))
        num_mutual = int(mutual_ratio * len(drop_path_rates))
        pairs = replace(settings, window=(2, *settings.window[1:]), mutual=True)
        # both groups take their drop rates from the start of the stage's list, as the published network does
        self.residual_group1 = TMSAG(pairs, drop_path_rates[:num_mutual])
        self.linear1 = Linear(dim, dim)
        self.residual_group2 = TMSAG(settings, drop_path_rates[: len(drop_path_rates) - num_mutual])
        self.linear2 = Linear(dim, dim)
        self.scale_index = scale.bit_length() - 1
        self.pa_frames = pa_frames
        if pa_frames:
            self.recompute_align = "deform" in settings.checkpoint
            self.pa_deform = DeformAlign(dim, pa_frames, deform_groups, 10.0 / scale)
            self.pa_fuse = Geglu(3 * dim, 3 * dim, dim)

    def forward(self, x: Float[Tensor, "B D H W C"], flows: Flows | None) -> Float[Tensor, "B D h w E"]:
        x = self.reshape(x)
        x = self.linear1(self.residual_group1(x)) + x
        x = self.linear2(self.residual_group2(x)) + x
        if self.pa_frames:
            assert flows is not None
            at_scale = [[flow[self.scale_index] for flow in way] for way in (flows.backward, flows.forward)]
            align = self._align_plain if self.plain else self._align
            aligned = recompute(align, x, *at_scale[0], *at_scale[1], when=self.recompute_align)
            x = self.pa_fuse(torch.cat((x, aligned), -1))
        return x

    def _align(self, x: Float[Tensor, "B D H W C"], *flows: Tensor) -> Float[Tensor, "B D H W 2*C"]:
        """Features of the following and of the preceding frames, aligned to each frame; zeros where there is none.

        `flows` are those backward to a frame from one, two, ... frames ahead, then those forward. All frames and both
        directions go through one convolution.
        """
        num_frames = x.shape[1]
        neighbours, pictures_flows = [], []
        for distance in range(1, self.pa_frames // 2 + 1):
            missing = distance - 1  # the frames next to the end have no neighbour so far away
            back, forth = flows[distance - 1], flows[self.pa_frames // 2 + distance - 1]
            no_frame, no_flow = x.new_zeros(x[:, :missing].shape), back.new_zeros(back[:, :missing].shape)
            following = torch.cat((x[:, distance:], no_frame), 1)
            preceding = torch.cat((no_frame, x[:, : num_frames - distance]), 1)
            neighbours.append(as_pictures(torch.cat((following, preceding))))
            pictures_flows.append(
                torch.cat((torch.cat((back, no_flow), 1), torch.cat((no_flow, forth), 1))).flatten(0, 1)
            )
        current = as_pictures(torch.cat((x[:, :-1], x[:, 1:])))
        warped = [flow_warp(n, f) for n, f in zip(neighbours, pictures_flows, strict=True)]
        aligned = self.pa_deform(neighbours, warped, current, pictures_flows).permute(0, 2, 3, 1)
        from_following, from_preceding = aligned.to(x.dtype).unflatten(0, (2, x.shape[0], num_frames - 1))
        nothing = x.new_zeros(x[:, :1].shape)
        return torch.cat((torch.cat((from_following, nothing), 1), torch.cat((nothing, from_preceding), 1)), -1)

    def _align_plain(self, x: Float[Tensor, "B D H W C"], *flows: Tensor) -> Float[Tensor, "B D H W 2*C"]:
        """Equal to `_align`: frame by frame, one direction after the other."""
        num_frames, reach = x.shape[1], self.pa_frames // 2
        directions = []
        for sign, ways in ((1, flows[:reach]), (-1, flows[reach:])):
            frames = []
            for t in range(num_frames):
                if not 0 <= t + sign < num_frames:
                    frames.append(torch.zeros_like(x[:, t]))
                    continue
                neighbours, of_frame = [], []
                for distance, flow in enumerate(ways, 1):
                    other = t + sign * distance
                    there = 0 <= other < num_frames
                    index = t if sign == 1 else other  # flows are counted by their earlier frame
                    neighbours.append(x[:, other] if there else torch.zeros_like(x[:, t]))
                    of_frame.append(flow[:, index] if there else torch.zeros_like(flow[:, 0]))
                pictures = [n.permute(0, 3, 1, 2) for n in neighbours]
                warped = [flow_warp(n, f) for n, f in zip(pictures, of_frame, strict=True)]
                current = x[:, t].permute(0, 3, 1, 2)
                frames.append(self.pa_deform(pictures, warped, current, of_frame).permute(0, 2, 3, 1).to(x.dtype))
            directions.append(torch.stack(frames, 1))
        return torch.cat(directions, -1)


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
    ) -> Float[Tensor, "B T c h w"]:
        """Restore a clip with values in [0, 1]; H and W are multiples of 8 and at least 8 windows.
        T is D, or 1 where frames are interpolated.

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
