"""How far is the forecast of a training step from the truth?

`python benchmarks/bench_forecast.py RESULTS.jsonl [ROW...]`

A row is CONFIG:CROP_PX:BATCH[:KEY=VALUE...]; without rows, those of `ROWS`. For each row not yet in RESULTS, one fresh
process forecasts and another takes steps at the row's size; then the table of all rows in RESULTS is printed. Clips
are random and the loss is Charbonnier alone.

Memory: the peak of the resident process over three steps (two where one takes more than 20 s). Time: seconds of the
processor, one thread, so that other jobs disturb less; the small steps that predict and the row's own take turns in one
process, so this judges the straight line of the forecast and not its clock.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from spikevrt import runtime
from spikevrt.config import Config, load_config
from spikevrt.losses import charbonnier
from spikevrt.model.spike_vrt import SpikeVRT
from spikevrt.train import forecast as fc
from spikevrt.train.forecast import Size, count_step, random_batch
from spikevrt.train.optim import make_optimizer

CONFIGS = Path(__file__).parents[1] / "configs"
CPU = torch.device("cpu")
PLAIN = ("loss.perceptual_weight=0", "train.precision=fp32")
RECOMPUTED = "model.checkpoint=[attention,mlp,deform,spikes,fusion]"
ROWS = (
    "tiny:64:1",
    "tiny:64:2",
    "tiny:96:1",
    "tiny:64:4",
    "tiny:128:1",
    "tiny:96:2",
    "tiny_rgb:64:2",
    "tiny_rgb:128:1",
    "tiny:192:1",
    "tiny:128:2",
    f"tiny:128:2:{RECOMPUTED}",
    f"small:64:1:{RECOMPUTED}",
    f"small:96:1:{RECOMPUTED}",
    f"small:64:2:{RECOMPUTED}",
    "small:96:1:train.precision=bf16",
    f"small:128:1:{RECOMPUTED}",
    "vrt_baseline:64:1:train.precision=bf16",
    "vrt_spike_baseline:96:1:train.precision=bf16",
)


def config_of(row: str) -> Config:
    name, crop_px, batch, *changes = row.split(":")
    sizes = (f"data.crop_px={crop_px}", f"data.batch={batch}")
    return load_config(CONFIGS / f"{name}.yaml", (*PLAIN, *sizes, *changes))


def build(config: Config) -> SpikeVRT:
    runtime.tune_allocator()
    runtime.seed_everything(1)
    return SpikeVRT(config.model)


def loss_terms(config: Config) -> fc.Terms:
    def terms(batch: fc.Batch, network: torch.nn.Module) -> dict[str, torch.Tensor]:
        with runtime.autocast(CPU, config.train.precision):
            restored = network(batch["blur"], batch.get("spike_vox")).float()
        return {"charbonnier": charbonnier(restored, batch["sharp"], config.loss.charbonnier_eps)}

    return terms


def sample_of(config: Config) -> dict[str, object]:
    """One clip as the data loader gives it: frames, and spikes at half their size."""
    num_frames, side = config.data.clip_frames, config.data.crop_px
    frames = torch.zeros(num_frames, 3, side, side)
    sample: dict[str, object] = {"blur": frames, "sharp": frames, "meta": {}}
    if config.model.spikes is not None:
        sample["spike_vox"] = torch.zeros(num_frames, config.model.spikes.num_bins, side // 2, side // 2)
    return sample


def predict(row: str) -> dict[str, float]:
    config = config_of(row)
    network = build(config)
    terms, sample = loss_terms(config), sample_of(config)
    started = time.process_time()
    found = fc.forecast(network, terms, config, sample)
    spent = time.process_time() - started
    began = time.process_time()
    count_step(network, terms, sample, found.size)
    return {
        "predicted_bytes": found.cost.peak_bytes(found.size),
        "overhead": found.cost.overhead,
        "cost_s": spent,
        "trace_s": time.process_time() - began,
    }


def measure(row: str) -> dict[str, float]:
    config = config_of(row)
    network, terms, sample = build(config), loss_terms(config), sample_of(config)
    optimizer = make_optimizer(network, config.optim)
    size = Size(config.data.crop_px, config.data.batch)
    peak_bytes = fc.measure_step(network, optimizer, terms, sample, size, config.optim.clip_norm).peak_bytes
    sizes = [Size(network.min_size_px, 1), Size(network.min_size_px, 2), size]
    seconds: dict[Size, list[float]] = {s: [] for s in sizes}
    for turn in range(3):
        for each in seconds:
            began = time.process_time()
            terms(random_batch(sample, each, CPU), network)["charbonnier"].backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if turn:  # the first one warms up
                seconds[each].append(time.process_time() - began)
    flops = {s: count_step(network, terms, sample, s).flops for s in seconds}
    single, double = ((flops[s], statistics.median(seconds[s])) for s in sizes[:2])
    offset_s, s_per_flop = fc.line_through(single, double)
    return {
        "measured_bytes": peak_bytes,
        "predicted_s": offset_s + s_per_flop * flops[size],
        "measured_s": statistics.median(seconds[size]),
    }


def table(results: Path) -> None:
    print(
        "| config | crop | batch | GB predicted | GB measured | error | overhead | s predicted | s measured | error |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for line in results.read_text().splitlines():
        r = json.loads(line)
        name, crop_px, batch, *changes = r["row"].split(":")
        gb = [r[f"{which}_bytes"] / 1e9 for which in ("predicted", "measured")]
        s = [r[f"{which}_s"] for which in ("predicted", "measured")]
        told = " ".join([name, *("recomputing" if c == RECOMPUTED else c for c in changes)])
        error_s = f"{s[0] / s[1] - 1:+.0%}" if s[0] != s[1] else "same steps"
        print(
            f"| {told} | {crop_px} | {batch} | {gb[0]:.2f} | {gb[1]:.2f} | {gb[0] / gb[1] - 1:+.0%} "
            f"| {r['overhead']:.2f} | {s[0]:.2f} | {s[1]:.2f} | {error_s} |"
        )


def main(arguments: list[str]) -> None:
    if arguments[0] in ("predict", "measure"):
        function = predict if arguments[0] == "predict" else measure
        print(json.dumps(function(arguments[1])))
        return
    results = Path(arguments[0])
    done = {json.loads(line)["row"] for line in results.read_text().splitlines()} if results.is_file() else set()
    for row in arguments[1:] or ROWS:
        if row in done:
            continue
        found = {"row": row}
        for what in ("predict", "measure"):
            command = [sys.executable, __file__, what, row]
            found |= json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        with results.open("a") as file:
            file.write(json.dumps(found) + "\n")
    table(results)


if __name__ == "__main__":
    main(sys.argv[1:])
