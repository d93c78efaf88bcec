"""The house rules that a machine can hold: who imports whom, how long a file is, what is never imported.

Imports are read from the syntax tree of every file under src/spikevrt, those inside functions and under TYPE_CHECKING
included.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "spikevrt"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400

# A part of the package -> the parts that it may import (docs/index.md draws the same). First the core, in the order in
# which the data flows; then the annexes, which no part of the core imports.
CORE_ARROWS: dict[str, set[str]] = {
    "config": set(),
    "settings": set(),
    "runtime": set(),
    "free_memory": {"runtime"},
    "progress": set(),
    "engine": set(),
    "light": set(),
    "shipped": set(),
    "lpips": {"shipped"},
    "checkpoint": {"config"},
    "recording": {"light"},
    "simulate": {"light", "progress", "engine", "recording"},
    "represent": {"config", "light", "recording"},
    "model": {"config", "checkpoint", "runtime"},
    "losses": {"config", "light", "lpips"},
    "data": {"config", "progress", "recording", "represent"},
    "restore": {
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
    },
    "train": {
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
ARROWS["kernels"] = set()
ARROWS["model"] |= {"kernels"}  # the one annex that the core calls: fast twins of its layers
# (file, part) that the arrows do not allow yet: this set only shrinks.
PENDING: set[tuple[str, str]] = {
    ("align.inspect", "report"),
    ("data.prepare", "align"),
    ("data.prepare", "formats"),
    ("evaluate.runner", "formats"),
    ("evaluate.runner", "report"),
    ("recording.video", "mux"),
    ("restore.admission", "align"),
    ("restore.output", "mux"),
    ("restore.parts", "mux"),
    ("restore.plan", "free_memory"),
    ("train.forecast", "free_memory"),
    ("train.loop", "report"),
    ("train.runs", "report"),
    ("train.validation", "report"),
}
ENTRANCES = {"cli", "verbs", "__main__", "__init__"}  # the command line may import everything; nobody imports it

CORE = {"torch", "numpy", "yaml", "safetensors"}  # the rest is imported inside the function that needs it
LAZY = {"PIL", "av", "rich", "tensorboard", "h5py", "scipy", "cv2", "ray", "matplotlib", "torchao", "triton"}
LAZY |= {"onnxruntime", "flip_evaluator", "imageio_ffmpeg", "scenedetect", "OpenEXR", "gradio"}
TYPES_ONLY = {"jaxtyping"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """(module, where) of every import: where is "top", "types" (under TYPE_CHECKING) or "inside" (a function)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
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
                found.add((module_name(path).removeprefix("spikevrt."), target))
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


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_name(path))
def test_only_the_core_is_imported_at_the_top_of_a_file(path: Path):
    for name, where in imports(path):
        root = name.split(".")[0]
        if root == "triton" and is_triton_source(path):
            continue
        assert not (root in LAZY and where == "top"), f"import {root} inside the function that needs it"
        assert not (root in TYPES_ONLY and where != "types"), f"import {root} under TYPE_CHECKING only"


def is_triton_source(path: Path) -> bool:
    """Triton's kernels must stand in a file that imports triton at its top."""
    return path.parent == PACKAGE / "kernels" and path.stem.endswith("_triton")


def test_files_of_triton_kernels_are_imported_inside_functions_only():
    sources = {module_name(path) for path in FILES if is_triton_source(path)}
    assert sources
    for path in FILES:
        assert not [name for name, where in ours(path) if name in sources and where == "top"], path


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_name(path))
def test_every_import_is_the_standard_library_ours_or_a_declared_dependency(path: Path):
    known = set(sys.stdlib_module_names) | CORE | LAZY | TYPES_ONLY | {"spikevrt"}
    assert {name.split(".")[0] for name, _ in imports(path)} <= known


def test_torchvision_is_neither_imported_nor_required_anywhere():
    for path in [*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not any(name.split(".")[0] == "torchvision" for name in names), f"{path} imports torchvision"
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


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_name(path))
def test_a_file_says_what_it_is_for(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if tree.body:
        assert ast.get_docstring(tree), "start with a docstring: what the file is for, and its dimension key"
    if any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body):
        assert any(name == "__future__.annotations" or name == "__future__" for name, _ in imports(path))


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
