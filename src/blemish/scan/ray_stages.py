"""The stages of the Ray pipeline: read, score, write; each takes and returns a row of plain values."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from blemish.errors import BlemishError, OutputError, ProfileError, UsageError, WeightsError
from blemish.outputs.journal import settings_fingerprint
from blemish.scan.items import Item
from blemish.scan.plan import Plan
from blemish.scan.rows import PartFacts
from blemish.scan.sources import Fetched, NamedBytes, read_items
from blemish.scan.stores import StoreError, is_url
from blemish.scan.work import Work, all_settings

MAX_PAYLOAD = 256 * 2**20
"""Most bytes of a part that travel from the node that reads to the node that scores; larger parts are read there."""

Row: TypeAlias = dict[str, Any]
"""A row of a Ray data set: "part", what the stage adds, and "error", which is empty or JSON of kind and message."""

_ERRORS = {kind.__name__: kind for kind in (UsageError, WeightsError, ProfileError, OutputError, StoreError)}


def read_part(row: Row, *, plan: str) -> Row:
    """Read the pictures of a part, unless they are local files, which the actor opens itself."""
    return _guarded(row, {"payload": b""}, lambda number: {"payload": _pack(Plan(Path(plan)).items(number))})


class PartScorer:
    """An actor: loads the detectors once, and scores parts."""

    def __init__(self, work: Work, plan: str) -> None:
        from blemish.scan.detectors import Detectors  # only here: the other stages need no model

        self._work, self._plan, self._detectors = work, Plan(Path(plan)), Detectors(work.detectors)
        self._checked = False

    def __call__(self, row: Row) -> Row:
        return _guarded(row, {"rows": b"", "seconds": 0.0}, lambda number: self._score(number, row["payload"]))

    def _score(self, number: int, payload: bytes) -> Row:
        if not self._checked:
            self._check()
        start = time.perf_counter()
        items = self._plan.items(number)
        rows = self._work.score(items, self._detectors, fetched=_unpack(items, payload) if payload else None)
        return {"rows": json.dumps(rows).encode(), "seconds": time.perf_counter() - start}

    def _check(self) -> None:
        """Raise a UsageError unless this node computes as the one that began the scan."""
        if settings_fingerprint(all_settings(self._detectors, self._work.options)) != self._work.settings:
            precision = self._detectors.first.provenance.precision
            raise UsageError(
                f"a worker of the cluster computes otherwise than the process that began the scan (in {precision}, or "
                "with other files): give --precision float32, and the same files on each node"
            )
        self._checked = True


def write_rows(row: Row, *, work: Work) -> Row:
    """Write the rows of a part."""
    return _guarded(
        row,
        {"facts": ""},
        lambda number: {
            "facts": json.dumps(asdict(work.write(number, json.loads(row["rows"]), float(row["seconds"]))))
        },
    )


def facts_of(row: Row) -> PartFacts:
    """Return what a part that went through all stages says about itself.

    Raises:
        BlemishError: What stopped it.
    """
    if row["error"]:
        kind, message = json.loads(row["error"])
        raise _ERRORS.get(kind, BlemishError)(message)
    return PartFacts(**json.loads(row["facts"]))


def _guarded(row: Row, empty: Row, stage: Callable[[int], Row]) -> Row:
    """Run a stage; an error of blemish becomes a value, which the next stages pass on: repeating it would not heal it.

    Args:
        row: What the stage before returned.
        empty: Values in case of an error.
        stage: Takes the number of the part.
    """
    number = int(row["part"])
    error = str(row["error"])
    if not error:
        try:
            return {"part": number, **stage(number), "error": ""}
        except BlemishError as problem:
            error = json.dumps([type(problem).__name__, str(problem)])
    return {"part": number, **empty, "error": error}


def _pack(items: Sequence[Item]) -> bytes:
    """Return the bytes of all pictures as one Arrow stream; empty if the actor has to read them."""
    import pyarrow

    if all(item.kind == "file" and not is_url(item.file) for item in items):
        return b""
    columns: dict[str, list[Any]] = {name: [] for name in ("data", "sha256", "size", "error", "file")}
    total = 0
    for picture in read_items(items):
        data = picture.source.getvalue() if isinstance(picture.source, NamedBytes) else None
        total += len(data or b"")
        if total > MAX_PAYLOAD:
            return b""
        local = picture.source if isinstance(picture.source, str) else None
        for name, value in zip(columns, (data, picture.sha256, picture.size, picture.error, local), strict=True):
            columns[name].append(value)
    types = [pyarrow.large_binary(), pyarrow.string(), pyarrow.int64(), pyarrow.string(), pyarrow.string()]
    table = pyarrow.table(columns, schema=pyarrow.schema(list(zip(columns, types, strict=True))))
    sink = io.BytesIO()
    with pyarrow.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def _unpack(items: Sequence[Item], payload: bytes) -> Iterator[Fetched]:
    import pyarrow

    with pyarrow.ipc.open_stream(payload) as stream:
        rows = stream.read_all().to_pylist()
    for item, row in zip(items, rows, strict=True):
        source = row["file"] if row["data"] is None else NamedBytes(row["data"], item.path)
        yield Fetched(item, source, row["sha256"], row["size"], row["error"])
