"""A mutual method in an evaluation: each category is its own set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from evaluation_trees import evaluate, numbers

import blemish
from blemish import datasets
from blemish.clip import Backbone
from blemish.datasets import Sample
from blemish.evaluation.record import Entry, Record
from helpers import save_picture


def kept(data: Path, out: Path) -> dict[str, float]:
    """Scores by file."""
    samples = datasets.read("folder", data)
    with Record(out, samples.root) as record:
        entries = {str(one.path): record.entry("musc", one) for one in samples}
    return {path: entry.score for path, entry in entries.items() if entry is not None}


def test_every_category_is_its_own_set(data: Path, backbone: Backbone, tmp_path: Path) -> None:
    result = evaluate(data, backbone, methods=["clip", "musc"], out=tmp_path / "out")
    assert result.facts["methods"]["musc"]["map_range"] == [0.0, 2.0]
    found = kept(data, tmp_path / "out")
    assert len(found) == 16
    for category in ("grid", "metal_nut"):
        samples = datasets.read("folder", data, categories=[category]).samples
        detector = blemish.load(
            "musc",
            backbone=backbone,
            device="cpu",
            references=[one.path for one in samples],
            object_name=samples[0].object_name,
        )
        for one in samples:
            torch.testing.assert_close(found[str(one.path)], detector(one.path).score, rtol=0, atol=1e-5)


def test_a_changed_picture_changes_its_set(data: Path, backbone: Backbone, tmp_path: Path, passes: list[int]) -> None:
    first = evaluate(data, backbone, methods=["musc"], out=tmp_path / "out")
    before = kept(data, tmp_path / "out")
    passes.clear()
    assert numbers(evaluate(data, backbone, methods=["musc"], out=tmp_path / "out")) == numbers(first)
    assert passes == []
    save_picture(data / "grid" / "test" / "good" / "000.png", seed=77)
    evaluate(data, backbone, methods=["musc"], out=tmp_path / "out")
    after = kept(data, tmp_path / "out")
    assert {Path(path).parts[-4] for path in before if before[path] != after[path]} == {"grid"}
    assert sum(before[path] != after[path] for path in before) == 8


def test_a_picture_of_two_categories_is_remembered_with_both_scores(tmp_path: Path) -> None:
    """As the good pictures of two sets that differ in their defects."""
    one = Sample(tmp_path / "good.png", 0, "local")
    other = replace(one, category="global")
    entries = {
        sample: Entry(score, score, None, (1, 2, "settings", told))
        for sample, score, told in ((one, 0.1, "a"), (other, 0.9, "b"))
    }
    with Record(tmp_path / "out", tmp_path) as record:
        for sample, entry in entries.items():
            record.add("musc", sample, entry)
    with Record(tmp_path / "out", tmp_path) as record:
        assert {sample: record.entry("musc", sample) for sample in entries} == entries
        record.forget("musc", one, "gone")
        assert record.entry("musc", one) is None
        assert record.entry("musc", other) == entries[other]
