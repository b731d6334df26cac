"""An evaluation with a profile: its scores, its region of interest, and measured beside promised false alarms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from evaluation_trees import add_category

import blemish
from blemish.cli import main
from blemish.clip import Backbone
from blemish.detector import Detector
from blemish.loading import load


@pytest.fixture
def fitted(backbone: Backbone, tmp_path: Path) -> Detector:
    add_category(tmp_path / "train", "grid", normal=5, anomalous=0)
    detector = load("winclip", backbone=backbone, object_name="grid", device="cpu", precision="float32")
    return detector.fit(str(tmp_path / "train" / "grid" / "test" / "good"))


@pytest.mark.parametrize("roi", [None, "0,0 20,0 20,30 0,30"])
def test_scores_are_those_of_the_detector(
    data: Path, backbone: Backbone, fitted: Detector, tmp_path: Path, roi: str | None
) -> None:
    if roi is not None:
        fitted = load("winclip", backbone=backbone, device="cpu", precision="float32").fit(
            str(tmp_path / "train" / "grid" / "test" / "good"), roi=roi
        )
    path = fitted.profile.save(tmp_path / "grid.profile")
    pictures = sorted((data / "grid" / "test").rglob("*.png"))
    result = blemish.evaluate(data, profile=path, backbone=backbone, device="cpu", out=tmp_path / "out", maps=True)
    scores = {line["path"]: line["score"] for line in _lines(tmp_path / "out" / "scores.jsonl")}
    for picture in pictures:
        (score,) = (score for name, score in scores.items() if str(picture).endswith(name))
        assert score == pytest.approx(fitted(picture).score, abs=1e-5)
    (grid, _) = result.facts["verdicts"]
    alarms = sum(fitted(picture).label for picture in pictures if picture.parent.name == "good")
    assert (grid["category"], grid["normal"], grid["false_alarms"]) == ("grid", 4, alarms)
    assert grid["promised"] == pytest.approx(1 / 6)
    assert result.facts["methods"]["winclip"]["map_range"] == [0.0, 2.0]


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_command_line(
    data: Path, tiny_backbone: Path, fitted: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fitted.profile.save(tmp_path / "grid.profile")
    words = ("evaluate", "--data", data, "--profile", path, "--backbone", tiny_backbone, "--device", "cpu")
    assert main([str(word) for word in words]) == 0
    text = capsys.readouterr().out
    assert "of 4 normal pictures are called anomalous" in text
    assert "promised 16.7 %" in text
    assert main([*(str(word) for word in words), "--methods", "clip"]) == 2
    assert "a profile has its own method" in capsys.readouterr().err


@pytest.mark.parametrize("masks", ["map", "full"])
def test_tiles_are_those_of_the_profile(
    data: Path, backbone: Backbone, tmp_path: Path, fitted: Detector, masks: str
) -> None:
    bare = load("winclip", backbone=backbone, device="cpu", precision="float32", tile=24)
    tiled = bare.fit(str(tmp_path / "train" / "grid" / "test" / "good"), roi="0,0 20,0 20,30 0,30")
    pictures = sorted((data / "grid" / "test").rglob("*.png"))
    result = blemish.evaluate(
        data,
        profile=tiled.profile,
        backbone=backbone,
        device="cpu",
        categories=["grid"],
        out=tmp_path / "out",
        maps=True,
        masks=masks,
    )
    assert len(result.failed) == 0
    scores = {line["path"]: line["score"] for line in _lines(tmp_path / "out" / "scores.jsonl")}
    files = sorted((tmp_path / "out" / "maps").rglob("*.npy"))
    assert len(scores) == len(files) == len(pictures)
    low = tiled.engine.map_range(tiled.memory)[0]
    for picture in pictures:
        detection = tiled(picture)
        (score,) = (score for name, score in scores.items() if str(picture).endswith(name))
        assert score == pytest.approx(detection.score, abs=1e-5)
        (found,) = (np.load(file) for file in files if str(file).endswith(f"{picture.parent.name}/{picture.name}.npy"))
        if masks == "full":
            np.testing.assert_allclose(found, detection.anomaly_map, atol=1e-3)
        else:
            assert found.shape == (tiled.engine.size,) * 2
            assert found.mean() == pytest.approx(detection.anomaly_map.mean(), abs=1e-2)
            assert (found[:, -found.shape[1] // 4 :] == low).all()
    assert result.facts["methods"]["winclip"]["tile"] == 24
