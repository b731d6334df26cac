"""What data leave undefined, pictures that fail, categories too large, set-wide rules."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evaluation_trees import add_category, evaluate, numbers, options
from PIL import Image

import blemish
from blemish import datasets
from blemish.clip import Backbone
from blemish.evaluation import limit_images, measure, prepare
from blemish.evaluation import options as option_module
from blemish.evaluation.measure import choose_examples, rank_error
from blemish.methods import load_class
from blemish.metrics import PixelBootstrap, auroc
from helpers import save_picture


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


def test_a_given_value_range_holds(tmp_path: Path, backbone: Backbone) -> None:
    values = np.random.default_rng(0).integers(0, 900, (40, 30)).astype(np.uint16)
    for number, name in enumerate(("good/0.png", "good/1.png", "bad/2.png")):
        path = tmp_path / "part" / "test" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values + np.uint16(number)).save(path)
    detector = blemish.load("clip", backbone=backbone, value_range=(0, 4095), device="cpu")
    scores = {}
    for name, value_range in (("given", (0, 4095)), ("plain", None)):
        out = tmp_path / name
        evaluate(tmp_path / "part", backbone, methods=["clip"], out=out, value_range=value_range)
        lines = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
        scores[name] = sorted(line["score"] for line in lines)
    pictures = (tmp_path / "part" / "test").rglob("*.png")
    expected = sorted(detector(path, object_name="part").score for path in pictures)
    assert scores["given"] == pytest.approx(expected, abs=1e-5)
    assert scores["given"] != scores["plain"]


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


def test_a_broken_picture_is_named_and_the_others_are_scored(data: Path, backbone: Backbone, tmp_path: Path) -> None:
    broken = data / "grid/test/good/002.png"
    content = broken.read_bytes()
    broken.write_bytes(b"no picture")
    result = evaluate(data, backbone, out=tmp_path / "out")
    assert [failure.path for failure in result.failed] == [str(broken)]
    assert (result.row("clip", "grid").pictures, result.row("clip", "grid").failed) == (7, 1)
    assert result.row("clip-ac").failed == 1
    broken.write_bytes(content)
    with prepare(options(data, backbone, out=tmp_path / "out")) as run:
        assert run.todo == 2
        repaired = run.execute()
    assert repaired.failed == ()
    assert numbers(repaired) == numbers(evaluate(data, backbone))


def test_a_broken_mask_leaves_pixel_metrics_undefined(data: Path, backbone: Backbone, tmp_path: Path) -> None:
    mask = data / "grid/ground_truth/scratch/001_mask.png"
    content = mask.read_bytes()
    mask.write_bytes(b"no picture")
    result = evaluate(data, backbone, methods=["clip"], out=tmp_path / "out")
    assert [failure.path for failure in result.failed] == [str(mask)]
    assert math.isnan(result.row("clip", "grid").pixel_auroc)
    assert not math.isnan(result.row("clip", "grid").image_auroc)
    mask.write_bytes(content)
    with prepare(options(data, backbone, methods=["clip"], out=tmp_path / "out")) as run:
        assert run.todo == 0
        assert not math.isnan(run.execute().row("clip", "grid").pixel_auroc)


def test_scores_that_are_no_numbers(data: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    cls = load_class("clip")
    original = cls.score

    def score(self: object, features: object, text: object) -> object:
        prediction = original(self, features, text)  # type: ignore[arg-type]
        prediction.score[0] = torch.nan
        return prediction

    monkeypatch.setattr(cls, "score", score)
    result = evaluate(data, backbone, methods=["clip", "clip-ac"], categories=["grid"])
    assert len(result.failed) == 2  # clip-ac is a kind of clip
    assert "no finite score" in result.failed[0].reason
    assert "000.png" in result.failed[0].path


def test_large_categories_are_measured_by_a_histogram(
    data: Path, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = evaluate(data, backbone, methods=["clip"])
    monkeypatch.setattr(option_module, "MAX_EXACT_PIXELS", 1000)
    for maps in (False, True):
        out = tmp_path / f"out-{maps}"
        streamed = evaluate(data, backbone, methods=["clip"], out=out, maps=maps)
        for category in ("grid", "metal_nut"):
            one, other = exact.row("clip", category), streamed.row("clip", category)
            assert 0 < other.pixel_error < 0.01
            assert one.pixel_error == 0
            for metric in ("pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro"):
                assert abs(getattr(one, metric) - getattr(other, metric)) <= other.pixel_error
        assert (out / "maps").exists() == maps
        assert numbers(evaluate(data, backbone, methods=["clip"], out=out, maps=maps)) == numbers(streamed)


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


def test_limit(tmp_path: Path) -> None:
    add_category(tmp_path, "grid", normal=4, anomalous=12)
    add_category(tmp_path, "tile", normal=2, anomalous=2)
    whole = datasets.read("folder", tmp_path)
    assert limit_images(whole, None, 0) is whole
    few = limit_images(whole, 8, 0)
    assert Counter((sample.category, sample.label) for sample in few) == {
        ("grid", 0): 2, ("grid", 1): 6, ("tile", 0): 2, ("tile", 1): 2
    }  # fmt: skip
    assert limit_images(whole, 8, 0) == few
    assert limit_images(whole, 8, 1) != few
    assert [sample for sample in whole if sample in few.samples] == list(few)
    assert Counter(sample.label for sample in limit_images(whole, 2, 0).of("grid")) == {0: 1, 1: 1}


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
        assert set(first) == {f.name for f in dataclasses.fields(result.rows[0])} - {"extra"}
        assert (first["method"], first["category"], first["mean"], mean["mean"]) == ("clip", "alien", False, True)
        assert first["image_auroc"] == result.rows[0].image_auroc
        assert {type(value) for value in first.values()} <= {str, bool, int, float}
        assert "pixel_aupro: there are no masks" in first["undefined"]


def test_examples() -> None:
    labels, scores = np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.2, 0.5, 0.5, 0.15])
    np.testing.assert_allclose(rank_error(labels, scores), [0, 0.5, 1, 1 / 3, 2 / 3])
    examples = choose_examples(labels, scores, count=1)
    assert examples == {"true positive": [3], "false negative": [4], "false positive": [2], "true negative": [0]}
    assert choose_examples(np.array([1]), np.array([0.5]))["true negative"] == []


def test_intervals(data: Path, backbone: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = evaluate(data, backbone, methods=["clip"], out=out, maps=True, seed=4)
    for row in result.rows:
        for metric in ("image_auroc", "image_ap", "pixel_auroc", "pixel_aupro"):
            low, high = getattr(row, f"{metric}_low"), getattr(row, f"{metric}_high")
            assert low <= getattr(row, metric) <= high, metric
    grid = blemish.datasets.read("folder", data, categories=["grid"])
    side = len(np.load(next((out / "maps/clip/grid").rglob("*.npy"))))
    bootstrap = PixelBootstrap(seed=4)
    for sample in grid:
        values = np.load(out / "maps/clip/grid" / f"{sample.path.relative_to(data)}.npy")
        bootstrap.update(measure.MaskCache()(sample, side), values)
    row, intervals = result.row("clip", "grid"), bootstrap.intervals()
    assert (row.pixel_auroc_low, row.pixel_aupro_high) == (intervals.auroc.low, intervals.aupro.high)
    # The mean of two independent numbers is more certain than the less certain of them.
    widths = [row.pixel_auroc_high - row.pixel_auroc_low for row in result.rows]
    assert widths[2] < max(widths[:2])
    stepped = blemish.evaluation.recompute(out, aupro="200").row("clip", "grid")
    assert math.isnan(stepped.pixel_aupro_low)
    assert stepped.pixel_auroc_low == row.pixel_auroc_low


def test_a_word_in_a_path_hides_no_broken_picture(tmp_path: Path, backbone: Backbone) -> None:
    add_category(tmp_path, "grid")
    broken = tmp_path / "grid/test/mask off/000.png"
    broken.parent.mkdir()
    broken.write_bytes(b"no picture")
    result = evaluate(tmp_path, backbone, methods=["clip"])
    assert [(failure.path, failure.kind) for failure in result.failed] == [(str(broken), "picture")]
    assert (result.row("clip", "grid").pictures, result.row("clip", "grid").failed) == (8, 1)


def test_a_failure_is_not_counted_as_done(data: Path, backbone: Backbone, tmp_path: Path) -> None:
    (data / "grid/test/good/002.png").write_bytes(b"no picture")
    for num_earlier in (0, 15):
        with prepare(options(data, backbone, methods=["clip"], out=tmp_path / "out")) as run:
            assert run.reused == num_earlier
            run.execute()
            assert (run.done, run.failed, run.todo, run.reused) == (15 - num_earlier, 1, 0, num_earlier)


def test_pictures_beyond_the_limit_are_refused(data: Path, backbone: Backbone, tmp_path: Path) -> None:
    result = evaluate(data, backbone, methods=["clip", "musc"], categories=["grid"], max_pixels=40 * 30 - 1)
    assert len(result.failed) == 8
    assert "pixels" in result.failed[0].reason


def test_library_errors_name_no_command_line_options(data: Path, backbone: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "out"
    evaluate(data, backbone, methods=["clip"], out=out, categories=["grid"])
    blemish.evaluation.recompute(out, aupro="200")
    words = (out / "results.json").read_text() + (out / "results.md").read_text()
    for call in (
        lambda: evaluate(data, backbone, limit=1),
        lambda: blemish.evaluation.recompute(tmp_path),
        lambda: blemish.evaluation.recompute(out, data=_with_one_picture_more(data)),
    ):
        with pytest.raises(blemish.UsageError) as raised:
            call()
        words += str(raised.value)
    folder = tmp_path / "locked"
    holder = prepare(options(data, backbone, methods=["clip"], out=folder))
    with holder, pytest.raises(blemish.OutputError) as locked:
        evaluate(data, backbone, methods=["clip"], out=folder)
    words += str(locked.value)
    assert "another run" in words
    assert re.findall(r"--\w+", words) == []


def _with_one_picture_more(data: Path) -> Path:
    save_picture(data / "grid/test/good/new.png", seed=5)
    return data
