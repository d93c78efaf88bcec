import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from spikevrt import runtime

CPU = torch.device("cpu")
KB = 1024

FAULTS = """
import resource, sys, torch
from spikevrt import runtime
torch.set_num_threads(1)
if sys.argv[1] == "tuned":
    assert runtime.tune_allocator()
def allocate(times):
    for _ in range(times):
        torch.empty(50 * 2**18).fill_(1.0)  # 50 MiB
allocate(10)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
allocate(10)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_the_same_seed_gives_the_same_numbers_from_torch_and_numpy():
    draws = []
    for _ in range(2):
        runtime.seed_everything(5)
        draws.append((torch.rand(3).tolist(), np.random.rand(3).tolist()))  # noqa: NPY002
    assert draws[0] == draws[1]


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match=r"seed: -1; allowed: 0 to 4294967295"):
        runtime.seed_everything(-1)


def test_an_unknown_device_is_refused():
    with pytest.raises(ValueError, match=r"device: 'tpu'; allowed: auto, cpu, cuda"):
        runtime.pick_device("tpu")  # type: ignore[arg-type]


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runtime.pick_device("auto") == CPU
    with pytest.raises(ValueError, match=r"device: 'cuda', but torch sees no CUDA device here"):
        runtime.pick_device("cuda")


def test_bf16_autocast_multiplies_in_bf16_and_fp32_does_not():
    x = torch.ones(2, 2)
    with runtime.autocast(CPU, "bf16"):
        assert (x @ x).dtype == torch.bfloat16
    with runtime.autocast(CPU, "fp32"):
        assert (x @ x).dtype == torch.float32


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"precision: 'int8'; allowed: fp32, bf16, fp16"):
        runtime.autocast(CPU, "int8")


def test_fp16_multiplies_in_fp16_on_a_cpu_too():
    x = torch.ones(2, 2)
    with runtime.autocast(CPU, "fp16"):
        assert (x @ x).dtype == torch.float16


PEAK_OF_A_CLEAN_PROCESS = """
import numpy as np, torch
from spikevrt import runtime
cpu = torch.device("cpu")
np.ones(300_000_000, dtype=np.uint8)
runtime.reset_peak_memory(cpu)
before = runtime.peak_memory_bytes(cpu)
block = np.ones(100_000_000, dtype=np.uint8)
print(runtime.peak_memory_bytes(cpu) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak")
@pytest.mark.slow
def test_the_peak_after_a_reset_counts_what_is_allocated_after_it():
    # in its own process: here an earlier test may have left freed memory resident, which the block would reuse
    answer = subprocess.run([sys.executable, "-c", PEAK_OF_A_CLEAN_PROCESS], capture_output=True, text=True, check=True)
    assert 90_000_000 < int(answer.stdout) < 110_000_000  # the pages of `block`; without a reset it would be 0


def test_the_environment_is_plain_and_names_versions_and_commit(monkeypatch):
    monkeypatch.setattr(runtime, "git_commit", lambda: "abc-dirty")
    found = runtime.environment(torch.device("cpu"))
    assert found["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert found["commit"] == "abc-dirty"


def test_a_machine_without_git_has_no_commit(monkeypatch):
    def missing(*args, **options):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    runtime.git_commit.cache_clear()
    assert runtime.git_commit() is None
    runtime.git_commit.cache_clear()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_a_tuned_allocator_reuses_a_50_mib_block_instead_of_faulting_it_in_again():
    faults = {}
    for mode in ("plain", "tuned"):
        run = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True)
        faults[mode] = int(run.stdout)
    assert faults["plain"] > 10 * 1000  # at least 1000 faults a block, whatever the page size up to 50 kB
    assert faults["tuned"] < faults["plain"] / 50


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
@pytest.mark.slow
def test_memory_that_was_freed_is_handed_back():
    """In a process of its own, whose allocator keeps what is freed."""
    code = """
import torch
from spikevrt import runtime
cpu = torch.device("cpu")
runtime.tune_allocator()
pieces = [torch.ones(250_000) for _ in range(200)]  # 200 MB
del pieces
before = runtime.held_bytes(cpu)
assert runtime.release_memory()
print(before - runtime.held_bytes(cpu))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(done.stdout) > 150_000_000


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_free_memory_is_what_the_kernel_calls_available(tmp_path: Path):
    write(tmp_path / "proc/meminfo", "MemTotal: 9 kB\nMemAvailable:    3 kB\n")
    assert runtime.free_bytes(CPU, tmp_path) == 3 * KB


def test_free_memory_is_less_under_a_limit_of_any_control_group_above(tmp_path: Path):
    write(tmp_path / "proc/meminfo", "MemAvailable:    100 kB\n")
    write(tmp_path / "proc/self/cgroup", "0::/outer/inner\n")
    write(tmp_path / "sys/fs/cgroup/outer/memory.max", f"{50 * KB}\n")
    write(tmp_path / "sys/fs/cgroup/outer/memory.current", f"{40 * KB}\n")
    write(tmp_path / "sys/fs/cgroup/outer/memory.stat", f"anon 5\ninactive_file {7 * KB}\n")
    write(tmp_path / "sys/fs/cgroup/outer/inner/memory.max", "max\n")
    write(tmp_path / "sys/fs/cgroup/outer/inner/memory.current", "1\n")
    assert runtime.free_bytes(CPU, tmp_path) == 17 * KB


def test_free_memory_knows_the_older_control_groups(tmp_path: Path):
    write(tmp_path / "proc/meminfo", "MemAvailable:    100 kB\n")
    write(tmp_path / "proc/self/cgroup", "4:memory:/job\n2:cpu:/job\n")
    write(tmp_path / "sys/fs/cgroup/memory/job/memory.limit_in_bytes", f"{20 * KB}\n")
    write(tmp_path / "sys/fs/cgroup/memory/job/memory.usage_in_bytes", f"{4 * KB}\n")
    assert runtime.free_bytes(CPU, tmp_path) == 16 * KB


def test_where_the_system_does_not_tell_there_is_no_answer(tmp_path: Path):
    assert runtime.free_bytes(CPU, tmp_path) is None
