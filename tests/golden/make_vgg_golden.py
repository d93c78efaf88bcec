"""Make `vgg_relu33.npz`: what torchvision's VGG-19 says of two pictures, up to relu3_3, with weights of a formula.

Torchvision is no dependency of this project and does not install beside its torch; for this script alone it is unpacked
into a folder of its own (its pure-Python parts import beside any torch):

    pip download --no-deps torchvision==0.16.2
    unzip -q torchvision-0.16.2-*.whl -d throw-away
    PYTHONPATH=throw-away:. python tests/golden/make_vgg_golden.py

The real weights are half a gigabyte. Instead every weight is a number that script and test compute alike (`formula`).
The file holds, as npz: `names` (the keys of torchvision's state dict), `pictures` (uint8; divide by 255), `features`
(after relu3_3 of the ImageNet-normalised pictures), `gradient` (of mean(features^2) with respect to the pictures).
"""

from __future__ import annotations

import importlib
import math
import zlib
from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).parent / "vgg_relu33.npz"
PICTURES = (2, 3, 37, 29)


def levels(name: str, count: int) -> np.ndarray:
    """`count` whole numbers from -127 to 127, scattered by an integer hash of their place and of the name."""
    with np.errstate(over="ignore"):
        h = np.arange(count, dtype=np.uint32) * np.uint32(2654435761) + np.uint32(zlib.crc32(name.encode()))
        h ^= h >> np.uint32(15)
        h *= np.uint32(2246822519)
        h ^= h >> np.uint32(13)
    return (h % np.uint32(255)).astype(np.int64) - 127


def formula(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A weight or bias: levels times a power of two, which keeps activations of one size from layer to layer."""
    fan_in = math.prod(shape[1:]) if len(shape) > 1 else 1 << 10
    step = 2.0 ** round(math.log2(math.sqrt(6 / fan_in) / 127))
    return torch.from_numpy(levels(name, math.prod(shape)) * step).float().view(shape)


def pictures() -> np.ndarray:
    return (levels("pictures", math.prod(PICTURES)) + 128).astype(np.uint8).reshape(PICTURES)


def main() -> None:
    models = importlib.import_module("torchvision.models")
    network = models.vgg19(weights=None).eval()
    state = network.state_dict()
    network.load_state_dict(
        {n: formula(n, tuple(v.shape)) if n.startswith("features") else v.zero_() for n, v in state.items()}
    )
    transform = models.VGG19_Weights.IMAGENET1K_V1.transforms()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (transform.mean, transform.std))
    block, relu, last = 1, 0, -1
    for index, layer in enumerate(network.features):
        if isinstance(layer, torch.nn.MaxPool2d):
            block, relu = block + 1, 0
        elif isinstance(layer, torch.nn.ReLU):
            relu += 1
            if (block, relu) == (3, 3):
                last = index
    assert last > 0
    x = (torch.from_numpy(pictures()).float() / 255).requires_grad_()
    features = network.features[: last + 1]((x - mean) / std)
    features.square().mean().backward()
    np.savez_compressed(
        GOLDEN,
        names=np.array(list(state)),
        pictures=pictures(),
        features=features.detach().numpy(),
        gradient=x.grad.numpy(),
    )
    print(f"{GOLDEN.name}: {tuple(features.shape)}, {GOLDEN.stat().st_size} bytes, largest {features.max():.3f}")


if __name__ == "__main__":
    main()
