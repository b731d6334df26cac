"""Readers of layouts with a list of samples; `Reader` describes the first arguments."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from blemish.datasets.pairing import images_in, match_categories, normalize_name
from blemish.datasets.samples import Issue, ReadResult, Sample
from blemish.errors import UsageError

_NORMAL = ("0", "0.0", "normal", "good", "ok", "no", "false")
_ANOMALOUS = ("1", "1.0", "anomaly", "anomalous", "anomal", "abnormal", "bad", "defect", "ng", "ko", "yes", "true")
_COLUMNS = {
    "path": ("path", "image", "image_path", "img_path", "file", "filename"),
    "label": ("label", "anomaly"),
    "mask": ("mask", "mask_path"),
    "object": ("object",),
    "category": ("category", "cls_name"),
    "split": ("split",),
    "defect": ("defect", "specie_name"),
}


def csv_list(root: Path, split: str, known: Sequence[str], *, files: Sequence[str] = ()) -> ReadResult | None:
    """Read a CSV table with the columns path and label, and optionally mask, object, category, split and defect.

    Paths are relative to the folder of the table or to the one above. Several masks are separated by "|". Without a
    column `split` all rows are test. VisA's own table is read unchanged.

    Args:
        root: The table, or a folder that holds one.
        split: See `Reader`.
        known: See `Reader`; also gives the spelling of categories.
        files: Possible paths of the table below the root; empty for the only `*.csv` there.
    """
    table = _list_file(root, files, "*.csv")
    if table is None:
        return None
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{table} cannot be read as a table ({error}); save it as CSV in UTF-8.") from error
    head = {str(name).strip().lower(): name for name in (rows[0] if rows else {}) if name is not None}
    columns = {key: next((head[word] for word in words if word in head), None) for key, words in _COLUMNS.items()}
    if not rows or columns["path"] is None or columns["label"] is None:
        if files:
            return None
        raise UsageError(f"{table} has no rows with the columns path and label; its first line must name them.")
    cells = [{key: _cell(row, name) for key, name in columns.items()} for row in rows]
    bases = [*([root] if root.is_dir() else []), table.parent, table.parent.parent]
    base = next((base for base in bases if (base / cells[0]["path"]).is_file()), bases[0])
    result = ReadResult()
    for line, cell in enumerate(cells, start=2):
        if (cell["split"].lower() or "test") != split:
            continue
        given = cell["category"] or cell["object"] or table.stem
        category = _catalogue_spelling(given, known)
        label = _label(cell["label"], table, line)
        masks = [part.strip() for part in cell["mask"].split("|") if part.strip()]
        sample = _sample(result, base, cell["path"], masks, label, category, cell["defect"])
        if sample is not None:
            result.samples.append(replace(sample, object_name=cell["object"] or category))
    return result


def meta_json(root: Path, split: str, known: Sequence[str]) -> ReadResult | None:
    """Read the `meta.json` that the papers' scripts write, or VCP-CLIP's `meta_<name>.json`.

    The content is `{"test": {category: [{"img_path", "mask_path", "cls_name", "specie_name", "anomaly"}]}}`; "Test" is
    accepted as well. Absolute paths of another machine are searched below the root. If the mask of an anomalous
    picture is missing or a folder, its anomalous area is unknown.
    """
    file = _list_file(root, ("meta.json",), "meta_*.json")
    if file is None or file.suffix.lower() != ".json":
        return None
    content = _json(file)
    try:
        splits = {str(name).lower(): categories for name, categories in content.items()}
        result = ReadResult()
        for given, items in splits.get(split, {}).items():
            for item in items:
                category = _catalogue_spelling(str(item.get("cls_name") or given), known)
                mask = str(item.get("mask_path") or "")
                marked = [mask] if mask and not (file.parent / mask).is_dir() else []
                sample = _sample(
                    result,
                    file.parent,
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
    return result


def real_iad(root: Path, split: str, known: Sequence[str]) -> ReadResult | None:
    """Read `realiad_jsons/[realiad_jsons/]<category>.json` with `realiad_{1024,512,256}/<category>/...` beside it."""
    places = [root / "realiad_jsons" / "realiad_jsons", root / "realiad_jsons"]
    lists = next((files for files in ([*sorted(place.glob("*.json"))] for place in places) if files), [])
    sizes = [root / f"realiad_{size}" for size in ("1024", "512", "256", "raw")]
    pictures = next((folder for folder in sizes if folder.is_dir()), None)
    if not lists or pictures is None:
        return None
    stems, unknown_folders = match_categories([path.with_suffix("") for path in lists], known)
    result = ReadResult(
        unknown_folders=unknown_folders, notes=[f"pictures of {pictures.name}, splits of {lists[0].parent.name}"]
    )
    for stem, category in stems.items():
        file = stem.parent / f"{stem.name}.json"
        content = _json(file)
        try:
            normal = content.get("meta", {}).get("normal_class", "OK")
            for item in content.get(split, []):
                mask = [str(item["mask_path"])] if item.get("mask_path") else []
                defect = str(item["anomaly_class"])
                label = int(defect != normal)
                sample = _sample(result, pictures / stem.name, str(item["image_path"]), mask, label, category, defect)
                if sample is not None:
                    result.samples.append(sample)
        except (AttributeError, KeyError, TypeError) as error:
            raise UsageError(f"{file} is not a list of Real-IAD ({error!r}).") from error
    return result


def numbered_list(root: Path, split: str, known: Sequence[str], *, file: str, folder: str) -> ReadResult | None:
    """Read a table of (number, label) without paths; picture 7 is `<folder>/007.png`."""
    table = root / file
    pictures = images_in(root / folder) or images_in(root / folder / folder)
    if not table.is_file() or not pictures:
        return None
    by_number = {int(path.stem): path for path in pictures if path.stem.isdecimal()}
    result = ReadResult()
    if split != "test":
        return result
    with table.open(newline="", encoding="utf-8-sig") as stream:
        for line, row in enumerate(csv.reader(stream), start=1):
            if len(row) < 2 or not row[0].strip().isdecimal():
                continue  # the header
            number, label = int(row[0]), _label(row[-1].strip(), table, line)
            path = by_number.pop(number, None)
            if path is None:
                result.issues.append(Issue("missing picture", root / folder / f"{number:03}.png", known[0]))
            else:
                result.samples.append(Sample(path, label, known[0], None if label else (), known[0]))
    result.issues += [Issue("picture without label", path, known[0]) for path in by_number.values()]
    return result


def _sample(
    result: ReadResult, base: Path, picture: str, masks: Sequence[str], label: int, category: str, defect: str
) -> Sample | None:
    """Return the sample of a listed picture; None, and an issue in `result`, if it is missing."""
    path = _resolve(base, picture)
    if not path.is_file():
        result.issues.append(Issue("missing picture", path, category))
        return None
    files = tuple(_resolve(base, mask) for mask in masks) if label else ()
    gone = [file for file in files if not file.is_file()]
    result.issues += [Issue("missing mask", file, category) for file in gone]
    marked = files if (files and not gone) or not label else None
    return Sample(path, label, category, marked, category, defect)


def _resolve(base: Path, text: str) -> Path:
    """Return a listed path. An absolute path of another machine is searched below the base, longest tail first."""
    path = base / text.replace("\\", "/")
    if not path.is_absolute() or path.exists():
        return path
    parts = path.parts[1:]
    tails = (base.joinpath(*parts[start:]) for start in range(1, len(parts)))
    return next((tail for tail in tails if tail.exists()), path)


def _catalogue_spelling(given: str, known: Sequence[str]) -> str:
    """Return the category in the catalogue's spelling, or unchanged if the catalogue does not list it."""
    return next((name for name in known if normalize_name(name) == normalize_name(given)), given)


def _list_file(root: Path, files: Sequence[str], pattern: str) -> Path | None:
    if root.is_file():
        return root if root.suffix.lower() == Path(pattern).suffix else None
    for name in files:
        if (root / name).is_file():
            return root / name
    matches = sorted(root.glob(pattern)) if pattern.startswith("meta") or not files else []
    return matches[0] if len(matches) == 1 else None


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read as JSON ({error}).") from error


def _cell(row: dict[str, Any], name: str | None) -> str:
    return str(row.get(name) or "").strip() if name is not None else ""


def _label(text: str, table: Path, line: int) -> int:
    word = text.lower()
    if word in _NORMAL or word in _ANOMALOUS:
        return int(word in _ANOMALOUS)
    raise UsageError(f"{table}, line {line}: {text!r} is no label; write 0 or normal, 1 or anomaly.")
