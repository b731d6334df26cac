"""`Detector`: pictures in, detections out.

detector = blemish.load("anomalyclip")
detection = detector("part.jpg")
detections = detector(["a.jpg", "b.jpg"])
for detection in detector.stream(camera): ...
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any, overload

import numpy as np

from blemish.calibration import look_foreign
from blemish.detection import Detection, Provenance
from blemish.engine import Engine, TorchEngine
from blemish.errors import UsageError
from blemish.few_shot import References, build_memory_bank, picture_fingerprint, sample_memory_bank
from blemish.fitting import (
    add_known_defects,
    add_pictures,
    fit_profile,
    made_with,
    remove_known_defects,
    remove_pictures,
)
from blemish.image_io import MAX_PIXELS, LoadedImage
from blemish.limits import FitOptions, Rule, sample_inside
from blemish.methods import builtin
from blemish.methods.base import MemoryBank, TextFeatureCache
from blemish.profile import Limits, Profile, read_profile, to_device
from blemish.roi import RoiSource
from blemish.scoring import Failed, Prepared, Scored, Scorer, Task, add_tile, enlarged_map, finished_map
from blemish.tiling import TileMerger
from blemish.types import (
    ImageSource,
    OnError,
    PathLike,
    Tiling,
    ValueRange,
    check_threshold,
    check_value_range,
)

#: Name of the one method in the score loop.
_METHOD = "method"

AMONG_GOOD = "one of the profile's good pictures, so its score says little"
"""Note of a detection: the profile has the very picture, which is compared with itself or made the threshold."""
AMONG_DEFECTS = "one of the profile's known defects"
"""Note of a detection: the profile has the very picture, as one that it should catch."""


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
        limits: Thresholds of a profile, with its p-values, scale and region of interest; `threshold` and
            `mask_threshold` replace its own, and then it promises nothing.
        profile: The profile that memory, object name, limits and tiling come from.

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
        limits: Limits | None = None,
        profile: Profile | None = None,
    ) -> None:
        check_threshold("threshold", threshold)
        check_threshold("mask_threshold", mask_threshold)
        check_value_range("value_range", value_range)
        check_object_name(object_name)
        self.engine, self.memory = engine, memory
        self.object_name = object_name
        self.limits = with_thresholds(limits or Limits(), threshold, mask_threshold)
        self.threshold, self.mask_threshold = self.limits.threshold, self.limits.mask_threshold
        self.max_pixels = max_pixels
        self.value_range = value_range
        self.tiling = tiling
        self.profile = profile
        good, defects = () if profile is None else profile.good, () if profile is None else profile.known_defects
        self._kept_sizes = frozenset([each.size for each in good] + [each.size for each in defects])
        self._kept = dict.fromkeys((each.fingerprint for each in defects), AMONG_DEFECTS)
        self._kept |= dict.fromkeys((each.fingerprint for each in good), AMONG_GOOD)
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
        if self.profile is not None and self.profile.path is not None:
            provenance = replace(provenance, profile=Path(self.profile.path).name)
        if self.value_range is not None:
            provenance = replace(provenance, value_range=self.value_range)
        return provenance

    @property
    def typical_score(self) -> float | None:
        """The score in [0, 1] that undamaged things mostly stay below: see `blemish.methods.builtin.TYPICAL_SCORES`.

        It is known for methods as they ship, on the built-in model, for whole pictures without references; None for
        all others. A profile has a threshold that keeps a promise instead.
        """
        source = self.provenance
        if self.memory is not None or self.profile is not None or source.references or source.tile is not None:
            return None
        return builtin.typical_score(source)

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
        """Return a detector that compares with this memory bank; None scores zero-shot. It has no profile."""
        return self.replaced(memory=memory)

    def replaced(self, **changes: Any) -> Detector:
        """Return a detector with some arguments changed, on the same engine. It has no profile unless one is given."""
        names = ("memory", "object_name", "threshold", "mask_threshold", "max_pixels", "value_range", "tiling")
        return Detector(self.engine, **{name: getattr(self, name) for name in names} | changes)

    def with_profile(
        self, profile: Profile | PathLike, *, threshold: float | None = None, mask_threshold: float | None = None
    ) -> Detector:
        """Return a detector for the product of a profile. Both share the backbone, so one process can hold many.

        Args:
            profile: A profile, or its file.
            threshold: A threshold in place of the profile's; it promises nothing.
            mask_threshold: The same for pixels.

        Raises:
            ProfileError: It was made with another method, config, backbone, weights, precision or preprocessing, or the
                file cannot be used.
            UsageError: There is no such file, or the detector was loaded from an exported file.
        """
        if not isinstance(profile, Profile):
            profile = read_profile(profile)
        engine = self.torch_engine
        profile.check({**made_with(engine.provenance), "preprocessing": engine.preprocessing})
        return self.replaced(
            memory=to_device(profile.memory, engine.device),
            object_name=profile.object_name,
            threshold=threshold,
            mask_threshold=mask_threshold,
            value_range=profile.value_range,
            tiling=profile.tiling,
            limits=profile.limits,
            profile=profile,
        )

    def fit(
        self,
        good: References,
        *,
        false_alarms: float | None = None,
        review: float | None = None,
        min_area: int = 1,
        roi: RoiSource | None = None,
        rule: Rule = "conformal",
        bad: References | None = None,
        recall: float = 0.95,
        miss_cost: float = 1.0,
        false_alarm_cost: float = 1.0,
        robust: bool = False,
        on_progress: Callable[[], object] = lambda: None,
    ) -> Detector:
        """Return a detector that knows the good pictures of one product; this one is not changed.

        The new detector's `profile` holds memory, thresholds, scale and promise; `profile.save` writes it to a file.

        Args:
            good: Pictures of flawless parts: a list of pictures, or one file, folder or pattern. At least 2.
            false_alarms: Share of good pictures that are called anomalous, at most, such as 0.01. None promises 1 %, or
                the smallest share that so many pictures can promise.
            review: Share of good pictures that are reviewed or rejected, at most, larger than `false_alarms`; None
                makes no second threshold.
            min_area: Smallest region in pixels.
            roi: What counts in a picture: a mask picture, a polygon as "x,y x,y ...", points or a JSON file, or a mask
                array. None = all of it.
            rule: "conformal", which keeps a promise; "mean-std" and "percentile", the rules of others; "f1", "recall"
                and "cost", which need `bad`.
            bad: Pictures with defects. With the rule "conformal" the profile says how many of them are caught.
            recall: Share of the bad pictures that the rule "recall" catches, at least.
            miss_cost: What the rule "cost" counts for a defect that is missed.
            false_alarm_cost: What it counts for a good picture that is called anomalous.
            robust: Leave out good pictures that look unlike the others.
            on_progress: Called for each good picture that was scored.

        Raises:
            UsageError: The method takes no references, there are too few pictures for the promise, or all are copies
                of one.
            ImageError: A picture cannot be read.
        """
        options = FitOptions(
            false_alarms=false_alarms,
            review=review,
            min_area=min_area,
            roi=roi,
            rule=rule,
            bad=bad,
            recall=recall,
            miss_cost=miss_cost,
            false_alarm_cost=false_alarm_cost,
            robust=robust,
        )
        profile = fit_profile(
            self.torch_engine,
            good,
            options,
            object_name=self.object_name,
            max_pixels=self.max_pixels,
            value_range=self.value_range,
            tiling=self.tiling,
            on_progress=on_progress,
        )
        return self.with_profile(profile)

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

    def with_more_good(
        self,
        good: References,
        *,
        selected: bool = False,
        on_progress: Callable[[], object] = lambda: None,
        check: Callable[[], object] = lambda: None,
    ) -> Detector:
        """Return a detector whose profile has more good pictures; those that it has are not needed.

        `blemish.fitting.add_pictures` says what is exact and what is not.

        Args:
            good: Good pictures.
            selected: They were chosen because of their scores, such as false alarms: the promise does not count on
                them, and holds.
            on_progress: Called for each picture that was scored.
            check: Called between pictures; an exception that it raises ends the work.

        Raises:
            UsageError: The detector has no profile, or a picture is one of its known defects.
            ImageError: A picture cannot be read.
        """
        profile = add_pictures(
            self.torch_engine,
            self._own_profile,
            good,
            selected=selected,
            max_pixels=self.max_pixels,
            on_progress=on_progress,
            check=check,
        )
        return self.with_profile(profile)

    def with_known_defects(
        self,
        pictures: References,
        *,
        on_progress: Callable[[], object] = lambda: None,
        check: Callable[[], object] = lambda: None,
    ) -> Detector:
        """Return a detector whose profile keeps pictures with defects, and says how many of them it catches.

        They change no threshold. They are scored again whenever the memory changes: see `Profile.known_defects`.

        Args:
            pictures: Pictures with defects.
            on_progress: Called for each picture that was scored.
            check: Called between pictures; an exception that it raises ends the work.

        Raises:
            UsageError: The detector has no profile, or a picture is one of its good ones.
            ImageError: A picture cannot be read.
        """
        profile = add_known_defects(
            self.torch_engine,
            self._own_profile,
            pictures,
            max_pixels=self.max_pixels,
            on_progress=on_progress,
            check=check,
        )
        return self.with_profile(profile)

    def without_known_defects(self, names: Sequence[str]) -> Detector:
        """Return a detector whose profile lacks some of its known defects.

        Args:
            names: Files or fingerprints.

        Raises:
            UsageError: The detector has no profile, or there is no such picture.
        """
        return self.with_profile(remove_known_defects(self._own_profile, names))

    def without_good(self, names: Sequence[str]) -> Detector:
        """Return a detector whose profile lacks some of its good pictures.

        Args:
            names: Files or fingerprints; `blemish.fitting.remove_pictures` says which can be taken out.

        Raises:
            UsageError: The detector has no profile, there is no such picture, or it cannot be taken out.
        """
        return self.with_profile(remove_pictures(self.torch_engine, self._own_profile, names))

    @property
    def _own_profile(self) -> Profile:
        if self.profile is None:
            raise UsageError("the detector has no profile: make one with fit, or load one")
        return self.profile

    def usual(self, detection: Detection) -> float:
        """Return the median of a detection's map inside the region of interest, for `foreign`."""
        return float(np.median(sample_inside(detection.anomaly_map, self.limits.roi)))

    def foreign(self, usual: Sequence[float]) -> str | None:
        """Return a sentence if most pictures look unlike the good ones of the profile everywhere: see `look_foreign`.

        Args:
            usual: `usual` of each picture, at least 3.

        Returns:
            None if they do not, or without a profile.
        """
        profile = self.profile
        good = [] if profile is None else [entry.usual for entry in profile.good if entry.usual is not None]
        if profile is None or not look_foreign(usual, good, profile.map_range):
            return None
        name = "this profile" if profile.path is None else profile.path
        return (
            f"These pictures look unlike the good ones of {name}, most of them all over: is it the right profile, "
            "and are camera and light the same?"
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
        own = self._object_names(object_name)
        names = repeat(own) if isinstance(own, str) else own
        scorer = self._scorer(batch_size)
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
                elif (scored := self._merged(result)) is not None:
                    yield scored

    def prepare(self, image: ImageSource, *, object_name: str | None = None) -> list[Prepared[None]]:
        """Read and preprocess one picture: the first half of `score`, for a caller with a queue of its own.

        Returns:
            The picture, or its tiles, for `score_prepared`.

        Raises:
            ImageError: The picture cannot be read.
            UsageError: The object name is empty, or not that of the profile.
        """
        return list(self.prepare_tiles(image, object_name=object_name))

    def prepare_tiles(
        self, image: ImageSource, *, object_name: str | None = None
    ) -> Generator[Prepared[None], None, None]:
        """Like `prepare`, but one tile after the other: all tiles of a large picture may not fit into memory."""
        name = check_object_name(self._object_names(object_name))
        for each in self._scorer(1).prepare(Task(None, image, frozenset({_METHOD}), name)):
            if isinstance(each, Failed):
                raise each.error
            yield each

    def score_prepared(self, batch: Sequence[Prepared[None]]) -> list[ScoredImage]:
        """Run what `prepare` returned through the model, all of it together: the second half of `score`.

        Returns:
            The pictures whose last tile was in the batch, in order.
        """
        scorer = self._scorer(max(1, len(batch)))
        results = [self._merged(result) for result in scorer.score(batch, {_METHOD: self.memory})]
        return [result for result in results if result is not None]

    def _object_names(self, object_name: Any) -> Any:
        """Return the object name of pictures for which this one was given; None takes the detector's own."""
        if self.profile is not None and self.engine.needs_object and object_name not in (None, self.object_name):
            raise UsageError(
                f"the profile was made for {self.object_name!r}, and its promise holds for no other object name: "
                "leave it out, or make a profile for each product"
            )
        return self.object_name if object_name is None else object_name

    def _note_on(self, picture: LoadedImage) -> tuple[str, ...]:
        """Return a note if the profile has a picture with these pixels, whatever its name."""
        if picture.size not in self._kept_sizes:  # a fingerprint takes some milliseconds
            return ()
        note = self._kept.get(picture_fingerprint(picture, self.tiling))
        return () if note is None else (note,)

    def _scorer(self, batch_size: int) -> Scorer:
        return Scorer(
            {_METHOD: self.engine},
            batch_size=batch_size,
            max_pixels=self.max_pixels,
            value_range=self.value_range,
            tiling=self.tiling,
            texts=self._texts,
        )

    def _merged(self, result: Scored[None]) -> ScoredImage | None:
        """Add the result of a tile; return the picture if that was the last one."""
        merger = result.tile.merger
        tile = result.tile.index, result.score, result.map, result.timing
        add_tile(merger, *tile, self.engine, self.memory, self.limits.roi)
        return ScoredImage(self, merger) if merger.done else None


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
        limits, map_range = detector.limits, detector.engine.map_range(detector.memory)
        model_map = None if limits.roi is not None else enlarged_map(merger, detector.engine)
        # Of a very large picture only a smaller one is in memory, by which it cannot be known.
        note = detector._note_on(merger.image) if merger.step == 1 else ()
        detection = Detection(
            score=merger.score,
            anomaly_map=finished_map(merger, detector.engine, detector.memory, limits.roi),
            map_range=map_range,
            size=merger.size,
            path=merger.path,
            threshold=detector.threshold,
            mask_threshold=detector.mask_threshold,
            notes=merger.notes + note,
            timing=merger.timing,
            provenance=detector.provenance,
            map_step=merger.step,
            min_area=limits.min_area,
            review_threshold=limits.review_threshold,
            p_value=limits.p_value(merger.score),
            heatmap_range=limits.heatmap_range or detector.engine.display_range(detector.memory),
            model_map=model_map,
        )
        return merger.image, detection


def with_thresholds(limits: Limits, threshold: float | None, mask_threshold: float | None) -> Limits:
    """Return limits with thresholds that somebody gave in place of their own; those promise nothing."""
    if threshold is None and mask_threshold is None:
        return limits
    if threshold is not None:
        limits = replace(limits, threshold=threshold, review_threshold=None, promise=None)
    if mask_threshold is not None or limits.mask_threshold is None:
        limits = replace(limits, mask_threshold=mask_threshold)
    return limits


def check_object_name(name: str) -> str:
    """Return the name of an object. Raise UsageError if it is empty."""
    if not name.strip():
        raise UsageError('the object name is empty; give what the pictures show, such as "metal nut", or "object"')
    return name
