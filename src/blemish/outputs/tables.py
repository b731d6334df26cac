"""Tables of results, made from journal lines (`Detection.to_dict()` with "error"): CSV for people, Parquet, COCO."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
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
    "mask_threshold": float,
    "profile": str,
    "run": str,
    "date": str,
}
"""Columns of Parquet with their types; null where there is no value."""

CSV_COLUMNS: dict[str, Callable[[Row], object]] = {
    "name": lambda row: row["name"],
    "score": lambda row: _number(row["score"], ".6f"),
    "verdict": lambda row: row["verdict"],
    "p_value": lambda row: _number(row["p_value"], ".3g"),
    "regions": lambda row: row["regions"],
    "overlay": lambda row: row["overlay"],
    "error": lambda row: row["error"],
    "notes": lambda row: row["notes"],
    "threshold": lambda row: _number(row["threshold"], ".6f"),
    "review_threshold": lambda row: _number(row["review_threshold"], ".6f"),
    "mask_threshold": lambda row: _number(row["mask_threshold"], ".6f"),
    "peak": lambda row: _number(row["peak"], ".4f"),
    "width": lambda row: row["width"],
    "height": lambda row: row["height"],
    "time": lambda row: _number(row["time"], ".3f"),
    "method": lambda row: row["method"],
    "profile": lambda row: row["profile"],
    "backbone": lambda row: row["backbone"],
    "weights": lambda row: row["weights"],
    "run": lambda row: row["run"],
    "date": lambda row: row["date"],
    "seconds": lambda row: _number(row["seconds"], ".3f"),
    "path": lambda row: row["path"],
}
"""Columns of CSV, what people look for first; numbers are rounded, and empty where there is none."""

#: Columns that are fields of the provenance.
_OF_PROVENANCE = ("method", "backbone", "backbone_fingerprint", "weights", "profile")
#: With these a spreadsheet begins a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
#: Rows of a Parquet row group, which are in memory together.
_GROUP = 1000


def table_row(line: Row, dates: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the values of `COLUMNS` for one picture, and "name" and "overlay"; of a failure few of them.

    Args:
        line: The journal line.
        dates: Date of each run, by its id.
    """
    run = line.get("run")
    path = line["path"]
    values: dict[str, Any] = {
        "path": path,
        "name": line.get("name") or (None if path is None else PurePath(path).name),
        "overlay": line.get("files", {}).get("overlay"),
        "error": line.get("error"),
        "run": run,
        "date": (dates or {}).get(run or ""),
    }
    if values["error"] is None:
        source = line["provenance"] or {}
        width, height = line["size"]
        values = {
            **line,
            **values,
            "regions": None if line["mask_threshold"] is None else len(line["regions"]),
            "width": width,
            "height": height,
            "seconds": round(line["timing"]["total"], 6),
            **{name: source.get(name) for name in _OF_PROVENANCE},
            "notes": "; ".join(line["notes"]),
        }
    # Lines of earlier versions lack some.
    return {name: values.get(name) for name in (*COLUMNS, "name", "overlay")}


def csv_text(lines: Iterable[Row], dates: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield the lines of a CSV file for people, with a header; text is quoted where necessary.

    Text that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    head: list[object] = list(CSV_COLUMNS)
    for cells in itertools.chain([head], (_csv_cells(line, dates) for line in lines)):
        text = io.StringIO(newline="")
        csv.writer(text).writerow(cells)  # its own line ends, so that a carriage return in a name is quoted
        yield text.getvalue().removesuffix("\r\n") + "\n"


def _csv_cells(line: Row, dates: Mapping[str, str] | None) -> list[object]:
    row = table_row(line, dates)
    return [spreadsheet_cell(of(row)) for of in CSV_COLUMNS.values()]


def write_csv(path: Path, lines: Iterable[Row], dates: Mapping[str, str] | None = None) -> None:
    """Write journal lines as CSV for people: UTF-8 with a byte order mark, which spreadsheets need to see that.

    Args:
        path: The file.
        lines: Journal lines, in the order of the table.
        dates: Date of each run, by its id.

    Raises:
        OutputError: The file cannot be written.
    """

    def fill(stream: IO[bytes]) -> None:
        stream.write(codecs.BOM_UTF8)
        for line in csv_text(lines, dates):
            stream.write(line.encode("utf-8", "backslashreplace"))  # one odd name must not hide the others

    write_atomically(path, fill)


def _number(value: float | None, form: str) -> _Number | None:
    return None if value is None else _Number(format(value, form))


class _Number(str):
    """A number as text; it may begin with a minus."""


def spreadsheet_cell(value: object) -> object:
    """Return text so that no spreadsheet takes it for a formula."""
    is_text = isinstance(value, str) and not isinstance(value, _Number)
    return f"'{value}" if is_text and str(value).startswith(_FORMULA) else value


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
