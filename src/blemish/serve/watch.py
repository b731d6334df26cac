"""The watched folder: new pictures in it are scored, and their results written as `blemish detect --out` does.

A picture is taken when its size and date have not changed between two looks. The journal of the results says what is
done, so nothing is scored twice after a restart, not even with another profile; a file that changes is scored again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blemish.detection import Detection
from blemish.detector import Detector, ScoredImage
from blemish.errors import BlemishError, ImageError
from blemish.image_io import SUFFIXES, LoadedImage, natural_key, read_image
from blemish.outputs.journal import FileKey, file_key
from blemish.outputs.run import DetectOptions, DetectRun
from blemish.serve import batching
from blemish.serve.batching import ModelThread
from blemish.serve.profiles import Served
from blemish.types import ImageSource, OnError

log = logging.getLogger("blemish.serve")

#: Seconds between two versions of the tables, which hold all results; the journal is written at once.
_TABLES_SECONDS = 60.0
#: Seconds before the folder is looked at again after an error that concerns all of it.
_PAUSE = 5.0


@dataclass(frozen=True)
class _Watched(ScoredImage):
    """A picture of the folder whose result is shown to somebody when it is finished."""

    on_finish: Callable[[Detection], object]

    def finish(self) -> tuple[LoadedImage, Detection]:
        loaded, detection = super().finish()
        self.on_finish(detection)
        return loaded, detection


class QueuedDetector(Detector):
    """The same detector, whose pictures go through the model's thread, together with those of requests.

    Args:
        detector: The detector.
        model: The thread of the model.
        on_finish: Called with each result, in any thread.
    """

    def __init__(self, detector: Detector, model: ModelThread, on_finish: Callable[[Detection], object]) -> None:
        self.__dict__.update(vars(detector))
        self._detector, self._model, self._on_finish = detector, model, on_finish

    def score(
        self,
        images: Iterable[ImageSource],
        *,
        batch_size: int = 8,
        on_error: OnError | None = None,
        object_name: Any = None,
    ) -> Generator[ScoredImage, None, None]:
        """See `Detector.score`; pictures are read in the caller's thread, a batch ahead of the model."""
        waiting: deque[Future[ScoredImage]] = deque()

        def next_result() -> ScoredImage:
            scored = waiting.popleft().result()
            return _Watched(scored.detector, scored.merger, self._on_finish)

        for source in images:
            try:
                loaded = read_image(source, max_pixels=self.max_pixels, value_range=self.value_range)
                picture = batching.prepare(self._detector, loaded, object_name)
            except ImageError as error:
                while waiting:
                    yield next_result()
                if on_error is None:
                    raise
                on_error(error.path, error)
                continue
            waiting.append(self._model.submit(picture))
            if len(waiting) >= batch_size:
                yield next_result()
        while waiting:
            yield next_result()


class Watcher:
    """Scores what comes into a folder, in a thread of its own.

    Args:
        folder: The folder; its subfolders are not searched.
        results: Folder for results.
        served: Returns what is in force.
        model: The thread of the model.
        on_line: Called with the line of each result, and of each picture that cannot be read.
        observe: Called with each result, in any thread; the bytes identify the picture.
        interval: Seconds between two looks.
        batch_size: Pictures that go through the model together.

    Raises:
        OutputError: The folder for results cannot be written to, or another run is writing to it.
    """

    def __init__(
        self,
        folder: Path,
        results: Path,
        served: Callable[[], Served],
        model: ModelThread,
        on_line: Callable[[Mapping[str, Any]], object],
        observe: Callable[[Served, Detection, bytes], object],
        *,
        interval: float = 1.0,
        batch_size: int = 8,
    ) -> None:
        self._folder, self._results, self._served, self._model = folder, results, served, model
        self._on_line, self._observe = on_line, observe
        self._interval, self._batch_size = interval, batch_size
        self._sizes: dict[str, FileKey] = {}
        self._done: dict[str, FileKey] = {}
        self._current: Served | None = None
        self._unwritten, self._next_tables = False, 0.0
        self._stop = threading.Event()
        self._run = self._open()
        self._thread = threading.Thread(target=self._watch, name="blemish-watcher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Finish the pictures that were taken and end the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            if self._unwritten:
                self._write_tables()
        except BlemishError as error:
            log.error("The tables of the watched folder are not complete: %s", error)
        finally:
            self._run.close()

    def _open(self) -> DetectRun:
        """Open the results with the detector in force."""
        self._current = served = self._served()

        def finish(detection: Detection) -> None:
            self._observe(served, detection, str(detection.path).encode("utf-8", "surrogateescape"))

        options = DetectOptions(batch_size=self._batch_size, root=self._folder)
        run = DetectRun(QueuedDetector(served.detector, self._model, finish), [], self._results, options)
        self._done |= {key.path: key for key in run.finished}
        return run

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                self.look()
            except BlemishError as error:
                log.error("The watched folder has to wait: %s", error)
                self._stop.wait(_PAUSE)
            except Exception:
                log.exception("The watched folder has to wait.")
                self._stop.wait(_PAUSE)

    def look(self) -> int:
        """Score the pictures that are complete and new; return how many were taken."""
        if self._served() is not self._current:
            if self._unwritten:
                self._write_tables()
            self._run.close()
            self._run = self._open()
        paths = self._complete()
        if self._unwritten and time.monotonic() >= self._next_tables:
            self._write_tables()
        if not paths or self._stop.is_set():
            return 0
        self._run.extend(paths)
        self._run.score(self._on_line)
        self._unwritten = True
        self._run.results.clear()
        self._run.failures.clear()
        for path in paths:
            self._done[path] = self._sizes[path]
        return len(paths)

    def _write_tables(self) -> None:
        self._run.write_tables()
        self._unwritten, self._next_tables = False, time.monotonic() + _TABLES_SECONDS

    def _complete(self) -> list[str]:
        """Return the pictures whose size and date have stayed the same since the last look, and that are not done."""
        before, self._sizes = self._sizes, {}
        complete = []
        for entry in self._folder.iterdir():
            if entry.name.startswith(".") or entry.suffix.lower() not in SUFFIXES or not entry.is_file():
                continue
            key = file_key(entry)
            if key is None or key.size == 0:
                continue
            self._sizes[key.path] = key
            if before.get(key.path) == key and self._done.get(key.path) != key:
                complete.append(key.path)
        self._done = {path: key for path, key in self._done.items() if path in self._sizes}
        return sorted(complete, key=natural_key)
