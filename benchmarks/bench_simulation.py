"""How long does a 720p recording take to simulate, how much memory, and is it the same whoever renders?

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive python benchmarks/bench_simulation.py PHOTO

One recording of 5 exposures of 56 ticks (period 70, so 336 ticks), frames of 1280x720, spikes of 640x360, two layers.
"tick by tick" renders one tick at a time, as a frame this large was rendered before; the others one tick a thread.
A waiting thread sleeps (passive), as `spikevrt simulate` has it: spinning threads lose to any busy neighbour. Every
case runs in a process of its own, so that its peak memory is its own. Equal "bytes": equal frames and spikes.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from spikevrt.simulate import synthesise
from spikevrt.simulate.setup import CameraConfig, RigConfig, SimulateOptions, sensor_preset
from spikevrt.simulate.synthesise import simulate_recording

NOISY = CameraConfig(full_well_electrons=8000.0, read_noise=0.002)
CASES = {
    "ideal, tick by tick": SimulateOptions(),
    "ideal": SimulateOptions(),
    "ideal, 20 exposures": SimulateOptions(frames=20),
    "bright": SimulateOptions(sensor=sensor_preset("bright"), camera=NOISY),
    "lowlight": SimulateOptions(sensor=sensor_preset("lowlight"), camera=NOISY),
    "bright, random rig": SimulateOptions(sensor=sensor_preset("bright"), camera=NOISY, rig=RigConfig(random=True)),
}


def run(name: str, photo: Path) -> None:
    """Simulate one case and print its row."""
    from dataclasses import replace

    if name.endswith("tick by tick"):
        synthesise.MOST_THREADS = 1
    options = replace(CASES[name], exposure_ticks=56, period_ticks=70, width=1280, height=720)
    with tempfile.TemporaryDirectory() as folder:
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        made = simulate_recording(photo, Path(folder) / "made", options)
        seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        digest = hashlib.sha256()
        for path in sorted(made.root.rglob("*.png")) + [made.root / "spikes.dat"]:
            digest.update(path.read_bytes())
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"| {name} | {made.num_ticks} | {seconds:.1f} | {cpu_s:.1f} | {1e3 * cpu_s / made.num_ticks:.0f} "
        f"| {peak_mb:.0f} | {digest.hexdigest()[:8]} |"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--case", choices=CASES)
    parsed = parser.parse_args()
    if parsed.case is not None:
        run(parsed.case, parsed.photo)
    else:
        print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
        print("| case | ticks | s | CPU s | CPU ms a tick | peak MB | bytes |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | --- |", flush=True)
        for name in CASES:
            subprocess.run([sys.executable, __file__, str(parsed.photo), "--case", name], check=True)
