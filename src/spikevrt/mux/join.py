"""Segments -> one video, without encoding again, and with what the source beside its pictures holds.

Carried over from the source: sound and subtitles that the container can hold, attached files (fonts; .mkv), chapters,
and the words about the file and its streams. What is left behind is told. Every timestamp stays what it was; Matroska
counts in milliseconds. No clock, machine or library is named in the result: equal input gives equal bytes.
"""

from __future__ import annotations

import heapq
import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikevrt.atomic import complete_or_absent, named
from spikevrt.mux.encode import MAX_TIMESCALE, VideoTags, rate, write_segment
from spikevrt.recording.video import main_video, move, open_media, probe_video, timed_packets
from spikevrt.restore.options import VideoFormat, check_container

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8


MUXERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
MATROSKA_TICK = Fraction(1, 1000)
EMPTY_TEXT = b"\0\0"  # a subtitle of an MP4 that shows nothing: whoever writes an MP4 puts them into the gaps anew
COPIED_TYPES = ("audio", "subtitle", "attachment")
# of the source's encoding or container, not of its content
NOT_CARRIED = {
    "encoder",
    "software",
    "major_brand",
    "minor_version",
    "compatible_brands",
    "rotate",
    "duration",
    "vendor_id",
}
NOT_CARRIED |= {"bps", "number_of_frames", "number_of_bytes"}  # Matroska's statistics


def join_segments(
    segments: Sequence[Path],
    out: Path,
    *,
    fps: float,
    format: VideoFormat,
    tags: VideoTags,
    source: Path | None = None,
    last_s: Fraction = Fraction(0),
) -> tuple[str, ...]:
    """Put segments of one format and size into `out` (.mp4, .mov, .mkv), named only when complete; returns notes.

    `fps` is nominal, as in `write_segment`. `last_s`: how long the last frame is shown; 0: as the one before. The notes
    say in a line each what the source holds and `out` does not.
    The segments stay where they are. Where the source's sound or subtitles are so damaged that they cannot be written,
    all of them are left out, and told.

    Raises:
        FileNotFoundError: a segment or the source is missing.
        ValueError: no segment, segments that do not belong together or are not in order, a container that cannot hold
            the format, or timestamps so close that .mkv cannot tell them apart.
    """
    out = Path(out)
    check_container(out, format)
    if not segments:
        raise ValueError(f"{out}: no segments to join")
    from av.error import FFmpegError

    paths, shown = [Path(segment) for segment in segments], named(out)
    with complete_or_absent(out) as partial:
        try:
            return _join(paths, shown, partial, rate(fps), tags, source, COPIED_TYPES, last_s)
        except FFmpegError as error:
            if source is None or not isinstance(error, ValueError):  # the others are the system's: a full disk
                raise
            why = f"{shown.name}: sound and subtitles are not carried over: they are damaged"
        return why, *_join(paths, shown, partial, rate(fps), tags, source, (), last_s)


def write_video(path: Path, frames: Iterable[UInt8[np.ndarray, "H W 3"]], fps: float, crf: int = 16) -> None:
    """Encode H.264 (yuv420p) at an even rate; odd sizes get their last row or column twice. Named only when complete.

    Raises:
        ValueError: no frames, frames of different sizes, fps not above 0, or a suffix other than .mp4, .mov, .mkv.
    """
    path = Path(path)
    format, tags = VideoFormat(crf=crf), VideoTags()
    check_container(path, format)
    segment = path.with_name(f".{path.name}.segment")
    try:
        write_segment(segment, enumerate(frames), time_base=1 / rate(fps), fps=fps, format=format, tags=tags)
        join_segments([segment], path, fps=fps, format=format, tags=tags)
    except ValueError as error:
        raise ValueError(str(error).replace(str(segment), str(path))) from None
    finally:
        segment.unlink(missing_ok=True)


def _join(
    segments: Sequence[Path],
    out: Path,
    partial: Path,
    frame_rate: Fraction,
    tags: VideoTags,
    source: Path | None,
    copied_types: Sequence[str],
    last_s: Fraction,
) -> tuple[str, ...]:
    import av

    muxer = MUXERS[out.suffix.lower()]
    notes: list[str] = []
    with open_media(segments[0]) as first:
        video_base: Fraction = main_video(first).time_base
        found = open_media(source) if source is not None else None
        try:
            copied = [] if found is None else _copied_streams(found, muxer, out, copied_types, notes)
            options, place, kind = {"fflags": "+bitexact"}, str(partial), muxer
            if any(not _is_listed(stream, muxer) for stream in copied):
                options, place, kind = {}, _through_tee(str(partial)), "tee"
            elif muxer != "matroska":
                bases = [video_base, *(stream.time_base for stream in copied if stream.type == "audio")]
                options["video_track_timescale"] = str(video_base.denominator)
                options["movie_timescale"] = str(_movie_timescale(bases))
                options["movflags"] = "+faststart"
            with av.open(place, "w", format=kind, container_options=options) as container:
                video = _add_video(container, first, muxer, frame_rate, tags)
                if found is not None:
                    container.metadata.update(_words(found.metadata))
                    video.metadata.update(_words(main_video(found).metadata))
                    container.set_chapters(found.chapters())
                outputs = {stream.index: _add_copy(container, stream) for stream in copied}
                packets = [_video_packets(segments, out, muxer, notes, last_s)]
                if found is not None and any(stream.type != "attachment" for stream in copied):
                    assert source is not None
                    packets.append(_copied_packets(found, copied, muxer, probe_video(source).shift))
                for _, is_copied, packet in heapq.merge(*packets, key=lambda entry: entry[:2]):
                    packet.stream = outputs[packet.stream.index] if is_copied else video
                    container.mux(packet)
            codec = _stream_name(main_video(first))
            if muxer == "matroska" and tags.sample_aspect != 1 and codec in ("av1", "ffv1"):
                notes.append(f"{out.name}: pixel aspect {tags.sample_aspect} is not stored with {codec} in .mkv")
            notes += [] if found is None else _lost_words(found, partial, out)
        finally:
            if found is not None:
                found.close()
    return tuple(notes)


def _movie_timescale(bases: Sequence[Fraction]) -> int:
    """Ticks a second in which all tracks start exactly: an MP4 states in it when a track begins."""
    scale = bases[0].denominator
    for base in bases[1:]:
        both = math.lcm(scale, base.denominator)
        scale = both if both <= MAX_TIMESCALE else scale
    return scale


def _add_video(container: Any, first: Any, muxer: str, frame_rate: Fraction, tags: VideoTags) -> Any:
    video = container.add_stream_from_template(main_video(first), opaque=True)
    context = video.codec_context
    context.sample_aspect_ratio, context.framerate = tags.sample_aspect, frame_rate
    if _stream_name(main_video(first)) == "hevc" and muxer != "matroska":
        context.codec_tag = "hvc1"  # parameters in the header alone: what Apple's players want
    return video


def _copied_streams(found: Any, muxer: str, out: Path, copied_types: Sequence[str], notes: list[str]) -> list[Any]:
    pictures = main_video(found)
    copied = []
    for stream in found.streams:
        if stream.index == pictures.index:
            continue
        name = _stream_name(stream)
        if name == "bin_data" and found.chapters():
            continue  # the chapters of an MP4 as a track of text; they are carried over as chapters
        if stream.type in copied_types and _holds(stream, muxer):
            copied.append(stream)
        elif stream.type in copied_types or stream.type not in COPIED_TYPES:
            notes.append(
                f"{out.name}: {stream.type} stream {stream.index} ({name}) is not carried over to {out.suffix}"
            )
    return copied


def _stream_name(stream: Any) -> str:
    context = stream.codec_context
    name = context.codec.canonical_name if context is not None else getattr(stream, "name", None)
    return name or "unknown"


def _holds(stream: Any, muxer: str) -> bool:
    """Whether the container takes the stream: tried, with a header that is thrown away."""
    import av
    from av.error import FFmpegError

    is_listed = _is_listed(stream, muxer)
    options = {"fflags": "+bitexact"} if is_listed else {}
    place, kind = (io.BytesIO(), muxer) if is_listed else (_through_tee(os.devnull), "tee")
    if not is_listed and muxer != "matroska":
        return False
    try:
        with av.open(place, "w", format=kind, container_options=options) as trial:
            _add_copy(trial, stream)
            if stream.type == "attachment":
                return muxer == "matroska"
            trial.start_encoding()
    except (FFmpegError, ValueError):
        return False
    return True


def _is_listed(stream: Any, muxer: str) -> bool:
    """Whether PyAV lets a stream of that codec into the container: Matroska holds more, by the codes of Windows."""
    import av

    try:
        with av.open(io.BytesIO(), "w", format=muxer) as trial:
            trial.add_stream_from_template(stream, opaque=True)
    except ValueError:
        return False
    return True


def _through_tee(path: str) -> str:
    """FFmpeg's name of a Matroska file behind its muxer `tee`, which PyAV asks for no list of codecs."""
    return "[f=matroska:fflags=+bitexact]" + re.sub(r"([\\'|\[\]: ])", r"\\\1", path)


def _add_copy(container: Any, stream: Any) -> Any:
    copy = container.add_stream_from_template(stream, opaque=True)
    copy.disposition = int(stream.disposition)
    copy.metadata.update(_words(stream.metadata))
    return copy


def _words(metadata: Mapping[str, str]) -> dict[str, str]:
    return {
        key: value
        for key, value in metadata.items()
        if key.lower().split("-")[0] not in NOT_CARRIED and not key.upper().startswith("_STATISTICS")
    }


def _lost_words(found: Any, partial: Path, out: Path) -> list[str]:
    with open_media(partial) as written:
        kept, has_chapters = {key.lower() for key in written.metadata}, bool(written.chapters())
    lost = [key for key in _words(found.metadata) if key.lower() not in kept]
    notes = [f"{out.name}: {out.suffix} does not hold the file's {', '.join(lost)}"] if lost else []
    return [*notes, f"{out.name}: chapters are not carried over"] if found.chapters() and not has_chapters else notes


def _video_packets(
    segments: Sequence[Path], out: Path, muxer: str, notes: list[str], last_s: Fraction
) -> Iterator[tuple[Fraction, bool, Any]]:
    """(time in seconds, False, packet) of all segments in order, each shown until the next one."""
    header: tuple[Any, ...] | None = None
    is_rounded = False
    before: Any = None
    for segment in segments:
        with open_media(segment) as container:
            stream = main_video(container)
            context = stream.codec_context
            found = (
                context.codec.name,
                context.width,
                context.height,
                stream.time_base,
                bytes(context.extradata or b""),
            )
            header = header or found
            if found != header:
                raise ValueError(f"{segment}: encoded otherwise than {segments[0]}; they do not make one video")
            for packet in container.demux(stream):
                if packet.size == 0:
                    continue
                is_rounded = is_rounded or (packet.pts * packet.time_base) % MATROSKA_TICK != 0
                if before is not None:
                    if packet.pts <= before.pts:
                        raise ValueError(f"{segment}: begins at {packet.pts}, before the segment before it ends")
                    before.duration = packet.pts - before.pts
                    if muxer == "matroska" and _milliseconds(packet) == _milliseconds(before):
                        raise ValueError(
                            f"{out}: .mkv counts milliseconds, and two frames lie closer; allowed: .mp4, .mov"
                        )
                    yield before.pts * before.time_base, False, before
                before = packet
    if before is not None:
        before.duration = round(last_s / before.time_base) or before.duration
        yield before.pts * before.time_base, False, before
    if muxer == "matroska" and is_rounded:
        notes.append(f"{out.name}: timestamps are rounded to milliseconds, of which .mkv counts")


def _milliseconds(packet: Any) -> int:
    return math.floor(packet.pts * packet.time_base / MATROSKA_TICK + Fraction(1, 2))


def _copied_packets(
    found: Any, copied: Sequence[Any], muxer: str, shift: Fraction
) -> Iterator[tuple[Fraction, bool, Any]]:
    """(time in seconds, True, packet), moved with the pictures by `shift` seconds. Before zero lies only what a decoder
    starts from; Matroska has no such time, unless the source, of Matroska too, says how much that is."""
    time, is_said = Fraction(0), "matroska" in found.format.name
    for packet in timed_packets(found, [stream for stream in copied if stream.type != "attachment"]):
        if packet.size == 0 or (packet.size == 2 and bytes(packet) == EMPTY_TEXT and packet.stream.type == "subtitle"):
            continue
        move(packet, shift)
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is not None:
            time = stamp * packet.time_base
            if muxer == "matroska" and time < 0 and not is_said:
                continue
        yield time, True, packet
