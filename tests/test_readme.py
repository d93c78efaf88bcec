"""The README and the pages of docs say what is so: commands parse, links lead somewhere, what is named exists."""

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
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
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
    """The folders of the annotated tree, relative to the repository; a line may begin with several."""
    block = next(block for block in blocks(README) if block.startswith("src/spikevrt/ "))
    folders = []
    for line in block.splitlines():
        names = re.match(r" *((?:[\w./]+/ ?)+)", line)
        assert names is not None, line
        inside = "src/spikevrt/" if line.startswith(" ") else ""
        folders += [f"{inside}{name}" for name in names[1].split()]
    return folders


def verbs() -> set[str]:
    """Every verb of the command line, from its help."""
    return set(re.findall(r"^    (\w+) ", build_parser().format_help(), flags=re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_shown_is_one_that_exists(page: Path):
    for command in commands(page.read_text(encoding="utf-8")):
        build_parser().parse_args(shlex.split(command)[1:])


def test_the_readme_names_every_verb():
    listed = README.partition("## The verbs")[2].partition("\n##")[0]
    names = {
        name.split()[0] for line in listed.splitlines() for name in re.findall(r"`([\w ]+)`", line.partition(":")[0])
    }
    assert names == verbs() and verbs()


def test_the_page_of_commands_shows_every_verb():
    assert {command.split()[1] for command in commands(COMMANDS)} == verbs()


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120


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
        assert (ROOT / path).is_dir(), path


def test_the_tree_shows_every_package():
    shown = set(tree())
    for path in PACKAGE.iterdir():
        if path.is_dir() and path.name != "__pycache__":
            assert f"src/spikevrt/{path.name}/" in shown, path.name


def test_the_page_of_the_architecture_names_every_module_of_every_package():
    sections = dict(re.findall(r"^\*\*(\w+)/\*\*:(.*?)(?=^\*\*|^## |\Z)", ARCHITECTURE, flags=re.MULTILINE | re.DOTALL))
    sections[""] = ARCHITECTURE.partition("## Modules outside the packages")[2].partition("\n## ")[0]
    for folder, section in sections.items():
        modules = {path.stem for path in (PACKAGE / folder).glob("*.py")} - {"__init__", "__main__"}
        named = set(re.findall(r"`(\w+)`", section))
        rows = re.findall(r"^\| (`.*?) \|", section, flags=re.MULTILINE)
        in_rows = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
        assert modules <= named, f"{folder}: not named: {sorted(modules - named)}"
        assert in_rows <= modules | {"__init__"}, f"{folder}: named, but not there: {sorted(in_rows - modules)}"
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(sections) == packages | {""}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_file_of_code_that_a_page_names_exists(page: Path):
    for path in re.findall(r"`(?:spikevrt/)?([\w.]+/[\w./]+\.py)\b", page.read_text(encoding="utf-8")):
        assert any((base / path).is_file() for base in (ROOT, PACKAGE, PACKAGE.parent)), path


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
