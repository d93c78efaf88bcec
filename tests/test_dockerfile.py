"""The Dockerfile as far as it can be checked without building it: what it copies is there, what it installs exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_what_is_copied_is_there_and_not_ignored():
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.M) for name in line.split()]
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied and set(copied) <= kept
    for name in copied:
        assert (ROOT / name).exists(), name


def test_the_package_can_be_built_from_what_is_copied():
    """pyproject names a readme and a licence file; hatchling wants them."""
    copied = " ".join(re.findall(r"^COPY (.+)$", DOCKERFILE, re.M))
    assert PROJECT["readme"] in copied and "LICENSE" in copied


def test_the_extras_exist_and_the_python_is_allowed():
    (extras,) = re.findall(r"'\.\[([a-z,]+)\]'", DOCKERFILE)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    (major, minor), least = re.findall(r"^FROM python:(\d+)\.(\d+)", DOCKERFILE, re.M)[0], PROJECT["requires-python"]
    assert (int(major), int(minor)) >= tuple(int(part) for part in re.findall(r"\d+", least)[:2])


def test_nothing_runs_as_root_and_the_entry_is_the_command():
    assert DOCKERFILE.index("USER user") < DOCKERFILE.index('ENTRYPOINT ["spikevrt"]')
    assert "spikevrt" in PROJECT["scripts"]
