"""Tables of results: CSV, Parquet and COCO, each made from journal lines (`Detection.to_dict()` with "error")."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeAlias

from blemish.errors import UsageError
from blemish.files import write_atomically
from blemish.regions import encode_polygon

Row: TypeAlias = Mapping[str, Any]

COLUMNS: dict[str, type] = {
    "path": str,
    "score": float,
    "label": int,
    "threshold": float,
    "regions": int,
    "peak": float,
    "width": int,
    "height": int,
    "seconds": float,
    "method": str,
    "backbone": str,
    "backbone_fingerprint": str,
    "weights": str,
    "notes": str,
    "error": str,
    "verdict": str,
    "p_value": float,
    "review_threshold": float,
    "time": float,
}
"""Columns of CSV and Parquet with their types; empty (null) where there is no value."""

#: Rows of a Parquet row group, which are in memory together.
_GROUP = 1000


def table_row(line: Row) -> dict[str, Any]:
    """Return the values of `COLUMNS` for one picture; of a failure path and error only."""
    if line.get("error") is not None:
        return {**dict.fromkeys(COLUMNS), "path": line["path"], "error": line["error"]}
    source = line["provenance"] or {}
    width, height = line["size"]
    values = {
        **line,
        "regions": None if line["mask_threshold"] is None else len(line["regions"]),
        "width": width,
        "height": height,
        "seconds": round(line["timing"]["total"], 6),
        **{name: source.get(name) for name in ("method", "backbone", "backbone_fingerprint", "weights")},
        "notes": "; ".join(line["notes"]),
        "error": None,
        "time": line.get("time"),
    }
    return {name: values.get(name) for name in COLUMNS}  # lines of earlier versions lack some


def csv_text(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the lines of a CSV file with a header; text is quoted where necessary, missing values are empty."""
    for values in itertools.chain([list(COLUMNS)], ([row[name] for name in COLUMNS] for row in rows)):
        line = io.StringIO(newline="")
        csv.writer(line, lineterminator="\n").writerow(values)
        yield line.getvalue()


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as CSV in UTF-8. Raises OutputError."""

    def fill(stream: IO[bytes]) -> None:
        for line in csv_text(rows):
            stream.write(line.encode("utf-8", "surrogateescape"))  # names that are not UTF-8 keep their bytes

    write_atomically(path, fill)


def write_parquet(
    path: Path, rows: Iterable[Row], columns: Mapping[str, type] = COLUMNS, metadata: Mapping[str, str] | None = None
) -> None:
    """Write rows as Parquet, one row group at a time.

    Args:
        path: The file.
        rows: A value for each column.
        columns: Type of each column: str, float or int.
        metadata: Texts that the file carries about itself.

    Raises:
        OutputError: The file cannot be written.
        UsageError: pyarrow is missing.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UsageError("Parquet needs pyarrow; run: pip install 'blemish[parquet]'.") from error
    types = {str: arrow.string(), float: arrow.float64(), int: arrow.int64()}
    schema = arrow.schema([(name, types[kind]) for name, kind in columns.items()], metadata=metadata)
    remaining = iter(rows)

    def fill(stream: IO[bytes]) -> None:
        with parquet.ParquetWriter(stream, schema) as file:
            while group := list(itertools.islice(remaining, _GROUP)):
                texts = [{name: _utf8(row[name]) for name in columns} for row in group]
                file.write_table(arrow.Table.from_pylist(texts, schema=schema))

    write_atomically(path, fill)


def _utf8(value: Any) -> Any:
    """Escape what is not valid UTF-8, which Arrow refuses."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def write_coco(path: Path, lines: Callable[[], Iterable[Row]]) -> None:
    """Write the regions of pictures that were scored with a threshold as one COCO file.

    Args:
        path: The file.
        lines: Returns the journal lines; called twice, since only one line at a time is in memory.

    Raises:
        OutputError: The file cannot be written.
    """

    def scored() -> Iterator[tuple[int, Row]]:
        kept = (line for line in lines() if line["error"] is None and line["mask_threshold"] is not None)
        return enumerate(kept, 1)

    def images() -> Iterator[dict[str, Any]]:
        for number, line in scored():
            width, height = line["size"]
            name = {"id": number, "file_name": line["path"], "width": width, "height": height}
            yield {**name, "score": line["score"]}

    def annotations() -> Iterator[dict[str, Any]]:
        ids = itertools.count(1)
        for number, line in scored():
            for region in line["regions"]:
                yield {"id": next(ids), "image_id": number, **_annotation(region, line["size"])}

    def fill(stream: IO[bytes]) -> None:
        head = {"info": {"description": "made by blemish"}, "categories": [{"id": 1, "name": "anomaly"}]}
        stream.write(json.dumps(head)[:-1].encode())
        for name, entries in (("images", images()), ("annotations", annotations())):
            stream.write(f', "{name}": ['.encode())
            for index, entry in enumerate(entries):
                stream.write((b",\n" if index else b"\n") + json.dumps(entry).encode())
            stream.write(b"]")
        stream.write(b"}\n")

    write_atomically(path, fill)


def coco_box(region: Row) -> list[int]:
    """Return a region's box as [x, y, width, height]."""
    x0, y0, x1, y1 = region["box"]
    return [x0, y0, x1 - x0, y1 - y0]


def _annotation(region: Row, size: tuple[int, int]) -> dict[str, Any]:
    """Return one region for COCO, whose polygons cannot have holes: a region with holes is given as run lengths."""
    outline: object = [list(itertools.chain.from_iterable(region["polygon"][0]))]
    return {
        "category_id": 1,
        "bbox": coco_box(region),
        "area": region["area"],
        "segmentation": outline
        if len(region["polygon"]) == 1
        else encode_polygon(region["polygon"], (size[1], size[0])),
        "iscrowd": 0,
        "score": region["peak"],
    }
