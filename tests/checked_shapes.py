"""Checks the jaxtyping shapes in the signatures of the package while tests run; `conftest.py` switches it on.

The package imports jaxtyping under TYPE_CHECKING only, so that it runs without it; jaxtyping's own import hook, which
reads annotations when a function is defined, sees none of them. This hook puts a decorator on every function (and
dataclass) with a shape in its signature as its module is imported. At the first call the decorator evaluates those
annotations, the imports under TYPE_CHECKING among them; after each of the first calls in a test (`MAX_CALLS`; all took
a fifth of the suite's time) beartype compares arguments and result with them, one set of axis sizes for all; of a
generator, each item as it is taken. A call that raises has refused its arguments by itself and is not looked at, so
tests of wrong arguments see the function's own message. Nothing is checked while torch compiles or exports, nor in
processes that a test starts.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

import beartype.door
import jaxtyping
import torch

PACKAGE = "spikevrt"
DECORATOR = "_checks_shapes"
RESULT = "result_"
COMPUTED = re.compile(r"\w[*+/-]")
MAX_CALLS = 8  # of a function that are checked in one test

num_calls: Counter[str] = Counter()  # of a test; conftest.py clears it
comparisons: dict[str, Callable[..., Any]] = {}  # by the same name; no closure, which compiled graphs cannot trace
checked: dict[str, Callable[..., Any]] = {}  # function or dataclass in full -> what is decorated
_type_imports: dict[str, CodeType] = {}  # module -> the body of its `if TYPE_CHECKING:`


class ShapeError(AssertionError):
    """A value does not have the shape or dtype that the signature says."""


def num_shapes(annotation: ast.AST | None) -> int:
    """How many `Float[Tensor, "T H W"]` an annotation holds."""
    found = 0
    for node in ast.walk(annotation) if annotation is not None else ():
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name | ast.Attribute):
            name = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            items = node.slice.elts if isinstance(node.slice, ast.Tuple) else []
            is_shape = len(items) == 2 and isinstance(items[1], ast.Constant) and isinstance(items[1].value, str)
            found += is_shape and name != "Literal" and hasattr(jaxtyping, name)
    return found


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING"


class _Decorate(ast.NodeTransformer):
    """Puts the decorator on what has a shape in its signature, beneath all others."""

    def __init__(self) -> None:
        self.num_decorated = 0

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        annotations = [*(argument.annotation for argument in arguments if argument is not None), node.returns]
        return self._decorate(node, sum(num_shapes(annotation) for annotation in annotations), at_the_top=False)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.generic_visit(node)
        is_dataclass = any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
        fields = [line.annotation for line in node.body if isinstance(line, ast.AnnAssign)] if is_dataclass else []
        return self._decorate(node, sum(num_shapes(field) for field in fields), at_the_top=True)

    def _decorate(self, node: Any, found: int, at_the_top: bool) -> ast.AST:
        if found:
            position = 0 if at_the_top else len(node.decorator_list)
            node.decorator_list.insert(position, ast.copy_location(ast.Name(DECORATOR, ast.Load()), node))
            self.num_decorated += 1
        return node


class Loader(SourceFileLoader):
    """Compiles the decorated source; no .pyc is read or written."""

    def get_code(self, fullname: str) -> CodeType:
        tree = ast.parse(self.get_data(self.path), self.path)
        decorate = _Decorate()
        tree = decorate.visit(tree)
        if decorate.num_decorated:
            types = [line for node in tree.body if is_type_checking(node) for line in node.body]
            _type_imports[fullname] = compile(ast.Module(types, []), self.path, "exec", dont_inherit=True)
            first = next(k for k, node in enumerate(tree.body) if not _is_preface(node))
            line = f"from {__name__} import checks_shapes as {DECORATOR}"
            tree.body.insert(first, ast.parse(line).body[0])
        return compile(ast.fix_missing_locations(tree), self.path, "exec", dont_inherit=True)


def _is_preface(node: ast.AST) -> bool:
    is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_docstring or (isinstance(node, ast.ImportFrom) and node.module == "__future__")


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.split(".")[0] != PACKAGE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """From here on every module of the package that is imported is checked; none may be imported yet."""
    assert PACKAGE not in sys.modules
    sys.meta_path.insert(0, _Finder())


def checks_shapes(decorated: Any) -> Any:
    """The decorator of a function or a dataclass."""
    name = f"{decorated.__module__}.{decorated.__qualname__}"
    if isinstance(decorated, type):
        checked[name] = decorated.__init__
        if decorated.__module__.startswith("spikevrt.model."):  # made inside compiled graphs, which cannot trace this
            return decorated
        decorated.__init__ = _checking(decorated.__init__, name, decorated.__module__)  # type: ignore[misc]
        return decorated
    checked[name] = decorated
    return _checking(decorated, name, decorated.__module__)


def _checking(function: Callable[..., Any], name: str, module: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        result = function(*args, **kwargs)
        if torch.compiler.is_compiling() or num_calls[name] >= MAX_CALLS:
            return result
        num_calls[name] += 1
        if name not in comparisons:
            comparisons[name] = _comparison(function, name, module)
        return comparisons[name](result, args, kwargs)

    return wrapper


def _comparison(
    function: Callable[..., Any], name: str, module: str
) -> Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]:
    """A function of (result, args, kwargs) that returns the result, or raises ShapeError where a shape is not so."""
    signature = inspect.signature(function)
    hints = shape_hints(function, module)
    is_generator = inspect.isgeneratorfunction(function)  # looks at its arguments when the first item is taken
    # A size such as 3*G or T-1 is computed from axes that are bound before.
    ordered = sorted(hints.items(), key=lambda item: bool(COMPUTED.search(str(item[1]))))

    def compare(**values: Any) -> None:
        __tracebackhide__ = True
        for key, hint in ordered:
            try:
                is_so = beartype.door.is_bearable(values[key], hint)
            except jaxtyping.AnnotationError as error:
                raise ShapeError(f"{name}: {key}: {hint}: {error}") from None
            if not is_so:
                raise ShapeError(f"{name}: {key}: {hint}, not {_described(values[key])}")

    # jaxtyped reads sizes such as {num_bins} from the arguments by name.
    names = [*signature.parameters, RESULT]
    compare.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY) for key in names]
    )
    with_sizes = jaxtyping.jaxtyped(compare, typechecker=None)

    def check(result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        __tracebackhide__ = True
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if isinstance(result, Iterator) and not is_generator:
            return result  # it may refuse its arguments when it is read
        if not is_generator:
            with_sizes(**bound.arguments, **{RESULT: result})
            return result
        return _each_checked(result, lambda item: with_sizes(**bound.arguments, **{RESULT: item}))

    return check


def _each_checked(items: Iterator[Any], check: Callable[[Any], None]) -> Iterator[Any]:
    for item in items:
        check(item)
        yield item


def shape_hints(function: Callable[..., Any], module: str) -> dict[str, Any]:
    """The annotations that hold a shape, evaluated; a name in them that does not exist is an error."""
    names = dict(vars(sys.modules[module]))
    exec(_type_imports[module], names)
    parameters = inspect.signature(function).parameters
    hints = {}
    for key, text in function.__annotations__.items():
        if isinstance(text, str) and num_shapes(ast.parse(text.strip(), mode="eval")):
            is_variadic = key in parameters and parameters[key].kind is inspect.Parameter.VAR_POSITIONAL
            hint = eval(text.strip(), names)
            hints[RESULT if key == "return" else key] = tuple[hint, ...] if is_variadic else hint
    if inspect.isgeneratorfunction(function) and RESULT in hints:
        hints[RESULT] = hints[RESULT].__args__[0]  # what it yields
    return hints


def _described(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{type(value).__name__} {value.dtype} {tuple(value.shape)}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} of [{', '.join(_described(item) for item in value[:4])}]"
    return repr(value)[:100] if value is None or isinstance(value, int | float | str) else type(value).__name__
