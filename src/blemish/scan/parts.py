"""Scoring of one part: read its pictures, score them in fixed batches, return a row for each."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from blemish.concurrency import BackgroundWriter, Commit
from blemish.detector import ScoredImage
from blemish.errors import ImageError
from blemish.scan.detectors import Detectors
from blemish.scan.items import Item
from blemish.scan.options import PartOptions
from blemish.scan.rows import Row, Run, copied_row, failed_row, scored_row
from blemish.scan.sources import Fetched, read_items
from blemish.types import ImageSource


def score_part(
    items: Sequence[Item],
    detectors: Detectors,
    options: PartOptions,
    folder: Path,
    run: Run,
    *,
    fetched: Iterable[Fetched] | None = None,
    on_progress: Callable[[], object] = lambda: None,
) -> list[Row]:
    """Return a row for each picture of a part, in the part's order.

    Pictures with identical content are scored once. Files of a picture are named by its number within the scan.

    Args:
        items: The pictures, all of one profile.
        detectors: What scores them.
        options: How.
        folder: Folder of the scan, for files of pictures.
        run: The run, as it stands in the rows.
        fetched: The pictures with their bytes, where somebody read them before; None reads them.
        on_progress: Called for each picture.

    Raises:
        StoreError: A store does not answer.
        OutputError: A file cannot be written.
        UsageError: The detector cannot be loaded.
    """
    rows: dict[int, Row] = {}

    def keep(row: Row) -> None:
        rows[row["item"]] = row
        on_progress()

    if problem := detectors.problem(items[0].profile):
        for item in items:
            keep(failed_row(Fetched(item), problem, run))
        return [rows[item.number] for item in items]
    detector = detectors.get(items[0].profile)
    pictures = _Pictures(read_items(items) if fetched is None else fetched)
    name = f"{items[0].number // _FOLDER_SIZE:06d}"

    def save(picture: Fetched, scored: ScoredImage) -> Commit:
        image, detection = scored.finish()
        written = detection.save(folder, options.kinds, picture=image, name=f"{name}/{picture.item.number:09d}")
        files: dict[str, str] = {kind: file.relative_to(folder).as_posix() for kind, file in written.items()}
        row = scored_row(picture, detection.to_dict(), files, run)
        return lambda: keep(row)

    def fail(_: str | None, error: ImageError) -> None:
        row = failed_row(pictures.next(), str(error), run)
        writer.submit(lambda: lambda: keep(row))

    with BackgroundWriter() as writer:
        results = detector.score(pictures.sources(), batch_size=options.batch_size, on_error=fail)
        with contextlib.closing(results):
            for scored in results:
                writer.submit(partial(save, pictures.next(), scored), scored.pixels)
    for picture in pictures.failures:
        keep(failed_row(picture, picture.error or "", run))
    for picture, original in pictures.copies:
        keep(copied_row(picture, rows[original.number], run))
    return [rows[item.number] for item in items]


#: Pictures whose files lie in one folder.
_FOLDER_SIZE = 1000


class _Pictures:
    """The pictures of a part on their way through the score loop, which returns results in order but without names.

    Attributes:
        failures: Pictures without bytes.
        copies: Pictures with the content of an earlier one.
    """

    def __init__(self, fetched: Iterable[Fetched]) -> None:
        self._fetched = fetched
        self._waiting: deque[Fetched] = deque()
        self.failures: list[Fetched] = []
        self.copies: list[tuple[Fetched, Item]] = []

    def sources(self) -> Iterator[ImageSource]:
        """Yield what the score loop reads; advanced in a thread of that loop."""
        originals: dict[str, Item] = {}
        for picture in self._fetched:
            if picture.source is None:
                self.failures.append(picture)
            elif picture.sha256 is not None and picture.sha256 in originals:
                self.copies.append((picture, originals[picture.sha256]))
            else:
                if picture.sha256 is not None:
                    originals[picture.sha256] = picture.item
                self._waiting.append(_without_source(picture))
                yield picture.source

    def next(self) -> Fetched:
        """Return the picture that the next result belongs to."""
        return self._waiting.popleft()


def _without_source(picture: Fetched) -> Fetched:
    """Return a picture without its bytes, which would stay in memory until its row is written."""
    return Fetched(picture.item, None, picture.sha256, picture.size)
