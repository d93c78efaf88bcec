"""What training minimises: Charbonnier, and further terms that a config turns on; docs/losses.md has each equation.

`Losses` is all that the loop calls. Terms are computed in float32; the two frozen networks run in the precision of the
caller's autocast.

Dimension key: N frames (batch and time flattened), B samples, T frames, C channels, H image rows, W image columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevrt.checkpoint import tell_damage
from spikevrt.config import LossConfig
from spikevrt.light import LUMINANCE, linear_to_srgb, srgb_to_linear
from spikevrt.lpips import Lpips, load_frozen
from spikevrt.model.flow import flow_warp

if TYPE_CHECKING:
    from jaxtyping import Float

VGG19_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
_CONVS = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256)}
_POOLS = (4, 9)
_LAST_CONV = 14  # relu3_3 follows it
_ALL_CONVS = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
_ALL_KEYS = {f"features.{n}.{part}" for n in _ALL_CONVS for part in ("weight", "bias")} | {
    f"classifier.{n}.{part}" for n in (0, 3, 6) for part in ("weight", "bias")
}

REBLUR_TIMES = 9  # moments of an exposure over which `reblur` averages
Flow = Callable[
    [Tensor, Tensor], Tensor
]  # (N 3 H W, N 3 H W) -> N 2 H W: the field that brings the second to the first


class Losses(nn.Module):
    """The terms of the loss, each with its weight in it; a term whose weight is 0 is neither built nor computed."""

    def __init__(self, config: LossConfig, flow: Flow | None = None) -> None:
        """Build the frozen networks that the config asks for (the caller moves them to its device).

        `flow` gives the optical flow between pictures in [0, 1]; needed where `reblur_weight` is above 0. It is called
        without gradient and in float32.

        Raises:
            FileNotFoundError, ValueError, OSError: no VGG-19 weights (see `VggRelu33`).
        """
        super().__init__()
        assert flow is not None or config.reblur_weight == 0, "the re-blur term needs a flow"
        assert not isinstance(flow, nn.Module), "a module handed in as the flow would become a part of this one"
        self.config, self.flow = config, flow
        self.vgg = VggRelu33(config.perceptual_file) if config.perceptual_weight > 0 else None
        self.lpips = Lpips() if config.lpips_weight > 0 else None

    def forward(
        self,
        restored: Float[Tensor, "B T 3 H W"],
        blur: Float[Tensor, "B T 3 H W"],
        sharp: Float[Tensor, "B T 3 H W"] | None,
        duty: Float[Tensor, "B T"] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """The weighted terms by name; their sum is the loss. Without `sharp`, the re-blur term alone.

        Pictures are RGB in [0, 1]; `duty` (see `exposure_duty`) is needed where `reblur_weight` is above 0.
        """
        config, terms = self.config, dict[str, Tensor]()
        restored, blur = restored.float(), blur.float()
        if sharp is not None:
            x, y = restored.flatten(0, 1), sharp.float().flatten(0, 1)
            terms["charbonnier"] = charbonnier(x, y, config.charbonnier_eps)
            if config.edge_weight > 0:
                edges = edge_strength(y).unsqueeze(1).expand_as(y)
                terms["edge"] = config.edge_weight * charbonnier(x, y, config.charbonnier_eps, weight=edges)
            if self.vgg is not None:
                terms["perceptual"] = config.perceptual_weight * feature_distance(self.vgg, x, y)
            if config.fft_weight > 0:
                terms["fft"] = config.fft_weight * fft_distance(x, y)
            if self.lpips is not None:
                terms["lpips"] = config.lpips_weight * self.lpips(x, y).mean()
        if config.reblur_weight > 0:
            assert self.flow is not None and duty is not None
            again = reblur(restored, self.flow, duty)
            terms["reblur"] = config.reblur_weight * charbonnier(again, blur, config.charbonnier_eps)
        assert terms, "no sharp frames and no re-blur term: nothing to minimise"
        return terms


def charbonnier(
    x: Float[Tensor, " ..."],
    y: Float[Tensor, " ..."],
    eps: float = 1e-3,
    *,
    weight: Float[Tensor, " ..."] | None = None,
) -> Float[Tensor, ""]:
    """Mean of sqrt((x - y)^2 + eps^2), or of `weight` times that: an L1 distance that is smooth at zero.

    Raises:
        ValueError: if the shapes differ (nothing is broadcast).

    Source: Charbonnier et al., ICIP 1994; as a loss of restoration: Lai et al. (LapSRN), CVPR 2017.
    """
    if x.shape != y.shape:
        raise ValueError(f"charbonnier: shapes {tuple(x.shape)} and {tuple(y.shape)} differ")
    if weight is not None and weight.shape != x.shape:
        raise ValueError(f"charbonnier: shapes {tuple(x.shape)} and, of the weight, {tuple(weight.shape)} differ")
    distance = torch.sqrt((x - y) ** 2 + eps**2)
    return distance.mean() if weight is None else (weight * distance).mean()


@torch.no_grad()
def edge_strength(sharp: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N H W"]:
    """How strong an edge of the sharp picture each pixel lies on: 0 in flat parts, at most 1.

    e = min(1, sqrt(gx^2 + gy^2)), where gx and gy are Sobel's differences (weights 1 2 1 over 4) of
    0.2126 R + 0.7152 G + 0.0722 B of the display values, the border pixels repeated outwards. A step of height h along
    rows or columns has strength h on both of its sides.

    Source: weighting the pixel loss by the target's edges, Seif and Androutsos, ICASSP 2018 (there a Canny mask).
    """
    red, green, blue = LUMINANCE
    luma = F.pad(red * sharp[:, :1] + green * sharp[:, 1:2] + blue * sharp[:, 2:], (1, 1, 1, 1), mode="replicate")[:, 0]
    columns = luma[:, :-2] + 2 * luma[:, 1:-1] + luma[:, 2:]
    rows = luma[..., :-2] + 2 * luma[..., 1:-1] + luma[..., 2:]
    gx, gy = (columns[..., 2:] - columns[..., :-2]) / 4, (rows[:, 2:] - rows[:, :-2]) / 4
    return torch.hypot(gx, gy).clamp_max(1)


def fft_distance(x: Float[Tensor, "N C H W"], y: Float[Tensor, "N C H W"]) -> Float[Tensor, ""]:
    """Mean of | |X| - |Y| |: X and Y are the two-dimensional spectra of each channel, |.| their magnitudes.

    The transform is orthonormal (a spectrum's energy is its picture's), without a window, and real: the mean goes over
    the half of the frequencies that `rfft2` returns. Phase does not count: a picture moved around cyclically is at
    distance 0, so this is a term beside Charbonnier and not a loss on its own.

    Source: the magnitude half of Fuoli et al., Fourier Space Losses, ICCV 2021 (there after a Hann window, and with a
    phase half). Cho et al. (MIMO-UNet), ICCV 2021, take the L1 distance of the complex spectra instead.
    """
    spectra = [torch.fft.rfft2(picture.float(), norm="ortho").abs() for picture in (x, y)]
    return (spectra[0] - spectra[1]).abs().mean()


def exposure_duty(t0_s: Sequence[Sequence[float]], t1_s: Sequence[Sequence[float]]) -> Float[Tensor, "B T"]:
    """Share of the time from frame to frame that each exposure lasts, from the exposures' starts and ends.

    The time from frame to frame is that between the middles of the neighbours' exposures (half of it, where there are
    two). Frames that were turned round in time have the duty that they had.

    Raises:
        ValueError: a single frame, or two at the same time.
    """
    start, stop = (torch.tensor(times, dtype=torch.float64) for times in (t0_s, t1_s))
    if start.shape[1] < 2:
        raise ValueError("exposure_duty: clips of 1 frame; allowed: 2 or more")
    period = (_central((start + stop) / 2)).abs()
    if bool((period == 0).any()):
        raise ValueError("exposure_duty: neighbouring exposures are at the same time")
    return ((stop - start) / period).float()


def reblur(
    frames: Float[Tensor, "B T 3 H W"], flow: Flow, duty: Float[Tensor, "B T"], *, num_times: int = REBLUR_TIMES
) -> Float[Tensor, "B T 3 H W"]:
    """Sharp frames as their exposures would have blurred them.

    A frame stands at the middle of its exposure. Its motion v, in pixels a frame, is half the difference of the flows
    to the next and to the previous frame; at a clip's ends, the flow to its one neighbour. The frame is read at
    p + tau * duty * v(p) for tau at the middles of `num_times` equal parts of [-1/2, 1/2] (bilinear; beyond the border
    the border's pixel), averaged in linear light, and turned back into display values. No gradient goes through the
    flow.

    Raises:
        ValueError: clips of a single frame.

    Source: Chen et al., Reblur2Deblur, ICCP 2018. Exact for a scene that moves steadily and hides nothing behind it.
    """
    assert frames.shape[:2] == duty.shape and num_times % 2 == 1, (frames.shape, duty.shape, num_times)
    frames = frames.float()
    b, t, _, h, w = frames.shape
    path = (frame_motion(frames, flow) * duty.to(frames)[:, :, None, None, None]).flatten(0, 1)
    light = srgb_to_linear(frames.flatten(0, 1))
    total = torch.zeros_like(light)
    for moment in range(num_times):
        tau = (2 * moment + 1 - num_times) / (2 * num_times)
        total = total + (flow_warp(light, tau * path, "border") if tau else light)
    return linear_to_srgb(total / num_times).view(b, t, 3, h, w)


@torch.no_grad()
def frame_motion(frames: Float[Tensor, "B T 3 H W"], flow: Flow) -> Float[Tensor, "B T 2 H W"]:
    """How each pixel of each frame moves, (x, y) in pixels a frame, from the flows to both neighbours.

    Raises:
        ValueError: clips of a single frame.
    """
    b, t, _, h, w = frames.shape
    if t < 2:
        raise ValueError("reblur: clips of 1 frame; allowed: 2 or more, motion is seen between neighbours")
    first, second = (part.detach().float().flatten(0, 1) for part in (frames[:, :-1], frames[:, 1:]))
    with torch.autocast(frames.device.type, enabled=False):
        to_next, to_previous = (
            flow(*pair).float().view(b, t - 1, 2, h, w) for pair in ((first, second), (second, first))
        )
    inner = (to_next[:, 1:] - to_previous[:, :-1]) / 2
    return torch.cat((to_next[:, :1], inner, -to_previous[:, -1:]), 1)


def dis_flow(first: Float[Tensor, "N 3 H W"], second: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 2 H W"]:
    """Optical flow of pictures in [0, 1] by OpenCV's DIS: the field that brings `second` to `first`. No gradient.

    Raises:
        ValueError: OpenCV is not installed.

    Source: Kroeger et al., Fast Optical Flow using Dense Inverse Search, ECCV 2016.
    """
    try:
        import cv2
    except ImportError:
        raise ValueError("loss.reblur_flow: dis needs OpenCV; install spikevrt[align], or choose network") from None

    def grey(pictures: Tensor) -> np.ndarray:
        weights = torch.tensor(LUMINANCE, device=pictures.device).view(3, 1, 1)
        values: np.ndarray = ((pictures.detach() * weights).sum(1).clamp(0, 1) * 255).round().byte().cpu().numpy()
        return values

    engine = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    pairs = zip(grey(first), grey(second), strict=True)
    fields = np.stack([engine.calc(a, b, np.zeros((*a.shape, 2), np.float32)) for a, b in pairs])
    return torch.from_numpy(fields).permute(0, 3, 1, 2).to(first.device)


def _central(values: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Differences from frame to frame: half of that between both neighbours; at the ends, to the one neighbour."""
    steps = values.diff(dim=1)
    return torch.cat((steps[:, :1], (steps[:, 1:] + steps[:, :-1]) / 2, steps[:, -1:]), 1)


class VggRelu33(nn.Module):
    """Features of VGG-19 after relu3_3, of RGB in [0, 1]. The weights are frozen; gradients reach the input."""

    mean: Tensor
    std: Tensor

    def __init__(self, file: str | Path | None) -> None:
        """Read the weights strictly from `file` (torchvision's vgg19, .pth or .safetensors); None downloads them.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a weights file, or damaged; a key is missing, unknown or of a wrong shape.
            OSError: the download failed.
        """
        super().__init__()
        state = _download() if file is None else _read(Path(file))
        where = VGG19_URL if file is None else str(file)
        layers: list[nn.Module] = []
        for index in range(_LAST_CONV + 2):
            if index in _CONVS:
                layers.append(nn.Conv2d(*_CONVS[index], kernel_size=3, padding=1))
            else:
                layers.append(nn.MaxPool2d(2) if index in _POOLS else nn.ReLU())
        self.features = nn.Sequential(*layers)
        needed = self.state_dict().keys()
        known = {name: value for name, value in state.items() if name in needed or name not in _ALL_KEYS}
        load_frozen(self, known, where, "VGG-19 weights", "VGG-19")
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.requires_grad_(False)
        self.eval()

    def forward(self, frames: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 256 H//4 W//4"]:
        """RGB in [0, 1] to features, a quarter of the size."""
        return self.features((frames - self.mean) / self.std)


def feature_distance(vgg: VggRelu33, x: Float[Tensor, "N 3 H W"], y: Float[Tensor, "N 3 H W"]) -> Float[Tensor, ""]:
    """Mean squared difference of the two relu3_3 features; no gradient flows to `y`."""
    with torch.no_grad():
        target = vgg(y)
    return ((vgg(x).float() - target.float()) ** 2).mean()


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file (loss.perceptual_file: VGG-19 weights)")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many kinds; each means the same to the user
        raise ValueError(f"{path}: not a weights file ({type(error).__name__})") from None
    if not isinstance(state, dict):
        raise ValueError(f"{path}: expected a state dict of VGG-19, got {type(state).__name__}")
    tell_damage(path, state)
    return state


def _download() -> dict[str, Tensor]:
    try:
        return torch.hub.load_state_dict_from_url(VGG19_URL, map_location="cpu", weights_only=True, check_hash=True)
    except Exception as error:  # no network, a proxy's page, a wrong hash
        raise OSError(
            f"{VGG19_URL}: download failed ({type(error).__name__}); "
            "set loss.perceptual_file to a local copy, or loss.perceptual_weight to 0"
        ) from None
