"""Loose files, a folder of images or a video and a spike stream beside it, as a recording.

Nothing is copied: what the files do not tell, the caller states (`timing`), and what nobody tells is assumed and told
(`Recording.notes`). `keep_recording` writes the folder that from then on says all of it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from spikevrt.atomic import complete_or_absent, refuse_existing, refuse_own_input
from spikevrt.recording.arrays import ArrayStream
from spikevrt.recording.frames import check_size, image_size, list_images
from spikevrt.recording.recording import Recording, with_readout
from spikevrt.recording.sidecar import (
    AXES,
    BLUR_FOLDER,
    NOTHING_STATED,
    ROWS,
    SHARP_FOLDER,
    SIDECAR,
    TICK_RATE_HZ,
    WITH_AXES,
    Exposure,
    Stated,
    StreamFormat,
    kind_of,
)
from spikevrt.recording.spike_file import sha256_files
from spikevrt.recording.spike_formats import UnknownGeometry, find_format, open_stream
from spikevrt.recording.stored import write_stored
from spikevrt.recording.stream import RolledStream, SpikeStream
from spikevrt.recording.time_tables import table_times, trigger_times
from spikevrt.recording.timing import (
    FrameTimes,
    expose,
    frame_numbers,
    image_times,
    named_stream,
    rational,
    read_time,
    video_times,
)
from spikevrt.recording.video import VideoInfo, probe_video
from spikevrt.typed import require_file_name

ASSUMED_FPS = 25.0  # of a folder of images without spikes: nothing tells it, and nothing but a video's speed uses it
FORMAT_FIELDS = ("spike_kind", "spike_width", "spike_height", "spike_tag_bits", "spike_key", "spike_axes", "top_down")


def open_beside(frames: Path, spikes: Path, stated: Stated = NOTHING_STATED) -> Recording:
    """`loose_recording` of frames and a spike file, of which the file itself or the caller tells the format.

    Raises:
        FileNotFoundError, ValueError: as `loose_recording` and `open_stream`.
        UnknownGeometry: nobody tells the size of a file without one, or half of it is stated.
    """
    form, rate_hz = stream_format(spikes, stated)
    if stated.tick_rate_hz is None:
        stated = replace(stated, tick_rate_hz=rate_hz)
    elif rate_hz is not None and rate_hz != stated.tick_rate_hz:
        told = f"{stated.tick_rate_hz:g}, but beside {spikes} stands {rate_hz:g}"
        raise ValueError(f"tick_rate_hz: {told}; allowed: the same, or delete the one that is wrong")
    stream = open_stream(spikes, form)
    try:
        recording = loose_recording(frames, stream, stated)
    except ValueError as error:
        raise ValueError(f"{error}{_other_axes(frames, stream, stated)}") from None
    if "period" in recording.notes and (other := _other_axes(frames, stream, stated)):  # any number of ticks fits
        recording = recording.noting(axes=f"{stream.num_ticks} ticks of {stream.width}x{stream.height}{other}")
    return recording


def _other_axes(frames: Path, stream: SpikeStream, stated: Stated) -> str:
    """The other order of an array's axes, where the times fit it, and the frames' shape fits it better."""
    if not isinstance(stream, ArrayStream) or kind_of(stream.files[0].suffix) not in WITH_AXES:
        return ""
    other = replace(stream, axes=AXES[1 - AXES.index(stream.axes)])
    with contextlib.suppress(ValueError):
        shape = loose_recording(frames, other, stated)
        off = [abs(one.width / one.height - shape.width / shape.height) for one in (other, stream)]
        size = f"{other.num_ticks} ticks of {other.width}x{other.height}"
        return f"; or `spike_axes` {other.axes}, which makes it {size}" if off[0] < off[1] else ""
    return ""


def stream_format(spikes: Path, stated: Stated) -> tuple[StreamFormat | None, float | None]:
    """The format of a spike file as it is stated, None where the file or one beside it tells it; and its rate, if that
    is told there. Raises as `find_format`."""
    given = [name for name in FORMAT_FIELDS if getattr(stated, name) not in (None, False)]
    if not given:
        return None, find_format(spikes, prefix="spike_").tick_rate_hz
    kind, width, height = stated.spike_kind or kind_of(spikes.suffix), stated.spike_width, stated.spike_height
    if kind in ("packed", "bytes") and (width is None or height is None):
        raise UnknownGeometry(f"{given[0]}: only with both spike_width and spike_height")
    rows = ROWS[False] if stated.top_down else None
    key, axes = stated.spike_key, stated.spike_axes
    return StreamFormat(kind, width, height, rows, stated.spike_tag_bits or 0, key, axes), None


def loose_recording(frames: Path, spikes: SpikeStream | None, stated: Stated = NOTHING_STATED) -> Recording:
    """Make a recording of loose files: a folder of images or a video, and a stream (or None: frames alone).

    `timing` says when each frame is exposed; images are told by the numbers in their names. Size and rows of the
    spikes are those of the stream, whatever is stated.

    Raises:
        FileNotFoundError: no such frames, table or triggers.
        ValueError: times that contradict the stream, each other or what is stated; linear light asked of a video.
    """
    frames = Path(frames)
    info: VideoInfo | None = None
    if frames.is_dir():
        images = list_images(frames)
        height, width = image_size(images[0])
        for image in images:
            check_size(image, image_size(image), (height, width))
        blur: tuple[Path, ...] | Path = tuple(images)
    else:
        info, images = probe_video(frames), []
        height, width, blur = info.height, info.width, frames
        if stated.linear:
            raise ValueError(f"linear: {frames} is a video, of display values; allowed: a folder of images")
    lost = {}
    if info is not None and info.num_lost:
        lost["pictures"] = f"{info.num_lost} of {info.num_frames + info.num_lost} in {frames.name} cannot be decoded"
    recording = Recording(
        root=frames,
        width=width,
        height=height,
        tick_rate_hz=TICK_RATE_HZ if stated.tick_rate_hz is None else stated.tick_rate_hz,
        exposures=(),
        spikes=spikes,
        blur=blur,
        sharp=(),
        fps=ASSUMED_FPS if info is None else info.fps,
        linear=stated.linear,
        provenance={"frames": str(frames), "spikes": None if spikes is None else [str(p) for p in spikes.files]},
    )
    if spikes is None:
        exposures, notes = _without_ticks(images, stated, info)
        fps = recording.fps if stated.fps is None or info is not None else float(stated.fps)
        return replace(recording, exposures=exposures, fps=fps, notes=lost | notes)
    if not 0 < recording.tick_rate_hz < math.inf:
        raise ValueError(f"tick_rate_hz: {recording.tick_rate_hz}; allowed: above 0")
    if not 0 <= (stated.first_tick or 0) < spikes.num_ticks:
        allowed = f"0 to {spikes.num_ticks - 1}, {spikes.files[0]} has {spikes.num_ticks} ticks"
        raise ValueError(f"first_tick: {stated.first_tick}; allowed: {allowed}")
    rate_hz = rational(recording.tick_rate_hz)
    times = _times(frames, images, info, rate_hz, stated, spikes.num_ticks)
    delay = 0
    if stated.readout is not None:
        delay = round(read_time("readout", stated.readout, rate_hz, times.period))
        if delay >= spikes.num_ticks:
            raise ValueError(
                f"readout: {stated.readout}; allowed: less than the {spikes.num_ticks} ticks of the stream"
            )
    name = named_stream(spikes.files[0], spikes.num_ticks, delay)
    exposures, notes = expose(times, stated, rate_hz, spikes.num_ticks - delay, name)
    if stated.tick_rate_hz is None:
        notes["tick rate"] = f"{TICK_RATE_HZ:g} read-outs a second are assumed; `tick_rate_hz` states another"
    fps = recording.fps
    if info is None:
        fps = float(rate_hz / (times.period or exposures[0].num_ticks))
    return with_readout(replace(recording, exposures=exposures, fps=fps, notes=lost | notes), delay)


def _times(
    frames: Path, images: list[Path], info: VideoInfo | None, rate_hz: Fraction, stated: Stated, num_ticks: int
) -> FrameTimes:
    """From the one source that is stated, or that the frames have. Raises ValueError where several are stated."""
    for name, file in (("timestamps", stated.timestamps), ("triggers", stated.triggers)):
        if file is None:
            continue
        for other in ("timestamps", "triggers", "period_ticks", "fps", "by_counting"):
            if other != name and getattr(stated, other) not in (None, False):
                raise ValueError(f"{other}: not with {name}, which tells when each frame was exposed")
        numbers, notes = (tuple(range(info.num_frames)), {}) if info is not None else frame_numbers(images)
        times = (
            table_times(Path(file), numbers, rate_hz)
            if name == "timestamps"
            else trigger_times(Path(file), numbers, num_ticks)
        )
        return replace(times, notes=notes)
    if info is not None:
        return video_times(frames, info, rate_hz, stated)
    return image_times(images, rate_hz, stated, num_ticks)


def _without_ticks(
    images: list[Path], stated: Stated, info: VideoInfo | None
) -> tuple[tuple[Exposure, ...], dict[str, str]]:
    """Exposures of frames alone, and what there is to say: evenly spaced by their numbers, or as the timestamps say;
    each lasts until the next."""
    if info is None or not info.is_variable:
        fps = info.fps if info is not None else float(stated.fps or ASSUMED_FPS)
        numbers, notes = frame_numbers(images) if info is None else (range(info.num_frames), {})
        return tuple(Exposure(i, 0, 0, i / fps, (i + 1) / fps) for i in numbers), notes
    starts_s = [time_s - info.times_s[0] for time_s in info.times_s]
    starts_s.append(2 * starts_s[-1] - starts_s[-2])
    return tuple(Exposure(i, 0, 0, t0_s, t1_s) for i, (t0_s, t1_s) in enumerate(itertools.pairwise(starts_s))), {}


def with_sharp(recording: Recording, folder: Path) -> Recording:
    """The recording with a folder of sharp images, one a frame in their order, to score against.

    Raises:
        FileNotFoundError, ValueError: no such folder, or images of another number or size.
    """
    images = list_images(folder)
    if len(images) != recording.num_frames:
        raise ValueError(f"sharp: images in {folder}: {len(images)}; allowed: {recording.num_frames}, one a frame")
    for image in images:
        check_size(image, image_size(image), (recording.height, recording.width))
    return replace(recording, sharp=tuple(images))


def keep_recording(
    recording: Recording,
    out: Path,
    stated: Stated = NOTHING_STATED,
    *,
    copy: bool = False,
    overwrite: bool = False,
    tell: Callable[[int, int], None] | None = None,
) -> None:
    """Write the folder of a recording that was opened of loose files: recording.json, and links to the files, or copies
    of them. Complete or absent.

    `stated` is what it was opened with. `tell(bytes done, bytes)` while the files are read for their SHA-256.

    Raises:
        FileExistsError: `out` exists and `overwrite` is not set, or is no recording.
        ValueError: no spikes, or spikes in several files.
    """
    refuse_existing(out, marker=SIDECAR, overwrite=overwrite)
    refuse_own_input(out, recording.files)
    if recording.spikes is None or len(recording.spikes.files) != 1:
        raise ValueError(f"{recording.root}: a recording needs spikes, in one file")
    images = () if isinstance(recording.blur, Path) else recording.blur
    stream, readout_ticks = recording.spikes, recording.readout_ticks
    if isinstance(stream, RolledStream):
        stream = stream.stream
    spikes = stream.files[0]
    form, _ = stream_format(spikes, stated)
    form = replace(form or find_format(spikes).format, width=stream.width, height=stream.height)
    total, done = sum(path.stat().st_size for path in (spikes, *(images or (recording.root,)))), 0

    def count(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        if tell is not None:
            tell(done, total)

    with complete_or_absent(out) as partial:
        partial.mkdir()
        entry = {"file": _name(spikes, "spikes"), **form.values(), "num_ticks": stream.num_ticks}
        entry |= {"tick_rate_hz": recording.tick_rate_hz, "sha256": sha256_files([spikes], count)}
        _place(spikes, partial / entry["file"], out, copy=copy)
        frames: dict[str, Any] = {"width": recording.width, "height": recording.height, "count": recording.num_frames}
        frames |= {"fps": recording.fps, "sha256": sha256_files(images or [recording.root], count)}
        if images:
            _place(recording.root, partial / BLUR_FOLDER, out, copy=copy)
        else:
            frames |= {"file": _name(recording.root, "frames"), "num_bytes": recording.root.stat().st_size}
            _place(recording.root, partial / frames["file"], out, copy=copy)
        if recording.sharp:
            _place(recording.sharp[0].parent, partial / SHARP_FOLDER, out, copy=copy)
        frames |= {"linear": True} if recording.linear else {}
        frames |= {"readout_ticks": readout_ticks} if readout_ticks else {}
        said = {name: str(value) for name, value in vars(stated).items() if value not in (None, False)}
        files = {"frames": str(recording.root.resolve()), "spikes": str(spikes.resolve())}
        more = {"provenance": {**files, "stated": said}, "notes": dict(recording.notes)}
        write_stored(partial, entry, frames, recording.exposures, more)


def _name(path: Path, other: str) -> str:
    """The file's own name in the recording's folder, or another where that could be taken for a path or for ours."""
    try:
        require_file_name("file", path.name)
    except ValueError:
        return other + path.suffix
    return path.name if path.name not in (SIDECAR, BLUR_FOLDER, SHARP_FOLDER) else other + path.suffix


def _place(source: Path, place: Path, out: Path, *, copy: bool) -> None:
    """A copy, or a link: relative, so that it holds where both are moved together."""
    if not copy:
        place.symlink_to(os.path.relpath(source.resolve(), out.resolve()))
    elif source.is_dir():
        place.mkdir()
        for image in list_images(source):
            shutil.copyfile(image, place / image.name)
    else:
        shutil.copyfile(source, place)
