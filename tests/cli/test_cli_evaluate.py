"""`blemish evaluate`: what it prints, what it leaves, how it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import save_picture

Run = Callable[..., "object"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One category, four pictures."""
    for number in range(2):
        save_picture(tmp_path / "data/test/good" / f"{number}.png", seed=number)
        save_picture(tmp_path / "data/test/hole" / f"{number}.png", seed=number + 5)
        mask = np.zeros((30, 40), np.uint8)
        mask[5:15, 5:15] = 255
        (tmp_path / "data/ground_truth/hole").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "data/ground_truth/hole" / f"{number}_mask.png")
    return tmp_path / "data"


@pytest.fixture
def evaluate(run, data: Path, tiny_backbone: Path):  # type: ignore[no-untyped-def]
    def call(*words: object):  # type: ignore[no-untyped-def]
        fixed = ("--data", data, "--backbone", tiny_backbone, "--device", "cpu")
        methods = () if "--methods" in words else ("--methods", "clip,clip-ac")
        return run("evaluate", *fixed, *methods, *words)

    return call


def test_tables_and_files(evaluate, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = evaluate("--out", tmp_path / "out", "--report")
    assert done.code == 0, done.err
    assert "1 backbone pass per picture for 2 methods" in done.err
    assert "clip, clip-ac" in done.err
    assert "image AUROC" in done.out
    assert "pixel AUPRO" in done.out
    assert "4 pictures (2 anomalous) in 1 category" in done.out
    there = {path.name for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert there >= {"results.csv", "results.json", "results.md", "report.html", "scores.jsonl", "run.json"}
    second = evaluate("--out", tmp_path / "out")
    assert "8 scores of 8 are there already" in second.err


def test_folders_are_read_by_their_names(evaluate, data: Path) -> None:  # type: ignore[no-untyped-def]
    """Normal pictures are normal whatever the folder's case, and a copy in the data changes no number."""
    plain = [json.loads(line) for line in evaluate("--json").out.splitlines()]
    shutil.copytree(data / "test", data / "old (copy)" / "test")
    (data / "test" / "good").rename(data / "test" / "NORMAL")
    (data / "test").rename(data / "Test")
    (data / "ground_truth").rename(data / "GT")
    done = evaluate("--json")
    assert done.code == 0, done.err
    assert "left out: 4 files, such as old (copy)/test/good/0.png (set aside by the folder's name)" in done.err
    numbers = ("pictures", "anomalous", "image_auroc", "pixel_auroc", "pixel_aupro")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [[row.get(name) for name in numbers] for row in rows] == [
        [row.get(name) for name in numbers] for row in plain
    ]


def test_without_a_folder_no_files_are_named(evaluate) -> None:  # type: ignore[no-untyped-def]
    done = evaluate()
    assert done.code == 0, done.err
    assert "pixel AUPRO" in done.out
    assert "Results are in" not in done.out + done.err


def test_titles_stay_on_one_line(evaluate, data: Path) -> None:  # type: ignore[no-untyped-def]
    (data / "a").mkdir()
    for part in ("test", "ground_truth"):
        (data / part).rename(data / "a" / part)
    shutil.copytree(data / "a", data / "b")
    lines = evaluate("--methods", "clip").out.splitlines()
    assert "image AUROC by category, percent" in lines


def test_json_and_recompute(evaluate, run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    first = evaluate("--out", tmp_path / "out", "--maps", "--json")
    rows = [json.loads(line) for line in first.out.splitlines()]
    assert [(row["method"], row["mean"]) for row in rows] == [
        ("clip", False), ("clip", True), ("clip-ac", False), ("clip-ac", True)
    ]  # fmt: skip
    recomputed = run("evaluate", "--recompute", "--out", tmp_path / "out", "--json")
    assert recomputed.out == first.out
    fewer = run("evaluate", "--recompute", "--out", tmp_path / "out", "--json", "--methods", "clip-ac")
    assert fewer.out.splitlines() == first.out.splitlines()[2:]


def test_a_failure_is_named_and_the_exit_code_is_one(evaluate, data: Path) -> None:  # type: ignore[no-untyped-def]
    (data / "test/good/0.png").write_bytes(b"no picture")
    done = evaluate()
    assert done.code == 1
    assert "good/0.png" in done.err
    assert "3 pictures (2 anomalous)" in done.out


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ((), "--data"),
        (("--data", "nowhere"), "nowhere"),
        (("--data", ".", "--dataset", "mvtek"), "mvtec"),
        (("--data", ".", "--report"), "--out"),
        (("--data", ".", "--maps"), "--out"),
        (("--recompute",), "--out"),
        (("--recompute", "--out", "."), "no evaluation"),
        (("--data", ".", "--weights", "clip"), "METHOD=FILE"),
        (("--data", ".", "--methods", "clap"), "clip"),
        (("--data", ".", "--aupro", "fast"), "aupro"),
        (("--data", ".", "--limit", "1"), "--limit"),
    ],
)
def test_usage_errors(run, tmp_path: Path, monkeypatch, words: tuple[str, ...], part: str) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    done = run("evaluate", *words)
    assert done.code == 2
    assert part in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_full_masks_and_notes_on_masks(evaluate, data: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    marked = np.zeros((30, 40), np.uint8)
    marked[28, 2:4] = 255
    Image.fromarray(marked).save(data / "ground_truth/hole/0_mask.png")
    Image.new("L", (40, 30), 255).save(data / "ground_truth/hole/1_mask.png")
    done = evaluate("--methods", "clip", "--masks", "full", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "the mask marks every pixel: hole/1_mask.png" in done.err
    assert json.loads((tmp_path / "out" / "run.json").read_text())["masks"] == "full"
    wrong = evaluate("--methods", "clip", "--masks", "half")
    assert wrong.code == 2
    assert "half" in wrong.err
