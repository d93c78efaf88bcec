"""Which bytes a spike file holds: one description for every variant, where it comes from, and the stream it opens.

A file without a header does not tell its geometry. It is stated by the caller, by a sidecar (`<file>.json`), by the
recording.json of its folder or by a SpikeCV `config.yaml` beside it; it is never guessed.

Dimension key: T ticks, H sensor rows, W sensor columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from spikevrt.recording.arrays import (
    BYTES,
    ArrayStream,
    MappedArray,
    StoredArray,
    TimePackedStream,
    h5_keys,
    npz_keys,
    npz_number,
    open_h5,
    open_npy,
    open_npz,
)
from spikevrt.recording.sidecar import (
    AXES,
    FORMAT,
    HEADERLESS,
    KEY_AXES,
    LENGTH_KEY,
    ROWS,
    SIDECAR,
    SPIKECV_CONFIG,
    SPS100_HEIGHT,
    SPS100_WIDTH,
    STREAM_FORMAT,
    STREAM_VERSION,
    SUFFIX_KINDS,
    TIME_PACKED_KEY,
    VERSION,
    Rows,
    StreamFormat,
    kind_of,
    read_spikecv_config,
    write_json,
)
from spikevrt.recording.spike_file import SpikeGeometry, whole_ticks
from spikevrt.recording.stream import (
    PackedStream,
    SpikeStream,
    Sps100Stream,
)
from spikevrt.typed import amount, convert, load_json, naming, require, require_file_name

AN_OPTION = "an option"  # which contradicts a file


class UnknownGeometry(ValueError):
    """Nobody tells the geometry of a spike file that has no header."""


@dataclass(frozen=True, kw_only=True)
class StreamEntry:
    """The sidecar of a spike file: its format and what else is known. Raises ValueError for a format that is none."""

    kind: str = "packed"
    width: int | None = None
    height: int | None = None
    rows: Rows | None = None
    bit_order: Literal["lsb-first"] | None = None
    tag_bits: int | None = None
    key: str | None = None
    axes: str | None = None
    num_ticks: int
    tick_rate_hz: float | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        needed = ["rows", "bit_order"] if self.kind == "packed" else []
        for name in needed + (["width", "height"] if self.kind in HEADERLESS else []):
            if getattr(self, name) is None:
                raise ValueError(f"{name} is missing")
        if self.tick_rate_hz is not None:
            require(self.tick_rate_hz > 0, "tick_rate_hz", self.tick_rate_hz, "above 0")
        _ = self.format

    @cached_property
    def format(self) -> StreamFormat:
        return StreamFormat(self.kind, self.width, self.height, self.rows, self.tag_bits or 0, self.key, self.axes)


@dataclass(frozen=True, kw_only=True)
class RecordedStream(StreamEntry):
    """`spikes` of recording.json: the same, and the name of the file, which lies beside it."""

    file: str
    tick_rate_hz: float
    bad_pixels: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        require_file_name("file", self.file)
        super().__post_init__()


@dataclass(frozen=True)
class Found:
    """A file's format and who says so: the name of a sidecar or config, or "the file itself"."""

    format: StreamFormat
    source: str
    num_ticks: int | None = None
    tick_rate_hz: float | None = None
    sha256: str | None = None


def bytes_per_tick(format: StreamFormat) -> int:
    """Of a kind without header, whose width and height are known."""
    assert format.kind in HEADERLESS and format.width is not None and format.height is not None, format
    if format.kind == "sps100":
        return Sps100Stream(Path(), format.width, format.height).bytes_per_tick
    if format.kind == "bytes":
        return format.width * format.height
    return SpikeGeometry(format.width, format.height, format.is_bottom_up, format.tag_bits).bytes_per_tick


def is_headerless(path: Path) -> bool:
    """Whether a file of that suffix does not tell its geometry."""
    return Path(path).suffix.lower() not in SUFFIX_KINDS


def stream_sidecar_path(path: Path) -> Path:
    """car.dat.json of car.dat."""
    return path.with_name(f"{path.name}.json")


def find_format(path: Path, prefix: str = "") -> Found:
    """What is known of a spike file, from its sidecar, its recording.json, SpikeCV's config.yaml or itself. `prefix`:
    of the names by which the caller states width and height.

    Raises:
        FileNotFoundError: no such file.
        UnknownGeometry: nobody tells the geometry of a file without a header.
        ValueError: what tells it is damaged, or two that tell it contradict each other.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such spike file")
    tellers = _tellers(path)
    if not tellers:
        raise UnknownGeometry(
            f"{path}: a spike file without a header does not tell its geometry; state `{prefix}width` and "
            f"`{prefix}height`, or see what fits with: spikevrt inspect {path}"
        )
    for other in tellers[1:]:
        _refuse_contradiction(path, _said(tellers[0]), tellers[0].source, _said(other), other.source)
    return tellers[0]


def find_stated(path: Path, stated: dict[str, Any]) -> Found:
    """`find_format` where the caller states some fields of a `StreamFormat`: they fill what no other source states.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as `find_format`; or what is stated contradicts a sidecar, a recording.json or a config.yaml.
    """
    path = Path(path)
    if not path.is_file() or _tellers(path):
        found = find_format(path)
        _refuse_contradiction(path, stated, AN_OPTION, _said(found), found.source)
        if found.source not in ("the file itself", SPIKECV_CONFIG):
            return replace(found, format=replace(found.format, **stated))
    else:
        found = Found(StreamFormat(), "what was stated")
    known = {"width": found.format.width, "height": found.format.height} | stated
    return Found(StreamFormat(**{"kind": kind_of(path.suffix), **known}), "what was stated")


def refuse_named_by_recording(path: Path) -> None:
    """Raises FileExistsError where the recording.json beside a file names it: writing it would destroy a recording."""
    if _recorded(path) is not None:
        raise FileExistsError(f"{path}: {path.parent / SIDECAR} names it as its spikes; choose another name")


def open_stream(path: Path, format: StreamFormat | None = None) -> SpikeStream:
    """Open a spike file as upright ticks of 0 and 1; nothing is read but headers. None: `find_format` tells the format.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the geometry is not known, or the file contradicts what is said of it.
    """
    path = Path(path)
    found = find_format(path) if format is None else Found(format, "what was stated")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such spike file")
    stream = _open(path, found.format)
    size = (found.format.width or stream.width, found.format.height or stream.height)
    if size != (stream.width, stream.height):
        raise ValueError(f"{path}: {stream.width}x{stream.height} spikes, but {found.source} says {size[0]}x{size[1]}")
    num_ticks = stream.num_ticks  # of a file without a header, from its size, which is checked here
    if found.num_ticks is not None and found.num_ticks != num_ticks:
        raise ValueError(f"{path}: {amount(num_ticks, 'tick')}, but {found.source} says {found.num_ticks}")
    return stream


def write_stream_sidecar(
    path: Path, format: StreamFormat, *, num_ticks: int, tick_rate_hz: float | None = None, sha256: str
) -> Path:
    """Write <file>.json beside a spike file, which from then on tells what it holds. Returns its path."""
    sidecar = stream_sidecar_path(Path(path))
    values = {"format": STREAM_FORMAT, "version": STREAM_VERSION, **format.values()}
    write_json(sidecar, values | {"num_ticks": num_ticks, "tick_rate_hz": tick_rate_hz, "sha256": sha256})
    return sidecar


def _tellers(path: Path) -> list[Found]:
    """The sources that describe a file, in the order of precedence."""
    tellers = []
    sidecar, spikes, config = stream_sidecar_path(path), _recorded(path), path.parent / SPIKECV_CONFIG
    if sidecar.is_file():
        with naming(sidecar):
            entry = convert(load_json(sidecar, STREAM_FORMAT, STREAM_VERSION), StreamEntry)
        tellers.append(_found(entry, sidecar.name))
    if spikes is not None:
        tellers.append(_found(spikes, SIDECAR))
    if not is_headerless(path):
        tellers.append(Found(StreamFormat(kind_of(path.suffix)), "the file itself"))
    elif config.is_file():
        try:
            width, height = read_spikecv_config(config)
            tellers.append(Found(StreamFormat("packed", width, height), SPIKECV_CONFIG))
        except ValueError:
            if not tellers:  # where others tell, it may be any program's config
                raise
    return tellers


def _recorded(path: Path) -> RecordedStream | None:
    """What the recording.json of its folder says of a file; None when there is none, or it names another file."""
    recording = path.parent / SIDECAR
    if not recording.is_file():
        return None
    with naming(recording):
        spikes = convert(load_json(recording, FORMAT, VERSION).get("spikes"), RecordedStream, "spikes")
    return spikes if spikes.file == path.name else None


def _said(found: Found) -> dict[str, Any]:
    """Only what is stated; what follows from a kind or a suffix is left out."""
    format = found.format
    if found.source == "the file itself":
        return {}
    if found.source == SPIKECV_CONFIG:
        return {"width": format.width, "height": format.height}
    also = {"num_ticks": found.num_ticks, "tick_rate_hz": found.tick_rate_hz, "sha256": found.sha256}
    return vars(format) | {"rows": ROWS[format.is_bottom_up]} | also


def _refuse_contradiction(path: Path, a: dict[str, Any], a_name: str, b: dict[str, Any], b_name: str) -> None:
    for name, value in a.items():
        other = b.get(name)
        if value is not None and other is not None and value != other:
            shown = f"`{name}`" if a_name == AN_OPTION else name
            raise ValueError(
                f"{path}: {shown}: {a_name} says {value}, {b_name} says {other}; allowed: the same, or delete the one "
                f"that is wrong"
            )


def _found(entry: StreamEntry, source: str) -> Found:
    return Found(entry.format, source, entry.num_ticks, entry.tick_rate_hz, entry.sha256)


def _open(path: Path, format: StreamFormat) -> SpikeStream:
    if format.kind == "sps100":
        return Sps100Stream(path, format.width or SPS100_WIDTH, format.height or SPS100_HEIGHT)
    if format.kind in HEADERLESS:
        if format.width is None or format.height is None:
            raise ValueError(
                f"{path}: `width` and `height` are needed, for a {format.kind} file does not know its size"
            )
        geometry = SpikeGeometry(format.width, format.height, format.is_bottom_up, format.tag_bits)
        if format.kind == "packed":
            return PackedStream(path, geometry)
        return ArrayStream(_raw_bytes(path, geometry, bytes_per_tick(format)), bottom_up=format.is_bottom_up)
    if format.kind == "npy":
        return ArrayStream(open_npy(path), format.axes or AXES[0], format.is_bottom_up)
    key = format.key or _known_key(path, format)
    if format.kind == "packed-time" or (format.kind == "npz" and key == TIME_PACKED_KEY):
        return _time_packed(path, key, format.is_bottom_up)
    array: StoredArray = open_npz(path, key) if format.kind == "npz" else open_h5(path, key)
    axes = format.axes or KEY_AXES.get(key) or ("THW" if format.kind == "h5" else None)
    if axes is None:
        raise ValueError(f"{path}: {key} {array.shape} does not tell its axes; state `axes`: {', '.join(AXES)}")
    return ArrayStream(array, axes, format.is_bottom_up)


def _raw_bytes(path: Path, geometry: SpikeGeometry, tick: int) -> MappedArray:
    num_ticks = whole_ticks(str(path), path.stat().st_size, geometry, tick)
    if num_ticks == 0:
        raise ValueError(f"{path}: an empty spike file")
    return MappedArray(path, (num_ticks, geometry.height, geometry.width))


def _known_key(path: Path, format: StreamFormat) -> str:
    """The array that is meant where none is named: one of the known names, else the only one there is."""
    if format.kind == "packed-time":
        return TIME_PACKED_KEY
    keys = npz_keys(path) if format.kind == "npz" else h5_keys(path)
    known = [key for key in keys if key in KEY_AXES or (key == TIME_PACKED_KEY and format.kind == "npz")]
    if len(known) == 1 or len(keys) == 1:
        return (known or keys)[0]
    if not keys:
        raise ValueError(f"{path}: holds no array of three axes of numbers; allowed: spikes of rows, columns and ticks")
    listed = ", ".join(keys[:8]) + (", ..." if len(keys) > 8 else "")
    raise ValueError(f"{path}: holds {' '.join(listed.split())[:200]}; state which one is meant with `key`")


def _time_packed(path: Path, key: str, bottom_up: bool) -> TimePackedStream:
    planes = open_npz(path, key, BYTES)
    num_planes = planes.shape[0]
    num_ticks = npz_number(path, LENGTH_KEY)
    num_ticks = 8 * num_planes if num_ticks is None else num_ticks
    if not 8 * (num_planes - 1) < num_ticks <= 8 * num_planes:
        raise ValueError(
            f"{path}: {LENGTH_KEY} {num_ticks}; allowed: {8 * num_planes - 7} to {8 * num_planes}, for it has "
            f"{amount(num_planes, 'plane')}"
        )
    return TimePackedStream(planes, num_ticks, bottom_up)
