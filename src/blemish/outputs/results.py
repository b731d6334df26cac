"""A folder of results: its journals, the files of its pictures, its tables. `detect` fills it, `judge` goes over it.

results.jsonl      one line for each picture, appended as soon as its files are written
runs.jsonl         one line for each run that scored pictures: its date and settings
results.csv        a table for people; results.parquet for programs, where it is asked for
map/, overlay/ ... files of each picture: see `Detection.save`
regions.json       the regions of all pictures as COCO, where they are asked for
report.html        a page to look at them, where it is asked for
cvat.xml, ...      the regions in other tools' formats: see `blemish.outputs.region_files`
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PureWindowsPath
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, get_args

from blemish.detection import FileKind
from blemish.errors import UsageError, suggest
from blemish.files import absolute, has_type, output_name
from blemish.outputs.journal import FileKey, Line, RunFolder
from blemish.outputs.region_files import REGION_FORMATS
from blemish.outputs.tables import table_row, write_coco, write_csv, write_parquet
from blemish.types import PathLike

ResultKind: TypeAlias = Literal["map", "map-png", "map-tiff", "heatmap", "overlay", "mask", "regions"]
RESULT_KINDS: tuple[ResultKind, ...] = get_args(ResultKind)
"""What is written besides tables."""

TableFormat: TypeAlias = Literal["csv", "parquet", "coco", "yolo", "labelme", "cvat", "label-studio"]
TABLE_FORMATS: tuple[TableFormat, ...] = get_args(TableFormat)

JOURNAL, RUNS, PAGE = "results.jsonl", "runs.jsonl", "report.html"
#: Settings that a score does not depend on.
_VERDICT_SETTINGS = ("threshold", "mask", "min_area", "limits")


#: Types of what a line of a picture holds, as far as somebody depends on it.
_LINE_TYPES: Mapping[str, Any] = {
    "score": float,
    "label": int | None,
    "verdict": str | None,
    "p_value": float | None,
    "threshold": float | None,
    "mask_threshold": float | None,
    "review_threshold": float | None,
    "regions": list[dict[str, Any]],
    "peak": float,
    "size": tuple[int, int],
    "map_range": tuple[float, float],
    "heatmap_range": tuple[float, float] | None,
    "min_area": int,
    "notes": list[str],
    "timing": dict[str, float],
    "provenance": dict[str, Any] | None,
    "name": str,
    "files": dict[str, str],
    "key": tuple[str, int, int, str],
}
#: What lines of earlier versions lack.
_OF_EARLIER = ("verdict", "p_value", "review_threshold", "heatmap_range", "min_area")
#: The same of the line of a run, and of its provenance.
_RUN_TYPES: Mapping[str, Any] = {
    "run": str,
    "date": str,
    "settings": dict[str, Any],
    "provenance": dict[str, Any],
    "preprocessing": object,
}
_SOURCE_TYPES: Mapping[str, Any] = {"method": str, "backbone": str, "value_range": tuple[float, float] | None}


@dataclass(frozen=True)
class Result:
    """The result of one picture in short; the journal has all of it."""

    path: str
    """Path as it was given."""
    score: float
    label: int | None
    """1 = anomalous, 0 = normal; None without a threshold."""
    verdict: str | None = None
    """"pass", "review" or "reject"; None without a threshold."""
    p_value: float | None = None
    """Share of good pictures that look at least as odd; None without a profile."""
    name: str = ""
    """Name of its files."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Path of each file below the folder, by kind."""
    key: FileKey | None = None
    """The file as it was when it was scored."""
    settings: str = ""
    """Fingerprint of the settings."""
    run: str | None = None
    """The run that scored it; None for results of earlier versions."""


def result_of(line: Line) -> Result:
    """Return the result in a journal line. Raises ValueError or KeyError for a line that `detect` did not write."""
    _check(line, _LINE_TYPES, _OF_EARLIER)
    _check(line["timing"], {"total": float})
    file, size, modified, settings = line["key"]
    return Result(
        path=line["path"],
        score=float(line["score"]),
        label=line["label"],
        verdict=line.get("verdict"),
        p_value=line.get("p_value"),
        name=line["name"],
        files=line["files"],
        key=FileKey(file, size, modified),
        settings=settings,
        run=line.get("run"),
    )


def _run_of(line: Line) -> Line:
    """Return the line of a run; errors as in `result_of`."""
    _check(line, _RUN_TYPES, ("preprocessing",))
    _check(line["provenance"], _SOURCE_TYPES)
    return line


def _file_of(line: Line) -> str:
    """Return the absolute path of a line's picture; errors as in `result_of`.

    Its files are drawn again and removed, so a line that names some outside the folder is none.
    """
    _check(line, {"path": str | None, "run": str | None, "files": dict[str, str]}, ("run", "files"))
    for name in map(PureWindowsPath, line.get("files", {}).values()):  # it knows both kinds of slashes
        longest = max(map(len, map(os.fsencode, name.parts)), default=0)
        if name.anchor or ".." in name.parts or "\0" in str(name) or not 0 < longest < 256:
            raise ValueError(f"{str(name)!r} names no file of the folder")
    return str(line["key"][0])


def _check(line: Line, types: Mapping[str, Any], may_lack: Iterable[str] = ()) -> None:
    """Raise an error unless a line has values of these types."""
    for name, kind in types.items():
        if (name in line or name not in may_lack) and not has_type(line[name], kind):
            raise ValueError(f"{name} is of a wrong type")


def scoring_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a score depends on: all but thresholds and what else makes a verdict of it."""
    return {name: value for name, value in settings.items() if name not in _VERDICT_SETTINGS}


def now() -> str:
    """Return the present date and time with the time zone, to the second, ISO 8601."""
    return datetime.now(UTC).astimezone().isoformat(timespec="seconds")


def check_kinds(kinds: Iterable[str], tables: Iterable[str]) -> None:
    """Raise a UsageError for a kind of file or a table that nobody writes."""
    for values, known in ((kinds, RESULT_KINDS), (tables, TABLE_FORMATS)):
        for value in values:
            if value not in known:
                raise UsageError(f"cannot write {value!r}{suggest(value, known)}; choose from {', '.join(known)}")


def run_id(date: str) -> str:
    """Return a new id for a run that begins at a date: readable, sorted by time, and its own even within a second."""
    return f"{date[:19].replace('-', '').replace(':', '')}-{secrets.token_hex(2)}"


class ResultsFolder:
    """A folder of results that one process at a time writes to. Use it as a context manager.

    Args:
        path: The folder; created if it does not exist.

    Attributes:
        journal: Results by absolute path of the picture.
        runs: The line of each run, by its id.

    Raises:
        OutputError: The folder cannot be written to, or another process is writing to it.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self._folder = RunFolder(self.path)
        try:
            self.journal = self._folder.journal(JOURNAL, _file_of, result_of)
            self.runs = self._folder.journal(RUNS, lambda line: str(line["run"]), _run_of)
        except BaseException:
            self._folder.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the folder."""
        self._folder.close()

    def begin(self, facts: Mapping[str, Any]) -> str:
        """Note a new run with its date, and return its id.

        Args:
            facts: JSON-able; at least "settings", all that its results depend on.
        """
        date = now()
        run = run_id(date)
        self.runs.append({"run": run, "date": date, **facts})
        return run

    def settings_of(self, result: Result) -> Mapping[str, Any] | None:
        """Return the settings of the run that made a result; None if it was scored by an earlier version."""
        run = self.runs.values.get(result.run or "")
        return None if run is None else run["settings"]

    def names(self, paths: Sequence[str], root: Path | None) -> dict[str, str]:
        """Return a name for each picture's files; a name that another picture has already gets a short hash.

        Names are compared without case, since some file systems ignore it.
        """
        owners = {result.name.casefold(): file for file, result in self.journal.values.items()}
        names = {}
        for path in paths:
            file, name = absolute(path), output_name(path, root).as_posix()
            if owners.setdefault(name.casefold(), file) != file:
                name = f"{name}-{hashlib.sha256(os.fsencode(file)).hexdigest()[:8]}"
            names[path] = name
        return names

    def keep(self, line: Line, files: Mapping[FileKind, Path]) -> Line:
        """Append a result to the journal, then remove the files of an earlier result that it no longer has.

        Args:
            line: Complete but for "files".
            files: Its files by kind.

        Returns:
            The line.
        """
        relative = {kind: file.relative_to(self.path).as_posix() for kind, file in files.items()}
        line = {**line, "files": relative}
        before = self.journal.values.get(line["key"][0])
        self.journal.append(line)
        self._remove(before, keep=set(relative.values()))
        return line

    def keep_failure(self, path: str, reason: str, settings: str, run: str) -> None:
        """Append a failure; an earlier result belonged to another content of the file."""
        file = absolute(path)
        before = self.journal.values.get(file)
        self.journal.append({"path": path, "error": reason, "key": [file, -1, -1, settings], "run": run})
        self._remove(before, keep=set())

    def _remove(self, result: Result | None, keep: set[str]) -> None:
        for file in () if result is None else result.files.values():
            if file not in keep:
                (self.path / file).unlink(missing_ok=True)

    def ranked(self) -> Iterator[Line]:
        """Yield the lines of all pictures, the highest score first, the failures last."""
        values = self.journal.values
        return self.journal.lines(sorted(values, key=lambda key: (-values[key].score, values[key].path)))

    def write_tables(self, tables: Iterable[TableFormat], *, regions: bool = False) -> None:
        """Compact the journals and write tables of all results in the folder, whichever run they are of.

        Args:
            tables: What to write.
            regions: Write `regions.json`, too; one that exists is written again in any case.

        Raises:
            OutputError: A table cannot be written.
        """
        self.journal.compact()
        dates = {run: line["date"] for run, line in self.runs.values.items()}
        for table in tables:
            if table in REGION_FORMATS:
                REGION_FORMATS[table][0](self.path, self.journal.lines)
            elif table == "csv":
                write_csv(self.path / "results.csv", self.ranked(), dates)
            else:
                rows = (table_row(line, dates) for line in self.journal.lines())
                write_parquet(self.path / f"results.{table}", rows)
        if regions or (self.path / "regions.json").exists():
            write_coco(self.path / "regions.json", self.journal.lines)


def written_names(kinds: Iterable[ResultKind], tables: Iterable[TableFormat], *, page: bool) -> list[str]:
    """Return the names of the files and folders that results consist of, below their folder."""
    files = [
        file
        for table in tables
        for file in (REGION_FORMATS[table][1] if table in REGION_FORMATS else (f"results.{table}",))
    ]
    folders = ("regions.json" if kind == "regions" else f"{kind.partition('-')[0]}/" for kind in kinds)
    return list(dict.fromkeys([JOURNAL, *files, *folders, *[PAGE] * page]))
