"""Video files through PyAV: opened, measured, and decoded in order.

Colour: a file's own matrix is obeyed; an untagged file of 720 rows or more is taken as BT.709, a smaller one as BT.601.
PQ and HLG are read by their curves (`light`), other curves of displays as sRGB. Time: a clock that may begin anywhere
and start again (MPEG streams) is made to begin at zero and to go on evenly, for sound alike.
Importing it loads neither torch nor NumPy.

Dimension key: H rows, W columns, 3 colours (RGB).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import statistics
from collections import OrderedDict
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikevrt.light import LIMITED_RANGE, UNSPECIFIED

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float32, UInt8, UInt16


# FFmpeg's codes
UNREAD_TRANSFERS = {8: "linear light", 9: "a logarithm", 10: "a logarithm", 17: "that of digital cinema (SMPTE 428)"}


def open_media(path: Path) -> Any:
    """The file as a PyAV container, to be closed by the caller (a context manager).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a video, a damaged one, or a file without a video stream.
    """
    import av
    from av.error import FFmpegError

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such video")
    try:
        container = av.open(str(path))
    except (FFmpegError, ValueError):
        raise ValueError(f"{path}: not a video, or a damaged one") from None
    if not container.streams.video:
        container.close()
        raise ValueError(f"{path}: no video in it")
    if main_video(container).codec_context is None:
        container.close()
        raise ValueError(f"{path}: video of an unknown codec, or damaged")
    return container


def main_video(container: Any) -> Any:
    """The first video stream that is no cover picture; where there are only those, the first."""
    from av.stream import Disposition

    streams = container.streams.video
    return next((stream for stream in streams if not stream.disposition & Disposition.attached_pic), streams[0])


VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".m4v", ".ts", ".mts", ".m2ts", ".wmv")
KEPT_FRAMES = 8  # that a reader remembers, so that overlapping clips do not decode twice
# codecs whose packets are one picture each, so that those without one can be told
PICTURE_PACKETS = ("h264", "hevc", "av1", "vp9", "mjpeg", "png", "ffv1", "prores", "dnxhd")
LIMITED_BY_DEFAULT = ("h264", "hevc", "av1", "vp9", "mpeg1video", "mpeg2video", "mpeg4")  # grey of no stated range
# whose pictures tell themselves whether they are interlaced; of others the container does
TELL_INTERLACED = ("h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "vc1", "prores", "dnxhd", "dvvideo")
LIGHT_LEVELS = ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL")
RUN_UP_S = Fraction(1, 20)  # sound that begins no earlier before the pictures is what its decoder starts from
MAX_PIXELS = 1 << 27  # a frame whose header claims more is damaged (16K has as many)
JUMP_S = 10  # a clock that goes on by more, or back at all, was set anew: what FFmpeg takes, too


@dataclass(frozen=True)
class VideoInfo:
    """Upright size, frames per second, and the frames that decoding yields, with their times.

    `pts` has one entry a frame, rising from 0 or more, in units of `time_base` seconds. `bits` are those of a colour
    (or of luma and chroma) in the file. `sample_aspect` is width / height of an upright pixel; `primaries` and
    `transfer` are FFmpeg's codes of the colours (`UNSPECIFIED` where the file says nothing). `num_lost` pictures are
    stored and cannot be decoded. `shift` seconds were added to the times of the file, and are missing in its sound's.
    `has_light_levels`: it states HDR's mastering display or light levels; `has_alpha`: and how transparent pixels are.
    The last frame is shown for `last_s` seconds (0: not stated).
    """

    width: int
    height: int
    fps: float
    num_frames: int
    pts: tuple[int, ...]
    time_base: Fraction
    bits: int
    sample_aspect: Fraction
    primaries: int
    transfer: int
    num_lost: int
    shift: Fraction
    has_light_levels: bool
    has_alpha: bool
    last_s: Fraction

    @property
    def is_variable(self) -> bool:
        """Whether the frames are unevenly spaced: by more than the one unit that rounding explains."""
        steps = [after - before for before, after in itertools.pairwise(self.pts)]
        return len(steps) > 0 and max(steps) - min(steps) > 1

    @property
    def times_s(self) -> tuple[float, ...]:
        """When each frame begins, in seconds of the file's clock."""
        return tuple(float(pts * self.time_base) for pts in self.pts)


def probe_video(path: Path) -> VideoInfo:
    """Measure a video: every frame is decoded once (and not again in this process while the file stays as it is).

    A frame without a time, or with one that does not rise, gets one: all of them evenly by the frame rate, or one unit
    after the frame before. `fps` is that of most steps between frames, of unevenly spaced frames their mean.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a video, a damaged one, an interlaced one, one of a transfer that is not read, or one without a
            frame or frame rate.
    """
    path = Path(path)
    stat = path.stat() if path.is_file() else None
    return _probe(path, *((stat.st_size, stat.st_mtime_ns) if stat is not None else (0, 0)))


@functools.lru_cache(maxsize=64)
def _probe(path: Path, _size: int, _mtime_ns: int) -> VideoInfo:
    with open_media(path) as container:
        stream = main_video(container)
        stated = stream.average_rate or stream.guessed_rate or Fraction(0)
        time_base: Fraction = stream.time_base
        aspect = stream.sample_aspect_ratio or Fraction(1)
        is_counted = stream.codec_context.codec.canonical_name in PICTURE_PACKETS
        is_alpha_stated = stream.metadata.get("alpha_mode") == "1"  # of VP9 in Matroska: a picture of its own
    first: Any = None
    for is_whole in (True, False):
        packets: list[int] = []
        with contextlib.closing(_decoded(path, is_whole=is_whole, sizes=packets)) as frames:
            first = next(frames, None)
            if first is None:
                raise ValueError(f"{path}: a video without frames")
            found, last_units = [first.pts], int(first.duration or 0)
            for frame in frames:
                found.append(frame.pts)
                last_units = int(frame.duration or 0)
        num_lost = max(0, len(packets) - len(found)) if is_counted else 0
        if num_lost == 0:
            break
    turned = _quarter_turns(first) % 2 == 1
    height, width = (first.width, first.height) if turned else (first.height, first.width)
    bits = max(component.bits for component in first.format.components)
    colours = int(first.color_primaries) or UNSPECIFIED, int(first.color_trc) or UNSPECIFIED
    shift = -min(0, first.pts or 0)
    stated_levels = any(data.type.name in LIGHT_LEVELS for data in first.side_data)
    has_alpha = is_alpha_stated or any(component.is_alpha for component in first.format.components)
    pts = _rising(path, found, shift, time_base, stated)
    fps = _frame_rate(pts, time_base, stated)
    if fps <= 0:
        raise ValueError(f"{path}: a video without a frame rate")
    aspect = 1 / aspect if turned else aspect
    return VideoInfo(
        width, height, fps, len(pts), pts, time_base, bits, aspect, *colours, num_lost, shift * time_base,
        stated_levels, has_alpha, last_units * time_base,
    )  # fmt: skip


def iter_video(
    path: Path, start: int = 0, stop: int | None = None, *, deep: bool = False
) -> Iterator[UInt8[np.ndarray, "H W 3"] | UInt16[np.ndarray, "H W 3"] | Float32[np.ndarray, "H W 3"]]:
    """Frames [start, stop) in order, upright; frames before `start` are decoded and dropped, so counts are exact.

    A `stop` behind the end ends with the video. With `deep`, a video of more than 8 bits gives uint16 (65535 is white);
    one of 8 bits gives uint8 in any case, and one of PQ or HLG float32 (`light.hdr_table`).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a video, or damaged data.
    """
    from spikevrt.recording.frames import video_pixels

    assert start >= 0, start
    is_whole = probe_video(path).num_lost == 0
    for index, frame in enumerate(_decoded(Path(path), is_whole=is_whole, sizes=[])):
        if stop is not None and index >= stop:
            return
        if index >= start:
            yield video_pixels(frame, _quarter_turns(frame), deep=deep)


class VideoReader:
    """Read frames by index; going forward is cheap, going back further than a few frames starts the file again."""

    def __init__(self, path: Path, *, deep: bool = False) -> None:
        self.path = Path(path)
        self.deep = deep
        self._frames: Iterator[np.ndarray] | None = None
        self._next = 0
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()

    def read(
        self, index: int
    ) -> UInt8[np.ndarray, "H W 3"] | UInt16[np.ndarray, "H W 3"] | Float32[np.ndarray, "H W 3"]:
        """Frame `index`, as `iter_video` gives it. Raises ValueError when the video ends before it."""
        if index not in self._kept:
            if self._frames is None or index < self._next:
                self._frames, self._next = iter_video(self.path, deep=self.deep), 0
            while self._next <= index:
                frame = next(self._frames, None)
                if frame is None:
                    raise ValueError(f"{self.path}: frame {index} asked for; the last is {self._next - 1}")
                self._kept[self._next] = frame
                self._next += 1
                while len(self._kept) > KEPT_FRAMES:
                    self._kept.popitem(last=False)
        return self._kept[index].copy()


def timed_packets(container: Any, streams: Collection[Any]) -> Iterator[Any]:
    """The packets of these streams (and an empty one at the end of each), on one clock that does not jump.

    Where the format's clock may begin anywhere and start again, the first picture is at zero (or the sound, where it
    begins well before), and after a jump the pictures go on evenly; sound is moved with them.
    """
    from av.format import Flags

    if not container.format.flags & Flags.ts_discont.value:
        yield from container.demux(*streams)
        return
    with open_media(Path(container.name)) as again:
        jumps = _jumps(again)
    media = [stream for stream in container.streams if stream.type in ("video", "audio")]
    wanted, shift, number = {stream.index for stream in streams}, Fraction(0), 0
    others = [stream for stream in streams if stream.type not in ("video", "audio")]
    ends: dict[int, int] = {}
    for packet in container.demux(*media, *others):
        if packet.size and packet.stream.type in ("video", "audio"):
            shift = jumps.get(number, shift)
            number += 1
        if packet.stream.index in wanted:
            move(packet, shift)
            if packet.dts is not None and packet.stream.type != "video":
                if packet.dts <= ends.get(packet.stream.index, packet.dts - 1):
                    continue  # sound that was longer than the pictures before a jump
                ends[packet.stream.index] = packet.dts
            yield packet


def move(packet: Any, seconds: Fraction) -> None:
    """Add to the times of a packet, in place."""
    units = round(seconds / packet.time_base)
    packet.pts = None if packet.pts is None else packet.pts + units
    packet.dts = None if packet.dts is None else packet.dts + units


def _jumps(container: Any) -> dict[int, Fraction]:
    """From which packet of pictures and sound on which seconds are to be added to the times of all."""
    pictures = main_video(container).index
    media = [stream for stream in container.streams if stream.type in ("video", "audio")]
    parts: list[dict[int, list[Fraction]]] = [{}]  # between two jumps: of each stream, times in decoding order
    starts, number, latest = [0], 0, Fraction(0)
    begins: dict[int, Fraction] = {}  # when each stream's first picture or sound is
    for packet in container.demux(*media):
        if not packet.size:
            continue
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is not None:
            time = stamp * packet.time_base
            if len(parts) == 1:
                begins.setdefault(packet.stream.index, (stamp if packet.pts is None else packet.pts) * packet.time_base)
            before = parts[-1].get(packet.stream.index)
            if before is not None and (time < before[-1] or time > latest + JUMP_S):
                parts.append({})
                starts.append(number)
            parts[-1].setdefault(packet.stream.index, []).append(time)
            latest = time if len(parts[-1]) == 1 else max(latest, time)
        number += 1
    found, end = {}, None
    for start, part in zip(starts, parts, strict=True):
        index = pictures if pictures in part else next(iter(part), None)
        if index is None:
            continue
        times = part[index]
        first = begins.get(pictures, times[0])
        heard = [time for time in begins.values() if first - JUMP_S < time < first - RUN_UP_S]
        shift = -min([first, *heard]) if end is None else end - times[0]
        steps = [after - before for before, after in itertools.pairwise(times)]
        end = times[-1] + shift + (statistics.median_low(steps) if steps else Fraction(1, 25))
        found[start] = shift
    return found


def _decoded(path: Path, *, is_whole: bool, sizes: list[int]) -> Generator[Any, None, None]:
    """Frames; `sizes` gets those of the packets that should show one. A packet that cannot be decoded gives none, and
    unless the file `is_whole` a single thread decodes, because others lose what they hold then, too."""
    from av.error import FFmpegError

    with open_media(path) as container:
        stream = main_video(container)
        stream.thread_type = "AUTO" if is_whole else "NONE"
        # where neither file nor codec say otherwise; the scaler would take it as centred
        stream.codec_context.options = {"chroma_sample_location": "left", "max_pixels": str(MAX_PIXELS)}
        codec = stream.codec_context.codec.canonical_name
        is_marked = codec not in TELL_INTERLACED and int(stream.codec_context.field_order) > 1
        at_left: Callable[[Any], Any] | None = None
        damage: FFmpegError | None = None
        any_frame = False
        packets = timed_packets(container, [stream])
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError as error:
                raise ValueError(f"{path}: damaged video ({error.strerror})") from None
            if packet is None:
                break
            if packet.size and not packet.is_discard:
                sizes.append(packet.size)
            try:
                frames = packet.decode()
            except FFmpegError as error:
                damage = error
                continue
            for frame in frames:
                any_frame = True
                if codec == "hevc" and "422" in frame.format.name:  # of which FFmpeg's decoder says nothing
                    at_left = at_left or _chroma_at_left(stream)
                    frame = at_left(frame)
                _check_frame(path, frame, is_marked)
                if not int(frame.color_range) and codec in LIMITED_BY_DEFAULT:
                    frame.color_range = LIMITED_RANGE
                yield frame
        if damage is not None and not any_frame:
            raise ValueError(f"{path}: damaged video ({damage.strerror})")


def _chroma_at_left(stream: Any) -> Callable[[Any], Any]:
    """What states of a frame where its chroma lies."""
    import av

    graph = av.filter.Graph()
    chain = graph.add_buffer(template=stream), graph.add("setparams", "chroma_location=left"), graph.add("buffersink")
    graph.link_nodes(*chain).configure()

    def stated(frame: Any) -> Any:
        graph.vpush(frame)
        return graph.vpull()

    return stated


def _check_frame(path: Path, frame: Any, is_marked: bool) -> None:
    if frame.interlaced_frame or is_marked:
        raise ValueError(
            f"{path}: interlaced, so that its rows are of two times; allowed: progressive video, as ffmpeg makes it "
            f"(-vf bwdif, or -vf setfield=prog where a progressive one is only marked so)"
        )
    transfer = int(frame.color_trc)
    if transfer in UNREAD_TRANSFERS:
        raise ValueError(f"{path}: its transfer curve is {UNREAD_TRANSFERS[transfer]}; allowed: a display's, PQ or HLG")


def _rising(
    path: Path, found: Sequence[int | None], shift: int, time_base: Fraction, stated: Fraction
) -> tuple[int, ...]:
    if any(pts is None for pts in found):
        if stated <= 0:
            raise ValueError(f"{path}: a video without timestamps and without a frame rate")
        return tuple(round(index / (stated * time_base)) for index in range(len(found)))
    stamps = [pts + shift for pts in found if pts is not None]
    return tuple(itertools.accumulate(stamps, lambda before, pts: max(before + 1, pts)))


def _frame_rate(pts: Sequence[int], time_base: Fraction, stated: Fraction) -> float:
    """Of most steps between frames where they are equal but for rounding, otherwise of all; as the file states it where
    that is the same but for rounding, or nothing else is known."""
    steps = [after - before for before, after in itertools.pairwise(pts)]
    if not steps:
        return float(stated)
    median = statistics.median_low(steps)
    near = [step for step in steps if abs(step - median) <= 1]
    chosen = near if 2 * len(near) > len(steps) else steps
    mean_s = Fraction(sum(chosen), len(chosen)) * time_base
    slack_s = time_base / len(chosen)
    return float(stated if stated > 0 and abs(1 / stated - mean_s) <= slack_s else 1 / mean_s)


def _quarter_turns(frame: Any) -> int:
    return round(frame.rotation / 90) % 4
