"""`blemish evaluate --shots` and `blemish submit`: what they print, what they leave, how they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blemish.evaluation import submission
from helpers import save_picture


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One category: good pictures for references, and a few of each label to score."""
    for number in range(5):
        save_picture(tmp_path / "data/train/good" / f"{number}.png", seed=number)
    for number in range(3):
        save_picture(tmp_path / "data/test/good" / f"{number}.png", seed=number + 10)
        save_picture(tmp_path / "data/test/hole" / f"{number}.png", seed=number + 20)
    return tmp_path / "data"


def test_shots(run, data: Path, tiny_backbone: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    words = ("evaluate", "--data", data, "--backbone", tiny_backbone, "--device", "cpu", "--methods", "winclip")
    done = run(*words, "--shots", "1,4", "--seeds", 2, "--false-alarms", "20%", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "Promise against measured false alarms" in done.out
    assert "winclip" in done.out
    assert "of 2 draws the number of alarms" in done.out
    assert (tmp_path / "out" / "few_shot.md").is_file()
    rows = [json.loads(line) for line in run(*words, "--shots", "4", "--seeds", 1, "--json").out.splitlines()]
    assert [(row["shots"], row["references"], row["promise"]) for row in rows] == [(4, "train", pytest.approx(0.2))]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--seeds", "5"), "--seeds belongs to a protocol"),
        (("--false-alarms", "5%"), "--false-alarms belongs to the few-shot protocol"),
        (("--shots", "1", "--defect-shares", "10%"), "are two protocols"),
        (("--shots", "4", "--profile", "a.profile"), "leave out --profile"),
        (("--defect-shares", "0"), "takes shares such as 10%,30%,60%"),
        (("--defect-shares", "half"), "--defect-shares"),
        (("--defect-shares", "50%", "--maps", "--out", "x"), "--defect-shares goes with none of"),
        (("--shots", "1,x"), "takes numbers of pictures such as 1,2,4,8,16, not '1,x'"),
        (("--shots", "4", "--limit", "4"), "--shots goes with none of"),
        (("--shots", "4", "--methods", "clip"), "clip takes no references"),
        (("--shots", "0"), "at least one reference"),
    ],
)
def test_usage_errors(run, data: Path, tiny_backbone: Path, words: tuple[str, ...], part: str) -> None:  # type: ignore[no-untyped-def]
    methods = () if "--methods" in words else ("--methods", "winclip")
    done = run("evaluate", "--data", data, "--backbone", tiny_backbone, "--device", "cpu", *methods, *words)
    assert done.code == 2
    assert part in done.err
    assert "Traceback" not in done.err


def test_defect_shares(run, data: Path, tiny_backbone: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    words = ("evaluate", "--data", data, "--backbone", tiny_backbone, "--device", "cpu", "--defect-shares", "25%,50%")
    done = run(*words, "--seeds", 2, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "± over draws of the sets" in done.out
    assert (tmp_path / "out" / "batches.md").is_file()
    rows = [json.loads(line) for line in run(*words, "--seeds", 1, "--json").out.splitlines()]
    assert [(row["method"], row["share"], row["pictures"]) for row in rows] == [("musc", 0.25, 4), ("musc", 0.5, 4)]


def test_submit(run, tiny_backbone: Path, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(submission, "PICTURES", {"can": 1})
    for split, ending in submission.SPLITS.items():
        save_picture(tmp_path / "data" / "can" / split / f"000_{ending}.png", seed=len(split))
    good = [save_picture(tmp_path / "good" / f"{number}.png", seed=number) for number in range(3)]
    place = ("--backbone", tiny_backbone, "--device", "cpu")
    (tmp_path / "profiles").mkdir()
    words = ("submit", tmp_path / "out", "--data", tmp_path / "data", *place)
    missing = run(*words, "--profiles", tmp_path / "profiles")
    assert missing.code == 2
    assert "has no can.profile: make it with blemish fit" in missing.err
    fitted = run("fit", *good, "--method", "winclip", "--out", tmp_path / "profiles" / "can.profile", *place)
    assert fitted.code == 0, fitted.err
    done = run(*words, "--profiles", tmp_path / "profiles", "--pack")
    assert done.code == 0, done.err
    assert "complete: 2 maps and as many masks" in done.out
    assert (tmp_path / "out.tar.gz").is_file()
    (tmp_path / "out" / "anomaly_images" / "can" / "test_private" / "000_regular.tiff").unlink()
    checked = run("submit", tmp_path / "out", "--check")
    assert checked.code == 1
    assert "lacks 000_regular.tiff" in checked.err
    assert run(*words, "--method", "clip", "--threshold", "50%").code == 0


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ((), "give --data with the folder of MVTec AD 2"),
        (("--data", "x"), "give --profiles DIR"),
        (("--data", "x", "--profiles", "y", "--method", "clip"), "give --profiles DIR"),
        (("--data", "x", "--method", "clip"), "give --threshold, fixed before"),
    ],
)
def test_submit_usage_errors(run, tmp_path: Path, words: tuple[str, ...], part: str) -> None:  # type: ignore[no-untyped-def]
    done = run("submit", tmp_path / "out", *words)
    assert done.code == 2
    assert part in done.err
