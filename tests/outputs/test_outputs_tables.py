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
    with path.open(newline="", encoding="utf-8-sig") as stream:
        return list(csv.DictReader(stream))


def test_csv_is_for_people(tmp_path):
    path = tmp_path / "new" / "results.csv"
    bare = line(threshold=None, path=None, provenance=None, notes=())
    full = {**line("in/ü.png", p_value=0.01234, score=1 / 3), "name": "sub/ü.png", "run": "r1"}
    write_csv(
        path, [{**full, "files": {"overlay": "overlay/sub/ü.png.png"}}, bare, failed("\udcff.png")], {"r1": "today"}
    )
    first, second, third = read_csv(path)
    assert path.read_bytes().startswith(b"\xef\xbb\xbfname,score,verdict,p_value,regions,overlay,")
    assert (first["name"], first["overlay"]) == ("sub/ü.png", "overlay/sub/ü.png.png")
    assert (first["score"], first["verdict"], first["p_value"]) == ("0.333333", "pass", "0.0123")
    assert (first["regions"], first["threshold"], first["seconds"]) == ("1", "0.500000", "1.000")
    assert first["notes"] == "turned by EXIF; first of 2 frames"
    assert (first["run"], first["date"], first["path"]) == ("r1", "today", "in/ü.png")
    assert (second["verdict"], second["regions"], second["method"]) == ("", "", "")
    assert (third["name"], third["score"], third["error"]) == ("\\udcff.png", "", "broken, alas.")


@pytest.mark.parametrize("name", ["=1+1.png", "+a.png", "-a.png", "@sum.png", "\ta.png", "\ra.png"])
def test_no_name_is_a_formula(tmp_path, name):
    write_csv(tmp_path / "a.csv", [{**line(name), "name": name}, {**line(name), "error": "=cmd()"}])
    first, second = read_csv(tmp_path / "a.csv")
    assert first["name"] == first["path"] == f"'{name}"
    assert second["error"] == "'=cmd()"
    # A number is no text, whatever its sign.
    low = line(anomaly_map=np.array([[-0.5, -0.25]], np.float32), threshold=None)
    write_csv(tmp_path / "b.csv", [low, line(ODD)])
    assert [row["peak"] for row in read_csv(tmp_path / "b.csv")] == ["-0.2500", "0.7500"]
    assert read_csv(tmp_path / "b.csv")[1]["path"] == ODD


def test_parquet_by_row_groups(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(tables, "_GROUP", 2)
    path = tmp_path / "results.parquet"
    lines = [{**line(f"{number}.png"), "run": "r1"} for number in range(5)]
    write_parquet(path, rows(*lines, failed("\udcff.png")))
    assert parquet.ParquetFile(path).num_row_groups == 3
    table = parquet.read_table(path).to_pylist()
    assert [row["path"] for row in table] == ["0.png", "1.png", "2.png", "3.png", "4.png", "\\udcff.png"]
    assert (table[0]["score"], table[0]["label"], table[0]["regions"]) == (0.25, 0, 1)
    assert table[5]["score"] is None
    assert list(table[0]) == list(COLUMNS)
    assert {row["run"] for row in table} == {"r1", None}
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
