"""One stage of VRT: change of resolution, mutual and self attention groups, parallel warping.

Dimension key: B samples, D frames, C channels, H rows, W columns. Features are (B, D, H, W, C).
Source: Liang et al., VRT, 2022, sections 3.1 and 3.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from spikevrt.model.blocks import TMSAG, Geglu, Window
from spikevrt.model.deform import DeformAlign
from spikevrt.model.flow import Flows, flow_warp

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

    def __init__(
        self,
        dim_in: int,
        dim: int,
        depth: int,
        reshape: Literal["none", "down", "up"],
        scale: int,
        window: Window,
        num_heads: int,
        mutual_ratio: float,
        mlp_ratio: float,
        drop_path_rates: list[float],
        pa_frames: int,
        deform_groups: int,
        checkpoint: tuple[str, ...],
    ) -> None:
        super().__init__()
        if reshape == "none":
            self.reshape = nn.Sequential(nn.Identity(), nn.LayerNorm(dim))
        elif reshape == "down":
            self.reshape = nn.Sequential(SpaceToDepth(), nn.LayerNorm(4 * dim_in), nn.Linear(4 * dim_in, dim))
        else:
            self.reshape = nn.Sequential(DepthToSpace(), nn.LayerNorm(dim_in // 4), nn.Linear(dim_in // 4, dim))
        num_mutual = int(mutual_ratio * depth)
        mutual_window = (2, window[1], window[2])
        # both groups take their drop rates from the start of the stage's list, as the published network does
        self.residual_group1 = TMSAG(
            dim, num_mutual, mutual_window, num_heads, mlp_ratio, True, drop_path_rates, checkpoint
        )
        self.linear1 = nn.Linear(dim, dim)
        self.residual_group2 = TMSAG(
            dim, depth - num_mutual, window, num_heads, mlp_ratio, False, drop_path_rates, checkpoint
        )
        self.linear2 = nn.Linear(dim, dim)
        self.scale_index = scale.bit_length() - 1
        self.pa_frames = pa_frames
        if pa_frames:
            self.pa_deform = DeformAlign(dim, pa_frames, deform_groups, 10.0 / scale, "deform" in checkpoint)
            self.pa_fuse = Geglu(3 * dim, 3 * dim, dim)

    def forward(self, x: Float[Tensor, "B D H W C"], flows: Flows | None) -> Float[Tensor, "B D h w E"]:
        x = self.reshape(x)
        x = self.linear1(self.residual_group1(x)) + x
        x = self.linear2(self.residual_group2(x)) + x
        if self.pa_frames:
            assert flows is not None
            x = self.pa_fuse(torch.cat((x, *self._align(x, flows)), -1))
        return x

    def _align(self, x: Tensor, flows: Flows) -> tuple[Tensor, Tensor]:
        """Features of the following and of the preceding frames, aligned to each frame; zeros where there is none.

        All frames and both directions go through one convolution.
        """
        num_frames = x.shape[1]
        neighbours, pictures_flows = [], []
        for distance in range(1, self.pa_frames // 2 + 1):
            missing = distance - 1  # the frames next to the end have no neighbour so far away
            back = flows.backward[distance - 1][self.scale_index]
            forth = flows.forward[distance - 1][self.scale_index]
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
        return torch.cat((from_following, nothing), 1), torch.cat((nothing, from_preceding), 1)
