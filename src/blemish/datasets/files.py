"""Folders, and which mask belongs to which picture: by name, never by position unless no name fits."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from blemish.datasets.samples import Issue, Sample
from blemish.errors import UsageError
from blemish.image_io import SUFFIXES, natural_key

_MASK_WORD = re.compile(r"[_-](mask|label|gt|segmentation|seg|ground_?truth|anno)s?$", re.IGNORECASE)


@dataclass
class Found:
    """What a reader found."""

    samples: list[Sample] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    """Folders that look like categories of the layout, but are none of the data set's."""


Reader = Callable[[Path, str, Sequence[str]], Found | None]
"""Takes the root, the split and the known categories (none known: all are taken); None = not this layout."""


@dataclass(frozen=True)
class Pairs:
    """The masks of each picture that has some, and the masks of none."""

    masks: Mapping[Path, tuple[Path, ...]]
    unused: tuple[Path, ...]
    by_position: bool = False


def folders_in(folder: Path) -> list[Path]:
    """Its visible folders in natural order; none where there is no such folder."""
    return [path for path in _entries(folder) if path.is_dir()]


def pictures_in(folder: Path, extra: Iterable[str] = ()) -> list[Path]:
    """Its picture files in natural order, and those with one of the `extra` suffixes (lower case, with the dot)."""
    suffixes = SUFFIXES.union(extra)
    return [path for path in _entries(folder) if path.suffix.lower() in suffixes and not path.is_dir()]


def pair(pictures: Sequence[Path], masks: Sequence[Path]) -> Pairs:
    """Pair masks with pictures.

    A mask is its picture's if it has the same stem, or the same after a word for masks ("_mask", "_label", "_GT",
    "_Segmentation") is taken off. A folder among the masks is as many parts as it has files. Where no name fits at all
    and there are equally many, pairs are made by position in sorted order, as the papers' scripts do.
    """
    stems: dict[str, list[Path]] = {}
    for path in pictures:
        stems.setdefault(path.stem, []).append(path)
    found: dict[Path, tuple[Path, ...]] = {}
    unused: list[Path] = []
    for mask in masks:
        name = mask.name if mask.is_dir() else mask.stem
        owners = stems.get(name) or stems.get(_MASK_WORD.sub("", name)) or []
        for owner in owners:
            found[owner] = (*found.get(owner, ()), *_parts(mask))
        if not owners:
            unused.append(mask)
    if pictures and not found and len(pictures) == len(masks):
        by_name = zip(sorted(pictures), sorted(masks), strict=True)
        return Pairs({picture: _parts(mask) for picture, mask in by_name}, (), by_position=True)
    return Pairs(found, tuple(unused))


def mask_files(folder: Path) -> list[Path]:
    """The masks in a folder: its pictures, its polygon files, and its folders of several masks each."""
    return sorted([*pictures_in(folder, (".json",)), *folders_in(folder)])


def known_as(folders: Sequence[Path], known: Sequence[str]) -> tuple[dict[Path, str], list[str]]:
    """Which category each folder is, "electrical_commutators" being "electrical commutators", and the strangers."""
    if not known:
        return {folder: folder.name for folder in folders}, []
    if len(known) == 1 and len(folders) == 1:
        return {folders[0]: known[0]}, []
    names = {plain(name): name for name in known}
    matched = {folder: names[plain(folder.name)] for folder in folders if plain(folder.name) in names}
    order = {name: number for number, name in enumerate(known)}
    return (
        dict(sorted(matched.items(), key=lambda item: order[item[1]])),
        [folder.name for folder in folders if folder not in matched],
    )


def by_position_note(folder: Path) -> str:
    """What to say of pairs that were made by position."""
    return f"no mask is named after its picture in {folder}: paired by position in sorted order, as the papers do"


def _parts(mask: Path) -> tuple[Path, ...]:
    return tuple(pictures_in(mask)) if mask.is_dir() else (mask,)


def plain(name: str) -> str:
    """A name with case, blanks, dashes and underscores told apart no more."""
    return re.sub(r"[\W_]+", "", name).casefold()


def _entries(folder: Path) -> list[Path]:
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(f"{folder} cannot be listed ({error.strerror}); check its permissions") from error
    return [folder / name for name in sorted(names, key=natural_key)]
