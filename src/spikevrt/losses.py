"""What training minimises: Charbonnier, and the distance between VGG-19 features.

Dimension key: N frames (batch and time flattened), C channels, H image rows, W image columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

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


def charbonnier(x: Float[Tensor, " ..."], y: Float[Tensor, " ..."], eps: float = 1e-3) -> Float[Tensor, ""]:
    """Mean of sqrt((x - y)^2 + eps^2): an L1 distance that is smooth at zero.

    Raises:
        ValueError: if the shapes differ (nothing is broadcast).
    """
    if x.shape != y.shape:
        raise ValueError(f"charbonnier: shapes {tuple(x.shape)} and {tuple(y.shape)} differ")
    return torch.sqrt((x - y) ** 2 + eps**2).mean()


class VggRelu33(nn.Module):
    """Features of VGG-19 after relu3_3, of RGB in [0, 1]. The weights are frozen; gradients reach the input."""

    mean: Tensor
    std: Tensor

    def __init__(self, file: str | Path | None) -> None:
        """Read the weights strictly from `file` (torchvision's vgg19, .pth or .safetensors); None downloads them.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a weights file, a key is missing, unknown or of a wrong shape.
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
        _load_strict(self.features, state, where)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.requires_grad_(False)
        self.eval()

    def forward(self, frames: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 256 H/4 W/4"]:
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

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many kinds; each means the same to the user
        raise ValueError(f"{path}: not a weights file ({type(error).__name__})") from None
    if not isinstance(state, dict):
        raise ValueError(f"{path}: expected a state dict of VGG-19, got {type(state).__name__}")
    return state


def _download() -> dict[str, Tensor]:
    try:
        return torch.hub.load_state_dict_from_url(VGG19_URL, map_location="cpu", weights_only=True, check_hash=True)
    except Exception as error:  # no network, a proxy's page, a wrong hash
        raise OSError(
            f"{VGG19_URL}: download failed ({type(error).__name__}); "
            "set loss.perceptual_file to a local copy, or loss.perceptual_weight to 0"
        ) from None


def _load_strict(features: nn.Sequential, state: dict[str, Tensor], where: str) -> None:
    needed = {f"features.{name}": value.shape for name, value in features.state_dict().items()}
    missing = sorted(needed.keys() - state.keys())
    unknown = sorted(map(str, state.keys() - _ALL_KEYS))
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"holds {unknown[0]}"
        raise ValueError(f"{where}: no VGG-19 weights: {what} ({len(missing)} missing, {len(unknown)} unknown keys)")
    for name, shape in needed.items():
        if state[name].shape != shape:
            raise ValueError(f"{where}: {name} has shape {tuple(state[name].shape)}; VGG-19 has {tuple(shape)}")
    features.load_state_dict({name.removeprefix("features."): state[name] for name in needed})
