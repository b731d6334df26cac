"""The score loop: read, preprocess, encode, score; for one method or for many that share backbone passes.

    scorer = Scorer({"clip": engine})
    for result in scorer.run([Task("a.png", "a.png", frozenset({"clip"}))]):
        ...

Threads read and preprocess while the model computes. Methods whose features are computed alike share one pass of the
backbone, so every image is read once, preprocessed once for each input size, and encoded once for each pass.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from blemish.clip import Computation, ImageBackbone, Request, resolve_position
from blemish.concurrency import READER_THREADS, check_not_forked, prefetch
from blemish.detection import Timing
from blemish.engine import Engine, TorchEngine
from blemish.errors import ImageError, UsageError
from blemish.image_io import MAX_PIXELS
from blemish.methods.base import MemoryBank, Prediction, TextFeatureCache
from blemish.roi import Roi
from blemish.tiling import Tile, TileMerger, Tiling, cut
from blemish.types import ImageSource, ValueRange

T = TypeVar("T")


@dataclass(frozen=True)
class Task(Generic[T]):
    """An image to score."""

    item: T
    """Anything of the caller's; it comes back with the results."""
    source: ImageSource
    """Image as `read_image` takes it."""
    methods: AbstractSet[str]
    """Names of the methods that score it."""
    object_name: str = "object"
    """Name of the object in the image; may be empty for methods that do not use it."""


@dataclass(frozen=True)
class Scored(Generic[T]):
    """Result of one method for one image, or for one tile of it."""

    item: T
    method: str
    tile: Tile
    score: float
    """Image score in [0, 1]."""
    map: Tensor
    """(H, W) float32 on the CPU, as the method gives it: `Method.finish_map` brings it to the picture's size."""
    text_score: float | None
    """Score of the class token, where it was asked for."""
    timing: Timing
    """Seconds; what a batch shares is divided equally."""


@dataclass(frozen=True)
class Failed(Generic[T]):
    """An image that cannot be read; some of its tiles may have been scored before."""

    item: T
    error: ImageError


@dataclass
class Clock:
    """Seconds of computing."""

    reading: float = 0.0
    """Reading and preprocessing, in all threads together."""
    passes: dict[int, float] = field(default_factory=dict)
    """Each pass of the backbone, by its number."""
    methods: dict[str, float] = field(default_factory=dict)
    """Each method's own part."""
    images: int = 0
    """Number of images, or tiles, that were read."""


@dataclass(frozen=True)
class Pass:
    """One run of the backbone over a batch, and the methods that share it."""

    number: int
    """Number of the pass, from 1."""
    computation: Computation | None
    """How features are computed; None for an engine that does not run in PyTorch."""
    methods: tuple[str, ...]
    requests: Mapping[str, Request]
    """What each method needs of an image, without a memory bank."""

    def request(self, methods: Iterable[str] | None = None) -> Request:
        """Return what these methods (default: all of the pass) need together."""
        return reduce(or_, (self.requests[name] for name in (self.methods if methods is None else methods)))

    def __str__(self) -> str:
        if self.computation is None:
            return f"pass {self.number}: {', '.join(self.methods)}"
        computation, request = self.computation, self.request()
        needs = [f"{len(request.taps)} tap{'s' * (len(request.taps) != 1)}"] * bool(request.taps)
        needs += ["class token"] * request.class_token
        needs += [f"windows of {', '.join(map(str, request.windows))}"] * bool(request.windows)
        side = f"{computation.size} x {computation.size} px"
        if computation.geometry == "keep-aspect":
            side = f"shorter side {computation.size} px"
        elif computation.geometry != "squash":
            side += f" ({computation.geometry})"
        return (
            f"pass {self.number}: {side}, {computation.activation} activation, "
            f"positions {computation.position}; {', '.join(needs)}: {', '.join(self.methods)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary for JSON."""
        if self.computation is None:
            return {"pass": self.number, "methods": list(self.methods)}
        request = self.request()
        return {
            "pass": self.number,
            "size": self.computation.size,
            "activation": self.computation.activation,
            "position": self.computation.position,
            "geometry": self.computation.geometry,
            "taps": [
                {"layer": t.layer, "path": t.path, "start": t.start, "seeded": t.seeded} for t in sorted(request.taps)
            ],
            "class_token": request.class_token,
            "windows": list(request.windows),
            "methods": list(self.methods),
        }


def plan(engines: Mapping[str, Engine]) -> tuple[Pass, ...]:
    """Return as few passes as there are different computations, in the order in which they are first needed."""
    groups: dict[Hashable, list[str]] = {}
    for name, engine in engines.items():
        key: Hashable = name
        if isinstance(engine, TorchEngine):
            computation = effective(engine.method.computation, engine.backbone)
            key = (id(engine.backbone), computation, engine.precision, engine.windows)
        groups.setdefault(key, []).append(name)
    passes = []
    for number, names in enumerate(groups.values(), 1):
        group = {name: engines[name] for name in names}
        torch_engines = {name: engine for name, engine in group.items() if isinstance(engine, TorchEngine)}
        first = torch_engines.get(names[0])
        passes.append(
            Pass(
                number,
                None if first is None else effective(first.method.computation, first.backbone),
                tuple(names),
                {name: engine.request() for name, engine in torch_engines.items()},
            )
        )
    return tuple(passes)


def effective(computation: Computation, backbone: ImageBackbone) -> Computation:
    """Return the computation without what makes no difference on this backbone, so that more methods share a pass.

    At the checkpoint's own grid no position is resized; an activation that is the checkpoint's own replaces nothing;
    the code of DINOv2 does one of the other interpolations.
    """
    changes: dict[str, Any] = {"position": resolve_position(computation.position, backbone.registers)}
    is_square = computation.geometry != "keep-aspect"
    if is_square and computation.size // backbone.patch == backbone.size // backbone.patch:
        changes["position"] = Computation(computation.size).position
    if computation.activation == backbone.activation:
        changes["activation"] = "checkpoint"
    return replace(computation, **changes)


@dataclass(frozen=True)
class Prepared(Generic[T]):
    """An image, or a tile of one, that is ready for the model."""

    task: Task[T]
    tile: Tile
    pixels: Mapping[Hashable, Tensor]  # (1, 3, H, W) by `_input`
    timing: Timing


class Scorer:
    """Scores images with one or several methods. Not for several threads at once.

    Args:
        engines: Engine of each method, by any name.
        batch_size: Images, or tiles, that go through the model together.
        max_pixels: Larger images are refused: see `read_image`.
        value_range: Values that become black and white in images of more than 8 bits: see `read_image`.
        tiling: How larger images are cut; None scores them whole.
        text_scores: Names of methods whose `text_score` is computed, too.
        texts: A cache of text features to use; None for a new one.

    Attributes:
        passes: What the backbone computes, and for whom.
        clock: Seconds spent so far.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        *,
        batch_size: int = 8,
        max_pixels: int = MAX_PIXELS,
        value_range: ValueRange | None = None,
        tiling: Tiling | None = None,
        text_scores: AbstractSet[str] = frozenset(),
        texts: TextFeatureCache | None = None,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}")
        check_not_forked()
        self.passes = plan(engines)
        self.clock = Clock()
        self._engines = dict(engines)
        self._inputs = {name: _input(engine) for name, engine in engines.items()}
        self._batch_size, self._max_pixels, self._tiling = batch_size, max_pixels, tiling
        self._value_range = value_range
        self._text_scores = text_scores
        self._texts = TextFeatureCache() if texts is None else texts

    def run(
        self, tasks: Iterable[Task[T]], memories: Mapping[str, MemoryBank | None] | None = None
    ) -> Generator[Scored[T] | Failed[T], None, None]:
        """Score images; each is read once.

        Args:
            tasks: Any number of them; advanced in a thread, at most about two batches ahead.
            memories: Memory banks of methods that compare with references.

        Yields:
            Results batch by batch. Within a batch the results of one method come together, in the order of the images.
            An image that cannot be read follows the results of the images before it.

        Raises:
            Exception: Whatever `tasks` raises, after the results of the tasks before.
        """
        memories = memories or {}
        batch: list[Prepared[T]] = []
        # Tiles are queued one at a time: all tiles of a large image would not fit into memory.
        threads = READER_THREADS if self._tiling is None else 1
        with contextlib.closing(prefetch(tasks, self.prepare, self._batch_size, threads=threads)) as prepared:
            for item in prepared:
                if isinstance(item, Prepared):
                    batch.append(item)
                    if len(batch) < self._batch_size:
                        continue
                yield from self.score(batch, memories)
                batch = []
                if isinstance(item, Failed):
                    yield item
                elif isinstance(item, BaseException):
                    raise item
        yield from self.score(batch, memories)

    def prepare(self, task: Task[T]) -> Generator[Prepared[T] | Failed[T], None, None]:
        """Read and preprocess one image, tile by tile; in any thread."""
        inputs = {self._inputs[name]: self._engines[name] for name in sorted(task.methods)}
        start = time.perf_counter()
        try:
            tiles = cut(task.source, self._tiling, max_pixels=self._max_pixels, value_range=self._value_range)
            for tile in tiles:
                read = time.perf_counter()
                pixels = {key: engine.preprocess(tile.image) for key, engine in inputs.items()}
                yield Prepared(task, tile, pixels, Timing(read - start, time.perf_counter() - read))
                start = time.perf_counter()
        except ImageError as error:
            yield Failed(task.item, error)

    def score(self, batch: Sequence[Prepared[T]], memories: Mapping[str, MemoryBank | None]) -> Iterator[Scored[T]]:
        """Run a batch of prepared images, or tiles, through the model."""
        self.clock.reading += sum(prepared.timing.total for prepared in batch)
        self.clock.images += len(batch)
        for one_pass in self.passes:
            members = set(one_pass.methods)
            rows = [prepared for prepared in batch if not members.isdisjoint(prepared.task.methods)]
            if rows:
                yield from self._run_pass(one_pass, rows, memories)

    def _run_pass(
        self, one_pass: Pass, rows: Sequence[Prepared[T]], memories: Mapping[str, MemoryBank | None]
    ) -> Iterator[Scored[T]]:
        """Run the backbone over a batch, and then each method that scores one of its images.

        Images of one shape go through the backbone together.
        """
        names = [name for name in one_pass.methods if any(name in row.task.methods for row in rows)]
        own = self._inputs[names[0]]
        groups: dict[torch.Size, list[Prepared[T]]] = {}
        for row in rows:
            groups.setdefault(row.pixels[own].shape, []).append(row)
        if len(groups) == 1:
            yield from self._run_group(one_pass, names, rows, memories)
            return
        order = {id(row.tile): number for number, row in enumerate(rows)}
        scored = [each for group in groups.values() for each in self._run_group(one_pass, names, group, memories)]
        yield from sorted(scored, key=lambda each: (names.index(each.method), order[id(each.tile)]))

    def _run_group(
        self,
        one_pass: Pass,
        names: Sequence[str],
        rows: Sequence[Prepared[T]],
        memories: Mapping[str, MemoryBank | None],
    ) -> Iterator[Scored[T]]:
        """Run the backbone once over images of one shape, and then each method that scores one of them."""
        pixels = torch.cat([row.pixels[self._inputs[names[0]]] for row in rows])
        object_names = [row.task.object_name for row in rows]
        share = len(rows)
        for name, prediction, text_score, encode, score in self._predict(
            one_pass, names, pixels, object_names, memories
        ):
            self.clock.methods[name] = self.clock.methods.get(name, 0.0) + score
            scores = prediction.score.tolist()
            for number, row in enumerate(rows):
                if name in row.task.methods:
                    yield Scored(
                        item=row.task.item,
                        method=name,
                        tile=row.tile,
                        score=scores[number],
                        map=prediction.map[number],
                        text_score=None if text_score is None else float(text_score[number]),
                        timing=row.timing + Timing(encode=encode / share, score=score / share),
                    )

    def _predict(
        self,
        one_pass: Pass,
        names: Sequence[str],
        pixels: Tensor,
        object_names: Sequence[str],
        memories: Mapping[str, MemoryBank | None],
    ) -> Iterator[tuple[str, Prediction, Tensor | None, float, float]]:
        """Yield name, prediction, text scores (B,) if asked for, seconds of the backbone, seconds of the method."""
        engines = {name: self._engines[name] for name in names}
        torch_engines = {name: engine for name, engine in engines.items() if isinstance(engine, TorchEngine)}
        if not torch_engines:
            for name, engine in engines.items():
                run = engine.run(pixels, _one_object(engine, object_names), memories.get(name))
                self._add_pass(one_pass, run.encode)
                yield name, run.prediction, None, run.encode, run.score
            return
        first = torch_engines[names[0]]
        # Before the clock runs: this happens once for each object.
        texts = {name: engine.text(object_names, self._texts) for name, engine in torch_engines.items()}
        request = reduce(or_, (engine.request(memories.get(name)) for name, engine in torch_engines.items()))
        start = time.perf_counter()
        features = first.encode(pixels, request, one_pass.computation)
        first.synchronize()
        encode = time.perf_counter() - start
        self._add_pass(one_pass, encode)
        for name, engine in torch_engines.items():
            start = time.perf_counter()
            prediction = engine.score(features, texts[name], memories.get(name))
            text_score: Tensor | None = None
            if name in self._text_scores:
                method: Any = engine.method  # only methods with a rule for whole sets have a text score
                with torch.inference_mode():
                    text_score = method.text_score(features, texts[name]).float().cpu()
            engine.synchronize()
            yield name, prediction, text_score, encode, time.perf_counter() - start

    def _add_pass(self, one_pass: Pass, seconds: float) -> None:
        self.clock.passes[one_pass.number] = self.clock.passes.get(one_pass.number, 0.0) + seconds


def add_tile(
    merger: TileMerger,
    index: tuple[int, int],
    score: float,
    tile_map: Tensor,
    timing: Timing,
    engine: Engine,
    memory: MemoryBank | None,
    roi: Roi | None,
) -> None:
    """Add the result of one tile; with a region of interest the score is that of the inside."""
    if roi is not None:
        (top, bottom), (left, right) = merger.down.spans[index[0]], merger.across.spans[index[1]]
        inside = roi.part(merger.size, (left, top, right, bottom), (tile_map.shape[-2], tile_map.shape[-1]))
        score = engine.score_inside(score, tile_map, torch.from_numpy(inside.copy()), memory) if inside.any() else 0.0
    if not merger.is_whole and engine.finishes_maps:
        tile_map = engine.finish_map(tile_map, *merger.tile_size(index))
    merger.add(index, score, tile_map, timing)


def finished_map(
    merger: TileMerger, engine: Engine, memory: MemoryBank | None, roi: Roi | None
) -> npt.NDArray[np.float32]:
    """Return the map of a picture whose tiles were all added; outside the region of interest it has its lowest
    value.
    """
    values: npt.NDArray[np.float32] = merger.take_map(engine.finish_map).numpy()
    if roi is None:
        return values
    inside = roi.resized(values.shape[1], values.shape[0])
    return np.where(inside, values, np.float32(engine.map_range(memory)[0]))


def enlarged_map(merger: TileMerger, engine: Engine) -> npt.NDArray[np.float32] | None:
    """Return the model's map of a picture if the picture's own is nothing but its enlargement; before `finished_map`
    takes it.
    """
    if engine.finishes_maps:
        return None
    values = merger.model_map
    is_smaller = values is not None and values.shape[0] <= merger.size[1] and values.shape[1] <= merger.size[0]
    return values.numpy() if values is not None and is_smaller else None


def _input(engine: Engine) -> Hashable:
    """Return what an engine's `preprocess` depends on: engines of equal inputs prepare images alike."""
    return engine.input if isinstance(engine, TorchEngine) else (engine.provenance.backend, engine.size)


def _one_object(engine: Engine, object_names: Sequence[str]) -> str:
    """Return the object name of a batch for an engine that takes only one."""
    if engine.needs_object and len(set(object_names)) > 1:
        raise UsageError("only a detector that runs in PyTorch can score images of several objects together")
    return object_names[0]
