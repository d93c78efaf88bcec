"""Two hands: the same items, in order, bounded; an error on one side ends the other and is raised as it was."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from spikevrt.restore.prefetch import ahead, in_background


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()} & {"ahead", "in_background"}


def test_items_come_in_order_made_by_another_thread():
    makers = []

    def items() -> Iterator[int]:
        for i in range(7):
            makers.append(threading.current_thread().name)
            yield i

    assert list(ahead(items(), 2)) == list(range(7))
    assert set(makers) == {"ahead"} and not threads()


def test_the_maker_is_at_most_so_many_items_ahead_and_goes_when_the_caller_does():
    made = []

    def items() -> Iterator[int]:
        for i in itertools.count():
            made.append(i)
            yield i

    taken = ahead(items(), 3)
    assert next(taken) == 0
    time.sleep(0.2)
    assert len(made) <= 5  # one taken, three waiting, one in its hand
    taken.close()
    assert not threads()


def test_an_error_of_the_maker_comes_after_what_it_made():
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("gone")

    taken = ahead(items(), 1)
    assert next(taken) == 1
    with pytest.raises(KeyError, match="gone"):
        next(taken)


def test_what_is_handed_over_is_consumed_in_order_before_the_block_ends():
    seen = []
    with in_background(lambda items: seen.extend(items), 2) as hand_over:
        for i in range(9):
            hand_over(i)
    assert seen == list(range(9)) and not threads()


def test_an_error_of_the_consumer_is_raised_by_a_later_hand_over_or_the_end():
    def consume(items: Iterator[int]) -> None:
        next(items)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), in_background(consume, 1) as hand_over:
        for i in itertools.count():
            hand_over(i)
    with pytest.raises(OSError, match="disk full"), in_background(consume, 4) as hand_over:
        hand_over(0)
    assert not threads()


def test_where_the_block_fails_the_consumer_does_not_take_the_end_for_a_good_one():
    finished = []

    def consume(items: Iterator[int]) -> None:
        finished.extend(items)
        finished.append("written")

    with pytest.raises(ZeroDivisionError), in_background(consume, 1) as hand_over:
        hand_over(1)
        raise ZeroDivisionError
    assert finished == [1] or finished == []
    assert "written" not in finished


def test_a_consumer_that_ends_early_is_an_error():
    with pytest.raises(RuntimeError, match="ended before its items did"):
        with in_background(lambda items: None, 1) as hand_over:
            for i in itertools.count():
                hand_over(i)
