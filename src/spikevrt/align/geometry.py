"""What a spike file without a header may hold: every plausible reading of its size, each with its evidence.

Nothing is decided here. A reading is a size, a format and an order of rows under which the file is a whole number of
ticks; its number depends on the file's size and on nothing else, so that a person can confirm it later.

Dimension key: T probed ticks, h sensor rows, w sensor columns, n tag bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spikevrt.align.pairing import ORIENTATIONS, correlation, detail, linear_light, orientation_scores, to_luminance
from spikevrt.recording.frames import IMAGE_SUFFIXES, list_images, read_image
from spikevrt.recording.sidecar import HEADERLESS, ROWS, SPIKE_KINDS, StreamFormat
from spikevrt.recording.spike_file import SpikeGeometry, read_spikes
from spikevrt.recording.spike_formats import bytes_per_tick, open_stream
from spikevrt.recording.video import VideoReader, probe_video

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8

# (width, height) of the sensors and datasets that we know of; only ever offered, never assumed
KNOWN_SIZES = (
    *((400, 250), (416, 250), (1000, 1000), (1024, 1000), (800, 500), (1280, 720), (640, 360), (320, 180)),
    *((480, 270), (240, 136), (512, 512), (384, 384), (256, 256), (250, 250), (224, 224), (128, 128), (96, 96)),
)
TAGGED_SIZES = ((400, 250, 16),)  # (width, height, tag bits a row)
PROBE_TICKS, PROBE_BITS = 256, 1 << 25  # from the middle of the file, for each reading
PHASES = 4  # the ticks are dealt to so many pictures, which must agree when the tick's length is right
COPIES = 0.8  # halves of a picture that resemble each other more than this show the same


@dataclass(frozen=True)
class Reading:
    """One way to read a file; correlations are NaN where a picture is flat, or None where the test does not apply.

    number: what the user confirms.
    rows, columns: of the mean picture, neighbouring rows and columns with each other: near 1 for a scene.
    steady: the least correlation between the mean pictures of every fourth tick: near 1 when the ticks are that long.
    copies: correlation of the picture's halves (left and right, or top and bottom): near 1 when the size is a multiple.
    tags: what the bits behind the pixels do: "never change", "count", "look like pixels"; None: no such bits.
    fit: correlation with the colour frame for each of ORIENTATIONS.
    """

    number: int
    format: StreamFormat
    num_ticks: int
    rows: float
    columns: float
    steady: float
    copies: float
    tags: str | None
    fit: tuple[float, ...] | None
    picture: Float[np.ndarray, "h w"]

    @property
    def likelihood(self) -> float:
        """A sum of the evidence by which readings are listed, and nothing else."""
        known = [np.nan_to_num(value, nan=-1.0) for value in (self.rows, self.columns, self.steady)]
        score = sum(known) / 3 - (0.5 if self.copies > COPIES else 0.0)
        score += {"never change": 0.3, "count": 0.3, "look like pixels": -0.5, None: 0.0}[self.tags]
        if self.format.kind == "sps100":
            score += 1.0  # every half-row's address was checked
        if self.fit is not None:
            score += float(np.nan_to_num(self.fit[0], nan=-1.0))
        return float(score)

    def line(self) -> str:
        told = [
            f"{self.number:3d}  {self.format.describe()}: {self.num_ticks} ticks",
            f"rows {self.rows:.2f}, columns {self.columns:.2f}, time {self.steady:.2f}",
        ]
        if self.copies > COPIES:
            told.append("its halves are copies of each other")
        if self.tags is not None:
            told.append(f"tags {self.tags}")
        if self.format.kind == "sps100":
            told.append("line tags right")
        if self.format.kind == "bytes":
            told.append("all probed bytes are 0 or 1")
        if self.fit is not None:
            best = int(np.argmax(np.nan_to_num(self.fit, nan=-1.0)))
            told.append(f"frame {self.fit[0]:.2f}" + (f" ({self.fit[best]:.2f} {ORIENTATIONS[best]})" if best else ""))
        return "; ".join(told)


def list_readings(
    path: Path, *, sizes: Sequence[tuple[int, int]] = (), frame: UInt8[np.ndarray, "H W 3"] | None = None
) -> list[Reading]:
    """Every reading of the file under the known sizes and those of the user, the likeliest first (equals by number).

    `frame` is a colour picture of the same scene: each reading is then held against it in the eight orientations. At
    most 256 ticks of each reading are read, from the middle.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an empty file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such spike file")
    if not path.stat().st_size:
        raise ValueError(f"{path}: an empty spike file")
    readings = [
        _reading(path, number, form, num_ticks, frame)
        for number, (form, num_ticks) in enumerate(fitting_formats(path, sizes), 1)
    ]
    return sorted(readings, key=lambda reading: (-round(reading.likelihood, 6), reading.number))


def fitting_formats(path: Path, sizes: Sequence[tuple[int, int]] = ()) -> list[tuple[StreamFormat, int]]:
    """The formats, with their number of ticks, in a fixed order: known sizes first, those of the user behind them."""
    formats = [StreamFormat(name, *kind.size) for name, kind in SPIKE_KINDS.items() if kind.size is not None]
    guessed = [name for name in HEADERLESS if SPIKE_KINDS[name].size is None]
    own = [size for size in dict.fromkeys(sizes) if size not in KNOWN_SIZES]
    for known in (KNOWN_SIZES, own):
        for name in guessed:
            if name == "bytes" and not _is_binary(path):
                continue
            order = (ROWS[SPIKE_KINDS[name].bottom_up], ROWS[not SPIKE_KINDS[name].bottom_up])  # the usual one first
            tagged = TAGGED_SIZES if known is KNOWN_SIZES and SPIKE_KINDS[name].has_tags else ()
            for width, height, tag_bits in (*((*size, 0) for size in known), *tagged):
                formats += [StreamFormat(name, width, height, rows, tag_bits) for rows in order]
    found = []
    for form in formats:
        num_ticks = _num_ticks(path, form)
        if num_ticks:
            found.append((form, num_ticks))
    return found


def read_frame(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """The middle frame of a folder of images or of a video, or the image itself."""
    path = Path(path)
    if path.is_dir():
        images = list_images(path)
        return read_image(images[len(images) // 2])
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return read_image(path)
    return VideoReader(path).read(probe_video(path).num_frames // 2)


def row_correlation(picture: np.ndarray) -> float:
    """Correlation of each row with the next one: near 1 for a scene, near 0 when the width is wrong; NaN if flat."""
    return correlation(picture[:-1], picture[1:]) if len(picture) > 1 else float("nan")


def _num_ticks(path: Path, form: StreamFormat) -> int:
    """0 where the file is no whole number of ticks, or has no half-row addresses of that kind."""
    if form.kind == "sps100":
        try:
            return open_stream(path, form).num_ticks
        except ValueError:
            return 0
    num_ticks, rest = divmod(path.stat().st_size, bytes_per_tick(form))
    return 0 if rest else num_ticks


def _is_binary(path: Path) -> bool:
    """Whether all bytes of three probes of the file (begin, middle, end) are 0 or 1, and not all of them 0."""
    num_bytes = path.stat().st_size
    mapped = np.memmap(path, dtype=np.uint8, mode="r")
    size = min(num_bytes, 1 << 20)
    probes = [mapped[start : start + size] for start in (0, (num_bytes - size) // 2, num_bytes - size)]
    return all(int(probe.max()) <= 1 for probe in probes) and any(bool(probe.any()) for probe in probes)


def _reading(
    path: Path, number: int, form: StreamFormat, num_ticks: int, frame: UInt8[np.ndarray, "H W 3"] | None
) -> Reading:
    assert form.width is not None and form.height is not None
    length = min(num_ticks, PROBE_TICKS, max(1, PROBE_BITS // (form.width * form.height)))
    start = (num_ticks - length) // 2
    spikes = open_stream(path, form).read(start, start + length)
    picture = spikes.mean(axis=0, dtype=np.float32)
    phases = [spikes[k::PHASES].mean(axis=0, dtype=np.float32) for k in range(min(PHASES, length))]
    fit = None
    if frame is not None:
        light = to_luminance(linear_light(frame, picture.shape))
        fit = tuple(float(score) for score in orientation_scores(picture[None], light[None])[0])
    steady = [correlation(phases[0], phase) for phase in phases[1:]]
    return Reading(
        number=number,
        format=form,
        num_ticks=num_ticks,
        rows=row_correlation(picture),
        columns=row_correlation(picture.T),
        steady=min(steady) if steady else float("nan"),
        copies=_copies(picture),
        tags=_tags(path, form, start, length),
        fit=fit,
        picture=picture,
    )


def _copies(picture: Float[np.ndarray, "h w"]) -> float:
    """The better correlation of left with right and top with bottom; -1 where there are no halves."""
    picture = detail(picture)
    rows, columns = (size // 2 for size in picture.shape)
    halves = [(picture[:, :columns], picture[:, columns : 2 * columns]), (picture[:rows], picture[rows : 2 * rows])]
    return max(float(np.nan_to_num(correlation(a, b), nan=-1.0)) if a.size else -1.0 for a, b in halves)


def _tags(path: Path, form: StreamFormat, start: int, length: int) -> str | None:
    """What the bits behind each row's pixels do from tick to tick and from row to row."""
    if form.kind != "packed" or not form.tag_bits:
        return None
    assert form.width is not None and form.height is not None
    whole = replace(form, width=form.width + form.tag_bits, tag_bits=0)
    geometry = SpikeGeometry(form.width + form.tag_bits, form.height, whole.is_bottom_up)
    tags = read_spikes(path, geometry, start, start + length)[:, :, form.width :]
    if float((tags == tags[0]).all(axis=0).mean()) >= 0.9:
        return "never change"
    words = (tags.astype(np.int64) << np.arange(form.tag_bits)).sum(axis=2)
    for steps in (np.diff(words, axis=0), np.diff(words, axis=1)):
        values, counts = np.unique(steps, return_counts=True)
        if steps.size and counts.max() >= 0.9 * steps.size and values[counts.argmax()]:
            return "count"
    return "look like pixels"
