"""Metrics on request: what they are, that they change nothing else, and that they can be recomputed."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from evaluation_trees import add_category, options

import blemish
from blemish.calibration import mebin, mebin_range
from blemish.clip import Backbone
from blemish.datasets import read
from blemish.errors import UsageError
from blemish.evaluation import MASK_METRICS, MORE_METRICS, Evaluation, EvaluationFolder, evaluate, recompute, tables
from blemish.evaluation.measure import MaskNotes, read_mask
from blemish.metrics import aupimo, aupro, mask_metrics, pb, pg


@pytest.fixture
def small(tmp_path: Path) -> Path:
    add_category(tmp_path / "data", "grid")
    return tmp_path / "data"


def run(data: Path, backbone: Backbone, **rest: object) -> Evaluation:
    return evaluate(**vars(options(data, backbone, **rest)))


def test_nothing_more_by_default(small: Path, backbone: Backbone) -> None:
    result = run(small, backbone)
    assert result.differences == ()
    assert not any(row.extra for row in result.rows)
    assert not set(result.rows[0].to_dict()) & {*MORE_METRICS, *MASK_METRICS, "extra"}
    assert "differences" not in result.to_dict()
    assert "More metrics" not in result.to_markdown()
    assert "more_metrics" not in result.facts


def test_more_metrics_are_those_of_the_maps(small: Path, backbone: Backbone, tmp_path: Path) -> None:
    plain = run(small, backbone)
    out = tmp_path / "out"
    result = run(small, backbone, more_metrics=True, mask_threshold=0.4, maps=True, out=out)
    assert [{**row.to_dict(), "undefined": None} for row in plain.rows] == [
        {k: v for k, v in {**row.to_dict(), "undefined": None}.items() if k not in {*MORE_METRICS, *MASK_METRICS}}
        for row in result.rows
    ]
    samples = list(read("folder", small))
    with EvaluationFolder(out, small) as folder:
        for row in (row for row in result.rows if not row.mean):
            maps = [folder.read_map(row.method, sample) for sample in samples]
            scores = [folder.score(row.method, sample).score for sample in samples]  # type: ignore[union-attr]
            labels, masks = [s.label for s in samples], [read_mask(s, len(maps[0]), MaskNotes()) for s in samples]
            assert row.extra["image_pg2"] == pg(labels, scores)
            assert row.extra["image_pb2"] == pb(labels, scores)
            assert row.extra["pixel_aupro_05"] == pytest.approx(aupro(masks, maps, fpr_limit=0.05))
            assert row.extra["pixel_aupimo"] == pytest.approx(np.nanmean(aupimo(masks, maps)))
            low, high = result.facts["methods"][row.method]["map_range"]
            expected = mask_metrics(masks, maps, low + 0.4 * (high - low))
            assert {m: row.extra[f"mask_{m}"] for m in vars(expected)} == pytest.approx(vars(expected), nan_ok=True)

    with (out / "results.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert float(table[0]["image_pg2"]) == pytest.approx(result.rows[0].extra["image_pg2"])
    assert json.loads((out / "results.json").read_text())["differences"]
    text = (out / "results.md").read_text()
    assert "| method | category | PG2 | PB2 | AUPRO 0.05 | AUPIMO | SegF1 | ClassF1 | recall | false alarms |" in text
    assert "## Differences" in text

    again = recompute(out)
    assert [row.to_dict() for row in again.rows] == [row.to_dict() for row in result.rows]
    assert again.differences == result.differences
    other = recompute(out, mask_threshold=0.0)
    assert other.rows[0].extra["mask_false_alarms"] == 1.0


def test_mebin_gives_each_map_a_threshold_of_its_own(small: Path, backbone: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(small, backbone, mask_threshold="mebin", maps=True, out=out)
    samples = list(read("folder", small))
    with EvaluationFolder(out, small) as folder:
        row = result.rows[0]
        maps = [folder.read_map(row.method, sample) for sample in samples]
        masks = [read_mask(s, len(maps[0]), MaskNotes()) for s in samples]
        search = mebin_range(maps)
        predicted = [(values > mebin(values, search)).astype(np.float32) for values in maps]
        expected = mask_metrics(masks, predicted, 1.0)
        assert {m: row.extra[f"mask_{m}"] for m in vars(expected)} == pytest.approx(vars(expected), nan_ok=True)
    assert result.facts["mask_threshold"] == "mebin"
    assert recompute(out).rows[0].extra == row.extra
    with pytest.raises(UsageError, match="a number from 0 to 1, or 'mebin', not 'otsu'"):
        run(small, backbone, mask_threshold="otsu")


def test_a_stored_category_counts_only_for_the_same_metrics(small: Path, backbone: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(small, backbone, methods=["clip"], out=out)
    result = run(small, backbone, methods=["clip"], out=out, more_metrics=True)
    assert not math.isnan(result.rows[0].extra["pixel_aupro_05"])
    # Without the maps nothing that needs them can be computed; what is there stays.
    without = recompute(out, mask_threshold=0.5)
    assert without.rows[0].extra["pixel_aupro_05"] == result.rows[0].extra["pixel_aupro_05"]
    assert math.isnan(without.rows[0].extra["mask_seg_f1"])
    assert "maps were not kept" in without.rows[0].undefined["mask_seg_f1"]
    assert without.rows[0].pixel_aupro == result.rows[0].pixel_aupro


def test_without_masks_the_reason_is_given(tmp_path: Path, backbone: Backbone) -> None:
    add_category(tmp_path, "grid", masks=False)
    result = run(tmp_path, backbone, methods=["clip"], more_metrics=True, mask_threshold=0.5)
    row = result.rows[0]
    assert not math.isnan(row.extra["image_pg2"])
    assert "there are no masks" in row.undefined["mask_seg_f1"]
    assert any("SegF1" in line and "no masks" in line for line in tables.reasons(result))


def test_differences_are_paired(small: Path, backbone: Backbone) -> None:
    add_category(small, "metal_nut")
    result = run(small, backbone, methods=["clip", "clip-ac"], more_metrics=True)
    assert [(d.metric, d.categories) for d in result.differences] == [("image_auroc", 2), ("image_ap", 2)]
    for difference in result.differences:
        best, other = (getattr(result.row(name), difference.metric) for name in (difference.first, difference.second))
        assert difference.value == pytest.approx(best - other)
        assert difference.value >= 0
        assert np.isfinite([difference.low, difference.high, difference.p_value]).all()
    head, body = tables.differences(result)
    assert len(body) == 2
    assert len(head) == len(body[0])


def test_mask_threshold_is_a_fraction_of_the_map_range(small: Path, backbone: Backbone) -> None:
    with pytest.raises(blemish.UsageError, match="mask_threshold must be a number from 0 to 1"):
        options(small, backbone, mask_threshold=2.0)
