"""When each frame was exposed, in ticks of the spike stream: by a video's timestamps, the numbers in image names, a
table, a trigger, or by counting; and how long, in the units that people have.

Times are rational numbers until the last step, so that nothing drifts: 29.97 frames a second are 30000/1001.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from spikevrt.recording.sidecar import Exposure, Stated
from spikevrt.recording.video import VideoInfo
from spikevrt.typed import amount

UNITS_S = {"s": Fraction(1), "ms": Fraction(1, 10**3), "us": Fraction(1, 10**6), "ns": Fraction(1, 10**9)}
TICKS = ("ticks", "tick")
SHARES = {"deg": Fraction(1, 360), "%": Fraction(1, 100)}  # of the period
TIME_WORDS = "a time with its unit: 6.4ms, 1/125s, 180deg, 50%, 128ticks (s, ms, us, ns, deg, %, ticks)"
MOST_OUTSIDE = 0.5  # of the frames; with more, the times are wrong


@dataclass(frozen=True)
class FrameTimes:
    """When the shutter opens for each frame, in ticks: of the stream with `is_absolute`, else after the first frame.

    `numbers` rise; where one is left out a frame is missing. `lengths`: how long it stays open, where that is told.
    `period`: ticks from frame to frame; of uneven times the median. None: nobody tells that of a single frame.
    """

    numbers: tuple[int, ...]
    starts: tuple[Fraction, ...]
    lengths: tuple[Fraction, ...] | None = None
    is_absolute: bool = False
    period: Fraction | None = None
    notes: dict[str, str] = field(default_factory=dict)


def median_step(numbers: Sequence[int], starts: Sequence[Fraction]) -> Fraction | None:
    """Ticks from frame to frame, the median of all steps, each over the numbers that it spans; None: one frame."""
    pairs = itertools.pairwise(zip(numbers, starts, strict=True))
    steps = sorted((b - a) / (n - m) for (m, a), (n, b) in pairs)
    return steps[len(steps) // 2] if steps else None


def counted(numbers: Sequence[int], period: Fraction, notes: dict[str, str] | None = None) -> FrameTimes:
    """Frames that follow each other every `period` ticks."""
    return FrameTimes(tuple(numbers), tuple(n * period for n in numbers), period=period, notes=notes or {})


def rational(value: float | Fraction) -> Fraction:
    """The number that was written: 0.1 is a tenth."""
    return value if isinstance(value, Fraction) else Fraction(str(value))


def read_time(name: str, text: str, rate_hz: Fraction, period: Fraction | None) -> Fraction:
    """Ticks of a time such as "6.4ms", "1/125s", "180deg" (of the period from frame to frame) or "128ticks". Raises
    ValueError: another text, a time that is not above 0, or a share of a period that nobody knows."""
    match = re.fullmatch(r"\s*([0-9.]+(?:/[0-9.]+)?)\s*([a-zµ°%]*)\s*", text.lower())
    try:
        number = Fraction(0) if match is None else _quotient(match[1])
    except (ValueError, ZeroDivisionError):
        number = Fraction(0)
    unit = "" if match is None else match[2].replace("µ", "u").replace("°", "deg").replace("sec", "s")
    if match is not None and not unit and "/" in match[1]:
        unit = "s"  # 1/125, as on a camera
    if number > 0 and unit in UNITS_S:
        return number * UNITS_S[unit] * rate_hz
    if number > 0 and unit in TICKS:
        return number
    if number > 0 and unit in SHARES:
        if period is None:
            raise ValueError(f"{name}: {text!r} of a period that a single frame does not tell; allowed: ms, s, ticks")
        return number * SHARES[unit] * period
    raise ValueError(f"{name}: {text!r}; allowed: {TIME_WORDS}")


def _quotient(text: str) -> Fraction:
    above, _, below = text.partition("/")
    return Fraction(above) / Fraction(below or "1")


def video_times(path: Path, info: VideoInfo, rate_hz: Fraction, stated: Stated) -> FrameTimes:
    """By the timestamps of a video, or by counting; a stated period or rate must be that of the timestamps. Raises
    ValueError: a period or rate that the timestamps contradict; counting without either."""
    numbers = tuple(range(info.num_frames))
    stated_period = _stated_period(stated, rate_hz)
    if stated.by_counting:
        if stated_period is None:
            raise ValueError("by_counting: needs `period_ticks` or `fps`")
        return counted(numbers, stated_period)
    unit = info.time_base * rate_hz
    starts = tuple((pts - info.pts[0]) * unit for pts in info.pts)
    if stated_period is None:
        period = rate_hz / rational(info.fps) if len(starts) == 1 else median_step(numbers, starts)
        return FrameTimes(numbers, starts, period=period)
    off = max(abs(start - n * stated_period) for n, start in zip(numbers, starts, strict=True))
    if off > max(unit, Fraction(1)):
        name = "fps" if stated.period_ticks is None else "period_ticks"
        spacing = float(starts[-1] / (len(starts) - 1))
        raise ValueError(
            f"{name}: {getattr(stated, name)}, but the timestamps of {path} put its frames {spacing:.2f} ticks apart "
            f"({info.fps:.6g} a second, at {float(rate_hz):g} Hz); allowed: without it, or with `by_counting`"
        )
    return counted(numbers, stated_period)  # which rounded timestamps only approach


def image_times(images: Sequence[Path], rate_hz: Fraction, stated: Stated, stream_ticks: int) -> FrameTimes:
    """By the numbers in the names of images, and a period; without one, the stream is split equally over the frames."""
    numbers, notes = frame_numbers(images)
    if stated.by_counting and _stated_period(stated, rate_hz) is None:
        raise ValueError("by_counting: needs `period_ticks` or `fps`")
    period = _stated_period(stated, rate_hz)
    if period is None:
        length = stream_ticks - (stated.first_tick or 0)
        period = Fraction(length, numbers[-1] + 1)
        if period < 1:
            told = f"{images[0].parent}: by name the images span {numbers[-1] + 1} frames, the stream {length} ticks"
            raise ValueError(f"{told}; allowed: names that count frames, or `timestamps`, where they are times")
        if len(numbers) > 1:
            told = f"{length} ticks, split equally over {numbers[-1] + 1} frames, one every {_decimal(period)} ticks"
            rate = f"{float(rate_hz / period):.6g} a second"
            notes["period"] = f"no frame rate is stated: {told} ({rate}); `fps` or `period_ticks` states another"
    return counted(numbers, period, notes)


def frame_numbers(images: Sequence[Path]) -> tuple[tuple[int, ...], dict[str, str]]:
    """The place of each image among the frames, from 0, by the last number in its name; and what there is to say.

    The least step between two numbers is that of neighbouring frames where all steps are multiples of it. Names that do
    not all carry a number behind the same text are taken in their order.
    """
    found = [re.fullmatch(r"(.*?)([0-9]+)([^0-9]*)", image.stem) for image in images]
    matches = [match for match in found if match is not None]
    is_series = len(matches) == len(images) and len({match[1] for match in matches}) == 1
    named = [int(match[2]) for match in matches] if is_series else list(range(len(images)))
    steps = [after - before for before, after in itertools.pairwise(named)]
    if not is_series or any(step < 1 for step in steps):
        told = "the images' names carry no common numbers: they follow each other in the order of names"
        return tuple(range(len(images))), {"numbers": told}
    least = math.gcd(*steps) if steps else 1
    numbers = tuple((number - named[0]) // least for number in named)
    count = numbers[-1] + 1 - len(numbers)
    if not count:
        return numbers, {}
    missing = [n * least + named[0] for n in sorted(set(range(numbers[-1] + 1)[:100_000]) - set(numbers))]
    listed = ", ".join(map(str, missing[:5])) + (", ..." if count > 5 else "")
    note = f"{count} {'number is' if count == 1 else 'numbers are'} missing among the images ({listed}); "
    return numbers, {"numbers": note + "the frames behind keep their times"}


def expose(
    times: FrameTimes, stated: Stated, rate_hz: Fraction, stream_ticks: int, stream_name: str
) -> tuple[tuple[Exposure, ...], dict[str, str]]:
    """The exposures, each of whole ticks, and what was assumed or is worth knowing, by what it is about.

    Exposures that the stream does not cover are among them, as long as they are the fewer. Raises ValueError: times
    that contradict each other, the stream or what is stated.
    """
    notes = dict(times.notes)
    first = stated.first_tick or 0
    if times.is_absolute and stated.first_tick is not None:
        raise ValueError(
            f"first_tick: {first}, but the frames' times are ticks of the stream already; allowed: without it"
        )
    if not times.is_absolute and stated.first_tick is None:
        notes["first tick"] = (
            "the first exposure is taken to start with the stream; `first_tick` states it, `spikevrt align` finds it"
        )
    starts = [first * (not times.is_absolute) + round(start) for start in times.starts]
    steps = [after - before for before, after in itertools.pairwise(starts)]
    if steps and min(steps) < 1:
        at = steps.index(min(steps))
        names = f"frames {times.numbers[at]} and {times.numbers[at + 1]}"
        raise ValueError(
            f"tick_rate_hz: {float(rate_hz):g}; {names} would start at the same tick; allowed: a higher one"
        )
    lengths = _lengths(times, stated, rate_hz, min(steps, default=stream_ticks - starts[0]), notes)
    exposures = tuple(
        Exposure(number, start, start + length, start / float(rate_hz), (start + length) / float(rate_hz))
        for number, start, length in zip(times.numbers, starts, lengths, strict=True)
    )
    for before, after in itertools.pairwise(exposures):
        if after.start_tick < before.stop_tick:
            raise ValueError(
                f"exposure: frame {before.frame_idx} is exposed beyond the start of the next; allowed: less"
            )
    note = stream_note(exposures, float(rate_hz), stream_ticks, stream_name)
    return exposures, notes if note is None else {**notes, "stream": note}


def _lengths(times: FrameTimes, stated: Stated, rate_hz: Fraction, most: int, notes: dict[str, str]) -> list[int]:
    """Ticks of each exposure. `most`: from the start of a frame to that of the next, at the least."""
    period, num = times.period, len(times.starts)
    given = [name for name in ("exposure", "exposure_ticks") if getattr(stated, name) is not None]
    if len(given) == 2 or (given and times.lengths is not None):
        raise ValueError(f"{given[0]}: {getattr(stated, given[0])}, but it is told elsewhere, too; allowed: once")
    if times.lengths is not None:
        found = [round(length) for length in times.lengths]
        if min(found) < 1:
            at = found.index(min(found))
            raise ValueError(f"exposure: frame {times.numbers[at]} lasts {found[at]} ticks; allowed: 1 or more")
        return found
    if not given:
        ticks = most if period is None else max(1, min(most, int(period)))
        notes["exposure"] = (
            f"how long a frame is exposed is not stated: {amount(ticks, 'tick')}, as if the shutter never closed; "
            f"`exposure` states it ({float(ticks / rate_hz) * 500:.3g}ms would be half of that)"
        )
        return [ticks] * num
    name = given[0]
    length = Fraction(stated.exposure_ticks or 0)
    if stated.exposure is not None:
        length = read_time("exposure", stated.exposure, rate_hz, period)
    ticks = round(length)
    if num > 1 and ticks == most + 1 and length <= min(b - a for a, b in itertools.pairwise(times.starts)):
        ticks = most  # a shutter that never closes, and starts that are rounded
    if not 1 <= ticks <= most:
        told = "" if stated.exposure is None else f" ({ticks} ticks)"
        why = f"; the frames are at least {amount(most, 'tick')} apart" if num > 1 else ""
        if "period" in times.notes:
            why = f"; images without `fps`: the stream split equally gives {amount(most, 'tick')} from frame to frame"
        raise ValueError(f"{name}: {getattr(stated, name)}{told}; allowed: 1 to {amount(most, 'tick')}{why}")
    return [ticks] * num


def named_stream(path: Path, num_ticks: int, readout_ticks: int) -> str:
    """A spike file as `stream_note` names it: what a rolling shutter takes of its ticks is not missing in the file."""
    return f"{path}, without {readout_ticks} of {num_ticks} ticks for `readout`," if readout_ticks else str(path)


def stream_note(exposures: Sequence[Exposure], rate_hz: float, stream_ticks: int, name: str) -> str | None:
    """What the stream does not cover of the frames, or has besides; None: nothing to speak of. Raises ValueError: most
    frames lie outside."""
    first, last = exposures[0], exposures[-1]
    outside = [one.frame_idx for one in exposures if not one.is_inside(stream_ticks)]
    lie = f"{len(outside)} of {len(exposures)} frames {'lies' if len(outside) == 1 else 'lie'} outside"
    told = (
        f"{name} has {stream_ticks} ticks ({stream_ticks / rate_hz:.4g} s at {rate_hz:g} a second), the frames lie at "
        f"ticks {first.start_tick} to {last.stop_tick} ({(last.stop_tick - first.start_tick) / rate_hz:.4g} s)"
    )
    if len(outside) > MOST_OUTSIDE * len(exposures):
        raise ValueError(
            f"{told}: {lie}; allowed: the times of the same footage "
            "(`tick_rate_hz`, `first_tick`; or `fps` with `by_counting`, where a video plays slower than it was filmed)"
        )
    step = exposures[1].start_tick - first.start_tick if len(exposures) > 1 else first.num_ticks
    if outside:
        return f"{told}: {lie}, without spikes"
    if stream_ticks - last.stop_tick > step:
        return f"{told}: not used: {amount(stream_ticks - last.stop_tick, 'tick')} behind the last frame"
    return None


def _stated_period(stated: Stated, rate_hz: Fraction) -> Fraction | None:
    """Ticks from frame to frame, where they are stated."""
    if stated.period_ticks is not None and stated.fps is not None:
        raise ValueError(f"fps: {stated.fps}, and period_ticks {stated.period_ticks}; allowed: one of the two")
    for name in ("period_ticks", "fps"):
        value = getattr(stated, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name}: {value}; allowed: above 0")
    if stated.period_ticks is not None:
        period = rational(stated.period_ticks)
        if period < 1:
            raise ValueError(f"period_ticks: {stated.period_ticks}; allowed: 1 or more")
        return period
    return None if stated.fps is None else rate_hz / rational(stated.fps)


def _decimal(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.6g}"
