"""Stop a run politely: the first SIGINT or SIGTERM is a request, the second acts as ever."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Inside the block, `signal_name` is the name of the first signal that came (in the main thread only)."""

    def __init__(self) -> None:
        self.signal_name = ""
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._former[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.signal_name = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}


def reset_worker_signals(worker_id: int) -> None:
    """In a loader worker: leave both signals to the main process, which still needs clips for the step in hand.

    Schedulers send them to every process of a job. A worker ends when the main process does.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
