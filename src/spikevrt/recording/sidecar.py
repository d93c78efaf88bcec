"""What a recording.json and a spike file's sidecar say: the spike formats that there are, the exposures, their words.

Nothing here loads torch or NumPy, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from spikevrt.atomic import write_text
from spikevrt.typed import require

AXES = ("THW", "HWT")
SPS100_WIDTH, SPS100_HEIGHT = 1000, 1000
TICK_RATE_HZ = 20000.0  # of a spike camera, where nobody tells it
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
        "sps100": SpikeKind(in_bits=True, size=(SPS100_WIDTH, SPS100_HEIGHT)),  # half-rows with line tags
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
class StreamFormat:
    """One description of a spike file's bytes.

    kind: one of `SPIKE_KINDS`.
    width, height: pixels; must be known for files without a header, are compared with what the others say.
    rows: None: as usual for the kind.
    tag_bits: packed only (16 in 416-wide rows of 400 pixels).
    key: npz, packed-time and h5. None: the names that are known, or the only one.
    axes: arrays. None: as the known names mean it; .npy and .h5: THW.
    """

    kind: Annotated[str, "how the spikes are stored, unless the suffix tells", KINDS] = "packed"
    width: Annotated[int | None, "spike columns, without tag bits"] = None
    height: Annotated[int | None, "spike rows"] = None
    rows: Annotated[Rows | None, f"order of the rows (packed: {ROWS[SPIKE_KINDS['packed'].bottom_up]})"] = None
    tag_bits: Annotated[int, "bits behind the pixels of each packed row"] = 0
    key: Annotated[str | None, "array of an .npz or .h5 file"] = None
    axes: Annotated[str | None, "order of an array's axes", AXES] = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind: {self.kind!r}; allowed: {', '.join(KINDS)}")
        for name, value in (("width", self.width), ("height", self.height)):
            if value is not None and value < 1:
                raise ValueError(f"{name}: {value}; allowed: 1 or more")
        if self.kind == "sps100":
            check_sps100_size(self.width or SPS100_WIDTH, self.height or SPS100_HEIGHT)
            if self.rows == ROWS[True]:
                raise ValueError("rows: bottom-up; allowed for sps100: top-down")
        if (self.tag_bits and not SPIKE_KINDS[self.kind].has_tags) or self.tag_bits < 0:
            raise ValueError(f"tag_bits: {self.tag_bits}; allowed: 0, for packed streams 0 or more")
        if self.key is not None and self.kind not in KEYED:
            raise ValueError(f"key: {self.key!r}; allowed: only for {_listed(KEYED)}")
        if self.key is not None and not (self.key and self.key.isprintable()):
            raise ValueError(f"key: {self.key[:80]!r}; allowed: the name of an array")
        if self.axes is not None and (self.axes not in AXES or self.kind not in WITH_AXES):
            raise ValueError(f"axes: {self.axes!r}; allowed: {', '.join(AXES)}, only for {_listed(WITH_AXES)}")

    @property
    def is_bottom_up(self) -> bool:
        return SPIKE_KINDS[self.kind].bottom_up if self.rows is None else self.rows == ROWS[True]

    def values(self) -> dict[str, Any]:
        """What a sidecar holds of it."""
        found = {"kind": self.kind, "width": self.width, "height": self.height, "rows": ROWS[self.is_bottom_up]}
        if SPIKE_KINDS[self.kind].in_bits:
            found["bit_order"] = BIT_ORDER
        found |= {"tag_bits": self.tag_bits} if self.tag_bits else {}
        return found | {name: value for name, value in (("key", self.key), ("axes", self.axes)) if value is not None}

    def describe(self) -> str:
        size = f", {self.width} x {self.height}" if self.width and self.height else ""
        tags = f", {self.tag_bits} tag bits a row" if self.tag_bits else ""
        which = "".join(f", {name} {value}" for name, value in (("key", self.key), ("axes", self.axes)) if value)
        return f"{self.kind}{size}, rows {ROWS[self.is_bottom_up]}{tags}{which}"


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def check_sps100_size(width: int, height: int) -> None:
    """Raises ValueError for a size that the half-rows cannot carry."""
    highest = 2 * 0x3FF
    if width != SPS100_WIDTH or height % 2 or not 2 <= height <= highest:
        raise ValueError(
            f"sps100: {width}x{height}; allowed: {SPS100_WIDTH} columns, and 2 to {highest} rows, an even number"
        )


@dataclass(frozen=True)
class Stated:
    """What the caller says of loose frames and of the spike file beside them, where no file tells; None: nothing.

    `recording.timing` says how times are read. Rational values may be whole numbers, decimals or fractions.
    """

    spike_kind: Annotated[str | None, "how the spikes are stored (its suffix tells, else packed)", KINDS] = None
    spike_width: Annotated[int | None, "* spike columns (a packed file does not tell)"] = None
    spike_height: Annotated[int | None, "* spike rows"] = None
    spike_tag_bits: Annotated[int | None, "bits behind the pixels of each packed row (0)"] = None
    spike_key: Annotated[str | None, "array of an .npz or .h5 file"] = None
    spike_axes: Annotated[str | None, "order of an array's axes", AXES] = None
    top_down: Annotated[bool, "the first stored row is the top one"] = False
    tick_rate_hz: Annotated[float | None, f"read-outs per second (the file's, else {TICK_RATE_HZ:g})", "HZ"] = None
    first_tick: Annotated[int | None, "tick at which the first exposure starts (the stream's first)"] = None
    exposure: Annotated[str | None, "6.4ms, 1/125s, 180deg, 50% of the period, 128ticks (estimated)", "TIME"] = None
    exposure_ticks: Annotated[int | None, "* the same in ticks"] = None
    period_ticks: Annotated[Fraction | None, "from frame to frame (by the video's times, else --fps)", "TICKS"] = None
    fps: Annotated[Fraction | None, "frames a second, as 30 or 30000/1001 (the video's)", "RATE"] = None
    by_counting: Annotated[bool, "--period-ticks or --fps holds, whatever a video's own times say"] = False
    timestamps: Annotated[Path | None, "table of the frames' times (docs/recording.md)", "CSV"] = None
    triggers: Annotated[Path | None, "ticks at which exposures start, or a channel of 0 and 1", "FILE"] = None
    readout: Annotated[str | None, "rolling shutter: from the first row's start to the last's (0)", "TIME"] = None
    unchecked: Annotated[bool, "the exposure is as stated, whatever the footage says"] = False
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
        """Whether it has ticks, and a stream of `num_ticks` has all of them and of the window."""
        return self.num_ticks > 0 and self.span[0] >= 0 and self.span[1] <= num_ticks


def exposure_values(exposure: Exposure) -> dict[str, int | float]:
    """An entry of a sidecar's `exposures`; a shift of 0 is left out."""
    return {name: value for name, value in vars(exposure).items() if name != "shift_ticks" or value}


def check_exposures(sidecar: Path, exposures: Sequence[Exposure]) -> None:
    """Raises ValueError unless the exposures have ticks, are in order, and do not overlap."""
    if not exposures:
        raise ValueError(f"{sidecar}: no exposures")
    previous: Exposure | None = None
    for index, exposure in enumerate(exposures):
        window = f"ticks [{exposure.start_tick}, {exposure.stop_tick})"
        if exposure.num_ticks < 1:
            raise ValueError(f"{sidecar}: exposures[{index}]: {window}; allowed: at least one tick")
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
