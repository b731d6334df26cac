"""What the few-shot and the batch protocol share: rows are computed part by part, and those of an earlier run are kept.

A row is kept in a journal beside the tables, under a hash of everything that it depends on: the method with its
settings, the pictures, and the numbers of the protocol. So the same command goes on after an interruption, and more
seeds or another method compute only what is new. A method that cannot do a part of the work is left out there, with the
reason, and the others go on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Generic, TypeVar

from blemish.datasets import Sample
from blemish.detector import Detector
from blemish.errors import BlemishError, OutputError
from blemish.outputs.journal import RunFolder, file_key, result_settings, settings_fingerprint
from blemish.types import PathLike

R = TypeVar("R")


@dataclass(frozen=True)
class Part(Generic[R]):
    """Rows of one method on one category, which are computed together."""

    method: str
    category: str
    settings: Sequence[Mapping[str, Any]]
    """For each row all that it depends on, JSON-able."""
    steps: int
    """Steps of progress."""
    compute: Callable[[Sequence[int], Callable[[], object]], Iterator[R]]
    """Yields the rows of these numbers in order; the second argument is called for each step."""


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """What became of the parts."""

    rows: tuple[R, ...]
    failures: tuple[str, ...]
    """A sentence for each part that could not be completed."""


def run_parts(
    name: str,
    row_type: type[R],
    parts: Sequence[Part[R]],
    out: PathLike | None,
    on_progress: Callable[[], object],
) -> Outcome[R]:
    """Compute the rows that an earlier run into the folder has not completed.

    Args:
        name: Name of the journal without suffix.
        row_type: Dataclass of the rows.
        parts: What is to be computed.
        out: Folder of the journal; None keeps nothing.
        on_progress: Called for each step.

    Raises:
        OutputError: The folder cannot be written to.
        KeyboardInterrupt: Somebody stopped it; the message says what is kept.
    """
    with contextlib.ExitStack() as stack:
        journal = None
        values: dict[str, R] = {}
        if out is not None:
            folder = stack.enter_context(RunFolder(out))
            journal = folder.journal(f"{name}.jsonl", itemgetter("key"), lambda line: _row(row_type, line["row"]))
            values.update(journal.values)
        keys = [[settings_fingerprint(settings) for settings in part.settings] for part in parts]
        failures: list[str] = []
        try:
            for part, own in zip(parts, keys, strict=True):
                missing = [number for number, key in enumerate(own) if key not in values]
                taken = 0

                def step() -> None:
                    nonlocal taken
                    taken += 1
                    on_progress()

                try:
                    rows = part.compute(missing, step) if missing else iter(())
                    for number, row in zip(missing, rows, strict=True):
                        values[own[number]] = row
                        if journal is not None:
                            journal.append({"key": own[number], "row": _values(row)})
                except OutputError:
                    raise
                except BlemishError as error:
                    failures.append(f"{part.method} cannot do {part.category}: {error}")
                for _ in range(part.steps - taken):
                    on_progress()
        except KeyboardInterrupt:
            everything = [key for own in keys for key in own]
            done = sum(key in values for key in everything)
            rows_done = f"interrupted: {done} of {len(everything)} rows are finished"
            kept = (
                "nothing is kept without --out"
                if out is None
                else f"they are kept in {out}, and the same command goes on from there"
            )
            raise KeyboardInterrupt(f"{rows_done}; {kept}.") from None
        return Outcome(tuple(values[key] for own in keys for key in own if key in values), tuple(failures))


def method_settings(detector: Detector) -> dict[str, Any]:
    """Return what a detector's scores depend on."""
    return result_settings(detector.provenance)


def picture_keys(samples: Sequence[Sample]) -> str:
    """Return a hash of pictures with their labels and masks, in order."""
    facts = []
    for sample in samples:
        file = file_key(sample.path)
        masks = None if sample.masks is None else [str(mask) for mask in sample.masks]
        facts.append([str(sample.path), file and (file.size, file.modified), sample.label, sample.object_name, masks])
    return settings_fingerprint({"pictures": facts})


def _values(row: Any) -> dict[str, Any]:
    values = dataclasses.asdict(row)
    return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in values.items()}


def _row(row_type: type[R], values: Mapping[str, Any]) -> R:
    """Return a row from a line; None is nan in a field of numbers. Raises KeyError for a missing field."""
    fields = {entry.name: entry.type for entry in dataclasses.fields(row_type)}  # type: ignore[arg-type]
    return row_type(
        **{n: math.nan if values[n] is None and kind == "float" else values[n] for n, kind in fields.items()}
    )
