"""Where restored footage goes: nothing half-written, nothing overwritten by mistake, and a bar while it takes long."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

SUMMARY_FILE = "restored.json"  # marks a folder as ours


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse an `out` that exists, unless `overwrite`, which replaces a video or a folder of restored frames alone.

    Raises:
        FileExistsError: one line that says which of the two.
    """
    if not out.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{out}: exists; choose another --out or pass --overwrite")
    if out.suffix.lower() == ".mp4" and out.is_file():
        return
    if not (out / SUMMARY_FILE).is_file():
        raise FileExistsError(f"{out}: not a folder of restored frames (no {SUMMARY_FILE}), so it is not overwritten")


@contextlib.contextmanager
def complete_or_absent(out: Path) -> Iterator[Path]:
    """A hidden sibling path for a file or folder; it takes the name `out` when the block ends well, else it goes.

    What stood under that name before steps aside only then.
    """
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    suffix = out.suffix if out.suffix.lower() == ".mp4" else ""
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}{suffix}")
    try:
        yield partial
        _put_in_place(partial, out)
    except BaseException:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)
        raise


def _put_in_place(partial: Path, out: Path) -> None:
    if partial.is_file() or not out.exists():
        os.replace(partial, out)
        return
    old = out.with_name(f".{out.name}.old-{os.getpid()}")
    os.replace(out, old)
    try:
        os.replace(partial, out)
    except OSError:
        os.replace(old, out)
        raise
    shutil.rmtree(old)


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar with the time left on stderr, moved by calls of (done, total); None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
