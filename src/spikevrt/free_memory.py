"""How much memory this process holds, and how much it may still take."""

from __future__ import annotations

from pathlib import Path

import torch

from spikevrt import runtime


def held_bytes(device: torch.device) -> int:
    """What this process holds now: resident, or (CUDA) allocated by torch."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    status = Path("/proc/self/status")
    if not status.is_file():
        return runtime.peak_memory_bytes(device)
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


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
        inside = path.strip("/")  # every group above has its say; inside a container the path may not exist
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
