"""How many clips a second does the loader give, and what do they cost? `python benchmarks/bench_data.py [PHOTO ...]`

One set of recordings (720p, spikes at half size, 56 ticks an exposure; from photographs, or from generated pictures) is
prepared twice, with frames as arrays and as PNG. Then four ways give the same random crops of five frames:

    straightforward    decode five PNG pairs whole, unpack the packed ticks whole, voxelise, normalise, then crop
    png, raw           ClipDataset: decode five PNG pairs whole, count the packed ticks
    npy, raw           ClipDataset: frames mapped, packed ticks counted
    npy, precomputed   ClipDataset: frames and counts mapped: what `spikevrt prepare` and the configs choose

Every clip of every way is compared with the first way's, bit for bit. The ways take turns, round after round, in one
process; the best round counts. Files come from the system's cache, as they do from the second epoch on. Memory is
measured in a fresh process for each way: the proportional share (Linux, smaps) of it and of its loader workers, its
peak while the clips are read, less what there was before.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from spikevrt.config import DataConfig, PrepareOptions, SpikeInputs
from spikevrt.data.dataset import ClipDataset, collate, draw_crop, open_dataset
from spikevrt.data.prepare import prepare
from spikevrt.data.sample import Meta, Sample
from spikevrt.formats.layouts import open_sources
from spikevrt.recording.frames import read_image, to_float, write_image
from spikevrt.recording.sidecar import BLUR_FOLDER, SHARP_FOLDER, SPIKE_FILE, Exposure
from spikevrt.recording.spike_file import SpikeGeometry, SpikeWriter, read_spikes
from spikevrt.recording.stored import write_sidecar
from spikevrt.represent.voxel import normalise, voxelise

WIDTH, HEIGHT, RATIO, TICKS, CLIP_FRAMES, NUM_BINS = 1280, 720, 2, 56, 5, 32
WAYS = ("straightforward", "png, raw", "npy, raw", "npy, precomputed")


class Straightforward(Dataset[Sample]):
    """What one writes first: everything whole, the crop last. Same crops as `ClipDataset` (same seed and epoch)."""

    def __init__(self, clips: ClipDataset) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, item: int) -> Sample:
        clips, (index, positions) = self.clips, self.clips.clips[item]
        sequence, info = clips.sequences[index], clips.info
        state = np.random.SeedSequence([clips.seed, clips.epoch, item]).generate_state(1, np.uint64)
        crop = draw_crop(sequence, clips.data.crop_px, torch.Generator().manual_seed(int(state[0])))
        top, left, size = crop.top_px, crop.left_px, crop.height_px
        frames: dict[str, list[torch.Tensor]] = {"blur": [], "sharp": [], "spike_vox": []}
        for position in positions:
            number = sequence.exposures[position].frame_idx
            for kind in ("blur", "sharp"):
                frame = to_float(read_image(sequence.path(kind, number)))
                frames[kind].append(frame[:, top : top + size, left : left + size])
            spikes = read_spikes(sequence.path("spike", number), sequence.geometry)
            voxels = normalise(voxelise(torch.from_numpy(spikes), num_bins=info.num_bins), info.stats)
            rows, columns = (slice(a // RATIO, (a + size) // RATIO) for a in (top, left))
            frames["spike_vox"].append(voxels[:, rows, columns])
        exposures = [sequence.exposures[position] for position in positions]
        meta: Meta = {
            "seq": sequence.name,
            "frame_idx": [e.frame_idx for e in exposures],
            "t0": [e.t0_s for e in exposures],
            "t1": [e.t1_s for e in exposures],
        }
        blur, sharp, spike_vox = (torch.stack(cuts) for cuts in frames.values())
        return {"blur": blur, "frames": blur, "sharp": sharp, "spike_vox": spike_vox, "meta": meta}


def photographs(paths: list[Path], count: int) -> Iterator[np.ndarray]:
    """Pictures of 2 x 720p: the photographs in turn, or generated ones: soft shapes, edges and grain."""
    from PIL import Image

    rng = np.random.default_rng(1)
    for index in range(count):
        if paths:
            with Image.open(paths[index % len(paths)]) as image:
                yield np.array(image.convert("RGB").resize((2 * WIDTH, 2 * HEIGHT)))
            continue
        layers = [
            np.array(
                Image.fromarray(rng.integers(0, 256, (s, 2 * s, 3), np.uint8)).resize((2 * WIDTH, 2 * HEIGHT), how)
            )
            for s, how in (
                (6, Image.Resampling.BICUBIC),
                (40, Image.Resampling.NEAREST),
                (180, Image.Resampling.BICUBIC),
            )
        ]
        grain = rng.normal(0, 3, layers[0].shape)
        mixed = 0.55 * layers[0] + 0.3 * layers[1] + 0.15 * layers[2] + grain
        yield np.clip(mixed, 0, 255).astype(np.uint8)


def make_recording(picture: np.ndarray, root: Path, frames: int) -> None:
    """A picture that slides under both cameras; its spikes by accumulation of grey light."""
    geometry = SpikeGeometry(WIDTH // RATIO, HEIGHT // RATIO)
    for kind in (BLUR_FOLDER, SHARP_FOLDER):
        (root / kind).mkdir(parents=True)
    small = (picture[::RATIO, ::RATIO] / 255 @ (0.299, 0.587, 0.114)).astype(np.float32)
    charge = np.random.default_rng(2).random((geometry.height, geometry.width), dtype=np.float32)
    with SpikeWriter(root / SPIKE_FILE, geometry) as writer:
        for frame in range(frames):
            views = [picture[4 * frame + k : 4 * frame + k + HEIGHT, k : k + WIDTH] for k in range(0, 16, 2)]
            write_image(root / BLUR_FOLDER / f"{frame:06d}.png", np.mean(views, axis=0).astype(np.uint8))
            write_image(root / SHARP_FOLDER / f"{frame:06d}.png", views[4])
            ticks = np.empty((TICKS, geometry.height, geometry.width), np.uint8)
            for tick in range(TICKS):
                row, column = (4 * frame + 16 * tick // TICKS) // RATIO, 8 * tick // TICKS
                charge += 0.6 * small[row : row + geometry.height, column : column + geometry.width]
                ticks[tick] = charge >= 1
                charge -= ticks[tick]
            writer.append(ticks)
    rate = 20000.0
    write_sidecar(
        root,
        spikes=writer,
        tick_rate_hz=rate,
        width=WIDTH,
        height=HEIGHT,
        fps=rate / TICKS,
        exposures=[
            Exposure(i, i * TICKS, (i + 1) * TICKS, i * TICKS / rate, (i + 1) * TICKS / rate) for i in range(frames)
        ],
        provenance={},
    )


def disk_mb(root: Path, kinds: tuple[str, ...]) -> float:
    return sum(path.stat().st_size for kind in kinds for path in root.glob(f"*/*/{kind}/*")) / 1e6


class PeakMemory:
    """Proportional memory of this process and its children, sampled ten times a second; the highest, in MB."""

    def __enter__(self) -> PeakMemory:
        self.peak_mb, self._stop = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self.peak_mb = max(self.peak_mb, tree_mb())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def tree_mb() -> float:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    total = 0
    for pid in ["self", *children]:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # ended meanwhile
            continue
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1e3


def open_way(way: str, scratch: Path, crop: int) -> Straightforward | ClipDataset:
    root = scratch / ("npy" if way.startswith("npy") else "png")
    voxels: Literal["precomputed", "raw"] = "precomputed" if way.endswith("precomputed") else "raw"
    data = DataConfig(root=str(root), clip_frames=CLIP_FRAMES, crop_px=crop, voxels=voxels, augment=False)
    clips = ClipDataset(data, SpikeInputs(num_bins=open_dataset(root).num_bins))
    return Straightforward(clips) if way == WAYS[0] else clips


def clips_per_s(dataset: Straightforward | ClipDataset, workers: int, batch: int, num_clips: int) -> float:
    """Clips a second over `num_clips` clips; every batch is touched by this process."""
    chosen = torch.utils.data.Subset(dataset, [i % len(dataset) for i in range(num_clips)])
    loader = DataLoader(chosen, batch_size=batch, num_workers=workers, collate_fn=collate)
    iterator = iter(loader)
    next(iterator)  # starting processes is no part of loading
    began, seen = time.perf_counter(), 0
    for loaded in iterator:
        seen += len(loaded["meta"])
        loaded["spike_vox"].flatten()[:: 1 << 10].sum()
    return seen / (time.perf_counter() - began)


def peak_mb(way: str, scratch: Path, crop: int, workers: int, batch: int, num_clips: int) -> float:
    """Memory of loading, for a process that has done nothing else."""
    torch.set_num_threads(1)
    before = tree_mb()
    with PeakMemory() as memory:
        clips_per_s(open_way(way, scratch, crop), workers, batch, num_clips)
    return memory.peak_mb - before


def assert_equal(first: Sample, second: Sample, name: str) -> None:
    assert first["meta"] == second["meta"], name
    for key in ("blur", "sharp", "spike_vox"):
        assert torch.equal(first[key], second[key]), (name, key)


def run(options: argparse.Namespace, scratch: Path) -> None:
    for index, picture in enumerate(photographs(options.photos, options.recordings)):
        make_recording(picture, scratch / "recordings" / f"r{index}", options.frames)
    sources = open_sources([scratch / "recordings"])
    roots = {
        kind: prepare(sources, scratch / kind, PrepareOptions(frames=kind, val_fraction=0)) for kind in ("npy", "png")
    }
    datasets = {way: open_way(way, scratch, options.crop) for way in WAYS}
    num = len(datasets["npy, raw"])
    for item in range(num):
        first = datasets["straightforward"][item]
        for way in WAYS[1:]:
            assert_equal(first, datasets[way][item], way)
    print(f"{num} clips of {CLIP_FRAMES} frames, crop {options.crop}: the four ways give the same bits\n")
    disk = {
        "straightforward": disk_mb(roots["png"], ("blur", "sharp", "spike")),
        "png, raw": disk_mb(roots["png"], ("blur", "sharp", "spike")),
        "npy, raw": disk_mb(roots["npy"], ("blur", "sharp", "spike")),
        "npy, precomputed": disk_mb(roots["npy"], ("blur", "sharp", "spike_vox")),
    }
    per_frame = options.recordings * options.frames
    print("| way | workers | clips/s | ratio | peak MB | MB on disk a frame |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for workers in (0, 2):
        best = dict.fromkeys(WAYS, 0.0)
        for _ in range(options.rounds):
            for way in WAYS:
                num_clips = options.clips * (1 if way in WAYS[:2] else 4)
                best[way] = max(best[way], clips_per_s(datasets[way], workers, options.batch, num_clips))
        for way in WAYS:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                memory = pool.submit(
                    peak_mb, way, scratch, options.crop, workers, options.batch, options.clips
                ).result()
            print(
                f"| {way} | {workers} | {best[way]:.2f} | {best[way] / best[WAYS[0]]:.1f}x | {memory:.0f} "
                f"| {disk[way] / per_frame:.2f} |"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "photos", nargs="*", type=Path, help="photographs to simulate from (default: generated pictures)"
    )
    parser.add_argument("--recordings", type=int, default=3)
    parser.add_argument("--frames", type=int, default=8, help="of each recording")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--clips", type=int, default=12, help="that each way reads in a round (the fast ones: 4 times)")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)  # as in a loader worker
    print(f"{platform.machine()}, torch {torch.__version__}, {os.cpu_count()} cores, 1 thread a process")
    with tempfile.TemporaryDirectory() as scratch:
        run(options, Path(scratch))
