"""One job at a time: who runs, who waits behind whom, how far it is, and how it is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Literal

Progress = Callable[[int, int], None]  # (done, in all)
State = Literal["waiting", "running", "done", "failed", "cancelled"]


class Cancelled(Exception):
    """The job was told to stop: raised inside it by its progress."""


class Ticket:
    """A job's place in the queue, and what became of it: `result` when it is done, `error` when it failed."""

    def __init__(self, work: Callable[[Progress], Any], kind: str = "") -> None:
        self.work, self.kind = work, kind
        self.state: State = "waiting"
        self.done, self.total = 0, 0
        self.result: Any = None
        self.error: Exception | None = None
        self.finished = threading.Event()
        self.is_cancelled = False  # it was asked to stop, and does at its next sign of progress
        self._start_s = 0.0
        self._told_s = 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds left, from the time that what is done has taken; None before the first."""
        if not self.done or self.state != "running":
            return None
        each_s = (self._told_s - self._start_s) / self.done
        return max(0.0, each_s * self.total - (time.monotonic() - self._start_s))

    def tell(self, done: int, total: int) -> None:
        """The progress that the work calls. Raises Cancelled once it shall stop."""
        if self.is_cancelled:
            raise Cancelled
        self.done, self.total, self._told_s = done, total, time.monotonic()

    def run(self) -> None:
        """Do the work here and now, and keep what it gives or how it fails."""
        if self.is_cancelled:
            self.state = "cancelled"
        else:
            self.state, self._start_s = "running", time.monotonic()
            try:
                self.result = self.work(self.tell)
                self.state = "done"
            except Cancelled:
                self.state = "cancelled"
            except Exception as error:  # whoever asked for the work says what went wrong
                self.error, self.state = error, "failed"
        self.finished.set()


class Turns:
    """Jobs in the order in which they came, one at a time, in a thread of their own."""

    def __init__(self) -> None:
        self._waiting: list[Ticket] = []
        self._running: Ticket | None = None
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, daemon=True, name="restorations")
        self._thread.start()

    def add(self, work: Callable[[Progress], Any], kind: str = "") -> Ticket:
        """Queue a job, which is called with its progress; `kind` is for the caller. Raises ValueError after `close`."""
        ticket = Ticket(work, kind)
        with self._changed:
            if self._is_closed:
                raise ValueError("the page is closing; no more jobs are taken")
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Stop a job, wherever it is; one that waits leaves the queue at once."""
        ticket.is_cancelled = True
        with self._changed:
            if ticket not in self._waiting:
                return
            self._waiting.remove(ticket)
        ticket.run()  # it finds that it was cancelled

    def num_before(self, ticket: Ticket) -> int:
        """How many jobs come before it, the running one included; 0 for one that runs or has ended."""
        with self._changed:
            if ticket not in self._waiting:
                return 0
            return self._waiting.index(ticket) + (self._running is not None)

    def close(self, timeout_s: float) -> bool:
        """Take no more, stop all, and wait for the running one; whether it ended in time."""
        with self._changed:
            self._is_closed = True
            tickets = [*self._waiting, *([self._running] if self._running else [])]
            self._changed.notify()
        for ticket in tickets:
            self.cancel(ticket)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._is_closed:
                        return
                    self._changed.wait()
                self._running = self._waiting.pop(0)
            self._running.run()
            with self._changed:
                self._running = None
