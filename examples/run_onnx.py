"""Restore one clip with onnxruntime and NumPy alone; SpikeVRT need not be installed.

    spikevrt export --out spikevrt_tiny.onnx
    python examples/run_onnx.py spikevrt_tiny.onnx blur.npy counts.npy --out sharp.npy

blur.npy holds T colour frames (T, H, W, 3) as bytes; counts.npy how many spikes each pixel fired in each of the K equal
parts of each exposure (T, K, h, w), the first row on top, a whole number of frame pixels to each (the last of them may
reach beyond the frame). sharp.npy is like blur.npy.

Dimension key: T frames, K bins, H x W pixels of the colour camera, h x w pixels of the spike camera.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime


def normalised(counts: np.ndarray, about: dict) -> np.ndarray:
    """Counts as the network reads them; `about` is the program's description of its input `spike_vox`."""
    values = np.log1p(counts.astype(np.float32))
    if about["normalize"] == "density":
        density = values.mean((1, 2, 3), keepdims=True)
        values = values * np.divide(about["mean"], density, out=np.ones_like(density), where=density > 0)
    return (values - np.float32(about["mean"])) / np.float32(about["std"])


def mirrored(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Grown at the bottom and right to (height, width); the edge itself is repeated."""
    return np.pad(x, ((0, 0), (0, 0), (0, height - x.shape[2]), (0, width - x.shape[3])), mode="symmetric")


def restore(session: onnxruntime.InferenceSession, frames: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    """Sharp frames (T, H, W, 3) as bytes."""
    about = json.loads(session.get_modelmeta().custom_metadata_map["spikevrt"])
    height, width = frames.shape[1:3]
    ratio = 1 if counts is None else round(height / counts.shape[2])
    padded = about["inputs"][0]["shape"][3:]  # numbers, or the names of free sizes
    if "height" in about["free_sizes"]:
        least, multiple = about["free_sizes"]["height"]["min"], 8 * ratio
        padded = [-(-max(length, least) // multiple) * multiple for length in (height, width)]
    blur = np.moveaxis(frames, 3, 1).astype(np.float32) / 255
    if counts is not None:  # the last pixels of the spike camera may see beyond the frame
        beyond = ((0, counts.shape[2] * ratio - height), (0, counts.shape[3] * ratio - width))
        blur = np.pad(blur, ((0, 0), (0, 0), *beyond), mode="edge")
    fed = {"blur": mirrored(blur, padded[0], padded[1])[None]}
    if counts is not None:
        voxels = normalised(counts, about["inputs"][1])
        fed["spike_vox"] = mirrored(voxels, padded[0] // ratio, padded[1] // ratio)[None]
    sharp = session.run(["sharp"], fed)[0][0, :, :, :height, :width]
    return np.round(np.clip(np.moveaxis(sharp, 1, 3), 0, 1) * 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path)
    parser.add_argument("blur", type=Path)
    parser.add_argument("counts", type=Path, nargs="?", help="not for a program without spikes")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    session = onnxruntime.InferenceSession(str(options.program), providers=["CPUExecutionProvider"])
    frames = np.load(options.blur)
    sharp = restore(session, frames, None if options.counts is None else np.load(options.counts))
    np.save(options.out, sharp)
    print(f"{len(sharp)} frames of {frames.shape[2]}x{frames.shape[1]} -> {options.out}")


if __name__ == "__main__":
    main()
