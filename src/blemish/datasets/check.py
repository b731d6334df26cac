"""Check a data set on the disk: compare its counts with the published ones, and list missing and damaged files."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from blemish.datasets.account import Account, account
from blemish.datasets.catalog import Counts, DatasetInfo, info
from blemish.datasets.masks import image_size, is_marked, mask_size
from blemish.datasets.reading import empty_message, read_split
from blemish.datasets.samples import MASK_OF_NORMAL, Dataset, Issue, Sample
from blemish.errors import ImageError, UsageError

SPLITS = ("train", "validation", "test")
NEARLY_FULL = 0.95
"""Share of a picture above which a mask is told as nearly full: it may be inverted."""


@dataclass(frozen=True)
class Tally:
    """Counts of one category, or of a whole split if `category` is ""."""

    split: str
    category: str
    normal: int
    anomalous: int
    masked: int
    """Number of anomalous pictures with a mask."""
    published: Counts | None

    @property
    def differs(self) -> bool:
        """Whether a published count differs."""
        return self.published is not None and self.published != Counts(self.normal, self.anomalous)


@dataclass(frozen=True)
class Report:
    """Result of `check`. `differences` and `issues` are failures, `notes` are not."""

    name: str
    title: str
    root: Path
    layout: str
    tallies: tuple[Tally, ...]
    differences: tuple[str, ...]
    issues: tuple[Issue, ...]
    notes: tuple[str, ...]
    account: Account

    @property
    def ok(self) -> bool:
        """Whether no count differs and no file is missing, unpaired or damaged."""
        return not (self.differences or self.issues)


def check(
    name: str, path: str | os.PathLike[str], *, on_progress: Callable[[int, int], object] | None = None
) -> Report:
    """Count the samples of a data set and read the header of every file.

    Args:
        name: One of `names()`, or an alias.
        path: Folder or list of the data set, as for `read`.
        on_progress: Called with (checked pictures, all pictures) after each.

    Raises:
        UsageError: The name is unknown, nothing is there, or the layout does not match.
    """
    entry, root = info(name), Path(path).expanduser()
    splits = {split: read_split(entry, root, split) for split in SPLITS}
    if not any(splits.values()):
        raise UsageError(empty_message(entry, splits["test"]))
    done, total = itertools.count(1), sum(map(len, splits.values()))

    def count_one() -> None:
        if on_progress is not None:
            on_progress(next(done), total)

    tallies: list[Tally] = []
    differences: list[str] = []
    issues: list[Issue] = []
    notes: list[str] = []
    for split, dataset in splits.items():
        issues += dataset.issues
        notes += dataset.notes
        if not dataset and split != "test":
            if split in entry.counts:
                notes.append(f"no pictures of the split {split}; zero-shot scoring needs none")
            continue
        of_split = _tallies(entry, dataset)
        tallies += of_split
        differences += _differences(entry, dataset, of_split)
        issues += _damage(dataset, count_one)
    layout = splits["test"].layout
    if any(option.assumed for option in entry.layouts if option.text == layout):
        notes.append("this layout is assumed from descriptions, so a mismatch may be an error of the catalogue")
    if not entry.counts and entry.categories:
        notes.append("there are no published counts to compare with")
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
        account(root, splits.values()),
    )


def _tallies(entry: DatasetInfo, dataset: Dataset) -> list[Tally]:
    """Return the counts per category, followed by those of the whole split if there are several categories."""
    groups: dict[str, list[Sample]] = {}
    for sample in dataset:
        groups.setdefault(sample.category, []).append(sample)
    per_category = entry.test_counts if dataset.split == "test" else {}
    whole = entry.counts.get(dataset.split)
    if len(groups) == 1 and len(entry.categories) <= 1:
        (category, samples), *_ = groups.items()
        return [_tally(dataset.split, category, samples, whole)]
    result = [_tally(dataset.split, name, samples, per_category.get(name)) for name, samples in groups.items()]
    return [*result, _tally(dataset.split, "", dataset.samples, whole)]


def _tally(split: str, category: str, samples: Sequence[Sample], published: Counts | None) -> Tally:
    anomalous = sum(sample.label for sample in samples)
    masked = sum(bool(sample.label and sample.masks) for sample in samples)
    return Tally(split, category, len(samples) - anomalous, anomalous, masked, published)


def _differences(entry: DatasetInfo, dataset: Dataset, tallies: Sequence[Tally]) -> list[str]:
    missing = [name for name in entry.categories if name not in dataset.categories]
    extra = [name for name in dataset.categories if entry.categories and name not in entry.categories]
    sentences = [f"{dataset.split}: the category {name} is missing" for name in missing]
    sentences += [f"{dataset.split}: {name} is not a category of {entry.title}" for name in extra]
    for tally in tallies:
        if tally.published is None or (not tally.category and missing):
            continue  # a sum without all categories differs in any case
        where = f"{tally.split}, {tally.category}" if tally.category else tally.split
        for kind, count, published in (
            ("normal", tally.normal, tally.published.normal),
            ("anomalous", tally.anomalous, tally.published.anomalous),
        ):
            if count != published:
                change = f"{published - count:,} missing" if count < published else f"{count - published:,} more"
                sentences.append(f"{where}: {count:,} {kind}, {published:,} published ({change})")
    if dataset.split == "test" and entry.pixel_labels and entry.categories and not dataset.pixel_labels:
        sentences.append("test: there are no masks")
    return sentences


def _damage(dataset: Dataset, count_one: Callable[[], None]) -> list[Issue]:
    """Return pictures and masks that cannot be read or do not fit each other, and masks of nothing or everything."""
    issues = []
    for sample in dataset:
        try:
            size = image_size(sample.path)
        except ImageError:
            issues.append(Issue("unreadable picture", sample.path, sample.category))
            size = None
        wrong: list[Issue] = []
        for mask in sample.masks or ():
            try:
                own_size = mask_size(mask)
            except ImageError:
                wrong.append(Issue("unreadable mask", mask, sample.category))
                continue
            if size is not None and own_size is not None and own_size != size:
                kind = f"mask of {own_size[0]} x {own_size[1]} for a picture of {size[0]} x {size[1]} pixels"
                wrong.append(Issue(kind, mask, sample.category))
        if sample.masks and size is not None and not wrong:
            wrong += _content(sample, sample.masks, size)
        issues += wrong
        count_one()
    for path, what in dataset.others.items():
        if what == MASK_OF_NORMAL:
            with contextlib.suppress(ImageError):
                if is_marked(path):
                    issues.append(Issue("mask of a normal picture that marks something", path))
    return issues


def _content(sample: Sample, masks: Sequence[Path], size: tuple[int, int]) -> list[Issue]:
    """Return what is wrong with the marked area of a picture."""
    try:
        marked = sample.mask(size)
    except ImageError as error:
        return [Issue("unreadable mask", Path(error.path or masks[0]), sample.category)]
    share = float(marked.mean()) if marked is not None else 0.5
    kind = "mask that marks nothing" if share == 0 else "mask that marks everything" if share == 1 else ""
    kind = kind or (f"mask that marks more than {NEARLY_FULL:.0%}" if share > NEARLY_FULL else "")
    return [Issue(kind, masks[0], sample.category)] if kind else []
