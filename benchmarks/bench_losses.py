"""What does each term of the loss cost, and how exact is re-blurring? `python benchmarks/bench_losses.py [--rounds N]`

Cost: forward and backward of one term alone, for one clip of 5x256x256, float32; the flow of the re-blur term is the
tiny network's SpyNet with random weights. Medians over the rounds, the terms in turn.

Exactness: a shipped photograph, taken as four pixels to one, passes by steadily; its exposures are the exact means over
all quarter pixels of the way, in linear light. `reblur` gets the true middle frames and the true flow, and is compared
with the exposures (8 bits not rounded) where the way stays inside the picture.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from spikevrt.config import LossConfig
from spikevrt.light import image_to_linear, linear_to_srgb
from spikevrt.losses import Losses, reblur
from spikevrt.model.flow import SpyNet
from spikevrt.recording.frames import read_image

PHOTO = Path(__file__).resolve().parents[1] / "src" / "spikevrt" / "assets" / "bridge.jpg"
FINE = 4  # photograph pixels to a pixel
DUTY = 0.5
CONVS = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256)}


def random_vgg(folder: str) -> str:
    """A file of VGG-19's shape with random weights: time does not depend on the values."""
    state = {}
    for index, (out_channels, in_channels) in CONVS.items():
        state[f"features.{index}.weight"] = (
            torch.randn(out_channels, in_channels, 3, 3) * (2 / (9 * in_channels)) ** 0.5
        )
        state[f"features.{index}.bias"] = torch.zeros(out_channels)
    torch.save(state, f"{folder}/vgg19.pth")
    return f"{folder}/vgg19.pth"


def costs(rounds: int) -> dict[str, float]:
    """Milliseconds of every term by name."""
    torch.manual_seed(1)
    spynet = SpyNet((8, 16, 8, 8)).requires_grad_(False)
    restored, blur, sharp = (torch.rand(1, 5, 3, 256, 256) for _ in range(3))
    off = LossConfig(perceptual_weight=0.0)
    with tempfile.TemporaryDirectory() as folder:
        configs = {
            "charbonnier": off,
            "edge": replace(off, edge_weight=1.0),
            "fft": replace(off, fft_weight=1.0),
            "reblur": replace(off, reblur_weight=1.0),
            "lpips": replace(off, lpips_weight=1.0),
            "perceptual": LossConfig(perceptual_file=random_vgg(folder)),
        }
        losses = {name: Losses(config, lambda a, b: spynet(a, b)[0]) for name, config in configs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(rounds + 1):
        for name, module in losses.items():
            x = restored.clone().requires_grad_()
            began = time.perf_counter()
            sum(module(x, blur, sharp, torch.full((1, 5), DUTY)).values()).backward()
            seconds[name].append(time.perf_counter() - began)
    medians = {name: 1e3 * statistics.median(times[1:]) for name, times in seconds.items()}
    return {name: ms - (0 if name == "charbonnier" else medians["charbonnier"]) for name, ms in medians.items()}


def exposures(path_px: int) -> tuple[Tensor, Tensor]:
    """Three sharp frames and their exposures of `path_px` pixels each, (1, 3, 3, H, W); the scene moves to the left."""
    light, width, fine_path = image_to_linear(read_image(PHOTO)), 640, path_px * FINE
    step = int(fine_path / DUTY)

    def seen(start: int) -> Tensor:
        return F.avg_pool2d(light[:, 40:680, start : start + width], FINE)

    sharp, blurry = [], []
    for frame in range(3):
        middle = 320 + (frame - 1) * step
        way = range(middle - fine_path // 2, middle + fine_path // 2 + 1)
        weights = torch.ones(len(way))
        weights[0] = weights[-1] = 0.5  # both ends are half inside
        mean = sum(weight * seen(start) for weight, start in zip(weights / weights.sum(), way, strict=True))
        sharp.append(linear_to_srgb(seen(middle)))
        blurry.append(linear_to_srgb(mean))
    return torch.stack(sharp)[None], torch.stack(blurry)[None]


def psnr(x: Tensor, y: Tensor, border: int) -> float:
    return float(-10 * torch.log10((x - y)[..., border:-border].square().mean()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| term | ms | of Charbonnier |\n| --- | ---: | ---: |")
    found = costs(rounds)
    for name, ms in found.items():
        print(f"| {name} | {ms:.1f} | {ms / found['charbonnier']:.1f}x |")
    times = (3, 5, 9, 17, 33)
    print("\n| way in the exposure, px | sharp as it is | " + " | ".join(f"{n} times" for n in times) + " |")
    print("| ---: |" + " ---: |" * (1 + len(times)))
    for path_px in (2, 4, 8, 16, 32):
        sharp, blurry = exposures(path_px)

        def to_the_left(first: Tensor, second: Tensor, px: float = path_px / DUTY) -> Tensor:
            sign = -1 if torch.equal(first[0], sharp[0, 0]) else 1  # noqa: B023
            return torch.tensor([sign * px, 0.0]).view(1, 2, 1, 1).expand(len(first), 2, *first.shape[-2:])

        scores = [
            psnr(reblur(sharp, to_the_left, torch.full((1, 3), DUTY), num_times=n), blurry, 1 + path_px // 2)
            for n in times
        ]
        plain = psnr(sharp, blurry, 1 + path_px // 2)
        print(f"| {path_px} | {plain:.1f} | " + " | ".join(f"{score:.1f}" for score in scores) + " |")


if __name__ == "__main__":
    main()
