"""A rig that is not perfect: the spike camera stands a little aside, and its clock starts a little off.

Coordinates: continuous pixels, (0, 0) is the top-left corner of the picture and pixel centres lie at +0.5. A rig's
homography maps frame (x, y, 1) to sensor (x, y, 1), in sensor pixels; the perfect rig's is diag(1/ratio, 1/ratio, 1).

Dimension key: N ticks, C planes of light, H frame rows, W frame columns, h sensor rows, w sensor columns.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from spikevrt.simulate.setup import RigConfig

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

MOST_BEYOND = 0.25  # of the frame's longer side: so far a sensor may see beyond the frame's border


def rig_homography(rig: RigConfig, *, width: int, height: int, ratio: int) -> Float[Tensor, "3 3"]:
    """Where a frame's point lands on the sensor, in float64, the last entry 1; `width` and `height` are the frame's."""
    assert not rig.random, "draw it first"
    x, y = width / 2, height / 2
    cos, sin = (rig.scale * f(math.radians(rig.rotate_deg)) for f in (math.cos, math.sin))
    from_centre = torch.tensor([[1, 0, -x], [0, 1, -y], [0, 0, 1]], dtype=torch.float64)
    tilt = torch.tensor([[1, 0, 0], [0, 1, 0], [rig.tilt_x / x, rig.tilt_y / y, 1]], dtype=torch.float64)
    turn = torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], dtype=torch.float64)
    to_centre = torch.tensor([[1, 0, x + rig.shift_x_px], [0, 1, y + rig.shift_y_px], [0, 0, 1]], dtype=torch.float64)
    to_sensor = torch.diag(torch.tensor([1 / ratio, 1 / ratio, 1], dtype=torch.float64))
    homography_33 = to_sensor @ to_centre @ turn @ tilt @ from_centre
    return homography_33 / homography_33[2, 2]


class RigView:
    """What the pixels of a misaligned sensor see of the light; `pad_px` of it must be rendered around the frame."""

    def __init__(self, rig: RigConfig, *, width: int, height: int, ratio: int) -> None:
        """Raises ValueError when the sensor would see far beyond the frame."""
        self.homography_33 = rig_homography(rig, width=width, height=height, ratio=ratio)
        self._ratio = ratio
        v, u = torch.meshgrid(
            torch.arange(height // ratio, dtype=torch.float64) + 0.5,
            torch.arange(width // ratio, dtype=torch.float64) + 0.5,
            indexing="ij",
        )
        seen_hw3 = torch.stack((u, v, torch.ones_like(u)), -1) @ self.homography_33.inverse().T
        self._positions_hw2 = seen_hw3[..., :2] / seen_hw3[..., 2:]
        reach = ratio / 2
        x_hw, y_hw = self._positions_hw2.unbind(-1)
        beyond_px = max(reach - float(min(x_hw.min(), y_hw.min())), float(x_hw.max()) + reach - width,
                        float(y_hw.max()) + reach - height, 0.0)  # fmt: skip
        if float(seen_hw3[..., 2].min()) <= 0 or not beyond_px <= MOST_BEYOND * max(width, height):
            raise ValueError(
                f"rig: the sensor would see {beyond_px:.0f} px beyond the frame of {width}x{height}; allowed: at most "
                f"a quarter of its longer side"
            )
        self.pad_px = math.ceil(beyond_px)

    def see(self, light_NCHW: Float[Tensor, "N C H W"], *, pad_px: int) -> Float[Tensor, "N C h w"]:
        """The light at every sensor pixel: the mean of ratio x ratio frame pixels around the point that it looks at.

        Between pixel positions it is interpolated bilinearly. `light_NCHW` reaches `pad_px` beyond the frame on every
        side; beyond that its edge is continued.
        """
        blurred_NCHW = F.avg_pool2d(light_NCHW, self._ratio, stride=1) if self._ratio > 1 else light_NCHW
        # pixel (i, j) of the blurred picture is centred at (j + ratio / 2, i + ratio / 2) of the rendered one
        size_2 = torch.tensor([blurred_NCHW.shape[-1], blurred_NCHW.shape[-2]])
        index_hw2 = self._positions_hw2 + (pad_px - self._ratio / 2)
        grid_hw2 = (2 * index_hw2 / (size_2 - 1).clamp_min(1) - 1).float()
        return F.grid_sample(
            blurred_NCHW, grid_hw2.expand(len(light_NCHW), -1, -1, -1), align_corners=True, padding_mode="border"
        )


def rig_truth(rig: RigConfig, *, width: int, height: int, ratio: int) -> dict[str, object]:
    """What alignment should find, for the provenance: {"homography": 3 rows of 3, "offset_ticks": int}."""
    homography_33 = rig_homography(rig, width=width, height=height, ratio=ratio)
    return {"homography": homography_33.tolist(), "offset_ticks": rig.offset_ticks}
