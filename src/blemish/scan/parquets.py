"""Parquet files with the bytes of pictures, or with their paths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from blemish.errors import UsageError, suggest
from blemish.scan.items import Item, SourceFile
from blemish.scan.stores import full_name, open_source

SUFFIXES = (".parquet", ".pq")
"""Suffixes of Parquet files."""

COLUMNS = ("image", "bytes", "image_bytes", "jpg", "png", "path", "file", "file_name", "filename", "image_path", "url")
"""Columns that are taken for the pictures if none is named, the first that exists."""

#: Rows with bytes that are in memory together.
_ROWS = 32


def require_arrow() -> None:
    """Raise a UsageError if pyarrow is missing."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise UsageError("a scan needs pyarrow; run: pip install 'blemish[parquet]'.") from error


def choose_column(file: str, names: Sequence[str], column: str | None) -> str:
    """Return the column with pictures. Raises UsageError if there is none."""
    if column is not None and column not in names:
        raise UsageError(f"{file!r} has no column {column!r}{suggest(column, names)}; it has {', '.join(names)}.")
    chosen = column or next((name for name in COLUMNS if name in names), None)
    if chosen is None:
        raise UsageError(f"{file!r} has no column of a known name: give --column, one of {', '.join(names)}.")
    return chosen


def list_rows(source: SourceFile, column: str | None, profile_column: str | None) -> Iterator[Item]:
    """Yield the pictures of a Parquet file, one for each row.

    Args:
        source: The file.
        column: Column with bytes, paths, or structs of both (`bytes`, `path`); None chooses by its name.
        profile_column: Column with the names of profiles; None = not by a column.

    Raises:
        UsageError: The file is no Parquet file or has no such column, or the column holds no pictures.
    """
    with _open(source) as table:
        names = table.schema_arrow.names
        column = choose_column(source.path, names, column)
        if profile_column is not None and profile_column not in names:
            raise UsageError(f"{source.path!r} has no column {profile_column!r}{suggest(profile_column, names)}.")
        of_paths = _holds_paths(source.path, table.schema_arrow.field(column))
        if not of_paths and 0 < source.size < table.metadata.num_rows:  # a footer may state any
            raise UsageError(f"{source.path!r} states more rows than it has bytes; check the file.")
        wished = [name for name in (column if of_paths else None, profile_column) if name is not None]
        rows = _values(table, wished) if wished else ({} for _ in range(table.metadata.num_rows))
        for number, row in enumerate(rows, 1):
            profile = None if profile_column is None else _text(row[profile_column])
            if not of_paths:
                name = f"{source.path}#{number}"
                yield Item(name, source.file, "parquet", number - 1, column=column, profile=profile)
            elif path := row[column]:
                yield Item(path, full_name(path), profile=profile)
            else:
                name = f"{source.path}#{number}"
                yield Item(name, source.file, profile=profile, error=f"{name!r} has no path; fill the row or drop it.")


def read_rows(file: str, items: Sequence[Item]) -> Iterator[tuple[Item, bytes | None]]:
    """Yield the bytes of pictures in rows of one Parquet file; None for a row without.

    Args:
        file: The file.
        items: Its items, by rising row.
    """
    wished = {item.position: item for item in items}
    column = items[0].column
    first = 0
    with _open(SourceFile("parquet", file, file)) as table:
        for group in range(table.metadata.num_row_groups):
            count = table.metadata.row_group(group).num_rows
            inside = [number for number in wished if first <= number < first + count]
            if inside:
                row, last = first, max(inside)
                for batch in table.iter_batches(batch_size=_ROWS, row_groups=[group], columns=[column]):
                    for value in batch.column(0):
                        if (item := wished.pop(row, None)) is not None:
                            yield item, _bytes(value.as_py())
                        row += 1
                    if row > last:
                        break
            first += count
    for item in wished.values():
        yield item, None


@contextmanager
def _open(source: SourceFile) -> Iterator[Any]:
    """Open a Parquet file; whatever Arrow finds wrong with it, then or within the block, is a UsageError."""
    require_arrow()
    import pyarrow
    from pyarrow import parquet

    try:
        with ExitStack() as stack:
            stream = stack.enter_context(open_source(source.file))
            yield stack.enter_context(parquet.ParquetFile(stream))
    except OSError as error:
        # Arrow raises plain ones without a number for a damaged footer; all others are of the disk or the store.
        if not isinstance(error, FileNotFoundError) and (type(error) is not OSError or error.errno is not None):
            raise
        raise _no_parquet(source) from error
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise _no_parquet(source) from error


def _no_parquet(source: SourceFile) -> UsageError:
    return UsageError(f"{source.path!r} is missing, damaged, or no Parquet file; check the file.")


def _holds_paths(file: str, field: Any) -> bool:
    """Return whether a column holds paths; False if it holds bytes."""
    from pyarrow import types

    kind = field.type
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_string(kind) or types.is_large_string(kind):
        return True
    if types.is_binary(kind) or types.is_large_binary(kind):
        return False
    if types.is_struct(kind) and "bytes" in {child.name for child in kind}:
        return False
    raise UsageError(f"the column {field.name!r} of {file!r} holds {kind}, neither bytes nor paths; give --column.")


def _values(table: Any, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for batch in table.iter_batches(columns=list(columns)):
        yield from batch.to_pylist()


def _bytes(value: Any) -> bytes | None:
    if isinstance(value, dict):
        value = value.get("bytes")
    return value or None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
