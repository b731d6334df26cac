"""Every data set, in every layout, by every method on the built-in model: from files to rows.

Text features cost more than such small pictures, so those of one object stand for all; what was asked for is checked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from torch import Tensor

import blemish
from blemish import datasets, methods
from blemish.clip import Backbone, load_backbone
from blemish.evaluation import METRICS, load_detectors
from blemish.methods import checkpoints
from blemish.methods.base import Method, TextFeatureCache
from dataset_trees import TREES, Tree

_texts: dict[str, Tensor] = {}


@pytest.fixture(scope="module")
def builtin() -> Backbone:
    return load_backbone("builtin")


#: Methods that an evaluation can run: without references all but those that do nothing else than compare with some.
NAMES = [n for n in methods.list_methods() if methods.info(n).transductive or not methods.info(n).needs_references]


@pytest.fixture(scope="module")
def missing(builtin: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Weights as drawn for the methods that come with none for the built-in model."""
    folder = tmp_path_factory.mktemp("missing")
    left_out = load_detectors(["all"], builtin)[1]
    paths = {name: folder / f"{name}.safetensors" for name in left_out if methods.info(name).trainable}
    for name, path in paths.items():
        checkpoints.save(methods.create(name, builtin), path, trained_on="nothing", source="a test")
    return paths


@pytest.fixture
def object_names(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Object names that each method encoded."""
    names: dict[str, set[str]] = {}
    original = TextFeatureCache.batch

    def cached(self: TextFeatureCache, method: Method, object_names: Sequence[str]) -> Tensor:
        name = method.info.name
        names.setdefault(name, set()).update(object_names)
        if name not in _texts:
            _texts[name] = original(self, method, ["metal nut"])
        return _texts[name]

    monkeypatch.setattr(TextFeatureCache, "batch", cached)
    return names


def test_there_is_a_tree_for_every_data_set() -> None:
    assert {tree.name for tree in TREES} == set(datasets.names())


@pytest.mark.slow
@pytest.mark.parametrize("tree", TREES, ids=str)
def test_every_method(
    tree: Tree, tmp_path: Path, builtin: Backbone, missing: Mapping[str, Path], object_names: dict[str, set[str]]
) -> None:
    root = tmp_path / "here"
    tree.build(root)
    first = datasets.read(tree.name, root).samples[0]
    category = first.category
    result = blemish.evaluate(
        root,
        tree.name,
        methods=["all"],
        backbone=builtin,
        weights=missing,
        categories=[category],
        limit=2,
        device="cpu",
    )
    assert not result.failed
    assert object_names == {
        name: {first.object_name if methods.info(name).needs_object else "object"} for name in NAMES
    }
    normal, anomalous, masked = tree.test.get("*" if category == root.name and "*" in tree.test else category)  # type: ignore[misc]
    for name in NAMES:
        row = result.row(name, category)
        assert (row.pictures, row.anomalous) == (2, 1 if normal else 2)
        for metric in METRICS:
            value = getattr(row, metric)
            assert math.isnan(value) == (metric in row.undefined), (name, metric)
            assert math.isnan(value) or 0 <= value <= 1
        assert math.isnan(row.image_auroc) == (0 in (normal, anomalous))
        assert math.isnan(row.pixel_aupro) == (masked == 0)
