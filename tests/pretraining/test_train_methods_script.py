"""The script that trains what ships: it keeps the epoch that judges best, and says where one is worse than CLIP."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blemish.clip import load_backbone
from blemish.methods import load_class, weights
from blemish.methods.base import Method
from blemish.training import Features, Sample


@pytest.fixture
def script() -> Any:
    pytest.importorskip("cv2")
    import train_methods

    return train_methods


def plates(seed: int, count: int, photos: object) -> list[Sample]:
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        pixels, mask = rng.integers(90, 130, (60, 60, 3)).astype(np.uint8), np.zeros((60, 60), bool)
        if number % 2:
            pixels[10:35, 15:40], mask[10:35, 15:40] = 250, True
        samples.append(Sample(Image.fromarray(pixels), mask, number % 2, "plate"))
    return samples


def test_methods_that_are_computed_alike_are_trained_together(
    script: Any,
    tiny_backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(script, "synthetic", plates)
    monkeypatch.setattr(script, "products", lambda *a: (plates(*a), np.arange(a[1]) // 2))
    made: list[int] = []
    create = script.create
    small = {"size": 148, "activation": "checkpoint"}
    monkeypatch.setattr(script, "create", lambda name, backbone, config=None: create(name, backbone, config or small))
    keep = Features.__init__
    monkeypatch.setattr(Features, "__init__", lambda *a, **k: made.append(1) or keep(*a, **k))
    options = ["--backbone", str(tiny_backbone), "--samples", "6", "--judged", "6", "--epochs", "2"]
    monkeypatch.setattr(sys, "argv", ["x", "april-gan", "vcp-clip", "coop", *options, "--out", str(tmp_path)])
    script.main()
    said = capsys.readouterr().out
    # april-gan and vcp-clip together, coop resizes positions otherwise; each time for training, judging and comparing
    assert len(made) == 6
    backbone = load_backbone(str(tiny_backbone))
    for name in ("april-gan", "vcp-clip", "coop"):
        header = weights.read_header(tmp_path / f"{name}.safetensors")
        assert header.backbone_fingerprint == backbone.fingerprint
        assert header.trained_on.startswith("6 synthetic pictures")
        assert f"image score by {header.config['image_score']}" in said
        assert f"{name}: epoch 2 loss" in said


def test_sizes_are_compared_for_methods_that_learn_nothing(
    script: Any, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "products", lambda *a: (plates(*a), np.arange(a[1]) // 2))
    options = ["--backbone", str(tiny_backbone), "--judged", "6", "--sizes", "74", "148"]
    monkeypatch.setattr(sys, "argv", ["x", "clip", "clip-ad", *options])
    script.main()
    said = [line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if " pixels: " in line]
    assert [name for name, _ in said] == [f"{m}, {s} pixels" for m in ("clip", "clip-ad") for s in (74, 148)]
    assert all(0 <= value <= 1 for _, scores in said for value in json.loads(scores).values())
    monkeypatch.setattr(sys, "argv", ["x", "coop", *options])
    with pytest.raises(SystemExit):
        script.main()
    assert "coop: has to be trained first" in capsys.readouterr().err


def test_the_epoch_that_judges_best_is_kept(script: Any, tiny_backbone: Path) -> None:
    cls = load_class("coop")
    method = cls(load_backbone(str(tiny_backbone)), cls.Config(size=148))
    seen: list[dict[str, torch.Tensor]] = []

    def judge(judged: Method, *, briefly: bool = False) -> dict[str, float]:
        seen.append({key: value.clone() for key, value in judged.state_dict().items()})
        return {"image_auroc/text": [0.9, 0.5, 0.8, 0.7][len(seen) - 1], "pixel_auroc": 0.5}

    features = Features(method, plates(0, 4, None))
    assert script.learn(method, features, judge, epochs=3) == 2
    assert torch.equal(method.state_dict()["context"], seen[2]["context"])


@pytest.mark.parametrize("worse", [False, True])
def test_a_method_that_is_worse_than_clip_is_named(
    script: Any,
    worse: bool,
    tiny_backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def scores(judge: object, method: Method, *, briefly: bool = False) -> dict[str, float]:
        value = 0.4 if worse and method.info.name == "coop" else 0.6
        return {"image_auroc/text": value, "pixel_auroc": 0.6, "aupro": 0.6}

    monkeypatch.setattr(script.Judge, "__call__", scores)
    backbone = load_backbone(str(tiny_backbone))
    methods = [load_class(name)(backbone, load_class(name).Config(size=148)) for name in ("clip", "coop")]
    judged, compared = ((plates(seed, 2, None), np.zeros(2)) for seed in (1, 2))
    fine = script.run(methods, plates(0, 2, None), judged, compared, 1, tmp_path)
    assert fine is not worse
    assert ("coop: WORSE THAN clip in image AUROC: 0.4000 < 0.6000" in capsys.readouterr().out) is worse


def test_judging_leaves_the_method_as_it_was(script: Any, tiny_backbone: Path) -> None:
    cls = load_class("vcp-clip")
    method = cls(load_backbone(str(tiny_backbone)), cls.Config(size=148)).train()
    samples = plates(0, 4, None)
    masks = np.stack([np.asarray(Image.fromarray(s.mask).resize((148, 148))) for s in samples])
    judge = script.Judge(
        samples, script.shared([method], samples, scoring=True), masks, np.array([0, 1, 0, 1]), np.zeros(4)
    )
    config = method.config
    found, briefly = judge(method), judge(method, briefly=True)
    assert method.training
    assert method.config is config
    assert set(found) == {"image_auroc/top", "image_auroc/map", "pixel_auroc", "aupro"}
    assert set(briefly) == set(found) - {"aupro"}
    assert briefly["image_auroc/map"] == found["image_auroc/map"]
    assert briefly["pixel_auroc"] == pytest.approx(found["pixel_auroc"], abs=0.1)
    assert script.rule_of(found) in config.image_scores


def test_pictures_of_lost_defects_are_left_out(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), bool)
    monkeypatch.setattr(script, "make_sample", lambda seed, index, photos, size: (image, mask, ("nut", "", "lost", "")))
    assert script._drawn(1, 0) is None
    monkeypatch.setattr(script, "make_sample", lambda seed, index, photos, size: (image, mask, ("nut", "", "", "")))
    assert script._drawn(1, 0).object_name == "nut"


def test_products_are_ranked_each_by_itself(script: Any) -> None:
    """A product that is brighter than another does not count against a defect of the darker one."""
    labels, groups = np.array([0, 1, 0, 1, 1]), np.array([0, 0, 1, 1, 2])
    judge = script.Judge([], None, None, labels, groups)
    assert judge._within(np.array([0.1, 0.2, 0.8, 0.9, 0.0])) == 1.0
    assert judge._within(np.array([0.1, 0.2, 0.9, 0.8, 0.0])) == 0.5


def test_a_mutual_method_is_shown_each_product(
    script: Any, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[int] = []
    cls = load_class("musc")
    keep = cls.build_memory_bank  # type: ignore[attr-defined]
    monkeypatch.setattr(cls, "remember", lambda self, f: shown.append(len(f.class_token)) or keep(self, f))
    monkeypatch.setattr(script, "products", lambda *a: (plates(*a), np.array([0, 0, 1, 1, 1, 1])))
    create = script.create
    small = {"size": 148, "activation": "checkpoint"}
    monkeypatch.setattr(script, "create", lambda name, backbone, config=None: create(name, backbone, config or small))
    monkeypatch.setattr(sys, "argv", ["x", "musc", "--backbone", str(tiny_backbone), "--judged", "6"])
    script.main()
    said = capsys.readouterr().out
    assert shown == [2, 4, 2, 4]  # judged, then compared
    assert "musc judged" in said
    assert "musc compared" in said
    assert "epoch" not in said


def test_judged_products_are_photographed_again_and_again(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "SIDE", 128)
    samples, groups = script.products(3, 2 * script.EACH, [])
    assert sorted(set(groups)) == [0, 1]
    assert script.EACH < len(samples) == len(groups) <= 2 * script.EACH
    for one in (0, 1):
        labels = [sample.label for sample, group in zip(samples, groups, strict=True) if group == one]
        assert set(labels) == {0, 1}
