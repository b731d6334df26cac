"""`blemish detect --reference`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers import save_picture


@pytest.fixture
def good(tmp_path: Path) -> Path:
    for number in range(2):
        save_picture(tmp_path / "good" / f"{number}.png", 20 + number)
    return tmp_path / "good"


@pytest.fixture
def winclip(run, tiny_backbone: Path, pictures: Path):
    """Run `blemish detect PICTURES --method winclip WORDS`."""

    def call(*words: object):
        return run("detect", pictures, "--method", "winclip", "--backbone", tiny_backbone, "--device", "cpu", *words)

    return call


def test_few_shot(winclip, good: Path) -> None:
    zero, few = winclip("--json"), winclip("--json", "--reference", good)
    assert few.code == 0, few.err
    for one, other in zip(zero.out.splitlines(), few.out.splitlines(), strict=True):
        without, shown = json.loads(one), json.loads(other)
        assert without["provenance"]["references"] == 0
        assert shown["provenance"]["references"] == 2
        assert len(shown["provenance"]["references_fingerprint"]) == 16
        assert shown["score"] != without["score"]
        assert shown["map_range"] == [0.0, 2.0]
    assert "2 references" in winclip("--reference", good).out


def test_files_folders_and_patterns(winclip, good: Path) -> None:
    said = [
        json.loads(winclip("--json", "--reference", *words).out.splitlines()[0])["provenance"]
        for words in (
            [good],
            [f"{good}/*.png"],
            [good / "0.png", good / "1.png"],
            [good / "0.png", "--reference", good],
        )
    ]
    assert all(made == said[0] for made in said)


def test_other_references_are_other_settings(winclip, good: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    assert winclip(*out, "--reference", good).code == 0
    assert "5 pictures complete with the same settings" in winclip(*out, "--reference", f"{good}/*").err
    assert "5 pictures scored before with other settings" in winclip(*out, "--reference", good / "0.png").err
    assert "5 pictures scored before with other settings" in winclip(*out).err


def test_a_picture_that_is_its_own_reference(winclip, pictures: Path) -> None:
    outcome = winclip("--reference", pictures / "a.png")
    assert outcome.code == 0
    assert "1 picture given as references and to be scored" in outcome.err


def test_a_method_without_memory(detect, pictures: Path, good: Path) -> None:
    outcome = detect(pictures, "--reference", good)
    assert outcome.code == 2
    assert outcome.err.startswith("blemish: clip takes no reference pictures; the methods that do are anomalydino, ")
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("method", ["anomalydino", "subspacead"])
def test_a_method_that_only_compares(run, tiny_backbone: Path, pictures: Path, good: Path, method: str) -> None:
    words = ("detect", pictures / "a.png", "--method", method, "--device", "cpu")
    outcome = run(*words, "--backbone", "this would be a download")
    assert outcome.code == 2
    assert outcome.err == (
        f"blemish: {method} compares pictures with flawless ones, without which it has no score: give references\n"
    )
    outcome = run(*words, "--backbone", tiny_backbone, "--json", "--reference", good)
    assert outcome.code == 0, outcome.err
    line = json.loads(outcome.out)
    assert (line["provenance"]["references"], line["map_range"]) == (2, [0.0, 1.0])
    assert 0 < line["score"] < 1


def test_references_swallow_the_pictures(run, good: Path) -> None:
    outcome = run("detect", "--method", "winclip", "--reference", good / "0.png", good)
    assert outcome.code == 2
    assert "before --reference" in outcome.err


def test_broken_and_missing_references(winclip, good: Path) -> None:
    (good / "0.png").write_bytes(b"nothing")
    outcome = winclip("--reference", good)
    assert outcome.code == 1
    assert "a reference picture cannot be used" in outcome.err
    assert "0.png" in outcome.err
    assert outcome.err.count("\n") == 1
    outcome = winclip("--reference", good / "gone.png")
    assert outcome.code == 2
    assert "does not exist" in outcome.err
