"""The rows of a part: one for each picture, in one Parquet file that says what it is.

The columns are those of `results.parquet` (`blemish.outputs.tables`) and the ones below. Failures are rows with an
error and no score.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from blemish.errors import OutputError
from blemish.outputs.tables import COLUMNS, table_row, write_parquet
from blemish.scan.items import Item
from blemish.scan.sources import Fetched

Row: TypeAlias = dict[str, Any]

SCAN_COLUMNS: dict[str, type] = {
    **COLUMNS,
    "item": int,
    "sha256": str,
    "bytes": int,
    "same_as": str,
    "region_list": str,
    "files": str,
    "provenance": str,
}
"""Columns of a part with their types: those of `results.parquet`, and

- `item`: number of the picture within the scan, from 0;
- `sha256`, `bytes`: hash and size of its content;
- `same_as`: path of an identical picture of the part that was scored in its place;
- `region_list`: its regions as JSON, as in `results.jsonl`;
- `files`: its files below the folder of the scan by kind, as JSON;
- `provenance`: where the score comes from, as JSON.

`profile` is the name that the source gives, or else the profile's file; `run` and `date` are those of the run that
wrote the row.
"""

VARYING = ("seconds", "run", "date")
"""Columns that differ between two runs of one scan. All others are equal, in a killed and an unbroken run."""

_KEY = "blemish-part"


class Run(NamedTuple):
    """A run, as its rows name it."""

    id: str
    date: str
    """When it began, ISO 8601."""


@dataclass(frozen=True)
class PartFacts:
    """What the file of a part says about itself.

    Attributes:
        part: Number of the part, from 0.
        plan: Fingerprint of the plan.
        settings: Fingerprint of the settings.
        pictures: Number of rows.
        failed: Rows with an error.
        copies: Rows of pictures that are identical to another one of the part.
        anomalous: Rows with label 1.
        seconds: Seconds that the part took.
        run: The run that wrote it.
    """

    part: int
    plan: str
    settings: str
    pictures: int
    failed: int
    copies: int
    anomalous: int
    seconds: float
    run: str


def part_path(folder: Path, number: int) -> Path:
    """Return the file of a part."""
    return folder / "parts" / f"part-{number:06d}.parquet"


def scored_row(fetched: Fetched, line: Mapping[str, Any], files: Mapping[str, str], run: Run) -> Row:
    """Return the row of a picture that was scored.

    Args:
        fetched: The picture.
        line: `Detection.to_dict()`.
        files: Its files below the folder of the scan, by kind.
        run: The run.
    """
    item = fetched.item
    return {
        **table_row({**line, "error": None}),
        **_content(fetched, run),
        "path": item.path,
        "region_list": json.dumps(line["regions"]),
        "files": json.dumps(files) if files else None,
        "provenance": json.dumps(line["provenance"], sort_keys=True),
    }


def failed_row(fetched: Fetched, error: str, run: Run) -> Row:
    """Return the row of a picture that cannot be read or scored."""
    return {**dict.fromkeys(SCAN_COLUMNS), **_content(fetched, run), "path": fetched.item.path, "error": error}


def copied_row(fetched: Fetched, original: Row, run: Run) -> Row:
    """Return the row of a picture whose content is that of another one, which was scored."""
    error = original["error"]
    if error is not None:
        error = error.replace(repr(original["path"]), repr(fetched.item.path))
    same = {"path": fetched.item.path, "same_as": original["path"], "seconds": 0.0, "error": error}
    return {**original, **_content(fetched, run), **same}


def _content(fetched: Fetched, run: Run) -> Row:
    item = fetched.item
    return {
        "item": item.number,
        "sha256": fetched.sha256,
        "bytes": fetched.size,
        "same_as": None,
        **({} if item.profile is None else {"profile": item.profile}),
        "run": run.id,
        "date": run.date,
    }


def make_facts(part: int, rows: Sequence[Row], *, plan: str, settings: str, seconds: float, run: str) -> PartFacts:
    """Return what a part of these rows says about itself."""
    return PartFacts(
        part=part,
        plan=plan,
        settings=settings,
        pictures=len(rows),
        failed=sum(row["error"] is not None for row in rows),
        copies=sum(row["same_as"] is not None for row in rows),
        anomalous=sum(row["label"] == 1 for row in rows),
        seconds=round(seconds, 3),
        run=run,
    )


def write_part(folder: Path, rows: Iterable[Row], facts: PartFacts) -> None:
    """Write the file of a part, whole or not at all. Raises OutputError."""
    write_parquet(part_path(folder, facts.part), rows, SCAN_COLUMNS, {_KEY: json.dumps(asdict(facts))})


def read_facts(folder: Path, number: int) -> PartFacts | None:
    """Return what the file of a part says about itself; None if there is none, or it is damaged."""
    from pyarrow import parquet

    path = part_path(folder, number)
    if not path.is_file():
        return None
    try:
        metadata = parquet.read_metadata(path)
        facts = PartFacts(**json.loads(metadata.metadata[_KEY.encode()]))
    except Exception:  # whatever a decoder raises on damaged bytes: the part is done again
        return None
    return facts if facts.part == number and facts.pictures == metadata.num_rows else None


def read_rows(folder: Path, number: int) -> list[Row]:
    """Return the rows of a part. Raises OutputError if its file is damaged."""
    from pyarrow import parquet

    path = part_path(folder, number)
    try:
        rows: list[Row] = parquet.read_table(path).to_pylist()
    except Exception as error:
        raise OutputError(f"{str(path)!r} is damaged; delete it, and run the same command again.", path) from error
    return rows


def failed_items(items: Sequence[Item], rows: Sequence[Row]) -> list[Item]:
    """Return the items of a part whose rows are failures."""
    failed = {row["item"] for row in rows if row["error"] is not None}
    return [item for item in items if item.number in failed]
