"""How much faster and smaller is the network than its plain twin? `python benchmarks/bench_model.py [--width tiny]`

The twin (`as_published`) computes as the published design is written: explicit softmax, copies of windows,
masks drawn at every call, two mutual attentions, one deformable convolution for every frame and direction, sampling by
index. Same weights, same inputs; outputs are compared.

Twin and ours run in turn, each in a fresh process, `--rounds` times, under the C allocator as it is and as the commands
tune it; medians over all rounds. Seconds of a forward pass (after one that warms up), of its parts (exclusive: what a
part calls counts for the part that is called), of a training step (forward, backward; the second of two), and the peak
memory of the process. FLOPs are torch's count of the twin's matrix products and convolutions, 2 for a multiply-add;
the peak is that of a product of two 2048 x 2048 matrices, measured in between.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from spikevrt import runtime
from spikevrt.config import load_config
from spikevrt.model import deformable_alignment, flow, layers, spike_vrt
from spikevrt.model.spike_vrt import SpikeVRT

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
WIDTHS = {"reference": "vrt_spike_baseline.yaml", "tiny": "tiny.yaml"}
CPU = torch.device("cpu")
MOST_BYTES = 21_000_000_000  # a process that wants more is stopped; its row says so


def as_published(network: nn.Module) -> nn.Module:
    """Switch every layer that has a plain twin to it, in place: the network computes as the published design is
    written."""
    for module in network.modules():
        if hasattr(module, "plain"):
            setattr(module, "plain", True)  # noqa: B010 (nn.Module's own annotation admits tensors alone)
    return network


def part_of(name: str, module: nn.Module) -> str | None:
    if isinstance(module, layers.WindowAttention):
        return "window attention, mutual and self" if module.mutual else "window attention, self"
    if isinstance(module, layers.Geglu):
        return "feed-forward of the alignment" if "pa_fuse" in name else "feed-forward"
    if name.endswith("conv_offset"):
        return "offset network"
    kinds = {
        deformable_alignment.DeformAlign: "deformable convolution",
        flow.SpyNet: "optical flow",
        spike_vrt.SpikeEncoder3D: "spike encoder",
        spike_vrt.SpikeTemporalSA: "spike attention over time",
        spike_vrt.TemporalCrossAttnFuse: "fusion",
    }
    return kinds.get(type(module))


class Parts:
    """Exclusive seconds (or FLOPs) of every part, by hooks."""

    def __init__(self, network: nn.Module, clock: Any) -> None:
        self.spent: dict[str, float] = {}
        self.open: list[tuple[str, float, float]] = []
        self.clock = clock
        for name, module in network.named_modules():
            part = part_of(name, module)
            if part is not None:
                module.register_forward_pre_hook(lambda _m, _a, part=part: self.open.append((part, self.clock(), 0.0)))
                module.register_forward_hook(lambda _m, _a, _o: self.close())

    def close(self) -> None:
        part, began, inner = self.open.pop()
        taken = self.clock() - began
        self.spent[part] = self.spent.get(part, 0.0) + taken - inner
        if self.open:
            above = self.open[-1]
            self.open[-1] = (above[0], above[1], above[2] + taken)


def build(options: argparse.Namespace) -> tuple[SpikeVRT, Tensor, Tensor]:
    """The network with random weights (what starts at zero is made to count) and a clip of noise."""
    model = load_config(CONFIGS / WIDTHS[options.width]).model
    recomputed = ("attention", "mlp", "deform", "spikes", "fusion") if options.checkpoint else ()
    model = dataclasses.replace(model, checkpoint=recomputed)
    assert model.spikes is not None
    torch.manual_seed(0)
    network = SpikeVRT(model)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    if options.one.startswith("twin"):
        as_published(network)
    size, frames = options.size, options.frames
    blur = torch.rand(1, frames, 3, size, size)
    side = size // options.spike_ratio
    return network, blur, torch.randn(1, frames, model.spikes.num_bins, side, side)


def run_one(options: argparse.Namespace) -> dict[str, Any]:
    """What one process measures."""
    if options.allocator == "tuned":
        runtime.tune_allocator()
    variant, job = options.one.split("-")
    network, blur, voxels = build(options)
    seconds = []
    if job == "flops":
        counter = FlopCounterMode(display=False)
        parts = Parts(network, counter.get_total_flops)
        with torch.no_grad(), counter:
            network(blur, voxels)
        return {"total": counter.get_total_flops(), "parts": parts.spent}
    if job == "train":
        network.train()
        for _ in range(2):
            began = time.perf_counter()
            network(blur, voxels).square().mean().backward()
            seconds.append(time.perf_counter() - began)
            network.zero_grad()
        return {"seconds": seconds[-1], "peak": runtime.peak_memory_bytes(CPU)}
    network.eval()
    context = runtime.autocast(CPU, options.precision)
    with torch.no_grad(), context:
        out = network(blur, voxels)
        for _ in range(2):
            began = time.perf_counter()
            network(blur, voxels)
            seconds.append(time.perf_counter() - began)
        peak = runtime.peak_memory_bytes(CPU)
        parts = Parts(network, time.perf_counter)
        network(blur, voxels)
    saved = options.out / f"{variant}_{options.precision}.pt"
    torch.save(out.float(), saved)
    return {"seconds": statistics.median(seconds), "peak": peak, "parts": parts.spent}


def alone(options: argparse.Namespace, one: str, allocator: str, *more: str) -> dict[str, Any]:
    """A measurement in a process of its own."""
    command = [sys.executable, __file__, "--one", one, "--allocator", allocator, "--width", options.width]
    command += ["--size", str(options.size), "--frames", str(options.frames), "--out", str(options.out), *more]
    command += ["--spike-ratio", str(options.spike_ratio)]
    environment = dict(os.environ)
    environment.pop("GLIBC_TUNABLES", None)
    if allocator == "tuned":  # as the command line starts its processes
        environment["GLIBC_TUNABLES"] = "glibc.malloc.tcache_count=0"
    limit = (MOST_BYTES, MOST_BYTES)
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, limit),
    )  # fmt: skip
    if done.returncode:
        return {"failed": f"status {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def peak_gflops(dtype: torch.dtype) -> float:
    a, b = torch.randn(2, 2048, 2048).to(dtype)
    best = float("inf")
    for _ in range(9):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return 2 * 2048**3 / best / 1e9


def median(results: list[dict[str, Any]], key: str) -> float:
    values = [r[key] for r in results if key in r]
    return statistics.median(values) if values else float("nan")


def compare(options: argparse.Namespace) -> None:
    flops = alone(options, "twin-flops", "default")
    peak = peak_gflops(torch.float32)
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(
        f"{options.width} width, 1x{options.frames}x3x{options.size}x{options.size}, spikes at "
        f"1/{options.spike_ratio}: {flops['total'] / 1e9:.1f} GFLOP forward; measured peak {peak:.0f} GFLOP/s (bf16: "
        f"{peak_gflops(torch.bfloat16):.0f}), so {flops['total'] / 1e9 / peak:.2f} s at least (fp32)\n"
    )
    forward: dict[tuple[str, str], list[dict[str, Any]]] = {}
    print("| forward, no gradients | allocator | twin s | ours s | ratio | twin GB | ours GB | of peak |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for allocator in ("default", "tuned"):
        for _ in range(options.rounds):
            for variant in ("twin", "ours"):
                forward.setdefault((variant, allocator), []).append(alone(options, f"{variant}-forward", allocator))
        twin, ours = (median(forward[v, allocator], "seconds") for v in ("twin", "ours"))
        memory = [median(forward[v, allocator], "peak") / 1e9 for v in ("twin", "ours")]
        share = flops["total"] / 1e9 / ours / peak
        print(
            f"| fp32 | {allocator} | {twin:.2f} | {ours:.2f} | {twin / ours:.2f}x | {memory[0]:.2f} | {memory[1]:.2f} "
            f"| {share:.0%} |",
            flush=True,
        )
    outputs = [torch.load(options.out / f"{v}_fp32.pt", weights_only=True) for v in ("twin", "ours")]
    print(f"\nLargest difference of the outputs {float((outputs[0] - outputs[1]).abs().max()):.1e}.\n")
    print_parts(forward, flops, peak)
    half = [alone(options, "ours-forward", "tuned", "--precision", "bf16") for _ in range(options.rounds)]
    ours = median(forward["ours", "tuned"], "seconds")
    error = torch.load(options.out / "ours_bf16.pt", weights_only=True) - outputs[1]
    psnr = -10 * float(error.square().mean().log10())
    print(
        f"bf16, allocator tuned: {median(half, 'seconds'):.2f} s, "
        f"{ours / median(half, 'seconds'):.2f}x as fast as ours in fp32, "
        f"{median(half, 'peak') / 1e9:.2f} GB, PSNR to fp32 {psnr:.1f} dB\n"
    )
    if options.train:
        compare_steps(options)


def compare_steps(options: argparse.Namespace) -> None:
    print("| training step | allocator | recomputed | twin s | ours s | ratio | twin GB | ours GB |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for checkpoint in ((), ("--checkpoint",)):
        for allocator in ("default", "tuned"):
            steps: dict[str, list[dict[str, Any]]] = {"twin": [], "ours": []}
            for _ in range(options.train_rounds):
                for variant, results in steps.items():
                    results.append(alone(options, f"{variant}-train", allocator, *checkpoint))
            (twin, ours), (large, small) = (
                [median(results, key) for results in steps.values()] for key in ("seconds", "peak")
            )
            values = (twin, ours, large / 1e9, small / 1e9)
            shown = [f"{value:.2f}" if value == value else "does not fit" for value in values]
            ratio = f"{twin / ours:.2f}x" if twin == twin else "-"
            print(
                f"| fp32 | {allocator} | {'all parts' if checkpoint else 'none'} | {shown[0]} | {shown[1]} | {ratio} "
                f"| {shown[2]} | {shown[3]} |",
                flush=True,
            )


def print_parts(forward: dict[tuple[str, str], list[dict[str, Any]]], flops: dict[str, Any], peak: float) -> None:
    whole = {key: dict.fromkeys(("all",), median(results, "seconds")) for key, results in forward.items()}
    for key, results in forward.items():
        for part in flops["parts"]:
            whole[key][part] = statistics.median(r["parts"][part] for r in results if "parts" in r)
        whole[key]["rest"] = whole[key]["all"] - sum(v for p, v in whole[key].items() if p != "all")
    work = flops["parts"] | {"rest": flops["total"] - sum(flops["parts"].values())}
    print("| part, ms | GFLOP | twin default | ours default | twin tuned | ours tuned | ratio tuned | ours of peak |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for part, count in work.items():
        twin_d, ours_d, twin_t, ours_t = (
            1e3 * whole[v, a][part] for a in ("default", "tuned") for v in ("twin", "ours")
        )
        print(
            f"| {part} | {count / 1e9:.1f} | {twin_d:.0f} | {ours_d:.0f} | {twin_t:.0f} | {ours_t:.0f} "
            f"| {twin_t / ours_t:.2f}x | {count / 1e6 / ours_t / peak:.0%} |"
        )
    mine = whole["ours", "tuned"]
    branch = sum(mine[p] for p in ("spike encoder", "spike attention over time", "fusion"))
    print(f"\nSpike branch and fusion: {branch / mine['all']:.1%} of ours (tuned).\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", choices=tuple(WIDTHS), default="reference")
    parser.add_argument("--size", type=int, default=64, help="rows and columns in pixels")
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--spike-ratio", type=int, default=2, help="frame pixels per voxel along a side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train-rounds", type=int, default=1)
    parser.add_argument("--forward", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--train", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path, default=Path("out/bench_model"), help="where outputs are kept to compare")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)  # inside: twin|ours-forward|train|flops
    parser.add_argument("--allocator", choices=("default", "tuned"), default="default", help=argparse.SUPPRESS)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.one:
        print(json.dumps(run_one(chosen)))
    elif chosen.forward:
        compare(chosen)
    else:
        compare_steps(chosen)
