"""Score networks on recordings that have sharp frames, and time them; everything goes into one results.json.

Networks run through `restore.restorer`, as users run them: whole frames, no crop. Every frame is restored, scored and
counted exactly once. Time is taken after the device has finished, over reading a recording and restoring it; scoring
and writing are not part of it, and the first, slow call is made before the clock starts.

Dimension key: H rows, W columns.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spikevrt import runtime
from spikevrt.checkpoint import read_info
from spikevrt.evaluate import metrics, report
from spikevrt.evaluate.baselines import SPIKE_RATIO, short_window, spike_ratio
from spikevrt.evaluate.results import RESULTS
from spikevrt.recording.atomic import complete_or_absent, refuse_existing
from spikevrt.recording.frames import to_float, to_uint8, write_image
from spikevrt.recording.layouts import NO_OPTIONS, LayoutOptions, open_recordings
from spikevrt.recording.recording import Recording
from spikevrt.recording.registration import alignment_values
from spikevrt.recording.spike_file import sha256_file
from spikevrt.represent.exposure import place_counts
from spikevrt.restore.admission import admit, check_skip
from spikevrt.restore.output import progress_bar
from spikevrt.restore.restorer import RestoreOptions, load_network, reads_spikes, restore_clip, restore_frames
from spikevrt.restore.work import ClipWork, tiles_in_all

if TYPE_CHECKING:
    from jaxtyping import Float

BLUR = "blur"  # the name of the method that returns its input
PROTOCOL = {
    "psnr_rgb": "dB, 8 bit after clamp and round, three channels, per frame",
    "psnr_y": "dB, BT.601 luma of the 8-bit picture, not rounded, per frame",
    "ssim_rgb": "2-D SSIM, Gaussian window 11x11, sigma 1.5, valid area, mean of the three channels, per frame",
    "ssim_y": "the same of the BT.601 luma",
    "averaging": "mean over the frames of a sequence, then over the sequences; every frame once, full size, no crop",
    "ms_per_frame": "from file to restored frame, device synchronised, after a warm-up; median over the sequences",
    "peak_memory_bytes": "while restoring: allocated by torch on CUDA, resident in the whole process on a CPU",
}


def evaluate(
    weights: Sequence[Path],
    recordings: Sequence[Path],
    out: Path,
    options: RestoreOptions,
    *,
    overwrite: bool = False,
    keep_frames: bool = False,
    layout: LayoutOptions = NO_OPTIONS,
) -> dict[str, Any]:
    """Score the blurry input, the spike-ratio baseline (where there are spikes) and each network on each recording;
    print the table, return what results.json holds.

    `out` becomes a folder with results.json, report.html and one picture (blur | restored | sharp) per network and
    recording; with `keep_frames` also the restored frames, and videos of them. `layout`: how to read dataset folders.

    Raises:
        FileNotFoundError, ValueError: an input that is missing, damaged, or has no sharp frames.
        FileExistsError: `out` exists and `overwrite` is not set.
    """
    with results_folder(out, overwrite=overwrite) as folder:
        results = write_results(weights, recordings, folder, options, keep_frames=keep_frames, layout=layout)
    return results


def write_results(
    weights: Sequence[Path],
    recordings: Sequence[Path],
    folder: Path,
    options: RestoreOptions,
    *,
    keep_frames: bool,
    title: str = "SpikeVRT: evaluation",
    credits: str = "",
    layout: LayoutOptions = NO_OPTIONS,
) -> dict[str, Any]:
    """What `evaluate` does, into a folder that exists. `credits` (plain text) goes under the report."""
    weights, opened = [Path(path) for path in weights], _open(recordings, options, layout)
    names = method_names(weights)
    for path in weights:  # now, and not after the first networks have run
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such weights file")
        if options.skip_sharp is not None:
            check_skip(read_info(path), options.skip_sharp)
    results: dict[str, Any] = {
        "format": "spikevrt-results",
        "version": 1,
        "protocol": PROTOCOL,
        "environment": runtime.environment(runtime.pick_device(options.device)),
        "options": dataclasses.asdict(options),
        "data": _describe(opened),
        "methods": [],
    }
    plain: dict[str, Callable[[Recording, int], torch.Tensor]] = {BLUR: _blurry_frame}
    if all(recording.spikes is not None for recording in opened):
        plain[SPIKE_RATIO] = _spike_ratio_frame
    num_frames = sum(recording.num_frames for recording in opened) * (len(weights) + len(plain))
    with progress_bar("restoring and scoring") as progress:
        done = itertools.count(1)

        def advance() -> None:
            if progress is not None:
                progress(next(done), num_frames)

        for name, frame in plain.items():
            results["methods"].append(_score_plain(name, frame, opened, advance))
        for name, path in zip(names, weights, strict=True):
            results["methods"].append(_score_network(name, path, opened, folder, options, keep_frames, advance))
    (folder / RESULTS).write_text(json.dumps(_plain(results), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if keep_frames:
        report.write_videos(folder, names, opened)
    report.write_html(folder, results, title=title, credits=credits)
    print(report.table(results))
    return results


def method_names(weights: Sequence[Path]) -> list[str]:
    """A file's stem names its method; where stems meet, the folder's name goes before it.

    Raises:
        ValueError: two methods would still have the same name.
    """
    stems = [path.stem for path in weights]
    names = [
        stem if stems.count(stem) == 1 and stem not in (BLUR, SPIKE_RATIO) else f"{path.resolve().parent.name}_{stem}"
        for stem, path in zip(stems, weights, strict=True)
    ]
    for name, path in zip(names, weights, strict=True):
        if names.count(name) > 1:
            raise ValueError(f"{path}: two weights files would both be called {name}; rename one")
    return names


@contextlib.contextmanager
def results_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A temporary sibling folder that takes the name `out` when the block ends well, and vanishes otherwise.

    Only what holds a results.json, or nothing, is ever replaced.

    Raises:
        FileExistsError: `out` exists and `overwrite` is not set, or it is something else than a results folder.
    """
    out = Path(out)
    refuse_existing(out, marker=RESULTS, overwrite=overwrite)
    with complete_or_absent(out) as partial:
        partial.mkdir()
        yield partial


def _open(recordings: Sequence[Path], options: RestoreOptions, layout: LayoutOptions) -> list[Recording]:
    opened = open_recordings(recordings, layout, part="val")  # of a dataset folder the part that nothing was trained on
    if not opened:
        raise ValueError("recordings: none for validation found")
    names = [recording.name for recording in opened]
    for recording in opened:
        if not recording.sharp:
            raise ValueError(f"{recording.root}: no sharp frames to compare with")
        if names.count(recording.name) > 1:
            raise ValueError(f"{recording.root}: two recordings are called {recording.name}; rename one")
    return [recording if recording.spikes is None else admit(recording, options.ignore_health) for recording in opened]


def _describe(recordings: Sequence[Recording]) -> dict[str, Any]:
    hashes = [_data_hash(recording) for recording in recordings]
    return {
        "sha256": hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
        "recordings": [
            {
                "name": recording.name,
                "sha256": data_hash,
                "num_frames": recording.num_frames,
                "width": recording.width,
                "height": recording.height,
                "fps": recording.fps,
                "tick_rate_hz": recording.tick_rate_hz,
                "provenance": recording.provenance,
            }
            for recording, data_hash in zip(recordings, hashes, strict=True)
        ],
    }


def _data_hash(recording: Recording) -> str:
    """Of everything that a score depends on; file and folder names are not part of it."""
    blur = recording.blur if isinstance(recording.blur, tuple) else (recording.blur,)
    spikes = () if recording.spikes is None else recording.spikes.files
    lines = [f"{e.start_tick} {e.stop_tick}" for e in recording.exposures]
    if recording.alignment.is_spatial:
        lines.append(f"alignment {json.dumps(alignment_values(recording.alignment))}")
    if recording.bad_pixels:
        lines.append(f"bad pixels {list(recording.bad_pixels)}")
    for role, paths in (("blur", blur), ("sharp", recording.sharp), ("spikes", spikes)):
        lines.extend(f"{role} {sha256_file(path)}" for path in paths)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _blurry_frame(recording: Recording, index: int) -> torch.Tensor:
    return to_float(recording.read_blur(index))


def _spike_ratio_frame(recording: Recording, index: int) -> torch.Tensor:
    num_ticks = recording.exposures[index].num_ticks
    start, stop = short_window(num_ticks)
    counts = torch.from_numpy(recording.count_exposure(index, [0, start, stop, num_ticks]).astype(np.float32))
    counts = place_counts(counts, bad=recording.bad_mask(), positions=recording.sensor_positions)
    return spike_ratio(_blurry_frame(recording, index), counts[1] / (stop - start), counts.sum(0) / num_ticks)


def _score_plain(
    name: str,
    frame: Callable[[Recording, int], torch.Tensor],
    recordings: Sequence[Recording],
    advance: Callable[[], None],
) -> dict[str, Any]:
    """A method without weights: `frame` makes frame `index` of a recording."""
    sequences: list[dict[str, Any]] = []
    for recording in recordings:
        frames: list[dict[str, Any]] = []
        for index in range(recording.num_frames):
            frames.append(_score(index, frame(recording, index), recording))
            advance()
        sequences.append({"name": recording.name, "mean": metrics.sequence_mean(frames), "frames": frames})
    return {"name": name, "mean": metrics.total_mean([s["mean"] for s in sequences]), "sequences": sequences}


def _score_network(
    name: str,
    path: Path,
    recordings: Sequence[Recording],
    folder: Path,
    options: RestoreOptions,
    keep_frames: bool,
    advance: Callable[[], None],
) -> dict[str, Any]:
    device = runtime.pick_device(options.device)
    network, info = load_network(path, device)
    warm_up_px, spikes = network.min_size_px, info.model.spikes if reads_spikes(info, options) else None
    voxels = None if spikes is None else torch.zeros(2, spikes.num_bins, warm_up_px // 2, warm_up_px // 2)
    grey = torch.full((2, 3, warm_up_px, warm_up_px), 0.5)
    restore_clip(network, grey, voxels, dataclasses.replace(options, skip_sharp=None))
    sequences: list[dict[str, Any]] = []
    for recording in recordings:
        runtime.reset_peak_memory(device)
        frames: list[dict[str, Any]] = []
        work: list[ClipWork] = []
        seconds = 0.0
        restoring = restore_frames(network, info, recording, options, tell=work.append)
        for index, frame, frame_seconds in _timed(restoring, device):
            assert index == len(frames), f"frame {index} of {recording.name} came after {len(frames)} frames"
            seconds += frame_seconds
            frames.append(_score(index, frame, recording))
            _keep(frame, index, name, recording, folder, keep_frames)
            advance()
        assert len(frames) == recording.num_frames, (recording.name, len(frames))
        sequences.append(
            {
                "name": recording.name,
                "mean": metrics.sequence_mean(frames),
                "ms_per_frame": 1000.0 * seconds / len(frames),
                "peak_memory_bytes": runtime.peak_memory_bytes(device),
                "tiles": tiles_in_all(work),
                "frames": frames,
            }
        )
    return {
        "name": name,
        "weights": path.name,
        "weights_sha256": sha256_file(path),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "spikes": reads_spikes(info, options),
        "device": str(device),
        "model": dataclasses.asdict(info.model),
        "training": info.provenance,
        "mean": metrics.total_mean([s["mean"] for s in sequences]),
        "ms_per_frame": statistics.median(s["ms_per_frame"] for s in sequences),
        "peak_memory_bytes": max(s["peak_memory_bytes"] for s in sequences),
        "sequences": sequences,
    }


def _timed(
    restoring: Iterator[tuple[int, torch.Tensor]], device: torch.device
) -> Iterator[tuple[int, torch.Tensor, float]]:
    """(index, frame, seconds that the frame took): the device is waited for before each reading of the clock."""
    while True:
        runtime.synchronise(device)
        began_s = time.perf_counter()
        step = next(restoring, None)
        runtime.synchronise(device)
        if step is None:
            return
        yield *step, time.perf_counter() - began_s


def _keep(
    frame: Float[torch.Tensor, "3 H W"], index: int, name: str, recording: Recording, folder: Path, keep_frames: bool
) -> None:
    """Write the picture of the middle frame, and with `keep_frames` every restored frame."""
    if keep_frames:
        path = report.frame_path(folder, name, recording.name, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, to_uint8(frame))
    if index == recording.num_frames // 2:
        blur, sharp = to_float(recording.read_blur(index)), to_float(recording.read_sharp(index))
        report.write_three_columns(report.picture_path(folder, name, recording.name), blur, frame, sharp)


def _score(index: int, frame: Float[torch.Tensor, "3 H W"], recording: Recording) -> dict[str, Any]:
    sharp = to_float(recording.read_sharp(index))
    try:
        scores = metrics.frame_scores(frame.detach().float().cpu()[None], sharp[None])
    except ValueError as error:
        raise ValueError(f"{recording.name}, frame {index}: {error}") from None
    return {"frame_idx": index, **scores[0]}


def _plain(value: Any) -> Any:
    """JSON has no infinity: the PSNR of an exact frame is written as the string "inf"."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value
