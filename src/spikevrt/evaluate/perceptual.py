"""How different restored frames look: LPIPS, frame by frame and from frame to frame (tLP), and FLIP.

All three see the 8-bit pictures that would be written, as `metrics` does.

Dimension key: T frames, H rows, W columns; the 3 channels are R, G, B.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from spikevrt.evaluate.metrics import eight_bit
from spikevrt.lpips import VGG16, Lpips

if TYPE_CHECKING:
    from jaxtyping import Float

PIXELS_PER_DEGREE = 67.0  # a screen of 3840 pixels and 0.7 m, seen from 0.7 m: what FLIP takes where nothing is said


@functools.cache
def lpips_network(vgg_file: Path | None = None) -> Lpips:
    """LPIPS with AlexNet, whose weights ship; with `vgg_file`, with VGG-16. Read once in the life of a process.

    Raises:
        FileNotFoundError, ValueError: no weights of VGG-16 in `vgg_file` (see `Lpips`).
    """
    return Lpips() if vgg_file is None else Lpips(vgg_file, VGG16)


@torch.no_grad()
def lpips_scores(
    network: Lpips, restored: Float[Tensor, "T 3 H W"], sharp: Float[Tensor, "T 3 H W"]
) -> tuple[Float[Tensor, " T"], Float[Tensor, " T-1"]]:
    """(LPIPS of each restored frame and its sharp frame, tLP of each pair of neighbouring frames).

    tLP = | LPIPS(restored t, restored t + 1) - LPIPS(sharp t, sharp t + 1) |: does the clip change from frame to frame
    as much as the true one does? Not scaled. Every frame goes through the network once; a clip of one frame has no tLP.

    Raises:
        ValueError: the shapes differ, a value is not finite, or a side is too short for the network.

    Source: LPIPS: Zhang et al., CVPR 2018. tLP: Chu et al., Learning Temporal Coherence via Self-Supervision for
    GAN-based Video Generation (TecoGAN), SIGGRAPH 2020; its code prints 100 times this value.
    """
    restored, sharp = eight_bit(restored, sharp)
    distances, changes = [], []
    before: list[Tensor] = []
    for both in torch.stack((restored, sharp), 1):  # one pair at a time: memory does not grow with the clip
        features = network.features((both / 255).float())
        distances.append(network.distance([f[:1] for f in features], [f[1:] for f in features]))
        if before:
            change = network.distance(before, features)
            changes.append((change[:1] - change[1:]).abs())
        before = features
    return torch.cat(distances), torch.cat(changes) if changes else torch.zeros(0)


def flip(restored: Float[Tensor, "T 3 H W"], sharp: Float[Tensor, "T 3 H W"]) -> Float[Tensor, " T"]:
    """Mean LDR-FLIP of each frame, in [0, 1], 0 for equal frames: what an eye sees when the two pictures alternate.

    At 67 pixels a degree, by the authors' own package. The frames are sRGB.

    Raises:
        ValueError: the shapes differ, a value is not finite, or the package flip-evaluator is not installed.

    Source: Andersson et al., FLIP: A Difference Evaluator for Alternating Images, HPG 2020.
    """
    try:
        import flip_evaluator
    except ImportError:
        raise ValueError("flip needs the package flip-evaluator; install spikevrt[metrics]") from None
    settings = {"ppd": PIXELS_PER_DEGREE}
    values = []
    for pair in zip(*eight_bit(restored, sharp), strict=True):
        test, reference = (np.ascontiguousarray((x / 255).float().permute(1, 2, 0).numpy()) for x in pair)
        _, mean, _ = flip_evaluator.evaluate(reference, test, "LDR", applyMagma=False, parameters=settings)
        values.append(mean)
    return torch.tensor(values, dtype=torch.float64)
