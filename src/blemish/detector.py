"""`Detector`: pictures in, detections out.

detector = blemish.load("anomalyclip")
detection = detector("part.jpg")
detections = detector(["a.jpg", "b.jpg"])
for detection in detector.stream(camera): ...
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, overload

from blemish.detection import Detection, Provenance
from blemish.engine import Engine, TorchEngine
from blemish.errors import UsageError
from blemish.few_shot import References, build_memory_bank, sample_memory_bank
from blemish.image_io import MAX_PIXELS, LoadedImage
from blemish.methods.base import MemoryBank, TextFeatureCache
from blemish.scoring import Failed, Scorer, Task
from blemish.tiling import TileMerger, resize
from blemish.types import ImageSource, OnError, Tiling, ValueRange, check_threshold, check_value_range

#: Name of the one method in the score loop.
_METHOD = "method"


class Detector:
    """An engine with its settings, immutable. `blemish.load` makes one; several threads may call it at once.

    Args:
        engine: What computes.
        memory: References to compare with; None scores zero-shot.
        object_name: Name of the object in the pictures.
        threshold: A picture with score >= threshold is anomalous, in [0, 1]; None gives no label.
        mask_threshold: The same for pixels, as a fraction of the method's fixed scale; None = `threshold`.
        max_pixels: Larger pictures are refused.
        value_range: (low, high), the values that become black and white in pictures of more than 8 bits; None = as in
            `read_image`.
        tiling: How larger pictures are cut; None = not at all.

    Raises:
        UsageError: A threshold is out of range, or the object name is empty.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        memory: MemoryBank | None = None,
        object_name: str = "object",
        threshold: float | None = None,
        mask_threshold: float | None = None,
        max_pixels: int = MAX_PIXELS,
        value_range: ValueRange | None = None,
        tiling: Tiling | None = None,
    ) -> None:
        check_threshold("threshold", threshold)
        check_threshold("mask_threshold", mask_threshold)
        check_value_range("value_range", value_range)
        check_object_name(object_name)
        self.engine, self.memory = engine, memory
        self.object_name = object_name
        self.threshold, self.mask_threshold = threshold, mask_threshold
        self.max_pixels = max_pixels
        self.value_range = value_range
        self.tiling = tiling
        self._texts = TextFeatureCache()

    def __repr__(self) -> str:
        source = self.provenance
        name = source.model or f"{source.method} on {source.backbone}"
        return f"Detector({name}, references={source.references}, threshold={self.threshold})"

    @property
    def provenance(self) -> Provenance:
        """Where the numbers come from."""
        provenance = self.engine.provenance
        if self.memory is not None:
            provenance = replace(
                provenance, references=self.memory.references, references_fingerprint=self.memory.fingerprint
            )
        if self.tiling is not None:
            provenance = replace(provenance, tile=self.tiling.side, overlap=self.tiling.overlap)
        if self.value_range is not None:
            provenance = replace(provenance, value_range=self.value_range)
        return provenance

    @property
    def torch_engine(self) -> TorchEngine:
        """The engine of a detector that runs in PyTorch, with its method and backbone. An exported one has none.

        Raises:
            UsageError: The detector was loaded from an exported file.
        """
        if not isinstance(self.engine, TorchEngine):
            raise UsageError("an exported detector has no method or backbone; load it by the name of its method")
        return self.engine

    def with_memory(self, memory: MemoryBank | None) -> Detector:
        """Return a detector that compares with this memory bank; None scores zero-shot."""
        return Detector(
            self.engine,
            memory=memory,
            object_name=self.object_name,
            threshold=self.threshold,
            mask_threshold=self.mask_threshold,
            max_pixels=self.max_pixels,
            value_range=self.value_range,
            tiling=self.tiling,
        )

    def with_references(self, references: References) -> Detector:
        """Return a detector that compares with these pictures.

        Args:
            references: Normal pictures for a few-shot method, unlabelled ones for a transductive method.

        Raises:
            UsageError: The method takes no references, there are none, or a path does not exist.
            ImageError: A reference cannot be read.
        """
        return self.with_memory(
            build_memory_bank(
                self.torch_engine,
                references,
                max_pixels=self.max_pixels,
                value_range=self.value_range,
                tiling=self.tiling,
            )
        )

    def with_set(self, images: Sequence[ImageSource]) -> Detector:
        """Return a detector for the set that it is going to score, for transductive methods (`musc`).

        Pictures of the set are drawn as references, always the same ones. With fewer than two readable pictures there
        is nothing to compare with, and the detector scores zero-shot.

        Raises:
            UsageError: The method is not transductive.
        """
        return self.with_memory(
            sample_memory_bank(self.torch_engine, images, max_pixels=self.max_pixels, value_range=self.value_range)
        )

    @overload
    def __call__(
        self,
        images: list[Any] | tuple[Any, ...],  # lists are invariant: `list[Path]` is no `list[ImageSource]`
        *,
        object_name: str | Sequence[str] | None = None,
        batch_size: int = 8,
    ) -> list[Detection]: ...

    @overload
    def __call__(
        self, images: ImageSource, *, object_name: str | Sequence[str] | None = None, batch_size: int = 8
    ) -> Detection: ...

    def __call__(
        self,
        images: ImageSource | list[Any] | tuple[Any, ...],
        *,
        object_name: str | Sequence[str] | None = None,
        batch_size: int = 8,
    ) -> Detection | list[Detection]:
        """Score one picture, or a list of pictures.

        Args:
            images: A picture as `read_image` takes it (a path, bytes, a PIL image, an array (H, W[, 3 | 4]), a tensor,
                a `LoadedImage`), or a list or tuple of pictures. `stream` scores more than fit into memory.
            object_name: Name of the object, or of the object in each picture; None = the detector's own.
            batch_size: Pictures, or tiles, that go through the model together.

        Returns:
            One detection for one picture, a list for a list.

        Raises:
            ImageError: A picture cannot be read.
            UsageError: There are not as many object names as pictures, or a name is empty.
        """
        sources = list(images) if isinstance(images, (list, tuple)) else [images]
        names = object_name if object_name is None or isinstance(object_name, str) else list(object_name)
        if isinstance(names, list) and len(names) != len(sources):
            raise UsageError(f"there are {len(names)} object names for {len(sources)} pictures; give one for each")
        detections = list(self.stream(sources, batch_size=batch_size, object_name=names))
        return detections if isinstance(images, (list, tuple)) else detections[0]

    def stream(
        self,
        images: Iterable[ImageSource],
        *,
        batch_size: int = 8,
        on_error: OnError | None = None,
        object_name: str | Iterable[str] | None = None,
    ) -> Iterator[Detection]:
        """Yield the detections of any number of pictures, in order.

        Threads read ahead while the model computes; at most about two batches of pictures are in memory.

        Args:
            images: Pictures as `read_image` takes them.
            batch_size: Pictures, or tiles, that go through the model together.
            on_error: Called with (path or None, error), in order, for each picture that cannot be read; the others go
                on. None raises the error, after the detections of the pictures before it.
            object_name: Name of the object, or of the object in each picture; None = the detector's own.

        Raises:
            ImageError: A picture cannot be read and there is no `on_error`.
        """
        for _, detection in self.stream_with_images(
            images, batch_size=batch_size, on_error=on_error, object_name=object_name
        ):
            yield detection

    def stream_with_images(
        self,
        images: Iterable[ImageSource],
        *,
        batch_size: int = 8,
        on_error: OnError | None = None,
        object_name: str | Iterable[str] | None = None,
    ) -> Generator[tuple[LoadedImage, Detection], None, None]:
        """Like `stream`, but yield each picture as it was read with its detection, to draw on without a second read."""
        results = self.score(images, batch_size=batch_size, on_error=on_error, object_name=object_name)
        with contextlib.closing(results):
            for result in results:
                yield result.finish()

    def score(
        self,
        images: Iterable[ImageSource],
        *,
        batch_size: int = 8,
        on_error: OnError | None = None,
        object_name: str | Iterable[str] | None = None,
    ) -> Generator[ScoredImage, None, None]:
        """Like `stream`, but leave the last step to the caller, who may run it in threads while the model goes on."""
        own = self.object_name if object_name is None else object_name
        names = repeat(own) if isinstance(own, str) else own
        scorer = Scorer(
            {_METHOD: self.engine},
            batch_size=batch_size,
            max_pixels=self.max_pixels,
            value_range=self.value_range,
            tiling=self.tiling,
            texts=self._texts,
        )
        tasks = (
            Task(None, source, frozenset({_METHOD}), check_object_name(name))
            for source, name in zip(images, names, strict=not isinstance(own, str))
        )
        with contextlib.closing(scorer.run(tasks, {_METHOD: self.memory})) as results:
            for result in results:
                if isinstance(result, Failed):
                    if on_error is None:
                        raise result.error
                    on_error(result.error.path, result.error)
                    continue
                merger = result.tile.merger
                tile_map = result.map
                engine = self.engine
                if not merger.is_whole and isinstance(engine, TorchEngine) and engine.finishes_maps:
                    tile_map = engine.finish_map(tile_map, *merger.tile_size(result.tile.index))
                merger.add(result.tile.index, result.score, tile_map, result.timing)
                if merger.done:
                    yield ScoredImage(self, merger)


@dataclass(frozen=True)
class ScoredImage:
    """A picture that went through the model; its map still has to be brought to the picture's size."""

    detector: Detector
    merger: TileMerger

    @property
    def path(self) -> str | None:
        """File of the picture; None for one from memory."""
        return self.merger.path

    @property
    def pixels(self) -> int:
        """Number of values in the map."""
        return self.merger.map_pixels

    def finish(self) -> tuple[LoadedImage, Detection]:
        """Return the picture and its detection; once, in any thread."""
        detector, merger = self.detector, self.merger
        finish = detector.engine.finish_map if isinstance(detector.engine, TorchEngine) else resize
        detection = Detection(
            score=merger.score,
            anomaly_map=merger.take_map(finish).numpy(),
            map_range=detector.engine.map_range(detector.memory),
            size=merger.size,
            path=merger.path,
            threshold=detector.threshold,
            mask_threshold=detector.mask_threshold,
            notes=merger.notes,
            timing=merger.timing,
            provenance=detector.provenance,
            map_step=merger.step,
        )
        return merger.image, detection


def check_object_name(name: str) -> str:
    """Return the name of an object. Raise UsageError if it is empty."""
    if not name.strip():
        raise UsageError('the object name is empty; give what the pictures show, such as "metal nut", or "object"')
    return name
