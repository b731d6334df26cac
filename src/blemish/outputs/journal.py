"""Resumable runs: a locked folder, and journals of JSON lines in it.

    with RunFolder("out") as folder:
        journal = folder.journal("results.jsonl", key=itemgetter("path"), value=itemgetter("score"))
        if "a.png" not in journal.values:
            journal.append({"path": "a.png", "score": 0.4})

A line is appended as soon as its result is complete, so a run that dies loses at most what was in progress. The newest
line of a key counts. Each line ends with a checksum. A line that was cut off by a kill, or damaged since, is
ignored, and its work is done again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, NamedTuple, Self, TypeAlias, TypeVar

from blemish.detection import Provenance
from blemish.errors import OutputError
from blemish.files import absolute, output_error, parse_json, remove_parts, split_page, try_lock, write_atomically
from blemish.types import PathLike

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Line: TypeAlias = dict[str, Any]
"""One JSON object. A text under "error" makes it a failure: there is no result of its key."""


#: Name of the checksum in a line, and what it looks like.
_SUM, _IS_SUM = "crc32", re.compile("[0-9a-f]{8}")
_MARK = f', "{_SUM}": "'.encode()


class FileKey(NamedTuple):
    """Identifies a file and its content: a result is valid as long as its file key stays the same."""

    path: str
    """Absolute path; links are not followed."""
    size: int
    """Bytes; -1 if unknown."""
    modified: int
    """Modification time in nanoseconds; -1 if unknown."""


def file_key(path: PathLike) -> FileKey | None:
    """Return the key of a file as it is now; None if there is no such file."""
    full = absolute(path)
    try:
        status = Path(split_page(full)[0]).stat()
    except (OSError, ValueError):
        return None
    return FileKey(full, status.st_size, status.st_mtime_ns)


def settings_fingerprint(settings: Mapping[str, Any]) -> str:
    """Return 16 hex digits over JSON-able settings, whatever their order."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def result_settings(provenance: Provenance) -> dict[str, Any]:
    """Return the part of a provenance that results depend on: all but names and the device."""
    settings = provenance.to_dict()
    for name in ("backbone", "weights", "device", "model", "profile", "preset"):
        del settings[name]
    return settings


class RunFolder:
    """A folder that one process at a time writes results to. Use it as a context manager.

    Opening it removes the temporary files of killed runs; closing it closes its journals.

    Args:
        path: The folder; created if it does not exist.

    Raises:
        OutputError: The folder cannot be written to, or another process is writing to it.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self._open = contextlib.ExitStack()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = self._open.enter_context((self.path / ".lock").open("w"))
            if not try_lock(lock):
                lock.close()
                raise OutputError(
                    f"another run is writing to {self.path}; wait for it or choose another folder.", self.path
                )
            remove_parts(self.path)
        except OSError as error:
            raise output_error(self.path, error) from error

    def journal(self, name: str, key: Callable[[Line], K], value: Callable[[Line], V]) -> Journal[K, V]:
        """Open a journal of the folder; arguments as in `Journal`."""
        return self._open.enter_context(Journal(self.path / name, key, value))

    def close(self) -> None:
        """Close all journals and release the lock."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Journal(Generic[K, V]):
    """An append-only file of JSON lines, indexed by key. Not for several threads at once.

    Args:
        path: The file, in a folder that nobody else writes to: see `RunFolder`.
        key: Returns the key of a line.
        value: Returns what is kept in memory of a line without error.

    Both functions raise KeyError, IndexError, TypeError or ValueError for a line that does not have their form.

    Attributes:
        values: Value of each key, in the order in which the lines were appended.
        failures: Newest line of each key that failed; such a key has no value.

    Raises:
        OutputError: The file cannot be written.
    """

    def __init__(self, path: Path, key: Callable[[Line], K], value: Callable[[Line], V]) -> None:
        self.path = path
        self.values: dict[K, V] = {}
        self.failures: dict[K, Line] = {}
        self._key, self._value = key, value
        self._offsets: dict[K, int] = {}
        self._file = self._open_file()
        self._read()

    def append(self, line: Mapping[str, Any]) -> None:
        """Append one line and hand it to the operating system.

        Raises:
            OutputError: It cannot be written.
        """
        try:
            offset = self._file.seek(0, os.SEEK_END)
            self._file.write(_encode(line))
            self._file.flush()
        except OSError as error:
            self._give_up(offset)
            raise output_error(self.path, error) from error
        self._index(dict(line), offset)

    def discard(self, key: K) -> None:
        """Remove a key from memory; its lines stay in the file until `compact`."""
        self.values.pop(key, None)
        self.failures.pop(key, None)
        self._offsets.pop(key, None)

    def line(self, key: K) -> Line:
        """Return the newest line of a key that has a value."""
        with self.path.open("rb") as file:
            return self._read_line(file, key)

    def lines(self, keys: Iterable[K] | None = None) -> Iterator[Line]:
        """Yield the newest line of each key: those with a value in order (or in that of `keys`), then the failures."""
        with self.path.open("rb") as file:
            for key in self.values if keys is None else keys:
                yield self._read_line(file, key)
        yield from self.failures.values()

    def compact(self) -> None:
        """Rewrite the file with the newest line of each key only. A kill leaves the old file or the new one.

        Raises:
            OutputError: It cannot be written.
        """
        offsets: dict[K, int] = {}

        def fill(stream: IO[bytes]) -> None:
            with self.path.open("rb") as file:
                for key in self.values:
                    offsets[key] = stream.tell()
                    file.seek(self._offsets[key])
                    stream.write(file.readline())
            for line in self.failures.values():
                stream.write(_encode(line))

        write_atomically(self.path, fill)
        self._offsets = offsets
        self._file.close()
        self._file = self._open_file()

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _give_up(self, end: int) -> None:
        """Close the file after a line that could not be written; of that line nothing is left."""
        with contextlib.suppress(OSError):
            self._file.close()  # tries once more to write what it holds
        with contextlib.suppress(OSError):
            os.truncate(self.path, end)

    def _read(self) -> None:
        offset = 0
        self._file.seek(0)
        for raw in self._file:
            with contextlib.suppress(ValueError, KeyError, TypeError, IndexError, AttributeError):
                self._index(_decode(raw), offset)
            offset += len(raw)

    def _open_file(self) -> IO[bytes]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return _open_to_append(self.path)
        except OSError as error:
            raise output_error(self.path, error) from error

    def _index(self, line: Line, offset: int) -> None:
        key = self._key(line)
        failed = isinstance(line.get("error"), str)
        value = None if failed else self._value(line)
        self.discard(key)  # so that a key stands where its newest line does
        if failed:
            self.failures[key] = line
        else:
            self.values[key] = value  # type: ignore[assignment]
            self._offsets[key] = offset

    def _read_line(self, file: IO[bytes], key: K) -> Line:
        file.seek(self._offsets[key])
        return _decode(file.readline())


def read_journal(path: Path) -> Iterator[Line]:
    """Yield the whole lines of a journal that another process may be writing to."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for raw in file:
            with contextlib.suppress(ValueError):
                yield _decode(raw)


def _encode(line: Mapping[str, Any]) -> bytes:
    """Return a line with its checksum, which is that of the line without it."""
    text = json.dumps(line, allow_nan=False).encode()
    return text[:-1] + _MARK + b'%08x"}\n' % zlib.crc32(text)


def _decode(raw: bytes) -> Line:
    """Return a line without its checksum. Raises ValueError if it is damaged."""
    line = parse_json(raw, finite=True)
    if not isinstance(line, dict) or not line:
        raise ValueError("it is no line of a journal")
    name, value = next(reversed(line.items()))
    if name != _SUM and not (isinstance(value, str) and _IS_SUM.fullmatch(value)):
        return line  # of an earlier version
    text, _, rest = raw.rpartition(_MARK)
    if rest.strip() != b'%08x"}' % zlib.crc32(text + b"}"):
        raise ValueError("its checksum is another one")
    del line[name]
    return line


def _open_to_append(path: Path) -> IO[bytes]:
    """Open a file of lines for reading and appending; a last line that was cut off is removed."""
    stream = path.open("ab+")
    end = stream.seek(0, os.SEEK_END)
    keep = end
    while keep > 0:
        size = min(keep, 65536)
        stream.seek(keep - size)
        newline = stream.read(size).rfind(b"\n")
        if newline >= 0:
            keep = keep - size + newline + 1
            break
        keep -= size
    if keep < end:
        stream.truncate(keep)
    stream.seek(0, os.SEEK_END)
    return stream
