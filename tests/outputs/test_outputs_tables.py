"""Tables made from journal lines: odd texts, empty values, COCO."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from blemish.detection import Detection, Provenance, Timing
from blemish.errors import OutputError, UsageError
from blemish.outputs import tables
from blemish.outputs.tables import COLUMNS, table_row, write_coco, write_csv, write_parquet
from helpers import decode_mask

ODD = 'a,"b"\n=ü.png'
VALUES = np.zeros((6, 8), np.float32)
VALUES[1:5, 1:5] = 0.9
VALUES[2, 2] = 0.1  # a hole
VALUES[0, 7] = 0.7


def line(path="a.png", **change):
    settings = {
        "score": 0.25,
        "anomaly_map": np.array([[0.0, 0.75]], np.float32),
        "map_range": (0.0, 1.0),
        "size": (2, 1),
        "path": path,
        "threshold": 0.5,
        "notes": ("turned by EXIF", "first of 2 frames"),
        "timing": Timing(0.1, 0.2, 0.3, 0.4),
        "provenance": Provenance("winclip", "builtin", "0123456789abcdef"),
    }
    return json.loads(json.dumps({**Detection(**{**settings, **change}).to_dict(), "error": None}))


def failed(path):
    return {"path": path, "error": "broken, alas."}


def rows(*lines):
    return map(table_row, lines)


def read_csv(path):
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        return list(csv.DictReader(stream))


def test_csv_quotes_what_it_must(tmp_path):
    path = tmp_path / "new" / "results.csv"
    bare = line(threshold=None, path=None, provenance=None, notes=())
    write_csv(path, rows(line(ODD), bare, failed("\udcff.png")))
    first, second, third = read_csv(path)
    assert first["path"] == ODD
    assert (first["score"], first["label"], first["regions"], first["seconds"]) == ("0.25", "0", "1", "1.0")
    assert first["notes"] == "turned by EXIF; first of 2 frames"
    assert list(first) == list(COLUMNS)
    assert (second["label"], second["regions"], second["method"]) == ("", "", "")
    assert (third["score"], third["error"]) == ("", "broken, alas.")
    assert b"\xff.png" in path.read_bytes()


def test_parquet_by_row_groups(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(tables, "_GROUP", 2)
    path = tmp_path / "results.parquet"
    write_parquet(path, rows(*(line(f"{number}.png") for number in range(5)), failed("\udcff.png")))
    assert parquet.ParquetFile(path).num_row_groups == 3
    table = parquet.read_table(path).to_pylist()
    assert [row["path"] for row in table] == ["0.png", "1.png", "2.png", "3.png", "4.png", "\\udcff.png"]
    assert (table[0]["score"], table[0]["label"], table[0]["regions"]) == (0.25, 0, 1)
    assert table[5]["score"] is None
    assert [item.name for item in tmp_path.iterdir()] == ["results.parquet"]


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'blemish\[parquet\]'"):
        write_parquet(tmp_path / "results.parquet", [])


def test_coco(tmp_path):
    size = {"anomaly_map": VALUES, "size": (8, 6)}
    lines = [
        line("in/clean.png", threshold=1.0, **size),
        line("in/ü\n.png", mask_threshold=0.8, **size),
        line("in/a.png", **size),
        line("in/unmarked.png", threshold=None, **size),
        failed("in/broken.png"),
    ]
    write_coco(tmp_path / "regions.json", lambda: lines)
    coco = json.loads((tmp_path / "regions.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["in/clean.png", "in/ü\n.png", "in/a.png"]
    assert [image["id"] for image in coco["images"]] == [1, 2, 3]
    assert [(entry["id"], entry["image_id"]) for entry in coco["annotations"]] == [(1, 2), (2, 3), (3, 3)]
    holed, plain = coco["annotations"][1:]
    np.testing.assert_array_equal(decode_mask(holed["segmentation"]), VALUES > 0.8)
    assert holed["bbox"] == [1, 1, 4, 4]
    assert holed["area"] == 15
    corners = list(zip(plain["segmentation"][0][::2], plain["segmentation"][0][1::2], strict=True))
    assert set(corners) == {(7, 0), (8, 0), (8, 1), (7, 1)}
    assert coco["categories"] == [{"id": 1, "name": "anomaly"}]


def test_no_permission_is_one_sentence(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputError, match="check the permissions"):
        write_csv(tmp_path / "results.csv", [])
