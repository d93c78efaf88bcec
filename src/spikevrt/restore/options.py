"""The settings of a restoration: how footage is cut up, on what it runs, and what is written.

A field with a help text (`Annotated`) is an option of the verbs that restore, so nothing here loads torch or NumPy.

Dimension key: T frames, H W frame rows and columns.
"""

from __future__ import annotations

import math
import mimetypes
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, get_args

from spikevrt.config import TRUST_CUSTOM, Device, Precision
from spikevrt.recording.sidecar import SUFFIX_KINDS
from spikevrt.recording.video import VIDEO_SUFFIXES

CODECS = ("h264", "hevc", "av1", "ffv1")
CONTAINERS = {".mp4": ("h264", "hevc", "av1"), ".mov": ("h264", "hevc"), ".mkv": CODECS}
DEFAULT_CRF = {"h264": 16, "hevc": 16, "av1": 18}
CRF_WORDS = ", ".join(f"{codec} {crf}" for codec, crf in DEFAULT_CRF.items())
MAX_CRF = {"h264": 51, "hevc": 51, "av1": 63}
MIN_SIDE = 64  # pixels, of HEVC and AV1: x265 writes outside its memory below 50 columns; SVT-AV1 fails


@dataclass(frozen=True)
class VideoFormat:
    """How video is encoded. `crf` (quality, lower is better) is of lossy video; ffv1 is lossless whatever is said.
    Raises ValueError: a value or a combination that no encoder here has, with what is allowed."""

    codec: Annotated[
        str | None, "of video: h264, hevc, av1, or ffv1, which needs .mkv (h264; hevc where it has 10 bits)"
    ] = None
    lossless: Annotated[bool, "video whose pixels are those restored"] = False
    bits: Annotated[int | None, "of video: 8 or 10 (10 where the source has more than 8)"] = None
    crf: Annotated[int | None, f"quality of lossy video, lower is better ({CRF_WORDS}; of HDR less)"] = None

    def __post_init__(self) -> None:
        if self.codec not in (None, *CODECS):
            raise ValueError(f"codec: {self.codec!r}; allowed: {', '.join(CODECS)}")
        if self.bits not in (None, 8, 10):
            raise ValueError(f"bits: {self.bits}; allowed: 8, 10")
        if self.lossless and self.codec == "av1":
            raise ValueError("lossless: not with `codec` av1, whose encoder has no RGB; allowed: h264, hevc, ffv1")
        if self.lossless and self.codec == "h264" and self.bits == 10:
            raise ValueError("bits: 10 with `lossless` h264, whose encoder has RGB of 8 bits only; allowed: hevc, ffv1")
        if self.crf is not None and self.is_lossless:
            raise ValueError(f"crf: {self.crf} with `lossless`; allowed: none")
        codec = self.codec or "h264"
        if self.crf is not None and not 0 < self.crf <= MAX_CRF[codec]:
            raise ValueError(f"crf: {self.crf}; allowed with {codec}: 1 to {MAX_CRF[codec]}")

    @property
    def is_lossless(self) -> bool:
        """Whether RGB of `bits` bits comes back as it went in."""
        return self.lossless or self.codec == "ffv1"

    def settled(self, source_bits: int = 8, side: int = MIN_SIDE) -> VideoFormat:
        """With codec and bits chosen, for a source of so many bits and pictures whose shorter side is `side` pixels:
        H.264, and HEVC where there are more than 8 bits, which hardly any player shows in H.264."""
        bits = self.bits or (10 if source_bits > 8 else 8)
        codec = self.codec or ("hevc" if bits == 10 and side >= MIN_SIDE else "h264")
        if self.bits is None and self.lossless and codec == "h264":
            bits = 8  # whose encoder has RGB of 8 bits only
        return replace(self, codec=codec, bits=bits)


def check_container(path: Path, format: VideoFormat) -> None:
    """Raises ValueError unless the suffix of `path` is a container that can hold the format."""
    suffix = Path(path).suffix.lower()
    if suffix not in CONTAINERS:
        raise ValueError(f"{path}: cannot write {suffix or 'a video without suffix'}; allowed: {', '.join(CONTAINERS)}")
    if format.codec not in (None, *CONTAINERS[suffix]):
        fitting = [name for name, codecs in CONTAINERS.items() if format.codec in codecs]
        raise ValueError(f"{path}: {suffix} does not hold {format.codec}; allowed: {', '.join(fitting)}")


FILE_SUFFIXES = (".dat", ".json", ".yaml", ".yml", ".html", ".csv", ".zip", ".safetensors", ".pt2", ".onnx")
FRAME_KINDS = {"png": ".png", "png16": ".png", "tiff16": ".tiff", "exr": ".exr"}


@dataclass(frozen=True)
class RestoreOptions:
    """How footage is cut up, and on what it runs. Tiles are rounded down to what the network and the spike ratio can
    divide; what tiles and clips share may be more than asked for.

    `ignore_health` names findings of the health gate (`align.health.NAMES`). `without_spikes` needs a network trained
    with `data.spike_dropout`. `skip_sharp` compares the activity of a tile's spikes (`represent.inputs`: 1 for a
    still scene); None: the network runs everywhere.
    """

    tile_px: Annotated[int, "side of a spatial tile, 0: the whole picture"] = 256
    overlap_px: Annotated[int, "overlap of spatial tiles"] = 32
    clip_frames: Annotated[int, "frames restored together, 0: all"] = 5
    overlap_frames: Annotated[int, "frames that two clips share"] = 1
    device: Annotated[Device, "auto takes a GPU where there is one"] = "auto"
    precision: Annotated[Precision, "of the network's arithmetic"] = "fp32"
    ignore_health: Annotated[tuple[str, ...], "findings of `inspect` that shall not refuse (none)"] = ()
    without_spikes: Annotated[bool, "run a network that reads spikes on the frames alone"] = False
    skip_sharp: Annotated[
        float | None, "leave tiles where little moves: activity below X, about 1 where nothing does (none)"
    ] = None
    trust_custom: Annotated[tuple[str, ...], TRUST_CUSTOM, "MODULE:FACTORY"] = ()
    strict: Annotated[bool, "what the health gate cannot tell refuses a recording too"] = False

    def __post_init__(self) -> None:
        if self.tile_px < 0:
            raise ValueError(f"tile_px: {self.tile_px}; allowed: 0 (the whole picture) or more")
        if self.clip_frames < 0 or self.clip_frames == 1:
            raise ValueError(f"clip_frames: {self.clip_frames}; allowed: 0 (the whole recording), 2 or more")
        if self.overlap_px < 0 or 0 < self.tile_px <= self.overlap_px:
            raise ValueError(f"overlap_px: {self.overlap_px}; allowed: 0 or more, and less than tile_px {self.tile_px}")
        if self.overlap_frames < 0 or 0 < self.clip_frames <= self.overlap_frames:
            allowed = f"0 or more, and less than clip_frames {self.clip_frames}"
            raise ValueError(f"overlap_frames: {self.overlap_frames}; allowed: {allowed}")
        if self.device not in get_args(Device):
            raise ValueError(f"device: {self.device!r}; allowed: {', '.join(get_args(Device))}")
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision: {self.precision!r}; allowed: {', '.join(get_args(Precision))}")
        if self.skip_sharp is not None and not 0 < self.skip_sharp < math.inf:
            raise ValueError(f"skip_sharp: {self.skip_sharp}; allowed: above 0 (a still scene reads about 1)")
        if self.strict and self.without_spikes:
            raise ValueError("strict: not with `without_spikes`, which does not look at the spikes")
        if self.skip_sharp is not None and self.without_spikes:
            raise ValueError(
                f"skip_sharp: {self.skip_sharp}; allowed with without_spikes: none (spikes tell what moves)"
            )


@dataclass(frozen=True)
class Output:
    """What is written: `frames` is of `FRAME_KINDS`; with `video` also a video beside the frames; `format` is of
    any video."""

    frames: Annotated[str, ", ".join(FRAME_KINDS)] = "png"
    video: Annotated[bool, "beside the frames, a video of them"] = False
    format: VideoFormat = field(default_factory=VideoFormat)

    def __post_init__(self) -> None:
        if self.frames not in FRAME_KINDS:
            raise ValueError(f"frames: {self.frames!r}; allowed: {', '.join(FRAME_KINDS)}")

    def check(self, out: Path) -> None:
        """Raises ValueError where `out` cannot be what is asked for."""
        if is_video(out):
            if self.video:
                raise ValueError(f"video: {out} is the video already; allowed: false, or a folder for frames")
            check_container(out, self.format)
            return
        if names_a_file(out):
            allowed = f"a video ({', '.join(CONTAINERS)}), or a folder, in which frames are {', '.join(FRAME_KINDS)}"
            raise ValueError(f"out: {out}: no {out.suffix} is written; allowed: {allowed}")
        if self.video:
            check_container(Path("restored.mp4"), self.format)


def names_a_file(path: Path) -> bool:
    """Whether that is no name for a folder: its suffix is of media, or of files that are read or written here."""
    media = (mimetypes.MimeTypes().guess_type(path.name)[0] or "").startswith(("video/", "image/", "audio/"))
    return media or path.suffix.lower() in (*VIDEO_SUFFIXES, *FRAME_KINDS.values(), *SUFFIX_KINDS, *FILE_SUFFIXES)


def is_video(out: Path) -> bool:
    """Whether that name is a video's, by its suffix; else it is a folder of frames."""
    return out.suffix.lower() in CONTAINERS


@dataclass(frozen=True)
class JobOptions:
    """How a restoration is delivered. `video_pieces` makes video (`mux.pieces.video_pieces`); `made_with` is what the
    caller will know the result by (`batch`); without `keep` nothing stays of what was stopped."""

    fps_factor: Annotated[int, "slow motion: N sharp frames for one"] = 1
    memory: Annotated[str | None, "of this process at most, as 6GiB (what is free)"] = None
    restart: Annotated[bool, "throw away what an unfinished job has"] = False
    overwrite: bool = False
    keep: bool = True
    output: Output = field(default_factory=Output)
    video_pieces: Callable[..., Any] | None = None
    made_with: dict[str, Any] | None = None

    def check(self, out: Path) -> None:
        """Raises ValueError where `out` cannot be what is asked for."""
        self.output.check(out)
        if self.video_pieces is None and (self.output.video or is_video(out)):
            raise ValueError(f"{out}: a video, but nothing that makes one was handed in; allowed: a folder")
