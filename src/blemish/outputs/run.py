"""A resumable run of a detector over pictures.

    with DetectRun(detector, blemish.find_images(["photos"]), "out") as run:
        run.execute()
    run.results["photos/a.png"].score

`blemish.outputs.results` describes the folder. A second run into it skips what is complete, judges again what has only
other thresholds, and scores pictures that changed, that were done with other settings, or that lack a file.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

from blemish.concurrency import BackgroundWriter, Commit
from blemish.detection import FILE_KINDS, FileKind
from blemish.detector import Detector, ScoredImage
from blemish.engine import TorchEngine
from blemish.errors import ImageError, UsageError
from blemish.files import absolute, common_root
from blemish.image_io import in_order
from blemish.outputs.journal import FileKey, Line, file_key, result_settings, settings_fingerprint
from blemish.outputs.pages import write_results_page
from blemish.outputs.region_files import REGION_FORMATS
from blemish.outputs.results import (
    Result,
    ResultKind,
    ResultsFolder,
    TableFormat,
    check_kinds,
    now,
    result_of,
    scoring_settings,
    written_names,
)
from blemish.outputs.verdicts import Criteria, judge_line, verdict_settings
from blemish.types import PathLike

State: TypeAlias = Literal[
    "new", "same", "other thresholds", "files to draw", "other settings", "changed file", "missing files"
]
#: States that need no model.
_JUDGED: tuple[State, ...] = ("other thresholds", "files to draw")


@dataclass(frozen=True, kw_only=True)
class DetectOptions:
    """What a run does besides scoring.

    Attributes:
        kinds: Files to write; masks and regions need a threshold.
        tables: Formats beside `results.jsonl`: of the flat table, and of regions, which need a threshold.
        batch_size: Pictures, or tiles, that go through the model together.
        root: Folder that file names are relative to; None = the deepest that holds all pictures.
        overwrite: Repeat what is complete, too.
        page: Write `report.html`, too.
        times: Seconds from the beginning of a video, by path; of pictures that are frames of one.

    Raises:
        UsageError: A kind or format is unknown.
    """

    kinds: Sequence[ResultKind] = ("overlay", "map-png")
    tables: Sequence[TableFormat] = ("csv",)
    batch_size: int = 8
    root: Path | None = None
    overwrite: bool = False
    page: bool = False
    times: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_kinds(self.kinds, self.tables)


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
        usual: Median of the map of each picture that was scored now, with a profile; for `Detector.foreign`.
        states: How many pictures an earlier run left in which state.
        todo: Pictures that are still to be scored.
        to_judge: Pictures that get other verdicts from their scores and maps.

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
        self.usual: list[float] = []
        self.states: Counter[State] = Counter()
        self.todo: list[str] = []
        self.to_judge: list[str] = []
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
        self._settings = self._result_settings()
        self._fingerprint = settings_fingerprint(self._settings)
        self._scoring = scoring_settings(self._settings)
        self._run: str | None = None  # its id, from the first picture that is scored
        self._results_folder = ResultsFolder(self.folder)
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
        # What comes later lies below the folder of what came first, or gets a hash.
        self._root = self.options.root or self._root or common_root(paths)
        self._names |= self._results_folder.names(paths, self._root)
        states = {path: self._state(path) for path in paths}
        self.states.update(states.values())
        kept = {} if self.options.overwrite else states
        self._done = [path for path in paths if kept.get(path) == "same"]
        self.to_judge = [path for path in paths if kept.get(path) in _JUDGED]
        self.todo = [path for path in paths if kept.get(path) not in ("same", *_JUDGED)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the folder."""
        if self.folder is not None:
            self._results_folder.close()

    def execute(
        self,
        on_result: Callable[[Line], object] = lambda line: None,
        on_progress: Callable[[], object] = lambda: None,
    ) -> dict[str, Result]:
        """Score what is to be done, then write the tables, after Ctrl-C too.

        Files of a picture are written in threads while the model is busy with the next ones.

        Args:
            on_result: Called for each picture, in order, with its JSON-able line: `Detection.to_dict()` and "error",
                which is a text for a picture that cannot be read. Results that are taken over come first.
            on_progress: Called for each picture that was scored, judged again or cannot be read.

        Returns:
            `results`.

        Raises:
            OutputError: A result cannot be written; what was finished before stays.
        """
        try:
            self.score(on_result, on_progress)
        except KeyboardInterrupt:
            self.write_tables()
            raise
        self.write_tables()
        self.write_page()
        return self.results

    def score(
        self,
        on_result: Callable[[Line], object] = lambda line: None,
        on_progress: Callable[[], object] = lambda: None,
    ) -> None:
        """Like `execute`, without the tables; for pictures that come one after another (`extend`)."""
        for path in self._done:
            line = self.line(path)
            self.results[path] = result_of(line)
            on_result(line)

        def finish(line: Line) -> None:
            on_result(line)
            on_progress()

        if self.to_judge:
            self._judge(finish)
        with BackgroundWriter() as writer:

            def save(scored: ScoredImage) -> Commit:
                image, detection = scored.finish()
                path, files = str(scored.path), {}
                if self.detector.profile is not None:
                    self.usual.append(self.detector.usual(detection))
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

    def _judge(self, finish: Callable[[Line], object]) -> None:
        """Give other verdicts to pictures whose scores hold; what has no readable map is scored instead."""
        folder, detector = self._results_folder, self.detector
        scale = detector.limits.heatmap_range or detector.engine.display_range(detector.memory)
        criteria = Criteria.of_limits(detector.limits, scale)
        profile, date = detector.provenance.profile, now()

        def judge(path: str) -> Commit:
            line = folder.journal.line(absolute(path))
            try:
                judged = judge_line(folder.path, line, criteria, self._files)
            except ImageError:
                return lambda: self.todo.append(path)
            if judged.undrawn is not None:
                return lambda: self.todo.append(path)
            return lambda: keep(path, judged.line, judged.files)

        def keep(path: str, line: Line, files: Mapping[FileKind, Path]) -> None:
            source = {**(line["provenance"] or {}), "profile": profile}
            key = [*line["key"][:3], self._fingerprint]
            line = folder.keep({**line, "path": path, "provenance": source, "key": key, "judged": date}, files)
            self.results[path] = result_of(line)
            finish(line)

        with BackgroundWriter() as writer:
            for path in self.to_judge:
                writer.submit(partial(judge, path))

    def write_tables(self) -> None:
        """Write the tables of all results in the folder. Raises OutputError."""
        if self.folder is not None:
            self._results_folder.write_tables(self.options.tables, regions="regions" in self.options.kinds)

    @property
    def finished(self) -> list[FileKey]:
        """The files that the folder has results of, as they were when they were scored."""
        if self.folder is None:
            return []
        return [result.key for result in self._results_folder.journal.values.values() if result.key is not None]

    def write_page(self) -> None:
        """Write `report.html` if it is asked for. Raises OutputError."""
        if self.folder is not None and self.options.page:
            write_results_page(
                self._results_folder,
                self.detector.profile,
                is_own=self.detector.limits.promise is not None,
                max_pixels=self.detector.max_pixels,
            )

    def line(self, path: PathLike) -> Line:
        """Return the full JSON-able line of a result in the folder."""
        return self._results_folder.journal.line(absolute(path))

    def others(self) -> dict[str | None, int]:
        """Return how many results of other pictures the folder holds, by the run that scored them."""
        if self.folder is None:
            return {}
        mine = {absolute(path) for path in self._keys}
        values = self._results_folder.journal.values
        return dict(Counter(result.run for file, result in values.items() if file not in mine))

    def describe(self, run: str | None) -> str:
        """Return the date of a run in the folder and what scored it, as a few words."""
        line = self._results_folder.runs.values.get(run or "")
        if line is None:
            return "an earlier version"
        return f"run {run} of {line['date'][:10]}, {line['provenance']['profile'] or line['provenance']['method']}"

    @property
    def written(self) -> list[str]:
        """Names of the files and folders that the run writes, below its folder."""
        return written_names(self.options.kinds, self.options.tables, page=self.options.page)

    def _result_settings(self) -> dict[str, Any]:
        """Return everything that results depend on."""
        detector = self.detector
        settings = {
            **result_settings(detector.provenance),
            "object": detector.object_name if detector.engine.needs_object else None,
        }
        if detector.limits.roi is not None:
            settings["roi"] = detector.limits.roi.fingerprint
        # As JSON gives it back, since it is compared with what earlier runs wrote.
        plain: dict[str, Any] = json.loads(json.dumps({**settings, **verdict_settings(detector.limits)}))
        return plain

    def _state(self, path: str) -> State:
        """Return what an earlier run left of a picture."""
        assert self.folder is not None
        result = self._results_folder.journal.values.get(absolute(path))
        if result is None:
            return "new"
        lacking = {kind for kind in self._files if not self._has(result, kind)}
        settings = self._results_folder.settings_of(result)
        holds = settings is not None and scoring_settings(settings) == self._scoring
        # Raw maps are not made of the kept ones, which are rounded.
        can_judge = holds and self._has(result, "map-png") and not lacking & {"map", "map-tiff"}
        if result.settings != self._fingerprint:
            is_same_file = result.key == self._keys[path]
            return "other thresholds" if can_judge and is_same_file else "other settings"
        if result.key != self._keys[path]:
            return "changed file"
        if not lacking:
            return "same"
        return "files to draw" if can_judge else "missing files"

    def _has(self, result: Result, kind: FileKind) -> bool:
        assert self.folder is not None
        return kind in result.files and (self.folder / result.files[kind]).is_file()

    def _begin(self) -> str:
        """Return the id of this run, which is noted in the folder once it has a result."""
        if self._run is None:
            engine = self.detector.engine
            self._run = self._results_folder.begin(
                {
                    "settings": self._settings,
                    "provenance": self.detector.provenance.to_dict(),
                    "preprocessing": engine.preprocessing if isinstance(engine, TorchEngine) else None,
                }
            )
        return self._run

    def _keep(self, path: str, line: Line, files: Mapping[FileKind, Path]) -> Line:
        if self.folder is None:
            self.results[path] = Result(path, line["score"], line["label"], line["verdict"], line["p_value"])
            return line
        # Without a key the file appeared after the run began; the next run repeats it.
        key = self._keys[path] or FileKey(absolute(path), -1, -1)
        named = {"run": self._begin(), "key": [*key, self._fingerprint], "name": self._names[path]}
        line = self._results_folder.keep({**line, **named}, files)
        self.results[path] = result_of(line)
        return line

    def _keep_failure(self, path: str, reason: str) -> Line:
        self.failures[path] = reason
        if self.folder is not None:
            self._results_folder.keep_failure(path, reason, self._fingerprint, self._begin())
        return {"path": path, "error": reason}
