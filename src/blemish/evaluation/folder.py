"""The folder of an evaluation: what is on disk, and what a later run reuses.

    scores.jsonl      a line per method and image, appended as soon as it is scored
    categories.jsonl  a line per method and category, appended as soon as it is measured
    maps/             anomaly maps, float32; those of a measured category are removed unless all maps are kept
    examples/         small maps of the best and worst images, for the report
    run.json          options, methods and passes of the run

A score counts only for the same image file, settings and object name.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from blemish.datasets.samples import Sample
from blemish.errors import OutputError, UsageError
from blemish.files import output_name, parse_json, write_atomically
from blemish.outputs.journal import RunFolder
from blemish.types import PathLike

SCORES, CATEGORIES, RUN = "scores.jsonl", "categories.jsonl", "run.json"
#: Version of the files in the folder.
FORMAT = 2
#: Bytes of maps that stay in memory until their category is measured.
MAP_CACHE_BYTES = 1 << 28


@dataclass(frozen=True)
class ImageScore:
    """One method's score of one image."""

    score: float
    peak: float
    """Largest value of the anomaly map."""
    text_score: float | None
    """Score of the class token, for methods whose set-wide scores need it."""
    key: tuple[int, int, str, str]
    """Size in bytes and modification time in ns of the file, settings fingerprint, object name."""


@dataclass(frozen=True)
class CategoryResult:
    """One method's measured category."""

    digest: str
    """Hash of the images, labels and settings that were measured."""
    aupro: str
    """What was measured: see `MetricOptions.variant`."""
    pixel: Mapping[str, float | None]
    """Pixel metrics by name; None for nan."""
    undefined: Mapping[str, str]
    """Reason for each pixel metric that is nan."""
    error: float
    """Largest distance to the exact pixel metrics; 0 for exact ones."""
    set_scores: Sequence[float] | None
    """Image scores by the paper's rule for whole sets, where there is one."""
    examples: Sequence[str]
    """Identities of the images whose small maps are kept."""
    intervals: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Bootstrap interval (low, high) by pixel metric."""
    mask_notes: Sequence[str] = ()
    """What was noticed about the masks."""
    extra: Mapping[str, float | None] = field(default_factory=dict)
    """Further pixel and mask metrics by name; None for nan."""


class EvaluationFolder:
    """Scores, maps and results of an evaluation on disk. Use it as a context manager.

    Args:
        path: The folder, created if it does not exist; None for a temporary one that is removed at the end.
        root: Root of the data set; images are identified by their path below it.

    Attributes:
        results: Measured categories by (method, category).

    Raises:
        OutputError: The folder cannot be written to, or another run is writing to it.
    """

    def __init__(self, path: PathLike | None, root: Path) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="blemish-") if path is None else None
        self.path = Path(self._temporary.name if self._temporary else path or "")
        self._root = root
        self._run_folder = RunFolder(self.path)
        self._scores = self._run_folder.journal(
            SCORES, key=lambda line: (line["method"], line["category"], line["path"]), value=_image_score
        )
        self._categories = self._run_folder.journal(
            CATEGORIES, key=lambda line: (line["method"], line["category"]), value=_category_result
        )
        self.results: dict[tuple[str, str], CategoryResult] = dict(self._categories.values)
        self._maps: dict[Path, NDArray[np.float32]] = {}
        self._free_bytes = MAP_CACHE_BYTES
        self._names: dict[Path, Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run_folder.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    @property
    def kept(self) -> Path | None:
        """The folder; None if it is temporary."""
        return None if self._temporary is not None else self.path

    def identity(self, sample: Sample) -> str:
        """Return the path below the root with slashes; the absolute path of an image outside the root."""
        try:
            return sample.path.relative_to(self._root).as_posix()
        except ValueError:
            return sample.path.absolute().as_posix()

    def score(self, method: str, sample: Sample) -> ImageScore | None:
        """Return the newest score of an image, made with any settings; None if there is none."""
        return self._scores.values.get((method, sample.category, self.identity(sample)))

    def add_score(self, method: str, sample: Sample, score: ImageScore) -> None:
        """Append a score. Raises OutputError."""
        line = {"label": sample.label, **vars(score), "key": list(score.key)}
        self._scores.append({**self._line(method, sample), **line})

    def add_failure(self, method: str, sample: Sample, reason: str) -> None:
        """Append that an image cannot be scored, which replaces its earlier score. Raises OutputError."""
        self._scores.append({**self._line(method, sample), "error": reason})

    def _line(self, method: str, sample: Sample) -> dict[str, str]:
        return {"method": method, "category": sample.category, "path": self.identity(sample)}

    def digest(self, method: str, samples: Sequence[Sample]) -> str:
        """Return 16 hex digits over the images, their labels, and the keys of their scores."""
        scores = {self.identity(sample): (sample.label, self.score(method, sample)) for sample in samples}
        parts = [[name, label, list(s.key)] for name, (label, s) in sorted(scores.items()) if s is not None]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def add_result(self, method: str, category: str, result: CategoryResult) -> None:
        """Append a measured category. Raises OutputError."""
        self._categories.append({"method": method, "category": category, **vars(result)})
        self.results[method, category] = result

    def map_path(self, method: str, sample: Sample) -> Path:
        """Return the file of an image's anomaly map."""
        if (name := self._names.get(sample.path)) is None:
            stem = output_name(sample.path, self._root)
            name = self._names[sample.path] = stem.with_name(f"{stem.name}.npy")
        return self.path / "maps" / method / _folder_name(sample.category) / name

    def write_map(self, method: str, sample: Sample, anomaly_map: NDArray[np.float32]) -> None:
        """Write a map (S, S); the caller must not change it afterwards. Raises OutputError."""
        path = self.map_path(method, sample)
        _write_array(path, anomaly_map)
        if (replaced := self._maps.pop(path, None)) is not None:
            self._free_bytes += replaced.nbytes
        if anomaly_map.nbytes <= self._free_bytes:
            self._maps[path] = anomaly_map
            self._free_bytes -= anomaly_map.nbytes

    def read_map(self, method: str, sample: Sample) -> NDArray[np.float32]:
        """Return a map (S, S), from memory if it is still there. Raises OutputError if the file is damaged."""
        path = self.map_path(method, sample)
        if (cached := self._maps.get(path)) is not None:
            return cached
        try:
            anomaly_map: NDArray[np.float32] = _read_array(path)
        except (OSError, ValueError, EOFError) as error:
            raise OutputError(f"the map {path} cannot be read; remove it and run again", path) from error
        return anomaly_map

    def clear_map_cache(self) -> None:
        """Remove all maps from memory; the files stay."""
        self._maps.clear()
        self._free_bytes = MAP_CACHE_BYTES

    def remove_maps(self, method: str, category: str) -> None:
        """Remove the map files of a category."""
        shutil.rmtree(self.path / "maps" / method / _folder_name(category), ignore_errors=True)
        for folder in (self.path / "maps" / method, self.path / "maps"):
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()

    def write_examples(self, method: str, category: str, maps: Sequence[NDArray[np.float32]]) -> None:
        """Write the small maps of a category's examples as float16. Raises OutputError."""
        stacked = np.stack(maps).astype(np.float16)
        _write_array(self._examples_path(method, category), stacked)

    def read_examples(self, method: str, category: str) -> dict[str, NDArray[np.float32]]:
        """Return the small maps of a category's examples by image; empty if they are missing."""
        result = self.results.get((method, category))
        if result is not None:
            with contextlib.suppress(OSError, ValueError, EOFError):
                maps = _read_array(self._examples_path(method, category)).astype(np.float32)
                return dict(zip(result.examples, maps, strict=True))
        return {}

    def _examples_path(self, method: str, category: str) -> Path:
        return self.path / "examples" / method / f"{_folder_name(category)}.npy"

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Write options, methods and passes of the run. Raises OutputError."""
        write_json(self.path / RUN, {"format": FORMAT, **facts})


def _write_array(path: Path, values: NDArray[Any]) -> None:
    """Write an array as a .npy file with its CRC-32 behind it, where NumPy does not look. Raises OutputError."""
    text = io.BytesIO()
    np.save(text, values, allow_pickle=False)
    data = text.getvalue()
    # Not durable: what is lost or cut short is noticed when it is read, and made again.
    write_atomically(path, lambda stream: stream.write(data + zlib.crc32(data).to_bytes(4, "little")), durable=False)


def _read_array(path: Path) -> NDArray[Any]:
    """Return an array. Raises OSError, EOFError or ValueError for a file that is missing or damaged."""
    data = path.read_bytes()
    stream = io.BytesIO(data)
    values: NDArray[Any] = np.load(stream, allow_pickle=False)
    end = stream.tell()
    # Files of earlier versions have nothing behind the array.
    if data[end:] not in (b"", zlib.crc32(data[:end]).to_bytes(4, "little")):
        raise ValueError("its checksum is another one")
    return values


def read_facts(folder: Path) -> dict[str, Any]:
    """Return what `EvaluationFolder.write_facts` wrote.

    Raises:
        UsageError: There is no evaluation in the folder, or one that another version of blemish wrote.
    """
    try:
        facts: dict[str, Any] = parse_json((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} holds no evaluation to recompute; run one into it first.") from error
    if facts.pop("format", None) != FORMAT:
        raise UsageError(f"{folder} was written by another version of blemish; evaluate into a new folder.")
    return facts


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON. Raises OutputError."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda stream: stream.write(text.encode("utf-8")))


def _image_score(line: Mapping[str, Any]) -> ImageScore:
    size, modified, settings, object_name = line["key"]
    return ImageScore(line["score"], line["peak"], line["text_score"], (size, modified, settings, object_name))


def _category_result(line: Mapping[str, Any]) -> CategoryResult:
    return CategoryResult(**{name: value for name, value in line.items() if name not in ("method", "category")})


def _folder_name(category: str) -> str:
    return "_".join(output_name(Path("/") / (category or "all"), "/").parts)
