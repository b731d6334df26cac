"""Readers of layouts with a list of samples; `Reader` describes the first arguments."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from blemish.datasets.names import role, system_file
from blemish.datasets.pairing import entries, images_in, match_categories, normalize_name
from blemish.datasets.samples import MASK_OF_NORMAL, Issue, ReadResult, Sample
from blemish.datasets.tables import Finder, read_table
from blemish.errors import UsageError
from blemish.files import is_file, is_folder, parse_json
from blemish.image_io import SUFFIXES

_NORMAL = ("0", "0.0", "0,0", "no", "false")
_ANOMALOUS = ("1", "1.0", "1,0", "yes", "true")
_HEADINGS = {
    "path": (
        "path image imagepath imgpath img file filename filepath picture picturepath photo imagefile imagename bild "
        "pfad datei ruta imagen chemin fichier"
    ),
    "label": (
        "label labels anomaly isanomaly anomalous isanomalous target verdict result status judgement judgment urteil "
        "etikett etiqueta"
    ),
    "mask": "mask maskpath maskfile masks gt gtpath groundtruth groundtruthpath segmentation annotation maske",
    "object": "object objectname",
    "category": "category clsname",
    "split": "split subset",
    "defect": "defect speciename defecttype",
}
"""Headings of each column, without case, blanks, dashes and underscores; the first that is there counts."""
_COLUMNS = {column: words.split() for column, words in _HEADINGS.items()}
_NO_MASK = frozenset(("", "-", "nan", "none", "null", "na", "n/a"))
_SPLITS = ("train", "validation", "test")


def csv_list(root: Path, split: str, categories: Sequence[str], *, files: Sequence[str] = ()) -> ReadResult | None:
    """Read a table with the columns path and label, and optionally mask, object, category, split and defect.

    Paths are relative to the folder of the table or to the one above; `Finder` finds others. Several
    masks are separated by "|", or stand in several rows. Without a column `split` all rows are test. VisA's own table
    is read unchanged.

    Args:
        root: The table, or a folder that holds one.
        split: See `Reader`.
        categories: See `Reader`; also gives the spelling of categories.
        files: Possible paths of the table below the root; empty for the only table there.
    """
    table = _table_file(root, files)
    if table is None:
        return None
    bases = [*([root] if root.is_dir() else []), table.parent, table.parent.parent]
    readings = [
        (rows, Finder(bases, (row["path"] for row in rows)))
        for rows in read_table(table, _COLUMNS, ("path", "label"))
        if rows
    ]
    if not readings:
        if files:
            return None
        raise UsageError(f"{table} has no rows with the columns path and label; its first line must name them.")
    rows, finder = max(readings, key=lambda reading: reading[1].hits) if len(readings) > 1 else readings[0]
    result = ReadResult(others={table: "list"})
    of_picture: dict[Path, tuple[str, int, Sample]] = {}
    for row in rows:
        if not row["path"]:
            raise UsageError(f"{table}, line {row.line}: the path is empty.")
        if _split(row["split"], table, row.line) != split:
            continue
        category = _catalogue_spelling(row["category"] or row["object"] or table.stem, categories)
        label = _label(row["label"], table, row.line)
        masks = [part for part in map(str.strip, row["mask"].split("|")) if part.lower() not in _NO_MASK]
        sample = _sample(result, finder, row["path"], masks, label, category, row["defect"])
        if sample is None:
            continue
        sample = replace(sample, object_name=row["object"] or category)
        text, line, first = of_picture.setdefault(sample.path, (row["path"], row.line, sample))
        if first.label != label or text != row["path"]:
            raise UsageError(
                f"{table}, lines {line} and {row.line}: {text} and {row['path']} are one picture, {sample.path}, "
                f"{'with different labels' if first.label != label else 'by the end of their paths'}; keep one of them."
            )
        if first is not sample:
            joined = tuple(dict.fromkeys((*(first.masks or ()), *(sample.masks or ()))))
            of_picture[sample.path] = (text, line, replace(first, masks=joined or first.masks))
    result.samples += [sample for _, _, sample in of_picture.values()]
    repeated = {path for sample in result.samples for path in sample.masks or () if path in of_picture}
    if repeated:
        raise UsageError(f"{table} names {min(repeated)} as a picture and as a mask; correct one of the two.")
    _note_moved(result, finder)
    return result


def meta_json(root: Path, split: str, categories: Sequence[str]) -> ReadResult | None:
    """Read the `meta.json` that the papers' scripts write, or VCP-CLIP's `meta_<name>.json`.

    The content is `{"test": {category: [{"img_path", "mask_path", "cls_name", "specie_name", "anomaly"}]}}`; "Test" is
    accepted as well. Absolute paths of another machine are searched below the root. If the mask of an anomalous
    picture is missing or a folder, its anomalous area is unknown.
    """
    file = _meta_file(root)
    if file is None:
        return None
    content = _json(file)
    try:
        splits = {str(name).lower(): items for name, items in content.items()}
        result = ReadResult(others={file: "list"})
        finder = Finder([file.parent], ())
        for given, items in splits.get(split, {}).items():
            for item in items:
                category = _catalogue_spelling(str(item.get("cls_name") or given), categories)
                mask = str(item.get("mask_path") or "")
                marked = [mask] if mask and not is_folder(file.parent / mask) else []
                sample = _sample(
                    result,
                    finder,
                    str(item["img_path"]),
                    marked,
                    int(bool(int(item["anomaly"]))),
                    category,
                    str(item.get("specie_name") or ""),
                )
                if sample is not None:
                    result.samples.append(sample)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{file} is not a meta.json as the papers' scripts write it ({error!r}).") from error
    _note_moved(result, finder)
    return result


def real_iad(root: Path, split: str, categories: Sequence[str]) -> ReadResult | None:
    """Read `realiad_jsons/[realiad_jsons/]<category>.json` with `realiad_{1024,512,256}/<category>/...` beside it."""
    list_dirs = [root / "realiad_jsons" / "realiad_jsons", root / "realiad_jsons"]
    lists = next((files for files in ([*sorted(list_dir.glob("*.json"))] for list_dir in list_dirs) if files), [])
    sizes = [root / f"realiad_{size}" for size in ("1024", "512", "256", "raw")]
    pictures = next((folder for folder in sizes if folder.is_dir()), None)
    if not lists or pictures is None:
        return None
    stems, unknown_folders = match_categories([path.with_suffix("") for path in lists], categories)
    result = ReadResult(
        unknown_folders=unknown_folders, notes=[f"pictures of {pictures.name}, splits of {lists[0].parent.name}"]
    )
    for stem, category in stems.items():
        file = stem.parent / f"{stem.name}.json"
        content = _json(file)
        result.others[file] = "list"
        finder = Finder([pictures / stem.name], ())
        try:
            normal = content.get("meta", {}).get("normal_class", "OK")
            for item in content.get(split, []):
                mask = [str(item["mask_path"])] if item.get("mask_path") else []
                defect = str(item["anomaly_class"])
                label = int(defect != normal)
                sample = _sample(result, finder, str(item["image_path"]), mask, label, category, defect)
                if sample is not None:
                    result.samples.append(sample)
        except (AttributeError, KeyError, TypeError) as error:
            raise UsageError(f"{file} is not a list of Real-IAD ({error!r}).") from error
    return result


def numbered_list(root: Path, split: str, categories: Sequence[str], *, file: str, folder: str) -> ReadResult | None:
    """Read a table of (number, label) without paths; picture 7 is `<folder>/007.png`."""
    table = root / file
    pictures = images_in(root / folder) or images_in(root / folder / folder)
    if not table.is_file() or not pictures:
        return None
    by_number = {int(path.stem): path for path in pictures if path.stem.isdecimal()}
    result = ReadResult(others={table: "list"})
    if split != "test":
        return result
    with table.open(newline="", encoding="utf-8-sig") as stream:
        for line, row in enumerate(csv.reader(stream), start=1):
            if len(row) < 2 or not row[0].strip().isdecimal():
                continue  # the header
            number, label = int(row[0]), _label(row[-1].strip(), table, line)
            path = by_number.pop(number, None)
            if path is None:
                result.issues.append(Issue("missing picture", root / folder / f"{number:03}.png", categories[0]))
            else:
                result.samples.append(Sample(path, label, categories[0], None if label else (), categories[0]))
    result.issues += [Issue("picture without label", path, categories[0]) for path in by_number.values()]
    return result


def _sample(
    result: ReadResult, finder: Finder, picture: str, masks: Sequence[str], label: int, category: str, defect: str
) -> Sample | None:
    """Return the sample of a listed picture; None, and an issue in `result`, if it is missing."""
    path = finder.find(picture)
    if not is_file(path):
        result.issues.append(Issue("missing picture", path, category))
        return None
    files = tuple(map(finder.find, masks))
    if not label:
        result.others.update(dict.fromkeys(files, MASK_OF_NORMAL))
        return Sample(path, label, category, (), category, defect)
    gone = [file for file in files if not is_file(file)]
    result.issues += [Issue("missing mask", file, category) for file in gone]
    return Sample(path, label, category, files if files and not gone else None, category, defect)


def _note_moved(result: ReadResult, finder: Finder) -> None:
    if finder.moved:
        listed, path = next(iter(finder.moved.items()))
        many = f"{len(finder.moved):,} listed paths" if len(finder.moved) > 1 else "one listed path"
        result.notes.append(f"{many} found by their ends below {finder.base}, such as {listed} as {path}")


def _catalogue_spelling(given: str, categories: Sequence[str]) -> str:
    """Return the category in the catalogue's spelling, or unchanged if the catalogue does not list it."""
    return next((name for name in categories if normalize_name(name) == normalize_name(given)), given)


def _table_file(root: Path, files: Sequence[str]) -> Path | None:
    if root.is_file():
        return root if root.suffix.lower() != ".json" and root.suffix.lower() not in SUFFIXES else None
    for name in files:
        if (root / name).is_file():
            return root / name
    if files:
        return None
    for suffix in (".csv", ".tsv", ".tab"):
        tables = [path for path in entries(root) if path.suffix.lower() == suffix and not system_file(path.name)]
        if len(tables) > 1:
            raise UsageError(f"{root} has several tables: give one of {', '.join(path.name for path in tables[:8])}.")
        if tables:
            return tables[0]
    return None


def _meta_file(root: Path) -> Path | None:
    if root.is_file():
        return root if root.suffix.lower() == ".json" else None
    if (root / "meta.json").is_file():
        return root / "meta.json"
    matches = sorted(root.glob("meta_*.json"))
    return matches[0] if len(matches) == 1 else None


def _json(file: Path) -> Any:
    try:
        return parse_json(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read as JSON ({error}).") from error


def _split(text: str, table: Path, line: int) -> str:
    kind = role(text) if text else "test"
    if kind in _SPLITS:
        return str(kind)
    raise UsageError(f"{table}, line {line}: {text!r} is no split; write train, validation or test.")


def _label(text: str, table: Path, line: int) -> int:
    word, kind = text.lower(), role(text)
    if word in _NORMAL or kind == "normal":
        return 0
    if word in _ANOMALOUS or kind == "anomalous":
        return 1
    raise UsageError(f"{table}, line {line}: {text!r} is no label; write 0 or normal, 1 or anomaly.")
