"""`blemish datasets` and `blemish datasets check`."""

from __future__ import annotations

import json
from pathlib import Path

from blemish.datasets import info, names
from dataset_trees import folders, mask, picture


def test_list(run) -> None:
    outcome = run("datasets")
    assert outcome.code == 0
    assert [line.split()[0] for line in outcome.out.splitlines()[1:]] == names()
    assert "467 + 1,258" in outcome.out


def test_list_as_json(run) -> None:
    rows = [json.loads(line) for line in run("datasets", "--json").out.splitlines()]
    assert [row["name"] for row in rows] == names()
    bottle = next(row for row in rows if row["name"] == "mvtec")
    assert bottle["published_test"]["bottle"] == {"normal": 20, "anomalous": 63}
    assert bottle["labels"] == {"image": True, "pixel": True}
    assert [row["name"] for row in rows if any(layout["assumed"] for layout in row["layouts"])] == ["gc", "msd", "road"]


def test_check_names_what_is_wrong(run, tmp_path: Path) -> None:
    folders("bottle", "grid")(tmp_path)
    (tmp_path / "bottle" / "ground_truth" / "bad" / "002_mask.png").unlink()
    mask(tmp_path / "grid" / "ground_truth" / "bad" / "001_mask.png", size=(3, 3))
    outcome = run("datasets", "check", "mvtec", tmp_path)
    assert outcome.code == 1
    for words in (
        "test, bottle: 2 normal, 20 published (18 missing)",
        "test: the category cable is missing",
        "picture without mask: 1 file",
        "002.png",
        "mask of 3 x 3 for a picture of 12 x 8 pixels: 1 file",
        "001_mask.png",
        "the data set differs or is damaged",
    ):
        assert words in outcome.out, outcome.out
    facts = json.loads(run("datasets", "check", "mvtec", tmp_path, "--json").out)
    assert not facts["ok"]
    assert {issue["kind"].split()[0] for issue in facts["issues"]} == {"picture", "mask"}
    row = next(row for row in facts["counts"] if (row["split"], row["category"]) == ("test", "grid"))
    assert (row["normal"], row["anomalous"], row["masked"], row["differs"]) == (2, 3, 3, True)


def test_check_of_a_complete_set(run, tmp_path: Path, monkeypatch) -> None:
    from dataclasses import replace

    from blemish.datasets import Counts, catalog

    small = replace(info("kvasir"), counts={"test": Counts(0, 2)})
    monkeypatch.setattr(catalog, "_BY_ALIAS", {"kvasir": small})
    for number in range(2):
        picture(tmp_path / "images" / f"{number}.png")
        mask(tmp_path / "masks" / f"{number}.png")
    outcome = run("datasets", "check", "kvasir", tmp_path)
    assert outcome.code == 0, outcome.out
    assert "all counts are as published" in outcome.out
    picture(tmp_path / "images" / "9.png")
    outcome = run("datasets", "check", "kvasir", tmp_path)
    assert outcome.code == 1
    assert "3 anomalous, 2 published (1 more)" in outcome.out


def test_check_of_damaged_files(run, tmp_path: Path) -> None:
    folders("cup")(tmp_path)
    (tmp_path / "cup" / "test" / "good" / "000.png").write_bytes(b"x")
    (tmp_path / "cup" / "ground_truth" / "bad" / "000_mask.png").write_bytes(b"x")
    outcome = run("datasets", "check", "folder", tmp_path)
    assert outcome.code == 1
    assert "unreadable picture: 1 file" in outcome.out
    assert "unreadable mask: 1 file" in outcome.out


def test_check_errors(run, tmp_path: Path) -> None:
    for words in (("mvtek", tmp_path), ("mvtec", tmp_path / "nowhere"), ("mvtec", tmp_path)):
        outcome = run("datasets", "check", *words)
        assert outcome.code == 2
        assert outcome.err.startswith("blemish: ")
        assert "Traceback" not in outcome.err


def test_check_accounts_for_every_file(run, tmp_path: Path) -> None:
    folders(".")(tmp_path)
    picture(tmp_path / "old (copy)" / "test" / "good" / "0.png")
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "photo.psd").write_bytes(b"x")
    outcome = run("datasets", "check", "folder", tmp_path)
    assert outcome.code == 0
    lines = [" ".join(line.split()) for line in outcome.out.splitlines()]
    assert "files: 12" in lines
    assert "3 mask" in lines
    assert "2 normal picture, test" in lines
    assert "1 normal picture, train" in lines
    assert "1 left out: file of the system Thumbs.db" in lines
    assert "1 left out: set aside by the folder's name old (copy)/test/good/0.png" in lines
    assert "1 left out: layered picture: export it as PNG or TIFF photo.psd" in lines
    facts = json.loads(run("datasets", "check", "folder", tmp_path, "--json").out)
    assert facts["files"]["total"] == 12
    assert sum(facts["files"]["read"].values()) + sum(facts["files"]["left_out"].values()) == 12
    assert {Path(row["path"]).name for row in facts["left_out"]} >= {"Thumbs.db", "0.png"}
    assert all(row["reason"] for row in facts["left_out"])


def test_check_of_masks_that_mark_nothing(run, tmp_path: Path) -> None:
    folders("cup")(tmp_path)
    mask(tmp_path / "cup" / "ground_truth" / "bad" / "001_mask.png", value=0)
    outcome = run("datasets", "check", "folder", tmp_path)
    assert outcome.code == 1
    assert "001_mask.png" in outcome.out
