"""Turn recordings into a dataset: split, cut out each exposure, count its spikes, measure the training set, log it all.

    ROOT/dataset.json                                                bins, mean, std, data hash, sequences
    ROOT/{train,val}/SEQ/{blur,sharp}/NNNNNN.{npy,png}               uint8 (H, W, 3), or PNG; sharp: where recorded
    ROOT/{train,val}/SEQ/{spike,spike_vox}/NNNNNN.{dat,npy}          packed ticks; counts (K, h, w)
    ROOT/{train,val}/SEQ/{sequence.json,alignment.log,dropped.log}   sizes and exposures; what was kept; what was not

The frames of a registered recording are resampled to its sensor's pixels (`Recording.on_sensor`), as restoring does.

Dimension key: K bins, H x W colour pixels, h x w spike cells, N distinct counts.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from spikevrt.atomic import complete_or_absent, refuse_existing, refuse_own_input
from spikevrt.config import VAL_FRACTION, VAL_SEED, FrameKind, PrepareOptions, Split
from spikevrt.data.dataset import DATASET_FILE, DATASET_FORMAT, DATASET_VERSION, is_sequence_name
from spikevrt.data.sample import COUNT_TYPES
from spikevrt.data.sequence import PreparedSequence, write_sequence
from spikevrt.recording.alignment import nearest_ratio
from spikevrt.recording.frames import write_image
from spikevrt.recording.recording import Recording
from spikevrt.recording.sidecar import Exposure
from spikevrt.recording.spike_file import SpikeGeometry, pack, sha256_file
from spikevrt.represent.counts import frame_counts
from spikevrt.represent.voxel import VoxelSpec, density
from spikevrt.typed import amount

if TYPE_CHECKING:
    from jaxtyping import Float, Num, UInt8


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
            f"val_fraction: {val_fraction}, but all {amount(len(recordings), 'recording')} come from one source, "
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


@dataclass(frozen=True)
class Sources:
    """The recordings of a dataset: those to be split, those for validation, and those that bring their split."""

    recordings: Sequence[Recording] = ()
    val: Sequence[Recording] = ()
    presplit: Sequence[tuple[Recording, Split]] = ()


def prepare(
    sources: Sources,
    out: str | Path,
    options: PrepareOptions = PrepareOptions(),  # noqa: B008 (immutable)
    *,
    admit: Callable[[Recording], Recording] | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a dataset folder; it appears under its name only when it is complete.

    Args:
        sources: the recordings; with any for validation, all others are for training.
        out: the dataset folder to make.
        options: bins, files, and what is for validation.
        admit: the gate that every recording passes first: it returns the recording with its broken pixels marked, which
            are then filled in the voxels, or raises ValueError.
        overwrite: replace an existing dataset folder (and nothing but a dataset).
        progress: called with (recordings done, recordings in all).

    Raises:
        FileExistsError: `out` exists.
        ValueError: a recording cannot be used at all or is refused by the gate, or a setting cannot be obeyed.
    """
    out = Path(out)
    spec = VoxelSpec(options.num_bins, options.binning)
    refuse_existing(out, marker=DATASET_FILE, overwrite=overwrite)
    assigned = _split(sources, options)
    refuse_own_input(out, [path for recording, _ in assigned for path in recording.files])
    _check_sharp(assigned, options.without_sharp)
    _check_names(assigned)

    with complete_or_absent(out) as partial:
        num_kept, often = 0, Counter[float]()
        for done, (recording, split) in enumerate(assigned):
            if progress:
                progress(done, len(assigned))
            if recording.spikes is None:
                raise ValueError(f"{recording.root}: no spikes in this recording")
            passed = recording if admit is None else admit(recording)
            kept, counted = _prepare_sequence(passed, partial / split / recording.name, spec, options.frames)
            num_kept += kept
            if split == "train":
                often.update(counted)
        if progress:
            progress(len(assigned), len(assigned))
        if not often:
            raise ValueError("recordings: none for training, and mean and std are measured there; allowed: one or more")
        mean, std = log1p_mean_std(often)
        if std == 0:
            raise ValueError("recordings: every bin of the training set holds the same count; its spikes say nothing")
        names = sorted((recording.name, split) for recording, split in assigned)
        values = {
            "format": DATASET_FORMAT,
            "version": DATASET_VERSION,
            "num_bins": options.num_bins,
            "binning": options.binning,
            "mean": mean,
            "std": std,
            "data_hash": _data_hash(partial),
            "num_frames": num_kept,
            "num_dropped": sum(r.num_frames + len(r.dropped) for r, _ in assigned) - num_kept,
            "train": [name for name, split in names if split == "train"],
            "val": [name for name, split in names if split == "val"],
        }
        (partial / DATASET_FILE).write_text(json.dumps(values, indent=1) + "\n")
    return out


def _split(sources: Sources, options: PrepareOptions) -> list[tuple[Recording, Split]]:
    """Every recording with the split that it goes to, train or val."""
    loose = sources.recordings
    if not loose and not sources.presplit:
        raise ValueError("recordings: none given; allowed: one or more")
    splits: list[Split] = ["train"] * len(loose)
    if loose and not sources.val:
        fraction = VAL_FRACTION if options.val_fraction is None else options.val_fraction
        seed = VAL_SEED if options.seed is None else options.seed
        splits = split_recordings(loose, val_fraction=fraction, seed=seed)
    return [*sources.presplit, *zip(loose, splits, strict=True), *((recording, "val") for recording in sources.val)]


def log1p_mean_std(often: Mapping[float, int]) -> tuple[float, float]:
    """Mean and standard deviation of log1p(count), from how often each count occurs (float64)."""
    counts = sorted(often)
    values, times = np.log1p(np.array(counts, dtype=np.float64)), np.array([often[count] for count in counts])
    total = times.sum()
    mean = float((times * values).sum() / total)
    return mean, float(np.sqrt((times * (values - mean) ** 2).sum() / total))


def occurrences(counts: Num[np.ndarray, "K h w"]) -> Counter[float]:
    """How often each count occurs, of counts in one of `COUNT_TYPES`."""
    if counts.dtype.kind == "u":
        times = np.bincount(counts.reshape(-1))
        found = np.flatnonzero(times)
        return Counter(dict(zip(found.astype(float).tolist(), times[found].tolist(), strict=True)))
    bits, times = np.unique(counts.view(np.uint16 if counts.dtype == np.float16 else np.uint32), return_counts=True)
    return Counter(dict(zip(bits.view(counts.dtype).astype(float).tolist(), times.tolist(), strict=True)))


def narrow(counts: Float[Tensor, "K h w"]) -> Num[np.ndarray, "K h w"]:
    """The same counts in the smallest type that holds each of them exactly: what `spike_vox/*.npy` stores."""
    wide = counts.numpy()
    for dtype in COUNT_TYPES[:-1]:
        is_whole = np.issubdtype(dtype, np.integer)
        if wide.max() > (np.iinfo(dtype).max if is_whole else np.finfo(dtype).max):  # type: ignore[type-var]
            continue
        small = wide.astype(dtype)
        if np.array_equal(small.astype(np.float32), wide):
            return small
    return wide


def _prepare_sequence(
    recording: Recording, folder: Path, spec: VoxelSpec, frames: FrameKind
) -> tuple[int, Counter[float]]:
    """Write one sequence folder; return the number of frames kept, and how often each count occurs in them.

    Raises:
        ValueError: the recording has no frame that can be used.
    """
    name, recording = str(recording.root), recording.on_sensor
    assert recording.spikes is not None, name
    geometry = SpikeGeometry(recording.spikes.width, recording.spikes.height)
    for kind in ("blur", *(["sharp"] if recording.sharp else []), "spike", "spike_vox"):
        (folder / kind).mkdir(parents=True)

    kept: list[Exposure] = []
    densities: list[float] = []
    often = Counter[float]()
    aligned = ["frame_idx t0 t1 spike_count"]
    dropped = [f"{frame_idx} {reason}" for frame_idx, reason in recording.dropped]
    for position, exposure in enumerate(recording.exposures):
        try:
            _check_alignment(exposure, recording.tick_rate_hz)
            spikes = recording.read_exposure_spikes(position)
            counts = frame_counts(recording, position, num_bins=spec.num_bins, binning=spec.binning)
            if not counts.any():
                raise ValueError(f"no spike in {len(spikes)} ticks; is the shutter closed, or the stream dead?")
            blur = recording.read_blur(position)
            sharp = recording.read_sharp(position) if recording.sharp else None
        except (ValueError, OSError) as error:
            dropped.append(f"{exposure.frame_idx} {error}")
            continue
        stem = f"{exposure.frame_idx:06d}"
        _write_frame(folder / "blur" / f"{stem}.{frames}", blur)
        if sharp is not None:
            _write_frame(folder / "sharp" / f"{stem}.{frames}", sharp)
        stored_ticks = recording.spikes.read(*exposure.span) if exposure.shift_ticks else spikes
        (folder / "spike" / f"{stem}.dat").write_bytes(pack(stored_ticks, geometry))
        stored = narrow(counts)
        np.save(folder / "spike_vox" / f"{stem}.npy", stored)
        often.update(occurrences(stored))
        densities.append(density(counts).item())
        aligned.append(f"{exposure.frame_idx} {exposure.t0_s:.9f} {exposure.t1_s:.9f} {spikes.sum(dtype=np.int64)}")
        kept.append(exposure)
    if not kept:
        raise ValueError(f"{name}: no frame can be used; the first: {dropped[0].split(' ', 1)[1]}")
    dropped.sort(key=lambda line: int(line.split(" ", 1)[0]))
    (folder / "alignment.log").write_text("\n".join(aligned) + "\n")
    (folder / "dropped.log").write_text("\n".join(["frame_idx reason", *dropped]) + "\n")
    write_sequence(
        PreparedSequence(
            folder=folder,
            width=recording.width,
            height=recording.height,
            ratio=nearest_ratio(recording.height, recording.width, geometry.height, geometry.width),
            geometry=geometry,
            tick_rate_hz=recording.tick_rate_hz,
            exposures=tuple(kept),
            densities=tuple(densities),
            frames=frames,
            bad_pixels=recording.bad_pixels,
            has_sharp=bool(recording.sharp),
        ),
        {"name": recording.name, "provenance": recording.provenance},
    )
    return len(kept), often


def _write_frame(path: Path, image: UInt8[np.ndarray, "H W 3"]) -> None:
    if path.suffix == ".npy":
        np.save(path, np.ascontiguousarray(image))
    else:
        write_image(path, image)


def _check_alignment(exposure: Exposure, tick_rate_hz: float) -> None:
    """Raises ValueError when the exposure's clock times and its window of ticks disagree by more than one tick."""
    num_ticks = exposure.stop_tick - exposure.start_tick
    clock_ticks = (exposure.t1_s - exposure.t0_s) * tick_rate_hz
    if abs(clock_ticks - num_ticks) > 1:
        raise ValueError(f"lasts {clock_ticks:.2f} ticks by the clock, but its window holds {num_ticks}")


def _check_sharp(opened: Sequence[tuple[Recording, Split]], without_sharp: bool) -> None:
    """Raises ValueError where sharp frames are missing and must be there, or only some of a split have them."""
    having = {split: recording for recording, split in opened if recording.sharp}
    for recording, split in opened:
        lacks = f"{recording.root}: has no sharp frames"
        if not recording.sharp and not without_sharp:
            raise ValueError(f"{lacks}; training and validation need them, unless --without-sharp (self-supervised)")
        if not recording.sharp and split in having:
            raise ValueError(
                f"{lacks}, but {having[split].root} has, for {split} too; allowed: all of a split, or none"
            )


def _check_names(assigned: Sequence[tuple[Recording, Split]]) -> None:
    seen: dict[str, tuple[Path, Split]] = {}
    for recording, split in assigned:
        if not is_sequence_name(recording.name):
            raise ValueError(f"{str(recording.root)!r}: cannot name a sequence; allowed: no control characters")
        other, their = seen.get(recording.name, (None, split))
        if other is not None and other.resolve() != recording.root.resolve():
            raise ValueError(f"{recording.root}: its name is taken by {other}; rename one of the two")
        if other is not None:
            both = "given twice" if split == their else "given for training and for validation (`val`)"
            raise ValueError(f"{recording.root}: {both}; name the recordings one by one, each once")
        seen[recording.name] = recording.root, split


def _data_hash(root: Path) -> str:
    """One checksum over the name and content of every file."""
    digest = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        digest.update(f"{sha256_file(path)}  {path.relative_to(root).as_posix()}\n".encode())
    return digest.hexdigest()
