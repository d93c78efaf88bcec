"""What does each metric cost, and what does it say? `python benchmarks/bench_metrics.py FOLDER [--lpips-vgg FILE]`

Five recordings of 5 frames of 192x192 pixels are simulated into FOLDER from the shipped photographs and video (kept
there for the next run). Scores: the untouched input, the two shipped networks, the sharp frames, and the sharp frames
smoothed (mean of 3x3) and sharpened (twice themselves less that). Cost: one thread, of one clip, the least of the
rounds; processor time, which other work beside it disturbs little; for vmaf_neg, another process, time on the clock.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from spikevrt.evaluate import metrics, scores
from spikevrt.recording.frames import to_float
from spikevrt.recording.recording import open_recording
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.restorer import Restorer
from spikevrt.simulate.setup import SimulateOptions
from spikevrt.simulate.synthesise import simulate_recording

SHIPPED = Path(__file__).resolve().parents[1] / "src" / "spikevrt"
PHOTOS = ("chelsea.jpg", "coffee.jpg", "bridge.jpg", "astronaut.jpg")
OPTIONS = SimulateOptions(frames=5, exposure_ticks=128, period_ticks=160, width=192, height=192, motion_px=16.0)
GROUPS: tuple[tuple[str, ...], ...] = (
    metrics.METRICS, ("ssim_rgb_3d",), ("lpips_alex",), ("lpips_alex", "tlp"), ("lpips_vgg",), ("flip",), ("vmaf_neg",),
    ("edge_rise_px", "edge_rise_px_sharp"), ("reblur_psnr",), ("reblur_psnr_sharp",), ("tof",),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="cost and values of all metrics")
    parser.add_argument("folder", type=Path, help="where the recordings are, or will be")
    parser.add_argument("--lpips-vgg", type=Path, help="weights of VGG-16 (examples/lpips_weights.py)")
    parser.add_argument("--rounds", type=int, default=5)
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    import cv2

    cv2.setNumThreads(1)
    vgg, photos = parsed.lpips_vgg, [SHIPPED / "assets" / name for name in PHOTOS]
    names = scores.choose(["all", *(["lpips_vgg"] if vgg is not None else [])], vgg)
    totals: dict[str, list[dict[str, float]]] = {}
    costs: dict[tuple[str, ...], list[float]] = {}
    for index, source in enumerate([*photos, SHIPPED / "assets" / "city.mp4"]):
        root = parsed.folder / source.stem
        if not root.exists():
            layers = [photo for photo in photos if photo != source] if source in photos else []
            simulate_recording(source, root, replace(OPTIONS, seed=OPTIONS.seed + index), layer_photos=layers)
        recording = open_recording(root)
        indices = range(recording.num_frames)
        sharp = torch.stack([to_float(recording.read_sharp(i)) for i in indices])
        blur = torch.stack([to_float(recording.read_blur(i)) for i in indices])
        smooth = F.avg_pool2d(sharp, 3, 1, 1, count_include_pad=False)
        methods = {"blur": blur}
        for name in ("vrt_tiny", "spikevrt_tiny"):
            restorer = Restorer(name, RestoreOptions(device="cpu"))
            methods[name] = torch.stack(list(restorer.frames(recording)))
        methods |= {"sharp": sharp, "smoothed": smooth, "sharpened": (2 * sharp - smooth).clamp(0, 1)}
        for method, clip in methods.items():
            of_frames, of_sequence = scores.clip_scores(clip, sharp, blur, recording.exposures, names, lpips_vgg=vgg)
            totals.setdefault(method, []).append(metrics.sequence_mean(of_frames) | of_sequence)
        for group in GROUPS:
            if set(group) <= set(names):
                clock = time.perf_counter if group == ("vmaf_neg",) else time.process_time
                for _ in range(parsed.rounds):
                    began = clock()
                    scores.clip_scores(methods["spikevrt_tiny"], sharp, blur, recording.exposures, group, lpips_vgg=vgg)
                    costs.setdefault(group, []).append(clock() - began)
    print("| metric |", " | ".join(totals), "|\n| --- |" + " ---: |" * len(totals))
    means = [metrics.total_mean(rows) for rows in totals.values()]
    for name in names:
        print(f"| `{name}` |", " | ".join(f"{mean[name]:.4g}" for mean in means), "|")
    print("\n| metrics of one clip | ms |\n| --- | ---: |")
    for group, seconds in costs.items():
        print(f"| {', '.join(group)} | {1000 * min(seconds):.0f} |")


if __name__ == "__main__":
    main()
