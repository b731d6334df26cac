"""A transductive method in an evaluation: each category is a set of its own."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch
from evaluation_trees import evaluate, numbers

import blemish
from blemish import datasets
from blemish.clip import Backbone
from blemish.datasets import Sample
from blemish.evaluation.folder import EvaluationFolder, ImageScore
from helpers import save_picture


def stored(data: Path, out: Path) -> dict[str, float]:
    """Return scores by file."""
    samples = datasets.read("folder", data)
    with EvaluationFolder(out, samples.root) as folder:
        scores = {str(sample.path): folder.score("musc", sample) for sample in samples}
    return {path: score.score for path, score in scores.items() if score is not None}


def test_every_category_is_a_set_of_its_own(data: Path, backbone: Backbone, tmp_path: Path) -> None:
    result = evaluate(data, backbone, methods=["clip", "musc"], out=tmp_path / "out")
    assert result.facts["methods"]["musc"]["map_range"] == [0.0, 2.0]
    scores = stored(data, tmp_path / "out")
    assert len(scores) == 16
    for category in ("grid", "metal_nut"):
        samples = datasets.read("folder", data, categories=[category]).samples
        detector = blemish.load(
            "musc",
            backbone=backbone,
            device="cpu",
            references=[sample.path for sample in samples],
            object_name=samples[0].object_name,
        )
        for sample in samples:
            expected = detector(sample.path).score
            torch.testing.assert_close(scores[str(sample.path)], expected, rtol=0, atol=1e-5)


def test_a_changed_picture_changes_its_set(data: Path, backbone: Backbone, tmp_path: Path, passes: list[int]) -> None:
    first = evaluate(data, backbone, methods=["musc"], out=tmp_path / "out")
    before = stored(data, tmp_path / "out")
    passes.clear()
    assert numbers(evaluate(data, backbone, methods=["musc"], out=tmp_path / "out")) == numbers(first)
    assert passes == []
    save_picture(data / "grid" / "test" / "good" / "000.png", seed=77)
    evaluate(data, backbone, methods=["musc"], out=tmp_path / "out")
    after = stored(data, tmp_path / "out")
    assert {Path(path).parts[-4] for path in before if before[path] != after[path]} == {"grid"}
    assert sum(before[path] != after[path] for path in before) == 8


def test_a_picture_of_two_categories_has_two_scores(tmp_path: Path) -> None:
    """Such as the good pictures of two sets that differ in their defects."""
    one = Sample(tmp_path / "good.png", 0, "local")
    other = replace(one, category="global")
    scores = {
        sample: ImageScore(score, score, None, (1, 2, "settings", object_name))
        for sample, score, object_name in ((one, 0.1, "a"), (other, 0.9, "b"))
    }
    with EvaluationFolder(tmp_path / "out", tmp_path) as folder:
        for sample, score in scores.items():
            folder.add_score("musc", sample, score)
    with EvaluationFolder(tmp_path / "out", tmp_path) as folder:
        assert {sample: folder.score("musc", sample) for sample in scores} == scores
        folder.add_failure("musc", one, "gone")
        assert folder.score("musc", one) is None
        assert folder.score("musc", other) == scores[other]


def test_a_method_that_cannot_do_a_set_leaves_the_others_alone(data: Path, backbone: Backbone, tmp_path: Path) -> None:
    configs = {"musc": {"similar_images": (1, 50), "grids": 1, "turns": 1}}
    result = evaluate(data, backbone, methods=["clip", "musc"], configs=configs, out=tmp_path / "out")
    alone = evaluate(data, backbone, methods=["clip"])
    assert result.row("clip").image_auroc == alone.row("clip").image_auroc
    assert [(failure.kind, failure.category, failure.path) for failure in result.failed] == [
        ("method", category, f"musc on {category}") for category in ("grid", "metal_nut")
    ]
    assert "similar_images ask for 50 pictures" in result.failed[0].reason
    assert result.row("musc", "grid").failed == 8
    assert math.isnan(result.row("musc").image_auroc)
    assert not stored(data, tmp_path / "out")
