"""The two cameras: the spike camera, whose pixels integrate light and fire one bit at the threshold, and the colour
camera: light summed over an exposure, then noise, the tone curve and 8-bit levels.

Unit of light: one tick at full scale (linear light 1) is 1; a pixel with linear light g and threshold q fires g / q
times a tick. Both are ideal by default: a sensor without noise and without spread between pixels; a camera that gives
the mean of the linear light, the sRGB curve, 8 bits. docs/sensor.md has the model equation by equation, and where the
presets' numbers come from.

A rig may be misaligned. Its homography maps frame (x, y, 1) to sensor (x, y, 1) in continuous pixels: (0, 0) is the
top left corner of the picture, pixel centres lie at +0.5; a perfect rig's is diag(1/ratio, 1/ratio, 1).

Dimension key: N ticks, C planes of light, 3 colours (RGB), H frame rows, W frame columns, h sensor rows, w
sensor columns.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from spikevrt.light import LUMINANCE, linear_to_srgb, luminance
from spikevrt.recording.frames import to_uint8
from spikevrt.simulate.setup import CameraConfig, RigConfig, SensorConfig

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool, Float, Int, UInt8
    from torch import Tensor


def camera_seed(seed: int) -> int:
    """The seed of the camera's noise in the recording with this seed, unlike any that the sensor draws from."""
    return int.from_bytes(hashlib.sha256(f"camera noise:{seed}".encode()).digest()[:7], "big")


def develop(
    light_3HW: Float[Tensor, "3 H W"], config: CameraConfig, generator: torch.Generator | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Mean linear light -> the picture: gain, shot noise, saturation, read noise, curve, levels.

    Without a generator there is no noise: the sharp truth. The shot noise is a normal of the Poisson's mean and
    variance; a camera's pixel holds thousands of electrons.

    Raises:
        ValueError: the light is NaN or infinite.
    """
    if config.exposure_gain != 1:
        light_3HW = light_3HW * config.exposure_gain
    if generator is not None and config.full_well_electrons > 0:
        spread_3HW = (light_3HW.clamp_min(0) / config.full_well_electrons).sqrt()
        light_3HW = light_3HW + spread_3HW * torch.randn(light_3HW.shape, generator=generator)
    light_3HW = light_3HW.clamp(0, 1)
    if generator is not None and config.read_noise > 0:
        noise_3HW = config.read_noise * torch.randn(light_3HW.shape, generator=generator)
        light_3HW = (light_3HW + noise_3HW).clamp(0, 1)
    if config.curve == "srgb":
        level_3HW = linear_to_srgb(light_3HW)
    elif config.curve == "2.2":
        level_3HW = light_3HW ** (1 / 2.2)
    else:
        level_3HW = light_3HW
    if config.bits < 8:
        highest = 2**config.bits - 1
        level_3HW = (level_3HW * highest).round() / highest
    return to_uint8(level_3HW)


def row_delays(height: int, config: CameraConfig) -> Int[Tensor, " H"]:
    """Ticks by which each row's exposure begins later than the first row's: evenly from 0 to rolling_shutter_ticks."""
    rows_H = torch.arange(height)
    return (rows_H * config.rolling_shutter_ticks + (height - 1) // 2) // max(1, height - 1)


class FrameExposure:
    """One exposure of the camera: row i sums the light of ticks start + delay_i to stop + delay_i, the last excluded.

    The light of consecutive ticks is added in chunks of any length; ticks outside the exposure are ignored.
    """

    def __init__(self, height: int, width: int, config: CameraConfig, *, start: int, stop: int) -> None:
        if stop <= start:
            raise ValueError(f"stop: {stop}; must be above start = {start}")
        self.start, self.stop = start, stop
        self.last_tick = stop + config.rolling_shutter_ticks  # the exposure is complete when ticks up to here are added
        self._opens_H = start + row_delays(height, config)
        self._closes_H = stop + row_delays(height, config)
        self._sum_3HW = torch.zeros(3, height, width)

    def add(self, first: int, light_N3HW: Float[Tensor, "N 3 H W"]) -> None:
        """Add the light of ticks first to first + N, the last excluded."""
        low, high = max(first, self.start), min(first + len(light_N3HW), self.last_tick)
        if low >= high:
            return
        light_N3HW = light_N3HW[low - first : high - first]
        if low >= int(self._opens_H[-1]) and high <= int(self._closes_H[0]):  # every row is open all the time
            self._sum_3HW += light_N3HW.sum(0)
            return
        tick_N1 = torch.arange(low, high)[:, None]
        is_open_NH = (self._opens_H <= tick_N1) & (tick_N1 < self._closes_H)
        self._sum_3HW += (light_N3HW * is_open_NH[:, None, :, None]).sum(0)

    def mean(self) -> Float[Tensor, "3 H W"]:
        """The mean linear light of each row's own exposure."""
        return self._sum_3HW / (self.stop - self.start)


DARK_STEPS = 1 << 30  # levels of dark current per full-scale tick
FEW_PHOTONS = 100.0  # a full-scale tick of fewer photons is drawn from Poisson itself, one of more from a normal
MOST_BEYOND = 0.25  # of the frame's longer side: so far a sensor may see beyond the frame's border
QUANTILES = 1 << 16  # of the table of normal noise
NORMAL_STEPS = 1 << 20  # one over the smallest difference of two of its values


def sensor_light(light_N3HW: Float[Tensor, "N 3 H W"], config: SensorConfig) -> Float[Tensor, "N h w"]:
    """What each sensor pixel sees of linear RGB light: its colours, averaged over `ratio` x `ratio` colour pixels."""
    if config.bayer:
        return _mosaic(F.avg_pool2d(light_N3HW, config.ratio), config.bayer)
    if config.response == LUMINANCE:
        grey_NHW = luminance(light_N3HW)
    else:
        red, green, blue = config.response
        grey_NHW = light_N3HW[:, 0] * red + light_N3HW[:, 1] * green + light_N3HW[:, 2] * blue
    return F.avg_pool2d(grey_NHW[:, None], config.ratio)[:, 0]


def _mosaic(light_N3hw: Float[Tensor, "N 3 h w"], pattern: str) -> Float[Tensor, "N h w"]:
    mosaic_Nhw = torch.empty_like(light_N3hw[:, 0])
    for place, colour in enumerate(pattern):
        cell = (..., slice(place // 2, None, 2), slice(place % 2, None, 2))
        mosaic_Nhw[cell] = light_N3hw[:, "RGB".index(colour)][cell]
    return mosaic_Nhw


class SpikeSensor:
    """One sensor with its state: the light that each pixel holds, in thresholds, from a random phase on.

    `expose` is called with consecutive slices of time; how the time is cut does not change the spikes: noise is drawn
    tick by tick, in order, from a generator of its own. So are the differences between pixels, once; the start phases
    are those of the ideal sensor. The same light gives the same spikes on every machine, but for noise of fewer than
    `FEW_PHOTONS`.
    """

    def __init__(self, height: int, width: int, config: SensorConfig, *, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.config = config
        self._charge_hw = torch.rand((height, width), generator=generator)  # [0, 1) thresholds
        self._dead_hw = torch.zeros(height, width)  # ticks of light still to be lost
        self._noise = torch.Generator().manual_seed(_derived_seed("noise", seed))
        self._gain_hw: Tensor | None = None  # charge per light in thresholds; None where all pixels are alike
        self._leak_hw: Tensor | None = None  # charge per tick in the dark
        self._threshold_hw = torch.tensor(config.threshold)
        if config.has_pattern:
            self._draw_pattern(config.pattern_seed if config.pattern_seed is not None else seed)

    def _draw_pattern(self, seed: int) -> None:
        config, shape = self.config, self._charge_hw.shape
        generator = torch.Generator().manual_seed(_derived_seed("pattern", seed))
        # all four are always drawn, so that one setting does not change the others' maps
        gain_hw, dark_hw, threshold_hw = (normal(shape, generator) for _ in range(3))
        fate_hw = torch.rand(shape, generator=generator)
        sigma = math.sqrt(math.log1p(config.dark_cv**2))
        dark_hw = config.dark_current * (dark_hw.double() * sigma - sigma**2 / 2).exp()
        # an exponential's last bits are not the same everywhere
        dark_hw = ((dark_hw * DARK_STEPS).round() / DARK_STEPS).float()
        hot_hw = (fate_hw >= config.dead_fraction) & (fate_hw < config.dead_fraction + config.hot_fraction)
        dark_hw[hot_hw] = config.hot_current
        self._threshold_hw = config.threshold * (1 + config.threshold_cv * threshold_hw).clamp_min(0.1)
        self._gain_hw = config.light_gain * (1 + config.gain_cv * gain_hw).clamp_min(0) / self._threshold_hw
        self._leak_hw = dark_hw / self._threshold_hw
        dead_hw = fate_hw < config.dead_fraction
        self._gain_hw[dead_hw] = self._leak_hw[dead_hw] = 0
        self._charge_hw[dead_hw] = -math.inf

    def expose(self, light_Nhw: Float[Tensor, "N h w"]) -> UInt8[Tensor, "N h w"]:
        """Integrate N ticks of linear light in [0, 1] and return the spikes, 0 or 1.

        A spike takes one threshold from the integral and leaves the rest. Light beyond one threshold a tick cannot be
        told (the pixel saturates): what exceeds one threshold after a spike, or two where noise kept the pixel from
        firing, is lost.
        """
        config, charge_hw, dead_hw = self.config, self._charge_hw, self._dead_hw
        spikes_Nhw = torch.empty(light_Nhw.shape, dtype=torch.uint8)
        for tick, light_hw in enumerate(light_Nhw):
            arriving_hw = self._arriving(light_hw)
            if config.dead_ticks > 0:
                lost_hw = dead_hw.clamp_max(1.0)
                arriving_hw *= 1 - lost_hw
                dead_hw -= lost_hw
            if config.photons_per_tick > 0:
                few = config.photons_per_tick < FEW_PHOTONS
                photons_hw = self._threshold_hw * config.photons_per_tick
                arriving_hw = _with_shot_noise(arriving_hw, photons_hw, self._noise, plain=few)
            charge_hw += arriving_hw
            if config.missed_fraction > 0 and float(torch.rand((), generator=self._noise)) < config.missed_fraction:
                charge_hw.clamp_max_(2.0)  # one to fire at the next read-out, and one to stay, as after any spike
                spikes_Nhw[tick] = 0
                continue
            fired_hw = self._compare(charge_hw)
            charge_hw -= fired_hw.to(charge_hw.dtype)
            if config.threshold_jitter == 0:
                charge_hw.clamp_max_(1.0)
            else:  # where the threshold was above the charge all of it stays
                torch.minimum(charge_hw, 2.0 - fired_hw.to(charge_hw.dtype), out=charge_hw)
            if config.dead_ticks > 0:
                dead_hw.masked_fill_(fired_hw, config.dead_ticks)
            spikes_Nhw[tick] = fired_hw
        return spikes_Nhw

    def _arriving(self, light_hw: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
        """Charge of one tick without noise, in thresholds: a new tensor."""
        if self._gain_hw is not None and self._leak_hw is not None:
            # in two steps: fused, some processors round otherwise
            return (self._gain_hw * light_hw).add_(self._leak_hw)
        arriving_hw = light_hw / self.config.threshold
        if self.config.light_gain != 1:
            arriving_hw *= self.config.light_gain
        if self.config.dark_current > 0:
            arriving_hw += self.config.dark_current / self.config.threshold
        return arriving_hw

    def _compare(self, charge_hw: Float[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
        if self.config.threshold_jitter == 0:
            return charge_hw >= 1
        jitter_hw = normal(charge_hw.shape, self._noise).mul_(self.config.threshold_jitter).add_(1.0)
        return charge_hw >= jitter_hw


def _with_shot_noise(
    charge_hw: Float[Tensor, "h w"], photons_hw: Tensor, generator: torch.Generator, *, plain: bool
) -> Float[Tensor, "h w"]:
    """Charge with the noise of its photons; `photons_hw` is photons per unit of charge.

    `plain` draws the Poisson numbers themselves, which takes several times as long as a normal of the same mean and
    variance. A spike sums thousands of photons, and of so many the two cannot be told apart.
    """
    if plain:
        return torch.poisson(charge_hw * photons_hw, generator=generator) / photons_hw
    return (charge_hw / photons_hw).sqrt_().mul_(normal(charge_hw.shape, generator)).add_(charge_hw)


def _derived_seed(purpose: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"sensor {purpose}:{seed}".encode()).digest()[:7], "big")


def normal(shape: Sequence[int], generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """Normal numbers, mean 0, standard deviation 1 (to 2e-4), at most 4.33, float32: the same bits on every machine.

    A library's own go through logarithms and sines, whose last bits differ from processor to processor. Here a whole
    number of 16 bits, which a generator gives alike everywhere, chooses a quantile from a table.
    """
    return _normal_quantiles()[torch.randint(QUANTILES, tuple(shape), generator=generator)]


@functools.cache
def _normal_quantiles() -> Float[Tensor, " quantiles"]:
    """The quantiles in the middle of each of the equally likely parts."""
    standard = NormalDist()
    half = [round(standard.inv_cdf((k + 0.5) / QUANTILES) * NORMAL_STEPS) / NORMAL_STEPS for k in range(QUANTILES // 2)]
    return torch.tensor(half + [-value for value in reversed(half)], dtype=torch.float32)


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
