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
from blemish.datasets.masks import (
    EMPTY,
    MaskError,
    examine_masks,
    image_size,
    is_marked,
    read_mask,
    remark_sentences,
)
from blemish.datasets.reading import empty_message, read_split
from blemish.datasets.samples import MASK_OF_NORMAL, Dataset, Issue, Sample
from blemish.errors import ImageError, UsageError

SPLITS = ("train", "validation", "test")


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
    """Count the samples of a data set, and read the header of every picture and all masks.

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
        notes += dataset.notes if dataset or split == "test" else ()
        if not dataset and split != "test":
            if split in entry.counts:
                notes.append(f"no pictures of the split {split}; zero-shot scoring needs none")
            continue
        of_split = _tallies(entry, dataset)
        tallies += of_split
        differences += _differences(entry, dataset, of_split)
        damage, remarks = _damage(dataset, count_one)
        issues += damage
        notes += remarks
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


def _damage(dataset: Dataset, count_one: Callable[[], None]) -> tuple[list[Issue], list[str]]:
    """Return pictures that cannot be read and masks that cannot be used; and notes on what masks mark."""
    issues = []
    remarks: dict[str, dict[Path, None]] = {}
    for sample in dataset:
        try:
            size = image_size(sample.path)
        except ImageError:
            issues.append(Issue("unreadable picture", sample.path, sample.category))
            count_one()
            continue
        try:
            for path, remark in examine_masks(sample.masks or (), sample.path, size)[1]:
                if remark == EMPTY:
                    issues.append(Issue("mask of an anomalous picture without any mark", path, sample.category))
                else:
                    remarks.setdefault(remark, {})[path] = None
        except MaskError:
            for mask in sample.masks or ():
                try:
                    read_mask(mask, size, sample.path)
                except MaskError as error:
                    issues.append(Issue(error.kind, mask, sample.category))
        count_one()
    for path, what in dataset.others.items():
        if what == MASK_OF_NORMAL:
            with contextlib.suppress(ImageError):
                if is_marked(path):
                    issues.append(Issue("mask of a normal picture that marks something", path))
    return issues, remark_sentences(remarks)
