"""Tables: rows survive crashes, odd texts, and full disks."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from blemish.detection import Detection, Provenance, Timing
from blemish.errors import ImageError, OutputError, UsageError
from blemish.outputs.tables import (
    COLUMNS,
    Csv,
    JsonLines,
    Parquet,
    finished,
    input_key,
    open_table,
    settings_fingerprint,
)

ODD = 'a,"b"\n=ü.png'


def made(path="a.png", **change):
    given = {
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
    return Detection(**{**given, **change})


def test_json_lines_hold_everything(tmp_path):
    path = tmp_path / "new" / "results.jsonl"
    with JsonLines(path) as table:
        table.add(made(ODD))
        assert path.read_bytes().endswith(b"\n")  # on disk before the table is closed
        table.add_error("bad.png", ImageError("it is broken.", "bad.png"))
    first, second = map(json.loads, path.read_text().splitlines())
    assert first["path"] == ODD
    assert first["regions"][0]["area"] == 1
    assert first["provenance"]["method"] == "winclip"
    assert (first["error"], second) == (None, {"path": "bad.png", "error": "it is broken."})


def test_resuming(tmp_path):
    for name in ("done.png", "bad.png", "changed.png"):
        (tmp_path / name).write_bytes(b"1")
    settings = settings_fingerprint({"method": "winclip", "size": 240})
    assert settings == settings_fingerprint({"size": 240, "method": "winclip"})
    keys = {name: input_key(tmp_path / name, settings) for name in ("done.png", "bad.png", "changed.png")}
    path = tmp_path / "results.jsonl"
    assert finished(path) == set()
    table = JsonLines(path)
    table.add(made("done.png"), key=keys["done.png"])
    table.add(made("changed.png"), key=keys["changed.png"])
    table.add_error("bad.png", "broken.")
    with path.open("ab") as stream:
        stream.write(b'{"path": "cut off in wri')
    (tmp_path / "changed.png").write_bytes(b"22")
    done = finished(path)
    assert done == {keys["done.png"], keys["changed.png"]}
    assert input_key(tmp_path / "done.png", settings) in done
    assert input_key(tmp_path / "changed.png", settings) not in done
    assert input_key(tmp_path / "done.png", "other settings") not in done
    assert input_key(tmp_path / "gone.png", settings) is None
    table.close()
    with JsonLines(path, resume=True) as again:
        again.add(made("more.png"))
    assert [json.loads(line)["path"] for line in path.read_text().splitlines()] == [
        "done.png",
        "changed.png",
        "bad.png",
        "more.png",
    ]
    with pytest.raises(UsageError, match="cannot read"):
        finished(tmp_path)


def test_csv_quotes_what_it_must(tmp_path):
    path = tmp_path / "results.csv"
    with Csv(path) as table:
        table.add(made(ODD))
    with Csv(path, resume=True) as table:
        table.add(made(threshold=None, path=None, provenance=None, notes=()))
        table.add_error("\udcff.png", "broken, alas.")
    first, second = read_csv(path)[:2]
    assert first["path"] == ODD
    assert (first["score"], first["anomalous"], first["regions"], first["seconds"]) == ("0.25", "false", "1", "1.0")
    assert first["notes"] == "turned by EXIF; first of 2 frames"
    assert list(first) == list(COLUMNS)
    assert (second["anomalous"], second["regions"], second["method"]) == ("", "", "")
    assert b"\xff.png" in path.read_bytes()


def read_csv(path):
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        return list(csv.DictReader(stream))


def test_parquet_by_row_groups(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "results.parquet"
    with Parquet(path, group=2) as table:
        for number in range(5):
            table.add(made(f"{number}.png"))
        assert not path.exists()  # appears whole
    assert parquet.ParquetFile(path).num_row_groups == 3
    with Parquet(path, resume=True) as table:
        table.add_error("\udcff.png", "broken.")
    rows = parquet.read_table(path).to_pylist()
    assert [row["path"] for row in rows] == ["0.png", "1.png", "2.png", "3.png", "4.png", "\\udcff.png"]
    assert (rows[0]["score"], rows[0]["anomalous"], rows[0]["regions"]) == (0.25, False, 1)
    assert rows[5]["score"] is None
    assert os.listdir(tmp_path) == ["results.parquet"]  # noqa: PTH208
    other = tmp_path / "other.parquet"
    other.write_bytes(b"not parquet")
    with pytest.raises(UsageError, match="no Parquet table"):
        Parquet(other, resume=True)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["other.parquet", "results.parquet"]


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'blemish\[parquet\]'"):
        open_table(tmp_path / "results.parquet")


def test_the_suffix_chooses_the_table(tmp_path):
    for suffix, kind in ((".jsonl", JsonLines), (".CSV", Csv)):
        with open_table(tmp_path / f"results{suffix}") as table:
            assert type(table) is kind
    with pytest.raises(UsageError, match=r"end its name in \.jsonl, \.csv or \.parquet"):
        open_table(tmp_path / "results.xls")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the always full device")
def test_a_full_disk_is_one_sentence():
    table = JsonLines("/dev/full")
    with pytest.raises(OutputError, match="the disk is full; free some space and run again") as caught:
        table.add(made())
    assert caught.value.path == "/dev/full"
    table.close()
    with pytest.raises(UsageError, match="closed"):
        table.add(made())
    with pytest.raises(OutputError, match="the disk is full"):
        Csv("/dev/full")


def test_no_permission_is_one_sentence(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputError, match="check the permissions"):
        Csv(tmp_path / "results.csv")
