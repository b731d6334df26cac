"""The service without HTTP: pictures are admitted, read, scored and answered, each step in its own threads."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import logging
import math
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from blemish.concurrency import READER_THREADS, WRITER_THREADS
from blemish.detection import Detection
from blemish.detector import AMONG_GOOD, Detector
from blemish.errors import ImageError
from blemish.image_io import LoadedImage, identify, quiet_pillow, read_image
from blemish.serve import batching
from blemish.serve.batching import Abandoned, ModelThread, QueuedPicture
from blemish.serve.bodies import Upload, Waiting
from blemish.serve.drift import Drift, numbers_of
from blemish.serve.errors import ServiceError
from blemish.serve.feedback import Feedback
from blemish.serve.metrics import Metrics
from blemish.serve.options import ServeOptions
from blemish.serve.profiles import Registry, Served
from blemish.serve.responses import Finished
from blemish.serve.watch import Watcher
from blemish.serve.webhook import Webhook
from blemish.types import ImageSource

T = TypeVar("T")

log = logging.getLogger("blemish.serve")

#: Pixels of all pictures that are decoded at the same time; a larger picture is decoded alone.
_DECODED_PIXELS = 128_000_000
#: Changes of profiles that run or wait.
_MAX_BACKGROUND = 4
#: Most seconds of advice to a client that is turned away.
_MAX_RETRY = 30

Build = Callable[[Finished], T]
"""Makes what is answered for a picture; runs in threads."""


class Service:
    """Scores pictures for many clients with one copy of the model.

    Args:
        registry: Profiles and methods in force.
        options: Limits and addresses.

    Attributes:
        registry: As given.
        options: As given.
        metrics: What is counted.
        waiting: Bytes of bodies in memory.
        ready: Whether the model has run once.
        closing: Whether the service is shutting down: what was accepted is finished, and nothing new is accepted.
    """

    def __init__(self, registry: Registry, options: ServeOptions | None = None) -> None:
        self.registry, self.options = registry, options or ServeOptions()
        self.metrics = Metrics()
        self.waiting = Waiting(self.options.max_waiting_bytes)
        self.ready = self.closing = False
        self.model = ModelThread(
            batch_size=self.options.batch_size, wait=self.options.batch_wait, on_batch=self._count_batch
        )
        self._readers = _pool("blemish-reader", READER_THREADS)
        self._finishers = _pool("blemish-finisher", WRITER_THREADS)
        self._clients: Counter[str] = Counter()
        self._decoded = Budget(max(_DECODED_PIXELS, self.options.max_pixels))
        self._seconds_per_picture = 0.1
        self._background = ThreadPoolExecutor(1, thread_name_prefix="blemish-feedback")
        self._in_background = 0
        self.feedback = Feedback(registry, self.options)
        self._drifts = {
            name: Drift(served.detector.profile)
            for name, served in registry.profiles.items()
            if served.detector.profile
        }
        self._webhook: Webhook | None = None
        if self.options.webhook is not None:
            self._webhook = Webhook(self.options.webhook, lambda outcome: self.metrics.webhook.labels(outcome).inc())
        self._watcher: Watcher | None = None
        if self.options.watch is not None and self.options.results is not None:
            self._watcher = Watcher(
                self.options.watch,
                self.options.results,
                lambda: self.registry.find(),
                self.model,
                self._take_line,
                self._observe,
                interval=self.options.watch_interval,
                batch_size=self.options.batch_size,
            )
        self.metrics.queued.set_function(lambda: self.pictures)
        self.metrics.body_bytes.set_function(lambda: self.waiting.bytes)

    # life

    async def start(self) -> None:
        """Start the threads and run the model once, so that the first client does not wait for it."""
        self.model.start()
        grey = LoadedImage(Image.new("RGB", (64, 64), (128, 128, 128)))
        for served in (*self.registry.profiles.values(), *self.registry.methods.values()):
            picture = await self.in_finisher(partial(batching.prepare, served.detector, grey))
            await asyncio.wrap_future(self.model.submit(picture))
        for part in (self._webhook, self._watcher):
            if part is not None:
                part.start()
        self.ready = True
        log.info("The service is ready.")

    async def close(self) -> None:
        """Finish what was accepted and end the threads."""
        self.closing = True
        await asyncio.to_thread(self._end)
        log.info("The service has ended.")

    def _end(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
        self.model.close()
        for pool in (self._readers, self._finishers, self._background):
            pool.shutdown(wait=True, cancel_futures=pool is self._readers)
        if self._webhook is not None:
            self._webhook.close()

    async def in_background(self, function: Callable[[Callable[[], None]], T]) -> T:
        """Run a function that changes or tries a profile; one at a time, beside the model.

        Args:
            function: It gets a check that ends it by an exception once nobody waits for it, or the service closes.

        Raises:
            ServiceError: Others wait already (429), or the service closes (503).
        """
        abandoned = threading.Event()

        def check() -> None:
            if abandoned.is_set():
                raise Abandoned
            if self.closing:
                self.require_ready()

        if self._in_background >= _MAX_BACKGROUND:
            raise ServiceError(429, "Other changes of profiles are waiting already; try again.", retry_after=5)
        self._in_background += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._background, function, check)
        finally:
            abandoned.set()
            self._in_background -= 1

    async def in_finisher(self, function: Callable[[], T]) -> T:
        """Run a function in one of the threads that make answers."""
        return await asyncio.get_running_loop().run_in_executor(self._finishers, function)

    # admission

    @property
    def pictures(self) -> int:
        """Number of pictures that are accepted and not answered yet."""
        return self._clients.total()

    def require_ready(self) -> None:
        """Raise a ServiceError unless the service takes pictures (503)."""
        if self.closing:
            raise ServiceError(503, "The service is shutting down; try again in a moment.", "closing", retry_after=5)
        if not self.ready:
            raise ServiceError(503, "The model is still being loaded; try again.", "not_ready", retry_after=5)

    def require_room(self, client: str, pictures: int = 1) -> None:
        """Raise a ServiceError unless the service takes so many pictures now (429, 503)."""
        self.require_ready()
        retry = min(_MAX_RETRY, max(1, math.ceil(self.pictures * self._seconds_per_picture)))
        if self.pictures + pictures > self.options.queue:
            raise ServiceError(
                429, f"{self.pictures} pictures are waiting already; try again in {retry} s.", retry_after=retry
            )
        own = self.options.client_queue
        if own is not None and self._clients[client] + pictures > own:
            raise ServiceError(
                429,
                f"{self._clients[client]} pictures of yours are waiting already; try again in {retry} s.",
                "client_queue_full",
                retry_after=retry,
            )

    @contextlib.contextmanager
    def admitted(self, client: str, pictures: int) -> Iterator[None]:
        """Hold places in the queue. Raises ServiceError as `require_room` does."""
        self.require_room(client, pictures)
        self._clients[client] += pictures
        try:
            yield
        finally:
            self._clients[client] -= pictures
            if not self._clients[client]:
                del self._clients[client]

    # scoring

    async def detect(
        self, uploads: Sequence[Upload], served: Served, build: Build[T], object_name: str | None = None
    ) -> list[T | ImageError]:
        """Score pictures that were admitted; a picture that cannot be read gives its error.

        Raises:
            UsageError: The object name does not fit.
            ServiceError: The pictures are too large together (413).
        """
        loop = asyncio.get_running_loop()
        sizes = [await loop.run_in_executor(self._readers, _count_pixels, upload.data) for upload in uploads]
        max_pixels = min(self.options.max_pixels, served.detector.max_pixels)
        # What is larger than allowed is refused on its own, without being decoded.
        total = sum(size for size in sizes if size is not None and size <= max_pixels)
        if total > self.options.max_request_pixels:
            raise ServiceError(
                413,
                f"The pictures have {total:,} pixels together, more than {self.options.max_request_pixels:,}; send "
                "fewer at once.",
            )
        tasks = [
            asyncio.create_task(self._detect_one(upload, size, served, build, object_name))
            for upload, size in zip(uploads, sizes, strict=True)
        ]
        try:
            return await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            raise

    async def _detect_one(
        self, upload: Upload, size: int | None, served: Served, build: Build[T], object_name: str | None
    ) -> T | ImageError:
        loop = asyncio.get_running_loop()
        max_pixels = min(self.options.max_pixels, served.detector.max_pixels)
        async with self._decoded.hold(max_pixels if size is None else min(size, max_pixels)):
            self.model.expect(1)
            try:
                picture = await loop.run_in_executor(
                    self._readers, _read, served.detector, upload.data, max_pixels, object_name
                )
                future = self.model.submit(picture)
            except ImageError as error:
                self.metrics.unreadable.inc()
                return error
            finally:
                self.model.expect(-1)
            try:
                scored = await asyncio.wrap_future(future)
            except asyncio.CancelledError:
                picture.abandoned.set()
                raise
            del picture, future

            def finish() -> T:
                finished = Finished(upload.name, *scored.finish())
                self._observe(served, finished.detection, _hash(upload.data))
                if self._webhook is not None:
                    self._webhook.post({"model": served.name, **finished.line()})
                return build(finished)

            return await loop.run_in_executor(self._finishers, finish)

    # what is kept of results

    def drift(self, name: str) -> Drift:
        """Return the drift of a profile in force."""
        return self._drifts[name]

    def forget_drift(self, name: str) -> None:
        """Begin again with the good pictures of the profile that is in force now."""
        profile = self.registry.profile(name).profile
        assert profile is not None
        self._drifts[name] = Drift(profile)

    def _observe(self, served: Served, detection: Detection, content: bytes) -> None:
        """Count a result; in any thread."""
        self.metrics.pictures.labels(served.name, detection.verdict or "none").inc()
        drift = self._drifts.get(served.name)
        # A result of a profile that was replaced meanwhile says nothing about the new one.
        if drift is not None and drift.profile is served.profile:
            numbers = numbers_of(detection, served.detector.limits.roi)
            drift.add(numbers, content, is_good=AMONG_GOOD in detection.notes)

    def _take_line(self, line: Mapping[str, Any]) -> None:
        """Take a result of the watched folder."""
        failed = line["error"] is not None
        self.metrics.watched.labels("unreadable" if failed else "scored").inc()
        if self._webhook is not None:
            self._webhook.post({"name": Path(line["path"]).name, **line})

    def drift_levels(self) -> None:
        """Write the level of each profile into the metrics."""
        numbers = {"unknown": -1, "ok": 0, "watch": 1, "alarm": 2}
        for name, drift in list(self._drifts.items()):
            self.metrics.drift.labels(name).set(numbers[drift.level])

    def _count_batch(self, pictures: int, seconds: float) -> None:
        self.metrics.batches.observe(pictures)
        self.metrics.model_seconds.inc(seconds)
        self._seconds_per_picture += 0.1 * (seconds / pictures - self._seconds_per_picture)


def _hash(data: bytes | npt.NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(data if isinstance(data, bytes) else data.tobytes(), digest_size=16).digest()


class Budget:
    """An amount that tasks share, first come, first served; one that wants more than there is gets all of it."""

    def __init__(self, maximum: int) -> None:
        self._maximum, self._used = maximum, 0
        self._turn, self._freed = asyncio.Lock(), asyncio.Event()

    @contextlib.asynccontextmanager
    async def hold(self, amount: int) -> AsyncIterator[None]:
        """Wait until the amount is free, and hold it."""
        amount = min(amount, self._maximum)
        async with self._turn:
            while self._used + amount > self._maximum:
                self._freed.clear()
                await self._freed.wait()
            self._used += amount
        try:
            yield
        finally:
            self._used -= amount
            self._freed.set()


def _read(detector: Detector, data: ImageSource, max_pixels: int, object_name: str | None) -> QueuedPicture:
    loaded = read_image(data, max_pixels=max_pixels, value_range=detector.value_range)
    return batching.prepare(detector, loaded, object_name)


def _count_pixels(data: bytes | npt.NDArray[np.uint8]) -> int | None:
    """Return the number of pixels of a picture from its header; None if that does not say it."""
    if isinstance(data, np.ndarray):
        return int(data.shape[0] * data.shape[1])
    try:
        with quiet_pillow():
            size: tuple[int, int] = identify(io.BytesIO(data), "the picture", None).size
    except Exception:  # reading it says what is wrong
        return None
    return size[0] * size[1]


def _pool(name: str, threads: int) -> ThreadPoolExecutor:
    """Return a pool whose threads compute with one PyTorch thread each, and leave the cores to the model."""
    return ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=_one_thread)


def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()
