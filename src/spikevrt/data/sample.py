"""One prepared sequence on disk, and the sample that is cut from it.

A sequence folder is `ROOT/{train,val}/SEQ/{blur,sharp,spike,spike_vox}/NNNNNN.{png,png,dat,npy}` plus `sequence.json`.
NNNNNN is the frame's index in its recording, so a dropped frame leaves a gap and no clip runs across it.

Dimension key: B samples, T frames, K bins, H x W colour pixels, h x w spike pixels (H = ratio * h, W = ratio * w).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor

from spikevrt.recording.frames import read_image, to_float
from spikevrt.recording.recording import Exposure
from spikevrt.recording.sidecar import ROWS
from spikevrt.recording.spike_file import SpikeGeometry, read_spikes
from spikevrt.represent.voxel import VoxelStats, normalise, voxelise

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8

SEQUENCE_FILE = "sequence.json"
SEQUENCE_FORMAT = "spikevrt-sequence"
SEQUENCE_VERSION = 1


class Meta(TypedDict):
    """Where a sample comes from: sequence, frame indices, exposure start and end in seconds."""

    seq: str
    frame_idx: list[int]
    t0: list[float]
    t1: list[float]


class Sample(TypedDict):
    """One clip. Frames are RGB in [0, 1]; voxels are log1p bin counts, standardised by the training set."""

    blur: Float[Tensor, "T 3 H W"]
    sharp: Float[Tensor, "T 3 H W"]
    spike_vox: NotRequired[Float[Tensor, "T K h w"]]
    meta: Meta


class Batch(TypedDict):
    """Several samples of one size; `meta` stays a list, one entry a sample."""

    blur: Float[Tensor, "B T 3 H W"]
    sharp: Float[Tensor, "B T 3 H W"]
    spike_vox: NotRequired[Float[Tensor, "B T K h w"]]
    meta: list[Meta]


@dataclass(frozen=True)
class Crop:
    """A field of view in colour pixels. Every number is a multiple of the sequence's ratio."""

    top_px: int
    left_px: int
    height_px: int
    width_px: int


@dataclass(frozen=True)
class PreparedSequence:
    """A prepared sequence: its folder, its sizes and the exposures that were kept, in time order."""

    folder: Path
    width: int
    height: int
    geometry: SpikeGeometry
    tick_rate_hz: float
    exposures: tuple[Exposure, ...]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def ratio(self) -> int:
        """Colour pixels per spike pixel, the same in both directions."""
        return self.width // self.geometry.width

    def path(self, kind: Literal["blur", "sharp", "spike", "spike_vox"], frame_idx: int) -> Path:
        suffix = {"blur": "png", "sharp": "png", "spike": "dat", "spike_vox": "npy"}[kind]
        return self.folder / kind / f"{frame_idx:06d}.{suffix}"

    def runs(self) -> list[range]:
        """Positions in `exposures` grouped into stretches without a dropped frame between them."""
        indices = [exposure.frame_idx for exposure in self.exposures]
        starts = [i for i in range(len(indices)) if i == 0 or indices[i] != indices[i - 1] + 1]
        return [range(a, b) for a, b in zip(starts, [*starts[1:], len(indices)], strict=True)]


def frame_ratio(width: int, height: int, geometry: SpikeGeometry, name: str) -> int:
    """Colour pixels per spike pixel. Raises ValueError unless it is one whole number for both directions."""
    ratio = width // geometry.width
    if ratio < 1 or (ratio * geometry.width, ratio * geometry.height) != (width, height):
        raise ValueError(
            f"{name}: frames of {width}x{height} are no whole multiple of {geometry.width}x{geometry.height} spikes; "
            f"allowed: one integer ratio for width and height"
        )
    return ratio


def write_sequence(sequence: PreparedSequence, recording: dict[str, Any]) -> None:
    """Write `sequence.json` into the sequence's folder; `recording` says where the frames come from."""
    values = {
        "format": SEQUENCE_FORMAT,
        "version": SEQUENCE_VERSION,
        "frames": {"width": sequence.width, "height": sequence.height, "count": len(sequence.exposures)},
        "spikes": {
            "width": sequence.geometry.width,
            "height": sequence.geometry.height,
            "rows": ROWS[sequence.geometry.bottom_up],
            "tick_rate_hz": sequence.tick_rate_hz,
        },
        "exposures": [vars(exposure) for exposure in sequence.exposures],
        "recording": recording,
    }
    (sequence.folder / SEQUENCE_FILE).write_text(json.dumps(values, indent=1) + "\n")


def open_sequence(folder: Path) -> PreparedSequence:
    """Read `sequence.json`.

    Raises:
        FileNotFoundError: the folder holds none.
        ValueError: it is not a sequence of this version, or an entry is missing.
    """
    path = folder / SEQUENCE_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no such sequence ({SEQUENCE_FILE} is missing)")
    values = read_json(path, SEQUENCE_FORMAT, SEQUENCE_VERSION)
    try:
        frames, spikes = values["frames"], values["spikes"]
        return PreparedSequence(
            folder=folder,
            width=int(frames["width"]),
            height=int(frames["height"]),
            geometry=SpikeGeometry(
                width=int(spikes["width"]), height=int(spikes["height"]), bottom_up=spikes["rows"] == ROWS[True]
            ),
            tick_rate_hz=float(spikes["tick_rate_hz"]),
            exposures=tuple(Exposure(**exposure) for exposure in values["exposures"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged or incomplete ({error})") from None


def read_json(path: Path, expected_format: str, version: int) -> dict[str, Any]:
    """A JSON object whose `format` and `version` are the expected ones. Raises ValueError otherwise."""
    try:
        values = json.loads(path.read_text())
    except ValueError:
        raise ValueError(f"{path}: not JSON; run `spikevrt prepare` again") from None
    found = (values.get("format"), values.get("version")) if isinstance(values, dict) else (None, None)
    if found != (expected_format, version):
        raise ValueError(
            f"{path}: format {found[0]!r} version {found[1]!r}; allowed: {expected_format!r} version {version}"
        )
    return dict(values)


def read_counts(
    sequence: PreparedSequence, exposure: Exposure, crop: Crop, *, num_bins: int, voxels: Literal["precomputed", "raw"]
) -> Float[Tensor, "K h w"]:
    """Spikes per bin and pixel of one exposure, before log1p: from the cache, or counted now from the packed ticks.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: the file is damaged, or holds another number of ticks, bins or pixels than it should.
    """
    r = sequence.ratio
    rows = slice(crop.top_px // r, (crop.top_px + crop.height_px) // r)
    columns = slice(crop.left_px // r, (crop.left_px + crop.width_px) // r)
    if voxels == "raw":
        path = sequence.path("spike", exposure.frame_idx)
        spikes = read_spikes(path, sequence.geometry)
        if len(spikes) != exposure.stop_tick - exposure.start_tick:
            raise ValueError(f"{path}: {len(spikes)} ticks; allowed: {exposure.stop_tick - exposure.start_tick}")
        return voxelise(torch.from_numpy(np.ascontiguousarray(spikes[:, rows, columns])), num_bins=num_bins)
    path = sequence.path("spike_vox", exposure.frame_idx)
    try:
        counts = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: damaged voxels ({' '.join(str(error).split())})") from None
    shape = (num_bins, sequence.geometry.height, sequence.geometry.width)
    if counts.shape != shape or counts.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{path}: {counts.dtype} of shape {counts.shape}; allowed: uint8 or uint16 of shape {shape}")
    return torch.from_numpy(counts[:, rows, columns].astype(np.float32))


class ImageCache:
    """Decoded pictures, kept in memory up to a limit; nothing is thrown out again, what no longer fits is decoded anew.

    The limit is what all workers of one data loader hold together: each takes its share of it.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.num_bytes = 0
        self._images: dict[Path, np.ndarray] = {}

    def read(self, path: Path) -> UInt8[np.ndarray, "H W 3"]:
        """As `read_image`; the array may be shared, so it must not be written to."""
        if path in self._images:
            return self._images[path]
        image = read_image(path)
        worker = torch.utils.data.get_worker_info()
        if self.num_bytes + image.nbytes <= self.limit_bytes // (worker.num_workers if worker else 1):
            self._images[path] = image
            self.num_bytes += image.nbytes
        return image


def read_sample(
    sequence: PreparedSequence,
    positions: range,
    crop: Crop | None,
    *,
    spikes: bool,
    num_bins: int,
    stats: VoxelStats,
    voxels: Literal["precomputed", "raw"],
    images: ImageCache,
) -> Sample:
    """Read the exposures at `positions` and cut one field of view from frames and spikes alike (None: all of it)."""
    crop = crop or Crop(0, 0, sequence.height, sequence.width)
    assert all(value % sequence.ratio == 0 for value in vars(crop).values()), (crop, sequence.ratio)
    exposures = [sequence.exposures[position] for position in positions]
    indices = [exposure.frame_idx for exposure in exposures]
    rows = slice(crop.top_px, crop.top_px + crop.height_px)
    columns = slice(crop.left_px, crop.left_px + crop.width_px)

    def pictures(kind: Literal["blur", "sharp"]) -> Tensor:
        cuts = []
        for path in (sequence.path(kind, i) for i in indices):
            image = images.read(path)
            if image.shape[:2] != (sequence.height, sequence.width):
                size, expected = f"{image.shape[1]}x{image.shape[0]}", f"{sequence.width}x{sequence.height}"
                raise ValueError(f"{path}: {size} pixels; the sequence has {expected}")
            cuts.append(image[rows, columns])
        return to_float(np.stack(cuts))

    sample: Sample = {
        "blur": pictures("blur"),
        "sharp": pictures("sharp"),
        "meta": {
            "seq": sequence.name,
            "frame_idx": indices,
            "t0": [exposure.t0_s for exposure in exposures],
            "t1": [exposure.t1_s for exposure in exposures],
        },
    }
    if spikes:
        # One frame at a time through the one normalisation, on either path: so that both give the same bits.
        sample["spike_vox"] = torch.stack(
            [normalise(read_counts(sequence, e, crop, num_bins=num_bins, voxels=voxels), stats) for e in exposures]
        )
    return sample


def collate(samples: list[Sample]) -> Batch:
    """Stack samples of one size into a batch."""
    batch: Batch = {
        "blur": torch.stack([sample["blur"] for sample in samples]),
        "sharp": torch.stack([sample["sharp"] for sample in samples]),
        "meta": [sample["meta"] for sample in samples],
    }
    if "spike_vox" in samples[0]:
        batch["spike_vox"] = torch.stack([sample["spike_vox"] for sample in samples])
    return batch
