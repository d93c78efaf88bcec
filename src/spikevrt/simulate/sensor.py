"""The spike camera: every pixel integrates light and fires one bit when the integral reaches the threshold.

Unit of light: one tick at full scale (linear light 1) is 1; a pixel with linear light g and threshold q fires g / q
times a tick. The default sensor is ideal: no noise, no spread between pixels. docs/sensor.md has the model equation by
equation, and where the presets' numbers come from.

Dimension key: N ticks, H frame rows, W frame columns, h sensor rows, w sensor columns.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from spikevrt.light import LUMINANCE, luminance
from spikevrt.simulate.noise import normal

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, UInt8
    from torch import Tensor

BAYER_PATTERNS = ("BGGR", "RGGB", "GRBG", "GBRG")
DARK_STEPS = 1 << 30  # levels of dark current per full-scale tick
FEW_PHOTONS = 100.0  # a full-scale tick of fewer photons is drawn from Poisson itself, one of more from a normal


@dataclass(frozen=True)
class SensorConfig:
    """The spike camera beside the colour camera.

    threshold: light per spike, in full-scale ticks; the firing rate is light / threshold, at most one spike a tick.
    tick_rate_hz: read-outs per second.
    dead_ticks: light that a pixel loses after each spike, in ticks (0.002 = 100 ns of a 50 us tick).
    ratio: colour pixels per sensor pixel, along each side.
    light_gain: the light is multiplied by it before anything else; below 1 for a scene in low light.
    photons_per_tick: photons that a full-scale pixel receives in a tick; 0 stands for no shot noise.
    dark_current: light that every pixel sees in the dark, per tick, 1 being full scale.
    dark_cv: spread of the dark current between pixels, standard deviation / mean (log-normal).
    gain_cv: spread of the response between pixels (normal).
    threshold_cv: spread of the threshold between pixels (normal).
    threshold_jitter: noise of each tick's comparison, standard deviation in thresholds.
    dead_fraction: share of the pixels that never fire.
    hot_fraction: share of the pixels whose dark current is `hot_current` instead.
    hot_current: light per tick that a hot pixel sees in the dark.
    missed_fraction: share of the read-outs that are lost: such a tick reads zeros, and the charge waits for the next.
    pattern_seed: seed of what differs between pixels, to keep one camera over many recordings; None: the sensor's seed.
    response: weights of linear red, green and blue light.
    bayer: colours of the top left 2 x 2 pixels, row by row (BGGR, RGGB, GRBG, GBRG); empty: no colour filter.
    """

    threshold: float = 1.0
    tick_rate_hz: float = 20000.0
    dead_ticks: float = 0.0
    ratio: int = 2
    light_gain: float = 1.0
    photons_per_tick: float = 0.0
    dark_current: float = 0.0
    dark_cv: float = 0.0
    gain_cv: float = 0.0
    threshold_cv: float = 0.0
    threshold_jitter: float = 0.0
    dead_fraction: float = 0.0
    hot_fraction: float = 0.0
    hot_current: float = 0.03
    missed_fraction: float = 0.0
    pattern_seed: int | None = None
    response: tuple[float, float, float] = LUMINANCE
    bayer: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "response", tuple(self.response))  # a list, where it comes from JSON
        for name, value in (
            ("threshold", self.threshold),
            ("tick_rate_hz", self.tick_rate_hz),
            ("light_gain", self.light_gain),
        ):
            if not 0 < value < math.inf:
                raise ValueError(f"sensor.{name}: {value}; must be above 0")
        for name, value in (
            ("dead_ticks", self.dead_ticks),
            ("photons_per_tick", self.photons_per_tick),
            ("dark_current", self.dark_current),
            ("dark_cv", self.dark_cv),
            ("gain_cv", self.gain_cv),
            ("threshold_cv", self.threshold_cv),
            ("threshold_jitter", self.threshold_jitter),
            ("hot_current", self.hot_current),
        ):
            if not 0 <= value < math.inf:
                raise ValueError(f"sensor.{name}: {value}; must be 0 or more")
        for name, value in (
            ("dead_fraction", self.dead_fraction),
            ("hot_fraction", self.hot_fraction),
            ("missed_fraction", self.missed_fraction),
        ):
            if not 0 <= value <= 1:
                raise ValueError(f"sensor.{name}: {value}; must be from 0 to 1")
        if self.dead_fraction + self.hot_fraction > 1:
            raise ValueError(f"sensor.hot_fraction: {self.hot_fraction}; must be at most 1 - dead_fraction")
        if self.ratio < 1:
            raise ValueError(f"sensor.ratio: {self.ratio}; must be 1 or more")
        if len(self.response) != 3 or not all(0 <= weight < math.inf for weight in self.response):
            raise ValueError(f"sensor.response: {self.response}; must be three weights of 0 or more: red, green, blue")
        if self.bayer not in ("", *BAYER_PATTERNS):
            raise ValueError(f"sensor.bayer: {self.bayer}; must be one of {', '.join(BAYER_PATTERNS)}, or empty")
        if self.bayer and self.response != LUMINANCE:
            raise ValueError(f"sensor.response: {self.response}; must be left alone where bayer chooses the colours")

    @property
    def has_pattern(self) -> bool:
        """Whether pixels differ from each other in anything but their start phase."""
        spread = max(self.gain_cv, self.threshold_cv, self.dark_cv * self.dark_current)
        return max(spread, self.dead_fraction, self.hot_fraction) > 0


SENSOR_PRESETS = ("ideal", "bright", "lowlight")


def sensor_preset(name: str) -> SensorConfig:
    """A sensor by name; change single fields with `dataclasses.replace`.

    ideal: no noise. bright: the noise of a real sensor in daylight. lowlight: the same sensor where the brightest white
    gives 0.14 of that light, so that a surface of 18 % grey fires about 0.03 times a tick.

    Raises:
        ValueError: there is no such preset.
    """
    if name == "ideal":
        return SensorConfig()
    if name in ("bright", "lowlight"):
        return SensorConfig(
            dead_ticks=0.002,
            light_gain=1.0 if name == "bright" else 0.14,
            photons_per_tick=15000.0,
            dark_current=0.0050,
            dark_cv=0.41,
            gain_cv=0.056,
            hot_fraction=0.0009,
        )
    raise ValueError(f"sensor: {name}; must be one of {', '.join(SENSOR_PRESETS)}")


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
        dark_hw = (
            (dark_hw * DARK_STEPS).round() / DARK_STEPS
        ).float()  # an exponential's last bits are not the same everywhere
        dark_hw[(fate_hw >= config.dead_fraction) & (fate_hw < config.dead_fraction + config.hot_fraction)] = (
            config.hot_current
        )
        self._threshold_hw = config.threshold * (1 + config.threshold_cv * threshold_hw).clamp_min(0.1)
        self._gain_hw = config.light_gain * (1 + config.gain_cv * gain_hw).clamp_min(0) / self._threshold_hw
        self._leak_hw = dark_hw / self._threshold_hw
        dead_hw = fate_hw < config.dead_fraction
        self._gain_hw[dead_hw] = self._leak_hw[dead_hw] = 0
        self._charge_hw[dead_hw] = -math.inf

    def expose(self, light_Nhw: Float[Tensor, "N h w"]) -> UInt8[Tensor, "N h w"]:
        """Integrate N ticks of linear light in [0, 1] and return the spikes, 0 or 1.

        A spike takes one threshold from the integral and leaves the rest. Light beyond one threshold a tick cannot be
        told (the pixel saturates): what exceeds one threshold after a spike, or two
        where noise kept the pixel from firing, is lost.
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
                arriving_hw = _with_shot_noise(
                    arriving_hw,
                    self._threshold_hw * config.photons_per_tick,
                    self._noise,
                    plain=config.photons_per_tick < FEW_PHOTONS,
                )
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
            return (self._gain_hw * light_hw).add_(
                self._leak_hw
            )  # in two steps: fused, some processors round otherwise
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
