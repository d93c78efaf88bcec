"""The machine underneath: device, precision, seeds, memory, and what to write down about all of them.

Nothing here knows what SpikeVRT computes; everything else asks here instead of asking the platform.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import importlib.metadata
import os
import platform
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# glibc, malloc.h: the keys of mallopt
M_MXFAST, M_TRIM_THRESHOLD, M_MMAP_MAX = 1, -1, -4


def named_function(text: str, name: str) -> Callable[..., Any]:
    """The function or class that `text`, MODULE:FUNCTION, names. Importing it runs the module; modules of the working
    folder are found too, as `python -m` does, and a console script does not.

    Raises:
        ValueError: `name: text: ...` where there is no such module or function, or importing it fails.
    """
    if re.fullmatch(r"\w+(\.\w+)*:\w+", text) is None:
        raise ValueError(f"{name}: {text!r}; allowed: MODULE:FUNCTION")
    module, _, attribute = text.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # whatever goes wrong in somebody else's code is told in a line
        raise ValueError(f"{name}: {text!r}: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise ValueError(f"{name}: {text!r}: {attribute} is no function")
    return function


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (all devices); `seed` is in [0, 2**32)."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed: {seed}; allowed: 0 to {2**32 - 1}")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (the global generator is what is seeded here)
    torch.manual_seed(seed)


def pick_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device of that name; `auto` is CUDA where there is one.

    Raises:
        ValueError: an unknown name, or `cuda` on a machine without it.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device: {name!r}; allowed: auto, cpu, cuda")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ValueError("device: 'cuda', but torch sees no CUDA device here; allowed: auto, cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision as a context: `fp32` (none), `bf16` or `fp16`. (On a CPU the last two save memory, hardly time.)

    Raises:
        ValueError: an unknown precision.
    """
    if precision == "fp32":
        return contextlib.nullcontext()
    if precision not in AUTOCAST_DTYPES:
        raise ValueError(f"precision: {precision!r}; allowed: fp32, bf16, fp16")
    return torch.autocast(device.type, dtype=AUTOCAST_DTYPES[precision])


def make_deterministic(device: torch.device) -> None:
    """Ask torch for kernels that give the same bits every time, for the rest of this process. A CPU's always do.

    Raises:
        ValueError: on a GPU, without the environment variable that cuBLAS reads when it starts.
    """
    if device.type == "cuda":
        if os.environ.get("CUBLAS_WORKSPACE_CONFIG") not in (":4096:8", ":16:8"):
            raise ValueError("deterministic: on a GPU set the environment variable CUBLAS_WORKSPACE_CONFIG=:4096:8")
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished what was asked of it. Take no time without this (a CPU is always finished)."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement for `peak_memory_bytes`. On a CPU only Linux can; elsewhere the old peak stays."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory in bytes since the last reset: allocated by torch on CUDA, else resident in this whole process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = _status_bytes("VmHWM")
    if peak is not None:
        return peak
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def held_bytes(device: torch.device) -> int:
    """Bytes that this process holds now: allocated by torch on CUDA, else resident (its peak, off Linux)."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    held = _status_bytes("VmRSS")
    return peak_memory_bytes(device) if held is None else held


def _status_bytes(name: str) -> int | None:
    """That line of Linux's /proc/self/status, in bytes; None on another system."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.is_file() else []:
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def free_bytes(device: torch.device, root: Path = Path("/")) -> int | None:
    """Memory that this process may still take; None where the system does not tell (no Linux, no CUDA).

    On a CPU the kernel's MemAvailable, or less where a control group (v1 or v2) has a lower limit.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + cached)
    meminfo = root / "proc/meminfo"
    if not meminfo.is_file():
        return None
    (line,) = [line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:")]
    free = int(line.split()[1]) * 1024
    for folder, limit_name, used_name in _control_groups(root):
        limit, used = folder / limit_name, folder / used_name
        if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
            free = min(free, int(limit.read_text()) - int(used.read_text()) + _cached_files(folder))
    return max(free, 0)


def _control_groups(root: Path) -> list[tuple[Path, str, str]]:
    """Folders of the memory control groups that this process is in, with the names of the limit and of the use."""
    listed = root / "proc/self/cgroup"
    folders = []
    for line in listed.read_text().splitlines() if listed.is_file() else []:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, names = root / "sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            mount, names = root / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        inside = path.strip("/")  # every group above may set a limit; inside a container the path may not exist
        parts = inside.split("/") if inside else []
        folders += [(mount.joinpath(*parts[:depth]), *names) for depth in range(len(parts) + 1)]
    return folders


def _cached_files(folder: Path) -> int:
    """Files that the kernel keeps in memory for this group and drops when the memory is needed."""
    statistic = folder / "memory.stat"
    for line in statistic.read_text().splitlines() if statistic.is_file() else []:
        if line.startswith(("total_inactive_file ", "inactive_file ")):
            return int(line.split()[1])
    return 0


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number; packages not installed are left out."""
    found = {"python": platform.python_version()}
    for name in ("spikevrt", "torch", "numpy", "safetensors", "av", "pillow", "torchao"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@functools.cache  # the code that runs is the code that stood there when it was asked first
def git_commit() -> str | None:
    """The commit of this source tree, with `-dirty` after it when tracked files differ; None when it is no git tree."""
    here = Path(__file__).resolve()
    git = ["git", "--no-optional-locks", "-C", str(here.parent)]
    try:
        tracked = subprocess.run([*git, "ls-files", "--error-unmatch", here.name], capture_output=True, timeout=10)
        if tracked.returncode:  # installed inside somebody else's repository
            return None
        describe = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        answer = subprocess.run(describe, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def environment(device: torch.device) -> dict[str, Any]:
    """What a run on `device` writes beside its results: versions, commit, machine. Plain values, ready for JSON."""
    cuda = device.type == "cuda"
    return {
        "versions": versions(),
        "commit": git_commit(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine(),
        "num_threads": torch.get_num_threads(),
        "command": sys.argv,
    }


def tune_allocator() -> bool:
    """Keep freed memory in this process instead of handing it back to the kernel, which must then zero it anew.

    Transformer activations are tens of megabytes each; glibc maps and unmaps every one of them, and the page faults
    cost more than the arithmetic on small machines. After this call they are reused. Only glibc is changed; returns
    whether anything was. Call it once, early. The process keeps its peak size until it ends.

    Small pieces that glibc sets aside for later keep large ones around them from joining. Here that is switched off for
    one of its two stores; the other one (tcache) only the environment can switch off, before the process starts, which
    the command line does (`cli.py`). What all of it saves: benchmarks/model_cpu_*.md.
    """
    if sys.platform != "linux":
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt = libc.mallopt
    except (OSError, AttributeError):  # musl
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    mallopt(M_MXFAST, 0)
    never_trim = mallopt(M_TRIM_THRESHOLD, -1)
    never_map = mallopt(M_MMAP_MAX, 0)
    return bool(never_trim and never_map)


def release_memory() -> bool:
    """Hand freed memory back to the kernel once, between two parts of a work that need different sizes of it.

    What `tune_allocator` keeps from the first part lies in pieces that the second can hardly use. Returns whether any
    was handed back.
    """
    if sys.platform != "linux":
        return False
    try:
        return bool(ctypes.CDLL("libc.so.6").malloc_trim(0))
    except (OSError, AttributeError):  # musl
        return False
