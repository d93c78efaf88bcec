"""Does a restored clip move as the true one does? tOF, over pairs of neighbouring frames.

Dimension key: T frames, H rows, W columns; the 3 channels are R, G, B.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from spikevrt.evaluate.metrics import eight_bit

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8


def tof(restored: Float[Tensor, "T 3 H W"], sharp: Float[Tensor, "T 3 H W"]) -> Float[Tensor, " T-1"]:
    """How far the motion from each frame to the next is from the true motion: mean over the pixels, in pixels a frame.

    At each pixel, the length of the difference of two optical flows: that of the restored frames, and that of the sharp
    ones. Flow: Farnebäck's, of the 8-bit pictures in grey (BT.601), by OpenCV with pyramid scale 0.5, 3 levels, window
    15, 3 iterations, polynomials over 5 pixels with sigma 1.2. Nothing is cut, no frame left out, nothing scaled.

    Raises:
        ValueError: the shapes differ, a value is not finite, clips of one frame, or OpenCV is not installed.

    Source: Chu et al., TecoGAN, SIGGRAPH 2020. Its code leaves out borders and the first and last two frames.
    """
    try:
        import cv2
    except ImportError:
        raise ValueError("tof needs OpenCV; install spikevrt[metrics]") from None
    if len(restored) < 2:
        raise ValueError("tof of a clip of 1 frame; allowed: 2 or more, it compares neighbours")
    grey = [[_grey(cv2, frame) for frame in clip] for clip in eight_bit(restored, sharp)]
    values = []
    for t in range(len(restored) - 1):
        found, true = (
            cv2.calcOpticalFlowFarneback(clip[t], clip[t + 1], np.zeros((*clip[t].shape, 2), np.float32), **FARNEBACK)
            for clip in grey
        )
        values.append(float(np.linalg.norm(found - true, axis=-1).mean(dtype=np.float64)))
    return torch.tensor(values, dtype=torch.float64)


FARNEBACK: dict[str, Any] = {
    "pyr_scale": 0.5,
    "levels": 3,
    "winsize": 15,
    "iterations": 3,
    "poly_n": 5,
    "poly_sigma": 1.2,
    "flags": 0,
}


def _grey(cv2: Any, frame: Float[Tensor, "3 H W"]) -> UInt8[np.ndarray, "H W"]:
    image = frame.permute(1, 2, 0).byte().contiguous().numpy()
    grey: np.ndarray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return grey
