"""The stages of the Ray pipeline: read, score, write; each takes and returns a row of plain values."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from blemish.errors import UsageError
from blemish.outputs.journal import settings_fingerprint
from blemish.scan.items import Item
from blemish.scan.plan import Plan
from blemish.scan.sources import Fetched, NamedBytes, read_items
from blemish.scan.stores import is_url
from blemish.scan.work import Work, all_settings

MAX_PAYLOAD = 256 * 2**20
"""Most bytes of a part that travel from the node that reads to the node that scores; larger parts are read there."""

_Row = dict[str, Any]


def read_part(row: _Row, *, plan: str) -> _Row:
    """Read the pictures of a part, unless they are local files, which the actor opens itself."""
    number = int(row["part"])
    items = Plan(Path(plan)).items(number)
    return {"part": number, "payload": _pack(items)}


class PartScorer:
    """An actor: loads the detectors once, and scores parts."""

    def __init__(self, work: Work, plan: str) -> None:
        from blemish.scan.detectors import Detectors  # only here: the other stages need no model

        self._work, self._plan, self._detectors = work, Plan(Path(plan)), Detectors(work.detectors)
        self._checked = False

    def __call__(self, row: _Row) -> _Row:
        if not self._checked:
            self._check()
        start = time.perf_counter()
        number = int(row["part"])
        items = self._plan.items(number)
        fetched = _unpack(items, row["payload"]) if row["payload"] else None
        rows = self._work.score(items, self._detectors, fetched=fetched)
        return {"part": number, "rows": json.dumps(rows).encode(), "seconds": time.perf_counter() - start}

    def _check(self) -> None:
        """Raise a UsageError unless this node computes as the one that began the scan."""
        if settings_fingerprint(all_settings(self._detectors, self._work.options)) != self._work.settings:
            precision = self._detectors.first.provenance.precision
            raise UsageError(
                f"a worker of the cluster computes otherwise than the process that began the scan (in {precision}, or "
                "with other files): give --precision float32, and the same files on each node"
            )
        self._checked = True


def write_rows(row: _Row, *, work: Work) -> _Row:
    """Write the rows of a part."""
    facts = work.write(int(row["part"]), json.loads(row["rows"]), float(row["seconds"]))
    return {"facts": json.dumps(asdict(facts))}


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
