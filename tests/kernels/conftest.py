"""Where the kernels' tests run: on a GPU where there is one, else in Triton's interpreter, in a process of its own.

Triton reads TRITON_INTERPRET once, when it is imported, so the interpreter cannot be switched on for some tests of a
process. `test_interpreter.py` runs this folder again with it; in the first run the tests that need it are skipped.
"""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> str:
    """A device on which Triton's kernels run."""
    pytest.importorskip("triton")
    monkeypatch.setenv("SPIKEVRT_KERNELS", "triton")
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip("no GPU; run under the interpreter by test_interpreter.py")
    return "cuda"
