"""A resumable run of a detector over pictures.

    with DetectRun(detector, blemish.find_images(["photos"]), "out") as run:
        run.execute()
    run.results["photos/a.png"].score

In the folder:

    results.jsonl      one line for each picture, appended as soon as its files are written
    results.csv        the same as a flat table; results.parquet where it is asked for
    overlay/, ...      files of each picture: see `Detection.save`
    regions.json       the regions of all pictures as COCO, where they are asked for
    cvat.xml, ...      the regions in other tools' formats: see `blemish.outputs.region_files`

A second run into the same folder skips what is complete, and repeats pictures that changed, that were done with other
settings, or that lack a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias, get_args

from blemish.concurrency import BackgroundWriter, Commit
from blemish.detection import FILE_KINDS, FileKind
from blemish.detector import Detector, ScoredImage
from blemish.errors import ImageError, UsageError, suggest
from blemish.files import absolute, common_root, output_name
from blemish.image_io import in_order
from blemish.outputs.journal import FileKey, Line, RunFolder, file_key, result_settings, settings_fingerprint
from blemish.outputs.region_files import REGION_FORMATS
from blemish.outputs.tables import table_row, write_coco, write_csv, write_parquet
from blemish.types import PathLike

ResultKind: TypeAlias = Literal["map", "map-png", "map-tiff", "heatmap", "overlay", "mask", "regions"]
RESULT_KINDS: tuple[ResultKind, ...] = get_args(ResultKind)
"""What a run writes besides tables."""

TableFormat: TypeAlias = Literal["csv", "parquet", "coco", "yolo", "labelme", "cvat", "label-studio"]
State: TypeAlias = Literal["new", "same", "other settings", "changed file", "missing files"]

JOURNAL = "results.jsonl"


@dataclass(frozen=True, kw_only=True)
class DetectOptions:
    """What a run does besides scoring.

    Attributes:
        kinds: Files to write; masks and regions need a threshold.
        tables: Formats beside `results.jsonl`: of the flat table, and of regions, which need a threshold.
        batch_size: Pictures, or tiles, that go through the model together.
        root: Folder that file names are relative to; None = the deepest that holds all pictures.
        overwrite: Repeat what is complete, too.
        times: Seconds from the beginning of a video, by path; of pictures that are frames of one.

    Raises:
        UsageError: A kind or format is unknown.
    """

    kinds: Sequence[ResultKind] = ("overlay",)
    tables: Sequence[TableFormat] = ("csv",)
    batch_size: int = 8
    root: Path | None = None
    overwrite: bool = False
    times: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for values, known in ((self.kinds, RESULT_KINDS), (self.tables, get_args(TableFormat))):
            for value in values:
                if value not in known:
                    raise UsageError(f"cannot write {value!r}{suggest(value, known)}; choose from {', '.join(known)}")


@dataclass(frozen=True)
class Result:
    """The result of one picture in short; `DetectRun.line` returns all of it."""

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
    """Path of each file below the run's folder, by kind."""
    key: FileKey | None = None
    """The file as it was when it was scored."""
    settings: str = ""
    """Fingerprint of the settings."""


class DetectRun:
    """Scores pictures and, with a folder, writes their results. Use it as a context manager.

    Args:
        detector: Scores the pictures.
        images: Picture files, each once.
        folder: Folder for results, created if it does not exist; None only scores.
        options: What to write.

    Attributes:
        results: Results by path as given: those taken over from an earlier run first, then in the order of completion.
        failures: Reason by path as given, for each picture that cannot be read.
        states: How many pictures an earlier run left in which state.
        todo: Pictures that are still to be scored.

    Raises:
        UsageError: Masks or regions are to be written without a threshold.
        OutputError: The folder cannot be written to, or another run is writing to it.
    """

    def __init__(
        self,
        detector: Detector,
        images: Iterable[PathLike],
        folder: PathLike | None = None,
        options: DetectOptions | None = None,
    ) -> None:
        self.detector, self.options = detector, options or DetectOptions()
        self.folder = None if folder is None else Path(folder)
        self.results: dict[str, Result] = {}
        self.failures: dict[str, str] = {}
        self.states: Counter[State] = Counter()
        self.todo: list[str] = []
        self._done: list[str] = []
        self._keys: dict[str, FileKey | None] = {}
        self._names: dict[str, str] = {}
        self._root: Path | None = None
        self._times = dict(self.options.times)
        self._files: set[FileKind] = {kind for kind in FILE_KINDS if kind in self.options.kinds}
        if self.folder is None:
            self.extend(images)
            return
        if detector.threshold is None and detector.mask_threshold is None:
            for kind in ("mask", "regions", *REGION_FORMATS):
                if kind in (*self.options.kinds, *self.options.tables):
                    raise UsageError(f"{kind} needs a threshold: load the detector with threshold or mask_threshold")
        self._settings = settings_fingerprint(self._result_settings())
        self._run_folder = RunFolder(self.folder)
        try:
            self._journal = self._run_folder.journal(JOURNAL, lambda line: str(line["key"][0]), _result)
        except BaseException:
            self._run_folder.close()
            raise
        self.extend(images)

    def extend(self, images: Iterable[PathLike], times: Mapping[str, float] | None = None) -> None:
        """Plan further pictures: those that are not complete become `todo`. Call `score` before the next ones.

        Args:
            images: Picture files.
            times: As in `DetectOptions`.
        """
        paths = [os.fspath(path) for path in images]
        self._times |= times or {}
        if self.folder is None:
            self.todo, self._done = paths, []
            return
        self._keys |= {path: file_key(path) for path in paths}
        self._names |= self._name_all(paths)
        states = {path: self._state(path) for path in paths}
        self.states.update(states.values())
        self.todo = [path for path in paths if self.options.overwrite or states[path] != "same"]
        self._done = [path for path in paths if not self.options.overwrite and states[path] == "same"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the folder."""
        if self.folder is not None:
            self._run_folder.close()

    def execute(
        self,
        on_result: Callable[[Line], object] = lambda line: None,
        on_progress: Callable[[], object] = lambda: None,
    ) -> dict[str, Result]:
        """Score what is to be done, then write the tables.

        Files of a picture are written in threads while the model is busy with the next ones.

        Args:
            on_result: Called for each picture, in order, with its JSON-able line: `Detection.to_dict()` and "error",
                which is a text for a picture that cannot be read. Results that are taken over come first.
            on_progress: Called for each picture that was scored or cannot be read.

        Returns:
            `results`.

        Raises:
            OutputError: A result cannot be written; what was finished before stays.
        """
        self.score(on_result, on_progress)
        self.write_tables()
        return self.results

    def score(
        self,
        on_result: Callable[[Line], object] = lambda line: None,
        on_progress: Callable[[], object] = lambda: None,
    ) -> None:
        """Like `execute`, without the tables; for pictures that come one after another (`extend`)."""
        for path in self._done:
            line = self._journal.line(absolute(path))
            self.results[path] = _result(line)
            on_result(line)
        with BackgroundWriter() as writer:

            def finish(line: Line) -> None:
                on_result(line)
                on_progress()

            def save(scored: ScoredImage) -> Commit:
                image, detection = scored.finish()
                path, files = str(scored.path), {}
                if self.folder is not None:
                    files = detection.save(self.folder, self._files, picture=image, name=self._names[path])
                line = {**detection.to_dict(), "time": self._times.get(path), "error": None}
                return lambda: finish(self._keep(path, line, files))

            def fail(path: str | None, error: ImageError) -> None:
                writer.submit(lambda: lambda: finish(self._keep_failure(str(path), str(error))))

            sources = in_order(self.todo, max_pixels=self.detector.max_pixels)
            scored_images = self.detector.score(sources, batch_size=self.options.batch_size, on_error=fail)
            with contextlib.closing(scored_images):
                for scored in scored_images:
                    writer.submit(partial(save, scored), scored.pixels)

    def write_tables(self) -> None:
        """Write the tables of all results in the folder. Raises OutputError."""
        if self.folder is not None:
            self._write_tables(self.folder)

    @property
    def finished(self) -> list[FileKey]:
        """The files that the folder has results of, as they were when they were scored."""
        if self.folder is None:
            return []
        return [result.key for result in self._journal.values.values() if result.key is not None]

    def line(self, path: PathLike) -> Line:
        """Return the full JSON-able line of a result in the folder."""
        return self._journal.line(absolute(path))

    @property
    def written(self) -> list[str]:
        """Names of the files and folders that the run writes, below its folder."""
        tables = [
            file
            for table in self.options.tables
            for file in (REGION_FORMATS[table][1] if table in REGION_FORMATS else (f"results.{table}",))
        ]
        kinds = ("regions.json" if kind == "regions" else f"{kind.partition('-')[0]}/" for kind in self.options.kinds)
        return list(dict.fromkeys([JOURNAL, *tables, *kinds]))

    def _result_settings(self) -> dict[str, object]:
        """Return everything that results depend on."""
        detector = self.detector
        settings = {
            **result_settings(detector.provenance),
            "object": detector.object_name if detector.engine.needs_object else None,
            "threshold": detector.threshold,
            "mask": detector.mask_threshold,
        }
        return {**settings, "limits": detector.limits.fingerprint} if detector.limits.scores else settings

    def _state(self, path: str) -> State:
        """Return what an earlier run left of a picture."""
        result = self._journal.values.get(absolute(path))
        if result is None:
            return "new"
        if result.settings != self._settings:
            return "other settings"
        if result.key != self._keys[path]:
            return "changed file"
        assert self.folder is not None
        complete = all(kind in result.files and (self.folder / result.files[kind]).is_file() for kind in self._files)
        return "same" if complete else "missing files"

    def _name_all(self, paths: Sequence[str]) -> dict[str, str]:
        """Return a name for each picture's files; a name that another picture has already gets a short hash.

        Names are compared without case, since some file systems ignore it.
        """
        owners = {result.name.casefold(): file for file, result in self._journal.values.items()}
        # What comes later lies below the folder of what came first, or gets a hash.
        self._root = root = self.options.root or self._root or common_root(paths)
        names = {}
        for path in paths:
            file, name = absolute(path), output_name(path, root).as_posix()
            if owners.setdefault(name.casefold(), file) != file:
                name = f"{name}-{hashlib.sha256(os.fsencode(file)).hexdigest()[:8]}"
            names[path] = name
        return names

    def _keep(self, path: str, line: Line, files: Mapping[FileKind, Path]) -> Line:
        """Append a result to the journal, then remove the files of an earlier result that were not written again."""
        if self.folder is not None:
            relative = {kind: file.relative_to(self.folder).as_posix() for kind, file in files.items()}
            # Without a key the file appeared after the run began; the next run repeats it.
            key = self._keys[path] or FileKey(absolute(path), -1, -1)
            line = {**line, "key": [*key, self._settings], "name": self._names[path], "files": relative}
            before = self._journal.values.get(key.path)
            self._journal.append(line)
            self._remove(before, keep=set(relative.values()))
            self.results[path] = _result(line)
        else:
            self.results[path] = Result(path, line["score"], line["label"], line["verdict"], line["p_value"])
        return line

    def _keep_failure(self, path: str, reason: str) -> Line:
        """Append a failure; an earlier result belonged to another content of the file."""
        self.failures[path] = reason
        if self.folder is not None:
            file = absolute(path)
            before = self._journal.values.get(file)
            self._journal.append({"path": path, "error": reason, "key": [file, -1, -1, self._settings]})
            self._remove(before, keep=set())
        return {"path": path, "error": reason}

    def _remove(self, result: Result | None, keep: set[str]) -> None:
        assert self.folder is not None
        for file in () if result is None else result.files.values():
            if file not in keep:
                (self.folder / file).unlink(missing_ok=True)

    def _write_tables(self, folder: Path) -> None:
        """Compact the journal and write the tables from it: results of other pictures in the folder are included."""
        self._journal.compact()

        def rows() -> Iterator[Line]:
            return map(table_row, self._journal.lines())

        for table in self.options.tables:
            if table in REGION_FORMATS:
                REGION_FORMATS[table][0](folder, self._journal.lines)
            else:
                (write_csv if table == "csv" else write_parquet)(folder / f"results.{table}", rows())
        regions = folder / "regions.json"
        if "regions" in self.options.kinds or regions.exists():
            write_coco(regions, self._journal.lines)


def _result(line: Line) -> Result:
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
    )
