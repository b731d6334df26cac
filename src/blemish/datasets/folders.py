"""Readers of layouts in which folders determine split, category and label; `Reader` describes the first arguments."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from blemish.datasets.masks import is_marked
from blemish.datasets.pairing import by_position_note, folders_in, images_in, masks_in, match_categories, pair
from blemish.datasets.samples import MASK_OF_NORMAL, Issue, ReadResult, Sample
from blemish.errors import ImageError

SPLITS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
LabelRule: TypeAlias = Literal["anomalous", "masked", "content", "folder", "annotated"]


def split_folders(
    root: Path,
    split: str,
    categories: Sequence[str],
    *,
    normal: Sequence[str] = ("good",),
    splits: Mapping[str, Sequence[str]] = SPLITS,
    pictures: str = ".",
    masks: Sequence[str] = ("ground_truth/{defect}",),
) -> ReadResult | None:
    """Read `<category>/<split>/<kind>/*` as in MVTec AD; the root may be a category itself.

    Args:
        root: See `Reader`.
        split: See `Reader`.
        categories: See `Reader`.
        normal: Kinds that are no defects.
        splits: Folder names of each split.
        pictures: Folder of the pictures below a kind.
        masks: Folders below the category that may hold a kind's masks; the first that exists is used.
    """
    names = {name for several in splits.values() for name in several}
    candidates = [folder for folder in folders_in(root) if any((folder / name).is_dir() for name in names)]
    if not candidates and any((root / name).is_dir() for name in names):
        candidates = [root]
    if not candidates:
        return None
    matched, unknown_folders = match_categories(candidates, categories)
    result = ReadResult(unknown_folders=unknown_folders)
    for folder, category in matched.items():
        split_dirs = [folder / name for name in splits.get(split, ()) if (folder / name).is_dir()]
        kinds = [kind for directory in split_dirs[:1] for kind in folders_in(directory) if kind.name != "ground_truth"]
        kinds.sort(key=lambda kind: kind.name not in normal)
        missing_masks = 0
        for kind in kinds:
            files = images_in(kind / pictures)
            if kind.name in normal:
                result.samples += [Sample(path, 0, category, (), category, kind.name) for path in files]
                continue
            options = [folder / m.format(defect=kind.name, split=split_dirs[0].name) for m in masks]
            mask_dir = next((option for option in options if option.is_dir()), None)
            if mask_dir is None:
                missing_masks += len(files)
                result.samples += [Sample(path, 1, category, None, category, kind.name) for path in files]
                if any(option.parent.is_dir() for option in options):
                    result.issues += [Issue("picture without mask", path, category) for path in files]
                    missing_masks -= len(files)
                continue
            others = [
                path
                for several in splits.values()
                for name in several
                if name != split_dirs[0].name
                for path in images_in(folder / name / kind.name / pictures)
            ]
            _add_pairs(result, files, mask_dir, category, kind.name, others)
        for template in masks:
            base = folder / template.removesuffix("{defect}")
            if template.endswith("{defect}") and "{split}" not in template:
                theirs = {kind.name for several in splits.values() for n in several for kind in folders_in(folder / n)}
                orphans = [path for path in folders_in(base) if path.name not in theirs]
                result.issues += [Issue("folder of masks without pictures", path, category) for path in orphans]
        if missing_masks and masks:
            result.notes.append(f"{category} has no masks: pixel metrics are not available")
    return result


def mask_folders(
    root: Path,
    split: str,
    categories: Sequence[str],
    *,
    locations: Mapping[str, tuple[str, str]],
    label: LabelRule = "anomalous",
    mask_names: str = "",
    normal: Sequence[str] = (),
) -> ReadResult | None:
    """Read pictures in some folders whose masks are in other folders or beside them.

    Args:
        root: See `Reader`.
        split: See `Reader`.
        categories: See `Reader`. If there are several categories, the first folder below the root is the category.
        locations: By split: a pattern of the picture folders below the root, and the mask folder relative to them.
        label: Rule by which a picture is anomalous. "anomalous": always; "masked": if it has a mask; "content": if
            its mask is not empty; "folder": if neither its folder nor the one above is in `normal`; "annotated": if it
            has a mask, and pictures without one are left out.
        mask_names: Regular expression of the names of masks that lie beside the pictures.
        normal: Folders of normal pictures for the rule "folder".
    """
    if not any(_matching(root, pattern) for pattern, _ in locations.values()):
        return None
    result = ReadResult()
    if split not in locations:
        return result
    pattern, relative = locations[split]
    folders = _matching(root, pattern)
    tops = {folder: (root / folder.relative_to(root).parts[0]) if folder != root else root for folder in folders}
    names, result.unknown_folders = match_categories(list(dict.fromkeys(tops.values())), categories)
    left_out = 0
    for folder in sorted(folders, key=lambda f: list(names).index(tops[f]) if tops[f] in names else -1):
        category = categories[0] if len(categories) == 1 else names.get(tops[folder])
        if category is None:
            continue
        mask_dir = Path(os.path.normpath(folder / relative))
        files, masks = images_in(folder), masks_in(mask_dir)
        if mask_names:
            masks = [path for path in masks if re.search(mask_names, path.name) and not path.is_dir()]
            files = [path for path in files if path not in set(masks)]
        pairs = pair(files, masks, by_position=True)
        result.issues += [Issue("mask without picture", path, category) for path in pairs.unused]
        if pairs.by_position:
            result.notes.append(by_position_note(folder))
        kind = (
            folder.name
            if folder.name.lower() not in _IMAGE_FOLDERS
            else folder.parent.name
            if label == "folder"
            else ""
        )
        for path in files:
            own = pairs.masks.get(path)
            if own is None and label == "annotated":
                left_out += 1
                continue
            try:
                anomalous = _is_anomalous(label, own, kind in normal)
            except ImageError as error:
                result.issues.append(Issue("unreadable mask", Path(error.path or path), category))
                continue
            if own is None and (anomalous or label == "content"):
                result.issues.append(Issue("picture without mask", path, category))
                if label == "content":
                    continue
            if own and not anomalous:
                result.others.update(dict.fromkeys(own, MASK_OF_NORMAL))
            defect = kind if label == "folder" else ""
            result.samples.append(Sample(path, int(anomalous), category, own if anomalous else (), category, defect))
    if left_out:
        result.notes.append(f"{left_out:,} pictures without annotation are left out")
    return result


def label_folders(
    root: Path,
    split: str,
    categories: Sequence[str],
    *,
    normal: Sequence[str],
    skip: Sequence[str] = (),
    inside: str = "images",
) -> ReadResult | None:
    """Read one folder per label, such as `no/*` and `yes/*`. There are no splits: everything is test.

    Args:
        root: See `Reader`.
        split: See `Reader`.
        categories: The only category; if empty, the root's name.
        normal: Folders of normal pictures, in lower case; all other folders hold anomalous ones.
        skip: Folders to leave out, in lower case.
        inside: Subfolder of a label's folder that holds its pictures if the folder itself holds none.
    """
    folders = [folder for folder in folders_in(root) if folder.name.lower() not in skip]
    if not any(folder.name.lower() in normal for folder in folders):
        return None
    result = ReadResult()
    if split != "test":
        return result
    category = categories[0] if categories else root.name
    for folder in sorted(folders, key=lambda folder: folder.name.lower() not in normal):
        anomalous = folder.name.lower() not in normal
        files = images_in(folder) or images_in(folder / inside)
        marked = None if anomalous else ()
        result.samples += [Sample(path, int(anomalous), category, marked, category, folder.name) for path in files]
    return result


_IMAGE_FOLDERS = ("imgs", "images", "img")


def _is_anomalous(rule: LabelRule, masks: Sequence[Path] | None, normal: bool) -> bool:
    if rule == "masked":
        return masks is not None
    if rule == "content":
        return masks is not None and any(map(is_marked, masks))
    return not normal if rule == "folder" else True


def _matching(root: Path, pattern: str) -> list[Path]:
    if pattern == ".":
        return [root]
    return sorted(path for path in root.glob(pattern) if path.is_dir())


def _add_pairs(
    result: ReadResult, files: Sequence[Path], mask_dir: Path, category: str, defect: str, others: Sequence[Path]
) -> None:
    masks = masks_in(mask_dir)
    pairs = pair(files, masks, by_position=True)
    if pairs.by_position:
        result.notes.append(by_position_note(files[0].parent))
    for path in files:
        own = pairs.masks.get(path)
        if own is None:
            result.issues.append(Issue("picture without mask", path, category))
        result.samples.append(Sample(path, 1, category, own, category, defect))
    # The masks of all splits may lie in one folder.
    others_paired = pair(others, pairs.unused, by_position=True)
    unused = pairs.unused if others_paired.by_position else others_paired.unused
    result.issues += [Issue("mask without picture", path, category) for path in unused]
