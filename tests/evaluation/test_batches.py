"""The batch protocol: sets of one size that differ in their share of defects."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from evaluation_trees import add_category

import blemish
from blemish.clip import Backbone
from blemish.datasets import read
from blemish.detector import Detector
from blemish.evaluation.batches import draw_sets, evaluate_batches
from blemish.metrics import auroc, average_precision


@pytest.fixture
def data(tmp_path: Path) -> Path:
    add_category(tmp_path / "data", "grid", normal=9, anomalous=6)
    return tmp_path / "data"


@pytest.fixture
def detector(backbone: Backbone) -> Detector:
    return blemish.load("musc", backbone=backbone, device="cpu")


def test_sets_have_one_size_and_their_shares(data: Path) -> None:
    samples = read("folder", data).of("grid")
    sets = draw_sets(samples, (0.2, 0.4, 0.6), 2, 60)
    assert {len(chosen) for chosen in sets.values()} == {10}  # 6 anomalous pictures are 60 % of 10
    assert {key: sum(s.label for s in chosen) for key, chosen in sets.items()} == {
        (share, seed): round(10 * share) for share in (0.2, 0.4, 0.6) for seed in range(2)
    }
    few, many = ({s for s in sets[share, 0] if s.label} for share in (0.2, 0.6))
    assert few < many  # nested, so that shares are compared on the same defects
    assert len(next(iter(draw_sets(samples, (0.5,), 1, 4).values()))) == 4
    assert draw_sets(samples[:9], (0.2,), 1, 60) == {}
    assert draw_sets(samples, (0.01,), 1, 60) == {}  # not one defect in a set of 9


def test_rows_are_those_of_detectors_with_a_set(data: Path, detector: Detector, tmp_path: Path) -> None:
    steps: list[None] = []
    result = evaluate_batches(
        {"musc": detector}, data, shares=(0.25, 0.5), seeds=2, on_progress=lambda: steps.append(None)
    )
    assert len(steps) == len(result.rows) == 4
    sets = draw_sets(read("folder", data).of("grid"), (0.25, 0.5), 2, 60)
    for row in result.rows:
        samples = sets[row.share, row.seed]
        paths = [sample.path for sample in samples]
        scores = [d.score for d in detector.with_set(paths)(paths, object_name=samples[0].object_name)]
        labels = np.array([sample.label for sample in samples])
        assert (row.pictures, row.anomalous) == (len(samples), labels.sum())
        assert row.image_auroc == pytest.approx(auroc(labels, scores))
        assert row.image_ap == pytest.approx(average_precision(labels, scores))
        assert 0 <= row.pixel_aupro <= 1
    head, body = result.means()
    assert [line[:2] for line in body] == [["musc", "25"], ["musc", "50"]]
    assert "±" in body[0][2]
    assert len(head) == len(body[0])
    result.write(tmp_path / "out", {})
    with (tmp_path / "out" / "batches.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 4
    assert "± " in (tmp_path / "out" / "batches.md").read_text()


def test_what_is_refused(data: Path, detector: Detector, backbone: Backbone) -> None:
    plain = blemish.load("clip", backbone=backbone, device="cpu")
    with pytest.raises(blemish.UsageError, match="clip does not compare"):
        evaluate_batches({"clip": plain}, data)
    with pytest.raises(blemish.UsageError, match="above 0 and below 1"):
        evaluate_batches({"musc": detector}, data, shares=(0.0, 0.5))
    result = evaluate_batches({"musc": detector}, data, shares=(0.01,))
    assert result.rows == ()
    assert result.notes == ("grid: too few good or too few anomalous pictures for these shares",)
