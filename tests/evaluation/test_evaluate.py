"""`blemish.evaluate` from a folder to rows: every method, shared passes, resuming, recomputing."""

from __future__ import annotations

import csv
import dataclasses
import inspect
import json
import math
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_trees import add_category, evaluate, numbers, options
from PIL import Image

import blemish
from blemish import methods
from blemish.clip import Backbone, Computation
from blemish.datasets.masks import resize_mask
from blemish.errors import UsageError
from blemish.evaluation import METRICS, EvaluationOptions, Run, prepare, recompute
from blemish.metrics import auroc, pixel_metrics
from blemish.scoring import Scorer, effective


@pytest.mark.slow
def test_every_method(data: Path, backbone: Backbone, learnt: Mapping[str, Path], passes: list[int]) -> None:
    result = evaluate(data, backbone, methods=["all"], weights=learnt)
    names = [name for name in methods.list_methods() if name not in ("anomalydino", "subspacead")]
    assert [row.method for row in result.rows if row.mean and row.scores == "picture"] == names
    assert "without which it has no score" in result.facts["left_out"]["anomalydino"]
    for name in names:
        for category in (None, "grid", "metal_nut"):
            row = result.row(name, category)
            assert row.pictures == (16 if category is None else 8)
            assert row.anomalous == row.pictures // 2
            assert all(0 <= getattr(row, metric) <= 1 for metric in METRICS), name
            assert 0 <= row.image_auroc_low <= row.image_auroc_high <= 1
    # at 518 pixels (the grid is the checkpoint's own) twice, with another activation, and once for each other size
    assert [entry["size"] for entry in result.facts["passes"]] == [518, 672, 518, 240, 448]
    assert sum(passes) == 16 * 5 + 16 * 3  # three methods encode the references of each category first


def test_methods_that_compute_alike_cost_one_pass(data: Path, backbone: Backbone, passes: list[int]) -> None:
    evaluate(data, backbone, methods=["clip"])
    alone = list(passes)
    passes.clear()
    evaluate(data, backbone, methods=["clip", "clip-ac"])
    assert passes == alone == [8, 8]


def test_what_makes_no_difference_parts_no_methods(backbone: Backbone) -> None:
    own = Computation(backbone.size)
    assert effective(replace(own, position="bilinear"), backbone) == own
    assert effective(replace(own, activation=backbone.model.config.vision_config.hidden_act), backbone) == own
    other = Computation(222, "gelu", "bilinear")
    assert effective(other, backbone) == other
    pixels = backbone.preprocess([Image.new("RGB", (30, 20), "red")], backbone.size)
    for same in (replace(own, position="bilinear"), replace(own, activation="quick_gelu")):
        with torch.no_grad():
            expected = backbone.encode_image(pixels, None, same).class_token
            found = backbone.encode_image(pixels, None, effective(same, backbone)).class_token
        assert torch.equal(expected, found)


def test_text_is_encoded_once_per_object(data: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[list[str]] = []
    cls = methods.load_class("clip")
    original = cls.text_features
    monkeypatch.setattr(cls, "text_features", lambda self, names: encoded.append(list(names)) or original(self, names))
    evaluate(data, backbone, methods=["clip"], batch_size=3)
    assert encoded == [["grid"], ["metal_nut"]]


def test_numbers_are_those_of_the_metrics(data: Path, backbone: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "out"
    row = evaluate(data, backbone, methods=["clip"], out=out, maps=True).row("clip", "grid")
    lines = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    here = [line for line in lines if line["category"] == "grid"]
    assert row.image_auroc == auroc([line["label"] for line in here], [line["score"] for line in here])
    samples = blemish.datasets.read("folder", data, categories=["grid"])
    maps = [np.load(out / "maps" / "clip" / "grid" / f"{line['path']}.npy") for line in here]
    masks = [resize_mask(sample.mask(), len(maps[0])) for sample in samples]
    exact = pixel_metrics(masks, maps)
    assert (row.pixel_auroc, row.pixel_ap, row.pixel_aupro) == (exact.auroc, exact.ap, exact.aupro)
    assert maps[0].dtype == np.float32
    for line, anomaly_map in zip(here, maps, strict=True):
        assert line["peak"] == anomaly_map.max()


def test_a_detector_gives_the_same_scores(data: Path, backbone: Backbone, tmp_path: Path) -> None:
    evaluate(data, backbone, methods=["clip"], out=tmp_path / "out")
    detector = blemish.load("clip", backbone=backbone, device="cpu")
    for raw in (tmp_path / "out" / "scores.jsonl").read_text().splitlines():
        line = json.loads(raw)
        found = detector(data / line["path"], object_name=line["category"])
        assert found.score == pytest.approx(line["score"], abs=1e-5)


def test_respects_the_picture_limit_of_the_detectors(data: Path, backbone: Backbone, tmp_path: Path) -> None:
    with Image.open(data / "grid/test/good/000.png") as image:
        large = image.resize((200, 100))
    large.save(data / "grid/test/good/000.png")
    detectors = {"clip": blemish.load("clip", backbone=backbone, device="cpu", max_pixels=19_999)}
    with prepare(options(data, backbone, methods=["clip"], out=tmp_path / "out")) as run:
        result = Run(run.dataset, detectors, run.folder, run.options, run.facts()).execute()
    assert [Path(failure.path).name for failure in result.failed] == ["000.png"]
    assert "more than max_pixels = 19,999" in result.failed[0].reason


def test_continues_after_a_kill(
    data: Path, backbone: Backbone, tmp_path: Path, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(data, backbone, out=tmp_path / "whole", batch_size=2)
    passes.clear()
    original = Scorer._run_pass

    def dying(self: Scorer, *rest: object) -> object:
        if len(passes) == 5:
            raise KeyboardInterrupt
        return original(self, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Scorer, "_run_pass", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluate(data, backbone, out=tmp_path / "out", batch_size=2)
    monkeypatch.undo()
    scores = tmp_path / "out" / "scores.jsonl"
    assert len(scores.read_text().splitlines()) == 5 * 2 * 2
    with scores.open("a") as file:
        file.write('{"method": "clip", "categ')  # cut off while being written
    with prepare(options(data, backbone, out=tmp_path / "out", batch_size=2)) as run:
        assert (run.todo, run.reused) == (12, 20)
        continued = run.execute()
    assert numbers(continued) == numbers(whole)
    assert len(scores.read_text().splitlines()) == 32


def test_nothing_is_done_twice(data: Path, backbone: Backbone, tmp_path: Path, passes: list[int]) -> None:
    first = evaluate(data, backbone, methods=["clip"], out=tmp_path / "out")
    passes.clear()
    second = evaluate(data, backbone, methods=["clip"], out=tmp_path / "out")
    assert passes == []
    assert numbers(first) == numbers(second)
    evaluate(data, backbone, out=tmp_path / "out")  # one method more: only that one is scored
    assert sum(passes) == 16
    lines = (tmp_path / "out" / "scores.jsonl").read_text().splitlines()
    assert [json.loads(line)["method"] for line in lines] == ["clip"] * 16 + ["clip-ac"] * 16
    assert not (tmp_path / "out" / "maps").exists()


def test_a_changed_picture_is_scored_again(data: Path, backbone: Backbone, tmp_path: Path, passes: list[int]) -> None:
    evaluate(data, backbone, methods=["clip"], out=tmp_path / "out", maps=True)
    passes.clear()
    shutil.copy(data / "grid/test/good/000.png", data / "grid/test/good/001.png")
    evaluate(data, backbone, methods=["clip"], out=tmp_path / "out", maps=True)
    assert passes == [1]


def test_recompute_equals_the_first_run(data: Path, backbone: Backbone, tmp_path: Path, passes: list[int]) -> None:
    out = tmp_path / "out"
    first = evaluate(data, backbone, out=out, maps=True, seed=3)
    kept = (out / "results.csv").read_bytes()
    passes.clear()
    recomputed = recompute(out)
    assert passes == []
    assert numbers(recomputed) == numbers(first)
    assert (out / "results.csv").read_bytes() == kept
    moved = data.rename(tmp_path / "moved")
    assert numbers(recompute(out, data=moved)) == numbers(first)
    stepped = recompute(out, data=moved, aupro="200")
    assert [row.pixel_aupro for row in stepped.rows] != [row.pixel_aupro for row in first.rows]
    assert [row.pixel_auroc for row in stepped.rows] == [row.pixel_auroc for row in first.rows]


def test_recompute_without_maps(data: Path, backbone: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = evaluate(data, backbone, out=out)
    assert numbers(recompute(out)) == numbers(first)
    row = recompute(out, aupro="200").row("clip", "grid")
    assert math.isnan(row.pixel_aupro)
    assert math.isnan(row.pixel_aupro_low)
    assert "not kept" in row.undefined["pixel_aupro"]
    assert row.pixel_ap == first.row("clip", "grid").pixel_ap
    with pytest.raises(UsageError, match="no evaluation"):
        recompute(tmp_path)
    with pytest.raises(UsageError, match="no scores of winclip"):
        recompute(out, methods=["winclip"])


def test_files(data: Path, backbone: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = evaluate(data, backbone, out=out)
    with (out / "results.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [line["category"] for line in table] == ["grid", "metal_nut", "mean"] * 2
    assert float(table[0]["image_auroc"]) == pytest.approx(result.rows[0].image_auroc)
    stored = json.loads((out / "results.json").read_text())
    assert len(stored["rows"]) == 6
    assert stored["facts"]["methods"]["clip"]["backbone_fingerprint"] == backbone.fingerprint
    assert [entry["methods"] for entry in stored["facts"]["passes"]] == [["clip", "clip-ac"]]
    text = (out / "results.md").read_text()
    assert text == result.to_markdown()
    assert "| clip-ac |" in text
    assert "used by clip, clip-ac" in text


@pytest.mark.skipif(sys.platform == "win32", reason="such names are not possible there")
def test_categories_that_are_formulas_or_html(backbone: Backbone, tmp_path: Path) -> None:
    for category in ("=cmd()|'x'", "<img src=x onerror=alert(1)>"):
        add_category(tmp_path / "data", category)
    out = tmp_path / "out"
    evaluate(tmp_path / "data", backbone, out=out, methods=("clip",), report=True)
    with (out / "results.csv").open(newline="") as file:
        assert [line["category"] for line in csv.DictReader(file)] == [
            "<img src=x onerror=alert(1)>",
            "'=cmd()|'x'",
            "mean",
        ]
    assert "<img src=x" not in (out / "report.html").read_text()


def test_arguments_that_do_not_go_together(data: Path, backbone: Backbone, tmp_path: Path) -> None:
    for wrong, words in (
        ({"maps": True}, "folder"),
        ({"methods": []}, "no methods"),
        ({"methods": ["anomlyclip"]}, "did you mean anomalyclip"),
        ({"weights": {"winclip": "x"}}, "not among the methods"),
        ({"aupro": "fast"}, "aupro"),
        ({"limit": 1}, "at least 2"),
        ({"batch_size": 0}, "batch_size"),
        ({"categories": ["gird"]}, "gird"),
        ({"methods": ["coop"]}, "learnt parts"),
    ):
        with pytest.raises(UsageError, match=words):
            evaluate(data, backbone, **wrong)


def test_an_evaluation_of_another_version_is_refused(data: Path, backbone: Backbone, tmp_path: Path) -> None:
    evaluate(data, backbone, methods=["clip"], out=tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "run.json").read_text())
    (tmp_path / "out" / "run.json").write_text(json.dumps({**facts, "format": 1}))
    with pytest.raises(UsageError, match="another version of blemish"):
        recompute(tmp_path / "out")


def test_every_option_is_an_argument_and_is_documented() -> None:
    fields = [field.name for field in dataclasses.fields(EvaluationOptions)]
    assert list(inspect.signature(blemish.evaluate).parameters) == fields
    assert EvaluationOptions.__doc__ is not None
    assert all(f"        {name}: " in EvaluationOptions.__doc__ for name in fields)
