"""What a scan consists of: source files, and the pictures in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["file", "list", "csv", "parquet", "tar"]
"""How a source file holds pictures: it is one, it lists them, or it contains them."""


@dataclass(frozen=True)
class SourceFile:
    """A file or object that a source consists of.

    Attributes:
        kind: How it holds pictures.
        path: Its name as it was given.
        file: Its absolute path, or its URL.
        size: Bytes; -1 if unknown.
        modified: What the store says about its version: modification time in nanoseconds, ETag, ...; may be empty.
    """

    kind: Kind
    path: str
    file: str
    size: int = -1
    modified: str = ""


@dataclass(frozen=True)
class Item:
    """A picture of a scan: where it is, and nothing of what is in it.

    Attributes:
        path: Its name: as it was given, `shard.tar/name.jpg` for a member, `table.parquet#17` for the 17th row.
        file: Absolute path or URL of the file that holds it.
        kind: "file", "tar" or "parquet": how it is read.
        position: First byte of a member; number of a row, from 0; -1 for a file.
        size: Bytes of a member; -1 otherwise.
        column: Column of a Parquet file that holds the bytes.
        profile: Name of its profile; None where one detector scores all pictures.
        error: Why it cannot be read, where that is known when it is listed.
        number: Its number within the scan, from 0.
    """

    path: str
    file: str
    kind: Kind = "file"
    position: int = -1
    size: int = -1
    column: str | None = None
    profile: str | None = None
    error: str | None = None
    number: int = -1
