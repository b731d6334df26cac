"""List folders, and pair masks with pictures: by name, and by position only if no name matches."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from blemish._found import SUFFIXES, _natural
from blemish.errors import UsageError

_MASK_WORD = re.compile(r"[_-](mask|label|gt|segmentation|seg|ground_?truth|anno)s?$", re.IGNORECASE)


@dataclass(frozen=True)
class Pairs:
    """Masks by picture, and the masks that belong to no picture."""

    masks: Mapping[Path, tuple[Path, ...]]
    unused: tuple[Path, ...]
    by_position: bool = False


def folders_in(folder: Path) -> list[Path]:
    """Return the visible folders in a folder in natural order; none if it does not exist."""
    return [path for path in _entries(folder) if path.is_dir()]


def images_in(folder: Path, extra: Iterable[str] = ()) -> list[Path]:
    """Return the picture files in a folder in natural order.

    Args:
        folder: May be missing.
        extra: Further suffixes to include (lower case, with the dot).
    """
    suffixes = SUFFIXES.union(extra)
    return [path for path in _entries(folder) if path.suffix.lower() in suffixes and not path.is_dir()]


def masks_in(folder: Path) -> list[Path]:
    """Return the masks in a folder: its pictures, its polygon files, and its folders of several masks each."""
    return sorted([*images_in(folder, (".json",)), *folders_in(folder)])


def pair(images: Sequence[Path], masks: Sequence[Path]) -> Pairs:
    """Pair masks with pictures.

    A mask belongs to the picture of the same stem, before or after a word for masks ("_mask", "_label", "_GT",
    "_Segmentation") is removed from the mask's. A folder among the masks holds several masks of one picture. If no
    name matches at all and the counts are equal, pairs are made by position in sorted order, as in the papers'
    scripts.
    """
    stems: dict[str, list[Path]] = {}
    for path in images:
        stems.setdefault(path.stem, []).append(path)
    paired: dict[Path, tuple[Path, ...]] = {}
    unused: list[Path] = []
    for mask in masks:
        name = mask.name if mask.is_dir() else mask.stem
        owners = stems.get(name) or stems.get(_MASK_WORD.sub("", name)) or []
        for owner in owners:
            paired[owner] = (*paired.get(owner, ()), *_parts(mask))
        if not owners:
            unused.append(mask)
    if images and not paired and len(images) == len(masks):
        by_position = zip(sorted(images), sorted(masks), strict=True)
        return Pairs({image: _parts(mask) for image, mask in by_position}, (), by_position=True)
    return Pairs(paired, tuple(unused))


def by_position_note(folder: Path) -> str:
    """Return the note on pairs that were made by position."""
    return f"no mask is named after its picture in {folder}: paired by position in sorted order, as the papers do"


def match_categories(folders: Sequence[Path], categories: Sequence[str]) -> tuple[dict[Path, str], list[str]]:
    """Return the category of each folder, in the order of `categories`, and the names of folders that match none.

    Names match whatever their spelling ("electrical_commutators"). A single folder is the only category, whatever its
    name. Without `categories` every folder is one.
    """
    if not categories:
        return {folder: folder.name for folder in folders}, []
    if len(categories) == 1 and len(folders) == 1:
        return {folders[0]: categories[0]}, []
    by_name = {normalize_name(name): name for name in categories}
    matched = {f: by_name[normalize_name(f.name)] for f in folders if normalize_name(f.name) in by_name}
    order = {name: number for number, name in enumerate(categories)}
    return (
        dict(sorted(matched.items(), key=lambda item: order[item[1]])),
        [folder.name for folder in folders if folder not in matched],
    )


def normalize_name(name: str) -> str:
    """Return a name without its case, blanks, dashes and underscores."""
    return re.sub(r"[\W_]+", "", name).casefold()


def _parts(mask: Path) -> tuple[Path, ...]:
    return tuple(images_in(mask)) if mask.is_dir() else (mask,)


def _entries(folder: Path) -> list[Path]:
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(f"{folder} cannot be listed ({error.strerror}); check its permissions.") from error
    return [folder / name for name in sorted(names, key=_natural)]
