"""A fit: memory and scores of the good pictures by one of two schemes, and the profile that follows.

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

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

import blemish
from blemish import calibration as conformal
from blemish.calibration import Scheme
from blemish.detection import Provenance
from blemish.engine import TorchEngine
from blemish.errors import UsageError
from blemish.few_shot import References, list_references, picture_names, require_reference_method
from blemish.fitting.pictures import PictureScorer, image_counts, with_references
from blemish.image_io import MAX_PIXELS
from blemish.limits import FitOptions, FittedLimits, Measured, require_enough
from blemish.methods.base import MemoryBank
from blemish.profile import GoodPicture, Profile
from blemish.types import ImageSource, Tiling, ValueRange

#: Most good pictures of which each is scored with all others as references.
MAX_LEAVE_ONE_OUT = 100
#: References of a split; more make every later score slower.
MAX_SPLIT_REFERENCES = 50


@dataclass(frozen=True)
class _Fitted:
    """The good pictures after one of the schemes."""

    scheme: Scheme
    memory: MemoryBank
    entries: list[GoodPicture]
    results: list[Measured]
    """Those of the pictures that calibrate, in order."""
    removed: int
    notes: list[str]


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
    sources = list_references(good)
    require_enough(len(sources), options)
    scorer = PictureScorer(
        engine,
        object_name=object_name,
        min_area=options.min_area,
        roi=options.roi,
        max_pixels=max_pixels,
        value_range=value_range,
        tiling=tiling,
    )
    alone = scorer.method.monotone and len(sources) <= MAX_LEAVE_ONE_OUT
    fitted = (_leave_one_out if alone else _split)(scorer, sources, options, on_progress)
    bad = [] if options.bad is None else [scorer.score(p, fitted.memory) for p in scorer.read_encoded(options.bad)]
    map_range = engine.map_range(fitted.memory)
    sampled = np.concatenate([result.values for result in fitted.results])
    limits = FittedLimits(options, fitted.entries, fitted.scheme, fitted.removed, map_range, scorer.roi, sampled, bad)
    return Profile(
        memory=fitted.memory,
        limits=limits.limits,
        good=tuple(fitted.entries),
        **made_with(engine.provenance),
        preprocessing=engine.preprocessing,
        object_name=object_name,
        map_range=map_range,
        tiling=tiling,
        value_range=value_range,
        options=_stored(options),
        false_alarms=limits.false_alarms,
        guarantee=limits.guarantee,
        notes=(*fitted.notes, *limits.notes),
        created=now(),
        version=blemish.__version__,
    )


def _leave_one_out(
    scorer: PictureScorer, sources: Sequence[ImageSource], options: FitOptions, on_progress: Callable[[], object]
) -> _Fitted:
    """Return the result with every picture as a reference that calibrates, too."""
    pictures, memory = scorer.read_references(sources)
    copies = len(sources) - len(pictures)
    assert memory is not None  # there are at least two pictures
    _require_different(len(pictures), copies)
    if copies:
        require_enough(len(pictures), options)
    notes = [*copy_notes(copies), *_group_notes([picture.vector for picture in pictures])]

    counts = image_counts(pictures, memory.images)
    entries = [picture.entry(None, images) for picture, images in zip(pictures, counts, strict=True)]
    results, removed = [], 0
    for result in scorer.score_among(pictures, entries, memory):
        results.append(result)
        on_progress()
    odd = set(conformal.suspicious([result.score for result in results]).tolist())
    if options.robust and odd:
        removed = len(odd)
        notes.append(_removed_note([pictures[number].name for number in sorted(odd)]))
        images = [number for number, owner in enumerate(owners(entries)) if owner not in odd]
        pictures = [picture for number, picture in enumerate(pictures) if number not in odd]
        entries = [entry for number, entry in enumerate(entries) if number not in odd]
        memory = with_references(memory.select(images), [picture.fingerprint for picture in pictures])
        results, odd = list(scorer.score_among(pictures, entries, memory)), set()
    scored = [
        replace(picture.entry(result, entry.images), suspicious=number in odd)
        for number, (picture, result, entry) in enumerate(zip(pictures, results, entries, strict=True))
    ]
    return _Fitted("leave-one-out", memory, scored, results, removed, notes)


def _split(
    scorer: PictureScorer, sources: Sequence[ImageSource], options: FitOptions, on_progress: Callable[[], object]
) -> _Fitted:
    """Return the result with some pictures as references and the others calibrating, always the same ones."""
    names = picture_names(sources)
    order = random.Random(0).sample(range(len(sources)), len(sources))
    count = min(len(sources) // 2, MAX_SPLIT_REFERENCES)
    chosen, rest = sorted(order[:count]), sorted(order[count:])
    references, memory = scorer.read_references([sources[n] for n in chosen], names=[names[n] for n in chosen])
    assert memory is not None  # there is at least one reference
    counts = image_counts(references, memory.images)
    entries = [picture.entry(None, images) for picture, images in zip(references, counts, strict=True)]
    known = {picture.fingerprint for picture in references}
    vectors = [picture.vector for picture in references]
    copies = count - len(references)
    del references
    results: list[Measured] = []
    for read in scorer.read([sources[n] for n in rest], names=[names[n] for n in rest]):
        on_progress()
        if read.fingerprint in known:
            copies += 1
            continue
        known.add(read.fingerprint)
        (picture,) = scorer.encode([read])
        vectors.append(picture.vector)
        results.append(scorer.score(picture, memory))
        entries.append(picture.entry(results[-1], 0))
    _require_different(len(known), copies)
    if not results:
        raise UsageError(
            f"of the {len(sources)} good pictures all that should calibrate are copies of references; give pictures of "
            "different good parts"
        )
    notes = [*copy_notes(copies), *_group_notes(vectors)]
    offset = len(entries) - len(results)
    odd = {offset + number for number in conformal.suspicious([result.score for result in results]).tolist()}
    entries = [replace(entry, suspicious=number in odd) for number, entry in enumerate(entries)]
    removed = 0
    if options.robust and odd:
        removed = len(odd)
        notes.append(_removed_note([entries[number].name for number in sorted(odd)]))
        results = [result for number, result in enumerate(results, offset) if number not in odd]
        entries = [entry for number, entry in enumerate(entries) if number not in odd]
    reason = (
        f"{len(sources)} pictures are enough to keep references and calibration apart"
        if scorer.method.monotone
        else f"more references can raise a score of {scorer.method.info.name}"
    )
    first, second = (
        f"{number} {single if number == 1 else several}"
        for number, single, several in (
            (count, "picture is a reference", "pictures are references"),
            (len(results), "calibrates", "calibrate"),
        )
    )
    notes.append(f"{first} and {second}: {reason}.")
    return _Fitted("split", memory, entries, results, removed, notes)


def _require_different(pictures: int, copies: int) -> None:
    if copies and pictures == 1:
        raise UsageError(
            f"the {copies + 1} good pictures are copies of one picture; give pictures of different good parts"
        )


def copy_notes(copies: int) -> list[str]:
    """Return what is said about copies; nothing without any."""
    if not copies:
        return []
    noun = "picture is a copy of another and counts" if copies == 1 else "pictures are copies of others and count"
    return [f"{copies} {noun} once."]


def _group_notes(vectors: Sequence[npt.NDArray[np.float32]]) -> list[str]:
    groups = conformal.two_groups(np.stack(vectors))
    return [] if groups is None else [groups.sentence()]


def _removed_note(names: Sequence[str]) -> str:
    return f"left out, because they look unlike the others: {', '.join(names)}."


def owners(entries: Sequence[GoodPicture]) -> list[int]:
    """Return the number of the picture that each image of a memory belongs to."""
    return [number for number, entry in enumerate(entries) for _ in range(entry.images)]


def _stored(options: FitOptions) -> dict[str, Any]:
    """Return the options that a later change of the profile needs."""
    names = ["false_alarms", "review", "min_area", "rule"] + ["recall"] * (options.rule == "recall")
    return {name: getattr(options, name) for name in names}


def now() -> str:
    """Return date and time, ISO 8601."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def made_with(source: Provenance) -> dict[str, Any]:
    """Return the fields of a profile that a detector's provenance has."""
    names = ("method", "config", "backbone", "backbone_fingerprint", "weights", "weights_fingerprint", "precision")
    return {name: getattr(source, name) for name in names}
