"""One job at a time, in the order of arrival, and each can be stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from spikevrt.app.turns import Progress, Ticket, Turns

SOON_S = 20.0


@pytest.fixture
def turns() -> Iterator[Turns]:
    made = Turns()
    yield made
    made.close(SOON_S)


class Held:
    """A job that starts, tells its progress whenever it is let go on, and ends after `steps`."""

    def __init__(self, steps: int = 2) -> None:
        self.steps, self.started, self.step = steps, threading.Event(), threading.Semaphore(0)

    def __call__(self, tell: Progress) -> str:
        self.started.set()
        for done in range(self.steps):
            assert self.step.acquire(timeout=SOON_S)
            tell(done + 1, self.steps)
        return "made"

    def finish(self) -> None:
        self.step.release(self.steps)


def ended(ticket: Ticket) -> str:
    assert ticket.finished.wait(SOON_S)
    return ticket.state


def test_a_job_gives_its_result_and_the_frames_it_has_done(turns):
    job = Held(steps=2)
    job.finish()
    ticket = turns.add(job)
    assert ended(ticket) == "done"
    assert (ticket.result, ticket.done, ticket.total, ticket.error) == ("made", 2, 2, None)


def test_the_second_job_waits_for_the_first_and_knows_how_many_come_before_it(turns):
    first, second, third = Held(), Held(), Held()
    tickets = [turns.add(job) for job in (first, second, third)]
    assert first.started.wait(SOON_S)
    assert [turns.num_before(ticket) for ticket in tickets] == [0, 1, 2]
    assert [ticket.state for ticket in tickets] == ["running", "waiting", "waiting"]
    first.finish()
    assert second.started.wait(SOON_S) and not third.started.is_set()
    assert [turns.num_before(ticket) for ticket in tickets] == [0, 0, 1]
    second.finish()
    third.finish()
    assert [ended(ticket) for ticket in tickets] == ["done"] * 3


def test_a_running_job_stops_at_its_next_sign_of_progress_and_the_next_one_starts(turns):
    first, second = Held(steps=5), Held()
    running, waiting = turns.add(first), turns.add(second)
    assert first.started.wait(SOON_S)
    turns.cancel(running)
    assert running.state == "running" and not running.finished.is_set()
    first.step.release()
    assert ended(running) == "cancelled" and running.result is None and running.done == 0
    second.finish()
    assert ended(waiting) == "done"


def test_a_waiting_job_that_is_cancelled_leaves_at_once_and_never_starts(turns):
    first, second = Held(), Held()
    running, waiting = turns.add(first), turns.add(second)
    assert first.started.wait(SOON_S)
    turns.cancel(waiting)
    assert waiting.state == "cancelled" and waiting.finished.is_set()
    first.finish()
    assert ended(running) == "done" and not second.started.is_set()


def test_cancelling_a_job_that_is_done_changes_nothing(turns):
    job = Held()
    job.finish()
    ticket = turns.add(job)
    ended(ticket)
    turns.cancel(ticket)
    assert ticket.state == "done" and ticket.result == "made"


def test_a_job_that_fails_keeps_its_error_and_the_next_one_runs(turns):
    def failing(tell: Progress) -> None:
        raise ValueError("no such thing")

    after = Held()
    after.finish()
    failed, next_one = turns.add(failing), turns.add(after)
    assert ended(failed) == "failed" and str(failed.error) == "no such thing"
    assert ended(next_one) == "done"


def test_the_seconds_left_are_those_that_the_frames_done_took(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("spikevrt.app.turns.time.monotonic", lambda: clock[0])
    seen: list[float | None] = []

    def work(tell: Progress) -> None:
        seen.append(ticket.left_s)
        clock[0] = 106.0
        tell(2, 8)  # 3 s a frame, 24 s in all
        clock[0] = 110.0
        seen.append(ticket.left_s)

    ticket = Ticket(work)
    ticket.run()
    assert seen == [None, 14.0] and ticket.left_s is None


def test_closing_stops_all_jobs_and_takes_no_more():
    turns = Turns()
    first: Callable[[Progress], str] = Held()
    running, waiting = turns.add(first), turns.add(Held())
    assert isinstance(first, Held) and first.started.wait(SOON_S)
    first.finish()  # its next sign of progress comes
    assert turns.close(SOON_S)
    assert waiting.state == "cancelled" and running.state in ("cancelled", "done")
    with pytest.raises(ValueError, match="the page is closing; no more jobs are taken"):
        turns.add(Held())
