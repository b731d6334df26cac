"""The table of data sets, and reading one of them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from blemish.datasets.entry import DatasetInfo, Layout
from blemish.datasets.files import Found, folders_in, plain
from blemish.datasets.generic import GENERIC
from blemish.datasets.industrial import INDUSTRIAL
from blemish.datasets.medical import MEDICAL
from blemish.datasets.samples import Dataset
from blemish.datasets.surfaces import SURFACES
from blemish.errors import UsageError

DATASETS: dict[str, DatasetInfo] = {entry.name: entry for entry in (*INDUSTRIAL, *SURFACES, *MEDICAL, *GENERIC)}


def names() -> list[str]:
    """The names of all data sets, in the order of the table."""
    return list(DATASETS)


def info(name: str) -> DatasetInfo:
    """What is known of a data set, by its name or what else it is called. Raises UsageError for an unknown name."""
    found = _ALIASES.get(plain(name))
    if found is None:
        close = difflib.get_close_matches(name.lower(), DATASETS, n=3, cutoff=0.5)
        hint = f" (did you mean {' or '.join(close)}?)" if close else ""
        raise UsageError(f"there is no data set called {name!r}{hint}; they are {', '.join(DATASETS)}")
    return found


def read(
    name: str,
    path: str | os.PathLike[str],
    *,
    categories: Sequence[str] | None = None,
    split: str = "test",
) -> Dataset:
    """Find the samples of a data set. No picture is opened, except masks where they alone tell the label.

    Args:
        name: One of `names()`, or an alias.
        path: The folder that the data set was unpacked into (or one above it), or a list for `csv` and `meta`.
        categories: Only these, in the data set's order; None = all that are there.
        split: "test" (what the papers score, and train on), "train" or "validation".

    Raises:
        UsageError: unknown names, nothing there, another layout, no such split.
    """
    entry, root = info(name), Path(path).expanduser()
    found = load(entry, root, split)
    if not found:
        raise UsageError(nothing(entry, found))
    if categories is None:
        return found
    wanted = [_category(one, found, entry) for one in categories]
    return replace(
        found,
        samples=tuple(sample for sample in found if sample.category in wanted),
        issues=tuple(issue for issue in found.issues if issue.category in wanted),
    )


def nothing(entry: DatasetInfo, found: Dataset) -> str:
    """What to say of a data set without a picture: what is wrong, and what was expected."""
    why = "".join(f" ({reason})" for reason in [*found.notes, *map(str, found.issues[:1])])
    return f"{found.root} has no pictures of {entry.title} in the split {found.split!r}{why}; expected {found.layout}"


def load(entry: DatasetInfo, root: Path, split: str) -> Dataset:
    """All that is there of a split, which may be nothing. Raises UsageError as `read` does."""
    if not root.exists():
        raise UsageError(f"there is no file or folder {root}; check the path")
    if root.name in ("", ".."):
        root = root.resolve()  # the folder's name may become the category's
    layout, place, found = _find(entry, root, split)
    samples = [
        replace(s, object_name=entry.object_names.get(s.category, s.object_name or s.category)) for s in found.samples
    ]
    if found.strangers:
        found.notes.append(f"folders that are no categories of {entry.title}: {', '.join(found.strangers)}")
    notes = tuple(dict.fromkeys(found.notes))
    return Dataset(entry.name, place, split, tuple(samples), layout.text, tuple(found.issues), notes)


def _find(entry: DatasetInfo, root: Path, split: str) -> tuple[Layout, Path, Found]:
    """The first layout that fits the root, else the folder in it: the only one that fits, or the one named so."""
    here = _fitting(entry, root, split)
    if here is not None and here[2].samples:
        return here
    fits = [_fitting(entry, folder, split) for folder in folders_in(root)]
    below = [fit for fit in fits if fit is not None and fit[2].samples]
    called = {plain(word) for word in (entry.name, entry.title, *entry.aliases)}
    by_name = [fit for fit in below if plain(fit[1].name) in called]  # several sets may lie side by side
    if len(below) == 1 or len(by_name) == 1:
        return (by_name or below)[0]
    if here is not None:
        return here
    if below:
        several = ", ".join(fit[1].name for fit in below[:8])
        raise UsageError(f"{root} has several folders laid out like {entry.title}: give one of {several}")
    expected = "; or ".join(layout.text for layout in entry.layouts)
    held = ", ".join(path.name for path in folders_in(root)[:8]) or "no folders"
    raise UsageError(f"{root} is not laid out like {entry.title}: expected {expected}; found {held}")


def _fitting(entry: DatasetInfo, place: Path, split: str) -> tuple[Layout, Path, Found] | None:
    """The first layout with pictures of the split, else the first that fits at all."""
    empty = None
    for layout in entry.layouts:
        found = layout.read(place, split, entry.categories)
        if found is not None and found.samples:
            return layout, place, found
        if found is not None and empty is None:
            empty = layout, place, found
    return empty


def _category(given: str, found: Dataset, entry: DatasetInfo) -> str:
    for one in found.categories:
        if plain(one) == plain(given):
            return one
    raise UsageError(f"{entry.title} has no category {given!r} there; it has {', '.join(found.categories)}")


_ALIASES = {plain(word): entry for entry in DATASETS.values() for word in (*entry.aliases, entry.title, entry.name)}
