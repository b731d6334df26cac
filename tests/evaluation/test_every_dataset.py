"""Every data set, in every layout, from its files to a row; what its labels do not define is said."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import blemish
from blemish import datasets
from blemish.clip import Backbone
from blemish.evaluation import METRICS
from dataset_trees import TREES, Tree


@pytest.mark.slow
@pytest.mark.parametrize("tree", TREES, ids=str)
def test_dataset(tree: Tree, tmp_path: Path, backbone: Backbone) -> None:
    root = tmp_path / "here"
    tree.build(root)
    first = datasets.read(tree.name, root).categories[0]
    # clip-ad: the smallest input of all recipes
    result = blemish.evaluate(root, tree.name, methods=["clip-ad"], backbone=backbone, categories=[first], device="cpu")
    assert not result.failed
    row = result.row("clip-ad", first)
    normal, anomalous, masked = tree.test.get("*" if first == root.name and "*" in tree.test else first)  # type: ignore[misc]
    assert (row.pictures, row.anomalous) == (normal + anomalous, anomalous)
    for metric in METRICS:
        assert math.isnan(getattr(row, metric)) == (metric in row.undefined), metric
    assert math.isnan(row.image_auroc) == (0 in (normal, anomalous))
    assert math.isnan(row.pixel_aupro) == (masked == 0)
