"""The shapes in the signatures of the package are checked while tests run: all of them, and a wrong one is an error."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch

import spikevrt
from tests import checked_shapes
from tests.checked_shapes import ShapeError, num_shapes

NUM_CHECKED = 700  # at least
PACKAGE = Path(spikevrt.__file__).parent
SOURCE = """
from __future__ import annotations
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

def halves(x: Float[Tensor, " N"]) -> Iterator[Float[Tensor, " N/2"]]:
    yield x[: len(x) // 2]
    yield x

def mean(spikes_THW: UInt8[Tensor, "T H W"], *, num_bins: int) -> Float[Tensor, "{num_bins} H W"]:
    if spikes_THW.ndim != 3:
        raise ValueError("three axes")
    return spikes_THW.float().mean(0, keepdim=True)

@dataclasses.dataclass(frozen=True)
class Pair:
    first: Float[Tensor, " N"]
    second: Float[Tensor, " N"] | None = None
"""


@pytest.fixture
def made(tmp_path: Path) -> ModuleType:
    path = tmp_path / "made.py"
    path.write_text(SOURCE)
    spec = spec_from_file_location("made", path, loader=checked_shapes.Loader("made", str(path)))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(checked_shapes.sys.modules, "made", module)
        spec.loader.exec_module(module)
        yield module


def test_a_result_of_another_shape_than_the_signature_says_is_an_error(made: ModuleType):
    spikes_THW = torch.ones((5, 2, 3), dtype=torch.uint8)
    assert made.mean(spikes_THW, num_bins=1).shape == (1, 2, 3)
    with pytest.raises(ShapeError, match=r"made\.mean: result_: .*\{num_bins\} H W.*, not .* \(1, 2, 3\)"):
        made.mean(spikes_THW, num_bins=2)


def test_an_argument_of_another_dtype_is_an_error_and_one_that_the_function_refuses_is_its_own(made: ModuleType):
    with pytest.raises(ShapeError, match=r"spikes_THW: .*UInt8.*, not Tensor torch.float32 \(5, 2, 3\)"):
        made.mean(torch.ones((5, 2, 3)), num_bins=1)
    with pytest.raises(ValueError, match="three axes"):
        made.mean(torch.ones(5), num_bins=1)


def test_the_first_calls_of_a_test_are_checked(made: ModuleType):
    for _ in range(checked_shapes.MAX_CALLS):
        with pytest.raises(ShapeError):
            made.mean(torch.ones((5, 2, 3)), num_bins=1)
    made.mean(torch.ones((5, 2, 3)), num_bins=1)


def test_what_a_generator_yields_is_checked_item_by_item(made: ModuleType):
    halves = made.halves(torch.ones(4))
    assert len(next(halves)) == 2
    with pytest.raises(ShapeError, match=r"made.halves: result_"):
        next(halves)


def test_the_axes_of_one_name_are_one_size_in_all_fields_of_a_dataclass(made: ModuleType):
    made.Pair(torch.ones(2)), made.Pair(torch.ones(2), torch.ones(2))
    with pytest.raises(ShapeError, match=r"made.Pair: second"):
        made.Pair(torch.ones(2), torch.ones(3))


def in_signatures(path: Path) -> int:
    """The shapes of parameters, results and fields of dataclasses; not of functions within functions, which exist only
    while the outer one runs."""
    found = 0
    left: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while left:
        node = left.pop()
        if not isinstance(node, ast.FunctionDef):
            left += ast.iter_child_nodes(node)
        if isinstance(node, ast.FunctionDef):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg]
            annotations = [each.annotation for each in given if each is not None]
            found += sum(num_shapes(annotation) for annotation in [*annotations, node.returns])
        elif isinstance(node, ast.ClassDef) and "dataclass" in " ".join(map(ast.unparse, node.decorator_list)):
            found += sum(num_shapes(line.annotation) for line in node.body if isinstance(line, ast.AnnAssign))
    return found


def test_every_shape_in_a_signature_of_the_package_is_checked():
    """An annotation that means nothing is an error here, though nobody call the function."""
    for module in pkgutil.walk_packages([str(PACKAGE)], "spikevrt."):
        if not module.name.endswith(("_triton", "__main__")):
            importlib.import_module(module.name)
    num_checked = 0
    for name, function in checked_shapes.checked.items():
        if name.startswith("spikevrt.") and "<locals>" not in name:
            hints = checked_shapes.shape_hints(function, function.__module__)
            texts = [function.__annotations__["return" if key == checked_shapes.RESULT else key] for key in hints]
            num_checked += sum(num_shapes(ast.parse(text.strip(), mode="eval")) for text in texts)
    assert num_checked == sum(in_signatures(path) for path in PACKAGE.rglob("*.py"))
    assert num_checked >= NUM_CHECKED
