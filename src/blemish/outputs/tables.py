"""Tables of results: JSON lines, CSV, Parquet; one row a picture, written as soon as it is done.

JSON lines hold everything and can be resumed after any crash; CSV and Parquet hold `COLUMNS`.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

from blemish.detection import Detection
from blemish.errors import BlemishError, OutputError, UsageError
from blemish.files import output_error
from blemish.outputs.journal import open_to_append

COLUMNS: dict[str, type] = {
    "path": str,
    "score": float,
    "anomalous": bool,
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
}
"""Columns of CSV and Parquet with their types; empty (null) where there is no value."""

Key = tuple[str, int, int, str]
"""What makes a result reusable: absolute path, bytes, modification time in ns, fingerprint of the settings."""


class Table(Protocol):
    """What all tables share: rows go in one by one, `close` ends the file."""

    def add(self, detection: Detection, *, key: Key | None = None) -> None:
        """Write the row of one picture."""

    def add_error(self, path: str | None, error: BlemishError | str) -> None:
        """Write the row of a picture that failed."""

    def close(self) -> None:
        """End the file; may be called twice."""


def row(detection: Detection) -> dict[str, Any]:
    """The values of `COLUMNS` for one picture."""
    source = detection.provenance
    return {
        "path": detection.path,
        "score": float(detection.score),
        "anomalous": detection.anomalous,
        "threshold": detection.threshold,
        "regions": None if detection.mask is None else len(detection.regions),
        "peak": detection.peak,
        "width": detection.size[0],
        "height": detection.size[1],
        "seconds": round(detection.timing.total, 6),
        "method": source and source.method,
        "backbone": source and source.backbone,
        "backbone_fingerprint": source and source.backbone_fingerprint,
        "weights": source and source.weights,
        "notes": "; ".join(detection.notes),
        "error": None,
    }


def error_row(path: str | None, error: BlemishError | str) -> dict[str, Any]:
    """The values of `COLUMNS` for a picture that failed: path and error only."""
    return {**dict.fromkeys(COLUMNS), "path": path, "error": str(error)}


def settings_fingerprint(settings: Mapping[str, Any]) -> str:
    """16 hex digits over JSON-able settings, whatever their order."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def input_key(path: str | os.PathLike[str], settings: str) -> Key | None:
    """The key of a picture file as it is now; None if it is not there.

    Args:
        path: the picture.
        settings: `settings_fingerprint` of everything that bears on the result.
    """
    absolute = os.path.abspath(path)  # noqa: PTH100 - links stay
    try:
        status = Path(absolute).stat()
    except (OSError, ValueError):
        return None
    return (absolute, status.st_size, status.st_mtime_ns, settings)


def finished(path: str | os.PathLike[str]) -> set[Key]:
    """Keys of the pictures that a JSON-lines file holds results of.

    Pictures that failed are not among them, so that they are tried again; nor is a line that was cut off.

    Raises:
        UsageError: the file is there but cannot be read.
    """
    keys: set[Key] = set()
    try:
        with Path(path).open("rb") as stream:
            for line in stream:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    record = json.loads(line)
                    absolute, size, modified, settings = record["key"]
                    if record.get("error") is None:
                        keys.add((absolute, size, modified, settings))
    except FileNotFoundError:
        return keys
    except OSError as error:
        raise UsageError(f"cannot read {os.fspath(path)!r} to resume ({error.strerror}); check the path.") from error
    return keys


class _Closing:
    """`with` for tables."""

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Lines(_Closing):
    """A text file that rows are appended to, each handed to the system at once: a crash loses none."""

    def __init__(self, path: str | os.PathLike[str], resume: bool) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream: IO[bytes] | None = open_to_append(self.path) if resume else self.path.open("wb")
        except OSError as error:
            raise output_error(self.path, error) from error

    def _write(self, line: bytes) -> None:
        if self._stream is None:
            raise UsageError(f"the table {str(self.path)!r} is closed; open it anew with resume.")
        try:
            self._stream.write(line)
            self._stream.flush()
        except OSError as error:
            # Closed at once, as the stream would try the same bytes again whenever it is let go.
            with contextlib.suppress(OutputError):
                self.close()
            raise output_error(self.path, error) from error

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                stream.close()
            except OSError as error:
                raise output_error(self.path, error) from error


class JsonLines(_Lines):
    """One JSON object a line: `Detection.to_dict()` with "error" and, for resuming, "key".

    Args:
        path: the file.
        resume: append to what is there, less a last line that was cut off; else start anew.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, resume: bool = False) -> None:
        super().__init__(path, resume)

    def add(self, detection: Detection, *, key: Key | None = None) -> None:
        """Write the line of one picture."""
        self.add_record({**detection.to_dict(), "error": None, "key": key})

    def add_error(self, path: str | None, error: BlemishError | str) -> None:
        """Write the line of a picture that failed."""
        self.add_record({"path": path, "error": str(error)})

    def add_record(self, record: Mapping[str, Any]) -> None:
        """Write any JSON-able line."""
        self._write(json.dumps(record, allow_nan=False).encode() + b"\n")


class Csv(_Lines):
    """Comma-separated `COLUMNS` with a header, UTF-8; text is quoted where it must be, missing values are empty.

    Args:
        path: the file.
        resume: append to what is there; else start anew.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, resume: bool = False) -> None:
        super().__init__(path, resume)
        if self._stream is not None and self._stream.tell() == 0:
            self._write_values(list(COLUMNS))

    def add(self, detection: Detection, *, key: Key | None = None) -> None:
        """Write the row of one picture."""
        self.add_record(row(detection))

    def add_error(self, path: str | None, error: BlemishError | str) -> None:
        """Write the row of a picture that failed."""
        self.add_record(error_row(path, error))

    def add_record(self, record: Mapping[str, Any]) -> None:
        """Write any mapping with `COLUMNS` for keys."""
        values = [record.get(column) for column in COLUMNS]
        self._write_values([str(value).lower() if isinstance(value, bool) else value for value in values])

    def _write_values(self, values: list[Any]) -> None:
        line = io.StringIO(newline="")
        csv.writer(line, lineterminator="\n").writerow(values)
        self._write(line.getvalue().encode("utf-8", "surrogateescape"))  # names that are not UTF-8 keep their bytes


class Parquet(_Closing):
    """`COLUMNS` as Parquet, a row group at a time; needs `pip install 'blemish[parquet]'`.

    A Parquet file is readable only once it is closed, so it is written beside its place and moved there by `close`.
    A killed process leaves nothing of it; keep JSON lines as well where that matters.

    Args:
        path: the file.
        resume: take over the rows of the file that is there; else replace it.
        group: rows kept in memory and written together.

    Raises:
        OutputError: the file cannot be written.
        UsageError: pyarrow is missing, or the file to resume is none of these.
    """

    def __init__(self, path: str | os.PathLike[str], *, resume: bool = False, group: int = 1000) -> None:
        try:
            import pyarrow as arrow
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise UsageError("Parquet needs pyarrow; run: pip install 'blemish[parquet]'.") from error
        kinds = {str: arrow.string(), float: arrow.float64(), int: arrow.int64(), bool: arrow.bool_()}
        self.path = Path(path)
        self._arrow = arrow
        self._schema = arrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
        self._rows: list[Mapping[str, Any]] = []
        self._group = max(1, group)
        self._part = self.path.with_name(f".{os.getpid()}-{self.path.name}.part")
        self._file: Any = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = parquet.ParquetWriter(self._part, self._schema)
            if resume and self.path.exists():
                with parquet.ParquetFile(self.path) as old:
                    for index in range(old.num_row_groups):
                        self._file.write_table(old.read_row_group(index).cast(self._schema))
        except OSError as error:
            self._abandon()
            raise output_error(self.path, error) from error
        except (ValueError, arrow.ArrowException) as error:
            self._abandon()
            raise UsageError(f"{str(path)!r} is no Parquet table of blemish to resume; choose another file.") from error

    def add(self, detection: Detection, *, key: Key | None = None) -> None:
        """Write the row of one picture."""
        self.add_record(row(detection))

    def add_error(self, path: str | None, error: BlemishError | str) -> None:
        """Write the row of a picture that failed."""
        self.add_record(error_row(path, error))

    def add_record(self, record: Mapping[str, Any]) -> None:
        """Write any mapping with `COLUMNS` for keys."""
        if self._file is None:
            raise UsageError(f"the table {str(self.path)!r} is closed; open it anew with resume.")
        self._rows.append({name: _text(record.get(name)) for name in COLUMNS})
        if len(self._rows) >= self._group:
            self._flush()

    def close(self) -> None:
        """Write what is left and put the file in its place."""
        if self._file is None:
            return
        if self._rows:
            self._flush()
        try:
            self._file.close()
            self._file = None
            self._part.replace(self.path)
        except OSError as error:
            self._abandon()
            raise output_error(self.path, error) from error

    def _flush(self) -> None:
        try:
            self._file.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
        except OSError as error:
            self._abandon()
            raise output_error(self.path, error) from error
        self._rows = []

    def _abandon(self) -> None:
        """Leave no half file behind."""
        file, self._file, self._rows = self._file, None, []
        with contextlib.suppress(Exception):
            if file is not None:
                file.close()
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)


def _text(value: Any) -> Any:
    """Arrow takes no halves of broken UTF-8."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def open_table(path: str | os.PathLike[str], *, resume: bool = False) -> JsonLines | Csv | Parquet:
    """The table that a file's suffix asks for: .jsonl, .csv or .parquet.

    Raises:
        OutputError: the file cannot be written.
        UsageError: another suffix, or pyarrow is missing.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".jsonl":
        return JsonLines(path, resume=resume)
    if suffix == ".csv":
        return Csv(path, resume=resume)
    if suffix == ".parquet":
        return Parquet(path, resume=resume)
    raise UsageError(f"no table is made of {os.fspath(path)!r}; end its name in .jsonl, .csv or .parquet.")
