"""One evaluation: what is left to do, doing it category by category, and the result."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from blemish.datasets.samples import Dataset, Sample
from blemish.detector import Detector
from blemish.engine import prompt_name
from blemish.errors import ImageError, UsageError
from blemish.evaluation.folder import CategoryResult, EvaluationFolder, ImageScore
from blemish.evaluation.literature import compare
from blemish.evaluation.measure import (
    MaskCache,
    count_pixels,
    input_map,
    measure_category,
    remeasure_category,
    set_score_inputs,
    with_known_masks,
)
from blemish.evaluation.options import MetricOptions
from blemish.evaluation.result import Evaluation, Failure, FailureKind
from blemish.evaluation.rows import make_rows, method_differences
from blemish.methods.base import MemoryBank, TransductiveMethod
from blemish.metrics import StreamingPixelMetrics
from blemish.outputs.journal import file_key, result_settings, settings_fingerprint
from blemish.scoring import Failed, Scored, Scorer, Task, add_tile, finished_map
from blemish.types import ValueRange


@dataclass(frozen=True)
class _MethodFailure:
    method: str
    failure: Failure


class Run:
    """Scores and measures a data set with several methods; reuses what an earlier run into the folder completed.

    Args:
        dataset: Images to evaluate, all of them.
        detectors: Detector of each method, all on one backbone, device and precision.
        folder: Folder of the evaluation, open.
        options: How metrics are computed.
        facts: Further facts for the result.
        keep_maps: Keep all maps, so that metrics can be recomputed without the model.
        batch_size: Number of images that go through the model together.

    Attributes:
        passes: Passes of the backbone over each image.
        todo: Number of scores left to compute.
        done: Number of scores computed so far.
        reused: Number of scores of earlier runs.
        failed: Number of scores that could not be computed.
    """

    def __init__(
        self,
        dataset: Dataset,
        detectors: Mapping[str, Detector],
        folder: EvaluationFolder,
        options: MetricOptions,
        facts: Mapping[str, Any],
        *,
        keep_maps: bool = False,
        batch_size: int = 8,
    ) -> None:
        self.dataset, self.detectors, self.folder, self.options = dataset, detectors, folder, options
        self.categories = {category: dataset.of(category) for category in dataset.categories}
        self._facts, self._keep_maps = dict(facts), keep_maps
        methods = {name: detector.torch_engine.method for name, detector in detectors.items()}
        self._scorer = Scorer(
            {name: detector.engine for name, detector in detectors.items()},
            batch_size=batch_size,
            max_pixels=min(detector.max_pixels for detector in detectors.values()),
            value_range=_common_range(detectors),
            # Only the one detector of a profile can have tiles.
            tiling=next(iter(detectors.values())).tiling,
            # A profile gives each picture a score of its own, whatever the paper's rule for sets is.
            text_scores={
                name
                for name, method in methods.items()
                if detectors[name].profile is None and "text_scores" in (set_score_inputs(method) or ())
            },
        )
        self.passes = self._scorer.passes
        self._settings = {name: settings_fingerprint(_settings(d)) for name, d in detectors.items()}
        self._files = {sample: file_key(sample.path) for sample in dataset}
        self._transductive = {
            name for name, method in methods.items() if method.info.transductive and detectors[name].profile is None
        }
        self._sets = {category: self._set_fingerprint(samples) for category, samples in self.categories.items()}
        self._failures: list[_MethodFailure] = []
        self._todo = {
            (name, sample)
            for category in self.categories
            for name in detectors
            for sample in self._missing(name, category)
        }
        self.done = self.failed = 0
        self.reused = len(dataset) * len(detectors) - len(self._todo)

    @property
    def todo(self) -> int:
        """Number of scores left to compute."""
        return len(self._todo)

    def execute(self, on_progress: Callable[[], None] = lambda: None) -> Evaluation:
        """Compute what is missing, one category after the other.

        Args:
            on_progress: Called for each score that is computed, or cannot be computed.

        Raises:
            OutputError: The folder cannot be written to; what was completed before stays.
        """
        self.folder.write_facts(self.facts())
        for category, samples in self.categories.items():
            histograms, masks = self._histograms(samples), MaskCache(self.options.masks == "full")
            self._score(category, samples, histograms, masks, on_progress)
            self._measure(category, samples, histograms, masks)
            self.folder.clear_map_cache()
        facts = {**self.facts(), "verdicts": self._verdicts()}
        self.folder.write_facts(facts)
        methods = list(self.detectors)
        return make_evaluation(self.folder, self.dataset, methods, self.options, self._failures, facts)

    def _verdicts(self) -> list[dict[str, Any]]:
        """Return, for a profile, how many normal and anomalous pictures of each category reach its threshold."""
        tallies = []
        for name, detector in self.detectors.items():
            if detector.profile is None or detector.threshold is None:
                continue
            for category, samples in self.categories.items():
                reached: dict[int, list[bool]] = {0: [], 1: []}
                for sample in samples:
                    if (score := self.folder.score(name, sample)) is not None:
                        reached[int(sample.label)].append(score.score >= detector.threshold)
                tallies.append(
                    {
                        "method": name,
                        "category": category,
                        "threshold": detector.threshold,
                        "promised": detector.profile.false_alarms,
                        "normal": len(reached[0]),
                        "false_alarms": sum(reached[0]),
                        "anomalous": len(reached[1]),
                        "caught": sum(reached[1]),
                    }
                )
        return tallies

    def facts(self) -> dict[str, Any]:
        """Return where the numbers come from, as JSON values."""
        clock = self._scorer.clock
        return {
            **self._facts,
            "pictures": len(self.dataset),
            "categories": list(self.categories),
            "methods": {
                name: {**d.provenance.to_dict(), "settings": self._settings[name], "map_range": _map_range(d)}
                for name, d in self.detectors.items()
            },
            "passes": [{**p.to_dict(), "seconds": round(clock.passes.get(p.number, 0.0), 3)} for p in self.passes],
            "seconds": {
                "pictures": clock.images,
                "reading": round(clock.reading, 3),
                "methods": {name: round(seconds, 3) for name, seconds in clock.methods.items()},
            },
        }

    # Scoring

    def _score(
        self,
        category: str,
        samples: Sequence[Sample],
        histograms: Mapping[str, StreamingPixelMetrics],
        masks: MaskCache,
        on_progress: Callable[[], None],
    ) -> None:
        memories = {}
        for name in sorted(self._transductive):
            if any((name, sample) in self._todo for sample in samples):
                try:
                    memories[name] = self._set_memory(name, samples)
                except UsageError as cause:
                    self._fail_method(name, category, samples, cause, on_progress)
        tasks = [Task(s, s.path, names, s.object_name) for s in samples if (names := self._methods_todo(s))]
        memories |= {name: d.memory for name, d in self.detectors.items() if d.profile is not None}
        for result in self._scorer.run(tasks, memories):
            error: ImageError | None
            if isinstance(result, Failed):
                methods, error = self._methods_todo(result.item), result.error
            else:
                measured = self._measured(result)
                if measured is None:
                    continue
                methods = frozenset({result.method})
                error = self._store(result, *measured, masks, histograms.get(result.method))
            for name in methods:
                self._todo.discard((name, result.item))
                if error is None:
                    self.done += 1
                else:
                    self.failed += 1
                    self.folder.add_failure(name, result.item, str(error))
                    self._add_failure(name, category, "picture", str(result.item.path), error)
                on_progress()

    def _set_memory(self, name: str, samples: Sequence[Sample]) -> MemoryBank | None:
        """Return the memory of a method that compares the pictures of a category. Raises UsageError if it cannot."""
        detector = self.detectors[name]
        memory = detector.with_set([sample.path for sample in samples]).memory
        if memory is None:
            detector.torch_engine.method.info.require_references(False)
        return memory

    def _fail_method(
        self,
        name: str,
        category: str,
        samples: Sequence[Sample],
        error: UsageError,
        on_progress: Callable[[], None],
    ) -> None:
        """Leave a method out of a category that it cannot score; the others go on."""
        failure = Failure(kind="method", category=category, path=f"{name} on {category}", reason=str(error))
        self._failures.append(_MethodFailure(name, failure))
        for sample in samples:
            self.folder.add_failure(name, sample, str(error))
            if (name, sample) in self._todo:
                self._todo.discard((name, sample))
                self.failed += 1
                on_progress()

    def _measured(self, scored: Scored[Sample]) -> tuple[float, NDArray[np.float32]] | None:
        """Return the score and the map that are measured; None for a picture that lacks some of its tiles."""
        detector, tile = self.detectors[scored.method], scored.tile
        if detector.tiling is None:
            return self._score_inside(scored), self._measured_map(scored).numpy()
        engine, memory, roi = detector.engine, detector.memory, detector.limits.roi
        add_tile(tile.merger, tile.index, scored.score, scored.map, scored.timing, engine, memory, roi)
        if not tile.merger.done:
            return None
        anomaly_map = finished_map(tile.merger, engine, memory, roi)
        if self.options.masks == "map":
            whole = torch.from_numpy(anomaly_map)[None, None]
            anomaly_map = functional.interpolate(whole, (engine.size, engine.size), mode="area")[0, 0].numpy()
        return tile.merger.score, anomaly_map

    def _store(
        self,
        scored: Scored[Sample],
        value: float,
        anomaly_map: NDArray[np.float32],
        masks: MaskCache,
        histogram: StreamingPixelMetrics | None,
    ) -> ImageError | None:
        """Store a score and its map; return the error if they are unusable."""
        name, sample = scored.method, scored.item
        numbers = [value] if scored.text_score is None else [value, scored.text_score]
        if not (np.isfinite(numbers).all() and np.isfinite(anomaly_map).all()):
            return ImageError(f"{name} gives {sample.path} no finite score or map.", sample.path)
        if histogram is None:
            self.folder.write_map(name, sample, anomaly_map)
        elif sample.masks is not None:
            try:
                side = len(anomaly_map)
                histogram.update(masks.read(sample, side), masks.fit(sample, anomaly_map, side))
            except ImageError as error:
                return error
        key = self._key(name, sample)
        assert key is not None  # the file has just been read
        score = ImageScore(value, float(anomaly_map.max()), scored.text_score, key)
        self.folder.add_score(name, sample, score)
        return None

    def _score_inside(self, scored: Scored[Sample]) -> float:
        """Return the score, or that of the region of interest if the detector has one."""
        detector = self.detectors[scored.method]
        if detector.limits.roi is None:
            return scored.score
        height, width = scored.map.shape
        inside = torch.from_numpy(detector.limits.roi.resized(width, height).copy())
        return detector.engine.score_inside(scored.score, scored.map, inside, detector.memory)

    def _measured_map(self, scored: Scored[Sample]) -> torch.Tensor:
        """Return the map in the size in which it is measured: that of the method's input.

        For full masks it is the picture's own if the method does more than resize its maps, since this cannot be done
        afterwards.
        """
        detector = self.detectors[scored.method]
        engine, roi = detector.torch_engine, detector.limits.roi
        if self.options.masks == "full" and engine.finishes_maps:
            width, height = scored.tile.merger.size
            anomaly_map = engine.finish_map(scored.map, height, width)
        else:
            anomaly_map = input_map(engine, scored.map)
        if roi is None:
            return anomaly_map
        height, width = anomaly_map.shape
        outside = ~torch.from_numpy(roi.resized(width, height).copy())
        return anomaly_map.masked_fill(outside, engine.map_range(detector.memory)[0])

    # Measuring

    def _measure(
        self,
        category: str,
        samples: Sequence[Sample],
        histograms: Mapping[str, StreamingPixelMetrics],
        masks: MaskCache,
    ) -> None:
        """Measure every method that has no result of this category yet, several at once."""
        failures = [f for f in self._failures if f.failure.category == category]
        unscored = {(f.method, f.failure.path) for f in failures}
        left_out = {f.method for f in failures if f.failure.kind == "method"}
        with ThreadPoolExecutor(self._num_threads(samples), "blemish-measure") as pool:
            futures: dict[str, tuple[bool, Future[CategoryResult]]] = {}
            for name, detector in self.detectors.items():
                if self._is_measured(name, category):
                    continue
                scored = [sample for sample in samples if (name, str(sample.path)) not in unscored]
                if not scored or name in left_out:
                    self.folder.results.pop((name, category), None)
                    continue
                method, histogram = detector.torch_engine.method, histograms.get(name)
                low, high = _map_range(detector)
                task = (self.folder, name, method, category, scored, self.options, masks, histogram, (low, high))
                futures[name] = len(scored) == len(samples), pool.submit(measure_category, *task)
            try:
                for name, (is_complete, future) in futures.items():
                    self._store_result(name, category, future, remove_maps=is_complete and not self._keep_maps)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _store_result(self, name: str, category: str, future: Future[CategoryResult], *, remove_maps: bool) -> None:
        try:
            self.folder.add_result(name, category, future.result())
        except ImageError as error:  # a mask: the maps stay, so that the category can be measured once it is repaired
            self._add_failure(name, category, "mask", str(error.path or category), error)
            self.folder.results.pop((name, category), None)
            return
        if remove_maps:
            self.folder.remove_maps(name, category)

    def _add_failure(self, name: str, category: str, kind: FailureKind, path: str, error: ImageError) -> None:
        failure = Failure(kind=kind, category=category, path=path, reason=str(error))
        self._failures.append(_MethodFailure(name, failure))

    def _num_threads(self, samples: Sequence[Sample]) -> int:
        """Return how many methods to measure at once: as many as threads, if their pixels fit into memory."""
        side = max(detector.torch_engine.method.computation.size for detector in self.detectors.values())
        max_methods = self.options.max_exact_pixels // max(count_pixels(samples, side, self.options), 1)
        return max(1, min(torch.get_num_threads(), len(self.detectors), max_methods))

    def _histograms(self, samples: Sequence[Sample]) -> dict[str, StreamingPixelMetrics]:
        """Return a histogram for each method whose maps of this category are too large to keep."""
        if self._keep_maps or not with_known_masks(samples):
            return {}
        sides = {name: detector.torch_engine.method.computation.size for name, detector in self.detectors.items()}
        limit = self.options.max_exact_pixels
        pixels = {side: count_pixels(samples, side, self.options) for side in set(sides.values())}
        return {name: StreamingPixelMetrics() for name, side in sides.items() if pixels[side] > limit}

    # What an earlier run completed

    def _methods_todo(self, sample: Sample) -> frozenset[str]:
        return frozenset(name for name in self.detectors if (name, sample) in self._todo)

    def _missing(self, name: str, category: str) -> Sequence[Sample]:
        samples = self.categories[category]
        if self._is_measured(name, category):
            return []
        missing = [
            sample
            for sample in samples
            if not (self._is_scored(name, sample) and self.folder.map_path(name, sample).is_file())
        ]
        # A histogram is not stored, so it needs all images again.
        return samples if missing and name in self._histograms(samples) else missing

    def _is_scored(self, name: str, sample: Sample) -> bool:
        score = self.folder.score(name, sample)
        return score is not None and score.key == self._key(name, sample)

    def _is_measured(self, name: str, category: str) -> bool:
        """Return whether there is a result for the images, settings and options of this run."""
        samples = self.categories[category]
        result = self.folder.results.get((name, category))
        if result is None or result.aupro != self.options.variant:
            return False
        if not all(self._is_scored(name, sample) for sample in samples):
            return False
        if self._keep_maps and not all(self.folder.map_path(name, sample).is_file() for sample in samples):
            return False
        return result.digest == self.folder.digest(name, samples)

    def _key(self, name: str, sample: Sample) -> tuple[int, int, str, str] | None:
        file = self._files[sample]
        object_name = prompt_name(self.detectors[name].torch_engine.method, sample.object_name)
        if name in self._transductive:
            object_name += f" in {self._sets[sample.category]}"
        return None if file is None else (file.size, file.modified, self._settings[name], object_name)

    def _set_fingerprint(self, samples: Sequence[Sample]) -> str:
        """Return a hash of all files of a category, on which the scores of transductive methods depend."""
        files = [self._files[sample] for sample in samples]
        return settings_fingerprint({"files": [file and (file.size, file.modified) for file in files]})


def recompute_result(
    folder: EvaluationFolder,
    dataset: Dataset,
    methods: Sequence[str],
    options: MetricOptions,
    facts: Mapping[str, Any],
) -> Evaluation:
    """Compute the result again from stored scores and maps, without the model.

    Raises:
        UsageError: Some images have no score of the settings in `facts`.
    """
    failures: list[_MethodFailure] = []
    for category in dataset.categories:
        samples, masks = dataset.of(category), MaskCache(options.masks == "full")
        for name in methods:
            scores = [folder.score(name, sample) for sample in samples]
            missing = sum(s is None or s.key[2] != facts["methods"][name]["settings"] for s in scores)
            if missing:
                raise UsageError(
                    f"{folder.path} lacks the scores of {missing} of {len(samples)} pictures by {name}: the evaluation "
                    "was not completed, or the data set has changed; run the evaluation again"
                )
            try:
                low, high = facts["methods"][name]["map_range"]
                remeasure_category(folder, name, category, samples, options, masks, (low, high))
            except ImageError as error:
                path = str(error.path or category)
                failure = Failure(kind="mask", category=category, path=path, reason=str(error))
                failures.append(_MethodFailure(name, failure))
                folder.results.pop((name, category), None)
    return make_evaluation(folder, dataset, methods, options, failures, facts)


def make_evaluation(
    folder: EvaluationFolder,
    dataset: Dataset,
    methods: Sequence[str],
    options: MetricOptions,
    failures: Sequence[_MethodFailure],
    facts: Mapping[str, Any],
) -> Evaluation:
    """Return the result of what is stored in the folder."""
    counts = Counter((f.method, f.failure.category) for f in failures if f.failure.kind == "picture")
    categories = {category: dataset.of(category) for category in dataset.categories}
    for each in failures:
        if each.failure.kind == "method":
            counts[each.method, each.failure.category] = len(categories[each.failure.category])
    rows = make_rows(folder, dataset.name, categories, methods, options, counts)
    results = (folder.results.get((name, category)) for category in categories for name in methods)
    mask_notes = dict.fromkeys(note for result in results if result is not None for note in result.mask_notes)
    facts = {**facts, "mask_notes": list(mask_notes)}
    return Evaluation(
        rows=tuple(rows),
        published=compare(rows, facts),
        failed=tuple({(f.failure.path, f.failure.reason): f.failure for f in failures}.values()),
        facts=facts,
        folder=folder.kept,
        differences=method_differences(folder, categories, methods, options.seed) if options.more else (),
    )


def _common_range(detectors: Mapping[str, Detector]) -> ValueRange | None:
    """Return the value range that detectors give, since each picture is read once. Raises UsageError for several."""
    ranges = {detector.value_range for detector in detectors.values() if detector.value_range is not None}
    if len(ranges) > 1:
        raise UsageError("the detectors have different value ranges, and each picture is read once; give them one")
    return next(iter(ranges), None)


def _settings(detector: Detector) -> dict[str, Any]:
    """Return everything that scores and maps depend on."""
    settings = result_settings(detector.provenance)
    roi = detector.limits.roi
    return settings if roi is None else {**settings, "roi": hashlib.sha256(roi.to_png()).hexdigest()[:16]}


def _map_range(detector: Detector) -> list[float]:
    method = detector.torch_engine.method
    if detector.memory is not None:
        return [float(end) for end in detector.engine.map_range(detector.memory)]
    map_range = method.memory_map_range if isinstance(method, TransductiveMethod) else method.map_range
    return [float(end) for end in map_range]
