"""The catalogue of data sets: what is known of each before it is on the disk, from the TOML files beside this module.

A file holds `[datasets.NAME]` tables with the fields of `DatasetInfo`, and `[layouts.NAME]` tables with the fields of
`Layout`: `reader` names a function of `READERS`, `options` are its keyword arguments. Data sets refer to layouts by
name. Counts are pairs of normal and anomalous pictures.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from typing import Any, Literal

from blemish.datasets.folders import label_folders, mask_folders, split_folders
from blemish.datasets.lists import csv_list, meta_json, numbered_list, real_iad
from blemish.datasets.own import own_folders
from blemish.datasets.pairing import normalize_name
from blemish.datasets.samples import Reader, ReadResult
from blemish.errors import UsageError, suggest

READERS: dict[str, Callable[..., ReadResult | None]] = {
    "csv_list": csv_list,
    "label_folders": label_folders,
    "mask_folders": mask_folders,
    "meta_json": meta_json,
    "numbered_list": numbered_list,
    "own_folders": own_folders,
    "real_iad": real_iad,
    "split_folders": split_folders,
}

_FILES = ("industrial.toml", "medical.toml", "own.toml")


@dataclass(frozen=True)
class Layout:
    """One arrangement in which the files of a data set are distributed."""

    text: str
    """Description for people."""
    read: Reader = field(repr=False, compare=False)
    assumed: bool = False
    """Whether the layout was inferred from descriptions only, so that a mismatch may be an error of the catalogue."""


@dataclass(frozen=True)
class Counts:
    """Published numbers of pictures."""

    normal: int
    anomalous: int


@dataclass(frozen=True)
class DatasetInfo:
    """A data set in the catalogue."""

    name: str
    """Name in commands and functions."""
    title: str
    """Name in papers."""
    domain: Literal["industrial", "medical", "any"]
    modality: str
    """Kind of pictures."""
    image_labels: bool
    """Whether there are both normal and anomalous pictures."""
    pixel_labels: bool
    """Whether there are masks."""
    layouts: tuple[Layout, ...]
    """Possible layouts, tried in this order."""
    licence: str | None = None
    """None: unknown; ask the owner."""
    home_page: str | None = None
    categories: tuple[str, ...] = ()
    """Empty: any folder is a category."""
    object_names: Mapping[str, str] = field(default_factory=dict)
    """Object name that the papers use in prompts, by category; the category's own name if it is not listed."""
    counts: Mapping[str, Counts] = field(default_factory=dict)
    """Published counts by split."""
    test_counts: Mapping[str, Counts] = field(default_factory=dict)
    """Published counts of the test split by category."""
    counts_source: str = ""
    """Origin of the counts."""
    use: str = ""
    """How papers on zero-shot detection use it."""
    aliases: tuple[str, ...] = ()
    """Other names that `info` accepts."""
    notes: str = ""

    @property
    def assumed(self) -> bool:
        """Whether one of its layouts is assumed."""
        return any(layout.assumed for layout in self.layouts)


def names() -> list[str]:
    """Return the names of all data sets, in the order of the catalogue."""
    return list(DATASETS)


def info(name: str) -> DatasetInfo:
    """Return the catalogue's entry of a data set, by its name, title or alias.

    Raises:
        UsageError: The name is unknown.
    """
    entry = _BY_ALIAS.get(normalize_name(name))
    if entry is None:
        raise UsageError(
            f"there is no data set called {name!r}{suggest(name.lower(), DATASETS)}; they are {', '.join(DATASETS)}."
        )
    return entry


def _load() -> dict[str, DatasetInfo]:
    folder = resources.files(__name__)
    contents = [tomllib.loads((folder / name).read_text(encoding="utf-8")) for name in _FILES]
    layouts = {name: _layout(**facts) for content in contents for name, facts in content["layouts"].items()}
    return {name: _dataset(name, facts, layouts) for content in contents for name, facts in content["datasets"].items()}


def _layout(text: str, reader: str, options: Mapping[str, Any] | None = None, assumed: bool = False) -> Layout:
    return Layout(text, partial(READERS[reader], **options) if options else READERS[reader], assumed)


def _dataset(name: str, facts: Mapping[str, Any], layouts: Mapping[str, Layout]) -> DatasetInfo:
    test_counts = {category: Counts(*pair) for category, pair in facts.get("test_counts", {}).items()}
    converted = {
        "layouts": tuple(layouts[layout] for layout in facts["layouts"]),
        "categories": tuple(facts.get("categories", test_counts)),
        "counts": {split: Counts(*pair) for split, pair in facts.get("counts", {}).items()},
        "test_counts": test_counts,
        "aliases": tuple(facts.get("aliases", ())),
    }
    return DatasetInfo(name=name, **{**facts, **converted})


DATASETS: dict[str, DatasetInfo] = _load()

_BY_ALIAS = {
    normalize_name(word): entry for entry in DATASETS.values() for word in (*entry.aliases, entry.title, entry.name)
}
