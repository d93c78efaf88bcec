"""How far a long loop is, on stderr: on a terminal a bar with the time left, elsewhere a line every few seconds. And
tables of text, for what is printed when it has ended.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any, Self

PLAIN_LINE_EVERY_S = 5.0


class Progress:
    """Work done, time left and how it goes, on stderr; a context manager.

    The time left counts from `first`, what was done before; None: from the first `update`. Not `visible`, or where
    stderr is collected in memory to be told later, nothing is shown. With `stays` the bar stays when it has ended.
    """

    def __init__(
        self,
        title: str,
        *,
        first: int | None = None,
        visible: bool = True,
        stays: bool = False,
        every_s: float = PLAIN_LINE_EVERY_S,
    ) -> None:
        self._title, self._first, self._every_s = title, first, every_s
        self._visible = visible and not isinstance(sys.stderr, io.StringIO)
        self._began = self._spoke = time.monotonic()
        self._bar = _Bar(title, stays=stays) if self._visible and sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.live.stop()

    def update(self, done: int, total: int, text: str = "") -> None:
        """`done` of `total` are done; `text` says how it goes."""
        if self._bar is not None:
            self._bar.show(done, total, text)
            return
        now = time.monotonic()
        if self._first is None:
            self._first, self._began = done, now
        if self._visible and now - self._spoke >= self._every_s:
            self._spoke = now
            words = [f"{self._title} {done}/{total}", text]
            if done > self._first:
                words.append(f"{clock((now - self._began) / (done - self._first) * (total - done))} left")
            self.say("  ".join(word for word in words if word))

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._bar is not None:
            self._bar.live.console.print(text, highlight=False)
        elif self._visible:
            print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """`Progress` as the function (done, total) that long loops take."""
    with Progress(title) as progress:
        yield progress.update


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"


class _Bar:
    """rich's bar, with a line of text below it."""

    def __init__(self, title: str, *, stays: bool) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Columns

        self._columns = Columns(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        )
        self._task = self._columns.add_task(title, total=None)
        self.live: Any = Live(self._columns, console=Console(stderr=True), transient=not stays)

    def show(self, done: int, total: int, text: str) -> None:
        from rich.console import Group
        from rich.text import Text

        self._columns.update(self._task, completed=done, total=total)
        self.live.update(Group(self._columns, Text(text, style="dim")) if text else self._columns)


def text_table(rows: Sequence[Sequence[str]], *, left: Container[int] = (0,)) -> list[str]:
    """Rows of one length as lines of text: the columns of `left` start together, the others (numbers) end together."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            text.ljust(width) if column in left else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
