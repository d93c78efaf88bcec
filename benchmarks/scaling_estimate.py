"""What would 2, 8 and 64 GPUs give? Bytes exchanged in a step, and the efficiency to expect, on paper.

`python benchmarks/scaling_estimate.py [--measured ONE_S TWO_S]`

Only parameters, arithmetic and, if given, the two step times of `--measured` (one process, and two under torchrun on
CPUs, of the same clips per process) are facts. Seconds on GPUs are expected, not measured: arithmetic over an assumed
rate, bytes over assumed links.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from spikevrt.config import Config, load_config
from spikevrt.model.network import SpikeVRT

CONFIGS = Path(__file__).parents[1] / "configs"
NAMES = ("vrt_spike_baseline", "small", "tiny")
GPUS = (1, 2, 8, 64)
SUSTAINED_FLOPS = 100e12  # assumed: a tenth of the bf16 peak of an H100 (989e12, data sheet), windows are small
IN_NODE = 300e9  # bytes/s, assumed: two thirds of NVLink 4's 450e9 in each direction (H100 data sheet)
BETWEEN_NODES = 40e9  # bytes/s of a GPU, assumed: 80 % of one 400 Gb/s port (50e9)
NODE = 8
OVERLAP = 0.8  # share of the exchange that DDP can hide behind the backward pass: all buckets but the last ones
BACKWARD = 2 / 3  # of a step's arithmetic


def step_flops(config: Config) -> float:
    """Forward and backward of the config's batch; recomputing is not counted."""
    data, spikes = config.data, config.model.spikes
    network = SpikeVRT(config.model).to("meta")
    side = 64  # cost is linear in pixels
    inputs = [torch.empty(1, data.clip_frames, 3, side, side, device="meta")]
    if spikes is not None:
        inputs.append(torch.empty(1, data.clip_frames, spikes.num_bins, side // 2, side // 2, device="meta"))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    return 3 * counter.get_total_flops() * data.batch * (data.crop_px / side) ** 2


def ring_bytes(num_params: int, world: int) -> float:
    """What each rank sends in a ring all-reduce of fp32 gradients: 2 (N - 1) / N x 4 bytes a parameter."""
    return 2 * (world - 1) / world * 4 * num_params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", nargs=2, type=float, metavar=("ONE_S", "TWO_S"))
    measured = parser.parse_args().measured
    heads = "config | parameters | TFLOP a step and GPU | GPUs | MB sent (DDP) | MB sent (FSDP2) | s compute"
    print(f"| {heads} | s exchange | s not hidden | efficiency |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in NAMES:
        config = load_config(CONFIGS / f"{name}.yaml")
        num_params = sum(p.numel() for p in SpikeVRT(config.model).parameters())
        flops = step_flops(config)
        compute_s = flops / SUSTAINED_FLOPS
        for world in GPUS:
            sent = ring_bytes(num_params, world)
            link = IN_NODE if world <= NODE else BETWEEN_NODES
            exchange_s = sent / link
            exposed_s = max(exchange_s * (1 - OVERLAP), exchange_s - BACKWARD * compute_s)
            print(
                f"| {name} | {num_params:,} | {flops / 1e12:.1f} | {world} | {sent / 1e6:.1f} | {1.5 * sent / 1e6:.1f} "
                f"| {compute_s:.4f} | {exchange_s:.5f} | {exposed_s:.5f} | {compute_s / (compute_s + exposed_s):.1%} |"
            )
    if measured is not None:
        one_s, two_s = measured
        print(f"\nmeasured: one process {one_s:.2f} s a step, two {two_s:.2f} s: efficiency {one_s / two_s:.0%}")


if __name__ == "__main__":
    main()
