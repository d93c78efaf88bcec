"""Runs the kernels' tests in Triton's interpreter, in a process of its own (conftest.py says why)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="this is that process")
def test_the_kernels_pass_their_tests_in_the_interpreter():
    pytest.importorskip("triton")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "SPIKEVRT_KERNELS"))}
    environment |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    files = [str(HERE / name) for name in ("test_frame_attention.py", "test_deform_conv.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    summary = run.stdout.strip().splitlines()[-1]
    assert re.search(r"[1-9]\d* passed", summary) and "skipped" not in summary, summary
