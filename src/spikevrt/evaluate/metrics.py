"""The only implementation of each metric of frames against the sharp ones, by its full name, and of their averages.

PSNR and SSIM; how different frames look: LPIPS, frame by frame and from frame to frame (tLP), and FLIP; VMAF's NEG
model, without reward for sharpening, by an ffmpeg that has libvmaf (nothing of it is built in here).

Every metric takes two clips of frames in [0, 1] and returns one value per frame. Both clips first become the 8-bit
pictures that would be written to disk (clamp, round), so that a printed score is the score of the delivered file.
Values are averaged over the frames of a sequence, then over the sequences (`sequence_mean`, `total_mean`); there is no
mean squared error over a whole clip anywhere.

Dimension key: T frames, H rows, W columns; the 3 channels are R, G, B.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from spikevrt.lpips import VGG16, Lpips
from spikevrt.recording.frames import to_uint8

if TYPE_CHECKING:
    from jaxtyping import Float


METRICS = ("psnr_rgb", "psnr_y", "ssim_rgb", "ssim_y")
FRAME_IDX = "frame_idx"  # the key beside the scores that says which frame they are of
SSIM_WINDOW_PX = 11
SSIM_SIGMA_PX = 1.5
_PEAK = 255.0


def psnr_rgb(restored: Float[Tensor, "T 3 H W"], sharp: Float[Tensor, "T 3 H W"]) -> Float[Tensor, " T"]:
    """PSNR in dB of each frame over its three channels, 8 bit; infinite where a frame is exact.

    Raises:
        ValueError: the shapes differ, or a value is not finite.
    """
    return _psnr(*eight_bit(restored, sharp))


def psnr_y(restored: Float[Tensor, "T 3 H W"], sharp: Float[Tensor, "T 3 H W"]) -> Float[Tensor, " T"]:
    """PSNR in dB of each frame's luma: BT.601 studio range (16-235) of the 8-bit picture, not rounded, peak 255."""
    restored, sharp = eight_bit(restored, sharp)
    return _psnr(_luma(restored), _luma(sharp))


def ssim_rgb(restored: Float[Tensor, "T 3 H W"], sharp: Float[Tensor, "T 3 H W"]) -> Float[Tensor, " T"]:
    """SSIM of each frame, the mean over the three channels of the 2-D SSIM of the 8-bit pictures.

    Gaussian window of 11 x 11 pixels, sigma 1.5, where it lies inside the picture (no padding); population covariance;
    K1 = 0.01, K2 = 0.03, peak 255.

    Raises:
        ValueError: the shapes differ, a value is not finite, or a side is shorter than 11 pixels.

    Source: Wang et al., IEEE TIP 2004; the family of KAIR's and BasicSR's Python code.
    """
    return _ssim(*eight_bit(restored, sharp), _inside)


def ssim_y(restored: Float[Tensor, "T 3 H W"], sharp: Float[Tensor, "T 3 H W"]) -> Float[Tensor, " T"]:
    """The 2-D SSIM of `ssim_rgb`, of the luma of `psnr_y`."""
    restored, sharp = eight_bit(restored, sharp)
    return _ssim(_luma(restored), _luma(sharp), _inside)


def ssim_rgb_3d(restored: Float[Tensor, "T 3 H W"], sharp: Float[Tensor, "T 3 H W"]) -> Float[Tensor, " T"]:
    """SSIM of each frame with a window that reaches over the channels too: not to be compared with `ssim_rgb`.

    Gaussian window of 11 x 11 x 11 (channels, rows, columns), sigma 1.5 along each; beyond the border, the border's
    value, so that every pixel and channel counts; population covariance; K1 = 0.01, K2 = 0.03. The peak is 255, always:
    the code that made this family known takes the peak to be 1 where no value of the first picture is above 1, which
    is wrong for frames that are nearly black.

    Raises:
        ValueError: the shapes differ, or a value is not finite.

    Source: the evaluation code of Chen et al., Simple Baselines for Image Restoration (NAFNet), ECCV 2022.
    """
    return _ssim(*eight_bit(restored, sharp), _everywhere)


def frame_scores(restored: Float[Tensor, "T 3 H W"], sharp: Float[Tensor, "T 3 H W"]) -> list[dict[str, float]]:
    """All of `METRICS` for each of the T frames."""
    restored, sharp = eight_bit(restored, sharp)
    luma_restored, luma_sharp = _luma(restored), _luma(sharp)
    columns = (
        _psnr(restored, sharp),
        _psnr(luma_restored, luma_sharp),
        _ssim(restored, sharp, _inside),
        _ssim(luma_restored, luma_sharp, _inside),
    )
    return [dict(zip(METRICS, values, strict=True)) for values in zip(*(c.tolist() for c in columns), strict=True)]


def sequence_mean(frames: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric over those frames of one sequence that have a value of it.

    `frame_idx`, which names a frame and scores nothing, is left out; nearly every metric has a value for every frame.
    """
    assert frames, "a sequence has at least one frame"
    names = dict.fromkeys(name for frame in frames for name in frame if name != FRAME_IDX)
    means = {}
    for name in names:
        values = [frame[name] for frame in frames if name in frame]
        means[name] = sum(values) / len(values)
    return means


def total_mean(sequences: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of the sequence means: a long sequence counts as much as a short one."""
    return sequence_mean(sequences)


def eight_bit(
    restored: Float[Tensor, "T 3 H W"], sharp: Float[Tensor, "T 3 H W"]
) -> tuple[Float[Tensor, "T 3 H W"], Float[Tensor, "T 3 H W"]]:
    """Both clips as the pictures that would be written: whole levels from 0 to 255, as float64 on the CPU.

    Raises:
        ValueError: the shapes differ, or a value is not finite.
    """
    if restored.shape != sharp.shape or restored.ndim != 4 or restored.shape[1] != 3:
        shapes = f"restored {tuple(restored.shape)} and sharp {tuple(sharp.shape)}"
        raise ValueError(f"{shapes}: expected two clips of the same shape (T, 3, H, W)")
    first, second = (torch.from_numpy(to_uint8(clip)).permute(0, 3, 1, 2).double() for clip in (restored, sharp))
    return first, second


def _luma(rgb: Tensor) -> Tensor:
    weights = rgb.new_tensor((65.481, 128.553, 24.966)) / 255.0
    return 16.0 + torch.einsum("tchw,c->thw", rgb, weights).unsqueeze(1)


def _psnr(first: Tensor, second: Tensor) -> Tensor:
    mse = (first - second).square().mean(dim=(1, 2, 3))
    return 10.0 * torch.log10(_PEAK**2 / mse)


def _ssim(first: Tensor, second: Tensor, smooth: Callable[[Tensor], Tensor]) -> Tensor:
    c1, c2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2
    mean_1, mean_2 = smooth(first), smooth(second)
    variance_1 = smooth(first * first) - mean_1 * mean_1
    variance_2 = smooth(second * second) - mean_2 * mean_2
    covariance = smooth(first * second) - mean_1 * mean_2
    similarity = ((2 * mean_1 * mean_2 + c1) * (2 * covariance + c2)) / (
        (mean_1 * mean_1 + mean_2 * mean_2 + c1) * (variance_1 + variance_2 + c2)
    )
    return similarity.mean(dim=(1, 2, 3))


def _inside(image: Tensor) -> Tensor:
    """Gaussian window over rows and columns, only where it lies inside the picture."""
    if min(image.shape[-2:]) < SSIM_WINDOW_PX:
        raise ValueError(f"SSIM of frames of {image.shape[-1]}x{image.shape[-2]} pixels; allowed: 11x11 or larger")
    for dim in (-2, -1):
        image = _window(image, dim)
    return image


def _everywhere(image: Tensor) -> Tensor:
    """Gaussian window over channels, rows and columns; beyond the border, the border's value."""
    reach = SSIM_WINDOW_PX // 2
    for dim in (-3, -2, -1):
        size = image.shape[dim]
        places = torch.arange(-reach, size + reach, device=image.device).clamp(0, size - 1)
        image = _window(image.index_select(dim, places), dim)
    return image


def _window(image: Tensor, dim: int) -> Tensor:
    """Weighted mean of 11 neighbours along one dimension, which gets shorter by 10."""
    offset = torch.arange(SSIM_WINDOW_PX, dtype=image.dtype, device=image.device) - SSIM_WINDOW_PX // 2
    window = torch.exp(-offset.square() / (2 * SSIM_SIGMA_PX**2))
    weights = (window / window.sum()).tolist()
    size = image.shape[dim] - SSIM_WINDOW_PX + 1
    total = image.narrow(dim, 0, size) * weights[0]
    for shift, weight in enumerate(weights[1:], start=1):
        total.add_(image.narrow(dim, shift, size), alpha=weight)
    return total


PIXELS_PER_DEGREE = 67.0  # a screen of 3840 pixels and 0.7 m, seen from 0.7 m: what FLIP takes where nothing is said


@functools.cache
def lpips_network(vgg_file: Path | None = None) -> Lpips:
    """LPIPS with AlexNet, whose weights ship; with `vgg_file`, with VGG-16. Read once in the life of a process.

    Raises:
        FileNotFoundError, ValueError: no weights of VGG-16 in `vgg_file` (see `Lpips`).
    """
    return Lpips() if vgg_file is None else Lpips(vgg_file, VGG16)


@torch.no_grad()
def lpips_scores(
    network: Lpips, restored: Float[Tensor, "T 3 H W"], sharp: Float[Tensor, "T 3 H W"]
) -> tuple[Float[Tensor, " T"], Float[Tensor, " T-1"]]:
    """(LPIPS of each restored frame and its sharp frame, tLP of each pair of neighbouring frames).

    tLP = | LPIPS(restored t, restored t + 1) - LPIPS(sharp t, sharp t + 1) |: does the clip change from frame to frame
    as much as the true one does? Not scaled. Every frame goes through the network once; a clip of one frame has no tLP.

    Raises:
        ValueError: the shapes differ, a value is not finite, or a side is too short for the network.

    Source: LPIPS: Zhang et al., CVPR 2018. tLP: Chu et al., Learning Temporal Coherence via Self-Supervision for
    GAN-based Video Generation (TecoGAN), SIGGRAPH 2020; its code prints 100 times this value.
    """
    restored, sharp = eight_bit(restored, sharp)
    distances, changes = [], []
    before: list[Tensor] = []
    for both in torch.stack((restored, sharp), 1):  # one pair at a time: memory does not grow with the clip
        features = network.features((both / 255).float())
        distances.append(network.distance([f[:1] for f in features], [f[1:] for f in features]))
        if before:
            change = network.distance(before, features)
            changes.append((change[:1] - change[1:]).abs())
        before = features
    return torch.cat(distances), torch.cat(changes) if changes else torch.zeros(0)


def flip(restored: Float[Tensor, "T 3 H W"], sharp: Float[Tensor, "T 3 H W"]) -> Float[Tensor, " T"]:
    """Mean LDR-FLIP of each frame, in [0, 1], 0 for equal frames: what an eye sees when the two pictures alternate.

    At 67 pixels a degree, by the authors' own package. The frames are sRGB.

    Raises:
        ValueError: the shapes differ, a value is not finite, or the package flip-evaluator is not installed.

    Source: Andersson et al., FLIP: A Difference Evaluator for Alternating Images, HPG 2020.
    """
    try:
        import flip_evaluator
    except ImportError:
        raise ValueError("flip needs the package flip-evaluator; install spikevrt[metrics]") from None
    settings = {"ppd": PIXELS_PER_DEGREE}
    values = []
    for pair in zip(*eight_bit(restored, sharp), strict=True):
        test, reference = (np.ascontiguousarray((x / 255).float().permute(1, 2, 0).numpy()) for x in pair)
        _, mean, _ = flip_evaluator.evaluate(reference, test, "LDR", applyMagma=False, parameters=settings)
        values.append(mean)
    return torch.tensor(values, dtype=torch.float64)


FFMPEG_VARIABLE = "SPIKEVRT_FFMPEG"
MODEL = "vmaf_v0.6.1neg"
NUM_THREADS = 2
_TO_YUV = "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int,format=yuv444p"


def find_ffmpeg() -> str:
    """An ffmpeg that has libvmaf: that named by SPIKEVRT_FFMPEG; else on PATH; else that of the package imageio-ffmpeg.

    Raises:
        ValueError: there is none; or the one that the variable names is no such program.
    """
    named = os.environ.get(FFMPEG_VARIABLE)
    if named:
        program = shutil.which(named)
        if program is None or not _has_libvmaf(program):
            raise ValueError(f"{FFMPEG_VARIABLE}: {named} is no ffmpeg with libvmaf")
        return os.path.abspath(program)
    found = [shutil.which("ffmpeg")]
    if importlib.util.find_spec("imageio_ffmpeg") is not None:
        import imageio_ffmpeg

        found.append(imageio_ffmpeg.get_ffmpeg_exe())
    for program in found:
        if program is not None and _has_libvmaf(program):
            return os.path.abspath(program)
    raise ValueError(
        f"vmaf_neg needs an ffmpeg with libvmaf: on PATH, named by {FFMPEG_VARIABLE}, or of the package imageio-ffmpeg"
    )


def vmaf_neg(restored: Float[Tensor, "T 3 H W"], sharp: Float[Tensor, "T 3 H W"]) -> Float[Tensor, " T"]:
    """VMAF v0.6.1 NEG of each frame, 0 to 100: 100 is as good as the sharp frame.

    Both clips are written as raw 8-bit RGB into a temporary folder (6 T H W bytes) and become YUV 4:4:4 by BT.709,
    limited range, in ffmpeg. The model was fitted to 1920 x 1080 seen from 3 picture heights: values of much smaller
    frames are good for comparing methods with each other, and for nothing else.

    Raises:
        ValueError: the shapes differ, a value is not finite, no ffmpeg with libvmaf, or it refuses the clips.

    Source: Li et al., Toward A Practical Perceptual Video Quality Metric, 2016; NEG: Netflix, 2020.
    """
    program = find_ffmpeg()
    with tempfile.TemporaryDirectory(prefix="spikevrt_vmaf_") as name:
        folder = Path(name)
        for clip, values in zip(("restored", "sharp"), eight_bit(restored, sharp), strict=True):
            (folder / f"{clip}.rgb").write_bytes(values.byte().permute(0, 2, 3, 1).contiguous().numpy().tobytes())
        height, width = restored.shape[-2:]
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "25", "-i"]
        graph = f"[0:v]{_TO_YUV}[a];[1:v]{_TO_YUV}[b];[a][b]libvmaf=model=version={MODEL}"
        graph += f":n_threads={NUM_THREADS}:log_fmt=json:log_path=vmaf.json"
        output = ["-lavfi", graph, "-f", "null", "-"]
        inputs = [*raw, "restored.rgb", *raw, "sharp.rgb"]
        ran = _run([program, "-hide_banner", "-nostdin", "-loglevel", "error", *inputs, *output], folder)
        log = folder / "vmaf.json"
        if ran.returncode != 0 or not log.is_file():
            lines = ran.stderr.strip().splitlines() or ["no message"]
            raise ValueError(f"{program}: libvmaf refuses clips of {width}x{height}: {lines[-1].strip()}")
        frames = json.loads(log.read_text(encoding="utf-8"))["frames"]
    assert len(frames) == len(restored), (len(frames), len(restored))
    return torch.tensor([frame["metrics"]["vmaf"] for frame in frames], dtype=torch.float64)


@functools.cache
def _has_libvmaf(program: str) -> bool:
    try:
        return " libvmaf " in _run([program, "-hide_banner", "-filters"], Path.cwd()).stdout
    except OSError:
        return False


def _run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
