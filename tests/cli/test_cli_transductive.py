"""`blemish detect --method musc`: the pictures of a folder judge each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers import save_picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(5):
        save_picture(tmp_path / "set" / f"{number}.png", number)
    return tmp_path / "set"


@pytest.fixture
def musc(run, tiny_backbone: Path):
    """Run `blemish detect WORDS --method musc`."""

    def call(*words: object):
        return run("detect", *words, "--method", "musc", "--backbone", tiny_backbone, "--device", "cpu")

    return call


@pytest.mark.parametrize("method", ["anomalydino-batch", "subspacead-batch"])
def test_a_method_that_only_compares(run, tiny_backbone: Path, folder: Path, method: str) -> None:
    words = ("--method", method, "--backbone", tiny_backbone, "--device", "cpu")
    outcome = run("detect", folder / "0.png", *words)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "give at least two that can be read" in outcome.err
    outcome = run("detect", folder, *words, "--json")
    assert outcome.code == 0, outcome.err
    assert len(scores(outcome)) == 5


def scores(outcome) -> dict[str, float]:
    lines = map(json.loads, outcome.out.splitlines())
    return {Path(line["path"]).name: line["score"] for line in lines if "score" in line}


def test_the_set_takes_the_references_place(musc, folder: Path) -> None:
    own, named = musc(folder, "--json"), musc(folder, "--json", "--reference", folder)
    assert own.code == 0, own.err
    assert "musc compares each picture with these 5 pictures" in own.err
    assert "compared with itself" not in named.err
    assert scores(own) == scores(named)
    made = json.loads(own.out.splitlines()[0])
    assert made["provenance"]["references"] == 5
    assert made["map_range"] == [0.0, 2.0]
    assert scores(musc(folder, "--json", "--reference", folder / "0.png", folder / "1.png")) != scores(own)


def test_of_a_large_set_some_are_drawn(musc, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blemish.methods.base.TransductiveMethod.max_sampled_images", 3)
    outcome = musc(folder, "--json")
    assert "with 3 pictures drawn from these 5" in outcome.err
    assert json.loads(outcome.out.splitlines()[0])["provenance"]["references"] == 3
    assert scores(musc(folder, "--json")) == scores(outcome)


def test_a_broken_picture_stops_nobody(musc, folder: Path) -> None:
    expected = scores(musc(folder, "--json"))
    (folder / "9.png").write_bytes(b"no picture")
    outcome = musc(folder, "--json")
    assert outcome.code == 1
    assert "with 5 pictures drawn from these 6" in outcome.err
    assert "1 picture failed" in outcome.err
    assert scores(outcome) == expected


def test_one_picture_has_nobody_to_ask(musc, folder: Path) -> None:
    outcome = musc(folder / "0.png", "--json")
    assert outcome.code == 0
    assert "fewer than two of these can be read" in outcome.err
    for name in ("0.png", "1.png"):
        (folder / name).write_bytes(b"no picture")
    assert "fewer than two of these can be read" in musc(folder / "0.png", folder / "1.png").err


def test_another_set_is_other_settings(musc, folder: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    assert musc(folder, *out).code == 0
    assert "5 pictures complete with the same settings" in musc(folder, *out).err
    save_picture(folder / "5.png", 5)
    assert "5 pictures scored before with other settings" in musc(folder, *out).err


def test_tiles_have_to_be_told_with_which(musc, folder: Path) -> None:
    outcome = musc(folder, "--tile", "32")
    assert outcome.code == 2
    assert "give --reference" in outcome.err
    assert musc(folder / "0.png", "--tile", "32", "--reference", folder).code == 0
