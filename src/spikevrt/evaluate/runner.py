"""Score methods on recordings that have sharp frames, and time them; everything goes into one results.json.

Networks run through `restore.restorer`, as users run them: whole frames, no crop. Every frame is restored, scored and
counted exactly once. Time is taken after the device has finished, over reading a recording and restoring it; scoring
and writing are not part of it, and the first, slow call is made before the clock starts.

Dimension key: T frames, H rows, W columns.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from spikevrt import runtime
from spikevrt.atomic import complete_or_absent, refuse_existing, write_text
from spikevrt.evaluate import metrics, scores
from spikevrt.evaluate.methods import (
    BLUR,
    INTERVAL_RATIO,
    PLAIN,
    SPIKE_RATIO,
    Method,
    blur_method,
    interval_ratio_method,
    network_method,
    other_method,
    spike_ratio_method,
)
from spikevrt.evaluate.pictures import frame_path, picture_path, write_three_columns
from spikevrt.evaluate.results import FORMAT, RESULTS, VERSION
from spikevrt.evaluate.scores import Measure
from spikevrt.progress import progress_bar
from spikevrt.recording.alignment import alignment_values
from spikevrt.recording.frames import to_float, to_uint8, write_image
from spikevrt.recording.recording import Recording
from spikevrt.recording.spike_file import sha256_file
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.restorer import Gate, admitted
from spikevrt.shipped import find
from spikevrt.typed import amount

if TYPE_CHECKING:
    from jaxtyping import Float

PROTOCOL = {
    "averaging": "mean over the frames of a sequence, then over the sequences; every frame once, full size, no crop",
    "ms_per_frame": "from file to restored frame, device synchronised, after a warm-up; median over the sequences",
    "peak_memory_bytes": "while restoring: allocated by torch on CUDA, resident in the whole process on a CPU",
}


DEFAULT_MEASURE = Measure()


@dataclass(frozen=True)
class Subject:
    """A recording to be restored and scored: its name in the results, and what its cameras are like (a benchmark's).

    `sha256` is of its contents, where that is known already; without, its files are read.
    """

    name: str
    recording: Recording
    condition: dict[str, Any] | None = None
    sha256: str | None = None


Keep = Callable[[torch.Tensor, int, Subject], None]


def write_results(
    weights: Sequence[Path],
    recordings: Sequence[Recording],
    folder: Path,
    options: RestoreOptions,
    *,
    others: Sequence[str] = (),
    keep_frames: bool = False,
    measure: Measure = DEFAULT_MEASURE,
    gate: Gate | None = None,
) -> dict[str, Any]:
    """Score `all_methods`, the two baselines only where there are spikes; write and return what results.json in
    `folder` holds.

    `folder` exists. It also gets one picture (blurry | restored | sharp) per method and recording, and with
    `keep_frames` the frames that networks and `others` restored. Raises FileNotFoundError, ValueError: an input that is
    missing, damaged, or has no sharp frames.
    """
    methods = all_methods([find(path) for path in weights], others, options, gate)
    admitted = _admitted(recordings, options, gate)
    if any(recording.spikes is None for recording in admitted):
        methods = [method for method in methods if method.name not in (SPIKE_RATIO, INTERVAL_RATIO)]
    subjects = [Subject(recording.name, recording) for recording in admitted]
    results = new_results(subjects, options, measure, folder)
    num_frames = sum(recording.num_frames for recording in admitted) * len(methods)
    with progress_bar("restoring and scoring") as progress:
        done = itertools.count(1)

        def advance() -> None:
            progress(next(done), num_frames)

        for method in methods:
            keep = functools.partial(_keep, method.name, folder, frames=keep_frames and method.name not in PLAIN)
            results["methods"].append(
                score(method, subjects, measure, keep=None if method.name == BLUR else keep, advance=advance)
            )
    write_json(folder / RESULTS, results)
    return results


def new_results(subjects: Sequence[Subject], options: RestoreOptions, measure: Measure, folder: Path) -> dict[str, Any]:
    """What the results.json of `folder` says before any method has been scored."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "protocol": {
            **{metric.name: metric.words for metric in scores.METRICS_ALL if metric.name in measure.metrics},
            **PROTOCOL,
        },
        "environment": runtime.environment(runtime.pick_device(options.device)),
        "options": dataclasses.asdict(options),
        "benchmark": None,
        "data": _describe(subjects, folder),
        "methods": [],
    }


def write_json(path: Path, results: dict[str, Any]) -> None:
    """Write results, complete or not at all."""
    write_text(path, json.dumps(plain_json(results), indent=1, allow_nan=False) + "\n")


def all_methods(
    weights: Sequence[Path], others: Sequence[str], options: RestoreOptions, gate: Gate | None
) -> list[Method]:
    """What is scored, in the order of the table: the blurry input, the two baselines without a network, the network of
    each of `weights`, and `others`, as `other_method` reads them. Raises FileNotFoundError, ValueError: as
    `load_weights` and `other_method`; two of one name."""
    methods = [blur_method(), spike_ratio_method(), interval_ratio_method()]
    for name, path in zip(method_names(weights), weights, strict=True):
        methods.append(network_method(name, path, options, gate))
    methods += map(other_method, others)
    names = [method.name for method in methods]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"method: {name} twice; give another name, as NAME=MODULE:FUNCTION")
    return methods


def method_names(weights: Sequence[Path]) -> list[str]:
    """A file's stem names its method; where stems meet, the folder's name goes before it. Raises ValueError: two
    methods would still have the same name."""
    stems = [path.stem for path in weights]
    names = [
        stem if stems.count(stem) == 1 and stem not in PLAIN else f"{path.resolve().parent.name}_{stem}"
        for stem, path in zip(stems, weights, strict=True)
    ]
    for name, path in zip(names, weights, strict=True):
        if names.count(name) > 1:
            raise ValueError(f"{path}: two weights files would both be called {name}; rename one")
    return names


@contextlib.contextmanager
def results_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A temporary sibling folder that takes the name `out` when the block ends well, and vanishes otherwise.

    Only what holds a results.json, or nothing, is ever replaced. Raises FileExistsError: `out` exists and `overwrite`
    is not set, or it is something else than a results folder.
    """
    out = Path(out)
    refuse_existing(out, marker=RESULTS, overwrite=overwrite)
    with complete_or_absent(out) as partial:
        partial.mkdir()
        yield partial


def _admitted(recordings: Sequence[Recording], options: RestoreOptions, gate: Gate | None) -> list[Recording]:
    if not recordings:
        raise ValueError("recordings: none for validation found")
    names = [recording.name for recording in recordings]
    for recording in recordings:
        if not recording.sharp:
            raise ValueError(f"{recording.root}: no sharp frames to compare with")
        if names.count(recording.name) > 1:
            raise ValueError(f"{recording.root}: two recordings are called {recording.name}; rename one")
    return [admitted(recording, options, gate) for recording in recordings]


def _where(path: Path, folder: Path) -> str:
    """As results.json names a path: relative to its own folder what lies inside, so that the folder can be moved."""
    path, folder = path.absolute(), folder.absolute()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _describe(subjects: Sequence[Subject], folder: Path) -> dict[str, Any]:
    hashes = [subject.sha256 or _data_hash(subject.recording) for subject in subjects]
    return {
        "sha256": hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
        "recordings": [
            {
                "name": subject.name,
                "path": _where(subject.recording.root, folder),
                "condition": subject.condition,
                "sha256": data_hash,
                "num_frames": subject.recording.num_frames,
                "width": subject.recording.width,
                "height": subject.recording.height,
                "fps": subject.recording.fps,
                "tick_rate_hz": subject.recording.tick_rate_hz,
                "provenance": subject.recording.provenance,
            }
            for subject, data_hash in zip(subjects, hashes, strict=True)
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


def score(
    method: Method,
    subjects: Sequence[Subject],
    measure: Measure,
    *,
    keep: Keep | None = None,
    advance: Callable[[], None],
) -> dict[str, Any]:
    """Restore and score every recording by one method: its entry in the results.

    `keep` is given every frame with its index and recording, `advance` is called for each. Raises ValueError: a frame
    that is not finite or of another size, or another number of frames.
    """
    restorer = method.ready()
    sequences: list[dict[str, Any]] = []
    for subject in subjects:
        total = subject.recording.num_frames
        runtime.reset_peak_memory(restorer.device)
        whole: list[torch.Tensor] = []
        frames: list[dict[str, Any]] = []
        seconds, num_frames = 0.0, 0
        for index, (frame, frame_seconds) in enumerate(_timed(restorer.restore(subject.recording), restorer.device)):
            num_frames = index + 1
            if num_frames > total:
                break
            seconds += frame_seconds
            frame = frame.detach().float().cpu()
            if measure.needs_whole_recordings:
                whole.append(frame)
            else:
                frames += _scored([frame], index, subject, measure)[0]
            if keep is not None:
                keep(frame, index, subject)
            advance()
        if num_frames != total:
            came = "more frames" if num_frames > total else amount(num_frames, "frame")
            raise ValueError(f"{method.name}: {subject.name}: {came} came out; allowed: {total}")
        peak_bytes, of_sequence = runtime.peak_memory_bytes(restorer.device), dict[str, float]()
        if whole:
            frames, of_sequence = _scored(whole, 0, subject, measure)
        sequences.append(
            {
                "name": subject.name,
                "mean": metrics.sequence_mean(frames) | of_sequence,
                "ms_per_frame": 1000.0 * seconds / total,
                "peak_memory_bytes": peak_bytes,
                **restorer.told(),
                "frames": frames,
            }
        )
    return {
        "name": method.name,
        **restorer.about,
        "mean": metrics.total_mean([s["mean"] for s in sequences]),
        "ms_per_frame": statistics.median(s["ms_per_frame"] for s in sequences),
        "peak_memory_bytes": max(s["peak_memory_bytes"] for s in sequences),
        "sequences": sequences,
    }


def _scored(
    restored: Sequence[Float[torch.Tensor, "3 H W"]], first: int, subject: Subject, measure: Measure
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The scores of consecutive frames from index `first` on, each with its index, and those of their sequence."""
    recording, indices = subject.recording, range(first, first + len(restored))
    sharp, blur = (
        torch.stack([to_float(read(index)) for index in indices])
        for read in (recording.read_sharp, recording.read_blur)
    )
    exposures = recording.exposures[first : first + len(restored)]
    try:
        frames, of_sequence = scores.clip_scores(
            torch.stack(list(restored)), sharp, blur, exposures, measure.metrics, lpips_vgg=measure.lpips_vgg
        )
    except ValueError as error:
        where = f"{subject.name}, frame {first}" if len(restored) == 1 else subject.name
        raise ValueError(f"{where}: {error}") from None
    return [{metrics.FRAME_IDX: index, **frame} for index, frame in zip(indices, frames, strict=True)], of_sequence


def _timed(restoring: Iterator[torch.Tensor], device: torch.device) -> Iterator[tuple[torch.Tensor, float]]:
    """(frame, seconds that it took): the device is waited for before each reading of the clock."""
    while True:
        runtime.synchronise(device)
        began_s = time.perf_counter()
        frame = next(restoring, None)
        runtime.synchronise(device)
        if frame is None:
            return
        yield frame, time.perf_counter() - began_s


def _keep(name: str, folder: Path, frame: torch.Tensor, index: int, subject: Subject, *, frames: bool) -> None:
    """Write the picture of the middle frame, and with `frames` every restored frame."""
    recording = subject.recording
    if frames:
        path = frame_path(folder, name, subject.name, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, to_uint8(frame))
    if index == recording.num_frames // 2:
        blur, sharp = to_float(recording.read_blur(index)), to_float(recording.read_sharp(index))
        write_three_columns(picture_path(folder, name, subject.name), blur, frame, sharp, name)


def plain_json(value: Any) -> Any:
    """JSON has no infinity: the PSNR of an exact frame is written as the string "inf"."""
    if isinstance(value, dict):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value
