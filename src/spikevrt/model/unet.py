"""The U-Net: every frame is restored from itself and its neighbours, stacked as channels, and what their spikes tell.

There is no attention, no optical flow and no alignment: 3x3 convolutions in residual blocks, halved and doubled again,
with skip connections. Folded (`unshuffle` above 1), each s x s pixels of a frame enter and leave as channels of one.
What ships as spikefold_tiny is a U-Net, folded 2 x 2, that looks at one frame at a time, relit, and its profile.

Dimension key: B samples, T frames, K bins, H x W pixels of the colour camera, h x w pixels of the spike camera, N = B T
pictures, C channels, s = `unshuffle`. Channels of level i (resolution 1/(s 2^i)): width + i growth.
Source: Ronneberger et al., U-Net, MICCAI 2015; residual blocks without normalisation: Lim et al. (EDSR), CVPRW 2017.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevrt.config import ModelConfig, UnetConfig
from spikevrt.model.flow import Flows
from spikevrt.model.network import Network, check_voxels, within_colours

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

MIN_SIZE_PX = 64  # SpikeVRT's least too, so that both see the same crops and tiles
BYTES_PER_PIXEL_AND_CHANNEL = 56  # of restoring a tile, for each channel at the widest level, at most


class ResidualBlock(nn.Module):
    """x + conv(GELU(conv(x))), with 3x3 convolutions."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        return x + self.conv2(F.gelu(self.conv1(x)))


class Unet(Network):
    """The U-Net of `config.unet`; it reads voxels where `config.spikes` is not None.

    Frames and voxels have a first convolution each, at their own resolution. The features of the voxels, after one more
    residual block, are resized bilinearly to the frames' and added: any ratio of the two cameras will do, and without
    spikes nothing is added. The output is the blurry frame plus the last convolution, which starts at zero.

    With `unshuffle` s, each s x s pixels of a frame enter and leave as channels of one: all work is done at 1/s of the
    size, that of the spikes where they are s times smaller.
    """

    min_frames = 2  # as SpikeVRT: a single frame is doubled, whose bits are those of before
    probe_scale = 2  # smaller tiles are done too soon to show what memory they take

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        unet, spikes = config.unet, config.spikes
        assert unet is not None
        self.neighbours, self.depth, self.unshuffle = unet.neighbours, unet.depth, unet.unshuffle
        self.pad_multiple = unet.unshuffle * 2**unet.depth
        self.min_size_px = self.min_free_px = max(MIN_SIZE_PX, self.pad_multiple)
        self.reach_px = reach_px(unet)
        num_read = 1 + 2 * unet.neighbours
        widths = [unet.width + level * unet.growth for level in range(unet.depth + 1)]
        pairs = list(zip(widths, widths[1:], strict=False))

        def blocks(dim: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(dim) for _ in range(unet.blocks)))

        colours = 3 * unet.unshuffle**2
        self.first = nn.Conv2d(colours * num_read, widths[0], 3, padding=1)
        if spikes is not None:
            self.first_spikes = nn.Sequential(
                nn.Conv2d(spikes.num_bins * num_read, widths[0], 3, padding=1), ResidualBlock(widths[0])
            )
        self.encoder = nn.ModuleList(blocks(dim) for dim in widths[:-1])
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in pairs)
        self.bottom = blocks(widths[-1])
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(coarse, 4 * fine, 1), nn.PixelShuffle(2)) for fine, coarse in pairs
        )
        self.decoder = nn.ModuleList(blocks(dim) for dim in widths[:-1])
        self.last = nn.Conv2d(widths[0], colours, 3, padding=1)
        self.start_at_identity()

    def start_at_identity(self) -> None:
        """The restored clip is the blurry one until the last convolution has learnt something."""
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        blur: Float[Tensor, "B T 3 H W"],
        spike_vox: Float[Tensor, "B T K h w"] | None = None,
        spikes_present: Bool[Tensor, " B"] | None = None,
        flows: Flows | None = None,
    ) -> Float[Tensor, "B T 3 H W"]:
        """Restore a clip of any length with values in [0, 1]; the output is not clamped.

        Without `spike_vox`, and for a sample whose `spikes_present` is False, nothing is added to the features of the
        frames. `flows` stand where SpikeVRT takes them; a U-Net has none.

        Raises:
            ValueError: frames whose sides are no multiples of `pad_multiple`; spikes for a network without them, or
                voxels of another shape than it reads.
        """
        assert flows is None, "a U-Net aligns nothing"
        height, width = blur.shape[-2:]
        if height % self.pad_multiple or width % self.pad_multiple:
            raise ValueError(f"frames of {width}x{height}: both sides must be multiples of {self.pad_multiple}")
        folded = F.pixel_unshuffle(blur, self.unshuffle)
        x = self.first(with_neighbours(folded, self.neighbours))
        if spike_vox is not None:
            x = x + self._spike_features(folded, spike_vox, spikes_present)
        change = F.pixel_shuffle(self.last(self._body(x)), self.unshuffle)
        restored = blur + change.unflatten(0, blur.shape[:2])
        return within_colours(restored, blur) if self.config.spikes and self.config.spikes.relight else restored

    def bytes_per_pixel(self) -> float:
        unet, spikes = self.config.unet, self.config.spikes
        assert unet is not None
        widths = ((unet.width + i * unet.growth) / (unet.unshuffle**2 * 4**i) for i in range(unet.depth + 1))
        voxels = 0 if spikes is None else (1 + 2 * unet.neighbours) * spikes.num_bins
        widest = max(*widths, 0 if spikes is None else unet.width / unet.unshuffle)
        return BYTES_PER_PIXEL_AND_CHANNEL * widest + 4 * voxels

    def _spike_features(self, folded: Tensor, spike_vox: Tensor, present: Tensor | None) -> Float[Tensor, "N C H W"]:
        check_voxels(self.config.spikes, folded, spike_vox)
        features = self.first_spikes(with_neighbours(spike_vox, self.neighbours))
        features = F.interpolate(features, folded.shape[-2:], mode="bilinear", align_corners=False)
        if present is None:
            return features
        return torch.where(present.repeat_interleave(folded.shape[1]).view(-1, 1, 1, 1), features, 0.0)

    def _body(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        skips = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            skips.append(blocks(x))
            x = down(skips[-1])
        x = self.bottom(x)
        for level in reversed(range(self.depth)):
            x = self.decoder[level](self.up[level](x) + skips[level])
        return x


def with_neighbours(clip: Float[Tensor, "B T C H W"], num: int) -> Float[Tensor, "N C_all H W"]:
    """Each frame with the `num` before and after it as channels, in order of time; a clip's ends are repeated."""
    num_frames = clip.shape[1]
    longer = torch.cat([clip[:, :1]] * num + [clip] + [clip[:, -1:]] * num, 1)
    return torch.cat([longer[:, start : start + num_frames] for start in range(1 + 2 * num)], 2).flatten(0, 1)


def reach_px(unet: UnetConfig) -> int:
    """How far off, at most, a pixel of a frame counts: convolutions of 3x3 at each level, there and back again, and the
    corners of the blocks of pixels that become one."""
    convolutions = 2 + sum(2**level * (4 * unet.blocks + 1) for level in range(unet.depth))
    return unet.unshuffle * (convolutions + 2**unet.depth * (2 * unet.blocks + 1)) - 1
