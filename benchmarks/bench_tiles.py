"""What is it worth that tiles share one optical flow? `python benchmarks/bench_tiles.py`

One clip of a simulated recording (a shipped photograph, 16 px of motion), restored whole, in tiles that each compute
their own flow, and in tiles that share the picture's, in turn in one process; medians over the rounds. The difference
to the whole picture's result is in levels of 8 bits, where tiles overlap. The shipped weights learnt to see no motion,
so a second network has a SpyNet of random weights, scaled to flows of 3 pixels (root mean square).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from spikevrt import shipped
from spikevrt.model.flow import SpyNetLevel
from spikevrt.model.network import Network
from spikevrt.model.spike_vrt import SpikeVRT
from spikevrt.recording.frames import to_float
from spikevrt.recording.recording import open_recording
from spikevrt.represent.counts import frame_counts
from spikevrt.represent.voxel import VoxelStats, normalise
from spikevrt.restore import clip
from spikevrt.restore.clip import restore_clip
from spikevrt.restore.memory import Plan, plan_tiles
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.restorer import load_network
from spikevrt.restore.tiling import Tile, spatial_tiles
from spikevrt.simulate.setup import SimulateOptions
from spikevrt.simulate.synthesise import simulate_recording

PACKAGE = Path(clip.__file__).parents[1]
HEIGHT, WIDTH, FRAMES = 256, 384, 3
TILES = RestoreOptions(tile_px=128, overlap_px=32)
FLOW_PX = 3.0


def own_flows(*arguments: Any, **options: Any) -> Plan:
    return replace(plan_tiles(*arguments, **options), shares_flows=False)


def see_motion(network: SpikeVRT, frames: torch.Tensor) -> None:
    """Random last convolutions in SpyNet, scaled until its flows are as long as asked for."""
    ends = [m.basic_module[-1] for m in network.vrt.spynet.modules() if isinstance(m, SpyNetLevel)]
    generator = torch.Generator().manual_seed(7)
    for end in ends:
        end.get_parameter("weight").data.normal_(0, 0.02, generator=generator)
    for _ in range(8):
        size_px = float(network.clip_flows(frames[None]).backward[0][0].square().sum(2).mean().sqrt())
        for parameter in [parameter for end in ends for parameter in end.parameters()]:
            parameter.data *= FLOW_PX / size_px


@torch.no_grad()
def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        options = SimulateOptions(frames=FRAMES, width=WIDTH, height=HEIGHT, motion_px=16.0)
        simulate_recording(PACKAGE / "assets/bridge.jpg", Path(folder) / "bridge", options)
        recording = open_recording(Path(folder) / "bridge")
        frames = torch.stack([to_float(recording.read_blur(i)) for i in range(FRAMES)])
        counts = torch.stack([frame_counts(recording, i, num_bins=32) for i in range(FRAMES)])
    tiles = spatial_tiles(HEIGHT, WIDTH, TILES.tile_px, TILES.overlap_px, multiple=16)
    covered = torch.zeros(HEIGHT, WIDTH)
    for tile in tiles:
        covered[tile.rows, tile.columns] += 1
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; {FRAMES} frames of {WIDTH}x{HEIGHT}, ", end=""
    )
    print(f"{len(tiles)} tiles of {TILES.tile_px} px\n")
    print("| network | tiles | seconds | mean difference | 1 in 1000 above | largest |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for name in ("spikevrt_tiny", "the same, SpyNet random"):
        network, info = load_network(shipped.find("spikevrt_tiny"), torch.device("cpu"))
        voxels = normalise(counts, VoxelStats(info.voxel_mean, info.voxel_std))
        if "random" in name:
            assert isinstance(network, SpikeVRT)
            see_motion(network, frames)
        cases = {
            "one": (RestoreOptions(tile_px=0), plan_tiles),
            "own flows": (TILES, own_flows),
            "shared flows": (TILES, plan_tiles),
        }
        seconds: dict[str, list[float]] = {case: [] for case in cases}
        results = {}
        restore_clip(network, frames, voxels, TILES)  # warms up
        for _ in range(rounds):
            for case, (how, plan) in cases.items():
                with mock.patch.object(clip, "plan_tiles", plan):
                    began_s = time.perf_counter()
                    results[case] = restore_clip(network, frames, voxels, how)
                    seconds[case].append(time.perf_counter() - began_s)
        for case in cases:
            middle_s = statistics.median(seconds[case])
            apart = 255 * (results[case] - results["one"]).abs()[..., covered > 1].flatten()
            rare = apart.sort().values[-max(1, len(apart) // 1000)]
            print(f"| {name} | {case} | {middle_s:.2f} | {apart.mean():.4f} | {rare:.3f} | {apart.max():.2f} |")
    print_flows_alone(network, frames, tiles, 2 * rounds + 1)


def print_flows_alone(network: Network, frames: torch.Tensor, tiles: list[Tile], rounds: int) -> None:
    own_s, shared_s = [], []
    for _ in range(rounds):
        began_s = time.perf_counter()
        for tile in tiles:
            network.clip_flows(frames[None, ..., tile.rows, tile.columns])
        own_s.append(time.perf_counter() - began_s)
        began_s = time.perf_counter()
        network.clip_flows(frames[None])
        shared_s.append(time.perf_counter() - began_s)
    own, shared = statistics.median(own_s), statistics.median(shared_s)
    print(f"\nThe flows alone: {own:.3f} s for each tile, {shared:.3f} s for the picture's: {own / shared:.2f}x.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    main(parser.parse_args().rounds)
