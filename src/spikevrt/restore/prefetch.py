"""Two threads for a long run: a prefetch of what comes next, and a background writer of what is finished.

Both queues are bounded, so memory does not grow; an error on either side stops the other and is raised as it was.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
WAIT_S = 0.05  # between two looks at whether the other side has given up
_END = object()


class _Abandoned(Exception):
    """The other side has stopped: nothing more is to be done, and nothing to be told."""


def ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """The same items in the same order, made by a thread of its own that is at most `depth` items ahead.

    Whatever `items` raises is raised here, in its place. When the caller stops, the thread does.
    """
    line: queue.Queue[Any] = queue.Queue(depth)
    stopped = threading.Event()

    def make() -> None:
        try:
            for item in items:
                _put(line, (item, None), stopped)
            _put(line, (_END, None), stopped)
        except _Abandoned:
            pass
        except BaseException as error:
            with contextlib.suppress(_Abandoned):
                _put(line, (_END, error), stopped)

    thread = threading.Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = line.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        thread.join()


@contextlib.contextmanager
def in_background(consume: Callable[[Iterator[T]], None], depth: int) -> Iterator[Callable[[T], None]]:
    """A function that hands items to `consume`, which runs in a thread of its own, at most `depth` items behind.

    Leaving the block waits until all is consumed. What `consume` raises is raised by the next hand-over or at the end.
    Where the block fails, the items end with an exception inside `consume`, so that it leaves nothing half-done.
    """
    line: queue.Queue[Any] = queue.Queue(depth)
    stopped, failed = threading.Event(), list[BaseException]()

    def items() -> Iterator[T]:
        while True:
            item = line.get()
            if item is _END:
                return
            if isinstance(item, _Abandoned):
                raise item
            yield item

    def work() -> None:
        try:
            consume(items())
        except _Abandoned:
            pass
        except BaseException as error:
            failed.append(error)
        finally:
            stopped.set()

    def hand_over(item: T) -> None:
        try:
            _put(line, item, stopped)
        except _Abandoned:
            raise failed[0] if failed else RuntimeError("the consumer ended before its items did") from None

    thread = threading.Thread(target=work, name="in_background", daemon=True)
    thread.start()
    last: Any = _Abandoned()
    try:
        yield hand_over
        last = _END
    finally:
        with contextlib.suppress(_Abandoned):
            _put(line, last, stopped)
        thread.join()
    if failed:
        raise failed[0]


def _put(line: queue.Queue[Any], item: Any, stopped: threading.Event) -> None:
    while not stopped.is_set():
        try:
            line.put(item, timeout=WAIT_S)
        except queue.Full:
            continue
        return
    raise _Abandoned
