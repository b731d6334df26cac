"""Read tables as programs and people save them, and find the files that they list on this machine."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from blemish.datasets.names import same, system_file, system_folder
from blemish.datasets.pairing import normalize_name
from blemish.errors import UsageError
from blemish.files import is_file

SEPARATORS = (",", ";", "\t", "|", " ")
_ENCODINGS = ("cp1252", "cp932", "gb18030", "cp949", "cp1251", "cp1250")
"""Tried for bytes that are no UTF-8: the one counts whose paths exist."""
_SPREADSHEETS = frozenset((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"))


@dataclass(frozen=True)
class Row:
    """One row of a table: the line that it ends on, and its cells by column."""

    line: int
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")


def read_table(file: Path, columns: Mapping[str, Sequence[str]], required: Sequence[str]) -> Iterator[list[Row]]:
    """Yield the rows of a table, once for each encoding that fits its bytes; rows without content are passed over.

    Args:
        file: Text with any of `SEPARATORS`, with or without quotes and a byte order mark.
        columns: The accepted headings of each column, without case, blanks, dashes and underscores.
        required: Columns that the head must name.

    Yields:
        Nothing if no line names the required columns.

    Raises:
        UsageError: It cannot be read, it is a spreadsheet, or a row has more cells than the head.
    """
    if file.suffix.lower() in _SPREADSHEETS:
        raise UsageError(f"{file} is a spreadsheet; save it as CSV and give that file.")
    try:
        data = file.read_bytes()
        for text in _texts(data):
            rows = _rows(text, columns, required, file)
            if rows is not None:
                yield rows
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{file} cannot be read as a table ({error}); save it as CSV in UTF-8.") from error


def _texts(data: bytes) -> Iterator[str]:
    """Yield the text of the bytes, in each encoding that fits; at least one is tried."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        yield data.decode("utf-16")
        return
    if b"\0" in data[:4096]:
        yield data.decode("utf-16-le" if data[1:4096:2].count(0) >= data[:4096:2].count(0) else "utf-16-be")
        return
    try:
        yield data.decode("utf-8-sig")
        return
    except UnicodeDecodeError:
        pass
    fits = False
    for encoding in _ENCODINGS:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        fits = True
        yield text
    if not fits:
        data.decode("utf-8")  # raises its error


def _rows(text: str, columns: Mapping[str, Sequence[str]], required: Sequence[str], file: Path) -> list[Row] | None:
    for unwrapped in (text, _unwrapped(text)):
        for separator in SEPARATORS:
            rows = list(_cells(unwrapped, separator))
            for start, (_, head) in enumerate(rows[:3]):  # "sep=;" or an empty line may come first
                positions = _positions(head, columns)
                if all(column in positions for column in required):
                    return [_row(line, cells, positions, len(head), file) for line, cells in rows[start + 1 :]]
    return None


def _unwrapped(text: str) -> str:
    """Return a text whose whole lines are in quotes without them, as some programs save a table that they mistook."""
    return "\n".join(row[0] if len(row) == 1 else "" for row in csv.reader(io.StringIO(text, newline="")))


def _cells(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the cells of each row that has any content."""
    if separator == " ":
        text = "\n".join(re.sub(r"\s+", " ", line.strip()) for line in text.splitlines())
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    for row in reader:
        cells = [_bare(cell) for cell in row]
        if any(cells):
            yield reader.line_num, cells


def _bare(cell: str) -> str:
    """Return a cell without blanks and quotes around it."""
    cell = cell.strip().strip("\ufeff\u200b").strip()
    if len(cell) > 1 and (cell[0], cell[-1]) in (("'", "'"), ("\u201c", "\u201d"), ("\u201e", "\u201c"), ('"', '"')):
        return cell[1:-1].strip()
    return cell


def _positions(head: Sequence[str], columns: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return the position of each column that the head names; the first accepted heading counts."""
    at = {normalize_name(name): position for position, name in reversed(list(enumerate(head)))}
    columns_at = {column: next((at[word] for word in words if word in at), None) for column, words in columns.items()}
    return {column: place for column, place in columns_at.items() if place is not None}


def _row(line: int, cells: Sequence[str], positions: Mapping[str, int], width: int, file: Path) -> Row:
    if any(cells[width:]):
        raise UsageError(
            f"{file}, line {line}: {len(cells)} cells for {width} columns; put cells that hold the separator in quotes."
        )
    return Row(line, {column: cells[at] for column, at in positions.items() if at < len(cells)})


class Finder:
    """Find listed files below a folder, also those of another machine, by the end of their paths."""

    def __init__(self, bases: Sequence[Path], listed: Iterable[str]) -> None:
        """Choose among the bases the one with most of the listed files; the first of equals."""
        texts = list(listed)
        hits = [sum(self._direct(base, text) is not None for text in texts) for base in bases]
        self.hits = max(hits)
        """How many of the listed files are below the base."""
        self.base = bases[hits.index(self.hits)]
        self._others = [base for base in bases if base != self.base]
        self.moved: dict[str, Path] = {}
        """Listed paths that were found elsewhere."""
        self._index: dict[str, list[Path]] | None = None

    def find(self, text: str) -> Path:
        """Return the file that a listed path means; one that does not exist if there is none.

        A path that does not exist is searched by its end below the base, in any case and Unicode form: a relative path
        by all of it; an absolute path (also of Windows, also of a share) by its name and as many folders as fit, at
        least one unless the file lies beside the table.

        Raises:
            UsageError: Several files fit equally well.
        """
        direct = self._direct(self.base, text)
        if direct is not None:
            return direct
        parts, absolute = _parts(text)
        nearest = self._nearest(parts, absolute) if parts else []
        if len(nearest) > 1:
            several = " and ".join(map(str, nearest[:3]))
            raise UsageError(f"{text} may be {several}; write the paths relative to the table's folder.")
        if not nearest:
            return self.base / text.replace("\\", "/")
        self.moved[text] = nearest[0]
        return nearest[0]

    def _nearest(self, parts: tuple[str, ...], absolute: bool) -> list[Path]:
        """Return the files whose paths share the longest end with a listed one."""
        by_length: dict[int, list[Path]] = {}
        for path in self._named(parts[-1]):
            length = common_end(path.relative_to(self.base).parts, parts)
            # A name alone is enough only where no folder says otherwise.
            if length == len(parts) or (absolute and (length > 1 or path.parent == self.base)):
                by_length.setdefault(length, []).append(path)
        if by_length:
            length = max(by_length)
            exact = [path for path in by_length[length] if path.parts[-length:] == parts[-length:]]
            return exact if len(exact) == 1 else by_length[length]
        for base in self._others if absolute else ():
            ends = (base.joinpath(*parts[start:]) for start in range(len(parts) - 1))
            for path in ends:
                if is_file(path):
                    return [path]
        return []

    def _named(self, name: str) -> list[Path]:
        if self._index is None:
            self._index = {}
            for folder, folders, files in os.walk(self.base):
                folders[:] = sorted(name for name in folders if not system_folder(name))
                for file in sorted(files):
                    if not system_file(file):
                        self._index.setdefault(same(file), []).append(Path(folder, file))
        return self._index.get(same(name), [])

    @staticmethod
    def _direct(base: Path, text: str) -> Path | None:
        for option in dict.fromkeys((text, text.replace("\\", "/"))):
            if option and is_file(base / option):
                return base / option
        return None


def _parts(text: str) -> tuple[tuple[str, ...], bool]:
    """Return the folders and the name of a listed path, and whether it is absolute."""
    text = re.sub(r"^file:/*(?=/|[A-Za-z]:)", "", text)
    windows = PureWindowsPath(text)
    path = windows if windows.drive or "\\" in text else PurePosixPath(text)
    absolute = bool(windows.drive or path.root)
    return tuple(part for part in path.parts if part not in (path.anchor, ".", "..")), absolute


def common_end(names: Sequence[str], other: Sequence[str]) -> int:
    """Return how many of the last names are the same."""
    length = 0
    while length < min(len(names), len(other)) and same(names[-1 - length]) == same(other[-1 - length]):
        length += 1
    return length
