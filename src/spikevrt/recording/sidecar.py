"""What a recording.json and a spike file's sidecar say: the spike formats that there are, the exposures, their words.

Nothing here loads torch or NumPy, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from spikevrt.atomic import write_text
from spikevrt.typed import require

AXES = ("THW", "HWT")
LENGTH_KEY = "length"  # packed-time: how many ticks, for the last byte may hold fewer than eight


@dataclass(frozen=True)
class SpikeKind:
    """How a kind of file stores spikes.

    suffixes: of its files; where two kinds share one, the first in the table is meant. Without a suffix of its own a
        kind is any file's, and does not tell its geometry.
    bottom_up: whether the bottom row is stored first, unless stated. in_bits: one bit a spike, else one byte.
    has_tags: whether rows may end in bits that are no pixels. size: (width, height) where the sensor is known.
    keys: of kinds that hold arrays by name, the name that is written for each order of axes; what datasets with these
        names mean by them. axes: the orders in which an array may lie, the first unless its name tells.
    """

    suffixes: tuple[str, ...] = ()
    bottom_up: bool = False
    in_bits: bool = False
    has_tags: bool = False
    size: tuple[int, int] | None = None
    keys: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    axes: tuple[str, ...] = ()


SPIKE_KINDS: Mapping[str, SpikeKind] = MappingProxyType(
    {
        "packed": SpikeKind(bottom_up=True, in_bits=True, has_tags=True),  # ticks of whole bytes
        "sps100": SpikeKind(in_bits=True, size=(1000, 1000)),  # half-rows with line tags
        "bytes": SpikeKind(),
        "npy": SpikeKind((".npy",), axes=AXES),
        "npz": SpikeKind((".npz",), axes=AXES, keys=MappingProxyType({"THW": "spk", "HWT": "arr_0"})),
        "packed-time": SpikeKind((".npz",), in_bits=True, keys=MappingProxyType({"THW": "seq"})),  # a byte: eight ticks
        "h5": SpikeKind((".h5", ".hdf5"), axes=AXES, keys=MappingProxyType({"THW": "raw_spike"})),
    }
)
KINDS = tuple(SPIKE_KINDS)
HEADERLESS = tuple(name for name, kind in SPIKE_KINDS.items() if not kind.suffixes)
KEYED = tuple(name for name, kind in SPIKE_KINDS.items() if kind.keys)
WITH_AXES = tuple(name for name, kind in SPIKE_KINDS.items() if kind.axes)
SUFFIX_KINDS = {suffix: name for name in reversed(KINDS) for suffix in SPIKE_KINDS[name].suffixes}
KEY_AXES = {key: axes for kind in SPIKE_KINDS.values() if kind.axes for axes, key in kind.keys.items()}
TIME_PACKED_KEY = SPIKE_KINDS["packed-time"].keys["THW"]
# What a file can be written as: a kind and, where they are not the usual ones, its tag bits and axes.
TARGETS: Mapping[str, tuple[str, int, str | None]] = MappingProxyType(
    {
        **{name: (name, 0, None) for name in KINDS},
        "packed-416": ("packed", 16, None),
        "npy-hwt": ("npy", 0, "HWT"),
        "npz-hwt": ("npz", 0, "HWT"),
    }
)


def kind_of(suffix: str) -> str:
    """The kind that a file's suffix tells; packed where it tells none."""
    return SUFFIX_KINDS.get(suffix.lower(), "packed")


FORMAT, VERSION = "spikevrt-recording", 1
STREAM_FORMAT, STREAM_VERSION = "spikevrt-spikes", 1
SIDECAR, SPIKE_FILE, BLUR_FOLDER, SHARP_FOLDER = "recording.json", "spikes.dat", "blur", "sharp"

BIT_ORDER = "lsb-first"
SPIKECV_CONFIG, MAX_CONFIG_BYTES = "config.yaml", 1 << 14
Rows = Literal["bottom-up", "top-down"]
ROWS: dict[bool, Rows] = {True: "bottom-up", False: "top-down"}


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file, complete or not at all."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def read_spikecv_config(path: Path) -> tuple[int, int]:
    """(width, height) of a SpikeCV dataset's config.yaml: the lines `spike_w: N` and `spike_h: N`.

    Only these lines are looked at: such a config is flat, and a YAML parser would follow whatever else stands there
    (PyYAML takes minutes for 16 kB of brackets). Raises ValueError when it does not say each of them once.
    """
    with open(path, "rb") as file:
        text = file.read(MAX_CONFIG_BYTES + 1)
    if len(text) > MAX_CONFIG_BYTES:
        raise ValueError(f"{path}: more than {MAX_CONFIG_BYTES} bytes; allowed: a SpikeCV config of fewer")
    width, height = (_whole_number(path, text, key) for key in ("spike_w", "spike_h"))
    return width, height


def _whole_number(path: Path, text: bytes, key: str) -> int:
    lines = re.findall(rf"^{key}[ \t]*:(.*)$", text.decode("utf-8", "replace"), re.MULTILINE)
    values = [re.fullmatch(r"[ \t]+([1-9][0-9]{0,6})[ \t]*(#.*)?\r?", line) for line in lines]
    if len(values) != 1 or values[0] is None:
        said = f"{lines[0].strip()[:80]!r}" if len(lines) == 1 else f"{len(lines)} lines of it"
        raise ValueError(f"{path}: {key}: {said}; allowed: one line with a whole number of pixels")
    return int(values[0][1])


@dataclass(frozen=True)
class Stated:
    """What the caller says of loose frames and of the spike file beside them, where no file tells; None: nothing."""

    spike_width: Annotated[int | None, "* spike columns (a packed file does not tell)"] = None
    spike_height: Annotated[int | None, "* spike rows"] = None
    top_down: Annotated[bool, "the first stored row is the top one"] = False
    tick_rate_hz: Annotated[float | None, "spike read-outs per second (20000)"] = None
    first_tick: Annotated[int | None, "tick at which the first exposure starts (0)"] = None
    exposure_ticks: Annotated[int | None, "* exposure of a frame (the period; the layout's)"] = None
    period_ticks: Annotated[int | None, "from frame to frame (all ticks over all frames)"] = None
    by_timestamps: Annotated[bool, "a video's own times say when exposures start"] = False
    linear: Annotated[bool, "images of more than 8 bits hold linear light (EXR: always)"] = False


NOTHING_STATED = Stated()


@dataclass(frozen=True)
class Exposure:
    """One frame's shutter: ticks [start_tick, stop_tick), which is [t0_s, t1_s) of the recording's clock.

    The sharp frame is that of the middle, or of `shift_ticks` after it.
    """

    frame_idx: int
    start_tick: int
    stop_tick: int
    t0_s: float
    t1_s: float
    shift_ticks: int = 0

    @property
    def num_ticks(self) -> int:
        return self.stop_tick - self.start_tick

    @property
    def window(self) -> tuple[int, int]:
        """Ticks [first, last) around the sharp frame, as many as the exposure has: what a network reads."""
        return self.start_tick + self.shift_ticks, self.stop_tick + self.shift_ticks

    @property
    def span(self) -> tuple[int, int]:
        """Ticks [first, last) of the exposure and the window together: `num_ticks` + |`shift_ticks`|."""
        return min(self.start_tick, self.window[0]), max(self.stop_tick, self.window[1])

    def is_inside(self, num_ticks: int) -> bool:
        """Whether it has ticks, and a stream of `num_ticks` has all of them."""
        return 0 <= self.start_tick < self.stop_tick <= num_ticks


def exposure_values(exposure: Exposure) -> dict[str, int | float]:
    """An entry of a sidecar's `exposures`; a shift of 0 is left out."""
    return {name: value for name, value in vars(exposure).items() if name != "shift_ticks" or value}


def check_exposures(sidecar: Path, exposures: Sequence[Exposure], num_ticks: int) -> None:
    """Raises ValueError unless the exposures are in order, do not overlap, and lie inside the stream."""
    if not exposures:
        raise ValueError(f"{sidecar}: no exposures")
    previous: Exposure | None = None
    for index, exposure in enumerate(exposures):
        window = f"ticks [{exposure.start_tick}, {exposure.stop_tick})"
        if not exposure.is_inside(num_ticks):
            raise ValueError(f"{sidecar}: exposures[{index}]: {window}; allowed: inside [0, {num_ticks}), not empty")
        if exposure.window[0] < 0 or exposure.window[1] > num_ticks:
            allowed = f"a window inside [0, {num_ticks})"
            raise ValueError(f"{sidecar}: exposures[{index}]: shift_ticks {exposure.shift_ticks}; allowed: {allowed}")
        if not exposure.t0_s < exposure.t1_s:
            raise ValueError(f"{sidecar}: exposures[{index}]: t0_s {exposure.t0_s} is not before t1_s {exposure.t1_s}")
        if previous is not None and exposure.start_tick < previous.stop_tick:
            raise ValueError(f"{sidecar}: exposures[{index}]: {window} begin before the exposure before it ends")
        if previous is not None and exposure.frame_idx <= previous.frame_idx:
            raise ValueError(f"{sidecar}: exposures[{index}]: frame_idx {exposure.frame_idx} is not in rising order")
        previous = exposure


def check_bad_pixels(pixels: Sequence[tuple[int, int]], height: int, width: int) -> None:
    """`spikes.bad_pixels` of a sidecar, (row, column) each. Raises ValueError for one outside the sensor."""
    for row, column in pixels:
        is_inside = 0 <= row < height and 0 <= column < width
        allowed = f"[row, column] inside {height} rows and {width} columns"
        require(is_inside, "spikes.bad_pixels", [row, column], allowed)
