"""The few-shot protocol: which pictures are references, what is measured, and how promises are kept."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from evaluation_trees import add_category
from scipy import stats

import blemish
from blemish.clip import Backbone
from blemish.datasets import read
from blemish.detector import Detector
from blemish.evaluation.shots import ShotResult, _draw, evaluate_shots
from blemish.metrics import auroc
from helpers import save_picture


@pytest.fixture
def detector(backbone: Backbone) -> Detector:
    return blemish.load("winclip", backbone=backbone, device="cpu")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One category with references in its train split, one that has to set them aside."""
    add_category(tmp_path / "data", "grid", normal=5, anomalous=3)
    for number in range(6):
        save_picture(tmp_path / "data" / "grid" / "train" / "good" / f"{number:03}.png", seed=200 + number)
    add_category(tmp_path / "data", "metal_nut", normal=9, anomalous=3)
    return tmp_path / "data"


def run(detector: Detector, data: Path, **rest: object) -> ShotResult:
    return evaluate_shots({"winclip": detector}, data, **{"shots": (1, 2, 4), "seeds": 2, **rest})  # type: ignore[arg-type]


def test_rows_are_those_of_fitted_detectors(detector: Detector, data: Path, passes: list[int]) -> None:
    steps: list[None] = []
    result = run(detector, data, on_progress=lambda: steps.append(None))
    assert len(steps) == 5 + 3 + 9 + 3
    assert len(result.rows) == 2 * 3 * 2
    samples = {category: read("folder", data).of(category) for category in ("grid", "metal_nut")}
    trained = [s for s in read("folder", data, split="train").of("grid") if not s.label]
    for row in result.rows:
        draws, _, _ = _draw(samples[row.category], trained if row.category == "grid" else [], [1, 2, 4], 2)
        draw = draws[row.seed]
        assert row.references == draw.split == {"grid": "train", "metal_nut": "test"}[row.category]
        references = [sample.path for sample in draw.order[: row.shots]]
        own = Detector(detector.engine, object_name=samples[row.category][0].object_name)
        fitted = own.fit(references) if row.shots > 1 else own.with_references(references)
        rest = [sample for sample in samples[row.category] if sample not in draw.aside]
        assert row.pictures == len(rest) == {"grid": 8, "metal_nut": 8}[row.category]
        detections = fitted([sample.path for sample in rest])
        labels = np.array([sample.label for sample in rest])
        assert row.image_auroc == pytest.approx(auroc(labels, [d.score for d in detections]))
        assert not math.isnan(row.pixel_aupro)
        if row.shots == 1:
            assert math.isnan(row.promise)
            assert row.kept is None
            continue
        called = np.array([d.label for d in detections], dtype=bool)
        assert row.promise == pytest.approx(1 / (row.shots + 1))
        assert (row.alarms, row.good) == (called[labels == 0].sum(), (labels == 0).sum())
        assert row.recall == pytest.approx(called[labels == 1].mean())
        assert row.kept == (row.alarms <= stats.binom.ppf(0.975, row.good, row.promise))
        assert row.false_alarms_low <= row.false_alarms <= row.false_alarms_high
        assert 0 <= row.seg_f1 <= 1


def test_references_of_a_draw_are_nested_and_never_scored(data: Path) -> None:
    samples = read("folder", data).of("metal_nut")
    draws, possible, note = _draw(samples, [], [1, 2, 4, 8], 3)
    assert possible == [1, 2, 4]
    assert note == "too few good pictures for 8 references"
    assert len({tuple(draw.order) for draw in draws}) == 3
    for draw in draws:
        assert draw.aside == set(draw.order[:4])
        assert not any(sample.label for sample in draw.order)


def test_a_promise_that_is_too_small_becomes_the_smallest(detector: Detector, data: Path) -> None:
    result = run(detector, data, categories=["grid"], shots=[4], seeds=1, false_alarms=0.01)
    assert result.rows[0].promise == pytest.approx(0.2)
    larger = run(detector, data, categories=["grid"], shots=[4], seeds=1, false_alarms=0.4)
    assert larger.rows[0].promise == pytest.approx(0.4)


def test_tables_and_files(detector: Detector, data: Path, tmp_path: Path) -> None:
    result = run(detector, data)
    head, body = result.means()
    assert [line[:2] for line in body] == [["winclip", "1"], ["winclip", "2"], ["winclip", "4"]]
    assert all(len(line) == len(head) for line in body)
    assert "±" in body[0][2]
    head, body = result.promises()
    assert [line[1:4] for line in body] == [
        ["grid", "2", "33.3"], ["grid", "4", "20.0"], ["metal_nut", "2", "33.3"], ["metal_nut", "4", "20.0"],
    ]  # fmt: skip
    alarms = sum(row.alarms for row in result.rows if (row.category, row.shots) == ("grid", 2))
    assert body[0][5] == f"{alarms} of 10"
    assert "of 8 draws" in result.summary()
    result.write(tmp_path / "out", {"data": "x"})
    with (tmp_path / "out" / "few_shot.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 12
    assert json.loads((tmp_path / "out" / "few_shot.json").read_text())["rows"][0]["promise"] is None
    assert "Promise against measured" in (tmp_path / "out" / "few_shot.md").read_text()


def test_a_category_without_defects_counts_for_its_false_alarms(detector: Detector, data: Path) -> None:
    add_category(data, "lid", normal=9, anomalous=0)
    result = run(detector, data, categories=["grid", "lid"], shots=[2], seeds=1)
    grid, lid = result.rows
    assert math.isnan(lid.image_auroc)
    assert lid.kept is not None
    assert result.means()[1][0][4] == f"{100 * grid.image_auroc:.1f}"


def test_methods_without_references_are_refused(backbone: Backbone, data: Path) -> None:
    plain = blemish.load("clip", backbone=backbone, device="cpu")
    with pytest.raises(blemish.UsageError, match="clip takes no references"):
        evaluate_shots({"clip": plain}, data)
    with pytest.raises(blemish.UsageError, match="at least one"):
        evaluate_shots({}, data, shots=[0])
