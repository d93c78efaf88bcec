"""The house rules that a machine can hold: who imports whom, how large the house is, what is never imported.

Imports and names are read from the syntax tree of every file under src/spikevrt, those inside functions and under
TYPE_CHECKING included. One test a rule; its message lists all that break it.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "spikevrt"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400  # a file
MAX_PARAMETERS = 8  # a public function or method, without self
MAX_MODULES_IN_ALL, MAX_LINES_IN_ALL = 146, 33_100  # under src; decision 67

# A part of the package -> the parts that it may import (docs/architecture.md says the same in words). First the core,
# in the order in which the data flows; then the annexes, which no part of the core imports.
CORE_ARROWS: dict[str, set[str]] = {
    "typed": set(),
    "atomic": set(),
    "config": set(),
    "runtime": set(),
    "progress": set(),
    "engine": set(),
    "light": set(),
    "shipped": set(),
    "lpips": {"checkpoint", "shipped"},
    "checkpoint": {"atomic", "config"},
    "recording": {"atomic", "light"},
    "simulate": {"atomic", "light", "progress", "engine", "recording"},
    "represent": {"config", "light", "recording"},
    "model": {"config", "checkpoint", "light", "runtime"},
    "losses": {"checkpoint", "config", "light", "lpips", "model"},
    "data": {"atomic", "config", "progress", "recording", "represent"},
    "restore": {
        "atomic",
        "config",
        "runtime",
        "shipped",
        "progress",
        "checkpoint",
        "engine",
        "light",
        "recording",
        "represent",
        "model",
    },
    "evaluate": {
        "atomic",
        "config",
        "runtime",
        "progress",
        "checkpoint",
        "light",
        "lpips",
        "losses",
        "recording",
        "represent",
        "restore",
        "shipped",
    },
    "train": {
        "atomic",
        "config",
        "runtime",
        "progress",
        "checkpoint",
        "losses",
        "recording",
        "represent",
        "model",
        "data",
        "restore",
        "evaluate",
    },
}
ANNEX_ARROWS: dict[str, set[str]] = {
    "kernels": set(),  # called by model through one visible condition: see `model`
    "migrate": set(),
    "formats": set(),
    "mux": set(),
    "align": {"formats"},
    "export": set(),
    "report": {"align", "formats", "mux"},
    "bench": {"align", "formats", "mux", "report"},
    "app": {"align", "formats", "mux", "report", "bench"},
}
ARROWS = CORE_ARROWS | {annex: others | set(CORE_ARROWS) for annex, others in ANNEX_ARROWS.items()}
ARROWS = {part: targets | ({"typed"} if part != "typed" else set()) for part, targets in ARROWS.items()}
ARROWS["kernels"] = set()
ARROWS["model"] |= {"kernels"}  # the one annex that the core calls: fast twins of its layers
# (file, part) that the arrows do not allow yet: this set only shrinks.
PENDING: set[tuple[str, str]] = set()
# What the rules about names and parameters do not allow yet: these sets only shrink.
SAME_STEMS: set[str] = set()
SAME_CLASSES: set[str] = set()
MANY_PARAMETERS: set[str] = set()
# Figures of speech where the field has a word: prefetch, background writer, frozen, many.
RIDDLES = re.compile(
    r"\b(two hands|no end of|dice|(alignment|frozen|which) stands? still|lit as|know nothing of each other)\b",
    re.IGNORECASE,
)
RIDDLES_LEFT: set[str] = set()
ENTRANCES = {"cli", "verbs", "__main__", "__init__"}  # the command line may import everything; nobody imports it

CORE = {"torch", "numpy", "yaml", "safetensors"}  # the rest is imported inside the function that needs it
LAZY = {"PIL", "av", "rich", "tensorboard", "h5py", "scipy", "cv2", "ray", "matplotlib", "jinja2", "torchao", "triton"}
LAZY |= {"onnxruntime", "flip_evaluator", "imageio_ffmpeg", "scenedetect", "OpenEXR", "gradio", "msgspec"}
TYPES_ONLY = {"jaxtyping"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def inner_name(path: Path) -> str:
    """The module's name within the package: "restore.cuts"."""
    return module_name(path).removeprefix("spikevrt.")


@cache
def syntax_tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> tuple[tuple[str, str], ...]:
    """(module, where) of every import: where is "top", "types" (under TYPE_CHECKING) or "inside" (a function)."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, str]]:
    tree = syntax_tree(path)
    where: dict[ast.AST, str] = {}
    for node in ast.walk(tree):
        place = where.get(node, "top")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            place = "inside"
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            place = "types"
        for child in ast.iter_child_nodes(node):
            where[child] = place
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, where.get(node, "top")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports in full, not relative"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                is_module = (PACKAGE.parent / Path(*full.split("."))).with_suffix(".py").is_file()
                is_package = (PACKAGE.parent / Path(*full.split("."))).is_dir()
                yield (full if is_module or is_package else node.module), where.get(node, "top")


def ours(path: Path) -> Iterator[tuple[str, str]]:
    return ((name, where) for name, where in imports(path) if name.split(".")[0] == "spikevrt")


def test_every_part_of_the_package_has_its_arrows_written_down():
    parts = {part_of(path) for path in FILES} - ENTRANCES
    assert parts <= set(ARROWS), f"no arrows for {sorted(parts - set(ARROWS))}"


def test_a_file_imports_only_what_the_arrows_allow():
    found = set()
    for path in FILES:
        part = part_of(path)
        for name, _ in ours(path):
            target = name.split(".")[1] if "." in name else "__init__"
            if part not in ENTRANCES and target != part and target not in ARROWS[part]:
                found.add((inner_name(path), target))
    assert found == PENDING, f"new: {sorted(found - PENDING)}; mended, take out: {sorted(PENDING - found)}"


def test_the_arrows_of_the_parts_have_no_cycle():
    seen: list[str] = []
    while len(seen) < len(ARROWS):
        ready = [part for part, targets in ARROWS.items() if part not in seen and targets <= set(seen)]
        assert ready, f"a cycle among {sorted(set(ARROWS) - set(seen))}"
        seen += ready


def test_the_modules_have_no_import_cycle():
    graph = {module_name(path): {name for name, where in ours(path) if where != "types"} for path in FILES}
    finished: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above[above.index(name) :], name])
        if name not in finished:
            for target in graph.get(name, set()):
                visit(target, (*above, name))
            finished.add(name)

    for name in graph:
        visit(name, ())


def test_only_the_core_is_imported_at_the_top_of_a_file():
    """Other packages are imported inside the function that needs them, those of types under TYPE_CHECKING."""
    wrong = []
    for path in FILES:
        for name, where in imports(path):
            root = name.split(".")[0]
            if root == "triton" and is_triton_source(path):
                continue
            if (root in LAZY and where == "top") or (root in TYPES_ONLY and where != "types"):
                wrong.append((inner_name(path), name))
    assert not wrong


def is_triton_source(path: Path) -> bool:
    """Triton's kernels must stand in a file that imports triton at its top."""
    return path.parent == PACKAGE / "kernels" and path.stem.endswith("_triton")


def test_files_of_triton_kernels_are_imported_inside_functions_only():
    sources = {module_name(path) for path in FILES if is_triton_source(path)}
    assert sources
    assert not [
        (inner_name(path), name) for path in FILES for name, where in ours(path) if name in sources and where == "top"
    ]


def test_every_import_is_the_standard_library_ours_or_a_declared_dependency():
    known = set(sys.stdlib_module_names) | CORE | LAZY | TYPES_ONLY | {"spikevrt"}
    assert not [
        (inner_name(path), name) for path in FILES for name, _ in imports(path) if name.split(".")[0] not in known
    ]


def test_torchvision_is_neither_imported_nor_required_anywhere():
    statement = re.compile(r"^\s*(?:import|from) +torchvision\b", re.MULTILINE)
    files = [*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    assert not [path for path in files if statement.search(path.read_text(encoding="utf-8"))]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    forbidden = re.compile(r"(torchvision|timm|lpips|piq|litdata|torch-fidelity|facexlib)\b", re.IGNORECASE)
    assert not [line for line in [*required, *pinned] if forbidden.match(line)]


def test_constraints_pin_every_dependency_exactly():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pins = {re.split("==", line)[0].lower().replace("_", "-"): line for line in lines}
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), "name==version, without a local part"
    assert pins["torch"] == "torch==2.13.0"
    for requirement in [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]:
        name = re.match(r"[\w.-]+", requirement)
        assert name is not None
        assert name.group().lower().replace("_", "-") in pins, f"{requirement} is not pinned"


def test_every_file_is_shorter_than_four_hundred_lines():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length >= MAX_LINES} == {}


def test_helpers_live_with_the_noun_that_they_serve():
    assert not [path for path in FILES if path.stem in {"utils", "util", "common", "helpers", "misc"}]


def test_a_file_says_what_it_is_for():
    """A docstring first: what the file is for, and its dimension key."""
    assert not [
        inner_name(path) for path in FILES if syntax_tree(path).body and not ast.get_docstring(syntax_tree(path))
    ]


def test_a_file_with_functions_or_classes_keeps_its_annotations_unread():
    wrong = []
    for path in FILES:
        if any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in syntax_tree(path).body):
            if not any(name.startswith("__future__") for name, _ in imports(path)):
                wrong.append(inner_name(path))
    assert not wrong, "from __future__ import annotations"


# --- the size of the house, and its names ---


def test_the_house_does_not_grow():
    num_lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in FILES)
    assert len(FILES) <= MAX_MODULES_IN_ALL
    assert num_lines <= MAX_LINES_IN_ALL


def twice(places: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The names that stand in more than one place, from (name, place)."""
    of_name: defaultdict[str, set[str]] = defaultdict(set)
    for name, place in places:
        of_name[name].add(place)
    return {name: sorted(found) for name, found in of_name.items() if len(found) > 1}


def test_no_two_modules_have_one_stem():
    found = twice((path.stem, inner_name(path)) for path in FILES if path.stem not in {"__init__", "__main__"})
    assert {stem: found[stem] for stem in found if stem not in SAME_STEMS} == {}


def test_no_two_classes_have_one_name():
    found = twice(
        (node.name, inner_name(path))
        for path in FILES
        for node in ast.walk(syntax_tree(path))
        if isinstance(node, ast.ClassDef)
    )
    assert {name: found[name] for name in found if name not in SAME_CLASSES} == {}


def functions(node: ast.AST, above: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """(name in full, definition) of the functions of a module and the methods of its classes."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from functions(child, f"{above}.{child.name}")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{above}.{child.name}", child


def test_no_public_function_takes_more_than_eight_parameters():
    """Triton's device functions take pointers and strides one by one."""
    found = {}
    for path in FILES:
        for name, node in functions(syntax_tree(path), inner_name(path)):
            is_public = not re.search(r"\._(?!_init__$)", name)
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            num_parameters = len([argument for argument in given if argument.arg not in {"self", "cls"}])
            if is_public and num_parameters > MAX_PARAMETERS and not is_triton_source(path):
                found[name] = num_parameters
    assert {name: count for name, count in found.items() if name not in MANY_PARAMETERS} == {}


def words(path: Path) -> Iterator[str]:
    """Every identifier that a file uses, and every word of its short strings: names that are looked up by `getattr`."""
    for node in ast.walk(syntax_tree(path)):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name.split(".")[-1]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 200:
            yield from re.findall(r"\w+", node.value)


def test_every_public_name_is_used_by_more_than_tests():
    """By another line of the package, an example, a benchmark, or the page about the Python interface."""
    others = [path for folder in ("examples", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    used = Counter(word for path in [*FILES, *others] for word in words(path))
    used.update(re.findall(r"\w+", (ROOT / "docs" / "python.md").read_text(encoding="utf-8")))
    found = set()
    for path in FILES:
        for node in syntax_tree(path).body:
            defined = []
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined = [(node.name, 0)]
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                defined = [(target.id, 1) for target in targets if isinstance(target, ast.Name)]
            for name, own_uses in defined:
                if not name.startswith("_") and used[name] <= own_uses:
                    found.add(f"{inner_name(path)}.{name}")
    assert not found


def test_what_has_a_word_in_the_field_is_called_by_it():
    found = {inner_name(path) for path in FILES if RIDDLES.search(path.read_text(encoding="utf-8"))}
    assert not found - RIDDLES_LEFT


def test_nothing_in_the_repository_names_a_folder_of_one_machine():
    texts = [
        *FILES,
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "configs").glob("*"),
        *ROOT.glob("*.md"),
        ROOT / "Makefile",
    ]
    forbidden = re.compile(r"/work/|/home/\w|/Users/|/root/")
    assert not [str(path.relative_to(ROOT)) for path in texts if forbidden.search(path.read_text(encoding="utf-8"))]
