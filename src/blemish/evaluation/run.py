"""One evaluation: what is to be done, doing it category by category, and the numbers of what is recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from blemish.datasets.samples import Dataset, Sample
from blemish.detector import Detector
from blemish.errors import BlemishError, ImageError
from blemish.evaluation.literature import compare
from blemish.evaluation.measure import Masks, Options, judged, measured, set_rule
from blemish.evaluation.record import Entry, Finished, Record, digest_of
from blemish.evaluation.result import Evaluation, Failure
from blemish.evaluation.rows import rows_of
from blemish.few_shot import sample_memory_bank
from blemish.methods.base import MemoryBank, TransductiveMethod
from blemish.methods.text_cache import prompt_name
from blemish.metrics import StreamingPixelMetrics
from blemish.outputs.journal import result_settings, settings_fingerprint
from blemish.scoring import Failed, Pass, Scored, Scorer, Task


class Run:
    """Scores and measures; whatever an earlier run into the same folder finished is taken over.

    Args:
        dataset: Its samples are all used: `draw` fewer beforehand.
        detectors: By method, all on one backbone, device and precision.
        record: The open folder.
        options: How to measure.
        facts: What else should be told of the run.
        keep_maps: Keep all maps, so that metrics can be recomputed without the model.
        batch_size: Pictures that go through the model together.
    """

    def __init__(
        self,
        dataset: Dataset,
        detectors: Mapping[str, Detector],
        record: Record,
        options: Options,
        facts: Mapping[str, Any],
        *,
        keep_maps: bool = False,
        batch_size: int = 8,
    ) -> None:
        self.dataset, self.detectors, self.record, self.options = dataset, detectors, record, options
        self.categories = {category: dataset.of(category) for category in dataset.categories}
        self.failed: dict[tuple[str, str], Failure] = {}  # by method, picture
        self.done = 0
        self._keep_maps = keep_maps
        self._scorer = Scorer(
            {name: detector.engine for name, detector in detectors.items()},
            batch_size=batch_size,
            max_pixels=min(detector.max_pixels for detector in detectors.values()),
            text_scores={
                name for name, detector in detectors.items() if "text_scores" in (set_rule(detector.method) or ())
            },
        )
        self.passes: tuple[Pass, ...] = self._scorer.passes
        self._settings = {
            name: settings_fingerprint(result_settings(detector.provenance)) for name, detector in detectors.items()
        }
        self._made = {name: detector.provenance.to_dict() for name, detector in detectors.items()}
        self._files = {sample: _file(sample.path) for sample in dataset}
        self._mutual = {name for name, detector in detectors.items() if detector.method.info.transductive}
        # Their scores depend on all pictures of the category.
        self._sets = {
            category: settings_fingerprint({"files": [self._files[sample] for sample in samples]})
            for category, samples in self.categories.items()
            if self._mutual
        }
        self._facts = dict(facts)
        self._wanted = {
            (name, sample)
            for category in self.categories
            for name in detectors
            for sample in self._missing(name, category)
        }

    @property
    def todo(self) -> int:
        """How many scores are still to be made."""
        return len(self._wanted)

    @property
    def taken_over(self) -> int:
        """How many scores are there from an earlier run."""
        return len(self.dataset) * len(self.detectors) - self.done - self.todo

    def execute(self, advance: Callable[[], None] = lambda: None) -> Evaluation:
        """Do what is missing, one category after the other.

        Args:
            advance: Called for each score that is made, or cannot be made.

        Raises:
            OutputError: The folder cannot be written to; what was finished before stays.
        """
        self.record.write_run(self.facts())
        for category, samples in self.categories.items():
            self._do(category, samples, advance)
        facts = self.facts()
        self.record.write_run(facts)
        return evaluation(
            self.record, self.dataset, self.categories, list(self.detectors), self.options, self.failed, facts
        )

    def facts(self) -> dict[str, Any]:
        """Where the numbers come from, as JSON values."""
        clock = self._scorer.clock
        return {
            **self._facts,
            "pictures": len(self.dataset),
            "categories": list(self.categories),
            "methods": {
                name: {**self._made[name], "settings": self._settings[name], "map_range": _range(detector)}
                for name, detector in self.detectors.items()
            },
            "passes": [
                {**one.to_dict(), "seconds": round(clock.passes.get(one.number, 0.0), 3)} for one in self.passes
            ],
            "seconds": {
                "pictures": clock.images,
                "reading": round(clock.reading, 3),
                "methods": {name: round(seconds, 3) for name, seconds in clock.methods.items()},
            },
        }

    # one category

    def _do(self, category: str, samples: Sequence[Sample], advance: Callable[[], None]) -> None:
        masks, histograms = Masks(), self._histograms(samples)

        def keep(scored: Scored[Sample]) -> None:
            name, sample, values = scored.method, scored.item, scored.map.numpy()
            known = [scored.score] if scored.text_score is None else [scored.score, scored.text_score]
            if not (np.isfinite(known).all() and np.isfinite(values).all()):
                reason = f"{name} gives {sample.path} no finite score or map."
                fail_one(name, sample, ImageError(reason, sample.path))
                return
            try:
                if name in histograms:
                    if sample.masks is not None:
                        histograms[name].update(masks.once(sample, len(values)), values)
                else:
                    self.record.write_map(name, sample, values)
            except ImageError as error:
                fail_one(name, sample, error)
                return
            key = self._key(name, sample)
            assert key is not None  # it has just been read
            self.record.add(name, sample, Entry(scored.score, float(values.max()), scored.text_score, key))
            self._wanted.discard((name, sample))
            self.done += 1
            advance()

        def fail_one(name: str, sample: Sample, error: BlemishError) -> None:
            self.record.forget(name, sample, str(error))
            self.failed[name, self.record.identity(sample)] = Failure(
                category=category, path=str(sample.path), reason=str(error)
            )
            self._wanted.discard((name, sample))
            advance()

        todo = [
            Task(sample, sample.path, names, sample.object_name) for sample in samples if (names := self._names(sample))
        ]
        memories: dict[str, MemoryBank | None] = {}
        for name in self._mutual.intersection(frozenset().union(*(task.methods for task in todo))):
            detector, paths = self.detectors[name], [sample.path for sample in samples]
            memories[name] = sample_memory_bank(detector.torch_engine, paths, max_pixels=detector.max_pixels)
        for result in self._scorer.run(todo, memories):
            if not isinstance(result, Failed):
                keep(result)
                continue
            for name in self._names(result.item):
                fail_one(name, result.item, result.error)
        self._measure(category, samples, masks, histograms)
        self.record.let_go()

    def _measure(
        self,
        category: str,
        samples: Sequence[Sample],
        masks: Masks,
        histograms: Mapping[str, StreamingPixelMetrics],
    ) -> None:
        """Measure every method whose numbers are not there yet, several at once."""
        with ThreadPoolExecutor(self._at_once(samples), "blemish-measure") as pool:
            found: dict[str, tuple[int, Future[Finished]]] = {}
            for name, detector in self.detectors.items():
                if self._settled(name, category):
                    continue
                scored = [sample for sample in samples if (name, self.record.identity(sample)) not in self.failed]
                if not scored:
                    self.record.finished.pop((name, category), None)
                    continue
                told = (self.record, name, detector.method, category, scored, self.options, masks, histograms.get(name))
                found[name] = len(scored), pool.submit(measured, *told)
            try:
                for name, (count, future) in found.items():
                    self._take(name, category, future, whole=count == len(samples))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _take(self, name: str, category: str, future: Future[Finished], *, whole: bool) -> None:
        try:
            self.record.finish(name, category, future.result())
        except ImageError as error:  # a mask: the maps stay, and the category is measured when it is put right
            path = error.path or category
            self.failed[name, f"mask {path}"] = Failure(category=category, path=path, reason=str(error))
            self.record.finished.pop((name, category), None)
            return
        if not self._keep_maps and whole:
            self.record.drop_maps(name, category)

    def _at_once(self, samples: Sequence[Sample]) -> int:
        """How many methods are measured together: as many as threads, while the pixels of all of them can be held."""
        side = max(detector.method.computation.size for detector in self.detectors.values())
        room = self.options.exact_pixels // max(len(samples) * side**2, 1)
        return max(1, min(torch.get_num_threads(), len(self.detectors), room))

    def _histograms(self, samples: Sequence[Sample]) -> dict[str, StreamingPixelMetrics]:
        """For the methods whose maps of this category are too many to be kept."""
        if self._keep_maps:
            return {}
        large = {
            name
            for name, detector in self.detectors.items()
            if len(samples) * detector.method.computation.size**2 > self.options.exact_pixels
        }
        return {name: StreamingPixelMetrics() for name in large if judged(samples)}

    # what is there already

    def _names(self, sample: Sample) -> frozenset[str]:
        return frozenset(name for name in self.detectors if (name, sample) in self._wanted)

    def _missing(self, name: str, category: str) -> Sequence[Sample]:
        samples = self.categories[category]
        if self._settled(name, category):
            return []
        missing = [sample for sample in samples if not self._scored(name, sample)]
        streamed = bool(missing) and name in self._histograms(samples)
        return samples if streamed else missing  # a histogram cannot be gone on with

    def _scored(self, name: str, sample: Sample) -> bool:
        """Whether a score of this very picture is there, and its map."""
        return self._same(name, sample) and self.record.map_path(name, sample).is_file()

    def _same(self, name: str, sample: Sample) -> bool:
        entry = self.record.entry(name, sample)
        return entry is not None and entry.key == self._key(name, sample)

    def _settled(self, name: str, category: str) -> bool:
        """Whether the category's numbers are there, of these very pictures and as they are asked for."""
        samples = self.categories[category]
        found = self.record.finished.get((name, category))
        if found is None or found.aupro != self.options.label or not all(self._same(name, one) for one in samples):
            return False
        if self._keep_maps and not all(self.record.map_path(name, one).is_file() for one in samples):
            return False
        return found.digest == digest(self.record, name, samples)

    def _key(self, name: str, sample: Sample) -> tuple[int, int, str, str] | None:
        file = self._files[sample]
        told = prompt_name(self.detectors[name].method, sample.object_name)
        if name in self._mutual:
            told += f" in {self._sets[sample.category]}"
        return None if file is None else (*file, self._settings[name], told)


def evaluation(
    record: Record,
    dataset: Dataset,
    categories: Mapping[str, Sequence[Sample]],
    methods: Sequence[str],
    options: Options,
    failed: Mapping[tuple[str, str], Failure],
    facts: Mapping[str, Any],
) -> Evaluation:
    """The result of what is recorded."""
    counts = Counter((name, failure.category) for (name, what), failure in failed.items() if "mask " not in what)
    rows = rows_of(record, dataset.name, categories, methods, options, counts)
    return Evaluation(
        rows=tuple(rows),
        published=compare(rows, facts),
        failed=_once(failed.values()),
        facts=facts,
        folder=record.folder,
    )


def digest(record: Record, name: str, samples: Sequence[Sample]) -> str:
    """Of a category's recorded scores; all have to be there."""
    found = {record.identity(sample): record.entry(name, sample) for sample in samples}
    entries = {identity: entry for identity, entry in found.items() if entry is not None}
    return digest_of(entries, {record.identity(sample): sample.label for sample in samples})


def _once(failures: Iterable[Failure]) -> tuple[Failure, ...]:
    return tuple({(one.path, one.reason): one for one in failures}.values())


def _range(detector: Detector) -> list[float]:
    method = detector.method
    if isinstance(method, TransductiveMethod):
        return [float(end) for end in method.memory_map_range]
    return [float(end) for end in method.map_range]


def _file(path: Path) -> tuple[int, int] | None:
    """Bytes and modification time of a picture; None if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
