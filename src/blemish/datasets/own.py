"""Read people's own folders: the names of folders and files say what is normal, what is a mask and what is neither.

Every file below the root is looked at once. Words in its path say a split, masks, normal or anomalous (`names.py`). The
rest of the path is the category above the first label, and the kind of anomaly from there on.
"""

from __future__ import annotations

import filecmp
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from PIL import Image

from blemish.datasets import names
from blemish.datasets.annotations import ANNOTATION_SUFFIXES, AnnotationError, load_annotations
from blemish.datasets.names import label_of, role, same
from blemish.datasets.pairing import entries, no_picture, numbered_mask, pair
from blemish.datasets.samples import MASK_OF_NORMAL, Issue, ReadResult, Sample
from blemish.datasets.tables import common_end
from blemish.errors import UsageError
from blemish.image_io import SUFFIXES, natural_key
from blemish.image_io.find import suffix_of

Key: TypeAlias = tuple[str, ...]
BESIDE_SPLITS = "beside the folders for train and test"
SPLITS = ("train", "validation", "test")

_JOURNALS = frozenset(("results.jsonl", "scores.jsonl"))
_RESULT_FILES = frozenset(("results", "scores", "regions", "run", "categories", "report"))
_RESULT_FOLDERS = frozenset(("heatmap", "overlay", "mask", "map", "maps"))
_GREY = frozenset(("1", "L", "I", "I;16"))
_LOSSLESS = frozenset((".png", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".pbm"))


@dataclass(frozen=True)
class _Place:
    """What the folders above a file say."""

    folders: Key = ()
    """Their names below the root."""
    content: Key = ()
    """`folders` without those that only say a split, masks or pictures."""
    split: str = ""
    split_at: int = 0
    """How many folders of `content` lie above the one of the split."""
    mask: bool = False

    @property
    def key(self) -> Key:
        return tuple(map(same, self.content))


@dataclass(frozen=True)
class _File:
    """A picture or a mask."""

    path: Path
    place: _Place

    @property
    def written(self) -> bool:
        """Whether it is a file of annotations, or has the suffix of one."""
        return self.path.suffix.lower() in ANNOTATION_SUFFIXES


@dataclass(frozen=True)
class _Picture:
    """A picture with its label."""

    path: Path
    label: int
    split: str
    kind: Key


@dataclass(frozen=True)
class _Category:
    """The labelled pictures of a category, and the masks that were found for them."""

    title: str
    pictures: Sequence[_Picture]
    masks: dict[Path, tuple[Path, ...]]
    masks_expected: bool
    """Whether there are masks at all, so that each anomalous picture should have one."""

    @property
    def without_mask(self) -> list[_Picture]:
        return [picture for picture in self.pictures if picture.label and picture.path not in self.masks]


def own_folders(root: Path, split: str, categories: Sequence[str]) -> ReadResult | None:
    """Read folders whose names say what they hold.

    Args:
        root: See `Reader`.
        split: See `Reader`. Without folders for splits everything is test.
        categories: See `Reader`; any folder may be a category.

    Raises:
        UsageError: Nothing says which pictures are normal, or a mask fits two pictures.
    """
    if not root.is_dir():
        return None
    result = ReadResult(complete=True)
    files = list(_look(root, _Place(), frozenset(), result))
    pictures = [file for file in files if not file.place.mask]
    if not pictures:
        return None
    bases = _bases(pictures)
    if not bases:
        names_there = dict.fromkeys(
            file.place.folders[0] if file.place.folders else file.path.name for file in pictures
        )
        raise UsageError(
            f"nothing in {root} says which pictures are normal: found {', '.join([*names_there][:8])}; call a folder "
            "of normal pictures good, ok or normal, or begin the names of files so (good_001.png)."
        )
    groups: dict[Key, list[_File]] = {base: [] for base in bases}
    for_all: list[_File] = []
    for file in files:
        base = _base_of(file.place, bases)
        if base is not None:
            groups[base].append(file)
        elif file.written:
            for_all.append(file)
        elif file.place.mask:
            result.issues.append(Issue("mask without picture", file.path))
        else:
            result.others[file.path] = "picture in a folder without labels"
    titles = _titles(root, groups)
    read = [
        _pair_category(titles[base], len(base), groups[base], result)
        for base in sorted(groups, key=lambda base: natural_key(titles[base]))
    ]
    of_lists = _listed([picture for category in read for picture in category.without_mask], for_all)
    for category in read:
        category.masks.update(
            {picture.path: of_lists[picture.path] for picture in category.without_mask if picture.path in of_lists}
        )
        _add_samples(category, split, result)
    used = {mask for masks in of_lists.values() for mask in masks}
    result.others.update({file.path: no_picture(file.path) for file in for_all if file.path not in used})
    if not result.samples:
        there = {file.place.split or "test" for file in pictures}
        result.notes.insert(0, f"there is {', '.join(name for name in SPLITS if name in there and name != split)}")
    _note_others(root, result)
    return result


# --- the files ------------------------------------------------------------------------------------------------------


def _look(folder: Path, place: _Place, above: frozenset[str], result: ReadResult) -> Iterator[_File]:
    """Yield the pictures and masks below a folder; all other files go into `result.others` with the reason."""
    real = os.path.realpath(folder)
    if real in above:
        return  # a link to a folder above
    everything = entries(folder, hidden=True)
    children = {path.name: path for path in everything if path.is_dir()}
    files = {path.name: path for path in everything if path.name not in children}
    ran_here = not _JOURNALS.isdisjoint(files)
    yield from _files_of(list(files.values()), place, ran_here, result)
    for name, path in children.items():
        reason = _left_out(path, children, ran_here and not _is_data(children), ran_here)
        if reason:
            result.others.update(dict.fromkeys(_all_files(path), reason))
            continue
        inside = [child.name for child in entries(path) if child.is_dir()] if role(name) == "masks" else []
        yield from _look(path, _enter(place, name, list(children), inside), above | {real}, result)


def _left_out(folder: Path, beside: Mapping[str, Path], all_results: bool, ran_here: bool) -> str:
    """Return why a folder is left out with all that it holds, or ""."""
    name = folder.name
    if names.system_folder(name):
        return "folder of the system"
    if all_results or (ran_here and name in _RESULT_FOLDERS) or role(name) == "results":
        return "results of an earlier run"
    if any((folder / journal).is_file() for journal in _JOURNALS) and not _is_data(p.name for p in entries(folder)):
        return "results of an earlier run"
    if role(name) == "aside":
        return "set aside by the folder's name"
    copied = names.original_of(name)
    if copied is not None and copied[0] in beside:
        original = {path.name for path in entries(beside[copied[0]])}
        if copied[1] or original.issuperset(path.name for path in entries(folder)):
            return "copy of a folder"
    return ""


def _is_data(folders: Iterable[str]) -> bool:
    """Return whether one of the folders says that it holds pictures with labels."""
    return any(role(name) in (*SPLITS, "normal", "anomalous") for name in folders)


def _enter(place: _Place, name: str, beside: Sequence[str], inside: Sequence[str]) -> _Place:
    """Return the place of the files in a folder, by its own name and the names of the folders beside and in it."""
    folders = (*place.folders, name)
    word = role(name)
    if word == "masks" and not (_is_data(inside) and any(role(child) == "masks" for child in inside)):
        return replace(place, folders=folders, mask=True)
    if word in SPLITS:
        return replace(place, folders=folders, split=str(word), split_at=len(place.content))
    if word == "pictures":
        return replace(place, folders=folders)
    own = names.without_mask_words(name)
    if own and word not in ("normal", "anomalous"):
        twin = next((other for other in beside if names.without_fillers(other) == names.without_fillers(own)), None)
        if twin is None and names.are_masks(name):
            twin = " ".join(map(str, own))
        if twin is not None:  # "crack_mask" beside "crack", or "bad masks"
            return replace(_enter(place, twin, (), ()), folders=folders, mask=True)
    split, label = names.split_and_label(name)
    if split:  # "test_good"
        return replace(
            place, folders=folders, content=(*place.content, label), split=split, split_at=len(place.content)
        )
    return replace(place, folders=folders, content=(*place.content, name))


def _files_of(files: Sequence[Path], place: _Place, ran_here: bool, result: ReadResult) -> Iterator[_File]:
    """Yield the pictures and masks that lie directly in one folder."""
    pictures: list[Path] = []
    annotations: list[Path] = []
    by_name = {path.name for path in files}
    for path in files:
        copied = names.original_of(path.stem)
        suffix = suffix_of(path.name)
        if names.system_file(path.name):
            result.others[path] = "file of the system"
        elif ran_here and path.name.split(".")[0] in _RESULT_FILES:
            result.others[path] = "results of an earlier run"
        elif suffix not in SUFFIXES and suffix not in ANNOTATION_SUFFIXES:
            result.others[path] = no_picture(path)
        elif copied is not None and _equal(path, path.with_name(copied[0] + path.suffix), by_name):
            result.others[path] = "copy of a file"
        else:
            (pictures if suffix in SUFFIXES else annotations).append(path)
    if place.mask:
        yield from (_File(path, place) for path in (*pictures, *annotations))
        return
    drawn = _masks_beside(pictures)
    pictures = [path for path in pictures if path not in drawn]
    twice = [name for name, number in Counter(same(path.stem) for path in pictures).items() if number > 1]
    if twice:
        result.notes.append(
            f"{len(twice):,} names in {pictures[0].parent} are of several pictures, such as {twice[0]}; all are read"
        )
    free = [path for path in pictures if path not in drawn.values()]
    written = {mask for masks in pair(free, annotations).masks.values() for mask in masks}
    texts = {path for path in annotations if path.suffix.lower() == ".txt" and path not in written}
    result.others.update({path: no_picture(path) for path in texts})
    yield from (_File(path, place) for path in pictures)
    yield from (
        _File(path, replace(place, mask=True))
        for path in (*drawn, *(path for path in annotations if path not in texts))
    )


def _equal(path: Path, original: Path, by_name: set[str]) -> bool:
    return original.name in by_name and filecmp.cmp(path, original, shallow=False)


def _masks_beside(pictures: Sequence[Path]) -> dict[Path, Path | None]:
    """Return the masks among the pictures of one folder, by their names or as drawn twins, and whose they are."""
    called = {path for path in pictures if names.without_mask_words(path.stem) or numbered_mask(path.stem)}
    owner_of: dict[Path, Path | None] = {}
    if called:
        pairs = pair([path for path in pictures if path not in called], [path for path in pictures if path in called])
        if pairs.masks:
            owner_of = dict.fromkeys(pairs.unused)
            owner_of.update({mask: path for path, masks in pairs.masks.items() for mask in masks})
    twins: dict[str, list[Path]] = {}
    for path in pictures:
        twins.setdefault(same(path.stem), []).append(path)
    for several in twins.values():
        if len(several) == 2 and len({path.suffix.lower() for path in several}) == 2:
            drawn = [path for path, twin in (several, several[::-1]) if _is_drawn(path, twin)]
            if len(drawn) == 1 and drawn[0] not in owner_of:
                owner_of[drawn[0]] = next(path for path in several if path != drawn[0])
    return owner_of


def _is_drawn(path: Path, twin: Path) -> bool:
    """Return whether a picture beside one of its name is a mask: of at most four colours, or grey beside colours."""
    if path.suffix.lower() not in _LOSSLESS:
        return False
    try:
        with Image.open(path) as image, Image.open(twin) as other:
            grey = image.mode in _GREY and other.mode not in _GREY
            return grey or image.convert("RGB").getcolors(4) is not None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _all_files(folder: Path) -> list[Path]:
    """Return every file below a folder, hidden ones too, in natural order."""
    files = [Path(parent, name) for parent, _, several in os.walk(folder) for name in several]
    return sorted(files, key=lambda path: natural_key(str(path)))


# --- categories, labels and kinds -----------------------------------------------------------------------------------


def _bases(pictures: Sequence[_File]) -> set[Key]:
    """Return the folders, as keys of `content`, that are a category each.

    A category is the folder above one for normal pictures, else above one for a split or for anomalous pictures, else
    above a name with a telling word; the outermost counts.
    """
    bases: set[Key] = set()
    by_folder = {(file.place.content, file.place.split, file.place.split_at): file.place for file in pictures}
    left = list(by_folder.values())
    for tier in ("normal", "split", "anomalous", "telling"):
        above: set[Key] = set()
        for place in left:
            key = place.key
            if tier == "split":
                above |= {key[: place.split_at]} if place.split else set()
            elif tier == "telling":
                above |= {key[:at] for at, name in enumerate(place.content) if label_of(name) is not None}
            else:
                above |= {key[:at] for at, name in enumerate(place.content) if role(name) == tier}
        bases |= {key for key in above if not any(key[:end] in above for end in range(len(key)))}
        left = [place for place in left if _base_of(place, bases) is None]
    by_name = {file.place.key for file in pictures if label_of(file.path.stem) is not None}
    alone = {key for key in by_name if not any(key == base[: len(key)] for base in bases)}
    return bases | {key for key in alone if not any(key[:end] in bases | alone for end in range(len(key)))}


def _base_of(place: _Place, bases: set[Key] | Mapping[Key, object]) -> Key | None:
    """Return the innermost category that a file is in."""
    key = place.key
    return next((key[:end] for end in range(len(key), -1, -1) if key[:end] in bases), None)


def _titles(root: Path, groups: Mapping[Key, Sequence[_File]]) -> dict[Key, str]:
    """Return the name of each category: its folder's, or its path where two folders have one name."""
    spelt: dict[Key, Key] = {}
    for base, files in groups.items():
        spelt[base] = next(file.place.content[: len(base)] for file in files if not file.place.mask)
    for base, parts in spelt.items():
        while len(parts) > 1 and not names.without_fillers(parts[-1]):
            parts = parts[:-1]
        spelt[base] = parts
    last = [same(parts[-1]) if parts else "" for parts in spelt.values()]
    return {
        base: root.name if not parts else parts[-1] if last.count(same(parts[-1])) == 1 else "/".join(parts)
        for base, parts in spelt.items()
    }


def _label(kind: Key, stem: str, by_name: bool) -> int | None:
    """Return a picture's label; None if nothing says it, or both are said.

    Args:
        kind: Folders of the picture below its category.
        stem: The picture's name, which says it where no folder does.
        by_name: Whether a folder without a known word leaves the label to the name; else it is a kind of anomaly.
    """
    labels = {int(role(name) == "anomalous") for name in kind if role(name) in ("normal", "anomalous")}
    labels = labels or {label for name in kind if (label := label_of(name)) is not None}
    if labels:
        return labels.pop() if len(labels) == 1 else None
    return 1 if kind and not by_name else label_of(stem)


def _pair_category(title: str, depth: int, files: Sequence[_File], result: ReadResult) -> _Category:
    """Return the pictures of one category with their masks, all splits; what is wrong with its files is added.

    Args:
        title: The category's name.
        depth: How many folders lead to it.
        files: Its files.
        result: Receives issues and notes.
    """
    pictures, aside = _labelled(title, depth, [file for file in files if not file.place.mask], result)
    free: dict[Path, _File] = {}
    for file in files:
        if file.place.mask and any(file.place.folders[: len(folder)] == folder for folder in aside):
            result.others[file.path] = BESIDE_SPLITS
        elif file.place.mask:
            free[file.path] = file
    expected = any(not file.written for file in free.values())
    category = _Category(title, pictures, {}, expected)
    for name in ("test", "validation", "train"):  # what fits the test is not another split's
        for written in (False, True):
            left = [picture for picture in pictures if picture.split == name and picture.path not in category.masks]
            fitting = [file for file in free.values() if file.written == written and file.place.split in ("", name)]
            category.masks.update(_pair(left, fitting, depth))
            for mask in (mask for masks in category.masks.values() for mask in masks):
                free.pop(mask, None)
    category.masks.update(_listed(category.without_mask, [file for file in free.values() if file.written]))
    used = {mask for masks in category.masks.values() for mask in masks}
    for path, file in free.items():
        if file.written and path not in used:
            result.others[path] = no_picture(path)
        elif not file.written:
            result.issues.append(Issue("mask without picture", path, title))
    return category


def _labelled(title: str, depth: int, files: Sequence[_File], result: ReadResult) -> tuple[list[_Picture], set[Key]]:
    """Return the labelled pictures of a category, and the folders below it that are neither split nor label.

    Raises:
        UsageError: More pictures lie in such folders than in the others.
    """
    splits = {file.place.split for file in files}
    folders = {name for file in files for name in file.place.content[depth:]}
    by_name = not any(role(name) == "normal" or label_of(name) == 0 for name in folders) and any(
        label_of(file.path.stem) == 0 for file in files
    )
    pictures: list[_Picture] = []
    aside: set[Key] = set()
    for file in files:
        place = file.place
        kind = place.content[depth:]
        before = place.content[depth : place.split_at] if place.split else ()
        strange = [name for name in before if role(name) not in ("normal", "anomalous")]
        if strange and len(place.content) > place.split_at:  # "old/test/good" beside "test/good"
            aside.add(place.folders[: place.folders.index(strange[0]) + 1])
            result.others[file.path] = BESIDE_SPLITS
        elif not place.split and "test" in splits:
            aside |= {place.folders} if kind else set()
            result.others[file.path] = BESIDE_SPLITS
        elif (label := _label(kind, file.path.stem, by_name)) is None:
            result.issues.append(Issue("picture without label", file.path, title))
        else:
            pictures.append(_Picture(file.path, label, place.split or "test", kind))
            if not label and kind and not any(role(name) == "normal" for name in kind):
                result.notes.append(f"{'/'.join(kind)} is read as normal, by a word of the folder's name")
    beside = [file.path for file in files if result.others.get(file.path) == BESIDE_SPLITS]
    if len(beside) > max(len(pictures), 1):
        raise UsageError(
            f"most pictures of {title} lie beside its folders for train and test, such as {beside[0]}; give the folder "
            "that is meant."
        )
    return pictures, aside


def _add_samples(category: _Category, split: str, result: ReadResult) -> None:
    expected = category.masks_expected or bool(category.masks)
    pictures = [picture for picture in category.pictures if picture.split == split]
    for picture in sorted(
        pictures, key=lambda picture: (picture.label, *map(natural_key, ("/".join(picture.kind), picture.path.name)))
    ):
        own = category.masks.get(picture.path)
        if not picture.label:
            result.others.update(dict.fromkeys(own or (), MASK_OF_NORMAL))
            own = ()
        elif own is None and expected:
            result.issues.append(Issue("picture without mask", picture.path, category.title))
        result.samples.append(
            Sample(picture.path, picture.label, category.title, own, category.title, "/".join(picture.kind))
        )
    if not expected and any(picture.label for picture in pictures):
        result.notes.append(f"{category.title} has no masks: pixel metrics are not available")


# --- masks ----------------------------------------------------------------------------------------------------------


def _pair(pictures: Sequence[_Picture], masks: Sequence[_File], depth: int) -> dict[Path, tuple[Path, ...]]:
    """Return the masks of each picture: by the kind that the masks' folders name, and there by the files' names."""
    kinds: dict[Key, list[_Picture]] = {}
    stems = {names.tokens(picture.path.stem) for picture in pictures}
    for picture in pictures:
        kinds.setdefault(tuple(map(same, picture.kind)), []).append(picture)
    units: dict[Key, dict[Path, None]] = {}
    for file in masks:
        key = file.place.key[depth:]
        mask = file.path
        if key and not _fitting(key, kinds) and names.tokens(mask.parent.name) in stems:
            key, mask = key[:-1], mask.parent  # a folder of several masks of one picture
        units.setdefault(key, {})[mask] = None
    paired: dict[Path, tuple[Path, ...]] = {}
    for key in sorted(units, key=lambda key: (key not in kinds, -len(key))):
        fitting = [picture for kind in _fitting(key, kinds) for picture in kinds[kind] if picture.path not in paired]
        left: Sequence[Path] = [*units[key]]
        for label in (1, 0):
            pairs = pair([picture.path for picture in fitting if picture.label == label], left)
            paired.update(pairs.masks)
            left = pairs.unused
    return paired


def _fitting(key: Key, kinds: Mapping[Key, object]) -> tuple[Key, ...]:
    """Return the kinds that a folder of masks is for: the one of its name, else those below it.

    Words for anomalous make no difference: masks in "bad" are for all kinds, if none is called so.
    """
    if key in kinds:
        return (key,)
    below = tuple(kind for kind in kinds if kind[: len(key)] == key)
    bare = _bare(key)
    return below or tuple(kind for kind in kinds if not bare or _bare(kind) == bare)


def _bare(key: Key) -> Key:
    """Return a kind without its words for anomalous: "bad/crack" is "crack"."""
    return tuple(name for name in key if role(name) != "anomalous")


def _listed(pictures: Sequence[_Picture], files: Sequence[_File]) -> dict[Path, tuple[Path, ...]]:
    """Return the files of annotations for many pictures (COCO, VIA, CVAT), by the pictures that they list.

    Raises:
        UsageError: A listed picture may be several, or two files list one picture.
    """
    lists_of: dict[Path, tuple[Path, ...]] = {}
    for file in files:
        try:
            annotations = load_annotations(file.path)
        except (AnnotationError, OSError):
            continue
        if "" in annotations.drawings:
            continue  # for one picture, which is not here
        roles = {role(str(word)) for word in names.tokens(file.path.stem)} | {file.place.split}
        splits = roles & set(SPLITS) or set(SPLITS)
        name_of = {id(drawing): name.replace("\\", "/").split("/") for name, drawing in annotations.drawings.items()}
        owners: dict[int, list[Path]] = {}
        for path in (
            picture.path for picture in pictures if picture.split in splits and annotations.lists(picture.path)
        ):
            owners.setdefault(id(annotations.of(path)), []).append(path)
        for drawing, paths in owners.items():
            paths.sort(key=lambda path: -common_end(name_of[drawing], path.parts))
            if len({common_end(name_of[drawing], path.parts) for path in paths[:2]}) < len(paths[:2]):
                raise UsageError(
                    f"{file.path} fits {paths[0]} and {paths[1]}; give the folders of pictures in it, too."
                )
            lists_of[paths[0]] = (*lists_of.get(paths[0], ()), file.path)
    twice = next((path for path, lists in lists_of.items() if len(lists) > 1), None)
    if twice is not None:
        raise UsageError(f"{' and '.join(map(str, lists_of[twice]))} both list {twice}; keep one of them.")
    return lists_of


def _note_others(root: Path, result: ReadResult) -> None:
    """Note what was left out and why, one sentence per reason."""
    by_reason: dict[str, list[Path]] = {}
    for path, reason in result.others.items():
        if reason != MASK_OF_NORMAL:
            by_reason.setdefault(reason, []).append(path)
    for reason, paths in by_reason.items():
        first = paths[0].relative_to(root).as_posix()
        many = f"{len(paths):,} files, such as {first}" if len(paths) > 1 else first
        result.notes.append(f"left out: {many} ({reason})")
