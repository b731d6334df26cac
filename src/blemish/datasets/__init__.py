"""Data sets, read as they are distributed: one table of what exists, few readers for all layouts.

    from blemish.datasets import read

    for sample in read("mvtec", "data/mvtec_anomaly_detection", categories=["bottle"]):
        sample.picture(), sample.mask(), sample.label, sample.object

Pictures and masks are opened when they are asked for. Masks are paired by name; what found no partner is in `issues`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from blemish.datasets.entry import Counts, DatasetInfo, Layout
from blemish.datasets.files import Found, folders_in
from blemish.datasets.generic import GENERIC
from blemish.datasets.industrial import INDUSTRIAL
from blemish.datasets.samples import Dataset, Issue, Sample
from blemish.errors import UsageError

__all__ = ["DATASETS", "Counts", "Dataset", "DatasetInfo", "Issue", "Layout", "Sample", "info", "names", "read"]

DATASETS: dict[str, DatasetInfo] = {entry.name: entry for entry in (*INDUSTRIAL, *GENERIC)}


def names() -> list[str]:
    """The names of all data sets, in the order of the table."""
    return list(DATASETS)


def info(name: str) -> DatasetInfo:
    """What is known of a data set, by its name or what else it is called. Raises UsageError for an unknown name."""
    found = _ALIASES.get(_plain(name))
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
    if not root.exists():
        raise UsageError(f"there is no file or folder {root}; check the path")
    layout, place, found = _find(entry, root, split)
    samples = [replace(s, object=entry.objects.get(s.category, s.object or s.category)) for s in found.samples]
    present = list(dict.fromkeys(sample.category for sample in samples))
    if not samples:
        raise UsageError(f"{entry.title} in {root} has no pictures in the split {split!r}; its layout is {layout.text}")
    if categories is not None:
        wanted = [_category(one, present, entry) for one in categories]
        samples = [sample for sample in samples if sample.category in wanted]
        found.issues = [issue for issue in found.issues if issue.category in wanted]
    if found.strangers:
        found.notes.append(f"folders that are no categories of {entry.title}: {', '.join(found.strangers)}")
    return Dataset(
        entry.name, place, split, tuple(samples), layout.text, tuple(found.issues), tuple(dict.fromkeys(found.notes))
    )


def _find(entry: DatasetInfo, root: Path, split: str) -> tuple[Layout, Path, Found]:
    """The first layout that fits the root, or the only folder in it that one fits."""
    for place in [root, *folders_in(root)]:
        for layout in entry.layouts:
            found = layout.read(place, split, entry.categories)
            if found is not None and (found.samples or found.issues or place == root):
                return layout, place, found
    expected = "; or ".join(layout.text for layout in entry.layouts)
    held = ", ".join(path.name for path in folders_in(root)[:8]) or "no folders"
    raise UsageError(f"{root} is not laid out like {entry.title}: expected {expected}; found {held}")


def _category(given: str, present: Sequence[str], entry: DatasetInfo) -> str:
    for one in present:
        if _plain(one) == _plain(given):
            return one
    raise UsageError(f"{entry.title} has no category {given!r} there; it has {', '.join(present)}")


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


_ALIASES = {_plain(word): entry for entry in DATASETS.values() for word in (*entry.aliases, entry.title, entry.name)}
