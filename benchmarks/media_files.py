"""Small video files of every kind that PyAV can make, and what each of them shows: the inputs of media_matrix.py.

A file is a `Case`: one value of each dimension of `DIMENSIONS`. `why_not` says which cases cannot be made, and why;
`covering` chooses cases in which every pair of values that can be had together stands at least once.

The picture (`SCENE`, drawn in RGB and coded in NumPy, without FFmpeg's scaler): eight flat patches; the frame's number
in four blocks, black or white; a vertical and a horizontal edge between two colours. The sound is a beep.

Dimension key: H rows, W columns.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT, NUM_FRAMES = 96, 64, 12  # of what is drawn; a file may have some columns and rows more
TICK = Fraction(1, 120000)  # whole ones are between frames of 23.976, 25, 29.97 and 59.94 a second
SOUND_HZ, BEEP_S, SOUND_S = 48000, Fraction(1, 10), Fraction(6, 10)
PATCHES = {  # display values of 255, 24 x 16 pixels each, from the upper left corner on
    "white": (255, 255, 255), "grey": (128, 128, 128), "near black": (16, 16, 16), "red": (190, 50, 40),
    "green": (50, 170, 70), "blue": (45, 60, 190), "yellow": (215, 200, 70), "skin": (205, 150, 120),
}  # fmt: skip
EDGE = (200, 100, 60), (60, 115, 200)  # of its two sides, between which it takes RAMP_PX
RAMP_PX = 6

DIMENSIONS: dict[str, tuple[Any, ...]] = {
    "container": ("mp4", "mov", "mkv", "webm", "ts", "avi"),
    "codec": ("h264", "hevc", "av1", "vp9", "ffv1", "prores", "mjpeg", "mpeg2"),
    "bits": (8, 10, 12),
    "range": ("limited", "full"),
    "matrix": ("bt601", "bt709", "bt2020nc", "untagged"),
    "chroma": ("420", "422", "444", "grey"),
    "alpha": (False, True),
    "transfer": ("sdr", "PQ", "HLG"),
    "size": ("96x64", "98x66", "97x65", "96x720"),
    "rate": ("24000/1001", "25", "30000/1001", "60000/1001", "variable"),
    "rotation": (0, 90, 180, 270),
    "aspect": ("1", "4/3", "16/11"),
    "scan": ("progressive", "interlaced"),
    "sound": ("none", "aac", "mp3", "opus", "flac", "pcm", "ac3", "wma"),
    "offset": ("0", "1/4", "-1/10"),
    "clock": ("from 0", "wraps"),
    "written": ("default", "hevc", "av1"),
}
# what of the other dimensions can be had depends on some of these
SIGNAL = ("container", "codec", "bits", "range", "matrix", "chroma", "alpha", "transfer", "size")
VIDEO_ENCODERS = {
    "h264": "libx264", "hevc": "libx265", "av1": "libsvtav1", "vp9": "libvpx-vp9", "ffv1": "ffv1",
    "prores": "prores_ks", "mjpeg": "mjpeg", "mpeg2": "mpeg2video",
}  # fmt: skip
SOUND_ENCODERS = {
    "aac": "aac", "mp3": "libmp3lame", "opus": "libopus", "flac": "flac", "pcm": "pcm_s16le", "ac3": "ac3",
    "wma": "wmav2",
}  # fmt: skip
MUXERS = {"mkv": "matroska", "ts": "mpegts"}
HELD_VIDEO = {
    "mp4": "h264 hevc av1 vp9 ffv1 mjpeg mpeg2", "mov": "h264 hevc prores mjpeg mpeg2",
    "mkv": "h264 hevc av1 vp9 ffv1 prores mjpeg mpeg2", "webm": "av1 vp9", "ts": "h264 hevc mpeg2",
    "avi": "h264 av1 vp9 ffv1 mjpeg mpeg2",
}  # fmt: skip
HELD_SOUND = {
    "mp4": "aac mp3 opus flac pcm ac3", "mov": "aac mp3 pcm ac3", "mkv": "aac mp3 opus flac pcm ac3", "webm": "opus",
    "ts": "aac mp3 opus ac3", "avi": "aac mp3 pcm ac3 wma",
}  # fmt: skip
# FFmpeg's codes of matrix, primaries, transfer
TAGS = {"bt601": (6, 6, 6), "bt709": (1, 1, 1), "bt2020nc": (9, 9, 14), "untagged": (2, 2, 2)}
TRANSFERS = {"PQ": 16, "HLG": 18}
NO_SOUND = "an offset needs sound"
LUMA = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020nc": (0.2627, 0.0593)}  # of red, of blue


@dataclass(frozen=True)
class Case:
    """One file: a value of each dimension. `offset`: by how many seconds the sound begins after the video; `clock`:
    whether the 33 bits of a transport stream's clock run over while it plays; `written`: as what it is to come out."""

    container: str
    codec: str
    bits: int
    range: str
    matrix: str
    chroma: str
    alpha: bool
    transfer: str
    size: str
    rate: str
    rotation: int
    aspect: str
    scan: str
    sound: str
    offset: str
    clock: str
    written: str

    def words(self) -> str:
        """The values, but those that are the ordinary ones."""
        plain = {"alpha": False, "transfer": "sdr", "size": "96x64", "rotation": 0, "aspect": "1", "offset": "0"}
        plain |= {"scan": "progressive", "clock": "from 0", "written": "default"}
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return ", ".join(valued(name, value) for name, value in given.items() if plain.get(name) != value)

    @property
    def shape(self) -> tuple[int, int]:
        """H, W, as it is stored."""
        width, height = map(int, self.size.split("x"))
        return height, width

    @property
    def is_centred(self) -> bool:
        """Whether a sample of chroma lies in the middle of its pixels, as JPEG has it, and not at the left ones."""
        return self.codec == "mjpeg"

    @property
    def coded_bits(self) -> int:
        """Of what enters the encoder. The one of ProRes 4444, which is of 12 bits, takes 10."""
        return 10 if self.codec == "prores" else self.bits

    def times(self) -> list[Fraction]:
        """When each frame begins, in seconds."""
        step = 1 / Fraction("25" if self.rate == "variable" else self.rate)
        uneven = (0, 4, 8, 11, 17, 20, 24, 29, 32, 36, 40, 45)
        start = max(Fraction(0), -Fraction(self.offset))
        return [start + (Fraction(uneven[i], 100) if self.rate == "variable" else i * step) for i in range(NUM_FRAMES)]


def valued(name: str, value: Any) -> str:
    """A value in words that can stand alone."""
    if name == "alpha":
        return "alpha" if value else "no alpha"
    units = {"bits": "bits", "range": "range", "chroma": "", "rate": "fps", "rotation": "degrees", "sound": "sound"}
    if name in ("aspect", "offset", "clock", "written"):
        return f"{name} {value}"
    return f"{value} {units.get(name, '')}".strip()


def why_not(case: Case) -> str | None:
    """What keeps PyAV from making the file so that it can be told from the file; None: it can."""
    return _no_signal(case) or _no_rest(case)


def _no_signal(case: Case) -> str | None:
    at, codec, is_grey = case.container, case.codec, case.chroma == "grey"
    if codec not in HELD_VIDEO[at].split():
        return "the container does not hold the codec"
    if codec == "prores" and case.bits != (12 if case.chroma == "444" else 10):
        return "ProRes is of 10 bits, ProRes 4444 of 12"
    if _pixels(case) not in _pixels_taken(VIDEO_ENCODERS[codec]):
        return "the encoder here has no such pixels"
    if codec in ("vp9", "hevc") and case.alpha:
        return "no alpha of this codec is written or read here"
    if case.range == "full" and (codec in ("mpeg2", "prores") or (codec == "ffv1" and at != "mkv" and not is_grey)):
        return "nothing in the file can tell full range"
    if case.range == "limited" and codec == "ffv1" and at != "mkv" and is_grey:
        return "nothing in the file can tell limited range, and grey FFV1 is taken as full"
    if codec == "mjpeg" and case.matrix != "bt601":
        return "Motion JPEG is always BT.601"
    if at == "avi" and codec == "ffv1" and case.matrix != "untagged":
        return "FFV1 in AVI has no place for colour tags"
    if case.size == "97x65" and case.chroma in ("420", "422"):
        return "an odd size of pixels that share their chroma"
    if case.transfer != "sdr" and (case.bits < 10 or case.matrix != "bt2020nc"):
        return "HDR is of 10 or more bits and BT.2020"
    return None


@functools.cache
def _pixels_taken(encoder: str) -> frozenset[str]:
    return frozenset(one.name for one in av.codec.Codec(encoder, "w").video_formats or ())


def _no_rest(case: Case) -> str | None:
    at, codec = case.container, case.codec
    if at == "avi" and case.rate == "variable":
        return "AVI counts frames and has no times"
    if at in ("ts", "avi") and case.rotation:
        return "the container has no place for a rotation"
    if case.aspect != "1" and (
        (at in ("mkv", "webm") and codec in ("av1", "vp9", "ffv1", "prores"))
        or (at == "avi" and codec in ("av1", "vp9", "ffv1"))
    ):
        return "neither codec nor (through PyAV) container states the pixel aspect"
    if case.aspect != "1" and codec == "mpeg2" and at not in ("mp4", "mov"):
        return "MPEG-2 states a few picture shapes, and this size with this pixel aspect is none of them"
    if case.scan == "interlaced" and not (
        codec in ("h264", "mpeg2", "prores") or (codec == "ffv1" and at in ("mkv", "mp4"))
    ):
        return "nothing here marks it as interlaced"
    if case.scan == "interlaced" and codec == "h264" and case.size in ("98x66", "97x65"):
        return "interlaced H.264 has whole fours of rows"
    if case.clock == "wraps" and at != "ts":
        return "only a transport stream's clock runs over"
    if at == "avi" and case.offset != "0":
        return "AVI has no place for an offset"
    if case.sound == "none" and case.offset != "0":
        return NO_SOUND
    if case.sound != "none" and case.sound not in HELD_SOUND[at].split():
        return "the container does not hold the sound"
    return None


Pair = tuple[str, Any, str, Any]


@dataclass(frozen=True)
class Group:
    """The files of one container, codec and size: their signals, and the values of each other dimension, which go with
    all of those (an offset only with sound)."""

    signals: list[dict[str, Any]]
    others: dict[str, list[Any]]

    def pairs(self) -> set[Pair]:
        """Every pair of values in a file of the group."""
        found = {pair for signal in self.signals for pair in itertools.combinations(signal.items(), 2)}
        both = itertools.combinations([(name, v) for name, values in self.others.items() for v in values], 2)
        found |= {pair for pair in both if pair[0][0] != pair[1][0]}
        of_signals = {item for signal in self.signals for item in signal.items()}
        found |= {(item, (name, v)) for item in of_signals for name, values in self.others.items() for v in values}
        return {(*one, *other) for one, other in found if not (one == ("sound", "none") and other[0] == "offset")} | {
            ("sound", "none", "offset", "0")
        }

    def draw(self, pair: Pair, draw: random.Random) -> dict[str, Any] | None:
        """A file with this pair; None: there is none."""
        given = {pair[0]: pair[1], pair[2]: pair[3]}
        if any(value not in self.others[name] for name, value in given.items() if name in self.others):
            return None
        asked = {name: value for name, value in given.items() if name not in self.others}
        fitting = [signal for signal in self.signals if asked.items() <= signal.items()]
        if not fitting:
            return None
        found = draw.choice(fitting) | {name: draw.choice(values) for name, values in self.others.items()} | given
        if found["sound"] == "none" and found["offset"] != "0":
            if "offset" in given:
                found["sound"] = draw.choice(self.others["sound"][1:])
            else:
                found["offset"] = "0"
        return found


def groups() -> list[Group]:
    """All files that can be made."""
    plain = {name: values[0] for name, values in DIMENSIONS.items()}
    found: dict[tuple[Any, ...], Group] = {}
    for values in itertools.product(*(DIMENSIONS[name] for name in SIGNAL)):
        signal = dict(zip(SIGNAL, values, strict=True))
        if _no_signal(Case(**plain | signal)) is not None:
            continue
        key = signal["container"], signal["codec"], signal["size"]  # what `_no_rest` asks for
        if key not in found:
            others = {
                name: [v for v in of if _no_rest(Case(**plain | signal | {name: v})) in (None, NO_SOUND)]
                for name, of in DIMENSIONS.items() if name not in SIGNAL
            }  # fmt: skip
            found[key] = Group([], others)
        found[key].signals.append(signal)
    return list(found.values())


def pairs_of(case: dict[str, Any]) -> Iterator[Pair]:
    """The pairs of values in it. One that is refused as interlaced shows nothing of its other values."""
    for (name, one), (other, value) in itertools.combinations(case.items(), 2):
        if case["scan"] == "progressive" or "scan" in (name, other):
            yield name, one, other, value


def covering(seed: int = 0) -> tuple[list[Case], Counter[str]]:
    """Cases with every pair of values that can be had at least once, drawn greedily; and how many pairs cannot, by
    the reason."""
    draw = random.Random(seed)
    every = groups()
    possible = set().union(*(group.pairs() for group in every))
    order = sorted(possible, key=repr)
    draw.shuffle(order)
    wanted, chosen = dict.fromkeys(order), []
    while wanted:
        pair = next(iter(wanted))
        drawn = [row for row in (draw.choice(every).draw(pair, draw) for _ in range(300)) if row is not None]
        drawn = drawn or [row for row in (group.draw(pair, draw) for group in every) if row is not None]
        best = max(drawn, key=lambda row: sum(one in wanted for one in pairs_of(row)))
        for one in pairs_of(best):
            wanted.pop(one, None)
        chosen.append(Case(**best))
    return chosen, _impossible(possible, chosen)


def _impossible(possible: set[Pair], made: list[Case]) -> Counter[str]:
    """Pairs that no file has, by what stands most often in the way of changing a file with one of the two values."""
    reasons: Counter[str] = Counter()
    for (name, ones), (other, others) in itertools.combinations(DIMENSIONS.items(), 2):
        for one, value in itertools.product(ones, others):
            if (name, one, other, value) not in possible:
                near = (case for case in made if getattr(case, name) == one or getattr(case, other) == value)
                found = Counter(why_not(replace(case, **{name: one, other: value})) for case in near)
                reasons[str(found.most_common(1)[0][0])] += 1
    return reasons


# --- the picture ------------------------------------------------------------------------------------------------------


def scene(number: int, shape: tuple[int, int]) -> np.ndarray:
    """Frame `number` as float64 RGB in [0, 1], (H, W, 3); what is behind the last row or column repeats it."""
    image = np.empty((HEIGHT, WIDTH, 3))
    for index, colour in enumerate(PATCHES.values()):
        row, column = divmod(index, 4)
        image[16 * row : 16 * row + 16, 24 * column : 24 * column + 24] = colour
    image[32:, :48] = 60
    for bit in range(4):
        image[36:52, 2 + 11 * bit : 12 + 11 * bit] = 235 if number >> bit & 1 else 20
    one, other = np.array(EDGE)
    across = np.clip((np.arange(24) - 11.5) / RAMP_PX + 0.5, 0, 1)[None, :, None]
    image[32:, 48:72] = one + across * (other - one)
    down = np.clip((np.arange(32) - 15.5) / RAMP_PX + 0.5, 0, 1)[:, None, None]
    image[32:, 72:] = one + down * (other - one)
    return np.pad(image / 255, ((0, shape[0] - HEIGHT), (0, shape[1] - WIDTH), (0, 0)), mode="edge")


def untagged_matrix(height: int) -> str:
    """What a file of so many rows that names no matrix is taken for."""
    return "bt709" if height >= 720 else "bt601"


def _coded(image: np.ndarray, case: Case) -> list[np.ndarray]:
    """The planes of Y, Cb, Cr (and alpha) as whole numbers of `case.coded_bits` bits."""
    top, step = (1 << case.coded_bits) - 1, 1 << (case.coded_bits - 8)
    red, blue = LUMA[untagged_matrix(case.shape[0]) if case.matrix == "untagged" else case.matrix]
    luma = image @ np.array([red, 1 - red - blue, blue])
    chroma = [(image[..., 2] - luma) / (2 * (1 - blue)), (image[..., 0] - luma) / (2 * (1 - red))]
    limited = case.range == "limited"
    planes = [luma * 219 * step + 16 * step if limited else luma * top]
    if case.chroma != "grey":
        scaled = [plane * (224 * step if limited else top) + 128 * step for plane in chroma]
        planes += [_subsampled(plane, case) for plane in scaled]
    if case.alpha:
        alpha = np.full(image.shape[:2], float(top))
        alpha[32:, :24] = top / 2
        planes.append(alpha)
    return [np.clip(np.rint(plane), 0, top) for plane in planes]


def _subsampled(plane: np.ndarray, case: Case) -> np.ndarray:
    if case.chroma in ("420", "422"):
        if case.is_centred:
            plane = (plane[:, ::2] + plane[:, 1::2]) / 2
        else:
            padded = np.pad(plane, ((0, 0), (1, 0)), mode="edge")
            plane = (padded[:, :-1:2] + 2 * padded[:, 1::2] + padded[:, 2::2]) / 4
    if case.chroma == "420":
        plane = (plane[::2] + plane[1::2]) / 2
    return plane


# --- the file ---------------------------------------------------------------------------------------------------------


def _pixels(case: Case) -> str:
    deep = "" if case.bits == 8 else f"{case.coded_bits}le"
    if case.chroma == "grey":
        return "no grey with alpha" if case.alpha else f"gray{deep}"
    j = "j" if case.codec == "mjpeg" and case.range == "full" else ""
    return f"yuv{'a' if case.alpha else ''}{j}{case.chroma}p{deep}"


def _options(case: Case) -> dict[str, str]:
    """Of the encoder: lossless where there is such a thing."""
    found = {
        "h264": {"qp": "0", "preset": "veryfast"},
        "hevc": {"x265-params": "lossless=1:log-level=none:pools=1", "preset": "veryfast"},
        "av1": {"crf": "5", "preset": "7", "svtav1-params": "lp=1"},
        "vp9": {"lossless": "1", "cpu-used": "8", "deadline": "realtime"},
        "ffv1": {"level": "3"},
        "prores": {"profile": "4444" if case.chroma == "444" else "hq", "bits_per_mb": "8000"},
        "mjpeg": {"qmin": "1", "qmax": "1", "strict": "unofficial"},
        "mpeg2": {"qmin": "1", "qmax": "1", "lmin": "1"},
    }[case.codec]
    if case.scan == "interlaced":
        found |= {"field_order": "tt"} if case.codec == "ffv1" else {"flags": "+ildct+ilme"}
    if case.container == "avi":
        found |= {"bf": "0"}
    return found


def make_file(case: Case, path: Path) -> None:
    """Encode the case. Raises ValueError (FFmpeg's among them) where it cannot be made after all."""
    assert why_not(case) is None, case
    os.environ.setdefault("SVT_LOG", "1")
    matrix, primaries, transfer = TAGS[case.matrix]
    options = {"video_track_timescale": str(TICK.denominator)} if case.container in ("mp4", "mov") else {}
    if case.clock == "wraps":  # behind the fourth frame, or so
        options["output_ts_offset"] = str(float(2**33 / 90000 - 0.15))
    with av.open(str(path), "w", format=MUXERS.get(case.container, case.container), container_options=options) as out:
        nominal = Fraction("25" if case.rate == "variable" else case.rate)
        video: Any = out.add_stream(VIDEO_ENCODERS[case.codec], rate=nominal, options=_options(case))
        video.height, video.width = case.shape
        video.pix_fmt = _pixels(case)
        context = video.codec_context
        colours = {
            "color_range": 2 if case.range == "full" else 1,
            "colorspace": matrix,
            "color_primaries": primaries,
            "color_trc": TRANSFERS.get(case.transfer, transfer),
        }
        for name, value in colours.items():
            setattr(context, name, value)
        context.sample_aspect_ratio, context.thread_count = Fraction(case.aspect), 1
        if case.rotation:
            video.set_display_rotation(case.rotation)
        sound: Any = None
        if case.sound != "none":
            sound = out.add_stream(SOUND_ENCODERS[case.sound], rate=SOUND_HZ, layout="mono")
            sound.codec_context.bit_rate = 96000
        packets = []
        for number in range(NUM_FRAMES):
            frame: Any = av.VideoFrame(video.width, video.height, video.pix_fmt)
            for plane, values in zip(frame.planes, _coded(scene(number, case.shape), case), strict=True):
                _fill(plane, values, case.coded_bits)
            for name, value in colours.items():
                setattr(frame, name, value)
            frame.pts, frame.time_base = number, 1 / nominal
            packets += video.encode(frame)
        for packet in [*packets, *video.encode()]:
            if case.container != "avi":
                packet.pts, packet.dts, packet.duration = (
                    _ticks(case, packet.pts),
                    _ticks(case, packet.dts),
                    _ticks(case, packet.pts + 1) - _ticks(case, packet.pts),
                )
                packet.time_base = TICK
            out.mux(packet)
        if sound is not None:
            out.mux(sound.encode(_beep(case)))
            out.mux(sound.encode())


def _ticks(case: Case, index: int) -> int:
    """When the frame begins; before the first and after the last at the nominal rate."""
    times = case.times()
    step = 1 / Fraction("25" if case.rate == "variable" else case.rate)
    outside = min(index, 0) + max(index - NUM_FRAMES + 1, 0)
    return round((times[index - outside] + outside * step) / TICK)


def _fill(plane: Any, values: np.ndarray, bits: int) -> None:
    dtype = np.uint8 if bits == 8 else np.uint16
    rows = np.zeros((plane.height, plane.line_size // np.dtype(dtype).itemsize), dtype)
    rows[:, : plane.width] = values
    plane.update(rows.tobytes())


def _beep(case: Case) -> Any:
    """The whole sound: 50 ms of 1 kHz after 0.1 s of silence."""
    sound, first = np.zeros(int(SOUND_S * SOUND_HZ)), int(BEEP_S * SOUND_HZ)
    sound[first : first + 2400] = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(2400) / SOUND_HZ)
    frame = av.AudioFrame.from_ndarray((sound * 32767).astype(np.int16)[None], format="s16", layout="mono")
    frame.rate, frame.time_base = SOUND_HZ, Fraction(1, SOUND_HZ)
    # an encoder's first packets lie before the sound, which in AVI would move the video by a part of a frame
    start = Fraction(1, 10) if case.container == "avi" else max(Fraction(0), Fraction(case.offset))
    frame.pts = int(start * SOUND_HZ)
    return frame
