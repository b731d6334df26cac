"""List folders, and pair masks with pictures by their names."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeAlias

from blemish.datasets.names import same, system_folder, tokens, without_mask_words, without_picture_words
from blemish.errors import UsageError
from blemish.image_io import SUFFIXES, natural_key
from blemish.image_io.find import VIDEO, kind_of, suffix_of

ANNOTATIONS = frozenset((".json",))
"""Suffixes of files beside pictures' own that describe masks."""


@dataclass(frozen=True)
class Pairs:
    """Masks by picture, and the masks that belong to no picture."""

    masks: Mapping[Path, tuple[Path, ...]]
    unused: tuple[Path, ...]
    by_position: bool = False


def entries(folder: Path, *, hidden: bool = False) -> list[Path]:
    """Return what lies in a folder in natural order; none if it does not exist. Raises UsageError."""
    try:
        listing = [name for name in os.listdir(folder) if hidden or not name.startswith(".")]  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(f"{folder} cannot be listed ({error.strerror}); check its permissions.") from error
    return [folder / name for name in sorted(listing, key=natural_key)]


def folders_in(folder: Path) -> list[Path]:
    """Return the visible folders in a folder in natural order; none if it does not exist."""
    return [path for path in entries(folder) if path.is_dir() and not system_folder(path.name)]


def images_in(folder: Path, extra: Iterable[str] = ()) -> list[Path]:
    """Return the picture files in a folder in natural order.

    Args:
        folder: May be missing.
        extra: Further suffixes to include (lower case, with the dot).
    """
    suffixes = SUFFIXES.union(extra)
    return [path for path in entries(folder) if path.suffix.lower() in suffixes and not path.is_dir()]


def no_picture(path: Path) -> str:
    """Return why a file is not read as a picture, and what to do if it is one all the same."""
    kind = kind_of(path.name)
    if kind is None:
        return f"no picture ({suffix_of(path.name) or 'without suffix'})"
    if kind is VIDEO:
        return "video: data sets consist of pictures; blemish detect reads videos"
    return kind.advice if kind.advice.startswith(kind.name) else f"{kind.name}: {kind.advice}"


def masks_in(folder: Path) -> list[Path]:
    """Return the masks in a folder: its pictures, its polygon files, and its folders of several masks each."""
    return sorted([*images_in(folder, ANNOTATIONS), *folders_in(folder)])


def pair(images: Sequence[Path], masks: Sequence[Path], *, by_position: bool = False) -> Pairs:
    """Pair masks with pictures by their names. A folder among the masks holds several masks of one picture.

    The rules of `_RULES` apply one after another, each to what the rules before have left: a mask of exactly the
    picture's name is its own, whatever else a later rule would allow.

    Args:
        images: The pictures.
        masks: Mask files, and folders of masks.
        by_position: Pair in sorted order if no name matches at all and the counts are equal, as the papers' scripts do.

    Raises:
        UsageError: Two pictures fit one mask, or two masks fit one picture, equally well.
    """
    paired: dict[Path, tuple[Path, ...]] = {}
    names = {mask: mask.name if mask.is_dir() else mask.stem for mask in masks}
    stems = {image: image.stem for image in images}
    for rule in _RULES:
        if not names:
            break
        free = stems if rule.several else {image: stem for image, stem in stems.items() if image not in paired}
        pictures = _by_key(free, rule.picture)
        for key, group in _by_key(names, rule.mask).items():
            owners = pictures.get(key, [])
            if not owners:
                continue
            if len(owners) > 1 or (len(group) > 1 and not rule.several):
                _refuse(owners, group)
            for mask in group:
                paired[owners[0]] = (*paired.get(owners[0], ()), *_parts(mask))
                del names[mask]
    if by_position and images and not paired and len(images) == len(masks):
        in_order = zip(sorted(images), sorted(masks), strict=True)
        return Pairs({image: _parts(mask) for image, mask in in_order}, (), by_position=True)
    return Pairs(paired, tuple(names))


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
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFC", name)).casefold()


Key: TypeAlias = str | tuple[str | int, ...]


@dataclass(frozen=True)
class _Rule:
    """Keys of a picture's and of a mask's name; they belong together if the keys are equal. None: does not apply."""

    picture: Callable[[str], Key | None]
    mask: Callable[[str], Key | None]
    several: bool = False
    """Whether several masks may belong to one picture, also to one that has a mask."""


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _mask_tokens(name: str) -> tuple[str | int, ...]:
    """Return the tokens of a mask's name without a word for masks and without a picture's suffix within."""
    bare = _SUFFIX_WITHIN.sub("", name)
    rest = without_mask_words(bare)
    return tokens(bare) if rest is None else rest


def numbered_mask(name: str) -> tuple[str | int, ...] | None:
    """Return the tokens before a word for masks and a number: "weld_mask_2" is the second mask of "weld"."""
    own = tokens(_SUFFIX_WITHIN.sub("", name))
    if len(own) < 3 or not isinstance(own[-1], int):
        return None
    return without_mask_words(" ".join(map(str, own[:-1])))


def _numbers(own: Sequence[str | int], *, alone: bool = False, last: bool = False) -> Key | None:
    """Return the numbers among tokens; None if there are none, or for `alone` anything else but words for pictures."""
    numbers = tuple(token for token in own if isinstance(token, int))
    if not numbers or (alone and len(numbers) != len(without_picture_words(own))):
        return None
    return numbers[-1:] if last else numbers


_SUFFIX_WITHIN = re.compile(r"\.(?:jpe?g|png|bmp|tiff?|webp|gif)(?=$|[\s_-])", re.IGNORECASE)
_MASK_END = re.compile(r"[\s_-](mask|label|gt|segmentation|seg|ground_?truth|anno)s?$", re.IGNORECASE)
_RULES = (
    # the same name, then with a word for masks behind it: "a" and "a_mask"
    _Rule(_composed, _composed),
    _Rule(_composed, lambda name: _MASK_END.sub("", _composed(name))),
    # the same in another spelling: "Deep-1" and "deep 1_MASK"
    _Rule(same, lambda name: same(_MASK_END.sub("", _SUFFIX_WITHIN.sub("", name)))),
    # words for masks before or behind, numbers by value: "02" and "mask2"
    _Rule(lambda name: tokens(name) or None, lambda name: _mask_tokens(name) or None),
    # without words for pictures: "image3" and "mask3"
    _Rule(
        lambda name: without_picture_words(tokens(name)) or None,
        lambda name: without_picture_words(_mask_tokens(name)) or None,
    ),
    # several masks of one picture: "a" and "a_mask_1", "a_mask_2"
    _Rule(lambda name: tokens(name) or None, numbered_mask, several=True),
    # all numbers, if one of the names has nothing else: "weld_7" and "mask_7", "7" and "crack_7_gt"
    _Rule(lambda name: _numbers(tokens(name)), lambda name: _numbers(_mask_tokens(name), alone=True)),
    _Rule(lambda name: _numbers(tokens(name), alone=True), lambda name: _numbers(_mask_tokens(name))),
    # the last number, if the mask's name has nothing else: "cam1_07" and "gt_7"
    _Rule(lambda name: _numbers(tokens(name), last=True), lambda name: _numbers(_mask_tokens(name), alone=True)),
)


def _by_key(names: Mapping[Path, str], key: Callable[[str], Key | None]) -> dict[Key, list[Path]]:
    groups: dict[Key, list[Path]] = {}
    for path, name in names.items():
        own = key(name)
        if own is not None:
            groups.setdefault(own, []).append(path)
    return groups


def _refuse(owners: Sequence[Path], masks: Sequence[Path]) -> NoReturn:
    alone, many, word = (masks[0], owners, "picture") if len(owners) > 1 else (owners[0], masks, "mask")
    names = " and ".join(map(str, many[:3]))
    raise UsageError(f"{names} fit {alone} equally well; rename the files so that one {word} does.")


def _parts(mask: Path) -> tuple[Path, ...]:
    return tuple(images_in(mask)) if mask.is_dir() else (mask,)
