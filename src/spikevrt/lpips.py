"""LPIPS v0.1 with AlexNet: how different two pictures look, by a network that was fitted to people's judgements.

Both pictures go through AlexNet's five convolutions; at each, the features of every pixel are brought to length 1,
their squared differences weighted per channel, and averaged over the picture; the five averages are added up. The
weights ship with the package and are frozen; gradients reach the pictures.
Source: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018.

Dimension key: N pictures, H rows, W columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float

LPIPS_WEIGHTS = Path(__file__).parent / "weights" / "lpips_alex.safetensors"
MIN_SIDE_PX = 31  # what AlexNet's two poolings leave a pixel of
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of RGB in [-1, 1], before AlexNet
_NORM_EPS = 1e-10


class Lpips(nn.Module):
    """LPIPS of RGB pictures in [0, 1] (taken to [-1, 1], then shifted and scaled, inside)."""

    shift: Tensor
    scale: Tensor

    def __init__(self, file: str | Path = LPIPS_WEIGHTS) -> None:
        """Read the weights strictly (examples/lpips_weights.py makes the file).

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a safetensors file; a key is missing, unknown or of a wrong shape.
        """
        super().__init__()
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(3, 64, 11, stride=4, padding=2),
                nn.Conv2d(64, 192, 5, padding=2),
                nn.Conv2d(192, 384, 3, padding=1),
                nn.Conv2d(384, 256, 3, padding=1),
                nn.Conv2d(256, 256, 3, padding=1),
            ]
        )
        self.pool = nn.MaxPool2d(3, stride=2)  # before the second and the third convolution
        self.heads = nn.ParameterList(torch.zeros(width) for width in (64, 192, 384, 256, 256))
        _load_strict(self, Path(file))
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def forward(self, x: Float[Tensor, "N 3 H W"], y: Float[Tensor, "N 3 H W"]) -> Float[Tensor, " N"]:
        """The distance of each pair: 0 for equal pictures, about 0.1 to 0.7 for damaged ones.

        Raises:
            ValueError: the shapes differ, or a side is shorter than 31 pixels.
        """
        if x.shape != y.shape or x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"LPIPS of {tuple(x.shape)} and {tuple(y.shape)}: expected two of one shape (N, 3, H, W)")
        if min(x.shape[-2:]) < MIN_SIDE_PX:
            raise ValueError(
                f"LPIPS of pictures of {x.shape[-1]}x{x.shape[-2]}; allowed: {MIN_SIDE_PX}x{MIN_SIDE_PX} or larger"
            )
        total = torch.zeros(len(x), device=x.device)
        for head, feature_x, feature_y in zip(self.heads, self.features(x), self.features(y), strict=True):
            difference = _unit(feature_x) - _unit(feature_y)
            total = total + torch.einsum("nchw,c->nhw", difference.square(), head.float()).mean(dim=(1, 2))
        return total

    def features(self, pictures: Float[Tensor, "N 3 H W"]) -> list[Tensor]:
        """After each of the five convolutions and its ReLU, in the precision of the caller's autocast."""
        x = (2 * pictures - 1 - self.shift) / self.scale
        found = []
        for index, conv in enumerate(self.convs):
            x = torch.relu(conv(self.pool(x) if index in (1, 2) else x))
            found.append(x)
        return found


def _unit(feature: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
    """Each pixel's channels at length 1; all zeros stay so, and have gradient 0 and not NaN."""
    feature = feature.float()
    return feature / (torch.linalg.vector_norm(feature, dim=1, keepdim=True) + _NORM_EPS)


def _load_strict(network: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file (weights of LPIPS)")
    try:
        state = load_file(path)
    except Exception as error:  # safetensors raises many kinds; each means the same to the user
        raise ValueError(f"{path}: not a safetensors file ({type(error).__name__})") from None
    needed = {name: value.shape for name, value in network.state_dict().items()}
    missing, unknown = sorted(needed.keys() - state.keys()), sorted(state.keys() - needed.keys())
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"holds {unknown[0]}"
        raise ValueError(f"{path}: no LPIPS weights: {what} ({len(missing)} missing, {len(unknown)} unknown keys)")
    for name, shape in needed.items():
        if state[name].shape != shape:
            raise ValueError(f"{path}: {name} has shape {tuple(state[name].shape)}; LPIPS has {tuple(shape)}")
    network.load_state_dict({name: value.float() for name, value in state.items()})
