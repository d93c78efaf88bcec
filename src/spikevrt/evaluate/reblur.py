"""Does a restored clip blur to the input again? Its frames, blurred along their own motion, against the blurry frames.

Dimension key: T frames, H rows, W columns; the 3 channels are R, G, B.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spikevrt.evaluate.metrics import eight_bit, psnr_rgb
from spikevrt.losses import dis_flow, exposure_duty, reblur

if TYPE_CHECKING:
    from jaxtyping import Float

    from spikevrt.recording.sidecar import Exposure

CHUNK_FRAMES = 16  # blurred at a time: memory does not grow with the clip


@torch.no_grad()
def reblur_psnr(
    restored: Float[Tensor, "T 3 H W"], blur: Float[Tensor, "T 3 H W"], exposures: Sequence[Exposure]
) -> Float[Tensor, " T"]:
    """PSNR in dB (as `psnr_rgb`) between each restored frame, blurred as its exposure would blur it, and the input.

    `losses.reblur` with 9 moments of the exposure in linear light; the motion is that between the restored frames
    themselves, by OpenCV's DIS, taken as steady through an exposure. It needs no sharp frames. More is not always
    better: where that motion is wrong, sharp frames blur to something else, and frames near the input, which blur
    little, score more than the truth. Read it against the truth's own value.

    Raises:
        ValueError: the shapes differ, a value is not finite, clips of one frame, or OpenCV is not installed.
    """
    assert len(exposures) == len(restored), (len(exposures), len(restored))
    if restored.shape != blur.shape:
        raise ValueError(f"reblur_psnr: restored {tuple(restored.shape)} and blur {tuple(blur.shape)} differ")
    if len(restored) < 2:
        raise ValueError("reblur_psnr of a clip of 1 frame; allowed: 2 or more, motion is seen between neighbours")
    pictures = (eight_bit(restored, blur)[0] / 255).float()
    duty = exposure_duty([[e.t0_s for e in exposures]], [[e.t1_s for e in exposures]])
    values = []
    for start in range(0, len(pictures), CHUNK_FRAMES):
        stop = min(start + CHUNK_FRAMES, len(pictures))
        first, last = (
            max(start - 1, 0),
            min(stop + 1, len(pictures)),
        )  # with a neighbour on each side, where there is one
        again = reblur(pictures[None, first:last], dis_flow, duty[:, first:last])[0, start - first : stop - first]
        values.append(psnr_rgb(again, blur[start:stop]))
    return torch.cat(values)
