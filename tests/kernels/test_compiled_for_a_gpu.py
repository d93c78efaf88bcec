"""The kernels, with the arguments they are launched with, go through Triton's compiler for a GPU that is not there.

The interpreter takes Python that the compiler refuses (a name that changes its shape in a loop), and knows no limits.
"""

from __future__ import annotations

import os

import pytest
import torch

from spikevrt.kernels.operators import TemporalWeights

SHARED_MEMORY_BYTES = 227 * 1024  # what one program may use on an H100 or H200
DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16"}

pytestmark = [
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing"),
    pytest.mark.slow,
]


class Launches:
    """Stands in for a kernel and keeps what it is launched with."""

    def __init__(self, kernel):
        self.kernel, self.arguments = kernel, None

    def __getitem__(self, grid):
        def launch(*arguments, **constants):
            self.arguments = arguments, constants

        return launch

    def compiled(self):
        from triton import compile as triton_compile
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        positional, constants = self.arguments
        options = {name: constants.pop(name) for name in ("num_warps", "num_stages")}
        names = [parameter.name for parameter in self.kernel.params]
        signature, aligned = {}, {}
        for index, (name, value) in enumerate(zip(names, positional, strict=False)):
            if isinstance(value, torch.Tensor):
                signature[name], aligned[index,] = f"*{DTYPES[value.dtype]}", [["tt.divisibility", 16]]
            else:
                signature[name] = "fp32" if isinstance(value, float) else "i32"
        signature |= dict.fromkeys(names[len(positional) :], "constexpr")
        source = ASTSource(self.kernel, signature, {(names.index(n),): v for n, v in constants.items()}, aligned)
        return triton_compile(source, target=GPUTarget("cuda", 90, 32), options=options)


@pytest.fixture(autouse=True)
def fresh_cache(monkeypatch, tmp_path):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def check(compiled, dtype):
    assert compiled.metadata.shared <= SHARED_MEMORY_BYTES
    units = compiled.asm["ptx"].count("wgmma.mma_async") + compiled.asm["ptx"].count("mma.sync")
    assert units > 0, "its products do not run on the matrix units"
    assert len(compiled.asm["cubin"]) > 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_temporal_attention_compiles_at_the_reference_width(monkeypatch, dtype):
    from spikevrt.kernels import frame_attention_triton as kernels

    launches = Launches(kernels.temporal_kernel)
    monkeypatch.setattr(kernels, "temporal_kernel", launches)
    c = 96
    shapes = [(c,)] * 4 + [(c, c), (c,), (2 * c, c), (2 * c,), (c, c), (c,), (c,), (c,), (2 * c, c), (2 * c,)]
    shapes += [(c, 2 * c), (c,)]
    weights = TemporalWeights(
        *(
            torch.zeros(shape, dtype=torch.float32 if name.startswith("norm") else dtype)
            for name, shape in zip(TemporalWeights._fields, shapes, strict=True)
        )
    )
    x = torch.zeros(1, 12, 7, c, dtype=dtype)
    kernels.forward(x, x.clone(), torch.zeros(4, 12, 12), weights, 4)
    check(launches.compiled(), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["forward_kernel", "backward_input_kernel", "backward_weight_kernel"])
def test_deformable_convolution_compiles_at_the_reference_width(monkeypatch, name, dtype):
    from spikevrt.kernels import deform_conv_triton as kernels

    launches = Launches(getattr(kernels, name))
    monkeypatch.setattr(kernels, name, launches)
    x = torch.zeros(1, 96, 5, 7, dtype=dtype)
    offset, mask = torch.zeros(1, 16, 9, 2, 5, 7), torch.zeros(1, 16, 9, 5, 7)
    weight, bias = torch.zeros(96, 96, 3, 3), torch.zeros(96)
    if name == "forward_kernel":
        kernels.forward(x, offset, mask, weight, bias)
    elif name == "backward_input_kernel":
        kernels.backward_input(x, x, offset, mask, weight)
    else:
        kernels.backward_weight(x, x, offset, mask, weight)
    check(launches.compiled(), dtype)
