"""What would 64 GPUs bring? `OMP_NUM_THREADS=1 python benchmarks/scaling_estimate.py [--no-measure]`

First a measurement: steps of configs/tiny.yaml under DDP over gloo, on this machine's CPUs, with one and with two
ranks; with two, every other step exchanges nothing, so that what the ranks take from each other by sharing cores is
told apart from what the exchange costs. Then an estimate on paper for GPUs, which nobody measured: bytes from the
number of parameters, seconds from FLOPs and from the constants below. Prints Markdown.

Not in the estimate: waiting for the slowest rank, loading data, validation, saving states; the VGG term.

Dimension key: B samples, T frames, H image rows, W image columns, K bins.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

from spikevrt.config import Config, load_config
from spikevrt.losses import charbonnier
from spikevrt.model.blocks import RTMSA
from spikevrt.model.spike_vrt import SpikeVRT
from spikevrt.model.vrt import Stage
from spikevrt.train.distributed import join_ranks

CONFIGS = Path(__file__).parents[1] / "configs"
NAMES = ("vrt_spike_baseline", "small", "tiny")
RATIO = 2  # image size over spike size

# Assumed, not measured. Peaks: NVIDIA H100 SXM data sheet (989 TFLOP/s dense bf16; NVLink 900 GB/s, both directions
# together); DGX H100 data sheet (8 GPUs and 8 adapters of 400 Gb/s a machine, one for each GPU).
SUSTAINED_FLOPS = (25e12, 100e12)  # 2.5 % and 10 % of the peak. The faster the GPU, the harder is it to keep up with
NVLINK_BYTES_PER_S = 450e9  # one direction
NETWORK_BYTES_PER_S = 400e9 / 8
GPUS_PER_MACHINE = 8
ATTAINED = 0.7  # share of a link's peak that a collective gets
HOP_S = 10e-6  # one message from a rank to the next
OVERLAP = 0.8  # share of the backward pass under which an exchange can hide
BUCKET_BYTES = 25 * 2**20  # DDP's default

WARM_UP, TIMED = 2, 10  # steps of the measurement


def macs_of_a_clip(config: Config) -> tuple[int, int, int]:
    """(parameters, multiply-accumulates of one forward pass, units that FSDP gathers), counted on shapes alone."""
    network = SpikeVRT(config.model).to("meta")
    blur, *more = inputs(config, batch=1, device="meta")
    with FlopCounterMode(display=False) as counter:
        network(blur, *more)
    units = 1 + sum(isinstance(module, Stage | RTMSA) for module in network.modules())
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2, units


def inputs(config: Config, *, batch: int, device: str) -> list[torch.Tensor]:
    """Random frames and voxels of the sizes of training."""
    size, frames, spikes = config.data.crop_px, config.data.clip_frames, config.model.spikes
    shapes: list[tuple[int, ...]] = [(batch, frames, 3, size, size)]
    if spikes is not None:
        shapes.append((batch, frames, spikes.num_bins, size // RATIO, size // RATIO))
    return [
        torch.rand(shape, device=device) if device != "meta" else torch.empty(shape, device=device) for shape in shapes
    ]


def exchange(num_bytes: float, gpus: int, passes: int, messages: int) -> float:
    """Seconds on a ring where `passes` times (N - 1)/N of the bytes leave each rank, in `messages` pieces."""
    link = NVLINK_BYTES_PER_S if gpus <= GPUS_PER_MACHINE else NETWORK_BYTES_PER_S
    return passes * (gpus - 1) / gpus * num_bytes / (link * ATTAINED) + messages * passes * (gpus - 1) * HOP_S


def expected(config: Config, flops_per_s: float, gpus: int, batch: int) -> tuple[float, float, float]:
    """(seconds of computing, seconds of DDP's exchange that show, those of FSDP's) of one step."""
    parameters, macs, units = macs_of_a_clip(config)
    passes = 4 if config.model.checkpoint else 3  # forward, backward (twice), and what is computed again
    compute_s = 2 * macs * passes * batch * config.train.accumulate / flops_per_s
    backward_s = compute_s * (passes - 1) / passes / config.train.accumulate  # of the last micro-batch
    gradient_bytes = 4 * parameters
    buckets = -(-gradient_bytes // BUCKET_BYTES)
    if gpus == 1:
        return compute_s, 0.0, 0.0
    last = exchange(gradient_bytes / buckets, gpus, 2, 1)
    ddp = last + max(0.0, exchange(gradient_bytes, gpus, 2, buckets) - last - OVERLAP * backward_s)
    one_unit = exchange(gradient_bytes / units, gpus, 1, 1)  # the first one is waited for, and so is the last one
    fsdp = 2 * one_unit + max(0.0, exchange(gradient_bytes, gpus, 3, units) - 2 * one_unit - OVERLAP * compute_s)
    return compute_s, ddp, fsdp


def print_estimate() -> None:
    print("\n**Bytes that leave each rank in a step** (fp32 gradients and parameters)\n")
    print("| config | parameters | GMAC a clip | GPUs | DDP: 2 (N-1)/N x 4 bytes, MB | FSDP: 3 (N-1)/N x 4 bytes, MB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in NAMES:
        parameters, macs, _ = macs_of_a_clip(load_config(CONFIGS / f"{name}.yaml"))
        for gpus in (1, 2, 8, 64):
            ddp, fsdp = (factor * (gpus - 1) / gpus * 4 * parameters / 1e6 for factor in (2, 3))
            print(f"| {name} | {parameters:,} | {macs / 1e9:.1f} | {gpus} | {ddp:.1f} | {fsdp:.1f} |")
    for flops_per_s in SUSTAINED_FLOPS:
        print(f"\n**Expected, not measured: GPUs that sustain {flops_per_s / 1e12:.0f} TFLOP/s**\n")
        print("| config | GPUs x clips | computing, ms | DDP adds, ms | efficiency | FSDP adds, ms | efficiency |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        for name in NAMES:
            config = load_config(CONFIGS / f"{name}.yaml")
            full = config.data.batch
            for gpus, batch in ((1, full), (2, full), (8, full), (64, full), (64, 1)):
                compute, *added = expected(config, flops_per_s, gpus, batch)
                cells = " | ".join(f"{1000 * s:.2f} | {compute / (compute + s):.1%}" for s in added)
                print(f"| {name} | {gpus} x {batch} | {1000 * compute:.1f} | {cells} |")


def measure(rank: int, world: int, port: int, results: Any) -> None:
    """One rank: seconds of each step, every other one without an exchange where there are several ranks."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world)
    )
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = load_config(CONFIGS / "tiny.yaml")
    with join_ranks("cpu") as ranks:
        network = SpikeVRT(config.model)
        trained = network if world == 1 else DistributedDataParallel(network)
        clips = inputs(config, batch=config.data.batch, device="cpu")
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for step in range(2 * (WARM_UP + TIMED)):
            exchanged = step % 2 == 1
            ranks.wait()
            began = time.perf_counter()
            if exchanged or not isinstance(trained, DistributedDataParallel):
                charbonnier(trained(*clips), clips[0], 1e-3).backward()
            else:
                with trained.no_sync():
                    charbonnier(trained(*clips), clips[0], 1e-3).backward()
            ranks.wait()  # a step of the run is over when the slowest rank is
            seconds[exchanged].append(time.perf_counter() - began)
            network.zero_grad(set_to_none=True)
        alone = []
        if world > 1:
            flat = torch.zeros(sum(p.numel() for p in network.parameters()))
            for _ in range(WARM_UP + TIMED):
                ranks.wait()
                began = time.perf_counter()
                dist.all_reduce(flat)
                alone.append(time.perf_counter() - began)
        if ranks.is_first:
            results.put((seconds[False][WARM_UP:], seconds[True][WARM_UP:], alone[WARM_UP:]))
        del trained


def run(world: int) -> tuple[list[float], list[float], list[float]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    processes = [context.Process(target=measure, args=(rank, world, port, results)) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit(f"a rank ended with status {process.exitcode}")
    return results.get()


def print_measured() -> None:
    load = os.getloadavg()[0]
    one, two = run(1), run(2)
    single = statistics.median(one[0] + one[1])
    silent, talking, reduce = (statistics.median(values) for values in two)
    pairs = [without / with_ for without, with_ in zip(two[0], two[1], strict=True)]
    print("**Measured: configs/tiny.yaml, forward and backward of 2 clips a rank, DDP over gloo, CPU**\n")
    print(
        f"{os.cpu_count()} cores, one thread a rank, load before the measurement {load:.1f}; medians of {TIMED} steps\n"
    )
    print("| ranks | exchange | s a step | range, s |\n| ---: | --- | ---: | ---: |")
    rows = [("1", "none needed", one[0] + one[1]), ("2", "left out", two[0]), ("2", "as in training", two[1])]
    for ranks, what, values in rows:
        print(f"| {ranks} | {what} | {statistics.median(values):.2f} | {min(values):.2f} to {max(values):.2f} |")
    print(f"\nefficiency of two ranks: {single / talking:.0%} (clips a second, over twice those of one rank)")
    print(f"of that, sharing the cores: {single / silent:.0%}; the exchange: {statistics.median(pairs):.0%} ")
    print(f"(neighbouring steps; {min(pairs):.0%} to {max(pairs):.0%}). All gradients at once: {1000 * reduce:.1f} ms")


if __name__ == "__main__":
    if "--no-measure" not in sys.argv[1:]:
        print_measured()
    print_estimate()
