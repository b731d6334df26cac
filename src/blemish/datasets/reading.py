"""Read a data set: detect its layout below a folder and collect its samples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from blemish.datasets.catalog import DatasetInfo, Layout, info
from blemish.datasets.pairing import folders_in, normalize_name
from blemish.datasets.samples import Dataset, ReadResult
from blemish.errors import UsageError


def read(
    name: str,
    path: str | os.PathLike[str],
    *,
    categories: Sequence[str] | None = None,
    split: str = "test",
) -> Dataset:
    """Collect the samples of a data set. No picture is opened, except masks if only they determine the labels.

    Args:
        name: One of `names()`, or an alias.
        path: The folder that the data set was unpacked into (or the one above it), or a list for `csv` and `meta`.
        categories: Categories to read, returned in the data set's order; None reads all.
        split: "test" (which the papers score, and also train on), "train" or "validation".

    Raises:
        UsageError: A name is unknown, nothing is there, the layout does not match, or there is no such split.
    """
    entry, root = info(name), Path(path).expanduser()
    dataset = read_split(entry, root, split)
    if not dataset:
        raise UsageError(empty_message(entry, dataset))
    if categories is None:
        return dataset
    selected = [_category(category, dataset, entry) for category in categories]
    return replace(
        dataset,
        samples=tuple(sample for sample in dataset if sample.category in selected),
        issues=tuple(issue for issue in dataset.issues if issue.category in selected),
    )


def empty_message(entry: DatasetInfo, dataset: Dataset) -> str:
    """Return the error message for a split without samples."""
    why = "".join(f" ({reason})" for reason in [*dataset.notes[:3], *map(str, dataset.issues[:1])])
    return (
        f"{dataset.root} has no pictures of {entry.title} in the split {dataset.split!r}{why}; "
        f"expected {dataset.layout}."
    )


def read_split(entry: DatasetInfo, root: Path, split: str) -> Dataset:
    """Collect all samples of a split, possibly none. Raises UsageError like `read`."""
    if not root.exists():
        raise UsageError(f"there is no file or folder {root}; check the path.")
    if root.name in ("", ".."):
        root = root.resolve()  # the folder's name may become the category's
    layout, place, result = _detect_layout(entry, root, split)
    samples = [
        replace(s, object_name=entry.object_names.get(s.category, s.object_name or s.category)) for s in result.samples
    ]
    if result.unknown_folders:
        result.notes.append(f"folders that are no categories of {entry.title}: {', '.join(result.unknown_folders)}")
    notes = tuple(dict.fromkeys(result.notes))
    return Dataset(entry.name, place, split, tuple(samples), layout.text, tuple(result.issues), notes, result.others)


def _detect_layout(entry: DatasetInfo, root: Path, split: str) -> tuple[Layout, Path, ReadResult]:
    """Return the first layout that fits the root, else that of its only folder that fits or bears the set's name."""
    here = _first_match(entry, root, split)
    if here is not None and (here[2].samples or here[2].complete):
        return here
    matches = [_first_match(entry, folder, split) for folder in folders_in(root)]
    below = [match for match in matches if match is not None and match[2].samples]
    known = {normalize_name(word) for word in (entry.name, entry.title, *entry.aliases)}
    by_name = [match for match in below if normalize_name(match[1].name) in known]  # other sets may lie beside it
    if len(below) == 1 or len(by_name) == 1:
        return (by_name or below)[0]
    if here is not None:
        return here
    if below:
        several = ", ".join(match[1].name for match in below[:8])
        raise UsageError(f"{root} has several folders laid out like {entry.title}: give one of {several}.")
    expected = "; or ".join(layout.text for layout in entry.layouts)
    folders = ", ".join(path.name for path in folders_in(root)[:8]) or "no folders"
    raise UsageError(f"{root} is not laid out like {entry.title}: expected {expected}; found {folders}.")


def _first_match(entry: DatasetInfo, place: Path, split: str) -> tuple[Layout, Path, ReadResult] | None:
    """Return the first layout with pictures of the split, else the first that fits at all."""
    empty = None
    for layout in entry.layouts:
        result = layout.read(place, split, entry.categories)
        if result is not None and result.samples:
            return layout, place, result
        if result is not None and empty is None:
            empty = layout, place, result
    return empty


def _category(given: str, dataset: Dataset, entry: DatasetInfo) -> str:
    for category in dataset.categories:
        if normalize_name(category) == normalize_name(given):
            return category
    raise UsageError(f"{entry.title} has no category {given!r} there; it has {', '.join(dataset.categories)}.")
