"""Turn recordings into a dataset: split, cut out each exposure, count its spikes, measure the training set, log it all.

    ROOT/dataset.json                                                bins, mean, std, data hash, sequences
    ROOT/{train,val}/SEQ/{blur,sharp,spike,spike_vox}/NNNNNN.*       png, png, packed ticks, uint8 counts (K, h, w)
    ROOT/{train,val}/SEQ/{sequence.json,alignment.log,dropped.log}   sizes and exposures; what was kept; what was not

Dimension key: T ticks of an exposure, K bins, h x w spike pixels.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from spikevrt.data.dataset import DATASET_FILE, DATASET_FORMAT, DATASET_VERSION, Split
from spikevrt.data.sample import PreparedSequence, frame_ratio, write_sequence
from spikevrt.recording.atomic import complete_or_absent, refuse_existing
from spikevrt.recording.frames import write_image
from spikevrt.recording.recording import Exposure, Recording, find_recordings, open_recording
from spikevrt.recording.spike_file import SpikeGeometry, pack, sha256_file
from spikevrt.represent.voxel import voxelise

if TYPE_CHECKING:
    from jaxtyping import Integer, UInt8


def split_recordings(recordings: Sequence[Recording], *, val_fraction: float, seed: int) -> list[Split]:
    """Which split each recording goes to; recordings of one source stay together, so that no scene is in both.

    Whole sources, shuffled by `seed`, are given to validation while that brings its share closer to `val_fraction`;
    with a fraction above 0 it gets at least one, and one always stays for training.

    Raises:
        ValueError: the fraction is outside [0, 1), or above 0 with a single source.
    """
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction: {val_fraction}; allowed: 0 or more, below 1")
    groups: dict[str, list[int]] = {}
    for index, recording in enumerate(recordings):
        groups.setdefault(source_of(recording), []).append(index)
    if val_fraction > 0 and len(groups) == 1:
        raise ValueError(
            f"val_fraction: {val_fraction}, but all {len(recordings)} recordings come from one source, "
            f"which cannot be in both splits; allowed: 0, or name the recordings for validation"
        )
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    target, chosen = val_fraction * len(recordings), set[int]()
    for source in order[:-1] if val_fraction > 0 else []:
        more = len(chosen) + len(groups[source])
        if not chosen or abs(more - target) < abs(len(chosen) - target):
            chosen.update(groups[source])
    return ["val" if index in chosen else "train" for index in range(len(recordings))]


def source_of(recording: Recording) -> str:
    """What the recording was made from: the source's checksum if it is known, else the recording itself."""
    return str(recording.provenance.get("source_sha256") or recording.root.resolve())


def prepare(
    recordings: Sequence[str | Path],
    out: str | Path,
    *,
    num_bins: int = 32,
    val_fraction: float = 0.1,
    val: Sequence[str | Path] = (),
    seed: int = 123,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a dataset folder; it appears under its name only when it is complete.

    Args:
        recordings: recordings, or folders of recordings.
        out: the dataset folder to make.
        num_bins: bins per exposure (K).
        val_fraction: share of the recordings for validation, whole sources at a time; not used when `val` is given.
        val: recordings (or folders of them) for validation; all of `recordings` are then for training.
        seed: decides the split.
        overwrite: replace an existing dataset folder (and nothing but a dataset).
        progress: called with (recordings done, recordings in all).

    Raises:
        FileExistsError: `out` exists.
        FileNotFoundError: a recording is missing.
        ValueError: a recording cannot be used at all, or a setting cannot be obeyed.
    """
    out = Path(out)
    if num_bins < 1:
        raise ValueError(f"num_bins: {num_bins}; allowed: 1 or more")
    refuse_existing(out, marker=DATASET_FILE, overwrite=overwrite)
    opened = [open_recording(path) for path in find_recordings(recordings)]
    if not opened:
        raise ValueError("recordings: none given; allowed: one or more")
    splits = ["train"] * len(opened) if val else split_recordings(opened, val_fraction=val_fraction, seed=seed)
    held_out = [open_recording(path) for path in find_recordings(val)]
    opened, splits = opened + held_out, [*splits, *["val"] * len(held_out)]
    _check_names(opened)

    with complete_or_absent(out) as partial:
        num_kept, histogram = 0, np.zeros(1, dtype=np.int64)
        for done, (recording, split) in enumerate(zip(opened, splits, strict=True)):
            if progress:
                progress(done, len(opened))
            kept, counted = _prepare_sequence(recording, partial / split / recording.name, num_bins)
            num_kept += kept
            if split == "train":
                histogram = _add(histogram, counted)
        if progress:
            progress(len(opened), len(opened))
        mean, std = log1p_mean_std(histogram)
        if std == 0:
            raise ValueError("recordings: every bin of the training set holds the same count; its spikes say nothing")
        names = sorted((recording.name, split) for recording, split in zip(opened, splits, strict=True))
        values = {
            "format": DATASET_FORMAT,
            "version": DATASET_VERSION,
            "num_bins": num_bins,
            "mean": mean,
            "std": std,
            "data_hash": _data_hash(partial),
            "num_frames": num_kept,
            "num_dropped": sum(recording.num_frames for recording in opened) - num_kept,
            "train": [name for name, split in names if split == "train"],
            "val": [name for name, split in names if split == "val"],
        }
        (partial / DATASET_FILE).write_text(json.dumps(values, indent=1) + "\n")
    return out


def log1p_mean_std(histogram: Integer[np.ndarray, " N"]) -> tuple[float, float]:
    """Mean and standard deviation of log1p(count), from how often each count 0, 1, ... occurs (float64)."""
    values, total = np.log1p(np.arange(len(histogram), dtype=np.float64)), histogram.sum()
    mean = float((histogram * values).sum() / total)
    return mean, float(np.sqrt((histogram * (values - mean) ** 2).sum() / total))


def _prepare_sequence(recording: Recording, folder: Path, num_bins: int) -> tuple[int, np.ndarray]:
    """Write one sequence folder; return the number of frames kept, and how often each count occurs in them.

    Raises:
        ValueError: the recording has no frame that can be used.
    """
    name = str(recording.root)
    if not recording.sharp:
        raise ValueError(f"{name}: has no sharp frames; training and validation need them")
    if recording.spikes is None:
        raise ValueError(f"{name}: no spikes in this recording")
    geometry = SpikeGeometry(recording.spikes.width, recording.spikes.height)
    frame_ratio(recording.width, recording.height, geometry, name)
    for kind in ("blur", "sharp", "spike", "spike_vox"):
        (folder / kind).mkdir(parents=True)

    kept: list[Exposure] = []
    histogram = np.zeros(1, dtype=np.int64)
    aligned, dropped = ["frame_idx t0 t1 spike_count"], ["frame_idx reason"]
    for position, exposure in enumerate(recording.exposures):
        try:
            _check_alignment(exposure, recording.tick_rate_hz)
            spikes = recording.read_exposure_spikes(position)
            counts = count_bins(spikes, num_bins)
            blur, sharp = recording.read_blur(position), recording.read_sharp(position)
        except (ValueError, OSError) as error:
            dropped.append(f"{exposure.frame_idx} {error}")
            continue
        stem = f"{exposure.frame_idx:06d}"
        write_image(folder / "blur" / f"{stem}.png", blur)
        write_image(folder / "sharp" / f"{stem}.png", sharp)
        (folder / "spike" / f"{stem}.dat").write_bytes(pack(spikes, geometry))
        np.save(folder / "spike_vox" / f"{stem}.npy", counts)
        histogram = _add(histogram, np.bincount(counts.ravel()))
        aligned.append(f"{exposure.frame_idx} {exposure.t0_s:.9f} {exposure.t1_s:.9f} {spikes.sum(dtype=np.int64)}")
        kept.append(exposure)
    if not kept:
        raise ValueError(f"{name}: no frame can be used; the first: {dropped[1].split(' ', 1)[1]}")
    (folder / "alignment.log").write_text("\n".join(aligned) + "\n")
    (folder / "dropped.log").write_text("\n".join(dropped) + "\n")
    write_sequence(
        PreparedSequence(
            folder=folder,
            width=recording.width,
            height=recording.height,
            geometry=geometry,
            tick_rate_hz=recording.tick_rate_hz,
            exposures=tuple(kept),
        ),
        {"name": recording.name, "provenance": recording.provenance},
    )
    return len(kept), histogram


def count_bins(spikes: UInt8[np.ndarray, "T h w"], num_bins: int) -> Integer[np.ndarray, "K h w"]:
    """Spikes per bin and pixel in the smallest whole numbers that hold them: what `spike_vox/*.npy` stores.

    Raises:
        ValueError: fewer ticks than bins, or no spike at all.
    """
    counts = voxelise(torch.from_numpy(spikes), num_bins=num_bins).numpy()
    if not counts.any():
        raise ValueError(f"no spike in {len(spikes)} ticks; is the shutter closed, or the stream dead?")
    assert counts.max() < 1 << 16, counts.max()
    return counts.astype(np.uint8 if counts.max() < 1 << 8 else np.uint16)


def _check_alignment(exposure: Exposure, tick_rate_hz: float) -> None:
    """Raises ValueError when the exposure's clock times and its window of ticks disagree by more than one tick."""
    num_ticks = exposure.stop_tick - exposure.start_tick
    clock_ticks = (exposure.t1_s - exposure.t0_s) * tick_rate_hz
    if abs(clock_ticks - num_ticks) > 1:
        raise ValueError(f"lasts {clock_ticks:.2f} ticks by the clock, but its window holds {num_ticks}")


def _add(histogram: np.ndarray, other: np.ndarray) -> np.ndarray:
    total = np.zeros(max(len(histogram), len(other)), dtype=np.int64)
    total[: len(histogram)] += histogram
    total[: len(other)] += other
    return total


def _check_names(recordings: Sequence[Recording]) -> None:
    seen: dict[str, Path] = {}
    for recording in recordings:
        if recording.name in seen:
            raise ValueError(f"{recording.root}: its name is taken by {seen[recording.name]}; rename one of the two")
        seen[recording.name] = recording.root


def _data_hash(root: Path) -> str:
    """One checksum over the name and content of every file."""
    digest = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        digest.update(f"{sha256_file(path)}  {path.relative_to(root).as_posix()}\n".encode())
    return digest.hexdigest()
