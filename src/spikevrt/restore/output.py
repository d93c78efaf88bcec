"""Where restored footage goes: which folder may be replaced, and a bar while it takes long."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from spikevrt.recording.atomic import refuse_existing

SUMMARY_FILE = "restored.json"  # marks a folder as ours


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse an `out` that exists, unless `overwrite`, which replaces a video or a folder of restored frames alone.

    Raises:
        FileExistsError: one line that says which of the two.
    """
    if overwrite and out.suffix.lower() == ".mp4" and out.is_file():
        return
    refuse_existing(out, marker=SUMMARY_FILE, overwrite=overwrite)


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
