"""How fast do packed spikes become pixels and voxels? `python benchmarks/bench_unpack.py [--rounds N]`

One core; the file lies in the page cache; best of the rounds, for other processes may be running. GB/s counts unpacked
bytes, one per pixel and tick. Every way is checked against the first of its kind before it is timed.

Dimension key: T ticks, K bins, H sensor rows, W sensor columns.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from spikevrt.recording.spike_file import SpikeGeometry
from spikevrt.recording.stream import PackedStream, count_slices

SIZES = ((301, 250, 400), (56, 360, 640))  # (T, H, W): a REDS test stream, a Spk-GoPro window
LOOKUP = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").view(np.uint64).ravel()


def loop_over_ticks(path: Path, geometry: SpikeGeometry) -> np.ndarray:
    """The reader that people copy: for each tick, gather each pixel's byte by index and mask its bit."""
    pixels = np.arange(geometry.width * geometry.height).reshape(geometry.height, geometry.width)
    byte_of_pixel, mask = pixels // 8, np.left_shift(1, pixels % 8)
    data = np.fromfile(path, dtype=np.uint8)
    ticks = []
    for start in range(0, len(data), geometry.bytes_per_tick):
        tick = data[start : start + geometry.bytes_per_tick]
        ticks.append(np.flipud((tick[byte_of_pixel] & mask) == mask))
    return np.array(ticks)


def unpackbits(path: Path, geometry: SpikeGeometry) -> np.ndarray:
    """The whole file at once, then its rows put upright."""
    bits = np.unpackbits(np.fromfile(path, dtype=np.uint8), bitorder="little")
    return bits.reshape(-1, geometry.height, geometry.width)[:, ::-1].copy()


def lookup(path: Path, geometry: SpikeGeometry) -> np.ndarray:
    """Eight pixels at a time out of a table of 256 words."""
    rows = np.fromfile(path, dtype=np.uint8).reshape(-1, geometry.height, geometry.width // 8)[:, ::-1]
    return LOOKUP[rows].view(np.uint8)


def best_s(function: Callable[[], np.ndarray], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def measure(folder: Path, size: tuple[int, int, int], rounds: int) -> None:
    num_ticks, height, width = size
    geometry = SpikeGeometry(width, height)
    path = folder / f"{width}.dat"
    path.write_bytes(np.random.default_rng(1).bytes(num_ticks * geometry.bytes_per_tick))
    stream = PackedStream(path, geometry)
    voxels = {}
    for bins in (32, 4, 1):
        edges = [k * num_ticks // bins for k in range(bins + 1)]
        twin = lambda edges=edges: count_slices(stream.read(0, num_ticks), edges)  # noqa: E731
        voxels[f"{bins} bins: unpack, then add (the plain twin)"] = twin
        voxels[f"{bins} bins: count bits (`PackedStream.count`)"] = lambda edges=edges: stream.count(edges)
    readers = {
        "unpack: loop over ticks": lambda: loop_over_ticks(path, geometry),
        "unpack: np.unpackbits, then flip": lambda: unpackbits(path, geometry),
        "unpack: lookup table": lambda: lookup(path, geometry),
        "unpack: `PackedStream.read`": lambda: stream.read(0, num_ticks),
    }
    expected = None
    for name, function in (readers | voxels).items():
        out = function()
        if expected is None or name.endswith("(the plain twin)"):
            expected = out
        np.testing.assert_array_equal(out, expected)
        seconds = best_s(function, max(2, rounds // 10) if "loop" in name else rounds)
        num_bytes = num_ticks * height * width
        print(f"| {num_ticks}x{height}x{width} | {name} | {1e3 * seconds:.2f} | {num_bytes / seconds / 1e9:.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    rounds = parser.parse_args().rounds
    print(f"{platform.machine()}, numpy {np.__version__}, 1 thread, best of {rounds}\n")
    print("| ticks x rows x columns | way | ms | GB/s |\n| --- | --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            measure(Path(folder), size, rounds)
