"""One stage of VRT: change of resolution, mutual and self attention groups, parallel warping.

Dimension key: B samples, D frames, C channels, H rows, W columns. Features are (B, D, H, W, C).
Source: Liang et al., VRT, 2022, sections 3.1 and 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from spikevrt.model.blocks import TMSAG, BlockSettings, recompute
from spikevrt.model.deformable_alignment import DeformAlign
from spikevrt.model.flow import Flows, flow_warp
from spikevrt.model.linear import Geglu, Linear

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
