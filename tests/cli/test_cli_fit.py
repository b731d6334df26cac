"""`blemish fit`, and profiles in `detect` and `info`."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from blemish.profile import read_profile
from helpers import save_picture


@pytest.fixture
def good(tmp_path: Path) -> Path:
    for number in range(4):
        save_picture(tmp_path / "good" / f"{number}.png", 20 + number)
    return tmp_path / "good"


@pytest.fixture
def fit(run, tiny_backbone: Path):
    """Run `blemish fit WORDS` with the stand-in backbone."""

    def call(*words: object):
        return run("fit", *words, "--method", "winclip", "--backbone", tiny_backbone, "--device", "cpu")

    return call


@pytest.fixture
def profile(fit, good: Path, tmp_path: Path) -> Path:
    outcome = fit(good, "--out", tmp_path / "part.profile", "--object", "metal nut", "--review", "50%")
    assert outcome.code == 0, outcome.err
    assert "'metal nut' from 4 good pictures, by winclip" in outcome.out
    assert "Reject from a score of" in outcome.out
    assert "at most 20 %" in outcome.out
    assert "4 calibration pictures can promise 20 % false alarms at best; 1 % takes 99." in outcome.err
    return tmp_path / "part.profile"


def test_detect_gives_verdicts(run, profile: Path, pictures: Path, tmp_path: Path) -> None:
    outcome = run("detect", pictures, "--profile", profile)
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[0].split() == ["RANK", "SCORE", "P-VALUE", "VERDICT", "PICTURE"]
    assert "rejected" in outcome.out
    assert "to review" in outcome.out
    lines = [json.loads(line) for line in run("detect", pictures, "--profile", profile, "--json").out.splitlines()]
    lines = [line for line in lines if "score" in line]
    assert all(line["verdict"] in ("pass", "review", "reject") and 0 < line["p_value"] <= 1 for line in lines)
    assert all(line["provenance"]["profile"] == "part.profile" for line in lines)
    words = ("detect", pictures, "--profile", profile, "--out", tmp_path / "out", "--save", "overlay,mask,regions")
    assert run(*words).code == 0
    assert (tmp_path / "out" / "results.csv").read_text("utf-8-sig").startswith("name,score,verdict,p_value,regions")
    assert "5 pictures complete with the same settings" in run(*words).err
    assert "5 pictures scored before: judged again" in run(*words, "--threshold", "80%").err


def test_info(run, profile: Path) -> None:
    outcome = run("info", profile)
    assert outcome.code == 0, outcome.err
    for words in (
        "metal nut",
        "winclip",
        "leave-one-out",
        "at most 20 %",
        "same camera",
        "0.png",
        "reference",
        "float32",
    ):
        assert words in outcome.out
    facts = json.loads(run("info", profile, "--json").out)
    assert (facts["kind"], facts["method"], len(facts["good"])) == ("profile", "winclip", 4)
    assert facts["guarantee"]["scheme"] == "leave-one-out"
    assert facts["limits"]["threshold"] > 0


def test_json(fit, good: Path, tmp_path: Path) -> None:
    outcome = fit(good, "--out", tmp_path / "part", "--json", "--false-alarms", "0.2")
    assert outcome.code == 0, outcome.err
    facts = json.loads(outcome.out)
    assert facts["path"] == str(tmp_path / "part.profile")
    assert facts["false_alarms"] == 0.2


def test_changes(run, profile: Path, pictures: Path, tmp_path: Path) -> None:
    rejected = save_picture(tmp_path / "rejected.png", 31)
    defect = save_picture(tmp_path / "defect.jpg", 32)
    words = ("--add", pictures, "--add-rejected", rejected, "--known-defects", defect)
    outcome = run("fit", "--profile", profile, *words, "--device", "cpu")
    assert outcome.code == 0, outcome.err
    assert "from 10 good pictures" in outcome.out
    assert "1 good picture was added because of its score" in outcome.out
    assert "of 1 known defect is caught" in outcome.out
    facts = json.loads(run("info", profile, "--json").out)
    assert len(facts["good"]) == 10
    assert [(known["name"], sorted(known)) for known in facts["known_defects"]] == [
        (str(defect), ["fingerprint", "name", "score", "size"])
    ]
    lines = run("info", profile).out
    assert "reference, added because of its score" in lines
    assert "KNOWN DEFECT" in lines
    outcome = run("fit", "--profile", profile, "--remove", "0.png", "defect.jpg", "--device", "cpu")
    assert outcome.code == 0, outcome.err
    facts = json.loads(run("info", profile, "--json").out)
    assert (len(facts["good"]), facts["known_defects"]) == (9, [])


def test_known_defects_of_a_new_profile(fit, good: Path, tmp_path: Path) -> None:
    defect = save_picture(tmp_path / "defect.jpg", 32)
    outcome = fit(good, "--out", tmp_path / "part.profile", "--known-defects", defect)
    assert outcome.code == 0, outcome.err
    assert "known defect is caught" in outcome.out


def test_a_picture_of_the_profile_is_noted(run, profile: Path, good: Path, tmp_path: Path) -> None:
    assert "4 pictures of these made the profile" in run("detect", good, "--profile", profile).err
    copy = shutil.copyfile(next(good.iterdir()), tmp_path / "another name.png")
    assert "1 picture of these made the profile" in run("detect", copy, "--profile", profile).err


def test_a_region_of_interest_and_bad_pictures(fit, good: Path, pictures: Path, tmp_path: Path) -> None:
    words = (good, "--out", tmp_path / "part", "--roi", "0,0 20,0 20,30 0,30", "--bad", pictures, "--rule", "recall")
    outcome = fit(*words, "--recall", "60%")
    assert outcome.code == 0, outcome.err
    assert "of 5 pictures with defects are called anomalous" in outcome.err
    assert "can promise" not in outcome.err
    assert (
        "the highest that catches at least 60 % of the pictures with defects. This rule promises nothing" in outcome.out
    )
    assert "On the very pictures that chose it" in outcome.out
    assert "Region of interest" in outcome.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("GOOD",), "give --out part.profile"),
        (("--out", "x.profile"), "no good pictures are given"),
        (("GOOD/0.png", "--out", "x.profile"), "one good picture promises nothing"),
        (("GOOD", "--out", "x.profile", "--false-alarms", "1%"), "the smallest promise they can keep is 20 %"),
        (("GOOD", "--out", "x.profile", "--false-alarms", "few"), "0 to 1 or a percentage such as 80%, not 'few'"),
        (("GOOD", "--out", "x.profile", "--false-alarms", "5"), "from 0 to 1, not 5.0"),
        (("GOOD", "--out", "x.profile", "--rule", "f1"), "--rule f1 needs pictures with defects"),
        (("GOOD", "--out", "x.profile", "--cost", "many"), "MISS:FALSE-ALARM"),
        (("GOOD", "--out", "x.profile", "--overlap", "0.1"), "give --tile PIXELS"),
        (("GOOD", "--out", "x.profile", "--roi", "none.png"), "there is no region of interest none.png"),
        (("GOOD", "--add", "GOOD"), "--remove change a profile"),
        (("--profile", "x.profile"), "give --add, --add-rejected, --remove or --known-defects"),
        (("GOOD", "--profile", "x.profile"), "give more pictures with --add"),
    ],
)
def test_wrong_usage(fit, good: Path, tmp_path: Path, monkeypatch, words: tuple[str, ...], sentence: str) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = fit(*(word.replace("GOOD", str(good)) for word in words))
    assert outcome.code == 2, outcome.out
    assert sentence in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "x.profile").exists()


def test_a_method_without_references(run, good: Path, tmp_path: Path) -> None:
    outcome = run("fit", good, "--out", tmp_path / "x.profile", "--method", "clip")
    assert outcome.code == 2
    assert "clip compares with no good pictures" in outcome.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--object", "bolt"), "--object is fixed in the profile"),
        (("--method", "clip"), "--method is fixed in the profile"),
        (("--tile", "64"), "--tile is fixed in the profile"),
        (("--precision", "bfloat16"), "the precision was float32"),
    ],
)
def test_what_a_profile_fixes(run, profile: Path, pictures: Path, words: tuple[str, ...], sentence: str) -> None:
    outcome = run("detect", pictures, "--profile", profile, *words)
    assert outcome.code in (1, 2)
    assert sentence in outcome.err


def test_a_profile_that_is_none(run, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "x.profile").write_bytes(b"nothing")
    for words in (("detect", pictures, "--profile", tmp_path / "x.profile"), ("info", tmp_path / "x.profile")):
        outcome = run(*words)
        assert outcome.code == 1
        assert "is no profile" in outcome.err


def test_a_percent_sign(run, detect, pictures: Path) -> None:
    line = json.loads(detect(pictures, "--threshold", "45%", "--json").out.splitlines()[0])
    assert line["threshold"] == 0.45
    assert "did you mean 0.8" in detect(pictures, "--threshold", "80").err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "there is no profile x.profile"),
        (("--method", "winclip"), "--method is fixed in the profile"),
        (("--false-alarms", "9%"), "--false-alarms is fixed in the profile"),
        (("--bad", "z.png"), "--bad is fixed in the profile"),
        (("--roi", "0,0 9,0 9,9"), "--roi is fixed in the profile"),
    ],
)
def test_what_a_change_of_a_profile_cannot_change(run, words: tuple[str, ...], sentence: str) -> None:
    outcome = run("fit", "--profile", "x.profile", "--remove", "y", *words)
    assert outcome.code == 2
    assert sentence in outcome.err


def test_pictures_of_another_product_are_noticed(run, profile: Path, pictures: Path, tmp_path: Path) -> None:
    words = "These pictures look unlike the good ones of"
    assert words not in run("detect", pictures, "--profile", profile).err
    known = read_profile(profile)
    low, high = known.map_range
    near = low + 1e-4 * (high - low)  # so near to each other is nothing that the pictures show
    path = replace(known, good=tuple(replace(entry, usual=near) for entry in known.good)).save(tmp_path / "other")
    outcome = run("detect", pictures, "--profile", path, "--out", tmp_path / "out")
    assert outcome.code == 0
    assert f"{words} {path}, most of them all over: is it the right profile" in outcome.err
    # What was scored before is not measured again.
    assert words not in run("detect", pictures, "--profile", path, "--out", tmp_path / "out").err
