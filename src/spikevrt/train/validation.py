"""Score a network in training exactly as users will run it: through the restorer, whole frames, no crop.

Dimension key: T frames, H image rows, W image columns.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from spikevrt.evaluate.metrics import psnr_rgb
from spikevrt.evaluate.pictures import write_three_columns
from spikevrt.losses import Flow, exposure_duty, frame_motion, reblur
from spikevrt.model.spike_vrt import SpikeVRT
from spikevrt.restore.restorer import RestoreOptions, restore_clip
from spikevrt.train.distributed import Ranks

if TYPE_CHECKING:
    from spikevrt.data.sample import Sample
    from spikevrt.model.network import Network

LEAST_MOTION_PX = 0.1
NUM_PICTURES = 3  # sequences that get a three-column picture


class Clips(Sized, Protocol):
    """Whole-frame clips, as `ClipDataset` gives them."""

    has_sharp: bool

    def __getitem__(self, item: int) -> Sample: ...


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
            f"{self.num_frames} frames in {self.seconds:.1f} s"
        )


def validate(
    network: Network,
    clips: Clips,
    options: RestoreOptions,
    ranks: Ranks,
    *,
    pictures: Path | None = None,
    max_clips: int | None = None,
    flow: Flow | None = None,
) -> Score:
    """Restore every clip (shared among the ranks) and score every frame once, also where clips overlap.

    The network is left in the mode it was in. `pictures` is a path prefix: PREFIX_<sequence>_<frame>.png. `flow`
    is what clips without sharp frames are blurred again along (None: the network's own).
    """
    began = time.perf_counter()
    was_training = network.training
    network.eval()
    num_clips = len(clips) if max_clips is None else min(len(clips), max_clips)
    scores: dict[tuple[str, int], tuple[int, float, float]] = {}  # with the clip, of which the first one counts
    pictured: set[str] = set()
    try:
        for index in range(ranks.rank, num_clips, ranks.world):
            sample = clips[index]
            # frames have other sizes than crops: what was compiled for training stays out of it
            with torch.no_grad(), torch.compiler.set_stance("force_eager"):
                restored = restore_clip(network, sample.get("lit", sample["blur"]), sample.get("spike_vox"), options)
                restored = restored.float().cpu()
            target = sample.get("sharp")
            if target is None and len(restored) < 2:
                continue  # one frame alone shows no motion to be blurred along again
            seen = [restored, sample["blur"]]
            if target is None:
                target = sample["blur"]
                seen = [_reblurred(network, frames, sample, flow) for frames in seen]
            name = sample["meta"]["seq"]
            for frame_idx, *pair in zip(
                sample["meta"]["frame_idx"], *(psnr_rgb(frames, target).tolist() for frames in seen), strict=True
            ):
                scores.setdefault((name, int(frame_idx)), (index, pair[0], pair[1]))
            if pictures is not None and index < NUM_PICTURES and name not in pictured:
                pictured.add(name)
                with contextlib.suppress(OSError):  # on a full disk the score counts, and the run
                    _write_picture(pictures, sample, restored, sample.get("sharp", seen[0]))
    finally:
        network.train(was_training)
    merged: dict[tuple[str, int], tuple[int, float, float]] = {}
    for part in ranks.gather(scores):
        for frame, found in part.items():
            merged[frame] = min(found, merged.get(frame, found))
    if not merged:
        raise ValueError("validation: clips of one frame without a sharp one cannot be scored; prepare longer ones")
    metric = "psnr_rgb" if clips.has_sharp else "reblur_psnr"
    return Score(metric, *_sequence_means(merged), len(merged), time.perf_counter() - began)


def _sequence_means(scores: dict[tuple[str, int], tuple[int, float, float]]) -> tuple[float, float]:
    sequences: dict[str, list[tuple[float, float]]] = {}
    for (name, _), (_, *pair) in sorted(scores.items()):
        sequences.setdefault(name, []).append((pair[0], pair[1]))
    means = [[sum(column) / len(frames) for column in zip(*frames, strict=True)] for frames in sequences.values()]
    restored, blur = (sum(column) / len(means) for column in zip(*means, strict=True))
    return restored, blur


def check_motion(clips: Clips, flow: Flow, device: torch.device) -> None:
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


def own_flow(network: Network, first: Tensor, second: Tensor) -> Tensor:
    """The optical flow that SpikeVRT itself sees. A U-Net has none: `start` refuses what would ask for it."""
    assert isinstance(network, SpikeVRT), type(network)
    flow: Tensor = network.vrt.spynet(first, second)[0]
    return flow


def _reblurred(network: Network, frames: Tensor, sample: Sample, flow: Flow | None) -> Tensor:
    """The clip averaged over its exposures."""
    device = next(network.parameters()).device
    duty = exposure_duty([sample["meta"]["t0"]], [sample["meta"]["t1"]]).to(device)
    with torch.no_grad():
        blurred = reblur(frames[None].to(device), flow or functools.partial(own_flow, network), duty)
    return blurred[0].cpu()


def _write_picture(prefix: Path, sample: Sample, restored: Tensor, third: Tensor) -> None:
    """Blur, restored, and sharp (or, where there is none, the restored frame blurred again)."""
    middle = len(restored) // 2
    frame_idx = sample["meta"]["frame_idx"][middle]
    path = prefix.with_name(f"{prefix.name}_{sample['meta']['seq']}_{frame_idx:06d}.png")
    network = f"{prefix.parent.parent.name}, step {prefix.name.lstrip('0')}"
    write_three_columns(path, sample["blur"][middle], restored[middle], third[middle], network)
