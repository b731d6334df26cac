"""`blemish detect` where all goes well, or well enough."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from blemish.methods.builtin import TYPICAL_SCORES
from helpers import save_picture


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_ranks_a_folder(detect, pictures: Path) -> None:
    outcome = detect(pictures)
    assert outcome.code == 0
    rows = [line.split() for line in outcome.out.splitlines()[1:6]]
    assert {Path(row[-1]).name for row in rows} == {"a.png", "b.jpg", "c.bmp", "d.png", "e.jpg"}
    scores = [float(row[1]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert "ranked only, since no threshold was given" in outcome.out
    for word in ("clip", "float32", "cpu"):
        assert word in outcome.out
    assert outcome.err == ""


def test_says_what_undamaged_things_mostly_score(run, detect, pictures: Path) -> None:
    options = ("detect", pictures / "a.png", "--method", "clip", "--device", "cpu")
    sentence = f"undamaged things mostly score below {TYPICAL_SCORES['clip'][0]:g} with clip."
    assert sentence in run(*options).out
    assert sentence in run(*options, "--threshold", 0.4).out
    assert "mostly score below" not in run(*options, "--config", '{"sigma": 1.0}').out
    assert "mostly score below" not in detect(pictures).out


def test_searches_subfolders_on_request(detect, pictures: Path) -> None:
    assert "f.png" in detect(pictures, "--recursive").out


def test_gives_verdicts_with_a_threshold(detect, pictures: Path) -> None:
    assert detect(pictures, "--threshold", 0).out.count("reject") == 5 + 1
    assert detect(pictures, "--threshold", 1).out.count("pass") == 5 + 1


@pytest.mark.parametrize(("given", "value"), [("80%", 0.8), ("12.5 %", 0.125), ("0%", 0.0), ("0.8", 0.8)])
def test_a_threshold_may_be_a_percentage(detect, pictures: Path, given: str, value: float) -> None:
    row = lines(detect(pictures / "a.png", "--json", "--threshold", given, "--mask-threshold", given).out)[0]
    assert row["threshold"] == row["mask_threshold"] == value


def test_files_and_patterns_come_once(detect, pictures: Path) -> None:
    outcome = detect(pictures / "a.png", f"{pictures}/**/*.png", pictures / "a.png", "--json")
    assert [Path(line["path"]).name for line in lines(outcome.out)] == ["a.png", "d.png", "f.png"]


@pytest.mark.parametrize("divider", ["\n", "\0", "\r\n"])
def test_list_on_standard_input(detect, pictures: Path, monkeypatch: pytest.MonkeyPatch, divider: str) -> None:
    names = ["d.png", "a.png", "gone.png"]
    listed = divider.join(str(pictures / name) for name in names) + divider
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(listed.encode())))
    outcome = detect("-", "--json")
    assert outcome.code == 1  # a list may name what is gone: the others are done
    assert [Path(line["path"]).name for line in lines(outcome.out)] == names
    assert "does not exist" in lines(outcome.out)[2]["error"]


def test_json_is_all_that_is_on_standard_output(detect, pictures: Path, tmp_path: Path) -> None:
    found = lines(detect(pictures, "--json", "--threshold", 0.1).out)
    assert len(found) == 5
    assert found[0]["provenance"]["method"] == "clip"
    assert found[0]["regions"]
    kept = lines(detect(pictures, "--json", "--out", tmp_path / "out").out)
    assert kept[0]["files"] == {"overlay": "overlay/a.png.png", "map-png": "map/a.png.png"}


def test_csv_on_standard_output(detect, pictures: Path) -> None:
    (pictures / "broken.png").write_bytes(b"")
    rows = list(csv.DictReader(io.StringIO(detect(pictures, "--format", "csv").out)))
    assert len(rows) == 6
    assert [bool(row["error"]) for row in rows] == [False] * 5 + [True]


def test_writes_what_is_asked_for(detect, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kinds = "map,heatmap,overlay,mask,regions"
    words = ("--out", out, "--save", kinds, "--threshold", 0.4, "--format", "table,csv,parquet", "--recursive")
    outcome = detect(pictures, *words)
    assert outcome.code == 0
    assert str(out) in outcome.out
    for kind, suffix in (("map", ".npy"), ("heatmap", ".png"), ("overlay", ".png"), ("mask", ".png")):
        assert (out / kind / "sub" / f"f.png{suffix}").is_file()
        assert len(list((out / kind).rglob(f"*{suffix}"))) == 6
    with Image.open(out / "overlay" / "a.png.png") as overlay:
        assert overlay.size == (40, 30)
    assert len(json.loads((out / "regions.json").read_text())["images"]) == 6
    assert len((out / "results.csv").read_text().splitlines()) == 7
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(out / "results.parquet")
    assert table.num_rows == 6
    assert set(table["method"].to_pylist()) == {"clip"}


def test_same_names_in_two_folders_stay_apart(detect, tmp_path: Path) -> None:
    one = save_picture(tmp_path / "one" / "x.png", 1)
    two = save_picture(tmp_path / "two" / "x.png", 2)
    out = tmp_path / "out"
    assert detect(one, two, "--out", out).code == 0
    assert len(list((out / "overlay").rglob("*.png"))) == 2
    # In runs of their own both are called x.png; the second must not take the first one's place.
    out = tmp_path / "out2"
    detect(one, "--out", out)
    detect(two, "--out", out)
    assert len(list((out / "overlay").rglob("*.png"))) == 2
    assert len(lines((out / "results.jsonl").read_text())) == 2


def test_results_inside_the_folder_of_pictures_are_no_pictures(detect, pictures: Path) -> None:
    out = pictures / "out"
    detect(pictures, "--out", out, "--recursive")
    again = detect(pictures, "--out", out, "--recursive")
    assert "12 pictures in" in again.err
    assert "skipped: they are results" in again.err
    assert len(list((out / "overlay").rglob("*.png"))) == 6


def test_an_object_name_that_is_not_used(run, pictures: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    from blemish.clip import load_backbone
    from blemish.methods import checkpoints, create

    path = tmp_path / "learnt.safetensors"
    checkpoints.save(create("anomalyclip", load_backbone(str(tiny_backbone))), path)
    words = ("--weights", path, "--backbone", tiny_backbone, "--object", "nut")
    outcome = run("detect", pictures / "a.png", *words)
    assert outcome.code == 0, outcome.err
    assert "--object changes nothing" in outcome.err
    assert "learnt.safetensors" in outcome.out


def test_names_that_are_odd(detect, tmp_path: Path) -> None:
    folder = tmp_path / "ph otos"
    save_picture(folder / "ünïcode 名前.png")
    if os.name != "nt":
        save_picture(folder / "new\nline.png")
        (folder / os.fsdecode(b"not-utf8-\xff.png")).write_bytes((folder / "new\nline.png").read_bytes())
    outcome = detect(folder, "--out", tmp_path / "out", "--format", "table,csv,parquet")
    assert outcome.code == 0, outcome.err
    assert len(lines((tmp_path / "out" / "results.jsonl").read_text())) == len(list(folder.iterdir()))


def test_two_hundred_pictures_with_five_broken(detect, tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    suffixes = ("png", "jpg", "bmp", "webp", "tif", "gif")
    for number in range(195):
        save_picture(folder / f"{number}.{suffixes[number % 6]}", number % 7, (24 + number % 9, 20))
    whole = (folder / "1.jpg").read_bytes()
    broken = {
        "empty.png": b"",
        "text.jpg": b"this is no picture",
        "cut.jpg": whole[: len(whole) // 2],
        "header.png": b"\x89PNG\r\n\x1a\n",
        "half.png": (folder / "0.png").read_bytes()[:200],
    }
    for name, content in broken.items():
        (folder / name).write_bytes(content)

    outcome = detect(folder, "--out", out, "--batch-size", 16)
    assert outcome.code == 1
    assert "5 pictures failed, 195 of 200 scored" in outcome.err
    for name in broken:
        assert sum(name in line for line in outcome.err.splitlines()) == 1
    found = lines((out / "results.jsonl").read_text())
    assert len({Path(line["path"]).name for line in found if line["error"] is None}) == 195
    assert {Path(line["path"]).name for line in found if line["error"] is not None} == set(broken)
    assert len(list((out / "overlay").iterdir())) == 195
    before = {path: path.stat().st_mtime_ns for path in (out / "overlay").iterdir()}

    again = detect(folder, "--out", out)
    assert again.code == 1
    assert "195 pictures complete with the same settings: skipped" in again.err
    assert "5 pictures failed, 195 of 200 scored" in again.err
    assert {path: path.stat().st_mtime_ns for path in (out / "overlay").iterdir()} == before
    assert len(lines((out / "results.jsonl").read_text())) == 200
    assert again.out.splitlines()[1:196] == outcome.out.splitlines()[1:196]


def test_regions_for_other_tools_and_deep_maps(detect, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    formats = "table,coco,yolo,labelme,cvat,label-studio"
    words = ("--out", out, "--save", "map-png,map-tiff", "--format", formats, "--threshold", 0.4, "--recursive")
    outcome = detect(pictures, *words)
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("map/") == 1
    assert "map-png/" not in outcome.out
    for file in ("regions.json", "coco_results.json", "cvat.xml", "label_studio.json", "label_studio.xml"):
        assert (out / file).is_file()
        assert file in outcome.out
    assert (out / "yolo/labels/sub/f.txt").is_file()
    assert len(list((out / "labelme").rglob("*.json"))) == 6
    assert (out / "map/sub/f.png.png").is_file()
    assert (out / "map/sub/f.png.tiff").is_file()
    assert "complete with the same settings: skipped" in detect(pictures, *words).err
