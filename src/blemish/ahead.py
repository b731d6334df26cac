"""Reading ahead: pictures are prepared in threads while the model computes, and handed over in their order."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias, TypeVar

S = TypeVar("S")
T = TypeVar("T")

#: Threads that read and resize. More than a few only take turns at the same processor.
READERS = max(1, min(4, os.cpu_count() or 1))
#: How long a thread waits on a queue before it looks whether the other side is still there, in seconds.
_PATIENCE = 0.1

_Made: TypeAlias = "list[T | BaseException]"


def read_ahead(
    sources: Iterable[S], prepare: Callable[[S], Generator[T, None, None]], ahead: int, *, readers: int = READERS
) -> Generator[T | BaseException, None, None]:
    """Prepare what comes out of an iterable, at most `ahead` before the one being asked for and one more.

    The iterable is asked in a thread of its own, so that a slow one (a camera) keeps nobody waiting.

    Args:
        sources: any number of them.
        prepare: gives what is made of a source, piece by piece; called in threads.
        ahead: at least 1.
        readers: sources that are prepared at once. Then all of a source is made before the first piece is handed over;
            1 hands over piece by piece.

    Yields:
        Pieces in their order. In place of those that could not be made the error, after which the next source follows;
        an error of the iterable itself comes last.
    """
    ready: queue.Queue[_Made[T] | Future[_Made[T]] | None] = queue.Queue(maxsize=ahead)
    gone = threading.Event()

    def put(made: _Made[T] | Future[_Made[T]] | None) -> bool:
        while not gone.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(made, timeout=_PATIENCE)
                return True
        return False

    def pieces(source: S) -> Iterator[T | BaseException]:
        try:
            with contextlib.closing(prepare(source)) as made:
                yield from made
        except Exception as error:  # the caller's: it is he who decides which of them end everything
            yield error

    def all_pieces(source: S) -> list[T | BaseException]:
        return list(pieces(source))

    def read() -> None:
        try:
            for source in sources:
                if readers > 1:
                    if not put(pool.submit(all_pieces, source)):
                        return
                elif not all(put([piece]) for piece in pieces(source)):
                    return
            put(None)
        except BaseException as error:
            put([error])
            put(None)

    pool = ThreadPoolExecutor(readers, thread_name_prefix="blemish-decoder")
    threading.Thread(target=read, name="blemish-reader", daemon=True).start()
    try:
        while (made := ready.get()) is not None:
            yield from made.result() if isinstance(made, Future) else made
    finally:
        gone.set()
        pool.shutdown(wait=False, cancel_futures=True)
