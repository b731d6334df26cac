"""Keeping writer: in threads, in order, bounded, and nothing that was begun is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial

import pytest

from blemish.concurrency import BackgroundWriter
from blemish.errors import OutputError


def put_all(works: Iterable[Callable[[], Callable[[], object]]], threads: int) -> None:
    with BackgroundWriter(threads=threads) as writer:
        for work in works:
            writer.submit(work)


@pytest.mark.parametrize("threads", [1, 3])
def test_rests_run_in_order_however_long_the_work_takes(threads: int) -> None:
    done: list[int] = []

    def work(number: int):
        time.sleep(0.01 * (number % 3 == 0))
        return partial(done.append, number)

    put_all([partial(work, number) for number in range(12)], threads)
    assert done == list(range(12))


def test_work_runs_at_once_and_rests_do_not_wait_for_more_of_it() -> None:
    together, noted = threading.Barrier(2), threading.Event()

    def work():
        together.wait(timeout=60)
        return noted.set

    with BackgroundWriter(threads=2) as writer:
        writer.submit(work)
        writer.submit(work)
        assert noted.wait(timeout=60)


def test_is_bounded_by_number_and_by_size() -> None:
    begun, go_on = [], threading.Event()

    def work():
        begun.append(1)
        assert go_on.wait(timeout=60)
        return lambda: None

    def put_six(writer: BackgroundWriter, size: int, put: list[int]) -> None:
        for number in range(6):
            writer.submit(work, size)
            put.append(number)

    for size, most in ((0, 4), (60, 1)):
        go_on.clear()
        put: list[int] = []
        with BackgroundWriter(threads=2, max_pending=4, max_pixels=100) as writer:
            caller = threading.Thread(target=put_six, args=(writer, size, put))
            caller.start()
            time.sleep(0.05)
            assert len(put) == most
            go_on.set()
            caller.join(timeout=60)
        assert put == list(range(6))


def test_a_size_beyond_the_limit_goes_alone() -> None:
    done: list[int] = []
    with BackgroundWriter(threads=2, max_pixels=10) as writer:
        for number in range(3):
            writer.submit(lambda number=number: partial(done.append, number), 1000)
    assert done == [0, 1, 2]


@pytest.mark.parametrize("where", ["work", "rest"])
@pytest.mark.parametrize("kind", [OutputError, KeyboardInterrupt])
def test_the_first_error_is_raised_and_what_was_begun_is_kept(where: str, kind: type[BaseException]) -> None:
    done: list[int] = []
    all_begun = threading.Barrier(3)

    def fail() -> None:
        raise kind("the disk is full")

    def work(number: int):
        all_begun.wait(timeout=60)
        if number == 0 and where == "work":
            fail()
        return fail if number == 0 else partial(done.append, number)

    with pytest.raises(kind, match="disk is full"):
        put_all([partial(work, number) for number in range(3)], threads=3)
    assert done == [1, 2]


def test_nothing_is_begun_after_an_error() -> None:
    begun: list[int] = []

    def work(number: int):
        begun.append(number)
        raise OutputError("the disk is full")

    with pytest.raises(OutputError):
        put_all([partial(work, number) for number in range(100)], threads=1)
    assert begun == [0]


def test_an_error_of_the_caller_drops_what_was_not_begun() -> None:
    begun, going = threading.Event(), threading.Event()
    done: list[int] = []

    def work(number: int):
        begun.set()
        assert going.wait(timeout=60)
        return partial(done.append, number)

    def works():
        yield partial(work, 0)
        yield partial(work, 1)
        assert begun.wait(timeout=60)
        threading.Timer(0.05, going.set).start()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        put_all(works(), threads=1)
    assert done == [0]
