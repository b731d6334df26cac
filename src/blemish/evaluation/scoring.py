"""Pictures through the backbone: once per pass, whatever the number of methods that ride on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from blemish.clip import ImageFeatures
from blemish.datasets.samples import Sample
from blemish.detector import Detector
from blemish.errors import BlemishError, ImageError
from blemish.evaluation.plan import Pass, Texts, set_rule
from blemish.methods.base import MemoryBank, Prediction


@dataclass(frozen=True)
class Scored:
    """What one method says about one picture; `map` is (S, S) float32 at the size of the model's input."""

    score: float
    peak: float
    text_score: float | None
    map: NDArray[np.float32]


Keep: TypeAlias = Callable[[str, Sample, Scored], None]
Fail: TypeAlias = Callable[[str | None, Sample, BlemishError], None]  # None: all methods
Wanted: TypeAlias = Callable[[Sample], frozenset[str]]


@dataclass
class Clock:
    """Seconds of computing: reading and resizing pictures, each pass of the backbone, each method on top of it."""

    reading: float = 0.0
    passes: dict[int, float] = field(default_factory=dict)
    methods: dict[str, float] = field(default_factory=dict)
    pictures: int = 0


@dataclass(frozen=True)
class _Batch:
    samples: tuple[Sample, ...]
    pixels: Mapping[int, Tensor]  # side -> (B, 3, side, side)
    failed: tuple[tuple[Sample, ImageError], ...]
    seconds: float


class Scorer:
    """Runs the passes over pictures.

    Args:
        detectors: By method, all on one backbone, device and precision.
        passes: From `plan(detectors)`.
        batch_size: Pictures that go through the model together.
    """

    def __init__(self, detectors: Mapping[str, Detector], passes: Sequence[Pass], batch_size: int) -> None:
        self._detectors = detectors
        self._passes = passes
        self._batch_size = batch_size
        self._texts = Texts({name: detector.method for name, detector in detectors.items()})
        self._needs_text_score = {
            name for name, detector in detectors.items() if "text_scores" in (set_rule(detector.method) or ())
        }
        one = next(iter(detectors.values()))
        self._backbone, self._device = one.backbone, one.device
        self._precision, self._windows = one.precisions
        self._max_pixels = one.max_pixels
        self.clock = Clock()

    def run(
        self,
        samples: Sequence[Sample],
        wanted: Wanted,
        keep: Keep,
        fail: Fail,
        memories: Mapping[str, MemoryBank | None] | None = None,
    ) -> None:
        """Score pictures; each is read once.

        Args:
            samples: In the order in which they are done.
            wanted: The methods that have yet to score a picture.
            keep: Called for each of them, batch by batch.
            fail: Called for a picture that cannot be read, or whose scores are no numbers; the others go on.
            memories: Memory banks of methods that compare with references.
        """
        for batch in self._read(samples, wanted):
            for sample, error in batch.failed:
                fail(None, sample, error)
            self.clock.reading += batch.seconds
            self.clock.pictures += len(batch.samples)
            if not batch.samples:
                continue
            todo = [wanted(sample) for sample in batch.samples]
            for one in self._passes:
                riders = [name for name in one.methods if any(name in names for names in todo)]
                if riders:
                    self._ride(one, riders, batch, todo, keep, fail, memories or {})

    def _read(self, samples: Sequence[Sample], wanted: Wanted) -> Iterator[_Batch]:
        """Batches; the next one is read in a thread while the model computes."""
        with ThreadPoolExecutor(1, "blemish-reader") as reader:
            ahead: Future[_Batch] | None = None
            for first in range(0, len(samples), self._batch_size):
                part = samples[first : first + self._batch_size]
                names: frozenset[str] = frozenset().union(*(wanted(sample) for sample in part))
                sides = {one.computation.size for one in self._passes if names & set(one.methods)}
                following = reader.submit(self._prepare, part, sorted(sides))
                if ahead is not None:
                    yield ahead.result()
                ahead = following
            if ahead is not None:
                yield ahead.result()

    def _prepare(self, samples: Sequence[Sample], sides: Sequence[int]) -> _Batch:
        start = time.perf_counter()
        read, failed = [], []
        for sample in samples:
            try:
                read.append((sample, sample.picture().image))
            except ImageError as error:
                failed.append((sample, error))
        pixels = {side: self._backbone.preprocess([image for _, image in read], side) for side in sides}
        return _Batch(tuple(sample for sample, _ in read), pixels, tuple(failed), time.perf_counter() - start)

    def _ride(
        self,
        one: Pass,
        riders: Sequence[str],
        batch: _Batch,
        todo: Sequence[frozenset[str]],
        keep: Keep,
        fail: Fail,
        memories: Mapping[str, MemoryBank | None],
    ) -> None:
        """One pass over a batch, and every method on it that has something to do."""
        objects = [sample.object_name for sample in batch.samples]
        texts = {name: self._texts(name, objects) for name in riders}  # before the clock runs: once per object
        with torch.inference_mode():
            start = time.perf_counter()
            pixels = batch.pixels[one.computation.size].to(self._device)
            features = self._backbone.encode_image(
                pixels, one.request(riders), one.computation, precision=self._precision, windows=self._windows
            )
            start = self._lap(self.clock.passes, one.number, start)
            for name in riders:
                found = self._score(name, features, texts[name], memories.get(name))
                start = self._lap(self.clock.methods, name, start)
                for row, sample in enumerate(batch.samples):
                    if name not in todo[row]:
                        continue
                    scored = _picked(found, row)
                    if _finite(scored):
                        keep(name, sample, scored)
                    else:
                        fail(
                            name,
                            sample,
                            ImageError(f"{name} gives {sample.path} no finite score or map.", sample.path),
                        )
                start = time.perf_counter()

    def _score(
        self, name: str, features: ImageFeatures, text: Tensor, memory: MemoryBank | None
    ) -> tuple[Prediction, Tensor | None]:
        method: Any = self._detectors[name].method
        prediction = self._detectors[name].torch_engine.score(features, text, memory)
        text_score: Tensor | None = None
        if name in self._needs_text_score:
            text_score = method.text_score(features, text).float().cpu()
        return prediction, text_score

    def _lap(self, seconds: dict[Any, float], name: int | str, start: float) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        seconds[name] = seconds.get(name, 0.0) + now - start
        return now


def _picked(found: tuple[Prediction, Tensor | None], row: int) -> Scored:
    prediction, text_score = found
    values = prediction.map[row].numpy()
    return Scored(
        score=float(prediction.score[row]),
        peak=float(values.max()),
        text_score=None if text_score is None else float(text_score[row]),
        map=values,
    )


def _finite(scored: Scored) -> bool:
    known = [scored.score] if scored.text_score is None else [scored.score, scored.text_score]
    return bool(np.isfinite(known).all() and np.isfinite(scored.map).all())
