"""What a path holds, told in plain lines: a recording, spikes of any format, a dataset folder, images or a video.

A spike file whose geometry nobody tells is not opened: every reading that fits is listed (`geometry`), a person
confirms one by its number, and a sidecar beside the file keeps the answer.

Dimension key: h sensor rows, w sensor columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spikevrt.align.defects import Scan, find_dead, find_hot, scan
from spikevrt.align.describe import (
    STATED,
    alignment_words,
    draw_preview,
    draw_readings,
    exposure_words,
    folder_lines,
    footage_lines,
    packed_words,
    sharp_words,
    stream_line,
)
from spikevrt.align.geometry import Reading, list_readings, read_frame, row_correlation
from spikevrt.align.health import HealthReport, check_health
from spikevrt.align.settings import HALF_WINDOW_TICKS, InspectOptions
from spikevrt.formats.layouts import NO_OPTIONS, find_layout
from spikevrt.progress import progress_bar
from spikevrt.recording.alignment import Alignment
from spikevrt.recording.frames import IMAGE_SUFFIXES, list_images
from spikevrt.recording.recording import Recording, open_recording, recordings_in
from spikevrt.recording.sidecar import SIDECAR, SPIKECV_CONFIG, TICK_RATE_HZ, StreamFormat
from spikevrt.recording.spike_file import sha256_file, sha256_files
from spikevrt.recording.spike_formats import (
    Found,
    UnknownGeometry,
    find_format,
    open_stream,
    stream_sidecar_path,
    write_stream_sidecar,
)
from spikevrt.recording.stream import PackedStream, SpikeStream, Sps100Stream
from spikevrt.recording.video import VIDEO_SUFFIXES
from spikevrt.typed import amount

if TYPE_CHECKING:
    from jaxtyping import Float

SATURATED_RATE = 0.99
POOR_CORRELATION = 0.3


@dataclass(frozen=True)
class Inspection:
    """What was found, one fact a line; `refusal` is the error to end with when the facts do not decide."""

    lines: list[str]
    refusal: str | None = None
    health: HealthReport | None = None  # of a recording


def inspect(path: Path, options: InspectOptions | None = None, recording: Recording | None = None) -> Inspection:
    """Look at a recording folder, a spike file of any format, a folder of recordings, a dataset folder of a known
    layout, a SpikeCV folder, a folder of images, an image or a video.

    The whole stream of a loose spike file is read once, in bounded memory; of a recording what `check_health` reads.
    `recording`: what was opened of the frames at `path` and spikes beside them.

    Raises:
        FileNotFoundError: no such path.
        FileExistsError: `out`, `report` or the sidecar exists and `overwrite` is not set.
        ValueError: a size that does not fit, an option that this kind of path does not have, or a broken file.
    """
    path, options = Path(path), options or InspectOptions()
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such recording, spike file, image folder or video")
    suffix = path.suffix.lower()
    is_recording = (path / SIDECAR).is_file()
    if options.layout != NO_OPTIONS and (recordings_in(path) or find_layout(path, options.layout) is None):
        stated = next(name for name, value in vars(options.layout).items() if value is not None)
        raise ValueError(f"{path}: `{stated}` is for dataset folders of a known layout; this is none")
    if is_recording or path.is_dir() or suffix in VIDEO_SUFFIXES + IMAGE_SUFFIXES:
        _refuse_geometry(path, options)
        if recording is not None or is_recording:
            return _tell_recording(recording or open_recording(path), options)
        for name, value in (("out", options.out), ("report", options.report)):
            if value is not None:
                what = "a folder of recordings; name one of them" if recordings_in(path) else "plain footage"
                raise ValueError(f"{path}: `{name}` is for spikes; this is {what}")
        return Inspection(folder_lines(path, options.layout) if path.is_dir() else footage_lines(path))
    if options.report is not None:
        raise ValueError(f"{path}: `report` is for recordings; this is a spike file without frames")
    found = _known_format(path, options)
    if found is None:
        return _tell_readings(path, options)
    unfit = _option_of_readings(options)
    if unfit == "confirm" and stream_sidecar_path(path).is_file():
        raise FileExistsError(f"{stream_sidecar_path(path)}: exists; pass --overwrite to replace it")
    if unfit is not None:
        raise ValueError(f"{path}: `{unfit}` is for a file of unknown geometry; this is known: {found.source}")
    return Inspection(_tell_stream(path, found, options))


def _known_format(path: Path, options: InspectOptions) -> Found | None:
    """What the user or the files around say; None where nothing does."""
    if options.stated is not None:
        return Found(options.stated, STATED)
    if options.confirm is not None and options.overwrite and stream_sidecar_path(path).is_file():
        return None
    try:
        return find_format(path)
    except UnknownGeometry:
        return None


def _tellers(path: Path) -> tuple[Path, ...]:
    return stream_sidecar_path(path), path.parent / SPIKECV_CONFIG


def _refuse_geometry(path: Path, options: InspectOptions) -> None:
    if options.stated is not None:
        raise ValueError(f"{path}: `width`, `height`, `rows` and the like are for spike files; this is none")
    unfit = _option_of_readings(options)
    if unfit is not None:
        raise ValueError(f"{path}: `{unfit}` is for spike files of unknown geometry; this is none")


def _option_of_readings(options: InspectOptions) -> str | None:
    """The name of an option that only a file of unknown geometry can obey."""
    given = {"size": options.sizes or None, "rgb": options.rgb, "confirm": options.confirm}
    return next((name for name, value in given.items() if value is not None), None)


def _tell_readings(path: Path, options: InspectOptions) -> Inspection:
    """List what fits; or, when a number is confirmed, write it down."""
    frame = None if options.rgb is None else read_frame(options.rgb)
    readings = list_readings(path, sizes=options.sizes, frame=frame)
    num_bytes = path.stat().st_size
    if not readings:
        raise ValueError(
            f"{path}: {num_bytes} bytes fit none of the known sizes and formats; name another with --size WxH, "
            "or state --width and --height"
        )
    if options.confirm is not None:
        return Inspection(_confirm(path, {reading.number: reading for reading in readings}, options))
    lines = [f"{path}: {num_bytes} bytes without a header; what fits, the likeliest first:"]
    lines += [reading.line() for reading in readings]
    lines.append(
        "rows, columns: correlation of neighbours; time: of every fourth tick's mean picture with the next ones"
    )
    if frame is not None:
        lines.append("frame: of the spikes with the colour frame (in brackets a better orientation)")
    elif any(reading.format.kind == "packed" for reading in readings):
        lines.append("the order of rows shows in the preview (--out) or against a colour frame (--rgb)")
    if options.out is not None:
        for name, value in (("centre", options.centre), ("half_window", options.half_window)):
            if value is not None:
                raise ValueError(f"{name}: is for spikes of known geometry; allowed: without it")
        draw_readings(options.out, [(f"{one.number}: {one.format.describe()}", one.picture) for one in readings])
        lines.append(f"preview -> {options.out}")
    count = "1 reading fits" if len(readings) == 1 else f"{len(readings)} readings fit"
    return Inspection(
        lines,
        f"{path}: {count} {num_bytes} bytes, and nobody says which is meant; look, then confirm one with --confirm "
        "NUMBER, or state --width and --height",
    )


def _confirm(path: Path, readings: dict[int, Reading], options: InspectOptions) -> list[str]:
    sidecar = stream_sidecar_path(path)
    reading = readings.get(options.confirm or 0)
    if reading is None:
        raise ValueError(f"confirm: {options.confirm}; allowed: {', '.join(map(str, sorted(readings)))}")
    if sidecar.exists() and not options.overwrite:
        raise FileExistsError(f"{sidecar}: exists; pass --overwrite to replace it")
    rate_hz = options.tick_rate_hz or TICK_RATE_HZ
    write_stream_sidecar(
        path, reading.format, num_ticks=reading.num_ticks, tick_rate_hz=rate_hz, sha256=sha256_file(path)
    )
    assumed = "" if options.tick_rate_hz else " (assumed; another with --tick-rate-hz)"
    return [f"{path}: {reading.format.describe()}, {reading.num_ticks} ticks at {rate_hz:g} Hz{assumed} -> {sidecar}"]


def _tell_stream(path: Path, found: Found, options: InspectOptions) -> list[str]:
    stream = open_stream(path, found.format) if options.stated is not None else open_stream(path)
    if not stream.num_ticks or not stream.height or not stream.width:
        raise ValueError(f"{path}: no spikes in it, {stream.num_ticks} ticks of {stream.width} x {stream.height}")
    lines = [stream_line(path, stream, found)]
    lines += stream.notes if isinstance(stream, Sps100Stream) else []
    with progress_bar(f"{path.name}: ticks") as tell:
        health = scan(stream, [(0, stream.num_ticks)], tell)
    lines += _rate_lines(health, found.tick_rate_hz)
    dead, hot = int(find_dead(health.counts).sum()), int(find_hot(health.counts).sum())
    lines += _pixel_lines(health, f"{dead} dead, {hot} hot") + _tick_lines(health)
    if found.sha256 and sha256_file(path) != found.sha256:
        lines.append(f"warning: {path} is not the file that {found.source} was written for (sha256 differs)")
    if options.stated is not None and found.format.kind == "packed":
        lines += _doubt_lines(path, health, found.format)
    return lines + _preview_lines(stream, health.counts / health.num_ticks, None, options)


def _rate_lines(health: Scan, tick_rate_hz: float | None) -> list[str]:
    hz = tick_rate_hz or TICK_RATE_HZ
    assumed = "" if tick_rate_hz else " (assumed)"
    rate = health.counts / health.num_ticks
    low, high = np.percentile(rate, [1, 99])
    return [
        f"{amount(health.num_ticks, 'tick')}, {health.num_ticks / hz:.6f} s at {hz:g} Hz{assumed}",
        f"mean rate {rate.mean():.4f} spikes per tick, 1 % of pixels below {low:.4f}, 1 % above {high:.4f}",
    ]


def _pixel_lines(health: Scan, broken: str) -> list[str]:
    num_saturated = int((health.counts >= SATURATED_RATE * health.num_ticks).sum())
    lines = [f"pixels: {broken}, {num_saturated} saturated, of {health.counts.size}"]
    alike = row_correlation(health.counts)
    lines.append(f"row correlation {alike:.3f}")
    if alike < POOR_CORRELATION:
        lines.append("warning: neighbouring rows do not resemble each other; are width and height right?")
    return lines


def _tick_lines(health: Scan) -> list[str]:
    """What is wrong with the ticks of a stream without frames; of a recording the findings tell it."""
    if not health.counts.any():
        return ["warning: no spike at all"]
    lines = []
    if health.num_empty:
        lines.append(f"warning: {amount(health.num_empty, 'tick')} without any spike")
    if health.breaks:
        ticks = ", ".join(map(str, health.breaks[:5]))
        why = "ticks are missing, or the light changed at once"
        lines.append(f"warning: the rhythm of all pixels breaks before tick {ticks}: {why}")
    return lines


def _doubt_lines(path: Path, health: Scan, stated: StreamFormat) -> list[str]:
    """Warn when a known size fits the file and explains it better than the size given."""
    given = np.nan_to_num(row_correlation(health.counts))
    packed = [one for one in list_readings(path) if one.format.kind == "packed"]
    better = [one for one in packed if np.nan_to_num(one.rows) > given + 0.1]
    lines = []
    if better:
        size = f"{better[0].format.width} x {better[0].format.height}"
        told = f"(row correlation {better[0].rows:.3f} against {given:.3f})"
        lines.append(f"warning: {size} fits better {told}")
    for teller in _tellers(path):
        if teller.is_file():
            said = find_format(path).format
            if (said.width, said.height, said.is_bottom_up) != (stated.width, stated.height, stated.is_bottom_up):
                lines.append(f"warning: {teller.name} says {said.describe()}")
            break
    return lines


def _tell_recording(recording: Recording, options: InspectOptions) -> Inspection:
    assert recording.spikes is not None, "a recording folder always has spikes"
    stream, report = recording.spikes, check_health(recording)
    found, first = report.evidence.scan, recording.exposures[0]
    words = f"{stream.width} x {stream.height}"
    if isinstance(stream, PackedStream):
        words = packed_words(stream).partition(", ")[2]
    lines = [
        f"{recording.root}: recording, {amount(recording.num_frames, 'frame')} of {recording.width} x "
        f"{recording.height}, {recording.fps:g} fps, {sharp_words(recording)}",
        f"spikes {words}",
        f"exposures of {exposure_words(recording)} ticks, the first from tick {first.start_tick}, "
        f"{first.t0_s:.6f} s to {first.t1_s:.6f} s",
    ]
    if recording.alignment != Alignment():
        lines.append(f"aligned: {alignment_words(recording.alignment)}")
    lines += [f"dropped frame {index}: {why}" for index, why in recording.dropped]
    lines += _rate_lines(found, recording.tick_rate_hz)
    if found.num_ticks < recording.num_ticks:
        lines.append(f"(measured on {found.num_ticks} of {recording.num_ticks} ticks, inside sampled exposures)")
    broken = ", ".join(f"{int(mask.sum())} {name}" for name, mask in report.evidence.masks.items())
    known = f", {len(recording.bad_pixels)} known to be bad" if recording.bad_pixels else ""
    lines += _pixel_lines(found, broken + known) + _health_lines(report)
    stored = recording.stored_sha256
    if stored and len(stream.files) == 1 and sha256_file(stream.files[0]) != stored:
        lines.append(f"warning: {stream.files[0]} is not the file that was recorded (sha256 differs)")
    if recording.frames_sha256:
        where = recording.blur if isinstance(recording.blur, Path) else recording.blur[0].parent
        if sha256_files(list_images(where) if where.is_dir() else [where]) != recording.frames_sha256:
            lines.append(f"warning: {where}: not the frames that were recorded (sha256 differs)")
    centre = recording.exposures[recording.num_frames // 2]
    middle = (centre.start_tick + centre.stop_tick) // 2
    lines += _preview_lines(stream, found.counts / found.num_ticks, recording, options, middle)
    return Inspection(lines, health=report)


def _health_lines(report: HealthReport) -> list[str]:
    """How the spikes fit the frames, and every finding that is not in order."""
    fit, gain = report.finding("orientation").numbers, report.finding("gain").numbers
    lines = []
    if fit:
        told = f", gain about {gain['spikes_per_tick_at_full_light']:.2f}" if gain else ""
        lines.append(f"spikes against blurry frames: correlation {fit['upright']:.3f}{told}")
    return lines + [
        f"{finding.verdict}: {finding.name}: {finding.sentence}"
        for finding in report.findings
        if finding.verdict != "ok"
    ]


def _preview_lines(
    stream: SpikeStream,
    rate: Float[np.ndarray, "h w"],
    recording: Recording | None,
    options: InspectOptions,
    middle: int | None = None,
) -> list[str]:
    if options.out is None:
        return []
    centre = options.centre if options.centre is not None else middle if middle is not None else stream.num_ticks // 2
    half_window = HALF_WINDOW_TICKS if options.half_window is None else options.half_window
    draw_preview(
        options.out, stream.read, rate,
        num_ticks=stream.num_ticks, centre=centre, half_window=half_window, recording=recording,
    )  # fmt: skip
    return [f"preview -> {options.out}"]
