"""Published numbers beside ours."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blemish import datasets
from blemish.evaluation import _dataset_facts, limit_images
from blemish.evaluation.literature import best_comparisons, compare, published_tables
from blemish.evaluation.result import METRICS, Evaluation, Row
from blemish.evaluation.tables import published, to_markdown
from blemish.methods import METHODS
from dataset_trees import TREES, picture

FACTS: dict[str, Any] = {
    "dataset": "mvtec",
    "dataset_names": ["MVTec AD", "mvtec"],
    "backbone": "openai/clip-vit-large-patch14-336",
}


def row(method: str = "anomalyclip", category: str = "mean", **values: Any) -> Row:
    numbers = dict.fromkeys([*METRICS, "image_auroc_low", "image_auroc_high"], 0.9)
    thresholds = dict.fromkeys(("image_f1_threshold", "pixel_f1_threshold"), 0.5)
    made = Row(
        method=method,
        scores="picture",
        dataset="mvtec",
        category=category,
        mean=category == "mean",
        pictures=10,
        anomalous=5,
        failed=0,
        pixel_categories=1,
        pixel_error=0.0,
        **numbers,
        **thresholds,
    )
    return replace(made, **values)


def test_the_data() -> None:
    assert (Path(__file__).parents[2] / "src/blemish/evaluation/published.json").stat().st_size < 300_000
    assert {table["method"] for table in published_tables()} <= set(METHODS)
    for table in published_tables():
        assert table["source"]
        for numbers in table["numbers"].values():
            assert set(numbers) <= set(METRICS)
            assert all(0 <= value <= 100 for value in numbers.values())


def test_the_same_backbone_gets_a_difference() -> None:
    comparisons = best_comparisons(compare([row(image_auroc=0.92)], FACTS))["anomalyclip", "mean", "image_auroc"]
    assert (comparisons.published, comparisons.own, comparisons.verified) == (0.915, True, True)
    assert comparisons.difference == pytest.approx(0.005)
    assert "AnomalyCLIP" in comparisons.table


def test_another_backbone_gets_none() -> None:
    comparisons = compare([row()], {**FACTS, "backbone": "builtin"})
    assert comparisons
    assert all(math.isnan(c.difference) and not c.same_backbone for c in comparisons)


def test_other_pictures_get_none() -> None:
    rows = (row(), row(category="bottle"))
    facts = {**FACTS, "partial": ["mean"]}
    result = Evaluation(rows=rows, published=compare(rows, facts), failed=(), facts=facts, folder=None)
    comparisons = best_comparisons(result.published)
    mean, bottle = (comparisons["anomalyclip", category, "image_auroc"] for category in ("mean", "bottle"))
    assert math.isnan(mean.difference)
    assert bottle.difference == pytest.approx(0.9 - bottle.published)
    assert "other pictures" in {line[4] for line in published(result)[1]}
    assert "do not compare" in to_markdown(result)


def test_which_pictures_are_others(tmp_path: Path) -> None:
    def partial(name: str, limit: int | None = None, **options: Any) -> list[str]:
        facts = _dataset_facts(limit_images(datasets.read(name, tmp_path / name, **options), limit, 0), limit)
        categories: list[str] = facts["partial"]
        return categories

    for tree in TREES:
        if str(tree) in ("mvtec-release", "mpdd-release", "dagm-release", "folder-categories"):
            tree.build(tmp_path / tree.name)
    assert partial("mvtec") == ["bottle", "metal_nut", "mean"]  # five pictures of each
    assert partial("dagm") == ["mean"]  # two of ten classes; how many pictures were published is not known
    assert partial("dagm", limit=2) == ["Class1", "Class10", "mean"]
    assert partial("folder") == []
    for label, count in (("good", 32), ("hole", 69)):
        for number in range(count):
            picture(tmp_path / f"mpdd/tubes/test/{label}/{number:03}.png")
    assert partial("mpdd") == ["mean"]  # tubes are whole, five other categories are missing


def test_categories_and_names() -> None:
    comparisons = compare([row(category="metal_nut")], FACTS)
    assert {c.category for c in comparisons} == {"metal_nut"}
    assert compare([row()], {**FACTS, "dataset_names": []}) == ()
    assert compare([row("no-such-method")], FACTS) == ()


def test_set_wide_scores_stand_beside_the_paper() -> None:
    nan = dict.fromkeys([metric for metric in METRICS if metric.startswith("pixel")], math.nan)
    rows = [row(image_auroc=0.5), row(image_auroc=0.8, scores="set-wide", **nan)]
    comparisons = best_comparisons(compare(rows, FACTS))
    assert comparisons["anomalyclip", "mean", "image_auroc"].ours == 0.8
    assert comparisons["anomalyclip", "mean", "pixel_auroc"].ours == 0.9


def test_tables() -> None:
    rows = (row(category="bottle"), row())
    result = Evaluation(rows=rows, published=compare(rows, FACTS), failed=(), facts=FACTS, folder=None)
    _, body = published(result, means_only=True)
    assert body[0][:5] == ["anomalyclip", "image AUROC", "90.0", "91.5", "-1.5"]
    assert "200 steps" in to_markdown(result)
    assert "do not compare" not in to_markdown(result)
