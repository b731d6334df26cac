"""`blemish demo`: on the stand-in backbone for its ways, on the built-in one for its numbers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("elpv_dataset")
pytest.importorskip("conformal_clip_data")

BUILTIN = Path(__file__).parents[2] / "src" / "blemish" / "weights" / "builtin" / "config.json"


def test_all_of_it(run, tiny_backbone: Path, tmp_path: Path) -> None:
    words = ("demo", "--out", tmp_path, "--per-set", 8, "--method", "clip", "--backbone", tiny_backbone)
    outcome = run(*words)
    assert outcome.code == 0, outcome.err
    for said in ("AUROC", "95 % INTERVAL", "solar cells, monocrystalline", "textile, local defects", "flawless"):
        assert said in outcome.out
    assert str(tmp_path / "contact-sheet.png") in outcome.out
    with Image.open(tmp_path / "contact-sheet.png") as sheet:
        assert sheet.width > 1000
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 4 * 8
    assert sum(int(row["label"]) for row in rows) == 4 * 4
    assert all((tmp_path / row["overlay"]).is_file() for row in rows)


def test_json_and_the_seed(run, tiny_backbone: Path, tmp_path: Path) -> None:
    words = ("demo", "--out", tmp_path, "--per-set", 4, "--method", "clip", "--backbone", tiny_backbone, "--json")
    first, second, other = run(*words), run(*words), run(*words, "--seed", 1)
    assert first.out == second.out != other.out
    found = [json.loads(line) for line in first.out.splitlines()]
    assert [one["set"] for one in found][:2] == ["solar-cells-mono", "solar-cells-poly"]
    assert all(0 <= one["interval"][0] <= one["auroc"] <= one["interval"][1] <= 1 for one in found)


def test_sample_that_is_too_small(run) -> None:
    outcome = run("demo", "--per-set", 2)
    assert outcome.code == 2
    assert "--per-set" in outcome.err


def test_only_cells_that_the_experts_were_sure_of() -> None:
    from blemish.demo import picture_sets

    sizes = {one.name: len(one.samples) for one in picture_sets(per_set=0)}
    assert sizes == {
        "solar-cells-mono": 588 + 313,
        "solar-cells-poly": 920 + 402,
        "textile-local": 1500,
        "textile-global": 1500,
    }


@pytest.mark.slow
@pytest.mark.skipif(not BUILTIN.is_file(), reason="the built-in model is not in this checkout")
def test_the_floor_that_the_builtin_model_has_to_hold(tmp_path: Path) -> None:
    """Monocrystalline cells are separated well: 0.70 is the floor, and the weights that ship have 0.77."""
    from blemish.demo import measure, picture_sets
    from blemish.loading import load

    mono = picture_sets()[0]
    result = measure(load("anomalyclip", device="cpu"), mono, tmp_path)
    assert result.low > 0.6
    assert result.auroc >= 0.7
