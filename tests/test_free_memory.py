from __future__ import annotations

from pathlib import Path

import torch

from spikevrt.free_memory import free_bytes

KB = 1024
CPU = torch.device("cpu")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_free_memory_is_what_the_kernel_calls_available(tmp_path: Path):
    write(tmp_path / "proc/meminfo", "MemTotal: 9 kB\nMemAvailable:    3 kB\n")
    assert free_bytes(CPU, tmp_path) == 3 * KB


def test_free_memory_is_less_under_a_limit_of_any_control_group_above(tmp_path: Path):
    write(tmp_path / "proc/meminfo", "MemAvailable:    100 kB\n")
    write(tmp_path / "proc/self/cgroup", "0::/outer/inner\n")
    write(tmp_path / "sys/fs/cgroup/outer/memory.max", f"{50 * KB}\n")
    write(tmp_path / "sys/fs/cgroup/outer/memory.current", f"{40 * KB}\n")
    write(tmp_path / "sys/fs/cgroup/outer/memory.stat", f"anon 5\ninactive_file {7 * KB}\n")
    write(tmp_path / "sys/fs/cgroup/outer/inner/memory.max", "max\n")
    write(tmp_path / "sys/fs/cgroup/outer/inner/memory.current", "1\n")
    assert free_bytes(CPU, tmp_path) == 17 * KB


def test_free_memory_knows_the_older_control_groups(tmp_path: Path):
    write(tmp_path / "proc/meminfo", "MemAvailable:    100 kB\n")
    write(tmp_path / "proc/self/cgroup", "4:memory:/job\n2:cpu:/job\n")
    write(tmp_path / "sys/fs/cgroup/memory/job/memory.limit_in_bytes", f"{20 * KB}\n")
    write(tmp_path / "sys/fs/cgroup/memory/job/memory.usage_in_bytes", f"{4 * KB}\n")
    assert free_bytes(CPU, tmp_path) == 16 * KB


def test_where_the_system_does_not_tell_there_is_no_answer(tmp_path: Path):
    assert free_bytes(CPU, tmp_path) is None
