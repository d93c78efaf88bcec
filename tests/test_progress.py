"""Long work says how far it is: a bar on a terminal, lines elsewhere, nothing where it is collected."""

from __future__ import annotations

import contextlib
import io
import sys

import pytest

from spikevrt import progress as progress_module
from spikevrt.progress import Progress, clock, progress_bar


class Clock:
    """Seconds that pass when told to."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


class Stderr(io.TextIOWrapper):
    """A stream that is no StringIO."""

    def __init__(self, *, is_terminal: bool = False) -> None:
        self.raw_bytes = io.BytesIO()
        super().__init__(self.raw_bytes, encoding="utf-8")
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    @property
    def text(self) -> str:
        self.flush()
        return self.raw_bytes.getvalue().decode()


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Clock:
    ticking = Clock()
    monkeypatch.setattr(progress_module, "time", ticking)
    return ticking


def test_without_a_terminal_a_line_every_few_seconds_tells_done_total_and_the_time_left(
    ticking: Clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "stderr", stderr := Stderr())
    with progress_bar("recordings") as tell:
        for done in range(1, 13):  # two seconds each
            tell(done, 100)
            ticking.now += 2
    assert (
        stderr.text
        == "recordings 4/100  0:03:12 left\nrecordings 7/100  0:03:06 left\nrecordings 10/100  0:03:00 left\n"
    )


def test_what_was_done_before_does_not_count_for_the_time_left(ticking: Clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stderr", stderr := Stderr())
    with Progress("step", first=50, every_s=30) as progress:
        ticking.now += 40
        progress.update(60, 100, "loss 1")
    assert stderr.text == "step 60/100  loss 1  0:02:40 left\n"


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stderr", stderr := Stderr(is_terminal=True))
    monkeypatch.setenv("TERM", "xterm")
    with Progress("recordings", stays=True) as progress:
        progress.update(3, 5, "all is well")
        progress.say("a line that stays")
    assert "recordings" in stderr.text and "3/5" in stderr.text and "all is well" in stderr.text
    assert "a line that stays" in stderr.text


def test_what_is_collected_to_be_told_later_and_what_is_not_visible_get_nothing(
    ticking: Clock, monkeypatch: pytest.MonkeyPatch
):
    with contextlib.redirect_stderr(io.StringIO()) as said, progress_bar("frames") as tell:
        ticking.now += 100
        tell(1, 2)
    assert said.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", stderr := Stderr())
    for visible in (True, False):
        with Progress("step", visible=visible) as progress:
            progress.say(f"hello {visible}")
    assert stderr.text == "hello True\n"


def test_the_clock_reads_hours_minutes_seconds():
    assert clock(3 * 3600 + 5 * 60 + 7) == "3:05:07"
