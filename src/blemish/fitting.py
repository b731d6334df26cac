"""From good pictures to a profile: memory, thresholds with a promise, scale of heatmaps.

Every good picture is read and encoded once. How its score comes about depends on the method and on the number of
pictures:

- `leave-one-out`, for methods whose scores more references never raise (`ReferenceMethod.monotone`), up to
  `MAX_LEAVE_ONE_OUT` pictures: each picture is scored with all others as references, from its stored features. All
  pictures are references and calibrate.
- `split`, for all other methods and for more pictures: some are references, the others calibrate.

`blemish.calibration` says what each promises and why. The memory is rounded to the precision of the file before
anything is scored with it.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import random
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

import blemish
from blemish import calibration as conformal
from blemish.calibration import Scheme
from blemish.clip import ImageFeatures, Request, Tap
from blemish.concurrency import prefetch
from blemish.detection import Provenance, Timing
from blemish.engine import Engine, TorchEngine
from blemish.errors import ImageError, UsageError, suggest
from blemish.few_shot import (
    BATCH,
    References,
    alike_batches,
    hash_pixels,
    list_references,
    require_reference_method,
)
from blemish.files import absolute
from blemish.image_io import MAX_PIXELS
from blemish.limits import FitOptions, FittedLimits, Measured, require_enough
from blemish.methods.base import MemoryBank, Prediction, ReferenceMethod
from blemish.profile import GoodPicture, Profile, rounded, to_device
from blemish.roi import Roi, read_roi
from blemish.tiling import TileMerger, cut, resize
from blemish.types import ImageSource, Tiling, ValueRange

T = TypeVar("T")

#: Most good pictures of which each is scored with all others as references.
MAX_LEAVE_ONE_OUT = 100
#: References of a split; more make every later score slower.
MAX_SPLIT_REFERENCES = 50
#: Values of each map that the scale and the rules of others look at.
_SAMPLED_VALUES = 100_000


@dataclass
class _Picture:
    """A good picture on its way: read, prepared, encoded."""

    name: str
    fingerprint: str
    size: tuple[int, int]
    indices: list[tuple[int, int]]
    """(row, column) of each tile."""
    pixels: list[Tensor]
    """Prepared pixels of each tile."""
    copies: list[Tensor]
    """Prepared pixels of what goes into the memory: each tile, or what the method makes of it."""
    features: list[ImageFeatures] = field(default_factory=list)


def fit_profile(
    engine: TorchEngine,
    good: References,
    options: FitOptions,
    *,
    object_name: str,
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | None = None,
    tiling: Tiling | None = None,
    on_progress: Callable[[], object] = lambda: None,
) -> Profile:
    """Return the profile of the good pictures of one product.

    Args:
        engine: Runs a few-shot method.
        good: Good pictures; copies count once.
        options: See `FitOptions`.
        object_name: What the pictures show.
        max_pixels: As in `blemish.load`.
        value_range: As in `blemish.load`.
        tiling: How pictures are cut.
        on_progress: Called for each good picture that was scored.

    Raises:
        UsageError: The method takes no references, there are too few pictures, or they are all alike.
        ImageError: A picture cannot be read.
    """
    require_reference_method(engine.method.info)
    fitter = _Fitter(engine, options, object_name, max_pixels, value_range, tiling)
    return fitter.fit(list_references(good), on_progress)


class _Fitter:
    """One fit: the engine with what all its steps need."""

    def __init__(
        self,
        engine: TorchEngine,
        options: FitOptions,
        object_name: str,
        max_pixels: int,
        value_range: ValueRange | None,
        tiling: Tiling | None,
    ) -> None:
        assert isinstance(engine.method, ReferenceMethod)
        self.engine, self.method, self.options = engine, engine.method, options
        self.object_name, self.max_pixels = object_name, max_pixels
        self.value_range, self.tiling = value_range, tiling
        self.text = engine.text([object_name])
        self.roi: Roi | None = options.roi if isinstance(options.roi, Roi) else None
        self.notes: list[str] = []

    # the steps

    def fit(self, sources: Sequence[ImageSource], on_progress: Callable[[], object]) -> Profile:
        require_enough(len(sources), self.options)
        many = len(sources) > MAX_LEAVE_ONE_OUT
        if self.method.monotone and not many:
            pictures = self.without_copies(self.read(sources, _names(sources)))
            return self.leave_one_out(pictures, on_progress)
        return self.split(sources, on_progress)

    def leave_one_out(self, pictures: list[_Picture], on_progress: Callable[[], object]) -> Profile:
        """Every picture is a reference and calibrates."""
        encode = _CachedEncoder(self.engine)
        self.encode(pictures, encode)
        self.warn_of_groups(pictures)
        memory = self.build(pictures, encode)
        results = self.score_each(pictures, memory, on_progress)
        removed: list[_Picture] = []
        odd = conformal.suspicious([result.score for result in results])
        names = {pictures[number].fingerprint for number in odd}
        if self.options.robust and len(odd):
            removed = [picture for picture in pictures if picture.fingerprint in names]
            pictures = [picture for picture in pictures if picture.fingerprint not in names]
            memory = self.build(pictures, encode)
            results = self.score_each(pictures, memory, lambda: None)
            names = set()
            self.note_removed(removed)
        counts = _counts(pictures, memory.images)
        entries = [
            self.entry(picture, result, count, picture.fingerprint in names)
            for picture, result, count in zip(pictures, results, counts, strict=True)
        ]
        return self.profile(memory, entries, results, "leave-one-out", len(removed))

    def split(self, sources: Sequence[ImageSource], on_progress: Callable[[], object]) -> Profile:
        """Some pictures are references, the others calibrate, always the same ones."""
        names = _names(sources)
        order = random.Random(0).sample(range(len(sources)), len(sources))
        count = min(len(sources) // 2, MAX_SPLIT_REFERENCES)
        chosen = sorted(order[:count])
        references = self.without_copies(self.read([sources[n] for n in chosen], [names[n] for n in chosen]))
        encode = _CachedEncoder(self.engine)
        self.encode(references, encode)
        memory = self.build(references, encode)
        vectors = [self.vector(picture) for picture in references]
        known = {picture.fingerprint for picture in references}
        entries = [self.entry(picture, None, len(picture.copies)) for picture in references]
        del encode, references
        results: list[Measured] = []
        rest = sorted(order[count:])
        copies = 0
        for picture in self.read([sources[n] for n in rest], [names[n] for n in rest], as_references=False):
            on_progress()
            if picture.fingerprint in known:
                copies += 1
                continue
            known.add(picture.fingerprint)
            self.encode([picture], self.engine_encode)
            vectors.append(self.vector(picture))
            results.append(self.score(picture, memory))
            entries.append(self.entry(picture, results[-1], 0))
        self.note_copies(copies)
        self.warn_of_groups_of(vectors)
        odd = conformal.suspicious([result.score for result in results]) if results else ()
        calibrating = [number for number, entry in enumerate(entries) if entry.score is not None]
        for number in odd:
            entries[calibrating[number]] = replace(entries[calibrating[number]], suspicious=True)
        removed = 0
        if self.options.robust and len(odd):
            gone = {calibrating[number] for number in odd}
            self.notes.append(_removed_note([entries[number].name for number in sorted(gone)]))
            results = [result for number, result in zip(calibrating, results, strict=True) if number not in gone]
            entries = [entry for number, entry in enumerate(entries) if number not in gone]
            removed = len(gone)
        reason = (
            f"{len(sources)} pictures are enough to keep references and calibration apart"
            if self.method.monotone
            else f"more references can raise a score of {self.method.info.name}"
        )
        self.notes.append(f"{count} pictures are references and {len(results)} calibrate: {reason}.")
        return self.profile(memory, entries, results, "split", removed)

    # parts of the steps

    def read(
        self, sources: Sequence[ImageSource], names: Sequence[str], *, as_references: bool = True
    ) -> Iterator[_Picture]:
        """Yield pictures as they are read, in order."""

        def prepare(item: tuple[int, tuple[ImageSource, str]]) -> Generator[_Picture, None, None]:
            number, (source, name) = item
            yield self.prepare(source, name, number, len(sources), as_references)

        for picture in prefetch(enumerate(zip(sources, names, strict=True)), prepare, BATCH):
            if isinstance(picture, BaseException):
                raise picture
            if self.options.roi is not None and self.roi is None:
                self.roi = read_roi(self.options.roi, picture.size)
            yield picture

    def prepare(self, source: ImageSource, name: str, number: int, total: int, as_reference: bool) -> _Picture:
        digest = hashlib.sha256()
        indices, pixels, copies = [], [], []
        size = (0, 0)
        try:
            for tile in cut(source, self.tiling, max_pixels=self.max_pixels, value_range=self.value_range):
                hash_pixels(digest, tile.image)
                indices.append(tile.index)
                pixels.append(self.engine.preprocess(tile.image))
                if as_reference:
                    own = list(self.method.reference_copies(tile.image, number, total))
                    copies += [pixels[-1] if copy is tile.image else self.engine.preprocess(copy) for copy in own]
                size = tile.merger.size
        except ImageError as error:
            raise ImageError(f"a good picture cannot be used: {error}", error.path) from error
        return _Picture(name, digest.hexdigest()[:16], size, indices, pixels, copies)

    def without_copies(self, pictures: Iterable[_Picture]) -> list[_Picture]:
        """Return each picture once, since a copy in the memory would make its score too low."""
        unique: dict[str, _Picture] = {}
        copies = 0
        for picture in pictures:
            copies += picture.fingerprint in unique
            unique.setdefault(picture.fingerprint, picture)
        if copies and len(unique) == 1:
            raise UsageError(
                f"the {copies + 1} good pictures are copies of one picture; give pictures of different good parts"
            )
        self.note_copies(copies)
        if copies:
            require_enough(len(unique), self.options)
        return list(unique.values())

    def note_copies(self, copies: int) -> None:
        if copies:
            noun = (
                "picture is a copy of another and counts" if copies == 1 else "pictures are copies of others and count"
            )
            self.notes.append(f"{copies} {noun} once.")

    def note_removed(self, removed: Sequence[_Picture]) -> None:
        self.notes.append(_removed_note([picture.name for picture in removed]))

    def engine_encode(self, pixels: Tensor) -> ImageFeatures:
        return self.engine.encode(pixels, _request(self.method))

    def encode(self, pictures: Sequence[_Picture], encode: Callable[[Tensor], ImageFeatures]) -> None:
        """Encode the tiles of pictures, in batches."""
        tiles = [(picture, pixels) for picture in pictures for pixels in picture.pixels]
        for batch in alike_batches(tiles, lambda tile: tile[1]):
            for (picture, _), features in zip(batch, _divided(encode(torch.cat([p for _, p in batch]))), strict=True):
                picture.features.append(features)

    def build(self, pictures: Sequence[_Picture], encode: Callable[[Tensor], ImageFeatures]) -> MemoryBank:
        """Return the memory of pictures, rounded to what the file keeps."""
        copies = [pixels for picture in pictures for pixels in picture.copies]
        batches = (torch.cat(batch) for batch in alike_batches(copies, lambda pixels: pixels))
        with torch.inference_mode():
            memory = self.method.build_memory_bank(batches, encode, num_images=sum(len(p.pixels) for p in pictures))
            memory = rounded(memory)
        return replace(memory, references=len(pictures), fingerprint=_fingerprint(p.fingerprint for p in pictures))

    def score_each(
        self, pictures: Sequence[_Picture], memory: MemoryBank, on_progress: Callable[[], object]
    ) -> list[Measured]:
        """Score each picture with the others as references."""
        counts = _counts(pictures, memory.images)
        total, results, start = sum(counts), [], 0
        for picture, count in zip(pictures, counts, strict=True):
            others = [number for number in range(total) if not start <= number < start + count]
            with torch.inference_mode():
                part = memory.select(others)
            results.append(self.score(picture, part))
            start += count
            on_progress()
        return results

    def score(self, picture: _Picture, memory: MemoryBank) -> Measured:
        predictions = (self.engine.score(features, self.text, memory) for features in picture.features)
        return self.result(picture.name, picture.size, zip(picture.indices, predictions, strict=True), memory)

    def score_kept(self, entry: GoodPicture, own: MemoryBank, memory: MemoryBank) -> Measured:
        """Score a picture from what a memory keeps of it; its copies follow each tile, which comes first."""
        merger = TileMerger(entry.size, self.tiling)
        indices = [(row, column) for row in range(len(merger.down.spans)) for column in range(len(merger.across.spans))]
        step = own.images // len(indices)
        tiles = [own.select([number * step]) for number in range(len(indices))]
        with torch.inference_mode():
            predictions = [self.method.score_entry(tile, self.text, memory) for tile in tiles]
        on_cpu = [Prediction(each.score.float().cpu(), each.map.float().cpu()) for each in predictions]
        return self.result(entry.name, entry.size, zip(indices, on_cpu, strict=True), memory)

    def rescored(self, entries: Sequence[GoodPicture], memory: MemoryBank) -> list[GoodPicture]:
        """Return the pictures of a memory with the scores that they have in it, each with the others as references."""
        rescored, start = [], 0
        for entry in entries:
            numbers = range(start, start + entry.images)
            with torch.inference_mode():
                own = memory.select(numbers)
                others = memory.select([number for number in range(memory.images) if number not in numbers])
            result = self.score_kept(entry, own, others)
            numbers_of = {"score": result.score, "level": result.level, "peak": result.peak, "usual": result.usual}
            rescored.append(replace(entry, **numbers_of))  # type: ignore[arg-type]
            start += entry.images
        return rescored

    def result(
        self,
        name: str,
        size: tuple[int, int],
        predictions: Iterable[tuple[tuple[int, int], Prediction]],
        memory: MemoryBank,
    ) -> Measured:
        """Return what a picture scores, from the prediction of each tile."""
        merger = TileMerger(size, self.tiling)
        for index, prediction in predictions:
            score, tile_map = float(prediction.score[0]), prediction.map[0]
            add_tile(merger, index, score, tile_map, Timing(), self.engine, memory, self.roi)
        values = finished_map(merger, self.engine, memory, self.roi)
        if not (math.isfinite(merger.score) and np.isfinite(values).all()):
            raise ImageError(f"{name} gives no finite score; try precision float32", name)
        level = conformal.region_levels([values], self.options.min_area, step=merger.step, size=size)[0]
        inside = values if self.roi is None else values[self.roi.resized(values.shape[1], values.shape[0])]
        step = -(-inside.size // _SAMPLED_VALUES)
        sample = inside.ravel()[::step].copy()
        return Measured(merger.score, float(level), float(values.max()), float(np.median(sample)), sample)

    def entry(self, picture: _Picture, result: Measured | None, images: int, odd: bool = False) -> GoodPicture:
        if result is None:
            return GoodPicture(picture.name, picture.fingerprint, images, size=picture.size)
        numbers = (result.score, result.level, result.peak, result.usual)
        return GoodPicture(picture.name, picture.fingerprint, images, *numbers, picture.size, odd)

    def vector(self, picture: _Picture) -> npt.NDArray[np.float32]:
        """Return one vector of a whole picture (D,): its class token at `whole_tap`, the mean of its tiles."""
        tap = whole_tap(self.method)
        rows = [functional.normalize(features.taps[tap][0, 0].float(), dim=0) for features in picture.features]
        vector: npt.NDArray[np.float32] = torch.stack(rows).mean(0).cpu().numpy()
        return vector

    def warn_of_groups(self, pictures: Sequence[_Picture]) -> None:
        self.warn_of_groups_of([self.vector(picture) for picture in pictures])

    def warn_of_groups_of(self, vectors: Sequence[npt.NDArray[np.float32]]) -> None:
        groups = conformal.two_groups(np.stack(vectors))
        if groups is not None:
            self.notes.append(groups.sentence())

    # the result

    def profile(
        self,
        memory: MemoryBank,
        entries: Sequence[GoodPicture],
        results: Sequence[Measured],
        scheme: Scheme,
        removed: int,
    ) -> Profile:
        engine, options = self.engine, self.options
        sampled = np.concatenate([result.values for result in results])
        bad = self.bad_results(memory)
        fitted = FittedLimits(options, entries, scheme, removed, engine.map_range(memory), self.roi, sampled, bad)
        return Profile(
            memory=memory,
            limits=fitted.limits,
            good=tuple(entries),
            **made_with(engine.provenance),
            preprocessing=engine.preprocessing,
            object_name=self.object_name,
            map_range=engine.map_range(memory),
            tiling=self.tiling,
            value_range=self.value_range,
            options=_stored(options),
            false_alarms=fitted.false_alarms,
            guarantee=fitted.guarantee,
            notes=(*self.notes, *fitted.notes),
            created=_now(),
            version=blemish.__version__,
        )

    def bad_results(self, memory: MemoryBank) -> list[Measured]:
        """Score the pictures with defects."""
        if self.options.bad is None:
            return []
        sources = list_references(self.options.bad)
        results = []
        for picture in self.read(sources, _names(sources), as_references=False):
            self.encode([picture], self.engine_encode)
            results.append(self.score(picture, memory))
        return results


def add_pictures(
    engine: TorchEngine,
    profile: Profile,
    more: References,
    *,
    max_pixels: int = MAX_PIXELS,
    on_progress: Callable[[], object] = lambda: None,
) -> Profile:
    """Return a profile with more good pictures; those that it has are not needed.

    Of a split the new ones calibrate. Otherwise they are references, too: each is scored with all others as references.
    So are the pictures of before if the memory keeps all that their scores need (`ReferenceMethod.scores_entries`). Of
    other methods they keep their scores. More references can only lower these, so the promise holds, and the threshold
    is at most a little too high; a fit with all pictures gives the exact one.

    Raises:
        UsageError: The rule of the profile needs all pictures.
        ImageError: A picture cannot be read.
    """
    options = FitOptions(**{**profile.options, "roi": profile.limits.roi})
    fitter = _Fitter(engine, options, profile.object_name, max_pixels, profile.value_range, profile.tiling)
    known = {entry.fingerprint for entry in profile.good}
    sources = list_references(more)
    pictures: list[_Picture] = []
    for picture in fitter.read(sources, _names(sources)):
        if picture.fingerprint not in known:
            known.add(picture.fingerprint)
            pictures.append(picture)
    fitter.note_copies(len(sources) - len(pictures))
    encode = _CachedEncoder(engine)
    fitter.encode(pictures, encode)
    memory = to_device(profile.memory, engine.device)
    split = profile.limits.scheme == "split"
    entries = list(profile.good)
    if pictures and not split:
        memory = type(memory).concat([memory, to_device(fitter.build(pictures, encode), engine.device)])
    start = profile.memory.images
    counts = [0] * len(pictures) if split else _counts(pictures, memory.images - start)
    for picture, count in zip(pictures, counts, strict=True):
        part = memory
        if not split:
            with torch.inference_mode():
                part = memory.select([n for n in range(memory.images) if not start <= n < start + count])
            start += count
        entries.append(fitter.entry(picture, fitter.score(picture, part), count))
        on_progress()
    if pictures and not split and fitter.method.scores_entries:
        entries[: len(profile.good)] = fitter.rescored(entries, memory)[: len(profile.good)]
    elif pictures and not split:
        fitter.notes.append(
            f"The {len(profile.good)} pictures of before keep their scores, so the threshold may be a little too "
            "high; a fit with all pictures gives the exact one."
        )
    return _updated(profile, options, memory, entries, fitter.notes)


def remove_pictures(engine: TorchEngine, profile: Profile, names: Sequence[str]) -> Profile:
    """Return a profile without some of its pictures, which are not needed.

    A picture that only calibrates (in a split) can be taken out. Without a reference the scores of all others change.
    They are computed again if the memory keeps all that they need (`ReferenceMethod.scores_entries`: `joint`); for
    other methods only a fit with the others gives them. In a split a reference cannot be taken out, since the pictures
    that calibrate are not kept.

    Args:
        engine: The engine of the profile's method.
        profile: The profile.
        names: Names or fingerprints of the pictures; the name of a file is enough.

    Raises:
        UsageError: There is no such picture, or it is a reference that cannot be taken out.
    """
    options = FitOptions(**{**profile.options, "roi": profile.limits.roi})
    fitter = _Fitter(engine, options, profile.object_name, MAX_PIXELS, profile.value_range, profile.tiling)
    gone = [_find(profile, name) for name in names]
    can_rescore = fitter.method.scores_entries and profile.limits.scheme == "leave-one-out"
    if references := [entry.name for entry in gone if entry.images and not can_rescore]:
        raise UsageError(
            f"{', '.join(references)} {'is a reference' if len(references) == 1 else 'are references'} of this "
            "profile, and without it the scores of all others change: fit again without it"
        )
    left = {entry.fingerprint for entry in gone}
    entries, memory = [entry for entry in profile.good if entry.fingerprint not in left], profile.memory
    if can_rescore and len(entries) >= 2:
        kept = list(
            itertools.chain.from_iterable([entry.fingerprint not in left] * entry.images for entry in profile.good)
        )
        memory = to_device(memory, engine.device).select([number for number, keep in enumerate(kept) if keep])
        entries = fitter.rescored(entries, memory)
    return _updated(profile, options, memory, entries, [])


def _find(profile: Profile, name: str) -> GoodPicture:
    matching = [
        entry
        for entry in profile.good
        if name in (entry.name, entry.fingerprint, Path(entry.name).name) or absolute(name) == absolute(entry.name)
    ]
    if len(matching) == 1:
        return matching[0]
    if not matching:
        hint = suggest(name, [entry.name for entry in profile.good])
        raise UsageError(f"the profile has no good picture {name}{hint}; `blemish info` lists them")
    raise UsageError(f"{name} can be {len(matching)} pictures of the profile; give its path or its fingerprint")


def _updated(
    profile: Profile, options: FitOptions, memory: MemoryBank, entries: list[GoodPicture], notes: Sequence[str]
) -> Profile:
    calibrating = [number for number, entry in enumerate(entries) if entry.score is not None]
    if len(calibrating) < 2:
        raise UsageError("fewer than 2 good pictures would be left, which promise nothing")
    odd = {calibrating[n] for n in conformal.suspicious([entries[n].score or 0.0 for n in calibrating])}
    entries = [replace(entry, suspicious=number in odd) for number, entry in enumerate(entries)]
    limits = profile.limits
    fitted = FittedLimits(options, entries, limits.scheme, limits.removed, profile.map_range, limits.roi)
    references = [entry.fingerprint for entry in entries if entry.images]
    return replace(
        profile,
        memory=replace(memory, references=len(references), fingerprint=_fingerprint(references)),
        limits=fitted.limits,
        good=tuple(entries),
        false_alarms=fitted.false_alarms,
        guarantee=fitted.guarantee,
        notes=(*notes, *fitted.notes),
        created=_now(),
        version=blemish.__version__,
        path=None,
    )


def _stored(options: FitOptions) -> dict[str, Any]:
    """Return the options that a later change of the profile needs."""
    names = ["false_alarms", "review", "min_area", "rule"] + ["recall"] * (options.rule == "recall")
    return {name: getattr(options, name) for name in names}


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def made_with(source: Provenance) -> dict[str, Any]:
    """Return the fields of a profile that a detector's provenance has."""
    names = ("method", "config", "backbone", "backbone_fingerprint", "weights", "weights_fingerprint", "precision")
    return {name: getattr(source, name) for name in names}


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
    if not merger.is_whole and isinstance(engine, TorchEngine) and engine.finishes_maps:
        tile_map = engine.finish_map(tile_map, *merger.tile_size(index))
    merger.add(index, score, tile_map, timing)


def finished_map(
    merger: TileMerger, engine: Engine, memory: MemoryBank | None, roi: Roi | None
) -> npt.NDArray[np.float32]:
    """Return the map of a picture whose tiles were all added; outside the region of interest it has its lowest
    value.
    """
    values: npt.NDArray[np.float32] = merger.take_map(
        engine.finish_map if isinstance(engine, TorchEngine) else resize
    ).numpy()
    if roi is None:
        return values
    inside = roi.resized(values.shape[1], values.shape[0])
    return np.where(inside, values, np.float32(engine.map_range(memory)[0]))


def whole_tap(method: ReferenceMethod) -> Tap:
    """Return the tap whose class token stands for a whole picture: seven eighths of the way up.

    `benchmarks/two_groups.py` compares it with other layers.
    """
    return Tap(max(1, round(7 / 8 * method.backbone.layers)))


def _request(method: ReferenceMethod) -> Request:
    """Return what the method needs of good pictures, and what the whole picture is compared by."""
    return method.memory_request | Request(frozenset({whole_tap(method)}), class_token=False)


class _CachedEncoder:
    """Runs the backbone on images that it has not encoded yet."""

    def __init__(self, engine: TorchEngine) -> None:
        assert isinstance(engine.method, ReferenceMethod)
        self._engine, self._request = engine, _request(engine.method)
        self._known: dict[bytes, ImageFeatures] = {}

    def __call__(self, pixels: Tensor) -> ImageFeatures:
        keys = [hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest() for image in pixels.cpu()]
        if new := [number for number, key in enumerate(keys) if key not in self._known]:
            features = self._engine.encode(pixels[new], self._request)
            self._known.update(zip((keys[number] for number in new), _divided(features), strict=True))
        return _joined([self._known[key] for key in keys])


def _counts(pictures: Sequence[_Picture], images: int) -> list[int]:
    """Return how many entries each picture has in a memory bank, whose images are those of the pictures in order."""
    tiles = sum(len(picture.pixels) for picture in pictures)
    return [len(picture.pixels) * images // tiles for picture in pictures]


def _divided(features: ImageFeatures) -> list[ImageFeatures]:
    """Return the features of each image of a batch."""
    count = len(features.class_token) if features.class_token is not None else len(next(iter(features.taps.values())))

    def part(number: int) -> ImageFeatures:
        own = slice(number, number + 1)
        return replace(
            features,
            taps={tap: rows[own] for tap, rows in features.taps.items()},
            class_token=None if features.class_token is None else features.class_token[own],
            windows={side: rows[own] for side, rows in features.windows.items()},
        )

    return [part(number) for number in range(count)]


def _joined(parts: Sequence[ImageFeatures]) -> ImageFeatures:
    """Return the features of several images as one batch."""
    first = parts[0]
    tokens = [part.class_token for part in parts if part.class_token is not None]
    return replace(
        first,
        taps={tap: torch.cat([part.taps[tap] for part in parts]) for tap in first.taps},
        class_token=torch.cat(tokens) if tokens else None,
        windows={side: torch.cat([part.windows[side] for part in parts]) for side in first.windows},
    )


def _names(sources: Sequence[ImageSource]) -> list[str]:
    def name(number: int, source: ImageSource) -> str:
        if isinstance(source, (str, os.PathLike)):
            return os.fsdecode(source)
        return getattr(source, "path", None) or f"picture {number}"

    return [name(number, source) for number, source in enumerate(sources, 1)]


def _fingerprint(digests: Iterable[str]) -> str:
    """Return 16 hex digits over the pictures, whatever their order."""
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()[:16]


def _removed_note(names: Sequence[str]) -> str:
    return f"left out, because they look unlike the others: {', '.join(names)}."
