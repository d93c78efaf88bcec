"""The one entrance to all metrics: which there are, which this machine can compute, and all of them for one clip.

Importing it loads neither torch nor NumPy (`Measure` holds options).

Metrics see whole clips of one recording: every frame once, the first and the last included.

Dimension key: T frames, H rows, W columns; the 3 channels are R, G, B.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from spikevrt.progress import text_table

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from spikevrt.recording.sidecar import Exposure


@dataclass(frozen=True)
class Metric:
    """A column of the table. `better` is None where methods are not to be ranked by it: the truth's own values, which
    are the same for every method, and what has to be read against them."""

    name: str
    unit: str  # "" where it has none
    better: Literal["up", "down"] | None
    words: str  # what exactly, in one line
    of: Literal["frame", "sequence"] = "frame"  # what has a value of its own


METRICS_ALL = (
    Metric("psnr_rgb", "dB", "up", "8 bit after clamp and round, three channels, per frame"),
    Metric("psnr_y", "dB", "up", "of the BT.601 luma of the 8-bit picture, not rounded, per frame"),
    Metric("ssim_rgb", "", "up", "2-D, Gaussian window 11x11, sigma 1.5, valid area, mean of the three channels"),
    Metric("ssim_y", "", "up", "the same of the BT.601 luma"),
    Metric("ssim_rgb_3d", "", "up", "3-D, Gaussian window 11x11x11 over channels too, border repeated, peak 255"),
    Metric("lpips_alex", "", "down", "LPIPS v0.1 with AlexNet, inputs in [-1, 1], of the 8-bit picture"),
    Metric("lpips_vgg", "", "down", "LPIPS v0.1 with VGG-16, inputs in [-1, 1], of the 8-bit picture"),
    Metric("flip", "", "down", "mean LDR-FLIP at 67 pixels a degree"),
    Metric("vmaf_neg", "", "up", "VMAF v0.6.1 NEG by ffmpeg's libvmaf, YUV 4:4:4 of BT.709, per frame"),
    Metric(
        "edge_rise_px", "px", "down", "mean 10-90 % rise width of edges within 5 px of motion boundaries of the truth"
    ),
    Metric("edge_rise_px_sharp", "px", None, "the same width of the sharp frames themselves"),
    Metric("reblur_psnr", "dB", None, "psnr_rgb of the frames, blurred along their own DIS flow, against the input"),
    Metric("reblur_psnr_sharp", "dB", None, "the same of the sharp frames: nearer to it is better, above it is not"),
    Metric("tof", "px", "down", "mean length of the difference of Farneback flows, next frames", "sequence"),
    Metric("tlp", "", "down", "|LPIPS of neighbours - LPIPS of true neighbours|, AlexNet, not scaled", "sequence"),
)
NAMES = tuple(metric.name for metric in METRICS_ALL)
DEFAULT, ALL = NAMES[:4], "all"  # `metrics.METRICS`
_NEED_NEIGHBOURS = ("reblur_psnr", "reblur_psnr_sharp", "tof", "tlp")
_NEED_OPENCV = ("edge_rise_px", "edge_rise_px_sharp", "reblur_psnr", "reblur_psnr_sharp", "tof")


@dataclass(frozen=True)
class Measure:
    """Which metrics are taken (each once, in the order of the table), and LPIPS' VGG weights for one of them.

    Raises:
        ValueError, FileNotFoundError: as `choose`, which is asked.
    """

    metrics: Annotated[tuple[str, ...], "all, or some of those in docs/evaluation.md"] = DEFAULT
    lpips_vgg: Annotated[Path | None, "weights of VGG-16, for lpips_vgg (none)", "FILE"] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", choose(self.metrics, self.lpips_vgg))

    @property
    def needs_whole_recordings(self) -> bool:
        """Whether frames are compared with their neighbours, so that all of a recording's are held at once."""
        return not set(self.metrics) <= set(DEFAULT)


def available(lpips_vgg: Path | None = None) -> tuple[str, ...]:
    """The names of all metrics that this machine can compute, in the order of the table."""
    return tuple(name for name in NAMES if lacking(name, lpips_vgg) is None)


def lacking(name: str, lpips_vgg: Path | None = None) -> str | None:
    """What a metric lacks on this machine, in one line; None where it lacks nothing."""
    if name in _NEED_OPENCV and importlib.util.find_spec("cv2") is None:
        return f"{name} needs OpenCV; install spikevrt[metrics]"
    if name == "flip" and importlib.util.find_spec("flip_evaluator") is None:
        return "flip needs the package flip-evaluator; install spikevrt[metrics]"
    if name == "lpips_vgg" and lpips_vgg is None:
        return "lpips_vgg needs a file with the weights of VGG-16, which examples/lpips_weights.py makes; none given"
    if name == "vmaf_neg":
        from spikevrt.evaluate.metrics import find_ffmpeg

        try:
            find_ffmpeg()
        except ValueError as error:
            return str(error)
    return None


def choose(asked: Sequence[str], lpips_vgg: Path | None = None) -> tuple[str, ...]:
    """The metrics asked for, each once, in the order of the table; ("all",) is all that this machine can compute.

    Raises:
        ValueError: nothing asked for, an unknown name, or a metric that lacks something here.
        FileNotFoundError, ValueError: `lpips_vgg` is no file of VGG-16's weights.
    """
    if not asked:
        raise ValueError(f"metrics: none; allowed: {ALL}, or some of {', '.join(NAMES)}")
    for name in asked:
        if name != ALL and name not in NAMES:
            raise ValueError(f"metrics: {name}; allowed: {ALL}, or some of {', '.join(NAMES)}")
    if lpips_vgg is not None:
        from spikevrt.evaluate.metrics import lpips_network

        lpips_network(lpips_vgg)  # whatever is wrong with the file is told now
    wanted = {*asked, *(available(lpips_vgg) if ALL in asked else ())}
    for name in wanted - {ALL}:
        missing = lacking(name, lpips_vgg)
        if missing is not None:
            raise ValueError(f"metrics: {missing}")
    return tuple(name for name in NAMES if name in wanted)


def clip_scores(
    restored: Float[Tensor, "T 3 H W"],
    sharp: Float[Tensor, "T 3 H W"],
    blur: Float[Tensor, "T 3 H W"],
    exposures: Sequence[Exposure],
    names: Sequence[str],
    *,
    lpips_vgg: Path | None = None,
) -> tuple[list[dict[str, float]], dict[str, float]]:
    """(the scores of each frame, those of the sequence) of a whole recording, by the names that `choose` returned.

    Frames are RGB in [0, 1]. The sequence's scores are means over the pairs of neighbouring frames (`tof`, `tlp`); all
    others belong to a frame. The widths of edges are missing in a frame whose truth has no strong edge.
    `metrics.sequence_mean` averages the frames.

    Raises:
        ValueError: the shapes differ, a value is not finite, frames are too small for a metric, or there is but one
            frame and a metric compares neighbours.
    """
    from spikevrt.evaluate import metrics
    from spikevrt.evaluate.metrics import flip, lpips_network, lpips_scores, vmaf_neg
    from spikevrt.evaluate.motion import edge_rise, reblur_psnr, tof

    assert len(exposures) == len(restored) and set(names) <= set(NAMES), (len(exposures), len(restored), names)
    if len(restored) < 2:
        for name in names:
            if name in _NEED_NEIGHBOURS:
                raise ValueError(f"{name} of a recording of 1 frame; allowed: 2 or more, it compares neighbours")
    metrics.eight_bit(restored, sharp)  # refuses shapes that differ and values that are no numbers, whatever follows
    wanted, of_frames, of_sequence = set(names), dict[str, Sequence[float]](), dict[str, float]()
    if wanted & set(metrics.METRICS):
        plain = metrics.frame_scores(restored, sharp)
        of_frames |= {name: [frame[name] for frame in plain] for name in metrics.METRICS}
    if "ssim_rgb_3d" in wanted:
        of_frames["ssim_rgb_3d"] = metrics.ssim_rgb_3d(restored, sharp).tolist()
    if wanted & {"lpips_alex", "tlp"}:
        distances, changes = lpips_scores(lpips_network(), restored, sharp)
        of_frames["lpips_alex"] = distances.tolist()
        of_sequence["tlp"] = changes.double().mean().item()
    if "lpips_vgg" in wanted:
        assert lpips_vgg is not None, "`choose` asks for the file"
        of_frames["lpips_vgg"] = lpips_scores(lpips_network(lpips_vgg), restored, sharp)[0].tolist()
    if "flip" in wanted:
        of_frames["flip"] = flip(restored, sharp).tolist()
    if "vmaf_neg" in wanted:
        of_frames["vmaf_neg"] = vmaf_neg(restored, sharp).tolist()
    if wanted & {"edge_rise_px", "edge_rise_px_sharp"}:
        rise = edge_rise(restored, sharp)
        of_frames |= {"edge_rise_px": rise.restored_px.tolist(), "edge_rise_px_sharp": rise.sharp_px.tolist()}
    if "reblur_psnr" in wanted:
        of_frames["reblur_psnr"] = reblur_psnr(restored, blur, exposures).tolist()
    if "reblur_psnr_sharp" in wanted:
        of_frames["reblur_psnr_sharp"] = reblur_psnr(sharp, blur, exposures).tolist()
    if "tof" in wanted:
        of_sequence["tof"] = tof(restored, sharp).mean().item()
    ordered = [name for name in NAMES if name in wanted]
    frames = [
        {name: of_frames[name][t] for name in ordered if name in of_frames and not math.isnan(of_frames[name][t])}
        for t in range(len(restored))
    ]
    return frames, {name: of_sequence[name] for name in ordered if name in of_sequence}


def heading(metric: str, unit: str) -> str:
    """A metric's name, and its unit where the name does not say it."""
    return metric if unit in ("", *metric.split("_")) else f"{metric} {unit}"


def score_table(results: dict[str, Any]) -> str:
    """The total means of a results.json as plain text, one method a line; a dash where there is no network."""
    taken = {name for method in results["methods"] for name in method["mean"]}
    known = [metric for metric in METRICS_ALL if metric.name in taken]
    heads = [heading(metric.name, metric.unit) for metric in known]
    rows = [["method", *heads, "ms/frame", "peak MB", "parameters"]]
    for method in results["methods"]:
        mean, cost = method["mean"], ["-"] * 3
        if "weights" in method:
            megabytes = method["peak_memory_bytes"] / 1e6
            cost = [f"{method['ms_per_frame']:.0f}", f"{megabytes:.0f}", f"{method['parameters']:,}"]
        cells = [
            f"{mean[metric.name]:.{2 if metric.unit == 'dB' else 4}f}" if metric.name in mean else "-"
            for metric in known
        ]
        rows.append([method["name"], *cells, *cost])
    return "\n".join(text_table(rows))
