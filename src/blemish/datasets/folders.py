"""Readers of data sets that are told by their folders. Each takes (root, split, known categories) and options."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from blemish.datasets.files import (
    Found,
    by_position_note,
    folders_in,
    known_as,
    mask_files,
    pair,
    pictures_in,
)
from blemish.datasets.masks import read_any
from blemish.datasets.samples import Issue, Sample
from blemish.errors import ImageError

SPLITS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
LabelRule = Literal["anomalous", "masked", "content", "folder", "annotated"]


def split_folders(
    root: Path,
    split: str,
    known: Sequence[str],
    *,
    normal: Sequence[str] = ("good",),
    splits: Mapping[str, Sequence[str]] = SPLITS,
    pictures: str = ".",
    masks: Sequence[str] = ("ground_truth/{defect}",),
) -> Found | None:
    """`<category>/<split>/<kind>/*` as in MVTec AD.

    The root may be a category itself.

    Args:
        root: The folder given.
        split: "train", "validation" or "test".
        known: Categories; other folders are strangers. Empty: all are taken.
        normal: Kinds that are no defects.
        splits: Folder names of the splits.
        pictures: Where the pictures are below a kind.
        masks: Where its masks are, below the category; the first that exists. Empty: there are none.
    """
    names = {name for several in splits.values() for name in several}
    candidates = [folder for folder in folders_in(root) if any((folder / name).is_dir() for name in names)]
    if not candidates and any((root / name).is_dir() for name in names):
        candidates = [root]
    if not candidates:
        return None
    categories, strangers = known_as(candidates, known)
    found = Found(strangers=strangers)
    for folder, category in categories.items():
        places = [folder / name for name in splits.get(split, ()) if (folder / name).is_dir()]
        kinds = [kind for place in places[:1] for kind in folders_in(place) if kind.name != "ground_truth"]
        kinds.sort(key=lambda kind: kind.name not in normal)
        missing_masks = 0
        for kind in kinds:
            files = pictures_in(kind / pictures)
            if kind.name in normal:
                found.samples += [Sample(path, 0, category, (), category, kind.name) for path in files]
                continue
            options = [folder / m.format(defect=kind.name, split=places[0].name) for m in masks]
            place = next((option for option in options if option.is_dir()), None)
            if place is None:
                missing_masks += len(files)
                found.samples += [Sample(path, 1, category, None, category, kind.name) for path in files]
                if any(option.parent.is_dir() for option in options):
                    found.issues += [Issue("picture without mask", path, category) for path in files]
                    missing_masks -= len(files)
                continue
            others = [
                path
                for several in splits.values()
                for name in several
                if name != places[0].name
                for path in pictures_in(folder / name / kind.name / pictures)
            ]
            _add_pairs(found, files, place, category, kind.name, others)
        for template in masks:
            base = folder / template.removesuffix("{defect}")
            if template.endswith("{defect}") and "{split}" not in template:
                theirs = {kind.name for several in splits.values() for n in several for kind in folders_in(folder / n)}
                orphans = [path for path in folders_in(base) if path.name not in theirs]
                found.issues += [Issue("folder of masks without pictures", path, category) for path in orphans]
        if missing_masks and masks:
            found.notes.append(f"{category} has no masks: only its pictures can be judged, not its maps")
    return found


def mask_folders(
    root: Path,
    split: str,
    known: Sequence[str],
    *,
    places: Mapping[str, tuple[str, str]],
    label: LabelRule = "anomalous",
    mask_names: str = "",
    normal: Sequence[str] = (),
) -> Found | None:
    """Pictures in some folders, masks in others or beside them.

    Args:
        root: The folder given.
        split: A key of `places`.
        known: Categories. Where there is more than one, the first folder below the root tells which.
        places: Per split a pattern of the folders of pictures below the root, and where their masks are from there.
        label: What makes a picture anomalous: "anomalous" all are; "masked" it has a mask; "content" its mask is not
            empty; "folder" its folder or the one above is not in `normal`; "annotated" all that have a mask are, the
            others are left out.
        mask_names: A regular expression for the names of masks, where they lie beside the pictures.
        normal: For the rule "folder".
    """
    if not any(_matching(root, pattern) for pattern, _ in places.values()):
        return None
    found = Found()
    if split not in places:
        return found
    pattern, relative = places[split]
    folders = _matching(root, pattern)
    tops = {folder: (root / folder.relative_to(root).parts[0]) if folder != root else root for folder in folders}
    names, found.strangers = known_as(list(dict.fromkeys(tops.values())), known)
    left_out = 0
    for folder in sorted(folders, key=lambda f: list(names).index(tops[f]) if tops[f] in names else -1):
        category = known[0] if len(known) == 1 else names.get(tops[folder])
        if category is None:
            continue
        place = Path(os.path.normpath(folder / relative))
        files, masks = pictures_in(folder), mask_files(place)
        if mask_names:
            masks = [path for path in masks if re.search(mask_names, path.name) and not path.is_dir()]
            files = [path for path in files if path not in set(masks)]
        pairs = pair(files, masks)
        found.issues += [Issue("mask without picture", path, category) for path in pairs.unused]
        if pairs.by_position:
            found.notes.append(by_position_note(folder))
        kind = folder.name if folder.name.lower() not in _PLAIN else folder.parent.name if label == "folder" else ""
        for path in files:
            own = pairs.masks.get(path)
            if own is None and label == "annotated":
                left_out += 1
                continue
            try:
                anomalous = _is_anomalous(label, own, kind in normal)
            except ImageError as error:
                found.issues.append(Issue("unreadable mask", Path(error.path or path), category))
                continue
            if own is None and (anomalous or label == "content"):
                found.issues.append(Issue("picture without mask", path, category))
                if label == "content":
                    continue
            defect = kind if label == "folder" else ""
            found.samples.append(Sample(path, int(anomalous), category, own if anomalous else (), category, defect))
    if left_out:
        found.notes.append(f"{left_out:,} pictures without annotation are left out")
    return found


def label_folders(
    root: Path,
    split: str,
    known: Sequence[str],
    *,
    normal: Sequence[str],
    skip: Sequence[str] = (),
    inside: str = "images",
    masks: str = "",
) -> Found | None:
    """One folder per label: `no/*`, `yes/*`. There are no splits: all is test.

    Args:
        root: The folder given.
        split: "test".
        known: The one category.
        normal: Folders of normal pictures, in lower case; all others hold anomalous ones.
        skip: Folders to leave out, in lower case.
        inside: Where the pictures are inside a label's folder, if not in it.
        masks: The folder of folders of masks, one per label, where there may be one.
    """
    folders = [folder for folder in folders_in(root) if folder.name.lower() not in (*skip, masks)]
    if not any(folder.name.lower() in normal for folder in folders):
        return None
    found = Found()
    if split != "test":
        return found
    category = known[0] if known else root.name
    for folder in sorted(folders, key=lambda folder: folder.name.lower() not in normal):
        anomalous = folder.name.lower() not in normal
        files = pictures_in(folder) or pictures_in(folder / inside)
        if anomalous and masks and (root / masks / folder.name).is_dir():
            _add_pairs(found, files, root / masks / folder.name, category, folder.name, ())
            continue
        marked = None if anomalous else ()
        found.samples += [Sample(path, int(anomalous), category, marked, category, folder.name) for path in files]
    return found


_PLAIN = ("imgs", "images", "img")


def _is_anomalous(rule: LabelRule, masks: Sequence[Path] | None, normal: bool) -> bool:
    if rule == "masked":
        return masks is not None
    if rule == "content":
        return masks is not None and any(map(read_any, masks))
    return not normal if rule == "folder" else True


def _matching(root: Path, pattern: str) -> list[Path]:
    if pattern == ".":
        return [root]
    return sorted(path for path in root.glob(pattern) if path.is_dir())


def _add_pairs(
    found: Found, files: Sequence[Path], place: Path, category: str, defect: str, others: Sequence[Path]
) -> None:
    masks = mask_files(place)
    pairs = pair(files, masks)
    if pairs.by_position:
        found.notes.append(by_position_note(files[0].parent))
    for path in files:
        own = pairs.masks.get(path)
        if own is None:
            found.issues.append(Issue("picture without mask", path, category))
        found.samples.append(Sample(path, 1, category, own, category, defect))
    # The masks of all splits may lie in one folder.
    taken = pair(others, pairs.unused)
    unused = pairs.unused if taken.by_position else taken.unused
    found.issues += [Issue("mask without picture", path, category) for path in unused]
