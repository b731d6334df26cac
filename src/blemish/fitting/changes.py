"""Changes of a profile: more good pictures, fewer, and known defects. The pictures that it has are not needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from scipy import stats

import blemish
from blemish import calibration as conformal
from blemish.engine import TorchEngine
from blemish.errors import UsageError, suggest
from blemish.few_shot import References, list_references
from blemish.fitting.pictures import PictureScorer, image_counts, with_references
from blemish.fitting.schemes import copy_notes, now, owners
from blemish.image_io import MAX_PIXELS
from blemish.limits import FitOptions, FittedLimits
from blemish.methods.base import MemoryBank
from blemish.profile import GoodPicture, Named, Profile, find_named, to_device

#: How many of the added pictures reach the threshold by chance, as a quantile.
_BY_CHANCE = 0.99


def add_pictures(
    engine: TorchEngine,
    profile: Profile,
    more: References,
    *,
    selected: bool = False,
    max_pixels: int = MAX_PIXELS,
    on_progress: Callable[[], object] = lambda: None,
    check: Callable[[], object] = lambda: None,
) -> Profile:
    """Return a profile with more good pictures; those that it has are not needed.

    Of a split the new ones calibrate. Otherwise they are references, too: each is scored with all others as references.
    So are the pictures of before if the memory keeps all that their scores need (`ReferenceMethod.keeps_entries`). Of
    others they keep their scores. More references can only lower these, so the promise holds, and the threshold
    is at most a little too high; a fit with all pictures gives the exact one.

    Pictures that were chosen because of their scores, such as false alarms, are not exchangeable with new ones, and
    the promise must not count on them. Without a split they become references and change no threshold: no picture of
    the calibration is compared with them, so its score is at least what it would be, while more references can only
    lower the score of a new good picture. So the promise holds, whatever was chosen. In a split they may raise the
    threshold and never lower it (`Calibration.contaminated`).

    Args:
        engine: The engine of the profile's method.
        profile: The profile.
        more: Good pictures.
        selected: They were chosen because of their scores.
        max_pixels: As in `blemish.load`.
        on_progress: Called for each picture that was scored.
        check: Called between pictures; an exception that it raises ends the work.

    Raises:
        UsageError: The rule of the profile needs all pictures, or a picture is a known defect of the profile.
        ImageError: A picture cannot be read.
    """
    scorer = PictureScorer.of(engine, profile, max_pixels, check)
    sources = list_references(more)
    known = {entry.fingerprint for entry in profile.good}
    split = profile.limits.scheme == "split"
    memory = to_device(profile.memory, engine.device)
    if split:
        unique = {picture.fingerprint: picture for picture in scorer.read_encoded(sources)}
        pictures = [picture for fingerprint, picture in unique.items() if fingerprint not in known]
        counts = [0] * len(pictures)
    else:
        pictures, own = scorer.read_references(sources, known=known)
        counts = [] if own is None else image_counts(pictures, own.images)
        memory = memory if own is None else type(memory).concat([memory, to_device(own, engine.device)])
    defects = {defect.fingerprint for defect in profile.known_defects}
    for picture in pictures:
        if picture.fingerprint in defects:
            raise UsageError(
                f"{picture.name} is a known defect of the profile, so it cannot be a good picture, too: take it out of "
                "the known defects first"
            )
    added = [
        replace(picture.entry(None, images), selected=selected)
        for picture, images in zip(pictures, counts, strict=True)
    ]
    results = (
        (scorer.score(picture, memory) for picture in pictures)
        if split
        else scorer.score_among(pictures, [*profile.good, *added], memory)
    )
    for number, (picture, result) in enumerate(zip(pictures, results, strict=True)):
        added[number] = replace(picture.entry(result, added[number].images), selected=selected)
        on_progress()
    notes = copy_notes(len(sources) - len(pictures))
    entries = [*profile.good, *added]
    if pictures and not selected:
        notes += _selection_notes(added, profile)
        if not split and scorer.method.keeps_entries(memory):
            entries[: len(profile.good)] = scorer.score_again(entries, memory)[: len(profile.good)]
        elif not split:
            notes.append(
                f"The {len(profile.good)} pictures of before keep their scores, so the threshold may be a little too "
                "high; a fit with all pictures gives the exact one."
            )
    return _updated(scorer, profile, memory, entries, notes)


def _selection_notes(added: Sequence[GoodPicture], profile: Profile) -> list[str]:
    """Return a note if more of the added pictures reach the threshold of before than chance explains."""
    threshold, promise = profile.limits.threshold, profile.false_alarms
    if threshold is None or promise is None:
        return []
    above = sum(entry.score is not None and entry.score >= threshold for entry in added)
    if above <= stats.binom.ppf(_BY_CHANCE, len(added), promise):
        return []
    return [
        f"{above} of the {len(added)} pictures that were added reach the former threshold. If they were chosen because "
        "of that, the promise must not count on them: add them to the former profile as rejected ones."
    ]


def remove_pictures(engine: TorchEngine, profile: Profile, names: Sequence[str]) -> Profile:
    """Return a profile without some of its pictures, which are not needed.

    A picture that only calibrates (in a split) can be taken out. Without a reference the scores of all others change.
    They are computed again if the memory keeps all that they need (`ReferenceMethod.keeps_entries`); else only a fit
    with the others gives them. In a split a reference cannot be taken out, since the pictures that calibrate are not
    kept.

    Args:
        engine: The engine of the profile's method.
        profile: The profile.
        names: Names or fingerprints of the pictures; the name of a file is enough.

    Raises:
        UsageError: There is no such picture, or it is a reference that cannot be taken out.
    """
    scorer = PictureScorer.of(engine, profile)
    gone = {_find(profile.good, name, "good picture") for name in names}
    # No picture that calibrates is compared with a selected one.
    needed = [entry.name for entry in profile.good if entry in gone and entry.images and not entry.selected]
    split = profile.limits.scheme == "split"
    if needed and (split or not scorer.method.keeps_entries(profile.memory)):
        names_them = f"{', '.join(needed)} {'is a reference' if len(needed) == 1 else 'are references'} of this profile"
        reason = (
            "the pictures that calibrate, whose scores change without it, are not kept"
            if split
            else f"the memory of {scorer.method.info.name} lacks what the scores of the others, which change, need"
        )
        raise UsageError(f"{names_them}, and {reason}: fit again with the others")
    entries = [entry for entry in profile.good if entry not in gone]
    memory = to_device(profile.memory, engine.device)
    if any(entry.images for entry in gone) and len(entries) >= 2:
        kept = [number for number, owner in enumerate(owners(profile.good)) if profile.good[owner] not in gone]
        with torch.inference_mode():
            memory = memory.select(kept)
        entries = scorer.score_again(entries, memory) if needed else entries
    return _updated(scorer, profile, memory, entries, [])


def add_known_defects(
    engine: TorchEngine,
    profile: Profile,
    pictures: References,
    *,
    max_pixels: int = MAX_PIXELS,
    on_progress: Callable[[], object] = lambda: None,
    check: Callable[[], object] = lambda: None,
) -> Profile:
    """Return a profile that knows more pictures with defects, which it should catch. They change no threshold.

    The profile keeps each as the model sees it: resized, without loss, some hundred kilobytes. So it can be scored
    again with every method whenever the memory changes.

    Raises:
        UsageError: A picture is one of the good ones.
        ImageError: A picture cannot be read.
    """
    scorer = PictureScorer.of(engine, profile, max_pixels, check)
    good = {entry.fingerprint for entry in profile.good}
    defects = {defect.fingerprint: defect for defect in profile.known_defects}
    memory = to_device(profile.memory, engine.device)
    for picture in scorer.read(list_references(pictures)):
        if picture.fingerprint in good:
            raise UsageError(
                f"{picture.name} is one of the good pictures of the profile, so it cannot be a known defect, too: take "
                "it out of the good ones first"
            )
        defects.setdefault(picture.fingerprint, scorer.score_defect(scorer.known_defect(picture), memory))
        on_progress()
    return replace(profile, known_defects=tuple(defects.values()), created=now(), version=blemish.__version__)


def remove_known_defects(profile: Profile, names: Sequence[str]) -> Profile:
    """Return a profile without some of its known defects.

    Raises:
        UsageError: There is no such picture.
    """
    gone = {_find(profile.known_defects, name, "known defect").fingerprint for name in names}
    left = tuple(defect for defect in profile.known_defects if defect.fingerprint not in gone)
    return replace(profile, known_defects=left, created=now(), version=blemish.__version__)


def _find(entries: Sequence[Named], name: str, what: str) -> Named:
    matching = find_named(entries, name)
    if len(matching) == 1:
        return matching[0]
    if not matching:
        hint = suggest(Path(name).name, [Path(entry.name).name for entry in entries])
        raise UsageError(f"the profile has no {what} {name}{hint}; `blemish info` lists them")
    raise UsageError(f"{name} can be {len(matching)} pictures of the profile; give its path or its fingerprint")


def _updated(
    scorer: PictureScorer, profile: Profile, memory: MemoryBank, entries: list[GoodPicture], notes: Sequence[str]
) -> Profile:
    """Return the profile with another memory and other good pictures.

    Args:
        scorer: Scores the known defects again.
        profile: The profile of before.
        memory: The memory, on the engine's device.
        entries: The good pictures.
        notes: What was noticed.
    """
    calibrating = [number for number, entry in enumerate(entries) if entry.calibrates]
    if len(calibrating) < 2:
        raise UsageError("fewer than 2 good pictures would be left, which promise nothing")
    odd = {calibrating[n] for n in conformal.suspicious([entries[n].score or 0.0 for n in calibrating])}
    entries = [replace(entry, suspicious=number in odd) for number, entry in enumerate(entries)]
    limits = profile.limits
    options = FitOptions(**{**profile.options, "roi": limits.roi})
    fitted = FittedLimits(options, entries, limits.scheme, limits.removed, profile.map_range, limits.roi)
    return replace(
        profile,
        memory=with_references(memory, [entry.fingerprint for entry in entries if entry.images]),
        limits=fitted.limits,
        good=tuple(entries),
        known_defects=tuple(scorer.score_defect(defect, memory) for defect in profile.known_defects),
        false_alarms=fitted.false_alarms,
        guarantee=fitted.guarantee,
        notes=(*notes, *fitted.notes),
        created=now(),
        version=blemish.__version__,
        path=None,
    )
