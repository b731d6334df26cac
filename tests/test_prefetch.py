"""Reading ahead: in order, several at once, bounded, and errors where they belong."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from blemish.concurrency import prefetch


def plainly(source: int) -> Iterator[int]:
    yield source


@pytest.mark.parametrize("readers", [1, 3])
@pytest.mark.parametrize("ahead", [1, 4])
def test_keeps_the_order_however_long_each_takes(readers: int, ahead: int) -> None:
    def slowly(source: int) -> Iterator[int]:
        time.sleep(0.01 * (source % 3 == 0))
        yield source

    assert list(prefetch(range(12), slowly, ahead, threads=readers)) == list(range(12))


def test_prepares_several_at_once() -> None:
    together = threading.Barrier(3)

    def wait(source: int) -> Iterator[int]:
        together.wait(timeout=60)
        yield source

    assert list(prefetch(range(6), wait, 4, threads=3)) == list(range(6))


def test_one_reader_hands_over_piece_by_piece() -> None:
    going_on = threading.Event()

    def pieces(source: int) -> Iterator[str]:
        yield f"{source} first"
        assert going_on.wait(timeout=60)
        yield f"{source} second"

    made = prefetch([1], pieces, 1, threads=1)
    assert next(made) == "1 first"
    going_on.set()
    assert list(made) == ["1 second"]


@pytest.mark.parametrize("readers", [1, 3])
def test_errors_stand_where_their_piece_would(readers: int) -> None:
    broken = ValueError("2 is broken")

    def prepare(source: int) -> Iterator[int]:
        if source == 2:
            raise broken
        yield source

    assert list(prefetch(range(4), prepare, 2, threads=readers)) == [0, 1, broken, 3]


@pytest.mark.parametrize("readers", [1, 3])
def test_an_error_of_the_iterable_comes_last(readers: int) -> None:
    lost = RuntimeError("the camera fell down")

    def camera() -> Iterator[int]:
        yield 0
        raise lost

    assert list(prefetch(camera(), plainly, 2, threads=readers)) == [0, lost]


@pytest.mark.parametrize("readers", [1, 3])
def test_is_bounded_and_ends_with_its_reader(readers: int) -> None:
    taken = []

    def endless() -> Iterator[int]:
        while True:
            taken.append(1)
            yield len(taken)

    before = threading.active_count()
    with contextlib.closing(prefetch(endless(), plainly, 2, threads=readers)) as made:
        for number in range(1, 6):
            next(made)
            assert len(taken) <= number + 2 + 1
    deadline = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before  # those of earlier tests may end meanwhile
