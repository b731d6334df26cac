"""The results table: every method and both floors in it, written where the markers are, and nowhere else."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from blemish.clip import load_backbone
from blemish.datasets import read
from blemish.errors import UsageError
from dataset_trees import TREES


@pytest.fixture
def dev_sets() -> ModuleType:
    import dev_sets

    return dev_sets


def test_from_pictures_to_tables(dev_sets: ModuleType, tiny_backbone: Path, tmp_path: Path) -> None:
    tree = next(tree for tree in TREES if str(tree) == "folder-categories")
    tree.build(tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "mug" / "ground_truth")
    dataset, backbone = read("folder", tmp_path / "data"), load_backbone(str(tiny_backbone))
    wanted = (dataset, backbone, ["winclip", "clip", "clip-ad"], tmp_path / "out", 0, 4)
    result = dev_sets.evaluated(*wanted)
    names = ["clip", "clip-ad", "winclip", "random weights", "patch outliers"]
    assert list(dict.fromkeys(row.method for row in result.rows)) == names
    for row in result.rows:
        assert row.image_auroc_low <= row.image_auroc <= row.image_auroc_high
        assert math.isnan(row.pixel_aupro) == (row.category == "mug")
    backbones = {name: made["backbone"] for name, made in result.facts["methods"].items()}
    assert backbones["clip"] == backbones["clip-ad"] != backbones["random weights"] == "random"
    assert (tmp_path / "out" / "report.html").is_file()
    text = dev_sets.to_markdown(result)
    heads = [line for line in text.splitlines() if line.startswith(("| image", "| pixels"))]
    assert heads == [
        "| image AUROC | cup (5) | mug (5) | mean |",
        "| image AP | cup (0.60) | mug (0.60) | mean |",
        "| pixels | cup, AUROC | cup, AUPRO | mean, AUROC | mean, AUPRO |",
    ]
    for name in names:
        fewer = " (8 pictures)" if name in ("winclip", "random weights") else ""
        assert text.count(f"\n| `{name}`{fewer} | ") == 3
    lines = (tmp_path / "out" / "scores.jsonl").read_text()
    again = dev_sets.evaluated(*wanted)
    assert again.rows == result.rows
    assert (tmp_path / "out" / "scores.jsonl").read_text() == lines  # nothing was scored twice


def test_tables_go_between_the_markers(dev_sets: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"before\n{dev_sets.BEGIN}\nold\n{dev_sets.END}\nafter\n")
    for _ in range(2):
        dev_sets.put_between_markers(page, "| new |\n")
        assert page.read_text() == f"before\n{dev_sets.BEGIN}\n| new |\n{dev_sets.END}\nafter\n"
    page.write_text("no markers\n")
    with pytest.raises(UsageError, match="has no"):
        dev_sets.put_between_markers(page, "| new |\n")
    assert page.read_text() == "no markers\n"
    for path in dev_sets.TABLES:
        assert path.read_text(encoding="utf-8").count(dev_sets.BEGIN) == 1
    assert dev_sets.README.read_text(encoding="utf-8").count(dev_sets.SUMMARY_BEGIN) == 1


def test_one_command_writes_tables_and_numbers(
    dev_sets: ModuleType, tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    next(tree for tree in TREES if str(tree) == "folder-categories").build(tmp_path / "data")
    page, readme, numbers = tmp_path / "results.md", tmp_path / "README.md", tmp_path / "numbers.json"
    page.write_text(f"{dev_sets.BEGIN}\n{dev_sets.END}\n")
    readme.write_text(f"{dev_sets.SUMMARY_BEGIN}\n{dev_sets.SUMMARY_END}\n")
    monkeypatch.setattr(dev_sets, "README", readme)
    monkeypatch.setattr(dev_sets, "gathered", lambda folders: read("folder", folders[0]))
    monkeypatch.setattr(dev_sets, "TABLES", (page,))
    monkeypatch.setattr(dev_sets, "NUMBERS", numbers)
    words = ["dev_sets.py", "--folders", str(tmp_path / "data"), "--backbone", str(tiny_backbone), "--methods", "clip"]
    monkeypatch.setattr(sys, "argv", [*words, "--out", str(tmp_path / "out"), "--write"])
    dev_sets.main()
    assert page.read_text().count("\n| `clip` | ") == 3
    assert readme.read_text().count("\n| `clip` | zero-shot | ") == 1
    assert readme.read_text().count(" | floor | ") == 2
    written = json.loads(numbers.read_text())
    assert {row["method"] for row in written["rows"]} == {"clip", "random weights", "patch outliers"}
    assert set(written["methods"]) == {"clip", "random weights"}
    assert str(tmp_path) not in page.read_text()
    table = page.read_text()
    monkeypatch.setattr(sys, "argv", [*words, "--out", str(tmp_path / "again"), "--renew", "--write"])
    written["rows"][0]["image_auroc"] = 7.77  # of clip: measured again; those of a floor are taken over
    floor = next(row for row in written["rows"] if row["method"] == "random weights" and row["category"] == "cup")
    floor["image_auroc"] = 0.456
    numbers.write_text(json.dumps(written))
    dev_sets.main()
    assert "7.77 [" not in page.read_text()
    assert page.read_text().splitlines()[0] == table.splitlines()[0]
    assert "`random weights` | 0.46 [" in page.read_text()
    assert set(json.loads(numbers.read_text())["methods"]) == {"clip", "random weights"}
    assert '"patch outliers"' not in (tmp_path / "again" / "scores.jsonl").read_text()
    written["methods"]["clip"]["backbone_fingerprint"] = "another"
    numbers.write_text(json.dumps(written))
    with pytest.raises(SystemExit, match="of another model"):
        dev_sets.main()
    monkeypatch.setattr(sys, "argv", [*words, "--limit", "2", "--write"])
    with pytest.raises(SystemExit, match="not to be published"):
        dev_sets.main()


def test_patch_outliers_stand_out(monkeypatch: pytest.MonkeyPatch) -> None:

    from patch_outliers import patch_outliers

    even = np.random.default_rng(0).normal(120, 12, (200, 300)).clip(0, 255)
    spoilt = even.copy()
    spoilt[60:90, 200:230] = 120  # as bright as the rest, but without its grain
    maps = [patch_outliers(Image.fromarray(pixels.astype(np.uint8))) for pixels in (even, spoilt)]
    assert maps[0].shape == (256, 256)
    assert maps[0].dtype == np.float32
    assert maps[1].max() > 2 * maps[0].max()
    row, column = np.unravel_index(maps[1].argmax(), maps[1].shape)
    assert 60 * 256 / 200 <= row <= 90 * 256 / 200
    assert 200 * 256 / 300 <= column <= 230 * 256 / 300
    assert patch_outliers(Image.new("L", (50, 50), 90)).max() == 0
