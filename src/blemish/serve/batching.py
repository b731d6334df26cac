"""One thread that runs the model, and the queue before it: pictures of several requests go through together."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

import torch

from blemish.concurrency import prefetch
from blemish.detector import Detector, ScoredImage
from blemish.errors import BlemishError
from blemish.image_io import LoadedImage
from blemish.scoring import Prepared
from blemish.tiling import batched

log = logging.getLogger("blemish.serve")


class Abandoned(Exception):
    """Nobody waits for the result any more."""


@dataclass(frozen=True, eq=False)
class QueuedPicture:
    """A picture on its way through the model."""

    detector: Detector
    image: LoadedImage
    prepared: Sequence[Prepared[None]] | None
    """What the model takes; None for a picture in tiles, which are made one by one."""
    object_name: str | None = None
    future: Future[ScoredImage] = field(default_factory=Future)
    abandoned: threading.Event = field(default_factory=threading.Event)
    """Set when nobody waits for the result any more; the model then leaves out the rest of its tiles."""

    @property
    def group(self) -> tuple[int, int]:
        """Pictures of one group can go through the model together: thresholds make no difference to it."""
        return id(self.detector.engine), id(self.detector.memory)


def prepare(detector: Detector, image: LoadedImage, object_name: str | None = None) -> QueuedPicture:
    """Return a picture that is ready for the queue; preprocessing happens here, in the caller's thread.

    Raises:
        UsageError: The object name does not fit.
    """
    if detector.tiling is not None and max(image.size) > detector.tiling.side:
        return QueuedPicture(detector, image, None, object_name)
    return QueuedPicture(detector, image, detector.prepare(image, object_name=object_name), object_name)


class ModelThread:
    """Runs the model in one thread. `submit` and `close` may be called in any.

    A batch waits for pictures only while somebody has announced some with `expect`, so a single client never waits.

    Args:
        batch_size: Most pictures of a batch.
        wait: Seconds that a batch waits for announced pictures, at most.
        on_batch: Called with the number of pictures of each batch and its seconds, in the thread of the model.
    """

    def __init__(
        self, *, batch_size: int = 8, wait: float = 0.01, on_batch: Callable[[int, float], object] = lambda n, s: None
    ) -> None:
        self._batch_size, self._wait, self._on_batch = batch_size, wait, on_batch
        self._queue: deque[QueuedPicture] = deque()
        self._changed = threading.Condition()
        self._expected = 0
        self._closing = False
        self._torch_threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._run, name="blemish-model", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of pictures that wait for the model."""
        return len(self._queue)

    def expect(self, pictures: int) -> None:
        """Announce pictures that are being read, or take back (a negative number) what was announced."""
        with self._changed:
            self._expected += pictures
            self._changed.notify()

    def submit(self, picture: QueuedPicture) -> Future[ScoredImage]:
        """Queue a picture and return its future. A cancelled one is left out.

        Raises:
            RuntimeError: The thread was closed.
        """
        with self._changed:
            if self._closing:
                raise RuntimeError("the model thread is closed")
            self._queue.append(picture)
            self._changed.notify()
        return picture.future

    def close(self) -> None:
        """Finish what was submitted and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        # A thread has its own count, and starts with what any thread set last: those that read pictures set 1.
        torch.set_num_threads(self._torch_threads)
        torch.get_num_threads()
        while (batch := self._next_batch()) is not None:
            batch = [picture for picture in batch if picture.future.set_running_or_notify_cancel()]
            if batch:
                start = time.perf_counter()
                self._score(batch)
                self._on_batch(len(batch), time.perf_counter() - start)
            del batch  # so that no picture stays in memory while the thread waits

    def _next_batch(self) -> list[QueuedPicture] | None:
        """Wait for a batch; None when the thread is to end. The oldest picture is always in it."""
        with self._changed:
            while not self._queue:
                if self._closing:
                    return None
                self._changed.wait()
            end = time.monotonic() + self._wait
            while self._expected > 0 and not self._closing and self._ready() < self._batch_size:
                if not self._changed.wait(end - time.monotonic()) or time.monotonic() >= end:
                    break
            group, batch, others = self._queue[0].group, list[QueuedPicture](), deque[QueuedPicture]()
            while self._queue:
                picture = self._queue.popleft()
                fits = picture.group == group and len(batch) < self._batch_size
                (batch if fits else others).append(picture)
            self._queue = others
            return batch

    def _ready(self) -> int:
        group = self._queue[0].group
        return sum(picture.group == group for picture in self._queue)

    def _score(self, batch: Sequence[QueuedPicture]) -> None:
        """Run one batch; an error ends the pictures that it belongs to, never the thread."""
        whole = [picture for picture in batch if picture.prepared is not None]
        try:
            if whole:
                rows = [row for picture in whole for row in picture.prepared or ()]
                for picture, scored in zip(whole, whole[0].detector.score_prepared(rows), strict=True):
                    # The batch ran by the detector of its first picture; the numbers are the same, the limits its own.
                    picture.future.set_result(ScoredImage(picture.detector, scored.merger))
        except Exception as error:
            _fail(whole, error)
        for picture in batch:
            if picture.prepared is None:
                try:
                    picture.future.set_result(self._score_tiles(picture))
                except Exception as error:
                    _fail([picture], error)

    def _score_tiles(self, picture: QueuedPicture) -> ScoredImage:
        """Run a picture through the model in batches of its tiles, which a thread prepares meanwhile."""
        detector, scored = picture.detector, list[ScoredImage]()
        cut = partial(detector.prepare_tiles, object_name=picture.object_name)
        with contextlib.closing(prefetch([picture.image], cut, self._batch_size, threads=1)) as tiles:
            for batch in batched(tiles, self._batch_size):
                if picture.abandoned.is_set():
                    raise Abandoned
                for tile in batch:
                    if isinstance(tile, BaseException):
                        raise tile
                scored += detector.score_prepared([tile for tile in batch if not isinstance(tile, BaseException)])
        (whole,) = scored
        return whole


def _fail(pictures: Sequence[QueuedPicture], error: Exception) -> None:
    if not isinstance(error, BlemishError | Abandoned):
        log.exception("The model failed on a batch of %d.", len(pictures))
    for picture in pictures:
        if not picture.future.done():
            picture.future.set_exception(error)
