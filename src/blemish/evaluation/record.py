"""What an evaluation leaves in its folder, and how a later run goes on from there.

    scores.jsonl      a line per method and picture, appended as it is scored
    categories.jsonl  a line per method and category, appended as it is measured: its pixel metrics
    maps/             anomaly maps, float32; those of a finished category are removed unless they are to be kept
    examples/         small maps of the best and worst pictures, for the report
    run.json          what was run

A line counts only for the very file, settings and object it was made from. One process at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from blemish.datasets.samples import Sample
from blemish.errors import OutputError, UsageError
from blemish.files import output_error, output_name, try_lock, write_atomically
from blemish.outputs.journal import open_to_append

SCORES, CATEGORIES, RUN = "scores.jsonl", "categories.jsonl", "run.json"
#: Longer side of the maps that are kept for the report, in pixels.
SMALL = 128
#: Bytes of maps that are held for their measurement beside being written, so that they need not be read again.
HELD = 1 << 28


@dataclass(frozen=True)
class Entry:
    """One method's scores of one picture.

    `peak` is the map's maximum, `text_score` what a set-wide rule wants to know besides; None where none does.
    """

    score: float
    peak: float
    text_score: float | None
    key: tuple[int, int, str, str]  # bytes, modification time in ns, settings, object


@dataclass(frozen=True)
class Finished:
    """One method's measured category: pixel metrics by name, set-wide scores if any, and the kept examples.

    `digest` says of which pictures and settings, `aupro` how AUPRO was computed. `error` bounds the distance to the
    exact numbers (0 for exact ones). `intervals` has (low, high) of the bootstrap by metric, where there is one.
    """

    digest: str
    aupro: str
    pixel: Mapping[str, float | None]
    undefined: Mapping[str, str]
    error: float
    set_scores: Sequence[float] | None
    examples: Sequence[str]  # identities of samples
    intervals: Mapping[str, Sequence[float]] = field(default_factory=dict)


class Record:
    """The folder of an evaluation. Use as a context manager.

    Args:
        folder: Made if it is not there.
        root: Of the data set; pictures are known by their path below it.

    Raises:
        OutputError: The folder cannot be written to, or another run is doing so.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        self.scores: dict[tuple[str, str, str], Entry] = {}
        self.finished: dict[tuple[str, str], Finished] = {}
        self._held: dict[Path, NDArray[np.float32]] = {}
        self._room = HELD
        self._names: dict[Path, Path] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / ".lock").open("w")
            if not try_lock(self._lock):
                raise OutputError(f"another run is writing to {folder}; wait for it or choose another --out.", folder)
            self._scores = open_to_append(folder / SCORES)
            self._categories = open_to_append(folder / CATEGORIES)
        except OSError as error:
            raise output_error(folder, error) from error
        self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._scores, self._categories, self._lock):
            file.close()

    # scores

    def identity(self, sample: Sample) -> str:
        """The path below the data set's root, with slashes; the absolute one for a picture outside."""
        try:
            return sample.path.relative_to(self.root).as_posix()
        except ValueError:
            return sample.path.absolute().as_posix()

    def entry(self, method: str, sample: Sample) -> Entry | None:
        """What is known of a picture, from whatever settings."""
        return self.scores.get((method, sample.category, self.identity(sample)))

    def add(self, method: str, sample: Sample, entry: Entry) -> None:
        """Append one score. Raises OutputError."""
        identity = self.identity(sample)
        line = {
            "method": method,
            "category": sample.category,
            "path": identity,
            "label": sample.label,
            "score": entry.score,
            "peak": entry.peak,
            "text_score": entry.text_score,
            "key": list(entry.key),
        }
        self._append(self._scores, SCORES, line)
        self.scores[method, sample.category, identity] = entry

    def forget(self, method: str, sample: Sample, reason: str) -> None:
        """Append that a picture could not be scored; an earlier score was of another content. Raises OutputError."""
        identity = self.identity(sample)
        line = {"method": method, "category": sample.category, "path": identity, "error": reason}
        self._append(self._scores, SCORES, line)
        self.scores.pop((method, sample.category, identity), None)

    # maps

    def map_path(self, method: str, sample: Sample) -> Path:
        """Where the map of a picture is."""
        if (name := self._names.get(sample.path)) is None:
            plain = output_name(sample.path, self.root)
            name = self._names[sample.path] = plain.with_name(f"{plain.name}.npy")
        return self.folder / "maps" / method / _folder(sample.category) / name

    def write_map(self, method: str, sample: Sample, values: NDArray[np.float32]) -> None:
        """Keep a map, (S, S) float32, which nobody changes afterwards. Raises OutputError."""
        path = self.map_path(method, sample)
        write_atomically(path, lambda stream: np.save(stream, values, allow_pickle=False))
        if (before := self._held.pop(path, None)) is not None:
            self._room += before.nbytes
        if values.nbytes <= self._room:
            self._held[path] = values
            self._room -= values.nbytes

    def read_map(self, method: str, sample: Sample) -> NDArray[np.float32]:
        """A map that was kept. Raises OutputError if it is damaged."""
        path = self.map_path(method, sample)
        if (held := self._held.get(path)) is not None:
            return held
        try:
            values: NDArray[np.float32] = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise OutputError(f"the map {path} cannot be read; remove it and run again", path) from error
        return values

    def let_go(self) -> None:
        """Hold no map in memory any more; the files stay."""
        self._held.clear()
        self._room = HELD

    def drop_maps(self, method: str, category: str) -> None:
        """Remove the maps of a category."""
        shutil.rmtree(self.folder / "maps" / method / _folder(category), ignore_errors=True)
        for folder in (self.folder / "maps" / method, self.folder / "maps"):
            with contextlib.suppress(OSError):  # others are still in there
                folder.rmdir()

    # categories

    def finish(self, method: str, category: str, found: Finished) -> None:
        """Append a measured category. Raises OutputError."""
        self._append(self._categories, CATEGORIES, {"method": method, "category": category, **vars(found)})
        self.finished[method, category] = found

    def examples_path(self, method: str, category: str) -> Path:
        """Where the small maps of a category's examples are."""
        return self.folder / "examples" / method / f"{_folder(category)}.npy"

    # the run

    def write_run(self, facts: Mapping[str, Any]) -> None:
        """Say what was run. Raises OutputError."""
        write_json(self.folder / RUN, facts)

    def _append(self, file: IO[bytes], name: str, line: Mapping[str, Any]) -> None:
        try:
            file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
            file.flush()
        except OSError as error:
            raise output_error(self.folder / name, error) from error

    def _read(self) -> None:
        # Lines spoilt by hand are passed over: what they said is done again.
        for line in _lines(self._scores):
            with contextlib.suppress(KeyError, TypeError, ValueError):
                # a picture may be in two categories, and a mutual method judges it by the others of each
                key = line["method"], line["category"], line["path"]
                self.scores.pop(key, None)
                if line.get("error"):
                    continue
                size, modified, settings, told = line["key"]
                told_by = (size, modified, settings, told)
                self.scores[key] = Entry(line["score"], line["peak"], line["text_score"], told_by)
        for line in _lines(self._categories):
            with contextlib.suppress(KeyError, TypeError, ValueError):
                measured = line.pop("method"), line.pop("category")
                self.finished[measured] = Finished(**line)


def read_run(folder: Path) -> dict[str, Any]:
    """What was run in a folder. Raises UsageError if nothing was."""
    try:
        found: dict[str, Any] = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{folder} holds no evaluation that could be computed again; run one into it without --recompute first."
        ) from error
    return found


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people and machines. Raises OutputError."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda stream: stream.write(text.encode("utf-8")))


def digest_of(entries: Mapping[str, Entry], labels: Mapping[str, int]) -> str:
    """16 hex digits over the pictures of a category, their labels, and what their scores were made from."""
    parts = [[identity, labels[identity], list(entry.key)] for identity, entry in sorted(entries.items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _lines(file: IO[bytes]) -> Any:
    file.seek(0)
    for raw in file:
        with contextlib.suppress(ValueError):
            line = json.loads(raw)
            if isinstance(line, dict):
                yield line


def _folder(category: str) -> str:
    """A category as the name of one folder."""
    return "_".join(output_name(Path("/") / (category or "all"), "/").parts)
