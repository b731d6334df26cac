"""Keeping results behind the caller's back: what is slow about it runs in threads, what is left in order."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeAlias

Rest: TypeAlias = Callable[[], object]

#: Threads that draw and encode. More than a few only take turns at the same processor.
WRITERS = max(1, min(4, os.cpu_count() or 1))
#: Pixels of all pictures that wait to be kept; a larger picture waits alone.
PIXELS = 64_000_000
#: As many pictures wait at most: a few batches, which come all at once. With fewer the model would wait for the writers
#: after each batch.
WAITING = 64


class Behind:
    """Takes work while the caller goes on with something else.

    Work runs in threads and leaves a rest, a function without arguments. Rests run one at a time, in the order in
    which their work was put, as soon as that is possible; so only the work has to be safe in threads.

    A context manager. At the end everything is done. After an error or an interrupt, what a thread has begun is
    finished, and so is its rest; what was not begun is dropped. The first error is raised by `put` or at the end.

    Args:
        threads: how many.
        count: of pictures that wait at most.
        limit: of the sizes of all work that is not done.
    """

    def __init__(self, *, threads: int = WRITERS, count: int = WAITING, limit: int = PIXELS) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="blemish-writer")
        self._most, self._limit = count, limit
        self._changed = threading.Condition()
        self._sizes: dict[int, int] = {}  # of what is not done, by number
        self._made: dict[int, Rest | None] = {}  # rests whose turn has not come; None for work that failed
        self._put = self._turn = 0
        self._error: BaseException | None = None

    def put(self, work: Callable[[], Rest], size: int = 0) -> None:
        """Take work, at once or when enough of the earlier is done.

        Args:
            work: safe in a thread.
            size: of what it holds in memory, in pixels.

        Raises:
            whatever earlier work, or its rest, raised.
        """
        with self._changed:
            while self._error is None and self._is_full(size):
                self._changed.wait()
            if self._error is not None:
                raise self._error
            number = self._put
            self._put += 1
            self._sizes[number] = size
        self._pool.submit(self._do, number, work)

    def _is_full(self, size: int) -> bool:
        going = self._sizes.values()
        return len(going) >= self._most or (len(going) > 0 and sum(going) + size > self._limit)

    def _do(self, number: int, work: Callable[[], Rest]) -> None:
        if self._error is not None:
            return
        rest: Rest | None = None
        try:
            rest = work()
        except BaseException as error:  # the caller's, who is in another thread
            self._fail(error)
        with self._changed:
            self._made[number] = rest
            while self._turn in self._made:
                turn = self._turn
                self._turn += 1
                ready = self._made.pop(turn)
                try:
                    if ready is not None:
                        ready()
                except BaseException as error:
                    self._fail(error)
                del self._sizes[turn]
            self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None and self._error is not None:
            raise self._error
