"""What data leave undefined, pictures that fail, categories too large, set-wide rules."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evaluation_trees import add_category, evaluate, numbers

import blemish
from blemish import datasets
from blemish.clip import Backbone
from blemish.evaluation import draw, measure, rows
from blemish.evaluation.examples import choose, wrongness
from blemish.methods import load_class
from blemish.metrics import PixelBootstrap, auroc, average_precision, bootstrap_interval

Metric = Callable[[object, object], float]


def test_without_masks(tmp_path: Path, backbone: Backbone) -> None:
    add_category(tmp_path, "alien", masks=False)
    row = evaluate(tmp_path, backbone, methods=["clip"]).row("clip")
    assert not math.isnan(row.image_auroc)
    assert math.isnan(row.pixel_aupro)
    assert "no masks" in row.undefined["pixel_aupro"]
    add_category(tmp_path, "grid")
    both = evaluate(tmp_path, backbone, methods=["clip"])
    assert both.row("clip").pixel_categories == 1
    assert both.row("clip").pixel_aupro == both.row("clip", "grid").pixel_aupro


def test_one_label_only(tmp_path: Path, backbone: Backbone) -> None:
    add_category(tmp_path, "grid")
    add_category(tmp_path, "tile", normal=0)
    result = evaluate(tmp_path, backbone, methods=["clip"])
    row = result.row("clip", "tile")
    assert math.isnan(row.image_auroc)
    assert math.isnan(row.image_auroc_low)
    assert row.image_ap == 1
    mean = result.row("clip")
    assert math.isnan(mean.image_auroc)
    assert "tile" in mean.undefined["image_auroc"]


def test_a_broken_picture_is_named_and_the_others_go_on(data: Path, backbone: Backbone, tmp_path: Path) -> None:
    broken = data / "grid/test/good/002.png"
    content = broken.read_bytes()
    broken.write_bytes(b"no picture")
    result = evaluate(data, backbone, out=tmp_path / "out")
    assert [one.path for one in result.failed] == [str(broken)]
    assert (result.row("clip", "grid").pictures, result.row("clip", "grid").failed) == (7, 1)
    assert result.row("clip-ac").failed == 1
    broken.write_bytes(content)
    with blemish.evaluation.prepared(data, backbone=backbone, methods=["clip", "clip-ac"], out=tmp_path / "out") as run:
        assert run.todo == 2
        mended = run.execute()
    assert mended.failed == ()
    assert numbers(mended) == numbers(evaluate(data, backbone))


def test_a_broken_mask_leaves_pixel_metrics_undefined(data: Path, backbone: Backbone, tmp_path: Path) -> None:
    mask = data / "grid/ground_truth/scratch/001_mask.png"
    content = mask.read_bytes()
    mask.write_bytes(b"no picture")
    result = evaluate(data, backbone, methods=["clip"], out=tmp_path / "out")
    assert [one.path for one in result.failed] == [str(mask)]
    assert math.isnan(result.row("clip", "grid").pixel_auroc)
    assert not math.isnan(result.row("clip", "grid").image_auroc)
    mask.write_bytes(content)
    with blemish.evaluation.prepared(data, backbone=backbone, methods=["clip"], out=tmp_path / "out") as run:
        assert run.todo == 0
        assert not math.isnan(run.execute().row("clip", "grid").pixel_auroc)


def test_scores_that_are_no_numbers(data: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    cls = load_class("clip")
    original = cls.score

    def spoilt(self: object, features: object, text: object) -> object:
        found = original(self, features, text)  # type: ignore[arg-type]
        found.score[0] = torch.nan
        return found

    monkeypatch.setattr(cls, "score", spoilt)
    result = evaluate(data, backbone, methods=["clip", "clip-ac"], categories=["grid"])
    assert len(result.failed) == 2  # clip-ac is a kind of clip
    assert "no finite score" in result.failed[0].reason
    assert "000.png" in result.failed[0].path


def test_large_categories_are_measured_by_a_histogram(
    data: Path, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = evaluate(data, backbone, methods=["clip"])
    monkeypatch.setattr(measure, "EXACT_PIXELS", 1000)
    for kept in (False, True):
        out = tmp_path / f"out-{kept}"
        streamed = evaluate(data, backbone, methods=["clip"], out=out, maps=kept)
        for category in ("grid", "metal_nut"):
            one, other = exact.row("clip", category), streamed.row("clip", category)
            assert 0 < other.pixel_error < 0.01
            assert one.pixel_error == 0
            for metric in ("pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro"):
                assert abs(getattr(one, metric) - getattr(other, metric)) <= other.pixel_error
        assert (out / "maps").exists() == kept
        assert numbers(evaluate(data, backbone, methods=["clip"], out=out, maps=kept)) == numbers(streamed)


def test_set_wide_scores(data: Path, backbone: Backbone, learnt: Mapping[str, Path], tmp_path: Path) -> None:
    out, weights = tmp_path / "out", {"vcp-clip": learnt["vcp-clip"]}
    result = evaluate(data, backbone, methods=["clip-ad-sdp", "vcp-clip"], weights=weights, out=out)
    names = {row.name for row in result.rows}
    assert "vcp-clip (set-wide)" not in names  # it only stretches scores, which changes no rank
    row = result.row("clip-ad-sdp", "grid", "set-wide")
    record = {}
    for raw in (out / "scores.jsonl").read_text().splitlines():
        line = json.loads(raw)
        if line["method"] == "clip-ad-sdp" and line["category"] == "grid":
            record[line["path"]] = line
    text, peak = (np.array([line[part] for line in record.values()]) for part in ("text_score", "peak"))

    def stretched(values: np.ndarray) -> np.ndarray:
        return (values - values.min()) / (values.max() - values.min())

    wide = stretched(text) + stretched(peak)
    assert row.image_auroc == auroc([line["label"] for line in record.values()], wide)
    assert math.isnan(row.pixel_auroc)
    assert numbers(blemish.evaluation.recompute(out)) == numbers(result)


def test_draw(tmp_path: Path) -> None:
    add_category(tmp_path, "grid", normal=4, anomalous=12)
    add_category(tmp_path, "tile", normal=2, anomalous=2)
    whole = datasets.read("folder", tmp_path)
    assert draw(whole, None, 0) is whole
    few = draw(whole, 8, 0)
    assert Counter((one.category, one.label) for one in few) == {
        ("grid", 0): 2, ("grid", 1): 6, ("tile", 0): 2, ("tile", 1): 2
    }  # fmt: skip
    assert draw(whole, 8, 0) == few
    assert draw(whole, 8, 1) != few
    assert [one for one in whole if one in few.samples] == list(few)
    assert Counter(one.label for one in draw(whole, 2, 0).of("grid")) == {0: 1, 1: 1}


def test_frames(data: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    result = evaluate(data, backbone, methods=["clip"])
    for name in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(blemish.UsageError, match=f"pip install {name}"):
            getattr(result, f"to_{name}")()
        monkeypatch.undo()


@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_frames_hold_the_rows(data: Path, backbone: Backbone, name: str) -> None:
    pytest.importorskip(name)
    result = evaluate(data, backbone, methods=["clip"])
    frame = getattr(result, f"to_{name}")()
    assert frame.shape[0] == len(result.rows) == 3
    assert list(frame["category"]) == ["grid", "metal_nut", "mean"]
    assert float(frame["image_auroc"][0]) == result.rows[0].image_auroc


def test_frames_are_made_of_plain_columns(tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    add_category(tmp_path, "alien", masks=False)
    result = evaluate(tmp_path, backbone, methods=["clip"])
    for name in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(DataFrame=list))
        first, mean = getattr(result, f"to_{name}")()
        assert set(first) == {f.name for f in dataclasses.fields(result.rows[0])}
        assert (first["method"], first["category"], first["mean"], mean["mean"]) == ("clip", "alien", False, True)
        assert first["image_auroc"] == result.rows[0].image_auroc
        assert {type(value) for value in first.values()} <= {str, bool, int, float}
        assert "pixel_aupro: it is not known where" in first["undefined"]


def test_how_wrong_a_score_is() -> None:
    labels, scores = np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.2, 0.5, 0.5, 0.15])
    np.testing.assert_allclose(wrongness(labels, scores), [0, 0.5, 1, 1 / 3, 2 / 3])
    found = choose(labels, scores, each=1)
    assert found == {"found": [3], "missed": [4], "false alarm": [2], "quiet": [0]}
    assert choose(np.array([1]), np.array([0.5]))["quiet"] == []


@pytest.mark.parametrize("metric", [auroc, average_precision])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.filterwarnings("ignore::blemish.metrics.UndefinedMetricWarning")
def test_resampling_is_that_of_the_metrics(seed: int, metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_CELLS", 500)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 9)
    scores = (labels + rng.normal(0, 1, 9)).round(seed)  # with ties
    draws = rows.resampled(labels, scores, 200, seed)[0 if metric is auroc else 1]
    expected: list[float] = []

    def kept(flags: object, values: object) -> float:
        expected.append(metric(flags, values))
        return expected[-1]

    interval = bootstrap_interval(labels, scores, kept, 200, seed)
    np.testing.assert_allclose(draws, expected, rtol=0, atol=1e-12)
    assert rows._interval(draws) == pytest.approx(tuple(interval), abs=1e-12)


def test_intervals(data: Path, backbone: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = evaluate(data, backbone, methods=["clip"], out=out, maps=True, seed=4)
    for row in result.rows:
        for metric in ("image_auroc", "image_ap", "pixel_auroc", "pixel_aupro"):
            low, high = getattr(row, f"{metric}_low"), getattr(row, f"{metric}_high")
            assert low <= getattr(row, metric) <= high, metric
    grid = blemish.datasets.read("folder", data, categories=["grid"])
    side = len(np.load(next((out / "maps/clip/grid").rglob("*.npy"))))
    boot = PixelBootstrap(seed=4)
    for sample in grid:
        values = np.load(out / "maps/clip/grid" / f"{sample.path.relative_to(data)}.npy")
        boot.update(measure.Masks()(sample, side), values)
    row, found = result.row("clip", "grid"), boot.intervals()
    assert (row.pixel_auroc_low, row.pixel_aupro_high) == (found.auroc.low, found.aupro.high)
    # A mean of two independent numbers is known better than the worse known of them.
    widths = [row.pixel_auroc_high - row.pixel_auroc_low for row in result.rows]
    assert widths[2] < max(widths[:2])
    stepped = blemish.evaluation.recompute(out, aupro="200").row("clip", "grid")
    assert math.isnan(stepped.pixel_aupro_low)
    assert stepped.pixel_auroc_low == row.pixel_auroc_low
