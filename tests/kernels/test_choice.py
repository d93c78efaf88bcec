"""The switch SPIKEVRT_KERNELS."""

from __future__ import annotations

import pytest
import torch

from spikevrt import kernels
from spikevrt.kernels import use_triton

X = torch.zeros(2)


@pytest.fixture(autouse=True)
def no_interpreter(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.delenv("SPIKEVRT_KERNELS", raising=False)


class OnGpu:
    """Looks as if it lay on a GPU."""

    is_cuda, is_meta, device = True, False, torch.device("cuda")


@pytest.mark.parametrize(
    ("value", "there", "expected"), [("auto", True, True), ("auto", False, False), ("torch", True, False)]
)
def test_on_a_gpu_triton_runs_where_it_is_installed_and_not_forbidden(monkeypatch, value, there, expected):
    monkeypatch.setenv("SPIKEVRT_KERNELS", value)
    monkeypatch.setattr(kernels, "installed", lambda: there)
    assert use_triton(OnGpu()) is expected


def test_on_a_cpu_triton_runs_only_if_demanded_and_interpreted(monkeypatch):
    monkeypatch.setattr(kernels, "installed", lambda: True)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert not use_triton(X)
    monkeypatch.setenv("SPIKEVRT_KERNELS", "triton")
    assert use_triton(X)
    assert not use_triton(X.to("meta"))  # where shapes are counted there is nothing to run


def test_under_deterministic_algorithms_a_kernel_that_is_not_repeatable_gives_way(monkeypatch):
    monkeypatch.setattr(kernels, "installed", lambda: True)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert use_triton(OnGpu())
    assert not use_triton(OnGpu(), repeatable=False)


def test_an_unknown_value_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv("SPIKEVRT_KERNELS", "cuda")
    with pytest.raises(ValueError, match="^SPIKEVRT_KERNELS: 'cuda'; allowed: auto, triton, torch$"):
        use_triton(X)


def test_triton_demanded_and_not_installed_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv("SPIKEVRT_KERNELS", "triton")
    monkeypatch.setattr(kernels, "installed", lambda: False)
    with pytest.raises(ValueError, match="^SPIKEVRT_KERNELS: 'triton', but triton is not installed here"):
        use_triton(OnGpu())


def test_triton_demanded_for_cpu_tensors_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv("SPIKEVRT_KERNELS", "triton")
    monkeypatch.setattr(kernels, "installed", lambda: True)
    with pytest.raises(
        ValueError, match="^SPIKEVRT_KERNELS: 'triton', but the tensors are on cpu; allowed here: auto, torch$"
    ):
        use_triton(X)


def test_triton_demanded_with_deterministic_algorithms_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv("SPIKEVRT_KERNELS", "triton")
    monkeypatch.setattr(kernels, "installed", lambda: True)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    with pytest.raises(ValueError, match="^SPIKEVRT_KERNELS: 'triton' adds gradients in any order"):
        use_triton(OnGpu(), repeatable=False)


def test_a_compiled_function_asks_without_a_graph_break():
    def where(x):
        return x + 1 if use_triton(x) else x + 2

    compiled = torch.compile(where, fullgraph=True, backend="eager")
    assert compiled(X).tolist() == [2, 2]
