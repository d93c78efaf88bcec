"""Score a network in training exactly as users will run it: through the restorer, whole frames, no crop.

Dimension key: T frames, H image rows, W image columns.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spikevrt.data.dataset import ClipDataset
from spikevrt.data.sequence import PreparedSequence
from spikevrt.evaluate.metrics import psnr_rgb
from spikevrt.evaluate.pictures import write_three_columns
from spikevrt.losses import Flow, exposure_duty, frame_motion, reblur
from spikevrt.recording.frames import to_float
from spikevrt.recording.recording import Recording
from spikevrt.recording.sidecar import Exposure
from spikevrt.restore.restorer import Restorer
from spikevrt.train.distributed import Ranks
from spikevrt.typed import amount

if TYPE_CHECKING:
    from spikevrt.model.network import Network

LEAST_MOTION_PX = 0.1
NUM_PICTURES = 3  # sequences that get a three-column picture


@dataclass(frozen=True)
class Score:
    """Mean over sequences of the mean over their frames, dB; `value_blur` is the untouched input's.

    `metric` is psnr_rgb or, for clips without sharp frames, reblur_psnr: restored frames averaged over their exposure
    against the blurry input (docs/losses.md).
    """

    metric: str
    value: float
    value_blur: float
    num_frames: int
    seconds: float

    def row(self) -> dict[str, float]:
        """As the journal has it."""
        return {
            self.metric: self.value,
            f"{self.metric}_blur": self.value_blur,
            "num_frames": self.num_frames,
            "seconds": self.seconds,
        }

    def in_words(self) -> str:
        return (
            f"{self.metric} {self.value:.2f} dB (blur {self.value_blur:.2f}), "
            f"{amount(self.num_frames, 'frame')} in {self.seconds:.1f} s"
        )


def validate(
    restorer: Restorer,
    sequences: Sequence[PreparedSequence],
    ranks: Ranks,
    *,
    clip_frames: int = 5,
    pictures: Path | None = None,
    flow: Flow | None = None,
) -> Score:
    """Restore every sequence (shared among the ranks) and score every frame once.

    The network is left in the mode it was in. `pictures` is a path prefix: PREFIX_<sequence>_<frame>.png. Without sharp
    frames, clips of up to `clip_frames` frames are blurred again along `flow` (None: the network's own).
    """
    began, network = time.perf_counter(), restorer.network
    was_training = network.training
    network.eval()
    scores: dict[tuple[str, int], tuple[float, float]] = {}
    try:
        for index in range(ranks.rank, len(sequences), ranks.world):
            sequence = sequences[index]
            recording = sequence.as_recording()
            prefix = pictures if index < NUM_PICTURES else None
            # frames have other sizes than crops: what was compiled for training stays out of it
            with torch.no_grad(), torch.compiler.set_stance("force_eager"):
                if sequence.has_sharp:
                    found = _scored_by_sharp(restorer, recording, prefix)
                else:
                    found = _scored_by_blur(restorer, sequence, recording, clip_frames, prefix, flow)
            scores |= {(sequence.name, frame_idx): pair for frame_idx, pair in found.items()}
    finally:
        network.train(was_training)
    merged = {frame: pair for part in ranks.gather(scores) for frame, pair in part.items()}
    if not merged:
        raise ValueError("validation: clips of one frame without a sharp one cannot be scored; prepare longer ones")
    metric = "psnr_rgb" if sequences[0].has_sharp else "reblur_psnr"
    return Score(metric, *_sequence_means(merged), len(merged), time.perf_counter() - began)


def _scored_by_sharp(restorer: Restorer, recording: Recording, pictures: Path | None) -> dict[int, tuple[float, float]]:
    """By frame_idx: PSNR of the restored and of the blurry frame against the sharp one."""
    scores = {}
    for index, frame in enumerate(restorer.frames(recording)):
        blur, sharp = to_float(recording.read_blur(index)), to_float(recording.read_sharp(index))
        restored, untouched = (psnr_rgb(seen[None], sharp[None]).item() for seen in (frame, blur))
        scores[recording.exposures[index].frame_idx] = (restored, untouched)
        if pictures is not None and index == recording.num_frames // 2:
            _write_picture(pictures, recording, index, (blur, frame, sharp))
    return scores


def _scored_by_blur(
    restorer: Restorer,
    sequence: PreparedSequence,
    recording: Recording,
    clip_frames: int,
    pictures: Path | None,
    flow: Flow | None,
) -> dict[int, tuple[float, float]]:
    """By frame_idx: PSNR of the restored and of the blurry frame, blurred (again), against the blurry one.

    Clip by clip; one frame alone shows no motion to be blurred along, and is not scored.
    """
    scores: dict[int, tuple[float, float]] = {}
    frames = restorer.frames(recording)
    for run in sequence.runs():
        for clip in clips_of(run, clip_frames):
            restored = torch.stack([next(frames) for _ in clip])
            if len(clip) < 2:
                continue
            blur = torch.stack([to_float(recording.read_blur(index)) for index in clip])
            exposures = [recording.exposures[index] for index in clip]
            seen = [_reblurred(restorer.network, one, exposures, flow) for one in (restored, blur)]
            pairs = zip(*(psnr_rgb(one, blur).tolist() for one in seen), strict=True)
            scores |= {one.frame_idx: pair for one, pair in zip(exposures, pairs, strict=True)}
            if pictures is not None:
                middle = len(clip) // 2
                _write_picture(pictures, recording, clip[middle], (blur[middle], restored[middle], seen[0][middle]))
                pictures = None
    return scores


def clips_of(run: range, length: int) -> list[range]:
    """The run cut into the fewest clips of at most `length`, sizes differing by at most one."""
    num_clips = -(-len(run) // length)
    edges = [run.start + k * len(run) // num_clips for k in range(num_clips + 1)]
    return [range(a, b) for a, b in pairwise(edges)]


def _sequence_means(scores: dict[tuple[str, int], tuple[float, float]]) -> tuple[float, float]:
    sequences: dict[str, list[tuple[float, float]]] = {}
    for (name, _), pair in sorted(scores.items()):
        sequences.setdefault(name, []).append(pair)
    means = [[sum(column) / len(frames) for column in zip(*frames, strict=True)] for frames in sequences.values()]
    restored, blur = (sum(column) / len(means) for column in zip(*means, strict=True))
    return restored, blur


def check_motion(clips: ClipDataset, flow: Flow, device: torch.device) -> None:
    """Refuse a flow that sees no motion: then blurring again changes nothing, and the best output is the input.

    Raises:
        ValueError: in none of a few clips the mean motion reaches `LEAST_MOTION_PX`.
    """
    looked_at = [clips[index]["blur"][None].to(device) for index in range(0, len(clips), max(1, len(clips) // 8))]
    motion_px = max(float(frame_motion(clip, flow).norm(dim=2).mean()) for clip in looked_at)
    if motion_px < LEAST_MOTION_PX:
        raise ValueError(
            f"train.self_supervised: the optical flow sees {motion_px:.2f} pixels of motion a frame, so the re-blur "
            "term would teach the network to return its input; start from weights with a trained SpyNet, or set "
            "loss.reblur_flow=dis"
        )


def _reblurred(network: Network, frames: Tensor, exposures: Sequence[Exposure], flow: Flow | None) -> Tensor:
    """The clip averaged over its exposures."""
    device = next(network.parameters()).device
    duty = exposure_duty([[one.t0_s for one in exposures]], [[one.t1_s for one in exposures]]).to(device)
    with torch.no_grad():
        blurred = reblur(frames[None].to(device), flow or network.frame_flow, duty)
    return blurred[0].cpu()


def _write_picture(prefix: Path, recording: Recording, index: int, columns: tuple[Tensor, Tensor, Tensor]) -> None:
    """Blur, restored, and sharp (or, where there is none, the restored frame blurred again)."""
    path = prefix.with_name(f"{prefix.name}_{recording.name}_{recording.exposures[index].frame_idx:06d}.png")
    network = f"{prefix.parent.parent.name}, step {prefix.name.lstrip('0')}"
    with contextlib.suppress(OSError):  # on a full disk the score counts, and the run
        write_three_columns(path, *columns, network)
