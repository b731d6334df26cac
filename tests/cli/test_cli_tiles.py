"""`blemish detect --tile`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blemish import tiling
from helpers import load_pixels, save_picture


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A TIFF of six tiles of 64 pixels."""
    return save_picture(tmp_path / "large" / "a.tif", 1, (150, 90))


def test_tiles(detect, large: Path) -> None:
    (whole,) = map(json.loads, detect(large, "--json").out.splitlines())
    (tiled,) = map(json.loads, detect(large, "--json", "--tile", 64, "--batch-size", 4).out.splitlines())
    assert tiled["size"] == [150, 90]
    assert tiled["score"] != whole["score"]
    assert (tiled["provenance"]["tile"], tiled["provenance"]["overlap"]) == (64, 0.25)
    assert whole["provenance"]["tile"] is None


def test_another_tiling_is_another_setting(detect, large: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    detect(large, *out, "--tile", 64)
    assert "1 picture complete" in detect(large, *out, "--tile", 64, "--overlap", 0.25).err
    for words in (("--tile", 64, "--overlap", 0.5), ("--tile", 80), ()):
        assert "1 picture scored before with other settings" in detect(large, *out, *words).err


def test_files_of_a_reduced_map(detect, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "MAX_MAP_PIXELS", 2_000)
    out = tmp_path / "out"
    words = ("--tile", 64, "--save", "map,heatmap,overlay,mask,regions", "--threshold", 0, "--out", out)
    outcome = detect(large, *words, "--max-pixels", 150 * 80)  # more than a band, less than the picture
    assert outcome.code == 0, outcome.err
    for kind in ("heatmap", "overlay", "mask"):
        assert load_pixels(out / kind / "a.tif.png").size == (50, 30)
    (line,) = map(json.loads, (out / "results.jsonl").read_text().splitlines())
    assert (line["map_step"], line["notes"]) == (3, ["map and preview at 1/3 of its size"])
    found = json.loads((out / "regions.json").read_text())
    assert (found["images"][0]["width"], found["images"][0]["height"]) == (150, 90)
    assert found["annotations"][0]["bbox"] == [0, 0, 150, 90]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--overlap", 0.5), "give --tile"),
        (("--tile", 3), "at least 16"),
        (("--tile", 64, "--overlap", 1), "from 0 to 0.75"),
        (("--tile", "big"), "--tile"),
    ],
)
def test_what_makes_no_sense(detect, large: Path, words: tuple, said: str) -> None:
    outcome = detect(large, *words)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1
