"""Is a data set on the disk what was published? Counted, with what is missing, unpaired or damaged by name."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from blemish.datasets.catalog import Counts, DatasetInfo, info
from blemish.datasets.masks import image_size, mask_size
from blemish.datasets.reading import empty_message, read_split
from blemish.datasets.samples import Dataset, Issue, Sample
from blemish.errors import ImageError, UsageError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Tally:
    """What one category (or, with the category "", a whole split) has."""

    split: str
    category: str
    normal: int
    anomalous: int
    masked: int
    """Anomalous pictures with a mask."""
    published: Counts | None

    @property
    def differs(self) -> bool:
        """Whether a published number is another one."""
        if self.published is None:
            return False
        pairs = ((self.normal, self.published.normal), (self.anomalous, self.published.anomalous))
        return any(known is not None and known != found for found, known in pairs)


@dataclass(frozen=True)
class Report:
    """What `check` found. `differences` and `issues` are failures, `notes` are not."""

    name: str
    title: str
    root: Path
    layout: str
    tallies: tuple[Tally, ...]
    differences: tuple[str, ...]
    issues: tuple[Issue, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Nothing differs, and nothing is missing, unpaired or damaged, as far as it is known."""
        return not (self.differences or self.issues)


def check(name: str, path: str | os.PathLike[str], *, progress: Callable[[int, int], object] | None = None) -> Report:
    """Count a data set and look at every header.

    Args:
        name: One of `names()`, or an alias.
        path: Where it is.
        progress: Called with (pictures looked at, pictures in all) after each.

    Raises:
        UsageError: unknown name, nothing there, or another layout.
    """
    entry, root = info(name), Path(path).expanduser()
    splits = {split: read_split(entry, root, split) for split in SPLITS}
    if not any(splits.values()):
        raise UsageError(empty_message(entry, splits["test"]))
    done, total = itertools.count(1), sum(map(len, splits.values()))

    def look() -> None:
        if progress is not None:
            progress(next(done), total)

    tallies: list[Tally] = []
    differences: list[str] = []
    issues: list[Issue] = []
    notes: list[str] = []
    for split, found in splits.items():
        issues += found.issues
        notes += found.notes
        if not found and split != "test":
            if split in entry.counts:
                notes.append(f"no pictures of the split {split}; zero-shot scoring needs none")
            continue
        of_split = _tallies(entry, found)
        tallies += of_split
        differences += _differences(entry, found, of_split)
        issues += _damage(found, look)
    layout = splits["test"].layout
    if any(one.assumed for one in entry.layouts if one.text == layout):
        notes.append("this layout is assumed from descriptions: what does not fit may be our mistake")
    if not entry.counts and entry.categories:
        notes.append("no published counts are known to compare with")
    unique = tuple(dict.fromkeys(issues))
    return Report(
        entry.name,
        entry.title,
        splits["test"].root,
        layout,
        tuple(tallies),
        tuple(differences),
        unique,
        tuple(dict.fromkeys(notes)),
    )


def _tallies(entry: DatasetInfo, found: Dataset) -> list[Tally]:
    """One per category, and the whole split last where there are several."""
    groups: dict[str, list[Sample]] = {}
    for sample in found:
        groups.setdefault(sample.category, []).append(sample)
    per_category = entry.test_counts if found.split == "test" else {}
    whole = entry.counts.get(found.split)
    if len(groups) == 1 and len(entry.categories) <= 1:
        (category, samples), *_ = groups.items()
        return [_tally(found.split, category, samples, whole)]
    result = [_tally(found.split, name, samples, per_category.get(name)) for name, samples in groups.items()]
    return [*result, _tally(found.split, "", found.samples, whole)]


def _tally(split: str, category: str, samples: Sequence[Sample], published: Counts | None) -> Tally:
    anomalous = sum(sample.label for sample in samples)
    masked = sum(bool(sample.label and sample.masks) for sample in samples)
    return Tally(split, category, len(samples) - anomalous, anomalous, masked, published)


def _differences(entry: DatasetInfo, found: Dataset, tallies: Sequence[Tally]) -> list[str]:
    missing = [name for name in entry.categories if name not in found.categories]
    extra = [name for name in found.categories if entry.categories and name not in entry.categories]
    sentences = [f"{found.split}: the category {name} is missing" for name in missing]
    sentences += [f"{found.split}: {name} is no category of {entry.title}" for name in extra]
    for tally in tallies:
        if tally.published is None or (not tally.category and missing):
            continue  # a sum without all its parts says nothing new
        where = f"{tally.split}, {tally.category}" if tally.category else tally.split
        for kind, count, known in (
            ("normal", tally.normal, tally.published.normal),
            ("anomalous", tally.anomalous, tally.published.anomalous),
        ):
            if known is not None and count != known:
                less = f"{known - count:,} missing" if count < known else f"{count - known:,} more"
                sentences.append(f"{where}: {count:,} {kind}, {known:,} published ({less})")
    if found.split == "test" and entry.pixel_labels and entry.categories and not found.pixel_labels:
        sentences.append("test: there are no masks")
    return sentences


def _damage(found: Dataset, look: Callable[[], None]) -> list[Issue]:
    """Pictures and masks whose headers cannot be read, and masks of another size than their pictures."""
    issues = []
    for sample in found:
        try:
            size = image_size(sample.path)
        except ImageError:
            issues.append(Issue("unreadable picture", sample.path, sample.category))
            size = None
        for mask in sample.masks or ():
            try:
                other = mask_size(mask)
            except ImageError:
                issues.append(Issue("unreadable mask", mask, sample.category))
                continue
            if size is not None and other is not None and other != size:
                kind = f"mask of {other[0]} x {other[1]} for a picture of {size[0]} x {size[1]} pixels"
                issues.append(Issue(kind, mask, sample.category))
        look()
    return issues
