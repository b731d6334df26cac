"""Threads around the model: prefetching before it, background writing after it, and a map over CPU cores within it.

Threads do not survive a fork: `check_not_forked` says so before a model hangs.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias, TypeVar

from blemish.errors import UsageError

if TYPE_CHECKING:
    import torch

S = TypeVar("S")
T = TypeVar("T")

#: Threads that read and resize images. More of them would only compete for the same cores.
READER_THREADS = max(1, min(4, os.cpu_count() or 1))
#: Threads that draw and encode results. More of them would only compete for the same cores.
WRITER_THREADS = max(1, min(4, os.cpu_count() or 1))
#: Pixels of all results that wait for a background writer; a larger result waits alone.
MAX_PENDING_PIXELS = 64_000_000
#: Results that wait for a background writer. A batch arrives all at once, so fewer would stall the model after each.
MAX_PENDING = 64
#: Seconds that a prefetching thread waits on a full queue before it checks whether the consumer still exists.
_POLL_SECONDS = 0.1

_Results: TypeAlias = "list[T | BaseException]"

Commit: TypeAlias = Callable[[], object]
"""The last step of a background task; commits run one at a time and in submission order."""


#: The process in which PyTorch computed first.
_first_process: int | None = None


def check_not_forked() -> None:
    """Note that PyTorch computes in this process. Call it before a model does.

    PyTorch's threads do not survive a fork, and a forked process waits for them for ever. With one thread it has none.

    Raises:
        UsageError: A model was loaded, then the process forked, and this is the new process.
    """
    global _first_process
    import torch

    if _first_process is None:
        _first_process = os.getpid()
    if _first_process != os.getpid() and torch.get_num_threads() > 1:
        raise UsageError(
            "this process was forked from one that had loaded a model, and PyTorch would hang in it: load models only "
            "after the fork, start processes with multiprocessing's 'spawn', or call torch.set_num_threads(1) here"
        )


def prefetch(
    sources: Iterable[S],
    prepare: Callable[[S], Generator[T, None, None]],
    max_ahead: int,
    *,
    threads: int = READER_THREADS,
) -> Generator[T | BaseException, None, None]:
    """Prepare the items of an iterable in threads and yield the results in order.

    The iterable itself is advanced in a thread of its own, so that a slow one (a camera) blocks nobody.

    Args:
        sources: Any number of items.
        prepare: Yields the results of one item; called in threads.
        max_ahead: Items that may wait for the consumer, at least 1.
        threads: Items that are prepared at the same time. With more than one, an item is complete before its first
            result is yielded; with one, results are yielded as they come.

    Yields:
        The results in order. An item that fails yields its exception, and the next item follows. An exception of
        the iterable comes last.
    """
    ready: queue.Queue[_Results[T] | Future[_Results[T]] | None] = queue.Queue(maxsize=max_ahead)
    closed = threading.Event()

    def put(results: _Results[T] | Future[_Results[T]] | None) -> bool:
        while not closed.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(results, timeout=_POLL_SECONDS)
                return True
        return False

    def pieces(source: S) -> Iterator[T | BaseException]:
        try:
            with contextlib.closing(prepare(source)) as generator:
                yield from generator
        except Exception as error:  # the consumer decides which errors end the run
            yield error

    def all_pieces(source: S) -> list[T | BaseException]:
        return list(pieces(source))

    def read() -> None:
        try:
            for source in sources:
                if threads > 1:
                    if not put(pool.submit(all_pieces, source)):
                        return
                elif not all(put([item]) for item in pieces(source)):
                    return
            put(None)
        except BaseException as error:
            put([error])
            put(None)

    pool = ThreadPoolExecutor(threads, thread_name_prefix="blemish-decoder")
    threading.Thread(target=read, name="blemish-reader", daemon=True).start()
    try:
        while (results := ready.get()) is not None:
            yield from results.result() if isinstance(results, Future) else results
    finally:
        closed.set()
        pool.shutdown(wait=False, cancel_futures=True)


class BackgroundWriter:
    """Run tasks in threads while the caller goes on, and commit their results in submission order.

    A task runs in a thread and returns a commit, a function without arguments. Commits run one at a time, so only the
    tasks themselves have to be thread-safe.

    Use it as a context manager: on exit everything has been committed. After an error or an interrupt, tasks that have
    begun are finished and committed, and the others are dropped. `submit` or the exit raises the first error.

    Args:
        threads: Number of threads.
        max_pending: Tasks that may wait.
        max_pixels: Total size of the tasks that may wait.
    """

    def __init__(
        self,
        *,
        threads: int = WRITER_THREADS,
        max_pending: int = MAX_PENDING,
        max_pixels: int = MAX_PENDING_PIXELS,
    ) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="blemish-writer")
        self._max_pending, self._max_pixels = max_pending, max_pixels
        self._changed = threading.Condition()
        self._pending: dict[int, int] = {}  # number of an unfinished task -> its size
        self._commits: dict[int, Commit | None] = {}  # waiting for their turn; None for a failed task
        self._submitted = self._turn = 0
        self._error: BaseException | None = None

    def submit(self, task: Callable[[], Commit], pixels: int = 0) -> None:
        """Queue a task; block while too many wait.

        Args:
            task: Thread-safe; returns its commit.
            pixels: What the task holds in memory.

        Raises:
            BaseException: The first error of an earlier task or commit.
        """
        with self._changed:
            while self._error is None and self._is_full(pixels):
                self._changed.wait()
            if self._error is not None:
                raise self._error
            number = self._submitted
            self._submitted += 1
            self._pending[number] = pixels
        self._pool.submit(self._run, number, task)

    def _is_full(self, pixels: int) -> bool:
        sizes = self._pending.values()
        return len(sizes) >= self._max_pending or (len(sizes) > 0 and sum(sizes) + pixels > self._max_pixels)

    def _run(self, number: int, task: Callable[[], Commit]) -> None:
        if self._error is not None:
            return
        commit: Commit | None = None
        try:
            commit = task()
        except BaseException as error:  # raised in the caller's thread
            self._fail(error)
        with self._changed:
            self._commits[number] = commit
            while self._turn in self._commits:
                turn = self._turn
                self._turn += 1
                ready = self._commits.pop(turn)
                try:
                    if ready is not None:
                        ready()
                except BaseException as error:
                    self._fail(error)
                del self._pending[turn]
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


def num_workers(parts: int, device: torch.device) -> int:
    """Return how many parts of a batch to compute at once: a divisor of PyTorch's thread count, 1 on a GPU.

    It is also 1 outside `torch.inference_mode` and under autocast, whose state belongs to the calling thread.
    """
    import torch

    if device.type != "cpu" or not torch.is_inference_mode_enabled() or torch.is_autocast_enabled("cpu"):
        return 1
    threads = torch.get_num_threads()
    return max(n for n in range(1, max(1, min(parts, threads)) + 1) if threads % n == 0)


def parallel_map(function: Callable[[S], T], parts: Iterable[S], workers: int) -> list[T]:
    """Return `[function(part) for part in parts]`, computed by several workers that share the caller's threads.

    The matrix products of a small vision tower are too short to be split over cores: it is faster to give each core
    images of its own than to synchronise all cores after every product.
    """
    if workers == 1:
        return [function(part) for part in parts]

    import torch

    def run(part: S) -> T:
        with torch.inference_mode():  # a thread does not inherit the mode of its caller
            return function(part)

    return list(_pool(os.getpid(), workers, torch.get_num_threads()).map(run, parts))


@lru_cache(maxsize=8)
def _pool(process: int, workers: int, threads: int) -> ThreadPoolExecutor:
    """Return a pool whose workers have `threads // workers` PyTorch threads each.

    `process` is part of the key because a forked process does not inherit the threads of its parent.
    """
    import torch

    started = threading.Barrier(workers + 1)

    def begin() -> None:
        torch.set_num_threads(threads // workers)
        torch.get_num_threads()  # until a thread asks, it follows whatever any thread sets
        started.wait()

    pool = ThreadPoolExecutor(workers, thread_name_prefix="blemish-tower", initializer=begin)
    for _ in range(workers):
        pool.submit(int)
    started.wait()
    # The count is each thread's own, but new threads start with the value that was set last.
    torch.set_num_threads(threads)
    return pool
