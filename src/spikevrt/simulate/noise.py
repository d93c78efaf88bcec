"""Normal noise that is the same bits on every machine.

A library's own normal numbers go through logarithms and sines, whose last bits differ from processor to processor.
Here a whole number of 16 bits, which a generator gives alike everywhere, chooses a quantile from a table.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

QUANTILES = 1 << 16
_UNIT = 1 << 20  # one over the smallest difference of two values


def normal(shape: Sequence[int], generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """Numbers of mean 0 and standard deviation 1 (to 2e-4), at most 4.33, float32."""
    return _table()[torch.randint(QUANTILES, tuple(shape), generator=generator)]


@functools.cache
def _table() -> Float[Tensor, " quantiles"]:
    """The quantiles in the middle of each of the equally likely parts."""
    standard = NormalDist()
    half = [round(standard.inv_cdf((k + 0.5) / QUANTILES) * _UNIT) / _UNIT for k in range(QUANTILES // 2)]
    return torch.tensor(half + [-value for value in reversed(half)], dtype=torch.float32)
