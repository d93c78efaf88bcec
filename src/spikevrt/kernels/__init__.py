"""Which kernels run: the environment variable SPIKEVRT_KERNELS, read in one place.

`auto` (the default): Triton where the tensors are on a GPU and triton is installed. `triton`: Triton or an error; with
TRITON_INTERPRET=1 on CPU tensors too, slowly, which is how the kernels are tested without a GPU. `torch`: never Triton.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

VARIABLE = "SPIKEVRT_KERNELS"
CHOICES = ("auto", "triton", "torch")


def _constant(function: Callable[..., Any]) -> Callable[..., Any]:
    """torch.compile takes the answer as it is when it compiles: what `torch.compiler.assume_constant_result` does,
    without the compiler, whose import takes as long as that of the rest of torch."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@_constant
def chosen() -> str:
    """The value of the variable.

    Raises:
        ValueError: an unknown value, or `triton` where it is not installed.
    """
    choice = os.environ.get(VARIABLE, "auto")
    if choice not in CHOICES:
        raise ValueError(f"{VARIABLE}: {choice!r}; allowed: {', '.join(CHOICES)}")
    if choice == "triton" and not installed():
        raise ValueError(f"{VARIABLE}: 'triton', but triton is not installed here (pip install 'spikevrt[kernels]')")
    return choice


@_constant
def installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@_constant
def interpreted() -> bool:
    """Whether Triton's kernels run in its interpreter, on CPU tensors. Triton asks when it is imported."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def use_triton(x: Tensor, *, repeatable: bool = True) -> bool:
    """Whether to run the Triton kernel on `x`. `repeatable` tells whether it gives the same bits every time.

    Raises:
        ValueError: `triton` is demanded for what it cannot do: CPU tensors without the interpreter, or a kernel that is
            not repeatable while torch is asked for deterministic algorithms.
    """
    choice = chosen()
    if choice == "torch" or x.is_meta:
        return False
    allowed = repeatable or not torch.are_deterministic_algorithms_enabled()
    if choice == "auto":
        return x.is_cuda and installed() and allowed
    if not x.is_cuda and not interpreted():
        raise ValueError(f"{VARIABLE}: 'triton', but the tensors are on {x.device.type}; allowed here: auto, torch")
    if not allowed:
        raise ValueError(f"{VARIABLE}: 'triton' adds gradients in any order; with train.deterministic: auto, torch")
    return True


def dot_precision() -> str:
    """How the matrix units take float32: rounded to TF32 where torch may do so too, else in three parts, nearly exact.

    Exact products ("ieee") run on no matrix unit, and a compiler that is asked for them spills most of its registers.
    """
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"
