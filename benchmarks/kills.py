"""`train` and `restore` killed (SIGKILL) at random points and gone on with: do they give what one never stopped gives?

    python benchmarks/kills.py [--kills 20] [--seed 1] [--only restore]

Each command runs in a process forked from this one, where everything is imported, so that a random time is a point of
its work and not of Python's start. Compared byte by byte: of `train` the weights (best and last) and the digest of the
state, optimiser and random numbers included; of `restore` every frame and the video.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from spikevrt import __file__ as PACKAGE
from spikevrt import cli
from spikevrt.align.health import NAMES
from spikevrt.checkpoint import digest, load_state
from spikevrt.config import PrepareOptions
from spikevrt.data.prepare import Sources, prepare
from spikevrt.runtime import git_commit
from spikevrt.simulate.setup import SimulateOptions
from spikevrt.simulate.synthesise import simulate_recording
from spikevrt.train.journal import read_journal

PHOTO = Path(PACKAGE).parent / "assets" / "chelsea.jpg"
CONFIG: dict[str, Any] = {  # everything that has a state: a worker, accumulation, averaged weights, worse spikes
    "model": {"spikes": {"num_bins": 4}, "unet": {"width": 5, "growth": 3, "depth": 2, "blocks": 1}},
    "data": {"clip_frames": 2, "crop_px": 64, "batch": 1, "workers": 1, "spike_dropout": 0.25,
             "degrade": {"probability": 0.5, "threshold": [1, 2], "noise": 0.1}},
    "loss": {"perceptual_weight": 0.0},
    "optim": {"lr": 1e-3, "steps": 16, "warmup_steps": 1, "ema_decay": 0.75},
    "train": {"device": "cpu", "precision": "fp32", "accumulate": 2, "log_every": 1, "checkpoint_every": 2,
              "validate_every": 8},
}  # fmt: skip


def start(words: Sequence[str]) -> int:
    """The command in a process of its own; its number."""
    process = os.fork()
    if process == 0:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        os._exit(cli.main(list(words)))
    return process


def finish(process: int) -> None:
    """Wait for it. Raises RuntimeError where it fails."""
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if status:
        raise RuntimeError(f"the command ended with status {status}")


def killed_at(process: int, done: Callable[[Path], int], out: Path, least: int, seconds: float) -> bool:
    """Kill it so long after so much is done; False where it ended before."""
    while done(out) < least:
        time.sleep(0.002)
        if os.waitpid(process, os.WNOHANG)[0]:
            return False
    time.sleep(seconds)
    if os.waitpid(process, os.WNOHANG)[0]:
        return False
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return True


def compare(
    place: Path, words: Callable[[Path], list[str]], result: Callable[[Path], dict[str, str]],
    done: Callable[[Path], int], most: int, kills: int, rng: random.Random,
) -> tuple[list[int], int]:  # fmt: skip
    """(how much was done at each kill, how many results differ from that of a run that was never stopped)."""
    whole, out = place / "whole", place / "killed"
    finish(start(words(whole)))
    right, points, num_different = result(whole), list[int](), 0
    while len(points) < kills:
        least = rng.randrange(most)
        process = start(words(out))
        if not killed_at(process, done, out, least, rng.uniform(0, 0.2)):
            shutil.rmtree(out)
            continue
        points.append(done(out))
        finish(start(words(out)))
        num_different += result(out) != right
        print(f"killed at {points[-1]}, {num_different} differ", file=sys.stderr, flush=True)
        shutil.rmtree(out)
    return points, num_different


def trained(out: Path) -> dict[str, str]:
    weights = {name: (out / name).read_bytes().hex() for name in ("best.safetensors", "last.safetensors")}
    return weights | {"state": digest(load_state(out / "last.state"))}


def steps_done(out: Path) -> int:
    try:
        return max((row["step"] for row in read_journal(out)), default=0)
    except FileNotFoundError:
        return 0


def restored(out: Path) -> dict[str, str]:
    return {path.name: path.read_bytes().hex() for path in sorted(out.iterdir()) if path.suffix != ".json"}


def frames_done(out: Path) -> int:
    return len(list(out.with_name(f".{out.name}.job").glob("pieces/0*.png")))


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill and go on.")
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="of each command (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("train", "restore"))
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    git_commit()  # asked once, for all: weights name it
    rng, failed = random.Random(parsed.seed), 0
    print("| command | kills | done when killed | results that differ |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        options = SimulateOptions(frames=5, exposure_ticks=8, period_ticks=10, width=64, height=64, num_layers=0)
        recordings = [simulate_recording(PHOTO, place / name, options) for name in ("first", "second")]
        prepare(Sources(recordings[:1], recordings[1:]), place / "set", PrepareOptions(num_bins=4))
        config = CONFIG | {"data": CONFIG["data"] | {"root": str(place / "set")}}
        (place / "config.yaml").write_text(yaml.safe_dump(config))
        long = SimulateOptions(frames=32, exposure_ticks=40, period_ticks=50, width=64, height=48, num_layers=0)
        simulate_recording(PHOTO, place / "street", long)

        def train(out: Path) -> list[str]:
            return ["train", str(place / "config.yaml"), "--out", str(out), "--resume", "auto"]

        def restore(out: Path) -> list[str]:
            words = ["restore", str(place / "street"), "--out", str(out), "--video", "--clip-frames", "3"]
            return [*words, "--ignore-health", *NAMES]

        for name, words, result, done, most, what in (
            ("train", train, trained, steps_done, CONFIG["optim"]["steps"], "steps"),
            ("restore", restore, restored, frames_done, long.frames, "frames"),
        ):
            if parsed.only not in (None, name):
                continue
            (place / name).mkdir()
            points, different = compare(place / name, words, result, done, most, parsed.kills, rng)
            told = f"{', '.join(map(str, sorted(points)))} of {most} {what}"
            print(f"| `{name}` | {len(points)} | {told} | {different} |", flush=True)
            failed += different
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
