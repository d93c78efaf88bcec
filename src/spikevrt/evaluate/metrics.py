"""The only implementation of PSNR and SSIM, each family by its full name, and of the averages of all metrics.

Every metric takes two clips of frames in [0, 1] and returns one value per frame. Both clips first become the 8-bit
pictures that would be written to disk (clamp, round), so that a printed score is the score of the delivered file.
Values are averaged over the frames of a sequence, then over the sequences (`sequence_mean`, `total_mean`); there is no
mean squared error over a whole clip anywhere.

Dimension key: T frames, H rows, W columns; the 3 channels are R, G, B.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

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
