"""Published numbers beside ours."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blemish.evaluation.published import best, compare, tables
from blemish.evaluation.result import METRICS, Evaluation, Row
from blemish.evaluation.tables import published, to_markdown
from blemish.methods import METHODS

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
    assert {table["method"] for table in tables()} <= set(METHODS)
    for table in tables():
        assert table["source"]
        for numbers in table["numbers"].values():
            assert set(numbers) <= set(METRICS)
            assert all(0 <= value <= 100 for value in numbers.values())


def test_the_same_backbone_gets_a_difference() -> None:
    found = best(compare([row(image_auroc=0.92)], FACTS))["anomalyclip", "mean", "image_auroc"]
    assert (found.published, found.own, found.verified) == (0.915, True, True)
    assert found.difference == pytest.approx(0.005)
    assert "AnomalyCLIP" in found.table


def test_another_backbone_gets_none() -> None:
    found = compare([row()], {**FACTS, "backbone": "embedded"})
    assert found
    assert all(math.isnan(one.difference) and not one.same_backbone for one in found)


def test_categories_and_names() -> None:
    found = compare([row(category="metal_nut")], FACTS)
    assert {one.category for one in found} == {"metal_nut"}
    assert compare([row()], {**FACTS, "dataset_names": []}) == ()
    assert compare([row("no-such-method")], FACTS) == ()


def test_set_wide_scores_stand_beside_the_paper() -> None:
    nan = dict.fromkeys([metric for metric in METRICS if metric.startswith("pixel")], math.nan)
    rows = [row(image_auroc=0.5), row(image_auroc=0.8, scores="set-wide", **nan)]
    found = best(compare(rows, FACTS))
    assert found["anomalyclip", "mean", "image_auroc"].ours == 0.8
    assert found["anomalyclip", "mean", "pixel_auroc"].ours == 0.9


def test_tables() -> None:
    rows = (row(category="bottle"), row())
    result = Evaluation(rows=rows, published=compare(rows, FACTS), failed=(), facts=FACTS, folder=None)
    _, body = published(result, means_only=True)
    assert body[0][:5] == ["anomalyclip", "image AUROC", "90.0", "91.5", "-1.5"]
    assert "200 steps" in to_markdown(result)
