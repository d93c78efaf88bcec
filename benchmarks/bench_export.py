"""How fast are the exported programs? `python benchmarks/bench_export.py --programs out/programs`

The network in eager mode and its programs run in turn in one process on the same clips; medians over the rounds, the
largest difference to eager, and the peak memory of a process that runs one of them alone (all of it, torch included).
Programs that the folder lacks are written first: with free sizes, and with fixed ones (5 frames, the size of the row).
`--config` takes an untrained network of that config instead of the shipped weights.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from spikevrt import runtime, shipped
from spikevrt.checkpoint import WeightsInfo, save_weights
from spikevrt.config import load_config
from spikevrt.export import ClipSize, ExportOptions, Format, export_network, open_program, random_clip
from spikevrt.model.spike_vrt import SpikeVRT
from spikevrt.restore.restorer import load_network

WEIGHTS = shipped.find("spikevrt_tiny")
FRAMES = 5
EAGER = "eager"


def program_path(folder: Path, name: str, side: int) -> Path:
    kind, sizes = name.split(", ")
    suffix = {"torch.export": ".pt2", "onnxruntime": ".onnx", "AOTInductor": ".aoti.pt2"}[kind]
    return folder / (f"fixed_{side}{suffix}" if sizes == "fixed" else f"free{suffix}")


def open_named(folder: Path, weights: Path, name: str, side: int) -> Callable[..., Tensor]:
    if name == EAGER:
        return load_network(weights, torch.device("cpu"))[0]
    runtime.tune_allocator()
    formats: dict[str, Format] = {"torch.export": "torch", "onnxruntime": "onnx", "AOTInductor": "aoti"}
    return open_program(formats[name.split(", ")[0]], program_path(folder, name, side))


def write_missing(folder: Path, weights: Path, names: list[str], sides: list[int]) -> None:
    for side in sides:
        for name in names:
            path = program_path(folder, name, side) if name != EAGER else None
            if path is not None and not path.exists():
                fixed = "fixed" in name
                options = ExportOptions(frames=FRAMES, height=side, width=side) if fixed else ExportOptions()
                began = time.perf_counter()
                export_network(weights, path, options)
                print(
                    f"{path.name}: written in {time.perf_counter() - began:.0f} s, {path.stat().st_size / 1e6:.1f} MB"
                )


def make_weights(folder: Path, config: Path) -> Path:
    path = folder / f"{config.stem}.safetensors"
    if not path.exists():
        torch.manual_seed(1)
        model = load_config(config).model
        save_weights(path, SpikeVRT(model).state_dict(), WeightsInfo(model, 0.0, 1.0, {}))
    return path


def peak_mb(options: argparse.Namespace, name: str, side: int) -> float:
    command = [sys.executable, __file__, "--programs", str(options.programs), "--weights", str(options.weights)]
    answer = subprocess.run([*command, "--one", name, "--sides", str(side)], capture_output=True, text=True, check=True)
    return float(answer.stdout.split()[-1])


def run_one(options: argparse.Namespace) -> None:
    network = load_network(options.weights, torch.device("cpu"))[0]
    clip = random_clip(network, clip_size(options.sides[0]), seed=1)
    run = open_named(options.programs, options.weights, options.one, options.sides[0])
    with torch.no_grad():
        run(*clip)
    print(runtime.peak_memory_bytes(torch.device("cpu")) / 1e6)


def clip_size(side: int) -> ClipSize:
    return ClipSize(FRAMES, side, side, side // 2, side // 2)


def measure(options: argparse.Namespace, side: int) -> None:
    network = load_network(options.weights, torch.device("cpu"))[0]
    clip = random_clip(network, clip_size(side), seed=1)
    runs = {name: open_named(options.programs, options.weights, name, side) for name in options.names}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    results = {}
    with torch.no_grad():
        for _ in range(options.rounds + 1):
            for name, run in runs.items():
                began = time.perf_counter()
                results[name] = run(*clip)
                seconds[name].append(time.perf_counter() - began)
    eager_s = statistics.median(seconds[EAGER][1:])  # the first round warms up
    for name in runs:
        median_s = statistics.median(seconds[name][1:])
        difference = float((results[name] - results[EAGER]).abs().max())
        print(
            f"| 1x{FRAMES}x3x{side}x{side} | {name} | {median_s:.3f} | {eager_s / median_s:.2f}x "
            f"| {peak_mb(options, name, side):.0f} | {difference:.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, required=True, help="folder of programs; missing ones are written")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--names",
        nargs="+",
        default=[
            EAGER,
            *("torch.export, free", "torch.export, fixed", "onnxruntime, free", "onnxruntime, fixed"),
            "AOTInductor, fixed",
        ],
    )
    parser.add_argument("--write-only", action="store_true", help="write the missing programs and stop")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.config:
        options.weights = make_weights(options.programs, options.config)
    if options.one:
        run_one(options)
        sys.exit()
    write_missing(options.programs, options.weights, options.names, options.sides)
    if not options.write_only:
        print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads, allocator tuned\n")
        print("| clip | how | seconds | against eager | peak MB | max difference |")
        print("| --- | --- | ---: | ---: | ---: | ---: |")
        for side in options.sides:
            measure(options, side)
