"""When frames were exposed, from a file: a table of times, the ticks of a trigger, or a trigger's channel."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from spikevrt.recording.timing import UNITS_S, FrameTimes, median_step
from spikevrt.typed import amount

MAX_TABLE_BYTES = 1 << 26
TABLE_WORDS = (
    "a header with start_s (or _ms, _us, _ns, _tick), and perhaps frame (the number of an image or frame, from 0) and "
    "exposure_s or stop_s (or with these other units)"
)


def table_times(path: Path, numbers: Sequence[int], rate_hz: Fraction) -> FrameTimes:
    """By a table (CSV with a header): when each frame starts and perhaps how long it is exposed or when it stops.

    Raises:
        FileNotFoundError: no such table.
        ValueError: another header, a cell that is no number, or rows that are not those of the frames.
    """
    rows = _rows(path)
    header = [cell.strip().lower() for cell in rows[0]]
    columns = {name: _column(path, header, name) for name in ("start", "exposure", "stop")}
    start = columns["start"]
    if start is None or (columns["exposure"] is not None and columns["stop"] is not None):
        raise ValueError(f"{path}: columns {', '.join(header)[:200]!r}; allowed: {TABLE_WORDS}")
    told: dict[int, tuple[Fraction, Fraction | None]] = {}
    for line, row in enumerate(rows[1:], start=2):
        cells = {name: _cell(path, line, row, at) for name, at in columns.items() if at is not None}
        number = line - 2
        if "frame" in header:
            at_frame = _cell(path, line, row, (header.index("frame"), None))
            if at_frame.denominator != 1 or int(at_frame) in told:
                raise ValueError(f"{path}, line {line}: frame {at_frame}; allowed: each whole number once")
            number = int(at_frame)
        opened = _ticks(cells["start"], start[1], rate_hz)
        length = None
        if columns["exposure"] is not None:
            length = _ticks(cells["exposure"], columns["exposure"][1], rate_hz)
        if columns["stop"] is not None:
            length = _ticks(cells["stop"], columns["stop"][1], rate_hz) - opened
        told[number] = opened, length
    has_numbers = "frame" in header
    if not has_numbers and len(told) != len(numbers):
        lines, frames = amount(len(told), "row"), amount(len(numbers), "frame")
        raise ValueError(f"{path}: {lines} for {frames}; allowed: a row each, or a column frame")
    if has_numbers and (absent := [number for number in numbers if number not in told]):
        raise ValueError(f"{path}: no row for frame {absent[0]}; allowed: a row for each frame")
    chosen = [told[number if has_numbers else at] for at, number in enumerate(numbers)]
    starts = [opened for opened, _ in chosen]
    for at, (before, after) in enumerate(itertools.pairwise(starts), start=1):
        if after <= before:
            raise ValueError(f"{path}: frame {numbers[at]} does not start after the one before; allowed: rising times")
    is_absolute = start[1] is None
    lengths = tuple(length for _, length in chosen if length is not None) or None
    first = Fraction(0) if is_absolute else starts[0]
    period = median_step(numbers, starts)
    return FrameTimes(tuple(numbers), tuple(one - first for one in starts), lengths, is_absolute, period)


def _rows(path: Path) -> list[list[str]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such table of times")
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size} bytes; allowed: a table of at most {MAX_TABLE_BYTES}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a table; allowed: CSV, {TABLE_WORDS}") from None
    first = next((line for line in text.splitlines() if line.strip()), "")
    mark = max((",", ";", "\t"), key=first.count)
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=mark) if any(cell.strip() for cell in row)]
    if len(rows) < 2:
        raise ValueError(f"{path}: a table without rows; allowed: {TABLE_WORDS}")
    return rows


def _column(path: Path, header: list[str], name: str) -> tuple[int, Fraction | None] | None:
    """The place of a column and its unit in seconds, None for ticks; None where there is no such column."""
    units: dict[str, Fraction | None] = {**UNITS_S, "tick": None, "ticks": None}
    found = [(at, units[unit]) for at, cell in enumerate(header) for unit in units if cell == f"{name}_{unit}"]
    if len(found) > 1:
        raise ValueError(f"{path}: two columns for {name}; allowed: one")
    return found[0] if found else None


def _cell(path: Path, line: int, row: list[str], column: tuple[int, Fraction | None]) -> Fraction:
    text = row[column[0]].strip() if column[0] < len(row) else ""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{path}, line {line}: {text[:40]!r}; allowed: a number") from None


def _ticks(value: Fraction, unit_s: Fraction | None, rate_hz: Fraction) -> Fraction:
    return value if unit_s is None else value * unit_s * rate_hz


def trigger_times(path: Path, numbers: Sequence[int], stream_ticks: int) -> FrameTimes:
    """By a trigger: one tick per frame at which its exposure starts; or a channel, 0 or 1 for each tick of the stream,
    high while the shutter is open. Text (a number a line) or .npy.

    Raises:
        FileNotFoundError: no such file.
        ValueError: numbers that are neither, or not as many pulses as frames.
    """
    values = _numbers(path)
    is_channel = len(values) == stream_ticks and set(values) <= {0, 1}
    if is_channel:
        level = [0, *values, 0]
        edges = [at for at, (before, after) in enumerate(itertools.pairwise(level)) if before != after]
        starts, stops = edges[::2], edges[1::2]
    else:
        starts, stops = values, []
    if len(starts) != numbers[-1] + 1:
        what, frames = "pulses" if is_channel else "ticks", amount(numbers[-1] + 1, "frame")
        channel = f"; or a channel of {amount(stream_ticks, 'value')} of 0 and 1"
        raise ValueError(f"{path}: {len(starts)} {what} for {frames}; allowed: one each{channel}")
    if any(after <= before for before, after in itertools.pairwise(starts)):
        raise ValueError(f"{path}: ticks that do not rise; allowed: rising ones")
    chosen = tuple(Fraction(starts[number]) for number in numbers)
    lengths = tuple(Fraction(stops[number] - starts[number]) for number in numbers) if stops else None
    return FrameTimes(tuple(numbers), chosen, lengths, True, median_step(numbers, chosen))


def _numbers(path: Path) -> list[int]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of triggers")
    if path.suffix.lower() == ".npy":
        from spikevrt.recording.arrays import load_npy  # with NumPy, which options do not need

        array = load_npy(path)
        if array.ndim != 1 or array.dtype.kind not in "bui":
            raise ValueError(f"{path}: {array.dtype} of shape {array.shape}; allowed: whole numbers in a row")
        return [int(value) for value in array]
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size} bytes; allowed: at most {MAX_TABLE_BYTES}")
    try:
        return [int(word) for word in re.split(r"[\s,;]+", path.read_text(encoding="utf-8-sig")) if word]
    except ValueError:
        raise ValueError(f"{path}: not a list of ticks; allowed: whole numbers, one a line, or .npy") from None
