"""A results folder as `evaluate` writes it, of six small recordings cut from shipped photographs.

Two methods under three conditions of two scenes each. The network with spikes is measured everywhere and its frames
are kept; its twin is measured at the base alone and only its pictures are there. "Restored" is a mixture of blurry and
sharp frame, so PSNR is real and in a known order; the values of the other metrics are made up.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spikevrt.bench.demo import ASSETS
from spikevrt.evaluate import metrics, pictures
from spikevrt.recording.frames import read_image, to_float, to_uint8, write_image
from spikevrt.recording.sidecar import Exposure
from spikevrt.recording.spike_file import SpikeGeometry, SpikeWriter
from spikevrt.recording.stored import write_sidecar

HEIGHT, WIDTH, NUM_FRAMES = 142, 178, 3  # the crop of 128 x 128 does not reach the frame's border
EXPOSURE, PERIOD = 37, 41  # ticks
SCENES = {"astronaut": ("astronaut.jpg", 0, 160), "coffee": ("coffee.jpg", 60, 160)}  # file, top, left
BASE: dict[str, Any] = {
    "threshold": 1.0, "sensor": "ideal", "exposure_ticks": EXPOSURE, "ratio": 2, "shift_px": 0.0, "offset_ticks": 0,
    "dropped": 0.0, "spikes": True,
}  # fmt: skip
CONDITIONS = {"medium": {}, "medium_threshold_2": {"threshold": 2.0}, "medium_offset_8": {"offset_ticks": 8}}
SHARE = {"spikevrt_tiny": {"medium": 0.8, "medium_threshold_2": 0.6, "medium_offset_8": 0.4}, "vrt_tiny": 0.3}
MADE_UP = {  # of blur, spikevrt_tiny and vrt_tiny
    "ssim_rgb": (0.7, 0.9, 0.8),
    "lpips_alex": (0.3, 0.1, 0.2),
    "edge_rise_px": (7.0, 2.5, 5.0),
    "novel": (1.0, 2.0, 3.0),
}


def write_results(root: Path) -> Path:
    """Make root/recordings and root/scores; returns the latter."""
    scores = root / "scores"
    scores.mkdir(parents=True)
    recordings = [
        _write_recording(root / "recordings" / condition / scene, *SCENES[scene], {**BASE, **values}["threshold"])
        for condition, values in CONDITIONS.items()
        for scene in SCENES
    ]
    names = [f"{path.parent.name}_{path.name}" for path in recordings]
    values = {
        "format": "spikevrt-results",
        "version": 3,
        "protocol": {"psnr_rgb": "dB, 8 bit after clamp and round", "averaging": "mean over frames, then sequences"},
        "environment": {
            "versions": {"python": "3.11.2", "torch": "2.13.0"}, "commit": "0123456789abcdef0123", "device": "x86_64",
            "platform": "Linux", "num_threads": 1, "command": ["spikevrt", "evaluate", "a folder"],
        },
        "options": {"tile_px": 256},
        "benchmark": {"name": "spikebench-v1", "sha256": "5" * 64},
        "data": {"sha256": "7" * 64, "recordings": [_described(path) for path in recordings]},
        "methods": [
            {"name": "blur", "spikes": False, **_scored("blur", scores, recordings, names)},
            {"name": "spikevrt_tiny", "weights": "spikevrt_tiny.safetensors", "weights_sha256": "3" * 64,
             "parameters": 728357, "spikes": True, "ms_per_frame": 1374.2, "peak_memory_bytes": 1.407e9,
             **_scored("spikevrt_tiny", scores, recordings, names)},
            {"name": "vrt_tiny", "weights": "vrt_tiny.safetensors", "weights_sha256": "2" * 64, "parameters": 531533,
             "spikes": False, "ms_per_frame": 1132.0, "peak_memory_bytes": 1.344e9,
             **_scored("vrt_tiny", scores, recordings[:2], names[:2])},
        ],
    }  # fmt: skip
    write_values(scores, values)
    return scores


def read_values(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return values


def write_values(folder: Path, values: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def _write_recording(path: Path, file: str, top: int, left: int, threshold: float) -> Path:
    rng = np.random.default_rng(11)
    for folder in ("blur", "sharp"):
        (path / folder).mkdir(parents=True)
    photo = read_image(ASSETS / file)
    geometry = SpikeGeometry(WIDTH // 2, HEIGHT // 2)
    with SpikeWriter(path / "spikes.dat", geometry) as writer:
        for index in range(NUM_FRAMES):
            seen = [
                photo[top : top + HEIGHT, left + 5 * index + k : left + 5 * index + k + WIDTH].astype(np.float64)
                for k in range(-6, 7)
            ]
            sharp = seen[6].astype(np.uint8)
            write_image(path / "sharp" / f"{index:06d}.png", sharp)
            write_image(path / "blur" / f"{index:06d}.png", np.mean(seen, axis=0).round().astype(np.uint8))
            rate = sharp[::2, ::2].mean(axis=2) / 255 / threshold
            writer.append((rng.random((PERIOD, *rate.shape)) < rate).astype(np.uint8))
    exposures = [
        Exposure(k, k * PERIOD + 2, k * PERIOD + 2 + EXPOSURE, k * PERIOD / 20000, (k * PERIOD + EXPOSURE) / 20000)
        for k in range(NUM_FRAMES)
    ]
    write_sidecar(
        path, spikes=writer, tick_rate_hz=20000.0,
        width=WIDTH, height=HEIGHT, fps=20000 / PERIOD, exposures=exposures, provenance={},
    )  # fmt: skip
    return path


def _described(path: Path) -> dict[str, Any]:
    condition = path.parent.name
    return {
        "name": f"{condition}_{path.name}", "path": f"../recordings/{condition}/{path.name}",
        "num_frames": NUM_FRAMES, "width": WIDTH, "height": HEIGHT, "fps": 20000 / PERIOD, "tick_rate_hz": 20000.0,
        "sha256": "1" * 64, "provenance": {},
        "condition": {"name": condition, "suite": "medium", **BASE, **CONDITIONS[condition]},
    }  # fmt: skip


def _scored(method: str, scores: Path, recordings: list[Path], names: list[str]) -> dict[str, Any]:
    sequences = []
    for path, name in zip(recordings, names, strict=True):
        share = SHARE.get(method, 0.0)
        share = share[path.parent.name] if isinstance(share, dict) else share
        frames = []
        for index in range(NUM_FRAMES):
            blur, sharp = (to_float(read_image(path / kind / f"{index:06d}.png")) for kind in ("blur", "sharp"))
            restored = torch.lerp(blur, sharp, share)
            psnr = float(metrics.psnr_rgb(restored[None], sharp[None])[0])
            frames.append({"frame_idx": index, "psnr_rgb": psnr})
            if method == "spikevrt_tiny":
                kept = pictures.frame_path(scores, method, name, index)
                kept.parent.mkdir(parents=True, exist_ok=True)
                write_image(kept, to_uint8(restored))
            elif method == "vrt_tiny" and index == NUM_FRAMES // 2:
                pictures.write_three_columns(pictures.picture_path(scores, method, name), blur, restored, sharp, method)
        place = ("blur", "spikevrt_tiny", "vrt_tiny").index(method)
        mean = {"psnr_rgb": sum(frame["psnr_rgb"] for frame in frames) / NUM_FRAMES}
        mean |= {metric: values[place] for metric, values in MADE_UP.items()}
        sequences.append({"name": name, "mean": mean, "frames": frames})
    return {"mean": {}, "sequences": sequences}
