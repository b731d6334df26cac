"""What a process needs to score and write any part of a scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blemish.scan.items import Item
from blemish.scan.options import DetectorOptions, PartOptions
from blemish.scan.rows import PartFacts, Row, Run, make_facts, write_part
from blemish.scan.sources import Fetched

if TYPE_CHECKING:
    from blemish.scan.detectors import Detectors


def all_settings(detectors: Detectors, options: PartOptions) -> dict[str, Any]:
    """Return everything that rows depend on, as JSON-able values."""
    return {**detectors.settings(), "batch_size": options.batch_size, "files": list(options.kinds)}


@dataclass(frozen=True)
class Work:
    """What a process needs to score and write any part of a scan; a value that can be sent to others.

    Attributes:
        folder: Folder of the scan.
        detectors: How the detectors are loaded.
        options: How pictures are scored.
        plan: Fingerprint of the plan.
        settings: Fingerprint of the settings.
        run: The run.
    """

    folder: str
    detectors: DetectorOptions
    options: PartOptions
    plan: str
    settings: str
    run: Run

    def score(
        self,
        items: list[Item],
        detectors: Detectors,
        *,
        fetched: Iterator[Fetched] | None = None,
        on_progress: Callable[[], object] = lambda: None,
    ) -> list[Row]:
        """Return the rows of pictures: see `score_part`."""
        from blemish.scan.parts import score_part  # only here: reading and writing need no model

        return score_part(
            items, detectors, self.options, Path(self.folder), self.run, fetched=fetched, on_progress=on_progress
        )

    def write(self, number: int, rows: list[Row], seconds: float) -> PartFacts:
        """Write a part and return what it says about itself. Raises OutputError."""
        facts = make_facts(number, rows, plan=self.plan, settings=self.settings, seconds=seconds, run=self.run.id)
        write_part(Path(self.folder), rows, facts)
        return facts
