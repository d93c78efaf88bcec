"""Restoration as users run it: how well is its memory predicted, does it grow with the length, do tiles show?

    python benchmarks/bench_restore.py RECORDING plan        predicted and measured peak on three budgets, each network
    python benchmarks/bench_restore.py RECORDING exposure    the same with exposures of thousands of ticks
    python benchmarks/bench_restore.py RECORDING length      peak of short and long recordings, real network
    python benchmarks/bench_restore.py RECORDING seams       tiles against the whole picture, each network

RECORDING: 5 frames or more, at least 256 pixels a side (`spikevrt simulate`). Every run is a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from spikevrt.align.health import NAMES
from spikevrt.recording.recording import Recording, open_recording
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.restorer import Restorer

NETWORKS = ("spikefold_tiny", "spikevrt_tiny", "vrt_tiny")
BORDER_PX = 16  # pixels that count as the picture's border


def restored(recording: Path, out: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "spikevrt", "restore", str(recording), "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    summary: dict[str, Any] = json.loads((out / "restored.json").read_text())
    return summary


def weights_of(name: str) -> list[str]:
    return ["--weights", name]


def plan(recording: Path) -> None:
    print("| weights | --tile-px at most | tile | MB predicted | MB measured | error |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in NETWORKS:
        for most_px in (128, 192, 256):
            with tempfile.TemporaryDirectory() as folder:
                options = ["--memory", "6GB", "--tile-px", str(most_px), *weights_of(name)]
                found = restored(recording, Path(folder) / "out", *options)
            predicted, measured = float(found["predicted_peak_bytes"]), float(found["peak_bytes"])
            tile_px = found["options"]["tile_px"]
            error = predicted / measured - 1
            print(f"| {name} | {most_px} | {tile_px} | {predicted / 1e6:.0f} | {measured / 1e6:.0f} | {error:+.0%} |")


def exposed_longer(recording: Path, num_ticks: int, folder: Path) -> Path:
    """The recording with exposures of `num_ticks` ticks: the ticks of its first one over and over."""
    values = json.loads((recording / "recording.json").read_text())
    stream = values["spikes"]
    tick_bytes = stream["width"] * stream["height"] // 8
    first = values["exposures"][0]
    ticks = (recording / stream["file"]).read_bytes()[
        first["start_tick"] * tick_bytes : first["stop_tick"] * tick_bytes
    ]
    out = folder / f"exposure{num_ticks}"
    out.mkdir()
    (out / "blur").symlink_to((recording / "blur").resolve())
    values["exposures"] = [
        {"frame_idx": index, "start_tick": index * num_ticks, "stop_tick": (index + 1) * num_ticks,
         "t0_s": index * num_ticks / stream["tick_rate_hz"], "t1_s": (index + 1) * num_ticks / stream["tick_rate_hz"]}
        for index in range(len(values["exposures"]))
    ]  # fmt: skip
    stream |= {"num_ticks": num_ticks * len(values["exposures"]), "sha256": "0" * 64}
    with (out / stream["file"]).open("wb") as file:
        for left in range(stream["num_ticks"] * tick_bytes, 0, -len(ticks)):
            file.write(ticks[:left])
    (out / "recording.json").write_text(json.dumps(values))
    return out


def exposure(recording: Path) -> None:
    print("| weights | ticks | MB predicted | MB measured | error |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in NETWORKS[:2]:  # profiles, and counts
        for num_ticks in (1000, 3000, 6000):
            with tempfile.TemporaryDirectory() as folder:
                made = exposed_longer(recording, num_ticks, Path(folder))
                options = ["--memory", "1GB", *weights_of(name), "--clip-frames", "2", "--ignore-health", *NAMES]
                found = restored(made, Path(folder) / "out", *options)
            predicted, measured = float(found["predicted_peak_bytes"]), float(found["peak_bytes"])
            error = predicted / measured - 1
            print(f"| {name} | {num_ticks} | {predicted / 1e6:.0f} | {measured / 1e6:.0f} | {error:+.0%} |", flush=True)


def longer(recording: Path, num_frames: int, folder: Path) -> Path:
    """The recording's frames and spikes over and over, as a recording of so many frames; files are linked."""
    values = json.loads((recording / "recording.json").read_text())
    given, stream = values["exposures"], values["spikes"]
    period = given[1]["start_tick"] - given[0]["start_tick"]
    row_bytes = stream["width"] * stream["height"] // 8
    assert stream["width"] * stream["height"] % 8 == 0, "ticks must be whole bytes"
    spikes = (recording / stream["file"]).read_bytes()[: len(given) * period * row_bytes]
    out = folder / f"frames{num_frames}"
    (out / "blur").mkdir(parents=True)
    exposures, last = [], -1
    for index in range(num_frames):
        turn, place = divmod(index, len(given) - 1)  # the last exposure may lack the gap behind it
        start = turn * (len(given) - 1) * period + given[place]["start_tick"]
        stop = start + given[place]["stop_tick"] - given[place]["start_tick"]
        assert start > last
        exposures.append({"frame_idx": index, "start_tick": start, "stop_tick": stop,
                          "t0_s": start / stream["tick_rate_hz"], "t1_s": stop / stream["tick_rate_hz"]})  # fmt: skip
        last = start
        (out / "blur" / f"{index:06d}.png").symlink_to((recording / "blur" / f"{place:06d}.png").resolve())
    turn_bytes = spikes[: (len(given) - 1) * period * row_bytes]
    turns = -(-exposures[-1]["stop_tick"] // ((len(given) - 1) * period))
    with (out / stream["file"]).open("wb") as file:
        for _ in range(turns):
            file.write(turn_bytes)
    values["spikes"]["num_ticks"] = turns * (len(given) - 1) * period
    values["spikes"]["sha256"] = "0" * 64  # nobody asks for it here
    values["frames"]["count"], values["exposures"] = num_frames, exposures
    (out / "recording.json").write_text(json.dumps(values))
    return out


def length(recording: Path) -> None:
    print("| frames | MB peak | seconds |")
    print("| ---: | ---: | ---: |")
    for num_frames in (20, 100, 400):
        with tempfile.TemporaryDirectory() as folder:
            found = restored(longer(recording, num_frames, Path(folder)), Path(folder) / "out")
        print(f"| {num_frames} | {float(found['peak_bytes']) / 1e6:.0f} | {float(found['seconds']):.0f} |")


def whole_and_tiled(name: str, recording: Recording, tile_px: int, overlap_px: int) -> torch.Tensor:
    """|difference| in levels of 255, (T, 3, H, W)."""
    restorer = Restorer(name, RestoreOptions(device="cpu"))
    results = []
    for options in (
        replace(restorer.options, tile_px=0, overlap_px=0),
        replace(restorer.options, tile_px=tile_px, overlap_px=overlap_px),
    ):
        frames = restorer.with_options(options).frames(recording)
        results.append(torch.stack(list(frames)).clamp(0, 1))
    return (results[0] - results[1]).abs() * 255


def seams(recording: Path) -> None:
    footage = open_recording(recording)
    assert isinstance(footage.blur, tuple), "frames must be pictures"
    footage = replace(footage, exposures=footage.exposures[:5], blur=footage.blur[:5], sharp=())
    print("| weights | tile | overlap | largest, inside | largest, border | mean |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in NETWORKS:
        for tile_px, overlap_px in ((128, 16), (128, 32), (128, 48), (128, 64)):
            difference = whole_and_tiled(name, footage, tile_px, overlap_px)
            inside = difference[..., BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]
            border = difference.clone()
            border[..., BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = 0
            largest = f"{inside.max():.2f} | {border.max():.2f}"
            print(f"| {name} | {tile_px} | {overlap_px} | {largest} | {difference.mean():.4f} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[2] not in ("plan", "exposure", "length", "seams"):
        sys.exit(__doc__)
    {"plan": plan, "exposure": exposure, "length": length, "seams": seams}[sys.argv[2]](Path(sys.argv[1]))
