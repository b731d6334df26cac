"""A scan: the parts of a plan, scored one after another or by a Ray cluster, each written when it is complete.

with Scan(plan_options, "out", detector_options) as scan:
    scan.execute()
scan.summary()
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from blemish.errors import UsageError
from blemish.outputs.results import now, run_id
from blemish.scan.detectors import Detectors
from blemish.scan.folder import ScanFolder, Shard
from blemish.scan.options import DetectorOptions, PartOptions
from blemish.scan.plan import PlanOptions, has_changed
from blemish.scan.rows import PartFacts, Run, failed_items, read_rows
from blemish.scan.work import Work, all_settings
from blemish.types import PathLike


class Scan:
    """A scan of one process, or its share of an array. Use it as a context manager.

    Args:
        sources: What is scanned, and how it is split.
        folder: Folder for results, created if it does not exist.
        detectors: How the detectors are loaded.
        options: How pictures are scored.
        shard: Share of this process.
        on_item: Called for each picture that is listed while the plan is made.

    Attributes:
        plan: The plan.
        new: Whether the plan was made now.
        run: Identifies this run in the rows.
        finished: What each finished part of the shard says about itself, by its number.
        todo: Parts of the shard that are still to be scored.
        scored: Number of pictures that this run took up.

    Raises:
        UsageError: A source does not exist, something cannot be loaded, or the folder holds another scan.
        StoreError: A store does not answer.
        OutputError: The folder cannot be written to, or another process writes the same shard.
    """

    def __init__(
        self,
        sources: PlanOptions,
        folder: PathLike,
        detectors: DetectorOptions | None = None,
        options: PartOptions | None = None,
        *,
        shard: Shard | None = None,
        on_item: Callable[[], object] = lambda: None,
    ) -> None:
        self.sources, self.options, self.shard = sources, options or PartOptions(), shard or Shard()
        self.detectors = Detectors(detectors or DetectorOptions())
        date = now()
        self.run = Run(run_id(date), date)
        self.finished: dict[int, PartFacts] = {}
        self.scored = 0
        self._open = ExitStack()
        self._start = time.perf_counter()
        try:
            self.folder = self._open.enter_context(ScanFolder(Path(folder), self.shard))
            self.plan, self.new = self.folder.plan(sources, on_item)
            settings = self.folder.fix_settings(all_settings(self.detectors, self.options))
            self._check_kinds()
        except BaseException:
            self._open.close()
            raise
        self.work = Work(
            folder=str(self.folder.path.absolute()),
            detectors=self.detectors.options,
            options=self.options,
            plan=self.plan.fingerprint,
            settings=settings,
            run=self.run,
        )
        for number in range(len(self.plan)):
            if number in self.shard and (facts := self.folder.facts(number, self.work.plan, settings)) is not None:
                self.finished[number] = facts
        self.todo = [number for number in range(len(self.plan)) if number in self.shard and number not in self.finished]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def change(self) -> str | None:
        """Return a sentence if the sources changed since the plan was made; None if not, or if it was made now.

        The processes of an array leave that to the first one.
        """
        return None if self.new or self.shard.index > 1 else has_changed(self.plan, self.sources)

    def execute(
        self,
        on_part: Callable[[PartFacts], object] = lambda facts: None,
        on_progress: Callable[[], object] = lambda: None,
    ) -> None:
        """Score what is to be done in this process, and write each part when it is complete.

        Args:
            on_part: Called for each part that was written.
            on_progress: Called for each picture.

        Raises:
            OutputError: A part cannot be written; those before stay.
            StoreError: A store does not answer; the parts before stay.
        """
        for number in self.todo.copy():
            start = time.perf_counter()
            rows = self.work.score(self.plan.items(number), self.detectors, on_progress=on_progress)
            self.take(self.work.write(number, rows, time.perf_counter() - start), len(rows))
            on_part(self.finished[number])

    def retry_failed(
        self,
        on_part: Callable[[PartFacts], object] = lambda facts: None,
        on_progress: Callable[[], object] = lambda: None,
    ) -> None:
        """Score the failures of finished parts once more, and nothing else; arguments and errors as in `execute`."""
        for number in sorted(self.finished):
            if not self.finished[number].failed:
                continue
            start = time.perf_counter()
            rows = {row["item"]: row for row in read_rows(self.folder.path, number)}
            items = failed_items(self.plan.items(number), list(rows.values()))
            repeated = self.work.score(items, self.detectors, on_progress=on_progress)
            rows |= {row["item"]: row for row in repeated}
            seconds = self.finished[number].seconds + time.perf_counter() - start
            self.take(self.work.write(number, list(rows.values()), seconds), len(repeated))
            on_part(self.finished[number])

    def take(self, facts: PartFacts, scored: int) -> None:
        """Record a part that was written.

        Args:
            facts: What it says about itself.
            scored: Number of its pictures that this run took up.

        Raises:
            OutputError: The journal cannot be written.
        """
        self.folder.record(facts)
        self.scored += scored
        self.finished[facts.part] = facts
        if facts.part in self.todo:
            self.todo.remove(facts.part)

    def failures(self, limit: int) -> list[tuple[str, str]]:
        """Return path and reason of the first failures of finished parts of the shard.

        Args:
            limit: Most of them.
        """
        result: list[tuple[str, str]] = []
        for number in sorted(number for number, facts in self.finished.items() if facts.failed):
            rows = read_rows(self.folder.path, number)
            result += [(str(row["path"]), str(row["error"])) for row in rows if row["error"] is not None]
            if len(result) >= limit:
                break
        return result[:limit]

    def summary(self) -> dict[str, Any]:
        """Return counts of the shard and of this run as JSON-able values."""
        mine = sum(facts.run == self.run.id for facts in self.finished.values())
        seconds = time.perf_counter() - self._start
        return {
            "folder": str(self.folder.path),
            "run": self.run.id,
            "shard": str(self.shard),
            "parts": len(self.finished) + len(self.todo),
            "parts_finished": len(self.finished),
            **_totals(list(self.finished.values())),
            "this_run": {"pictures": self.scored, "parts": mine, "seconds": round(seconds, 3)},
        }

    def _check_kinds(self) -> None:
        if "mask" in self.options.kinds and not self.detectors.options.profiles:
            detector = self.detectors.first
            if detector.threshold is None and detector.mask_threshold is None:
                raise UsageError("masks need a threshold: give --threshold NUMBER or --profile FILE")


def _totals(parts: list[PartFacts]) -> dict[str, int]:
    names = ("pictures", "failed", "copies", "anomalous")
    return {name: sum(getattr(facts, name) for facts in parts) for name in names}
