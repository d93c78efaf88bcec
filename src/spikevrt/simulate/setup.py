"""What is simulated, as settings: the spike camera, the colour camera, how they stand, and how they film.

A field with a help text (`Annotated`) is an option of `spikevrt simulate`, so nothing here loads torch when imported.
The defaults are those of ideal cameras: no noise, no misalignment.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Annotated

from spikevrt.light import LUMINANCE
from spikevrt.recording.sidecar import TICK_RATE_HZ

BAYER_PATTERNS = ("BGGR", "RGGB", "GRBG", "GBRG")
CURVES = ("srgb", "2.2", "linear")
TICKS_PER_FRAME = 8  # of a video, unless its frame rate is stated
FROM_FILE = "file"  # source_fps: what the video file says
SENSOR_PRESETS = ("ideal", "bright", "lowlight")
# what a number must be, in words, and whether one is
Rule = tuple[str, Callable[[float], bool]]
ABOVE_0: Rule = ("above 0", lambda value: 0 < value < math.inf)
NOT_NEGATIVE: Rule = ("0 or more", lambda value: 0 <= value < math.inf)
ONE_OR_MORE: Rule = ("1 or more", lambda value: value >= 1)
SHARE: Rule = ("from 0 to 1", lambda value: 0 <= value <= 1)


def _check(settings: object, section: str, names: Sequence[str], rule: Rule) -> None:
    """Raises ValueError for the first of these fields that is not what the rule says."""
    words, holds = rule
    for name in names:
        value = getattr(settings, name)
        if not holds(value):
            raise ValueError(f"{section}{'.' * bool(section)}{name}: {value}; must be {words}")


@dataclass(frozen=True)
class SensorConfig:
    """The spike camera beside the colour camera. docs/sensor.md has the equation of every field.

    The firing rate is light / threshold. `pattern_seed` keeps one camera over many recordings. `dead_ticks` of 0.002
    are 100 ns of a 50 us tick.
    """

    threshold: Annotated[float, "light per spike, in ticks of full-scale light; a pixel fires at most once a tick"] = (
        1.0
    )
    tick_rate_hz: Annotated[float, "spike read-outs per second", "HZ"] = TICK_RATE_HZ
    dead_ticks: Annotated[float, "light lost after each spike, in ticks"] = 0.0
    ratio: Annotated[int, "width of a colour frame over that of the spike sensor"] = 2
    light_gain: Annotated[float, "the light is multiplied by it, below 1 in low light"] = 1.0
    photons_per_tick: Annotated[float, "photons in a full-scale tick, 0: no shot noise"] = 0.0
    dark_current: Annotated[float, "light per tick that every pixel sees in the dark"] = 0.0
    dark_cv: Annotated[float, "spread of the dark current between pixels, relative (log-normal)"] = 0.0
    gain_cv: Annotated[float, "spread of the response between pixels, relative (normal)"] = 0.0
    threshold_cv: Annotated[float, "spread of the threshold between pixels, relative (normal)"] = 0.0
    threshold_jitter: Annotated[float, "noise of each tick's comparison, in thresholds"] = 0.0
    dead_fraction: Annotated[float, "share of pixels that never fire"] = 0.0
    hot_fraction: Annotated[float, "share of pixels with the hot current"] = 0.0
    hot_current: Annotated[float, "light per tick that a hot pixel sees in the dark"] = 0.03
    missed_fraction: Annotated[float, "share of read-outs that are lost: they read zeros, the charge stays"] = 0.0
    pattern_seed: Annotated[int | None, "seed of what differs between pixels (the recording's)"] = None
    response: Annotated[tuple[float, float, float], "weights of linear red, green and blue"] = LUMINANCE
    bayer: Annotated[str, "colour filter, the top left 2 x 2 pixels: BGGR, RGGB, GRBG or GBRG (none)"] = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "response", tuple(self.response))  # a list, where it comes from JSON
        _check(self, "sensor", ("threshold", "tick_rate_hz", "light_gain"), ABOVE_0)
        noise = ("dead_ticks", "photons_per_tick", "dark_current", "dark_cv", "gain_cv", "threshold_cv")
        _check(self, "sensor", (*noise, "threshold_jitter", "hot_current"), NOT_NEGATIVE)
        _check(self, "sensor", ("dead_fraction", "hot_fraction", "missed_fraction"), SHARE)
        if self.dead_fraction + self.hot_fraction > 1:
            raise ValueError(f"sensor.hot_fraction: {self.hot_fraction}; must be at most 1 - dead_fraction")
        if self.ratio < 1:
            raise ValueError(f"sensor.ratio: {self.ratio}; must be 1 or more")
        if len(self.response) != 3 or not all(0 <= weight < math.inf for weight in self.response):
            raise ValueError(f"sensor.response: {self.response}; must be three weights of 0 or more: red, green, blue")
        if self.bayer not in ("", *BAYER_PATTERNS):
            raise ValueError(f"sensor.bayer: {self.bayer}; must be one of {', '.join(BAYER_PATTERNS)}, or empty")
        if self.bayer and self.response != LUMINANCE:
            raise ValueError(f"sensor.response: {self.response}; must be left alone where `bayer` chooses the colours")

    @property
    def has_pattern(self) -> bool:
        """Whether pixels differ from each other in anything but their start phase."""
        spread = max(self.gain_cv, self.threshold_cv, self.dark_cv * self.dark_current)
        return max(spread, self.dead_fraction, self.hot_fraction) > 0


def sensor_preset(name: str = SENSOR_PRESETS[0]) -> SensorConfig:
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


@dataclass(frozen=True)
class CameraConfig:
    """The colour camera beside the spike camera."""

    exposure_gain: Annotated[float, "the light is multiplied by it, then cut off at full scale"] = 1.0
    full_well_electrons: Annotated[float, "electrons of a full-scale pixel, 0: no shot noise"] = 0.0
    read_noise: Annotated[float, "standard deviation, in full scales of linear light"] = 0.0
    curve: Annotated[str, "from light to levels: srgb (exact), 2.2 (light ** (1 / 2.2)) or linear"] = "srgb"
    bits: Annotated[int, "the picture has 2 ** bits levels, spread over 0 to 255"] = 8
    rolling_shutter_ticks: Annotated[int, "the last row is exposed so many ticks after the first"] = 0

    def __post_init__(self) -> None:
        _check(self, "camera", ("exposure_gain",), ABOVE_0)
        _check(self, "camera", ("full_well_electrons", "read_noise", "rolling_shutter_ticks"), NOT_NEGATIVE)
        if self.curve not in CURVES:
            raise ValueError(f"camera.curve: {self.curve}; must be one of {', '.join(CURVES)}")
        if not 1 <= self.bits <= 8:
            raise ValueError(f"camera.bits: {self.bits}; must be from 1 to 8")


@dataclass(frozen=True)
class RigConfig:
    """How the spike camera stands beside the colour camera, and how far its clock is off.

    A point is divided by 1 + tilt_x at the frame's right edge and by 1 + tilt_y at its lower one. `random` draws up to
    20 px along each axis, 2 degrees, 5 %, tilts of 0.02, and an offset of up to one exposure, in a margin of at least
    one exposure.
    """

    shift_x_px: Annotated[float, "the scene lies so many frame pixels further right on the sensor"] = 0.0
    shift_y_px: Annotated[float, "... further down"] = 0.0
    rotate_deg: Annotated[float, "... turned clockwise about the centre"] = 0.0
    scale: Annotated[float, "... so much larger"] = 1.0
    tilt_x: Annotated[float, "perspective: 1 + tilt divides the right edge"] = 0.0
    tilt_y: Annotated[float, "perspective: 1 + tilt divides the lower edge"] = 0.0
    parallax_px: Annotated[float, "photographs: layers, being nearer, lie so much further right still"] = 0.0
    offset_ticks: Annotated[int, "true exposures begin so many ticks later than recorded"] = 0
    drift_ppm: Annotated[float, "... and so many millionths of the time since the first one later still"] = 0.0
    margin_ticks: Annotated[int, "ticks before the first true exposure and after the last, at least |offset|"] = 0
    random: Annotated[bool, "draw all but the margin from each recording's seed"] = False

    def __post_init__(self) -> None:
        if not abs(self.drift_ppm) <= 10_000:
            raise ValueError(f"rig.drift_ppm: {self.drift_ppm}; must be -10000 to 10000")
        for name in ("shift_x_px", "shift_y_px", "rotate_deg", "parallax_px"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"rig.{name}: {getattr(self, name)}; must be finite")
        if not 0.5 <= self.scale <= 2:
            raise ValueError(f"rig.scale: {self.scale}; must be 0.5 to 2")
        for name, tilt in (("tilt_x", self.tilt_x), ("tilt_y", self.tilt_y)):
            if not -0.25 <= tilt <= 0.25:
                raise ValueError(f"rig.{name}: {tilt}; must be -0.25 to 0.25")
        _check(self, "rig", ("margin_ticks",), NOT_NEGATIVE)
        if self.random and replace(self, random=False) != RigConfig(margin_ticks=self.margin_ticks):
            raise ValueError("rig.random: draws shift, rotation, scale, tilt and offset; not with one of these given")

    @property
    def is_perfect(self) -> bool:
        """Whether nothing is misaligned (a margin alone is no misalignment)."""
        return self == RigConfig(margin_ticks=self.margin_ticks)

    @property
    def is_registered(self) -> bool:
        """Whether every sensor pixel sees exactly its ratio x ratio frame pixels, whatever the clock does."""
        return replace(self, offset_ticks=0, drift_ppm=0.0).is_perfect


def _fps(text: str) -> Fraction:
    """Frames per second, exactly; 0 where it is no number."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return Fraction(0)


def drawn_rig(rig: RigConfig, *, exposure_ticks: int, seed: int) -> RigConfig:
    """The rig with its random parts drawn from `seed` and its margin made wide enough for the offset."""
    if rig.random:
        import torch

        from spikevrt.simulate.scene import uniform

        digest = hashlib.sha256(f"rig:{seed}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:6], "big"))
        rig = RigConfig(
            shift_x_px=uniform(generator, -20, 20),
            shift_y_px=uniform(generator, -20, 20),
            rotate_deg=uniform(generator, -2, 2),
            scale=uniform(generator, 0.95, 1.05),
            tilt_x=uniform(generator, -0.02, 0.02),
            tilt_y=uniform(generator, -0.02, 0.02),
            offset_ticks=round(uniform(generator, -exposure_ticks, exposure_ticks)),
            margin_ticks=max(rig.margin_ticks, exposure_ticks),
        )
    return replace(rig, margin_ticks=max(rig.margin_ticks, abs(rig.offset_ticks)))


@dataclass(frozen=True)
class SimulateOptions:
    """How a recording is simulated.

    A photograph is filmed under a moving camera: `motion_px` is the typical image motion over one exposure (each
    recording draws its own speed between 0.5 and 1.5 times that) and `num_layers` cut-outs move before it. A video is
    filmed as it is: `ticks_per_frame` ticks lie between two of its frames, and recording begins at `start_frame`.
    The sharp frame is that of the exposure's middle, or of `sharp_shift_ticks` after it (before it, where negative).
    `interpolate` (a power of two) puts so many frames, made by a network, in the place of each of the video's own;
    `ticks_per_frame` then lie between two of these, and `start_frame` still counts the video's own. `source_fps` says
    how fast the video was filmed, in the place of `ticks_per_frame`: between two of its own frames lie
    `tick_rate_hz` / `source_fps` ticks, a fraction that is kept exactly, and `interpolate` changes no speed. What is
    left to the video itself (`file`, 0) is found out when it is opened.
    """

    frames: Annotated[int, "frames of one recording"] = 5
    exposure_ticks: Annotated[int, "exposure of a frame in spike ticks"] = 128
    period_ticks: Annotated[int, "ticks from one frame's start to the next one's"] = 160
    width: Annotated[int, "width of a colour frame in pixels"] = 640
    height: Annotated[int, "height of a colour frame in pixels"] = 360
    motion_px: Annotated[float, "photographs: typical image motion within one exposure"] = 12.0
    num_layers: Annotated[int, "photographs: layers that move on their own"] = 2
    ticks_per_frame: Annotated[int, "video: spike ticks from one (interpolated) frame to the next"] = TICKS_PER_FRAME
    source_fps: Annotated[
        str | None, "video: its frames per second, as 240 or 30000/1001, or `file`; the ticks between follow", "FPS"
    ] = None
    start_frame: Annotated[int, "video: first source frame"] = 0
    interpolate: Annotated[int, "video: frames made by RIFE in the place of each: 2, 4, 8 ...; 0: as motion needs"] = 1
    sharp_shift_ticks: Annotated[int, "the sharp frame is that of so many ticks after the exposure's middle"] = 0
    seed: Annotated[int, "the same seed gives the same bytes"] = 123
    sensor: SensorConfig = field(default_factory=SensorConfig)
    camera: CameraConfig = field(default_factory=CameraConfig)
    rig: RigConfig = field(default_factory=RigConfig)

    def __post_init__(self) -> None:
        _check(self, "", ("frames", "exposure_ticks", "width", "height", "ticks_per_frame"), ONE_OR_MORE)
        _check(self, "", ("num_layers", "start_frame", "motion_px"), NOT_NEGATIVE)
        if not -(2**63) <= self.seed < 2**64:
            raise ValueError(f"seed: {self.seed}; must be from -2**63 to 2**64 - 1")
        if self.interpolate < 0 or self.interpolate & (self.interpolate - 1):
            raise ValueError(f"interpolate: {self.interpolate}; must be a power of two: 1, 2, 4, 8 ..., or 0")
        if self.source_fps is None and self.interpolate == 0:
            raise ValueError("interpolate: 0 (as many as the motion needs); must have source_fps beside it")
        if self.source_fps is not None and self.ticks_per_frame != TICKS_PER_FRAME:
            raise ValueError(f"ticks_per_frame: {self.ticks_per_frame}; not with source_fps (the ticks follow from it)")
        if self.source_fps not in (None, FROM_FILE) and not _fps(str(self.source_fps)) > 0:
            raise ValueError(
                f"source_fps: {self.source_fps}; must be above 0, as 240, 29.97 or 30000/1001, or {FROM_FILE}"
            )
        if self.period_ticks < self.exposure_ticks:
            raise ValueError(
                f"period_ticks: {self.period_ticks}; must be at least exposure_ticks = {self.exposure_ticks}"
            )
        for name, value in (("width", self.width), ("height", self.height)):
            if value % self.sensor.ratio:
                raise ValueError(f"{name}: {value}; must be a multiple of `ratio` = {self.sensor.ratio}")

    @property
    def true_rig(self) -> RigConfig:
        """The rig, its random parts drawn."""
        return drawn_rig(self.rig, exposure_ticks=self.exposure_ticks, seed=self.seed)

    @property
    def num_ticks(self) -> int:
        """Length of the stream: from the first exposure's start to the last one's end, and the margins around them."""
        filmed = (self.frames - 1) * self.period_ticks + self.exposure_ticks + self.camera.rolling_shutter_ticks
        return filmed + abs(self.drift_ticks(self.frames - 1)) + 2 * self.margin_ticks

    @property
    def margin_ticks(self) -> int:
        """Ticks of the stream before the first exposure and after the last: of the rig, or what a shift needs."""
        rig = self.true_rig
        return max(rig.margin_ticks, abs(rig.offset_ticks) + abs(self.sharp_shift_ticks))

    def drift_ticks(self, index: int) -> int:
        """How many ticks later than by the period frame `index` is exposed, as the clocks run apart."""
        return round(index * self.period_ticks * self.rig.drift_ppm / 1e6)

    @property
    def start_ticks(self) -> list[int]:
        """The tick of the stream at which each frame's exposure really begins."""
        margin = self.margin_ticks
        return [margin + index * self.period_ticks + self.drift_ticks(index) for index in range(self.frames)]

    @property
    def source_frames_needed(self) -> int:
        """How many of a video's own frames the stream takes."""
        return math.ceil(self.num_ticks / self.source_frame_ticks) + 1

    @property
    def source_frame_ticks(self) -> Fraction:
        """Ticks from one of a video's own frames to the next."""
        if self.source_fps is None:
            return Fraction(self.ticks_per_frame * self.interpolate)
        return Fraction(self.sensor.tick_rate_hz) / _fps(str(self.source_fps))
