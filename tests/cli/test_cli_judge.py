"""`blemish judge` as users call it, and what `detect` leaves for it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from blemish.maps import decode_map


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def out(detect, pictures: Path, tmp_path: Path) -> Path:
    assert detect(pictures, "--out", tmp_path / "out").code == 0
    return tmp_path / "out"


def test_another_threshold(run, detect, pictures: Path, out: Path) -> None:
    scores = sorted(line["score"] for line in lines((out / "results.jsonl").read_text()))
    assert [row["score"] for row in table(out)] == [f"{score:.6f}" for score in scores[::-1]]
    outcome = run("judge", out, "--threshold", scores[3], "--mask-threshold", "50%")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[0].split() == ["RANK", "SCORE", "VERDICT", "PICTURE"]
    assert "5 pictures, 2 rejected, 3 passed. Judged without the model in" in outcome.out
    assert [row["verdict"] for row in table(out)] == ["reject"] * 2 + ["pass"] * 3
    outcome = run("judge", out, "--threshold", "1", "--review-threshold", scores[1])
    assert "5 pictures, 0 rejected, 4 to review, 1 passed (before: 2 rejected, 0 to review, 3 passed)" in outcome.out
    assert "5 pictures complete" not in detect(pictures, "--out", out, "--threshold", "1").err


def test_files_tables_and_a_report(run, out: Path, tmp_path: Path) -> None:
    words = ("--threshold", "0.2", "--save", "mask,regions", "--format", "csv,coco,cvat", "--report")
    outcome = run("judge", out, *words, "--out", tmp_path / "new")
    assert outcome.code == 0, outcome.err
    new = {path.name for path in (tmp_path / "new").iterdir()}
    assert {"mask", "map", "regions.json", "coco_results.json", "cvat.xml", "report.html", "results.csv"} < new
    assert not (out / "mask").exists()
    assert "report.html" in outcome.out
    again = run("judge", tmp_path / "new", "--threshold", "0.9")
    assert "report.html shows the verdicts of before: --report writes it again." in again.out
    assert "cvat.xml" in again.out  # what there is does not stay behind


def test_json(run, out: Path) -> None:
    outcome = run("judge", out, "--threshold", "0.5", "--json")
    found = lines(outcome.out)
    assert [line["threshold"] for line in found] == [0.5] * 5
    assert all(line["judged"] and line["run"] for line in found)
    assert "5 pictures, " in outcome.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--threshold", "1.5"), "--threshold must be a number from 0 to 1"),
        (("--min-area", "0"), "--min-area must be at least 1"),
        (("--save", "map"), "--save does not know 'map'"),
        (("--save", "mask"), "mask needs a threshold"),
        (("--format", "jsonl"), "--format does not know 'jsonl'"),
        (("--profile", "gone.profile"), "there is no profile gone.profile"),
    ],
)
def test_wrong_words(run, out: Path, words: tuple[str, ...], sentence: str) -> None:
    outcome = run("judge", out, *words)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert sentence in outcome.err


def test_a_folder_that_is_none(run, tmp_path: Path) -> None:
    outcome = run("judge", tmp_path / "gone", "--threshold", "0.5")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "holds no results" in outcome.err


def test_maps_are_kept_unless_told_otherwise(detect, run, pictures: Path, out: Path, tmp_path: Path) -> None:
    kept = lines((out / "results.jsonl").read_text())
    assert all(decode_map((out / line["files"]["map-png"]).read_bytes()).step == 1 for line in kept)
    bare = tmp_path / "bare"
    assert detect(pictures, "--out", bare, "--no-maps", "--save", "heatmap").code == 0
    assert not (bare / "map").exists()
    outcome = run("judge", bare, "--threshold", "0")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "5 of 5 pictures in" in outcome.err
    assert "run detect again" in outcome.err


def test_a_folder_says_what_else_it_holds(detect, pictures: Path, out: Path) -> None:
    assert "of other pictures" not in detect(pictures, "--out", out).err
    outcome = detect(pictures / "sub", "--out", out, "--threshold", "0.5")
    assert f"{out}: keeps 5 results of other pictures, from run 2" in outcome.err
    assert {row["run"] for row in table(out)} == {line["run"] for line in lines((out / "runs.jsonl").read_text())}
    assert [row["verdict"] for row in table(out)].count("") == 5


def test_a_report_needs_a_folder(detect, pictures: Path) -> None:
    outcome = detect(pictures, "--report")
    assert (outcome.code, outcome.err) == (2, "blemish: --report needs a folder to write to: give --out DIR\n")


def test_detect_writes_a_report(detect, pictures: Path, tmp_path: Path) -> None:
    (pictures / "broken.png").write_bytes(b"")
    outcome = detect(pictures, "--out", tmp_path / "out", "--report", "--threshold", "0.5")
    assert outcome.code == 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count('<script type="application/json" id="picture-') == 6
    assert "report.html" in outcome.out
