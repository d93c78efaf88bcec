"""LPIPS v0.1 with AlexNet or VGG-16: how different two pictures look, by a network fitted to people's judgements.

Both pictures go through the convolutions of a trunk; at five of them, the features of every pixel are brought to length
1, their squared differences weighted per channel, and averaged over the picture; the five averages are added up. The
weights are frozen; gradients reach the pictures. AlexNet's ship with the package; those of VGG-16 (29 MB) do not, and
are read from a file that examples/lpips_weights.py makes. Values of the two trunks are not to be compared.
Source: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018.

Dimension key: N pictures, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from spikevrt import shipped
from spikevrt.checkpoint import tell_damage

if TYPE_CHECKING:
    from jaxtyping import Float

LPIPS_WEIGHTS = shipped.FOLDER / "lpips_alex.safetensors"
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of RGB in [-1, 1], before the trunk
_NORM_EPS = 1e-10
_VGG_CHANNELS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)


@dataclass(frozen=True)
class Trunk:
    """The convolutions that the pictures go through, each with a ReLU behind it; counted from 0."""

    name: str
    convs: tuple[tuple[int, int, int, int, int], ...]  # inputs, outputs, side, stride, padding
    pool_px: int  # side of the maximum pooling, whose stride is 2
    pool_before: tuple[int, ...]  # the convolutions that a pooling stands before
    compare_after: tuple[int, ...]  # those whose features are compared
    min_side_px: int  # of a picture of which the poolings leave a pixel


ALEXNET = Trunk(
    "AlexNet",
    ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1)),
    pool_px=3,
    pool_before=(1, 2),
    compare_after=(0, 1, 2, 3, 4),
    min_side_px=31,
)
VGG16 = Trunk(
    "VGG-16",
    tuple((inputs, outputs, 3, 1, 1) for inputs, outputs in pairwise((3, *_VGG_CHANNELS))),
    pool_px=2,
    pool_before=(2, 4, 7, 10),
    compare_after=(1, 3, 6, 9, 12),
    min_side_px=16,
)


class Lpips(nn.Module):
    """LPIPS of RGB pictures in [0, 1] (taken to [-1, 1], then shifted and scaled, inside)."""

    shift: Tensor
    scale: Tensor

    def __init__(self, file: str | Path = LPIPS_WEIGHTS, trunk: Trunk = ALEXNET) -> None:
        """Read the weights of the trunk strictly (examples/lpips_weights.py makes the file).

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a safetensors file, or damaged; a key is missing, unknown or of a wrong shape.
        """
        super().__init__()
        self.trunk = trunk
        self.convs = nn.ModuleList(
            nn.Conv2d(inputs, outputs, side, stride=stride, padding=padding)
            for inputs, outputs, side, stride, padding in trunk.convs
        )
        self.pool = nn.MaxPool2d(trunk.pool_px, stride=2)
        self.heads = nn.ParameterList(torch.zeros(trunk.convs[index][1]) for index in trunk.compare_after)
        path = Path(file)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file (weights of LPIPS)")
        try:
            state = load_file(path)
        except Exception as error:  # safetensors raises many kinds; each means the same to the user
            raise ValueError(f"{path}: not a safetensors file ({type(error).__name__})") from None
        tell_damage(path, state)
        load_frozen(self, state, str(path), f"weights of LPIPS with {trunk.name}", trunk.name)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def forward(self, x: Float[Tensor, "N 3 H W"], y: Float[Tensor, "N 3 H W"]) -> Float[Tensor, " N"]:
        """The distance of each pair: 0 for equal pictures, about 0.1 to 0.7 for damaged ones.

        Raises:
            ValueError: the shapes differ, or a side is shorter than 31 pixels (AlexNet) or 16 (VGG-16).
        """
        if x.shape != y.shape or x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"LPIPS of {tuple(x.shape)} and {tuple(y.shape)}: expected two of one shape (N, 3, H, W)")
        return self.distance(self.features(x), self.features(y))

    def features(self, pictures: Float[Tensor, "N 3 H W"]) -> list[Tensor]:
        """After each compared convolution and its ReLU, in the precision of the caller's autocast.

        Raises:
            ValueError: a side is too short (see `forward`).
        """
        least = self.trunk.min_side_px
        if min(pictures.shape[-2:]) < least:
            size = f"{pictures.shape[-1]}x{pictures.shape[-2]}"
            raise ValueError(f"LPIPS of pictures of {size}; allowed: {least}x{least} or larger")
        x = (2 * pictures - 1 - self.shift) / self.scale
        found = []
        for index, conv in enumerate(self.convs):
            x = torch.relu(conv(self.pool(x) if index in self.trunk.pool_before else x))
            if index in self.trunk.compare_after:
                found.append(x)
        return found

    def distance(self, features_x: Sequence[Tensor], features_y: Sequence[Tensor]) -> Float[Tensor, " N"]:
        """The distance of each pair of pictures whose `features` are given: each need go through the trunk once."""
        total = torch.zeros(len(features_x[0]), device=features_x[0].device)
        for head, feature_x, feature_y in zip(self.heads, features_x, features_y, strict=True):
            difference = _unit(feature_x) - _unit(feature_y)
            total = total + torch.einsum("nchw,c->nhw", difference.square(), head.float()).mean(dim=(1, 2))
        return total


def _unit(feature: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
    """Each pixel's channels at length 1; all zeros stay so, and have gradient 0 and not NaN."""
    feature = feature.float()
    return feature / (torch.linalg.vector_norm(feature, dim=1, keepdim=True) + _NORM_EPS)


def load_frozen(network: nn.Module, state: Mapping[str, Tensor], source: str, what: str, of: str) -> None:
    """Copy weights that others published into `network`, as float32 and strictly. `what` and `of` name them in errors.

    Raises:
        ValueError: a key is missing, unknown or of a wrong shape.
    """
    needed = {name: value.shape for name, value in network.state_dict().items()}
    missing, unknown = sorted(needed.keys() - state.keys()), sorted(map(str, state.keys() - needed.keys()))
    if missing or unknown:
        told = f"lacks {missing[0]}" if missing else f"holds {unknown[0]}"
        raise ValueError(f"{source}: no {what}: {told} ({len(missing)} missing, {len(unknown)} unknown keys)")
    for name, shape in needed.items():
        if state[name].shape != shape:
            raise ValueError(f"{source}: {name} has shape {tuple(state[name].shape)}; {of} has {tuple(shape)}")
    network.load_state_dict({name: value.float() for name, value in state.items()})
