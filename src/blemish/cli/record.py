"""What a run leaves in its folder: `results.jsonl`, one line for each picture, and the memory that lets a run go on.

A line is appended the moment its picture's files are written, so a run that dies loses at most the pictures in
flight. Its `key` says which file it was, as it was, and under which settings; the next run decides by it for each
picture: skip, redo, or new. At the end superseded lines are taken out, and the other tables are made from what remains.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

from blemish.errors import OutputError
from blemish.files import output_error, try_lock, write_atomically
from blemish.outputs.journal import open_to_append
from blemish.outputs.tables import Key, error_row, open_table

NAME = "results.jsonl"

State = Literal["new", "same", "other settings", "changed file", "missing files"]


@dataclass(frozen=True)
class Entry:
    """What is kept in memory of one line: enough to decide and to rank, not its regions."""

    key: Key
    name: str
    files: Mapping[str, str]  # kind -> path below the folder
    path: str
    score: float
    anomalous: bool | None
    offset: int


class Record:
    """The open `results.jsonl` of one folder. Use as a context manager; one process at a time.

    Args:
        folder: Where results go; made if it is not there.
        settings: Fingerprint of everything that bears on a result.

    Raises:
        OutputError: The folder cannot be written to, or another run is doing so.
    """

    def __init__(self, folder: Path, settings: str) -> None:
        self.folder = folder
        self.settings = settings
        self.entries: dict[str, Entry] = {}
        self.failed: dict[str, tuple[str, str]] = {}  # file -> path as given, reason
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / ".lock").open("w")
            if not try_lock(self._lock):
                raise OutputError(f"another run is writing to {folder}; wait for it or choose another --out.", folder)
            for part in folder.rglob(".*-*.part"):
                part.unlink(missing_ok=True)  # of a run that was killed while writing: while locked there is no other
            self._file = open_to_append(folder / NAME)
        except OSError as error:
            raise output_error(folder, error) from error
        self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._lock.close()

    def state(self, file: str, key: Key | None, kinds: Sequence[str]) -> State:
        """Say what an earlier run left of this picture, given the kinds of files that are wanted now."""
        entry = self.entries.get(file)
        if entry is None:
            return "new"
        if entry.key[3] != self.settings:
            return "other settings"
        if entry.key != key:
            return "changed file"
        there = all(kind in entry.files and (self.folder / _evidence(kind, entry)).is_file() for kind in kinds)
        return "same" if there else "missing files"

    def name(self, file: str, name: str) -> str:
        """The name for a picture's files, marked with a short hash where another picture's files have it already.

        Compared without case, since not every file system knows the difference.
        """
        if self._names.setdefault(name.casefold(), file) == file:
            return name
        return f"{name}-{hashlib.sha256(os.fsencode(file)).hexdigest()[:8]}"

    def add(self, line: Mapping[str, Any], key: Key, name: str, files: Mapping[str, Path]) -> dict[str, Any]:
        """Append one picture's line, then remove the files of its earlier result that were not written again.

        Args:
            line: The detection as JSON-able values.
            key: Of the file, taken before it was read.
            name: What `name` gave.
            files: kind -> where it was written.

        Returns:
            The full line.

        Raises:
            OutputError: It cannot be written.
        """
        relative = {kind: path.relative_to(self.folder).as_posix() for kind, path in files.items()}
        full = {**line, "error": None, "key": list(key), "name": name, "files": relative}
        offset = self._append(full)
        self._forget(key[0], keep=set(relative.values()))
        self.entries[key[0]] = _entry(full, offset)
        return full

    def add_error(self, file: str, path: str, reason: str) -> None:
        """Append the line of a picture that failed; an earlier result of it was of another content, and goes."""
        self._append({"path": path, "error": reason, "key": [file, -1, -1, self.settings]})
        self._forget(file, keep=set())
        self.failed[file] = (path, reason)

    def line(self, entry: Entry) -> dict[str, Any]:
        """The full line of a picture."""
        with (self.folder / NAME).open("rb") as file:
            file.seek(entry.offset)
            found: dict[str, Any] = json.loads(file.readline())
        return found

    def close(self, tables: Iterable[str]) -> None:
        """Take superseded lines out, and make the tables ("csv", "parquet") anew from the others.

        Raises:
            OutputError: They cannot be written.
            UsageError: pyarrow is missing.
        """

        def fill(stream: IO[bytes]) -> None:
            for line in self._lines():
                stream.write(json.dumps(line).encode() + b"\n")

        write_atomically(self.folder / NAME, fill)
        self._file.close()
        self._file = open_to_append(self.folder / NAME)
        self._read()
        for suffix in tables:
            part = self.folder / f".results.{suffix}"
            with open_table(part) as table:
                for line in self._lines():
                    table.add_record(_row(line))
            part.replace(self.folder / f"results.{suffix}")

    def _append(self, line: Mapping[str, Any]) -> int:
        try:
            offset = self._file.seek(0, os.SEEK_END)
            self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise output_error(self.folder / NAME, error) from error
        return offset

    def _forget(self, file: str, keep: set[str]) -> None:
        self.failed.pop(file, None)
        before = self.entries.pop(file, None)
        if before is not None:
            for kind, path in before.files.items():
                if kind != "regions" and path not in keep:  # regions share one file
                    (self.folder / path).unlink(missing_ok=True)

    def _lines(self) -> Iterator[dict[str, Any]]:
        """The newest line of every picture, in the order in which they were done, then those that failed."""
        with (self.folder / NAME).open("rb") as file:
            for entry in self.entries.values():
                file.seek(entry.offset)
                yield json.loads(file.readline())
        for file_, (path, reason) in self.failed.items():
            yield {"path": path, "error": reason, "key": [file_, -1, -1, self.settings]}

    def _read(self) -> None:
        self.entries.clear()
        self.failed.clear()
        self._file.seek(0)
        offset = 0
        for raw in self._file:
            # A line cut off by a kill, or spoilt by hand, is passed over: its picture is done again.
            with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):
                line = json.loads(raw)
                file = line["key"][0]
                self.entries.pop(file, None)
                self.failed.pop(file, None)
                if line["error"] is None:
                    self.entries[file] = _entry(line, offset)
                else:
                    self.failed[file] = (line["path"], line["error"])
            offset += len(raw)
        self._names = {entry.name.casefold(): file for file, entry in self.entries.items()}


def _entry(line: Mapping[str, Any], offset: int) -> Entry:
    file, size, modified, settings = line["key"]
    return Entry(
        key=(file, size, modified, settings),
        name=line["name"],
        files=line["files"],
        path=line["path"],
        score=float(line["score"]),
        anomalous=line["anomalous"],
        offset=offset,
    )


def _evidence(kind: str, entry: Entry) -> str:
    """The file that shows that a kind was written: regions are collected in lines, and made one file on closing."""
    return "regions.jsonl" if kind == "regions" else entry.files[kind]


def _row(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line as a row of the flat tables."""
    if line["error"] is not None:
        return error_row(line["path"], line["error"])
    source = line["provenance"]
    width, height = line["size"]
    return {
        **line,
        "regions": None if line["mask_threshold"] is None else len(line["regions"]),
        "width": width,
        "height": height,
        "seconds": round(line["timing"]["total"], 6),
        **{name: source[name] for name in ("method", "backbone", "backbone_fingerprint", "weights")},
        "notes": "; ".join(line["notes"]),
    }
