"""A name appears when all of it is there, and nothing that is not ours is replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spikevrt.atomic import complete_or_absent, named, refuse_existing, refuse_existing_file


def test_a_folder_appears_when_the_block_ends_and_not_before(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with complete_or_absent(out) as partial:
        partial.mkdir()
        (partial / "a").write_text("1")
        assert not out.exists()
    assert (out / "a").read_text() == "1"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_error_leaves_what_stood_there_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        with complete_or_absent(tmp_path / "out") as partial:
            partial.mkdir()
            raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "a").read_text() == "old"


def test_a_new_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with complete_or_absent(tmp_path / "out") as partial:
            partial.mkdir()
            (partial / name).write_text(name)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_process_of_this_number_left_is_not_taken_over(tmp_path: Path) -> None:
    with complete_or_absent(tmp_path / "out") as partial:
        name = partial.name
        partial.write_text("")
    (tmp_path / "out").unlink()
    (tmp_path / name).mkdir()
    (tmp_path / name / "stale").write_text("")
    with complete_or_absent(tmp_path / "out") as partial:
        partial.mkdir()
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_is_not_ours_is_never_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    refuse_existing(out, marker="ours.json", overwrite=False)
    out.mkdir()
    with pytest.raises(FileExistsError, match=r"out: exists; choose another --out or pass --overwrite$"):
        refuse_existing(out, marker="ours.json", overwrite=False)
    refuse_existing(out, marker="ours.json", overwrite=True)  # empty: nothing is lost
    (out / "thesis.tex").write_text("years")
    with pytest.raises(FileExistsError, match=r"out: exists and holds no ours\.json, so it is not overwritten; choose"):
        refuse_existing(out, marker="ours.json", overwrite=True)
    with pytest.raises(FileExistsError, match=r"thesis\.tex: exists and holds no ours\.json"):
        refuse_existing(out / "thesis.tex", marker="ours.json", overwrite=True)
    (out / "ours.json").write_text("{}")
    refuse_existing(out, marker="ours.json", overwrite=True)


def test_a_file_is_replaced_only_where_told_and_a_folder_never(tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    refuse_existing_file(out, overwrite=False)
    out.write_text("x")
    with pytest.raises(FileExistsError, match=r"out\.png: exists; choose another --plot or pass --overwrite$"):
        refuse_existing_file(out, overwrite=False, other="--plot")
    refuse_existing_file(out, overwrite=True)
    with pytest.raises(FileExistsError, match=r"exists; choose another --out$"):
        refuse_existing_file(tmp_path, overwrite=True)


def test_what_killed_processes_left_goes_and_nothing_else(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    gone = [f".out.partial-{ended.pid}", f".out.partial-{ended.pid}.npy"]
    kept = [
        f".out.partial-{os.getppid()}",
        f".out.old-{ended.pid}",
        f".outer.partial-{ended.pid}",
        f"out.partial-{ended.pid}",
        f".out.partial-{ended.pid}.txt",
    ]
    (tmp_path / gone[0]).mkdir()
    for name in (gone[1], *kept):
        (tmp_path / name).touch()
    with complete_or_absent(tmp_path / "out") as partial:
        partial.touch()
    assert {path.name for path in tmp_path.iterdir()} == {"out", *kept}


def test_a_folder_that_cannot_be_written_is_named_and_no_hidden_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    for out in (tmp_path / "out", tmp_path / "new" / "out"):
        with pytest.raises(PermissionError) as refusal, complete_or_absent(out):
            pass
        assert refusal.value.filename == str(tmp_path)
    assert not any(tmp_path.iterdir())


def test_what_is_unfinished_is_known_by_its_name_to_be(tmp_path: Path) -> None:
    for out in (tmp_path / "a.b.mkv", tmp_path / "out"):
        with complete_or_absent(out) as partial:
            assert named(partial) == named(out) == out
            partial.touch()
