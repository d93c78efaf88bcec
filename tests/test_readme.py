"""The README and the pages of docs say what is so: commands parse, links lead somewhere, the tree is the tree."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import stat
from pathlib import Path

import pytest

from spikevrt.cli import build_parser

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "spikevrt"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str, language: str | None = None) -> list[str]:
    """The fenced code blocks of one language; None: of any."""
    fenced: list[tuple[str, str]] = []
    is_inside = False
    for line in text.splitlines():
        if line.startswith("```"):
            is_inside = not is_inside
            if is_inside:
                fenced.append((line[3:].strip(), ""))
        elif is_inside:
            fenced[-1] = (fenced[-1][0], fenced[-1][1] + line + "\n")
    return [code for name, code in fenced if language in (None, name)]


def commands(text: str) -> list[str]:
    """The `spikevrt` commands of all blocks, without prompts and comments, lines joined at a trailing backslash."""
    lines: list[str] = []
    for block in blocks(text):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.strip().removeprefix("$ ").split(" #")[0].strip()
            if re.match(r"spikevrt [\w-]", line):
                lines.append(line)
    return lines


def tree() -> list[str]:
    """The paths of the annotated tree, relative to the repository."""
    block = next(block for block in blocks(README) if "\nsrc/spikevrt/\n" in block)
    stack: list[tuple[int, str]] = []
    paths = []
    for line in block.splitlines():
        match = re.match(r"( *)(\S+)", line)
        assert match is not None, line
        depth, name = len(match[1]), match[2]
        while stack and stack[-1][0] >= depth:
            stack.pop()
        path = "".join(parent for _, parent in stack) + name
        stack.append((depth, name))
        paths.append(path)
    return paths


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_shown_is_one_that_exists(page: Path):
    for command in commands(page.read_text(encoding="utf-8")):
        build_parser().parse_args(shlex.split(command)[1:])


def test_the_readme_shows_every_verb():
    verbs = {command.split()[1] for command in commands(README)}
    shown_verbs = {
        "simulate",
        "inspect",
        "convert",
        "align",
        "prepare",
        "train",
        "restore",
        "evaluate",
        "report",
        "bench",
        "accept",
        "export",
        "demo",
        "app",
    }
    assert verbs == shown_verbs | {"config", "runs"}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_config_shown_is_one_that_ships(page: Path):
    for name in re.findall(r"configs/[\w.]+\.yaml", page.read_text(encoding="utf-8")):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(page: Path):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not re.match(r"\w+://", target):
            assert (page.parent / target).exists(), target


def test_the_index_names_every_page():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index, page.name


def test_the_tree_shows_only_what_exists():
    for path in tree():
        assert (ROOT / path).exists() or (ROOT / f"{path}.py").is_file(), path


def test_the_tree_shows_every_module():
    shown = set(tree())
    for path in PACKAGE.rglob("*.py"):
        if path.stem not in ("__init__", "__main__"):
            assert str(path.relative_to(ROOT).with_suffix("")) in shown, path


def test_the_tree_shows_every_folder_of_the_repository():
    shown = {path.split("/")[0] for path in tree()}
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()} | {".git"}
    for path in ROOT.iterdir():
        if path.is_dir() and path.name not in ignored and any(file.is_file() for file in path.rglob("*")):
            assert path.name in shown, path.name


def test_the_python_snippet_imports_what_exists():
    for snippet in blocks(README, "python"):
        for node in ast.walk(ast.parse(snippet)):
            if isinstance(node, ast.ImportFrom):
                assert node.module is not None
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), alias.name


def test_the_commands_of_the_readme_are_targets_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test", "test-all"):
        assert f"$ make {target}\n" in README
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_ci_runs_the_readmes_command_of_every_check():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    text = script.read_text(encoding="utf-8")
    assert "README.md" in text and "make test-all" in text
