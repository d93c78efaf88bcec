"""What does each switch of training cost, and does it change the losses?

`python benchmarks/bench_training.py --data DATASET`, a dataset made by `spikevrt prepare`. Every row is a process of
its own: the same seed, the same clips, one step to warm up, then the median of the next ones (fp16 on a CPU: one). On a
CPU with one thread the time is CPU time, which other work on the machine disturbs least; else it is elapsed time.
Memory is the peak: resident in the whole process, or on a GPU allocated by torch. The exit status is 1 if losses differ
that must not. `--table reference` shows what recomputing saves at the reference's width and depth, one step a row.
`--compile` adds the row of torch.compile, whose first step may take many minutes on a CPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from spikevrt import runtime
from spikevrt.config import CHECKPOINT_PARTS, load_config
from spikevrt.model import deformable_alignment, flow
from spikevrt.train import loop

CONFIGS = Path(__file__).parents[1] / "configs"
ALL = f"[{','.join(CHECKPOINT_PARTS)}]"
SAME, ROUNDED, CLOSE, OTHER = "same bits", "rounding", "close", "no"  # what the losses must be
EIGHT_BIT = "AdamW, 8-bit averages"
BY_INDEX = "by-index"  # no setting: what train.deterministic does on a GPU, wherever this runs
MOST = {SAME: 0.0, ROUNDED: 1e-5, CLOSE: 5e-2, OTHER: float("inf")}  # largest relative difference allowed
# name -> (settings, what the losses must be)
RECOMPUTED: dict[str, tuple[list[str], str]] = {
    "default: fp32, fused AdamW, nothing recomputed": ([], SAME),
    **{f"recompute {part}": ([f"model.checkpoint=[{part}]"], SAME) for part in CHECKPOINT_PARTS},
    "recompute all": ([f"model.checkpoint={ALL}"], SAME),
    "recompute all in stages 1, 7, 8": ([f"model.checkpoint={ALL}", "model.checkpoint_stages=[1,7,8]"], SAME),
}
SWITCHES: dict[str, tuple[list[str], str]] = {
    **RECOMPUTED,
    "channels_last": (["train.channels_last=true"], ROUNDED),
    "bf16": (["train.precision=bf16"], CLOSE),
    "fp16": (["train.precision=fp16"], CLOSE),
    "accumulate 2 x 1 clip": (["train.accumulate=2", "data.batch=1"], ROUNDED),
    "averaged weights (EMA)": (["optim.ema_decay=0.999"], SAME),
    "Adam": (["optim.kind=adam"], OTHER),
    EIGHT_BIT: (["optim.kind=adamw8bit"], CLOSE),
    "2 loader workers": (["data.workers=2"], SAME),
    "deterministic": (["train.deterministic=true"], SAME if not torch.cuda.is_available() else ROUNDED),
    # at the start the flow is zero: every position is an integer, where the two gradients are taken from other sides
    "sampling by index (deterministic on a GPU)": ([BY_INDEX], CLOSE),
}
COMPILED: dict[str, tuple[list[str], str]] = {"compile": (["train.compile=true"], ROUNDED)}
TABLES = {
    "tiny": (CONFIGS / "tiny.yaml", SWITCHES),
    "reference": (CONFIGS / "vrt_spike_baseline.yaml", RECOMPUTED | {EIGHT_BIT: SWITCHES[EIGHT_BIT]}),
}


def measure(path: Path, settings: list[str], num_steps: int, warm_up: int) -> dict[str, object]:
    """Seconds of each step after the warm-up, the losses of all, bytes (peak, optimiser), seconds to build all."""
    if BY_INDEX in settings:
        settings = [setting for setting in settings if setting != BY_INDEX]
        flow.sample = deformable_alignment.sample = flow.sample_by_index
    began = time.perf_counter()
    config = load_config(path, settings)
    run = loop.Run(config, loop.Ranks(), None)
    built_s = time.perf_counter() - began
    alone = run.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    runtime.reset_peak_memory(run.device)
    run.trained.train()
    batches = iter(run.loader())
    seconds, losses = [], []
    for _ in range(warm_up + num_steps):
        loop.set_lr(run.optimizer, run.step, config.optim)
        micro_batches, _ = run.fetch(batches)
        began = clock()
        terms, _ = run.take_step(micro_batches)
        runtime.synchronise(run.device)
        seconds.append(clock() - began)
        losses.append(sum(terms.values()))
        run.step += 1
    peak = runtime.peak_memory_bytes(run.device)
    state = optimizer_bytes(run)
    return {"seconds": seconds[warm_up:], "losses": losses, "peak": peak, "state": state, "built_s": built_s}


def optimizer_bytes(run: loop.Run) -> int:
    """What the averages of the optimiser take."""
    tensors = [t for values in run.optimizer.state.values() for t in values.values() if isinstance(t, torch.Tensor)]
    plain = [
        [getattr(t, name) for name in t.__tensor_flatten__()[0]] if hasattr(t, "__tensor_flatten__") else [t]
        for t in tensors
    ]
    return sum(t.nbytes for parts in plain for t in parts)


def apart(losses: list[float], default: list[float]) -> float:
    """The largest relative difference of two series of losses, as far as both go."""
    return max(abs(a - b) / abs(b) for a, b in zip(losses, default, strict=False))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a dataset folder made by spikevrt prepare")
    parser.add_argument("--table", choices=TABLES, default="tiny")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a row (after one step to warm up)")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--only", nargs="*", help="rows whose name contains one of these; the default always runs")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of every row")
    parser.add_argument("--one", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    path, rows = TABLES[options.table]
    common = [f"data.root={options.data}", "optim.warmup_steps=1", "loss.perceptual_weight=0", *options.set]
    num_steps, warm_up = options.steps, 1
    if options.table == "reference":
        small = ["data.batch=1", "data.clip_frames=3", "data.crop_px=64", "data.workers=0", "model.checkpoint=[]"]
        common = ["train.precision=fp32", *small, *common]
        num_steps, warm_up = 1, 0
    if options.one is not None:
        print(json.dumps(measure(path, [*common, *options.one], num_steps, warm_up)))
        return 0
    rows = rows | COMPILED if options.compile else rows
    default: dict[str, list[float]] = {}
    is_right = True
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.table}, {' '.join(options.set)}\n")
    print("| switch | s a step | relative | peak GB | relative | optimiser MB | losses must be | largest difference |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: |", flush=True)
    for name, (settings, must) in rows.items():
        if default and options.only and not any(word in name for word in options.only):
            continue
        fewer = ["--steps", "1"] if name == "fp16" and not torch.cuda.is_available() else []
        command = [sys.executable, __file__, *sys.argv[1:], *fewer, "--one", *settings]
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode:
            print(f"| {name} | failed: {(answer.stderr.strip().splitlines() or ['?'])[-1][:200]} | | | | | {must} | |")
            is_right = False
            continue
        row = json.loads(answer.stdout.splitlines()[-1])
        step_s, gigabytes = statistics.median(row["seconds"]), row["peak"] / 1e9
        default = default or {"losses": row["losses"], "step_s": [step_s], "gigabytes": [gigabytes]}
        difference = apart(row["losses"], default["losses"])
        is_right &= difference <= MOST[must]
        cells = [f"{step_s:.2f}", f"{step_s / default['step_s'][0]:.2f}x", f"{gigabytes:.2f}"]
        cells += [f"{gigabytes / default['gigabytes'][0]:.2f}x", f"{row['state'] / 1e6:.2f}", must, f"{difference:.1e}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        if name == "compile":
            print(f"\ncompile: built and compiled in {row['built_s']:.0f} s (elapsed)")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
